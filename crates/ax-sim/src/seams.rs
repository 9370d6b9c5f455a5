//! Time and chance, as the engine is given them.

use crate::prng::Prng;
use ax_core::time::Timestamp;
use ax_engine::{Clock, Entropy};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::Instant;

/// A clock that follows the paused time of the runtime, and can be set forward and back.
#[derive(Debug)]
pub(crate) struct SimClock {
    base_millis: AtomicU64,
    start: Instant,
}

impl SimClock {
    /// Makes a clock that shows this time now. Only within a runtime.
    pub(crate) fn new(base_millis: u64) -> Self {
        Self { base_millis: AtomicU64::new(base_millis), start: Instant::now() }
    }

    pub(crate) fn millis(&self) -> u64 {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.base_millis.load(Ordering::Relaxed) + elapsed
    }

    pub(crate) fn set_forward(&self, millis: u64) {
        self.base_millis.fetch_add(millis, Ordering::Relaxed);
    }

    pub(crate) fn set_back(&self, millis: u64) {
        self.base_millis.fetch_sub(millis, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.millis())
    }
}

/// Random numbers under a seed.
#[derive(Debug)]
pub(crate) struct SimEntropy(Mutex<Prng>);

impl SimEntropy {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(Mutex::new(Prng::new(seed)))
    }
}

impl Entropy for SimEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        let mut prng = self.0.lock().expect("no holder of the lock panics");
        for chunk in buffer.chunks_mut(8) {
            let bytes = prng.number().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}
