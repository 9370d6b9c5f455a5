//! Where the background loops of the log run.

use std::fmt::Debug;
use std::thread;

use futures::future::BoxFuture;

/// Starts the background loops of a log.
///
/// The loops block in disk calls, so each needs a thread of its own, unless the disk is in memory:
/// a simulator spawns them on its one runtime, with the clock paused.
pub trait Spawner: Debug + Send + Sync + 'static {
    /// Starts a loop. It ends by itself when the log is closed or dropped.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>);
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
