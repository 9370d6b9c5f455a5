//! Where the engine touches what a simulation replaces: time and chance.

use ax_core::time::Timestamp;
use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time. It may go backwards; the engine sees to it that a session's events do not.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Returns the time.
    fn now(&self) -> Timestamp;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Gives random numbers.
pub trait Entropy: Debug + Send + Sync + 'static {
    /// Fills a buffer with random bytes.
    fn fill(&self, buffer: &mut [u8]);

    /// Returns a random number.
    fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Returns a number for a new id.
    fn id(&self) -> u128 {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        u128::from_le_bytes(bytes)
    }
}

/// The random numbers of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    /// # Panics
    ///
    /// Panics if the system has none to give: no id would be safe.
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("the system gives random numbers");
    }
}
