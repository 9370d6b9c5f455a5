//! What the engine says and keeps when the disk or the clock fails it.
use crate::support::{Scripted, World};
use ax_core::id::Seq;
use ax_core::session::{Caller, Frame, Part};
use ax_core::time::Timestamp;
use ax_engine::{Clock, Code, Error, Submission, codec};
use ax_log::embedded::fake::FakeDisk;
use ax_log::embedded::{Limits, TaskSpawner};
use ax_log::{EmbeddedLog, Options};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn echo() -> Scripted {
    Scripted::new(|launch, talk| async move {
        let parts = vec![Part::text(launch.input[0].text.clone())];
        talk.say(Frame::Output { block: None, key: None, parts }).await;
        talk.end().await
    })
}

async fn on(disk: &FakeDisk) -> World {
    let log = EmbeddedLog::open(&Options {
        dir: "/data".into(),
        disk: Arc::new(disk.clone()),
        spawner: Arc::new(TaskSpawner),
        limits: Limits::tiny(),
        store: Some(1),
    });
    World::over(Arc::new(log.unwrap()))
}

async fn try_submit(
    world: &World,
    engine: &ax_engine::Engine,
    name: &str,
    bytes: usize,
) -> Result<Seq, Error> {
    let submission = Submission {
        session: Some(world.session(name)),
        agent: Some("test".into()),
        parts: vec![Part::text("z".repeat(bytes))],
        ..Submission::default()
    };
    let submitted = engine.submit(Caller::default(), &world.namespace, submission).await;
    submitted.map(|submitted| submitted.seq)
}

#[tokio::test]
async fn a_full_disk_refuses_and_loses_nothing_and_the_session_goes_on_when_there_is_room() {
    let disk = FakeDisk::new(7);
    let world = on(&disk).await;
    let engine = world.open(echo()).await;
    let first = world.submit(&engine, "before", "k").await;
    let before = world.until(&engine, "before", first).await;
    disk.set_capacity(Some(disk.used_bytes()));
    let mut refused = None;
    for _ in 0..200 {
        match try_submit(&world, &engine, "during", 6_000).await {
            Ok(_) => {}
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let refused = refused.expect("the disk is full at last");
    assert!(matches!(refused.code, Code::Full | Code::QueueFull), "{refused:?}");
    if refused.code == Code::Full {
        assert!(refused.code.retryable());
        assert!(!refused.hint().is_empty());
    }
    let read = engine.events(&world.namespace, &world.session("before"), Seq::ZERO, 0).await;
    assert_eq!(read.unwrap().events.len(), before.len(), "reading goes on");
    disk.set_capacity(None);
    let mut after = try_submit(&world, &engine, "after", 10).await;
    while after.as_ref().is_err_and(|error| error.code == Code::Full) {
        tokio::task::yield_now().await;
        after = try_submit(&world, &engine, "after", 10).await;
    }
    let names = world.until(&engine, "after", after.unwrap()).await;
    assert_eq!(names.last().unwrap(), "execution.completed");
    engine.shutdown().await;
}

#[tokio::test]
async fn after_a_failed_write_nothing_is_taken_and_everything_can_be_read() {
    let disk = FakeDisk::new(8);
    let world = on(&disk).await;
    let engine = world.open(echo()).await;
    let input = world.submit(&engine, "chat", "k").await;
    let before = world.until(&engine, "chat", input).await;
    disk.fail_writes(true);
    let refused = try_submit(&world, &engine, "chat", 10).await.unwrap_err();
    assert_eq!(refused.code, Code::Poisoned);
    disk.fail_writes(false);
    let refused = try_submit(&world, &engine, "chat", 10).await.unwrap_err();
    assert_eq!(refused.code, Code::Poisoned, "until the store is opened again");
    engine.failed().await;
    let read = engine.events(&world.namespace, &world.session("chat"), Seq::ZERO, 0).await;
    assert_eq!(read.unwrap().events.len(), before.len());
    engine.shutdown().await;
    let world = on(&disk.crash()).await;
    let engine = world.open(echo()).await;
    let again = world.submit(&engine, "chat", "k").await;
    assert_eq!(again, input, "what was acknowledged is known");
    engine.shutdown().await;
}

/// A clock that goes back with every look.
#[derive(Debug)]
struct Backwards(AtomicU64);

impl Clock for Backwards {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.fetch_sub(1_000, Ordering::SeqCst))
    }
}

#[tokio::test]
async fn time_does_not_go_back_within_a_session_whatever_the_clock_does() {
    let clock = Arc::new(Backwards(AtomicU64::new(1_800_000_000_000)));
    let world = World { clock, ..World::new() };
    let engine = world.open(echo()).await;
    for key in ["a", "b", "c"] {
        let input = world.submit(&engine, "chat", key).await;
        world.until(&engine, "chat", input).await;
    }
    let page = engine.events(&world.namespace, &world.session("chat"), Seq::ZERO, 0).await;
    let events = page.unwrap().events;
    let times: Vec<_> = events.iter().map(|(_, e)| codec::decode_event(e).unwrap().at).collect();
    assert!(times.is_sorted(), "{times:?}");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_log_that_takes_nothing_more_has_failed_and_one_that_is_closed_has_not() {
    let disk = FakeDisk::new(8);
    let world = on(&disk).await;
    let engine = world.open(echo()).await;
    assert!(!engine.info().has_failed);
    engine.shutdown().await;
    assert!(!engine.info().has_failed, "it has stopped");
    let world = on(&disk).await;
    let engine = world.open(echo()).await;
    disk.fail_writes(true);
    let error = try_submit(&world, &engine, "one", 10).await.unwrap_err();
    assert_eq!(error.code, Code::Poisoned);
    engine.failed().await;
    assert!(engine.info().has_failed);
    engine.shutdown().await;
    assert!(engine.info().has_failed, "that it has stopped does not mend it");
}
