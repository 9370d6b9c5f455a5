//! The embedded log keeps the law, on a disk in memory and on a real one.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::sync::{Arc, Mutex};

use ax_log::conformance::{self, Store};
use ax_log::embedded::fake::FakeDisk;
use ax_log::embedded::{Limits, OsDisk, ShuffleSpawner, ThreadSpawner};
use ax_log::{EmbeddedLog, EventLog, OpenError, Options};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;

/// A store on a disk in memory, whose crashes are losses of power.
struct Faked {
    seed: u64,
    disk: Mutex<FakeDisk>,
    limits: Limits,
}

impl Faked {
    fn new(seed: u64, limits: Limits) -> Self {
        Self { seed, disk: Mutex::new(FakeDisk::new(seed)), limits }
    }
}

impl Store for Faked {
    fn open(&self) -> LocalBoxFuture<'_, Arc<dyn EventLog>> {
        let options = Options {
            disk: Arc::new(self.disk.lock().unwrap().clone()),
            spawner: Arc::new(ShuffleSpawner::new(self.seed)),
            limits: self.limits,
            store: Some(7),
            ..Options::new("/data")
        };
        async move { Arc::new(EmbeddedLog::open(&options).unwrap()) as Arc<dyn EventLog> }
            .boxed_local()
    }

    fn crash(&self, log: Arc<dyn EventLog>) -> LocalBoxFuture<'_, ()> {
        let mut disk = self.disk.lock().unwrap();
        let after = disk.crash();
        *disk = after;
        drop(log);
        async {}.boxed_local()
    }

    fn break_writes(&self) -> bool {
        self.disk.lock().unwrap().fail_writes(true);
        true
    }
}

/// A store in a directory of the real disk, whose log is dropped without being closed where a crash
/// is asked for.
struct Real {
    dir: tempfile::TempDir,
    limits: Limits,
}

impl Store for Real {
    fn open(&self) -> LocalBoxFuture<'_, Arc<dyn EventLog>> {
        let options = Options {
            disk: Arc::new(OsDisk),
            spawner: Arc::new(ThreadSpawner),
            limits: self.limits,
            ..Options::new(self.dir.path())
        };
        async move {
            loop {
                match EmbeddedLog::open(&options) {
                    // The threads of the log before it have not ended yet.
                    Err(OpenError::Locked { .. }) => tokio::task::yield_now().await,
                    opened => return Arc::new(opened.unwrap()) as Arc<dyn EventLog>,
                }
            }
        }
        .boxed_local()
    }

    fn crash(&self, log: Arc<dyn EventLog>) -> LocalBoxFuture<'_, ()> {
        drop(log);
        async {}.boxed_local()
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_keeps_the_law_on_a_disk_that_loses_power() {
    for seed in support::seeds(20) {
        conformance::all(|| Faked::new(seed, Limits::tiny())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_keeps_the_law_with_its_real_sizes() {
    conformance::all(|| Faked::new(1, Limits::default())).await;
}

#[tokio::test]
async fn the_log_keeps_the_law_on_a_real_disk() {
    let fresh = || Real { dir: tempfile::tempdir().unwrap(), limits: Limits::tiny() };
    conformance::all(fresh).await;
}
