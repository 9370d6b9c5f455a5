//! Which result belongs to which call.

use super::answer::Answer;
use super::key;
use super::listener::progress;
use crate::session::Recorded;
use ax_core::session::{Digest, Failure, StepKey};
use rmcp::model::ProgressNotificationParam;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{broadcast, watch};

/// What a call came to; an error if the attempt is over before.
type Done = Result<Answer, String>;

/// What a call comes to, and how far it is.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    done: Arc<watch::Sender<Option<Done>>>,
    pub(super) progress: broadcast::Sender<ProgressNotificationParam>,
}

impl Outcome {
    fn new(done: Option<Done>) -> Self {
        Self { done: Arc::new(watch::Sender::new(done)), progress: progress() }
    }

    pub(super) fn set(&self, done: Done) {
        self.done.send_replace(Some(done));
    }

    pub(super) async fn wait(&self) -> Done {
        let mut changes = self.done.subscribe();
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
    /// Calls of earlier attempts that may have been carried out, and of which a probe can tell.
    doubts: HashSet<StepKey>,
    slots: HashMap<Digest, Vec<Slot>>,
    /// Calls that were denied in this attempt.
    denied: HashSet<Digest>,
}

impl Ledger {
    /// How many calls that are denied an attempt records.
    const DENIED_MAX: usize = 64;

    pub(super) fn new(journal: Vec<Recorded>, doubts: HashSet<StepKey>) -> Self {
        let recorded = journal.into_iter().map(|recorded| (recorded.key, recorded.result));
        let (slots, denied) = (HashMap::new(), HashSet::new());
        Self { recorded: recorded.collect(), doubts, slots, denied }
    }

    /// Whether it is to be recorded that a call is denied.
    pub(super) fn deny(&mut self, digest: Digest) -> bool {
        self.denied.len() < Self::DENIED_MAX && self.denied.insert(digest)
    }

    /// Whether a call may have been carried out in an earlier attempt.
    pub(super) fn is_in_doubt(&mut self, step: &StepKey) -> bool {
        self.doubts.remove(step)
    }

    /// Finds the call that answers a request, if there is one.
    pub(super) fn known(&mut self, server: &str, digest: Digest) -> Option<Taken> {
        let slots = self.slots.get(&digest).map_or(&[][..], Vec::as_slice);
        let is_free = slots.iter().any(|slot| !slot.taken.load(Ordering::Acquire));
        let next = key(server, digest, slots.len() + 1);
        if !is_free && !self.recorded.contains_key(&next) {
            return None;
        }
        match self.ask(server, digest) {
            Found::Known(taken) => Some(taken),
            Found::New(..) => unreachable!("nobody else has it meanwhile"),
        }
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
        let outcome = Outcome::new(recorded.as_ref().map(|result| Ok(Answer::read(result))));
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
