//! Which result belongs to which call.

use super::key;
use crate::session::Recorded;
use ax_core::session::{Digest, Failure, StepKey};
use rmcp::model::CallToolResult;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// What a call came to; an error if the attempt is over before.
type Done = Result<CallToolResult, String>;

/// What a call comes to.
#[derive(Clone, Debug)]
pub(super) struct Outcome(Arc<watch::Sender<Option<Done>>>);

impl Outcome {
    fn open() -> Self {
        Self(Arc::default())
    }

    pub(super) fn done(done: Done) -> Self {
        Self(Arc::new(watch::Sender::new(Some(done))))
    }

    pub(super) fn set(&self, done: Done) {
        self.0.send_replace(Some(done));
    }

    pub(super) async fn wait(&self) -> Done {
        let mut changes = self.0.subscribe();
        let done = changes.wait_for(Option::is_some).await;
        done.ok().and_then(|done| done.clone()).unwrap_or_else(|| Err("it was given up".into()))
    }
}

/// A call, and whether a request of the harness waits for it or has its result.
#[derive(Debug)]
struct Slot {
    outcome: Outcome,
    taken: Arc<AtomicBool>,
}

/// A call that a request of the harness waits for; given back if that request breaks.
#[derive(Debug)]
pub(super) struct Taken {
    outcome: Outcome,
    taken: Arc<AtomicBool>,
    whole: bool,
}

impl Taken {
    pub(super) fn outcome(&self) -> Outcome {
        self.outcome.clone()
    }

    /// Whoever asked has the result.
    pub(super) fn whole(mut self) {
        self.whole = true;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.whole {
            self.taken.store(false, Ordering::Release);
        }
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Found {
    /// Its result is there, or under way.
    Known(Taken),
    /// It is a call of its own.
    New(StepKey, Taken),
}

/// The calls of an execution.
#[derive(Debug)]
pub(super) struct Ledger {
    recorded: HashMap<StepKey, Result<String, Failure>>,
    slots: HashMap<Digest, Vec<Slot>>,
}

impl Ledger {
    pub(super) fn new(journal: Vec<Recorded>) -> Self {
        let recorded = journal.into_iter().map(|recorded| (recorded.key, recorded.result));
        Self { recorded: recorded.collect(), slots: HashMap::new() }
    }

    pub(super) fn ask(&mut self, server: &str, digest: Digest) -> Found {
        let slots = self.slots.entry(digest).or_default();
        // Whoever asked before has not heard what came of it.
        let free = slots.iter().find(|slot| !slot.taken.swap(true, Ordering::AcqRel));
        if let Some(slot) = free {
            return Found::Known(slot.take());
        }
        let key = key(server, digest, slots.len() + 1);
        let recorded = self.recorded.remove(&key);
        let outcome = recorded.as_ref().map_or_else(Outcome::open, super::read);
        let slot = Slot { outcome, taken: Arc::new(AtomicBool::new(true)) };
        let taken = slot.take();
        slots.push(slot);
        if recorded.is_some() { Found::Known(taken) } else { Found::New(key, taken) }
    }
}

impl Slot {
    fn take(&self) -> Taken {
        let (outcome, taken) = (self.outcome.clone(), Arc::clone(&self.taken));
        Taken { outcome, taken, whole: false }
    }
}
