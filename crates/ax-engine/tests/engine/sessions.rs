//! Sessions through the whole engine, with harnesses that are Rust functions.
use crate::support::{Scripted, World, gone};
use ax_core::id::Seq;
use ax_core::session::{
    Answer, AskKind, BlobRef, Body, Caller, Frame, Kind, Part, PartKind, SubmitPolicy,
};
use ax_core::time::Timestamp;
use ax_engine::{BranchPlan, Code, ListSessions, Submission, WaitState};
use ax_harness::{AskResult, JournalKind, Told};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

fn echo() -> Scripted {
    Scripted::new(|launch, talk| async move {
        let text = launch.input[0].text.clone();
        let parts = vec![Part::text(format!("you said {text}"))];
        talk.say(Frame::Output { block: None, key: None, parts }).await;
        talk.end().await
    })
}

#[tokio::test]
async fn an_input_is_carried_out_and_followed_to_its_end() {
    let world = World::new();
    let engine = world.open(echo()).await;
    let input = world.submit(&engine, "chat", "k1").await;
    let names = world.until(&engine, "chat", input).await;
    let expected = [
        "session.created",
        "input.received",
        "execution.started",
        "attempt.started",
        "output.message",
        "execution.completed",
    ];
    assert_eq!(names, expected);
    let view = engine.session(&world.namespace, &world.session("chat")).await.unwrap();
    assert_eq!((view.status.state, view.last), (WaitState::Completed, Seq(6)));
    let page = engine.sessions(&world.namespace, ListSessions::default()).await.unwrap();
    assert_eq!(page.sessions.len(), 1, "agents are no sessions");
    engine.shutdown().await;
}

#[tokio::test]
async fn an_input_that_is_sent_again_is_recorded_once() {
    let world = World::new();
    let engine = world.open(echo()).await;
    let first = world.submit(&engine, "chat", "k1").await;
    assert_eq!(world.submit(&engine, "chat", "k1").await, first);
    let other = Submission {
        session: Some(world.session("chat")),
        key: Some("k1".into()),
        parts: vec![Part::text("something else")],
        ..Submission::default()
    };
    let refused = engine.submit(Caller::default(), &world.namespace, other).await.unwrap_err();
    assert_eq!(refused.code, Code::KeyReused);
    engine.shutdown().await;
}

#[tokio::test]
async fn large_content_goes_to_the_blob_store_and_reaches_the_harness_as_a_file() {
    let world = World::new();
    let engine = world
        .open(Scripted::new(|launch, talk| async move {
            let (path, _, bytes) = launch.input[0].file.clone().unwrap();
            assert_eq!(tokio::fs::metadata(path).await.unwrap().len(), bytes);
            talk.end().await
        }))
        .await;
    let submission = Submission {
        session: Some(world.session("big")),
        agent: Some("test".into()),
        parts: vec![Part::text("x".repeat(1_000_000))],
        ..Submission::default()
    };
    let submitted = engine.submit(Caller::default(), &world.namespace, submission).await.unwrap();
    let names = world.until(&engine, "big", submitted.seq).await;
    assert_eq!(names.last().unwrap(), "execution.completed");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_failed_attempt_is_tried_again_and_its_steps_are_not() {
    let effects = Arc::new(AtomicU32::new(0));
    let world = World::new();
    let counted = Arc::clone(&effects);
    let engine = world
        .open(Scripted::new(move |launch, mut talk| {
            let effects = Arc::clone(&counted);
            async move {
                let effect = async {
                    effects.fetch_add(1, Ordering::SeqCst);
                };
                talk.once(&launch, "charge", effect).await;
                if launch.attempt.0 < 3 { gone("crashed") } else { talk.end().await }
            }
        }))
        .await;
    let input = world.submit(&engine, "pay", "k").await;
    let names = world.until(&engine, "pay", input).await;
    assert_eq!(names.last().unwrap(), "execution.completed");
    assert_eq!(names.iter().filter(|name| *name == "attempt.lost").count(), 2);
    assert_eq!(effects.load(Ordering::SeqCst), 1);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_person_is_asked_while_nothing_runs_and_the_answer_wakes_the_harness() {
    let memory = Arc::new(ax_log::MemoryLog::new());
    let world = World::over(memory.clone());
    let program = Scripted::new(|launch, mut talk| async move {
        let answered = launch.journal.iter().find_map(|entry| match &entry.kind {
            JournalKind::Ask(Some(AskResult::Answered(answer))) => Some(answer.clone()),
            _ => None,
        });
        if answered == Some(Answer::Approve) {
            return talk.end().await;
        }
        talk.say(Frame::Ask {
            key: "ok".into(),
            kind: AskKind::Approval,
            prompt: "Send it?".into(),
            choices: vec![],
            details: None,
            expires_millis: None,
        })
        .await;
        loop {
            match talk.told().await {
                Told::Park { .. } => return gone("parked"),
                Told::Answered { .. } => return talk.end().await,
                _ => {}
            }
        }
    });
    let engine = world.open(program.clone()).await;
    let input = world.submit(&engine, "mail", "k").await;
    world.until(&engine, "mail", input).await;
    while engine.info().awake_sessions > 0 {
        tokio::task::yield_now().await;
    }
    // Nothing of it is in memory; not even the engine that it began in.
    engine.shutdown().await;
    let world = World { log: Arc::new(memory.reopen()), ..world };
    let engine = world.open(program).await;
    let session = world.session("mail");
    let view = engine.session(&world.namespace, &session).await.unwrap();
    assert_eq!(view.status.state, WaitState::WaitingAsk);
    assert_eq!(view.status.asks.len(), 1);
    let via = "test".to_owned();
    let answered = engine
        .answer(Caller::default(), &world.namespace, &session, None, Answer::Approve, via)
        .await;
    answered.unwrap();
    let names = world.until(&engine, "mail", input).await;
    assert!(names.contains(&"actor.suspended".to_owned()), "{names:?}");
    assert_eq!(names.last().unwrap(), "execution.completed");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_sleep_wakes_the_harness_when_it_is_over() {
    let world = World::new();
    let engine = world
        .open(Scripted::new(|launch, mut talk| async move {
            let woken = launch
                .journal
                .iter()
                .any(|entry| matches!(entry.kind, JournalKind::Sleep { fired: true, .. }));
            if woken {
                return talk.end().await;
            }
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            let due_at = Timestamp::from_millis(u64::try_from(now.as_millis()).unwrap() + 600);
            talk.say(Frame::Sleep { key: "nap".into(), due_at }).await;
            loop {
                match talk.told().await {
                    Told::Park { .. } => return gone("parked"),
                    Told::Fired { .. } => return talk.end().await,
                    _ => {}
                }
            }
        }))
        .await;
    let input = world.submit(&engine, "nap", "k").await;
    let names = world.until(&engine, "nap", input).await;
    assert!(names.contains(&"timer.fired".to_owned()), "{names:?}");
    assert_eq!(names.last().unwrap(), "execution.completed");
    engine.shutdown().await;
}

#[tokio::test]
async fn pieces_of_output_are_put_together_before_they_are_kept() {
    let world = World::new();
    let engine = world
        .open(Scripted::new(|_, talk| async move {
            for _ in 0..1_000 {
                let (block, part, text) = ("b".into(), PartKind::Text, "word ".to_owned());
                talk.say(Frame::Delta { block, part, text }).await;
            }
            talk.say(Frame::Output { block: Some("b".into()), key: None, parts: vec![] }).await;
            talk.end().await
        }))
        .await;
    let input = world.submit(&engine, "talk", "k").await;
    world.until(&engine, "talk", input).await;
    let kinds = world.kinds(&engine, "talk").await;
    let text: String = kinds
        .iter()
        .filter_map(|kind| match kind {
            Kind::OutputDelta { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(text, "word ".repeat(1_000));
    let pieces = kinds.iter().filter(|kind| matches!(kind, Kind::OutputDelta { .. })).count();
    assert!(pieces < 100, "{pieces} pieces");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_branch_sees_its_prefix_and_goes_its_own_way() {
    let world = World::new();
    let engine = world.open(echo()).await;
    let input = world.submit(&engine, "main", "k").await;
    world.until(&engine, "main", input).await;
    let plan = BranchPlan { at: Some(Seq(2)), names: vec!["side".into()], ..BranchPlan::default() };
    let session = world.session("main");
    let made = engine.branch(Caller::default(), &world.namespace, &session, plan).await.unwrap();
    assert_eq!(made.sessions, [world.session("side").id]);
    let input = world.submit(&engine, "side", "k2").await;
    let names = world.until(&engine, "side", input).await;
    assert_eq!(names[..3], ["session.created", "input.received", "session.branched"]);
    assert_eq!(names.last().unwrap(), "execution.completed");
    assert_eq!(world.kinds(&engine, "main").await.len(), 6, "the parent does not notice");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_session_moves_to_another_store_with_everything_it_refers_to() {
    let world = World::new();
    let engine = world.open(echo()).await;
    let submission = Submission {
        session: Some(world.session("old")),
        agent: Some("test".into()),
        parts: vec![Part::text("y".repeat(200_000))],
        ..Submission::default()
    };
    let submitted = engine.submit(Caller::default(), &world.namespace, submission).await.unwrap();
    world.until(&engine, "old", submitted.seq).await;
    let archive = engine.export(&world.namespace, &world.session("old")).await.unwrap();
    let there = World::new();
    let other = there.open(echo()).await;
    let name = Some("new".to_owned());
    let imported = other.import(Caller::default(), &there.namespace, name, archive).await;
    let (session, last) = imported.unwrap();
    assert_eq!(session, there.session("new").id);
    assert_eq!(last, Seq(7), "the import is marked");
    let here = world.kinds(&engine, "old").await;
    assert_eq!(there.kinds(&other, "new").await[..6], here[..6]);
    let Kind::InputReceived { parts, .. } = &here[1] else { panic!("an input") };
    let Body::Blob(blob) = &parts[0].body else { panic!("a blob") };
    let id = ax_store::BlobId(blob.hash);
    other.blobs().get_bytes(&there.namespace, &id, 1 << 20).await.unwrap();
    engine.shutdown().await;
    other.shutdown().await;
}

#[tokio::test]
async fn an_archive_is_sent_and_taken_in_piece_by_piece_however_large_its_blobs_are() {
    use futures::StreamExt as _;
    const LARGE: usize = 20 << 20;
    let dir = tempfile::tempdir().unwrap();
    let blobs = ax_store::Blobs::local(dir.path()).unwrap();
    let world = World { blobs, ..World::new() };
    let engine = world.open(echo()).await;
    let content = bytes::Bytes::from(vec![b'z'; LARGE]);
    let blob = engine.blobs().put_bytes(&world.namespace, content).await.unwrap();
    let named = Body::Blob(BlobRef { hash: blob.id.0, bytes: blob.bytes });
    let submission = Submission {
        session: Some(world.session("old")),
        agent: Some("test".into()),
        parts: vec![Part::text("look"), Part { body: named, ..Part::text("") }],
        ..Submission::default()
    };
    let submitted = engine.submit(Caller::default(), &world.namespace, submission).await.unwrap();
    world.until(&engine, "old", submitted.seq).await;
    let archive = engine.export(&world.namespace, &world.session("old")).await.unwrap();
    let pieces: Vec<_> = archive.map(Result::unwrap).collect().await;
    let longest = pieces.iter().map(bytes::Bytes::len).max().unwrap();
    assert!(longest <= 1 << 20, "a piece has {longest} bytes");
    let archive = bytes::Bytes::from(pieces.concat());
    let there = World::new();
    let other = there.open(echo()).await;
    let import = async |archive: bytes::Bytes| {
        let cuts = (0..archive.len()).step_by(30_001);
        let pieces = cuts.map(|at| Ok(archive.slice(at..archive.len().min(at + 30_001))));
        let pieces = futures::stream::iter(pieces.collect::<Vec<_>>()).boxed();
        let name = Some("new".to_owned());
        other.import(Caller::default(), &there.namespace, name, pieces).await
    };
    let cut = import(archive.slice(..LARGE / 2)).await.unwrap_err();
    assert!(cut.to_string().contains("cut off"), "{cut}");
    assert!(other.blobs().stat(&there.namespace, &blob.id).await.unwrap().is_none());
    let mut damaged = bytes::BytesMut::from(&archive[..]);
    damaged[LARGE / 2] ^= 1;
    let refused = import(damaged.freeze()).await.unwrap_err();
    assert_eq!(refused.code, Code::Invalid, "{refused}");
    import(archive).await.unwrap();
    let stored = other.blobs().stat(&there.namespace, &blob.id).await.unwrap().unwrap();
    assert_eq!(stored.bytes, LARGE as u64);
    engine.shutdown().await;
    other.shutdown().await;
}

#[tokio::test]
async fn an_archive_of_large_events_comes_in() {
    let world = World::new();
    let program = Scripted::new(|_, talk| async move {
        for number in 0..200 {
            let parts = vec![Part::text(format!("{number:03}").repeat(15_000))];
            talk.say(Frame::Output { block: None, key: None, parts }).await;
        }
        talk.end().await
    });
    let engine = world.open(program).await;
    let input = world.submit(&engine, "large", "k").await;
    world.until(&engine, "large", input).await;
    let archive = engine.export(&world.namespace, &world.session("large")).await.unwrap();
    let there = World::new();
    let other = there.open(echo()).await;
    let name = Some("large".to_owned());
    other.import(Caller::default(), &there.namespace, name, archive).await.unwrap();
    let (here, there) = (world.kinds(&engine, "large").await, there.kinds(&other, "large").await);
    assert_eq!(there[..here.len()], here[..]);
    engine.shutdown().await;
    other.shutdown().await;
}

#[tokio::test]
async fn a_deleted_session_is_gone() {
    let world = World::new();
    let engine = world.open(echo()).await;
    let input = world.submit(&engine, "gone", "k").await;
    world.until(&engine, "gone", input).await;
    let session = world.session("gone");
    engine.delete(Caller::default(), &world.namespace, &session).await.unwrap();
    let missing = engine.session(&world.namespace, &session).await.unwrap_err();
    assert_eq!(missing.code, Code::NoSession);
    engine.shutdown().await;
}

#[tokio::test]
async fn no_session_begins_with_a_deleted_agent_and_those_that_have_it_go_on() {
    let world = World::new();
    let engine = world.open(echo()).await;
    let input = world.submit(&engine, "old", "k").await;
    world.until(&engine, "old", input).await;
    engine.delete_agent(&world.namespace, "test").await.unwrap();
    let submit = async |name: &str, agent: Option<&str>| {
        let submission = Submission {
            session: Some(world.session(name)),
            agent: agent.map(Into::into),
            parts: vec![Part::text("hello")],
            ..Submission::default()
        };
        engine.submit(Caller::default(), &world.namespace, submission).await
    };
    for agent in ["test", "test@1"] {
        assert_eq!(submit("new", Some(agent)).await.unwrap_err().code, Code::NoAgent, "{agent}");
    }
    for agent in [None, Some("test@1")] {
        let input = submit("old", agent).await.unwrap().seq;
        world.until(&engine, "old", input).await;
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn an_archive_whose_events_contradict_each_other_is_refused() {
    use bytes::{BufMut, BytesMut};
    use futures::StreamExt;
    let world = World::new();
    let engine = world.open(echo()).await;
    let input = world.submit(&engine, "old", "k").await;
    world.until(&engine, "old", input).await;
    let session = world.session("old");
    let page = engine.events(&world.namespace, &session, Seq::ZERO, 0).await.unwrap();
    let mut archive = BytesMut::from(&b"AXSESS\x00\x01"[..]);
    // The end of an execution before its beginning.
    for (_, event) in page.events.iter().rev() {
        archive.put_u8(1);
        archive.put_u32(u32::try_from(event.len()).unwrap());
        archive.extend_from_slice(event);
    }
    let hash = *blake3::hash(&archive).as_bytes();
    archive.put_u8(255);
    archive.put_u32(32);
    archive.extend_from_slice(&hash);
    let pieces = futures::stream::iter([Ok(archive.freeze())]).boxed();
    let name = Some("lies".to_owned());
    let refused = engine.import(Caller::default(), &world.namespace, name, pieces).await;
    assert_eq!(refused.unwrap_err().code, Code::Invalid);
    let lies = world.session("lies");
    assert!(engine.session(&world.namespace, &lies).await.is_err(), "nothing of it is kept");
    engine.shutdown().await;
}

#[tokio::test]
async fn an_engine_that_only_records_starts_and_takes_up_nothing() {
    let memory = Arc::new(ax_log::MemoryLog::new());
    let world = World::over(memory.clone());
    let launched = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&launched);
    let program = Scripted::new(move |_, mut talk| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            loop {
                talk.told().await;
            }
        }
    });
    let engine = world.open(program.clone()).await;
    let input = world.submit(&engine, "long", "k").await;
    while launched.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    engine.shutdown().await;
    let world = World { log: Arc::new(memory.reopen()), runs_max: 0, ..world };
    let engine = world.open(program).await;
    let session = world.session("long");
    let before = world.kinds(&engine, "long").await.len();
    let view = engine.session(&world.namespace, &session).await.unwrap();
    assert_eq!(view.status.exec.unwrap().0, 1);
    let again = world.submit(&engine, "long", "k").await;
    assert_eq!(again, input);
    assert_eq!(world.kinds(&engine, "long").await.len(), before);
    engine.shutdown().await;
    assert_eq!(launched.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_signal_with_a_known_key_and_other_content_is_refused() {
    let world = World::new();
    let engine = world.open(echo()).await;
    let input = world.submit(&engine, "chat", "k").await;
    world.until(&engine, "chat", input).await;
    let session = world.session("chat");
    let mut given = Vec::new();
    for payload in ["1", "1", "2"] {
        let key = Some("once".into());
        let (name, payload) = ("paid".to_owned(), payload.to_owned());
        let namespace = &world.namespace;
        let signal = engine.signal(Caller::default(), namespace, &session, name, key, payload);
        given.push(signal.await);
    }
    assert!(!given[0].as_ref().unwrap().duplicate);
    assert!(given[1].as_ref().unwrap().duplicate);
    assert_eq!(given[2].as_ref().unwrap_err().code, Code::KeyReused);
    engine.shutdown().await;
}

#[tokio::test]
async fn an_input_that_is_sent_twice_at_once_lands_once_whatever_ends_meanwhile() {
    for pause in 0..30 {
        let world = World::new();
        let over = Arc::new(tokio::sync::Semaphore::new(0));
        let wait = Arc::clone(&over);
        let program = Scripted::new(move |_, talk| {
            let wait = Arc::clone(&wait);
            async move {
                drop(wait.acquire().await);
                talk.end().await
            }
        });
        let engine = world.open(program).await;
        world.submit(&engine, "main", "before").await;
        let send = || {
            let submission = Submission {
                session: Some(world.session("main")),
                key: Some("twice".into()),
                parts: vec![Part::text("hello")],
                policy: Some(SubmitPolicy::Branch),
                ..Submission::default()
            };
            engine.submit(Caller::default(), &world.namespace, submission)
        };
        let second = async {
            for step in 0..pause {
                tokio::task::yield_now().await;
                if step == pause / 2 {
                    over.add_permits(100);
                }
            }
            over.add_permits(100);
            send().await
        };
        let (first, second) = tokio::join!(send(), second);
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!((first.session, first.seq), (second.session, second.seq), "pause {pause}");
        assert!(first.duplicate != second.duplicate, "pause {pause}: {first:?}, {second:?}");
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn an_import_that_is_not_whole_is_not_there_and_takes_nothing_up() {
    use futures::StreamExt;
    let launched = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&launched);
    let program = Scripted::new(move |_, mut talk| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            loop {
                talk.told().await;
            }
        }
    });
    let world = World::new();
    let engine = world.open(program.clone()).await;
    world.submit(&engine, "busy", "k").await;
    while launched.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let archive = engine.export(&world.namespace, &world.session("busy")).await.unwrap();
    let archive: Vec<_> = archive.map(Result::unwrap).collect().await;
    let archive = archive.concat();
    let memory = Arc::new(ax_log::MemoryLog::new());
    let there = World::over(memory.clone());
    let other = there.open(program.clone()).await;
    // All but the end comes, and then nothing more.
    let most = bytes::Bytes::copy_from_slice(&archive[..archive.len() - 40]);
    let pieces = futures::stream::iter([Ok(most)]).chain(futures::stream::pending()).boxed();
    let import = other.import(Caller::default(), &there.namespace, Some("half".into()), pieces);
    let mut import = Box::pin(import);
    let waits = tokio::time::timeout(Duration::from_millis(50), &mut import).await;
    assert!(waits.is_err(), "the import waits for the rest");
    let reopened = memory.reopen();
    drop(import);
    other.shutdown().await;
    let there = World { log: Arc::new(reopened), ..there };
    let other = there.open(program).await;
    let half = there.session("half");
    let found = other.session(&there.namespace, &half).await;
    assert_eq!(found.map(|view| view.id).unwrap_err().code, Code::NoSession);
    assert_eq!(launched.load(Ordering::SeqCst), 1, "only the one that was exported runs");
    other.shutdown().await;
    engine.shutdown().await;
}

#[tokio::test]
async fn an_import_that_nobody_waits_for_any_more_is_tidied_up() {
    use futures::StreamExt;
    let world = World::new();
    // More events than are imported at a time.
    let program = Scripted::new(|_, talk| async move {
        for number in 0..300 {
            let parts = vec![Part::text(number.to_string())];
            talk.say(Frame::Output { block: None, key: None, parts }).await;
        }
        talk.end().await
    });
    let engine = world.open(program).await;
    let input = world.submit(&engine, "chat", "k").await;
    world.until(&engine, "chat", input).await;
    let archive = engine.export(&world.namespace, &world.session("chat")).await.unwrap();
    let archive: Vec<_> = archive.map(Result::unwrap).collect().await;
    let import =
        |pieces| engine.import(Caller::default(), &world.namespace, Some("copy".into()), pieces);
    let whole = || futures::stream::iter(archive.clone()).map(Ok);
    let endless = whole().take(archive.len() - 1).chain(futures::stream::pending()).boxed();
    let waits = tokio::time::timeout(Duration::from_millis(50), import(endless)).await;
    assert!(waits.is_err(), "the import waits for the rest");
    let mut imported = import(whole().boxed()).await;
    while imported.as_ref().is_err_and(|error| error.code == Code::Exists) {
        tokio::task::yield_now().await;
        imported = import(whole().boxed()).await;
    }
    // As after any half import: what had begun under that id is gone for good.
    assert_eq!(imported.unwrap_err().code, Code::Deleted);
    let gone = engine.session(&world.namespace, &world.session("copy")).await;
    assert_eq!(gone.unwrap_err().code, Code::NoSession);
    engine.shutdown().await;
}
