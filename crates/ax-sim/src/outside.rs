//! The world outside: what crashes of the runtime do not undo, and what was seen of it.

use crate::prng;
use ax_core::id::{AttemptId, ExecId, Seq, SessionKey};
use ax_core::session::EffectClass;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;

/// An effect of a step, as the outside sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Act {
    /// The process whose harness it is of.
    pub(crate) process: u32,
    pub(crate) session: SessionKey,
    pub(crate) exec: ExecId,
    pub(crate) attempt: AttemptId,
    pub(crate) step: String,
    pub(crate) class: EffectClass,
}

/// Everything that survives.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Every effect, in order.
    pub(crate) acts: Vec<Act>,
    /// Steps that a harness was told are recorded.
    pub(crate) confirmed: BTreeSet<(SessionKey, ExecId, String)>,
    /// The attempt of each session whose harness is alive, in each process.
    pub(crate) alive: BTreeMap<(u32, SessionKey), (ExecId, AttemptId)>,
    /// What is being carried out: what a crash of the runtime leaves to orphans.
    pub(crate) under_way: Vec<Act>,
    /// What anybody was ever shown of a session, as hashes of events.
    pub(crate) history: BTreeMap<SessionKey, BTreeMap<Seq, u64>>,
    /// What is wrong.
    pub(crate) failures: Vec<String>,
    /// How many more things happen before the runtime dies.
    countdown: Option<u64>,
    /// How many attempts there were.
    pub(crate) attempts: u64,
}

/// A handle to the world outside.
#[derive(Clone, Default)]
pub(crate) struct Outside {
    state: Arc<Mutex<State>>,
    fatal: Arc<Notify>,
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outside")
    }
}

impl Outside {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    /// Notes that something is wrong.
    pub(crate) fn fail(&self, what: impl Into<String>) {
        let mut state = self.lock();
        if state.failures.len() < 20 {
            state.failures.push(what.into());
        }
        self.fatal.notify_one();
    }

    /// Whether nothing is wrong so far.
    pub(crate) fn is_sound(&self) -> bool {
        self.lock().failures.is_empty()
    }

    /// Sets after how many things the runtime dies.
    pub(crate) fn arm(&self, count: Option<u64>) {
        self.lock().countdown = count;
    }

    /// Something has happened.
    pub(crate) fn count(&self) {
        let mut state = self.lock();
        if let Some(left) = &mut state.countdown {
            *left = left.saturating_sub(1);
            if *left == 0 {
                state.countdown = None;
                self.fatal.notify_one();
            }
        }
    }

    /// Waits until the runtime shall die.
    pub(crate) async fn fatal(&self) {
        self.fatal.notified().await;
    }

    /// Someone was shown an event: it is the same for everyone and for ever (E2, E3).
    pub(crate) fn shown(&self, session: &SessionKey, seq: Seq, payload: &[u8]) {
        let hash = prng::hash(payload);
        let mut state = self.lock();
        let history = state.history.entry(session.clone()).or_default();
        let before = *history.entry(seq).or_insert(hash);
        drop(state);
        if before != hash {
            self.fail(format!("E3 immutable: event {seq} of {session} has changed"));
        }
    }

    /// A step is being carried out from here on.
    pub(crate) fn begin(&self, act: &Act) {
        self.lock().under_way.push(act.clone());
    }

    /// Its effect happens now, or never.
    pub(crate) fn settle(&self, act: &Act, happens: bool) {
        let mut state = self.lock();
        state.under_way.retain(|other| other != act);
        if happens {
            state.acts.push(act.clone());
        }
        drop(state);
        self.count();
    }

    /// Whether a step has had its effect; nothing while it may yet have it.
    pub(crate) fn find(&self, session: &SessionKey, exec: ExecId, step: &str) -> Option<bool> {
        let state = self.lock();
        let is_it =
            |act: &Act| act.session == *session && act.exec == exec && act.step.as_str() == step;
        (!state.under_way.iter().any(is_it)).then(|| state.acts.iter().any(is_it))
    }

    /// A process died. What its harnesses were doing is done by orphans, or not at all.
    pub(crate) fn orphaned(&self, process: u32, mut happens: impl FnMut(&Act) -> bool) {
        let mut state = self.lock();
        state.alive.retain(|(of, _), _| *of != process);
        let under_way = std::mem::take(&mut state.under_way);
        let (orphans, others) = under_way.into_iter().partition(|act| act.process == process);
        state.under_way = others;
        for act in orphans {
            if happens(&act) {
                state.acts.push(act);
            }
        }
    }
}
