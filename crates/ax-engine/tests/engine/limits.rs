//! What holds whatever a harness or a client does.

use crate::support::{MANIFEST, Scripted, World};
use ax_core::session::{Caller, Frame, Part};
use ax_core::time::Timestamp;
use ax_engine::{AgentSource, Clock, Code, Engine, ListSessions, Submission, WaitState};
use ax_log::MemoryLog;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a harness chats that nobody stops.
const CHAT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_harness_that_never_stops_talking_runs_out_of_time() {
    let world = World::new();
    let program = Scripted::new(|_, talk| async move {
        let began = Instant::now();
        while began.elapsed() < CHAT {
            let parts = vec![Part::text("y")];
            talk.say(Frame::Output { block: None, key: None, parts }).await;
        }
        talk.end().await
    });
    let engine = world.open(program).await;
    let manifest = MANIFEST.replace("parkAfter: 50ms", "executionTimeout: 100ms");
    let source = AgentSource { manifest, dir: None };
    engine.apply_agent(&world.namespace, source).await.unwrap();
    let input = world.submit(&engine, "chat", "k").await;
    let names = world.until(&engine, "chat", input).await;
    assert_eq!(names.last().unwrap(), "execution.timed_out");
    engine.shutdown().await;
}

#[tokio::test]
async fn an_input_that_is_refused_leaves_no_session_behind() {
    let world = World::new();
    let engine = world.open(Scripted::new(|_, talk| async move { talk.end().await })).await;
    let submission = |title: &str, parts: usize| Submission {
        session: Some(world.session("s")),
        agent: Some("test".into()),
        title: Some(title.into()),
        parts: vec![Part::text("x"); parts],
        ..Submission::default()
    };
    for bad in [submission(&"t".repeat(17 * 1024), 1), submission("fine", 257)] {
        let refused = engine.submit(Caller::default(), &world.namespace, bad).await;
        refused.unwrap_err();
        let known = engine.session(&world.namespace, &world.session("s")).await;
        assert_eq!(known.unwrap_err().code, Code::NoSession);
    }
    let good = submission("fine", 1);
    let submitted = engine.submit(Caller::default(), &world.namespace, good).await.unwrap();
    assert!(submitted.created);
    engine.shutdown().await;
}

/// A clock that goes on with every look.
#[derive(Debug)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

#[tokio::test]
async fn what_was_cut_short_is_launched_again_oldest_first_and_as_places_allow() {
    let memory = Arc::new(MemoryLog::new());
    let clock = Arc::new(Ticking(AtomicU64::new(1_800_000_000_000)));
    let world = World { clock, runs_max: 0, ..World::over(memory.clone()) };
    let (launched, alive) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
    let program = Scripted::new({
        let (launched, alive) = (Arc::clone(&launched), Arc::clone(&alive));
        move |launch, talk| {
            launched.lock().unwrap().push(launch.key.session);
            let alive = Arc::clone(&alive);
            async move {
                assert_eq!(alive.fetch_add(1, Ordering::SeqCst), 0, "there is one place");
                tokio::task::yield_now().await;
                alive.fetch_sub(1, Ordering::SeqCst);
                talk.end().await
            }
        }
    });
    // An engine that only records leaves them as a stop would.
    let engine = world.open(program.clone()).await;
    let mut inputs = Vec::new();
    for name in ["d", "a", "c", "b", "e"] {
        inputs.push((name, world.submit(&engine, name, "k").await));
    }
    engine.shutdown().await;
    let world = World { log: Arc::new(memory.reopen()), runs_max: 1, ..world };
    let engine = world.open(program).await;
    for (name, input) in &inputs {
        world.until(&engine, name, *input).await;
    }
    let oldest_first: Vec<_> = inputs.iter().map(|(name, _)| world.session(name).id).collect();
    assert_eq!(*launched.lock().unwrap(), oldest_first);
    engine.shutdown().await;
}

#[tokio::test]
async fn lists_tell_who_runs_from_who_waits_for_a_place() {
    let memory = Arc::new(MemoryLog::new());
    let world = World { runs_max: 1, ..World::over(memory.clone()) };
    let program = Scripted::new(|_, mut talk| async move {
        loop {
            talk.told().await;
        }
    });
    let engine = world.open(program.clone()).await;
    for name in ["one", "two"] {
        world.submit(&engine, name, "k").await;
    }
    while engine.info().waiting_attempts == 0 {
        tokio::task::yield_now().await;
    }
    let (runs, waits) = (WaitState::Running, WaitState::WaitingCapacity);
    assert_eq!(states(&world, &engine, &[]).await, [runs, waits]);
    assert_eq!(states(&world, &engine, &[runs]).await, [runs]);
    assert_eq!(states(&world, &engine, &[waits]).await, [waits]);
    engine.shutdown().await;
    let world = World { log: Arc::new(memory.reopen()), runs_max: 0, ..world };
    let engine = world.open(program).await;
    assert_eq!(states(&world, &engine, &[]).await, [waits, waits], "nothing runs");
    engine.shutdown().await;
}

/// Lists sessions in these states, and compares each row with the session itself.
async fn states(world: &World, engine: &Engine, asked: &[WaitState]) -> Vec<WaitState> {
    let list = ListSessions { states: asked.to_vec(), limit: 1, ..ListSessions::default() };
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let list = ListSessions { cursor, ..list.clone() };
        let page = engine.sessions(&world.namespace, list).await.unwrap();
        for row in page.sessions {
            let named = world.session(&row.name);
            let shown = engine.session(&world.namespace, &named).await.unwrap();
            assert_eq!(row.status.state, shown.status.state, "{}", row.name);
            assert_eq!(row.status.waiting, shown.status.waiting, "{}", row.name);
            found.push(row.status.state);
        }
        cursor = page.cursor;
        if cursor.is_none() {
            found.sort_unstable();
            return found;
        }
    }
}

/// Many at once amount to more than one append of the log takes.
#[tokio::test]
async fn what_comes_at_once_is_made_durable_in_as_many_steps_as_it_needs() {
    let world = World::new();
    let program = Scripted::new(|launch, mut talk| async move {
        if launch.input[0].text == "talk" {
            for number in 0..200 {
                let parts = vec![Part::text(format!("{number}").repeat(15_000))];
                talk.say(Frame::Output { block: None, key: None, parts }).await;
            }
            return talk.end().await;
        }
        loop {
            talk.told().await;
        }
    });
    let engine = world.open(program).await;
    let manifest = MANIFEST.replace("parkAfter: 50ms", "parkAfter: 50ms\n    queue: 500");
    let source = AgentSource { manifest, dir: None };
    engine.apply_agent(&world.namespace, source).await.unwrap();
    let submission = |session: &str, text: String| Submission {
        session: Some(world.session(session)),
        agent: Some("test".into()),
        parts: vec![Part::text(text)],
        ..Submission::default()
    };
    let inputs = (0..200).map(|_| {
        let (next, _) = tokio::sync::oneshot::channel();
        let input = submission("many", "z".repeat(50_000));
        engine.submit_before(Caller::default(), &world.namespace, input, next)
    });
    let mut last = None;
    for submitted in futures::future::join_all(inputs).await {
        let seq = Some(submitted.unwrap().seq);
        assert!(seq > last, "they stay in their order");
        last = seq;
    }
    let talk = submission("talk", "talk".into());
    let talk = engine.submit(Caller::default(), &world.namespace, talk).await.unwrap();
    let names = world.until(&engine, "talk", talk.seq).await;
    assert_eq!(names.iter().filter(|name| *name == "output.message").count(), 200);
    engine.shutdown().await;
}
