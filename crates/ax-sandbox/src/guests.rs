//! The user ids of sandboxes that belong together, so that a door can tell them from others.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The user ids by which some sandboxes come to the gateway, while they run. Clones are the same.
/// Where the runtime is no root, sandboxes have its own id, and this stays empty.
#[derive(Clone, Debug, Default)]
pub struct Guests(Arc<Mutex<BTreeSet<u32>>>);

/// One of them. It is none any more when this is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    all: Guests,
    id: u32,
}

impl Guests {
    /// Returns whether a sandbox that runs has this user id.
    pub fn has(&self, id: u32) -> bool {
        self.lock().contains(&id)
    }

    /// Takes a sandbox in, before it can come.
    pub(crate) fn welcome(&self, id: u32) -> Guest {
        let _nobody_else_has_it = self.lock().insert(id);
        Guest { all: self.clone(), id }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _is_in_it = self.all.lock().remove(&self.id);
    }
}
