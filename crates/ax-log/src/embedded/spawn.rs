//! Where the background loops of the log run.

use std::fmt::Debug;
use std::sync::Mutex;
use std::thread;

use futures::FutureExt as _;
use futures::future::BoxFuture;

/// Starts the background loops of a log.
///
/// The loops block in disk calls, so each needs a thread of its own, unless the disk is in memory:
/// a simulator spawns them on its one runtime, with the clock paused.
pub trait Spawner: Debug + Send + Sync + 'static {
    /// Starts a loop. It ends by itself when the log is closed or dropped.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>);

    /// Returns what a loop waits for where it has a place in the order but has not yet written: the
    /// others may overtake it there. On threads it is nothing.
    fn interlude(&self) -> Option<BoxFuture<'static, ()>> {
        None
    }
}

/// Gives each loop an operating system thread with a runtime of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadSpawner;

impl Spawner for ThreadSpawner {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            runtime.expect("a runtime without I/O asks nothing of the system").block_on(task);
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
        // Without its loops the log cannot start at all, so this can only happen at its opening.
        drop(thread.expect("the system has a thread left for the log"));
    }
}

/// Spawns the loops as tasks of the runtime that the log is opened on.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskSpawner;

impl Spawner for TaskSpawner {
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        drop(tokio::spawn(task));
    }
}

/// How often a loop of a [`ShuffleSpawner`] lets the others go ahead, at most.
const YIELD_COUNT_MAX: u64 = 150;

/// Spawns the loops as tasks, which overtake each other at random, under a seed.
#[derive(Debug)]
pub struct ShuffleSpawner(Mutex<u64>);

impl ShuffleSpawner {
    /// Makes a spawner; the same seed gives the same order.
    pub const fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl Spawner for ShuffleSpawner {
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        drop(tokio::spawn(task));
    }

    fn interlude(&self) -> Option<BoxFuture<'static, ()>> {
        let mut state = self.0.lock().expect("no holder of the lock panics");
        let count = super::fake::splitmix(&mut state) % (2 * YIELD_COUNT_MAX);
        drop(state);
        // Half of the time nobody gets ahead.
        let count = count.saturating_sub(YIELD_COUNT_MAX);
        let yields = async move {
            for _ in 0..count {
                tokio::task::yield_now().await;
            }
        };
        Some(yields.boxed())
    }
}
