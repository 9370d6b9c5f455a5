//! How many connections there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the open connections of a server.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    open: Arc<AtomicUsize>,
}

impl Connections {
    /// How many are open.
    pub fn count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
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
