//! How many connections there are.

use crate::CONNECTION_COUNT_MAX;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the open connections of a server, and says how many there may be.
#[derive(Clone, Debug)]
pub struct Connections {
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Default for Connections {
    fn default() -> Self {
        Self { open: Arc::default(), most: Arc::new(CONNECTION_COUNT_MAX.into()) }
    }
}

impl Connections {
    /// How many are open.
    pub fn count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Says how many there may be from now on. None that is open is closed for it, and the local
    /// socket never counts as too many.
    pub fn limit(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Whether there may be no more.
    pub(crate) fn are_enough(&self) -> bool {
        self.count() >= self.most.load(Ordering::Relaxed)
    }

    /// Counts one more, until what is returned is dropped.
    pub(crate) fn add(&self) -> Counted {
        self.open.fetch_add(1, Ordering::Relaxed);
        Counted { open: Arc::clone(&self.open) }
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub(crate) struct Counted {
    open: Arc<AtomicUsize>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}
