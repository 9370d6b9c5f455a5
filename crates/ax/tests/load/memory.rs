//! The memory of a process over time.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

const PAUSE: Duration = Duration::from_millis(500);

/// Resident memory, in KiB, as it was looked at.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    seen: Mutex<Vec<u64>>,
}

impl Memory {
    /// Looks at a process again and again, until it is told to stop.
    pub(crate) async fn watch(self: Arc<Self>, pid: u32, done: CancellationToken) {
        let mut ticks = interval(PAUSE);
        while done.run_until_cancelled(ticks.tick()).await.is_some() {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            let kib = line.split_whitespace().next().unwrap().parse().unwrap();
            self.seen.lock().unwrap().push(kib);
        }
    }

    /// The most in the first quarter of the time, in all of it, and in the last quarter.
    pub(crate) fn figures(&self) -> (u64, u64, u64) {
        let seen = self.seen.lock().unwrap();
        let quarter = seen.len().div_ceil(4);
        let most = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
        (most(&seen[..quarter]), most(&seen), most(&seen[seen.len() - quarter..]))
    }
}
