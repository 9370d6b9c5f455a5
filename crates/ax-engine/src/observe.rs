//! Whoever watches the engine work: metrics and traces.

use ax_core::id::{Seq, SessionKey};
use ax_core::session::{Event, State};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Sees what sessions do, once it is durable. It decides nothing and is told nothing back.
///
/// It is called by the tasks of sessions, for each session in the order of its log: whatever it
/// does must be quick and must not wait.
pub trait Observer: Debug + Send + Sync + 'static {
    /// Whether [`Observer::woke`] is to be given what the execution under way has recorded. That
    /// is read from the log, so it costs something.
    fn wants_history(&self) -> bool {
        false
    }

    /// Whether spans are made of what is seen, under the ids of [`crate::trace`]: harnesses are
    /// then told in which span they are.
    fn makes_spans(&self) -> bool {
        false
    }

    /// A session was loaded, with the input and the events of the execution under way if they are
    /// wanted; at most [`HISTORY_EVENTS_MAX`] of them.
    fn woke(&self, key: &SessionKey, state: &State, history: &[(Seq, Event)]) {
        let _ = (key, state, history);
    }

    /// Events became durable.
    fn committed(&self, committed: &Committed<'_>) {
        let _ = committed;
    }

    /// A session has no task any more.
    fn slept(&self, key: &SessionKey) {
        let _ = key;
    }
}

/// The most events that an observer is given of an execution under way.
pub const HISTORY_EVENTS_MAX: usize = 16_384;

/// One append that succeeded.
#[derive(Clone, Copy, Debug)]
pub struct Committed<'a> {
    /// The session.
    pub key: &'a SessionKey,
    /// The position of the first event.
    pub first: Seq,
    /// The events.
    pub events: &'a [Event],
    /// What they amount to, with everything before.
    pub state: &'a State,
    /// The size of the events as they are kept, in bytes.
    pub bytes: usize,
    /// How long the log took.
    pub took: Duration,
}

/// One more of something, as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Counted {
    pub(crate) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The sessions whose attempt waits for a place.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<BTreeSet<SessionKey>>);

impl Waiting {
    /// Adds a session, until what is returned is dropped.
    pub(crate) fn enter(self: &Arc<Self>, key: &SessionKey) -> Queued {
        self.lock().insert(key.clone());
        Queued(Arc::clone(self), key.clone())
    }

    pub(crate) fn has(&self, key: &SessionKey) -> bool {
        self.lock().contains(key)
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<SessionKey>> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

/// A session that waits for a place, as long as it lives.
#[derive(Debug)]
pub(crate) struct Queued(Arc<Waiting>, SessionKey);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

/// Sees nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}
