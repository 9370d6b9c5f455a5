//! Two engines on one store, as two processes have it.

use crate::support::{Scripted, Talk, World};
use ax_core::session::{Caller, Part};
use ax_engine::{Code, Engine, Error, Submission};
use ax_harness::{Exit, Launch};
use ax_log::shared::{Direct, Options, Owner};
use ax_log::{SharedLog, SharedStore};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// A store, and the time that passes for all.
struct Shared {
    store: SharedStore,
    millis: Arc<AtomicU64>,
}

impl Shared {
    fn new() -> Self {
        Self { store: SharedStore::new(1), millis: Arc::default() }
    }

    fn world(&self, id: u128) -> World {
        let millis = Arc::clone(&self.millis);
        let now: ax_log::types::Ticker =
            Arc::new(move || Duration::from_millis(millis.load(Ordering::Relaxed)));
        let owner = Owner { id, address: format!("server-{id}").into() };
        let options = Options { now: Arc::clone(&now), ..Options::new(owner) };
        let wire = Direct::new(self.store.clone(), now);
        World::over(Arc::new(SharedLog::open(Arc::new(wire), options)))
    }

    /// Time passes in which no process does anything.
    fn stand_still(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap();
        self.millis.fetch_add(millis, Ordering::Relaxed);
    }
}

async fn submit(world: &World, engine: &Engine, key: &str) -> Result<ax_core::id::Seq, Error> {
    let submission = Submission {
        session: Some(world.session("s")),
        agent: Some("test".into()),
        key: Some(key.into()),
        parts: vec![Part::text("hello")],
        ..Submission::default()
    };
    let submitted = engine.submit(Caller::default(), &world.namespace, submission).await;
    submitted.map(|submitted| submitted.seq)
}

/// A harness that never ends by itself, and says when it is gone.
fn endless(gone: &Arc<AtomicBool>) -> Scripted {
    struct Gone(Arc<AtomicBool>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let gone = Arc::clone(gone);
    Scripted::new(move |_: Launch, talk: Talk| {
        let gone = Gone(Arc::clone(&gone));
        async move {
            let _held = (gone, talk);
            std::future::pending::<Exit>().await
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_server_stood_still_is_taken_up_by_another_and_its_harness_is_ended() {
    let shared = Shared::new();
    let (one, two) = (shared.world(1), shared.world(2));
    let gone = Arc::default();
    let first = one.open(endless(&gone)).await;
    let input = submit(&one, &first, "k1").await.unwrap();
    while first.info().running_attempts == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    let second = two.open_bare(Scripted::new(|_, talk| async move { talk.end().await })).await;
    let refused = submit(&two, &second, "k2").await.unwrap_err();
    assert_eq!(refused.code, Code::Elsewhere);
    assert!(refused.message.contains("server-1"), "{refused:?}");
    assert!(!gone.load(Ordering::Relaxed));

    shared.stand_still(Duration::from_secs(20));
    submit(&two, &second, "k2").await.unwrap();
    let names = two.until(&second, "s", input).await;
    // The other input may have been carried out by now, too.
    let first_one = || names.iter().take_while(|name| *name != "execution.completed");
    let count = |name: &str| first_one().filter(|other| *other == name).count();
    assert_eq!((count("attempt.started"), count("attempt.lost")), (2, 1), "{names:?}");
    assert!(first_one().count() < names.len(), "it was completed: {names:?}");
    while first.info().running_attempts > 0 || !gone.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(10)).await;
    }
    let refused = submit(&one, &first, "k3").await.unwrap_err();
    assert_eq!(refused.code, Code::Elsewhere, "{refused:?}");
    assert!(refused.message.contains("server-2"), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_server_left_is_taken_up_without_being_asked_for() {
    let shared = Shared::new();
    let (one, two) = (shared.world(1), shared.world(2));
    let gone = Arc::default();
    let first = one.open(endless(&gone)).await;
    let input = submit(&one, &first, "k1").await.unwrap();
    while first.info().running_attempts == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    let second = two.open_bare(Scripted::new(|_, talk| async move { talk.end().await })).await;
    // It stops gently, so that nobody has to wait for its lease.
    first.shutdown().await;
    let names = two.until(&second, "s", input).await;
    assert_eq!(names.last().map(String::as_str), Some("execution.completed"), "{names:?}");
}
