//! Watches sessions for metrics and traces.
//!
//! What it remembers is of sessions that are awake: a session that sleeps costs nothing.

use super::metrics::{Metrics, step_name};
use super::trace::{Spans, Track};
use ax_core::id::{Seq, SessionKey};
use ax_core::session::{Event, Kind, Phase, State, StepKey};
use ax_engine::{Committed, Observer};
use opentelemetry_proto::tonic::trace::v1::Span;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// What a session that is awake may be doing.
const STATES: [&str; 5] = ["idle", "running", "waiting", "retrying", "unresolved"];

/// Counts what sessions do, and makes spans of it if somebody takes them.
#[derive(Debug)]
pub struct Watch {
    metrics: Arc<Metrics>,
    spans: Option<Spans>,
    awake: Mutex<BTreeMap<SessionKey, Awake>>,
}

/// A session that is awake.
#[derive(Debug, Default)]
struct Awake {
    /// Its tasks: for a moment, one that ends and one that begins.
    tasks: u32,
    state: &'static str,
    queued: u64,
    /// The kinds of the steps under way.
    steps: BTreeMap<StepKey, &'static str>,
    track: Track,
}

impl Watch {
    /// Counts in `metrics`; sends spans to `spans`, and counts those that it does not take.
    pub fn new(metrics: Arc<Metrics>, spans: Option<mpsc::Sender<Span>>) -> Self {
        let spans = spans.map(|sender| Spans { sender, metrics: Arc::clone(&metrics) });
        Self { metrics, spans, awake: Mutex::default() }
    }

    /// What is counted.
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionKey, Awake>> {
        self.awake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self, awake: &BTreeMap<SessionKey, Awake>) {
        let count = |state| awake.values().filter(|one| one.state == state).count();
        let queued = awake.values().map(|one| one.queued).sum();
        self.metrics.sessions(STATES.into_iter().map(|state| (state, count(state))), queued);
    }

    /// Brings the gauges that are looked at up to date.
    pub fn refresh(&self) {
        self.tally(&self.lock());
    }
}

impl Observer for Watch {
    fn wants_history(&self) -> bool {
        self.spans.is_some()
    }

    fn makes_spans(&self) -> bool {
        self.spans.is_some()
    }

    fn woke(&self, key: &SessionKey, state: &State, history: &[(Seq, Event)]) {
        let mut track = Track::default();
        for (seq, event) in history {
            track.learn(key, *seq, event);
        }
        let mut steps = BTreeMap::new();
        let pending = state.exec.iter().flat_map(|exec| exec.items.pending());
        for (step, item) in pending {
            if let ax_core::session::Item::Step(found) = item {
                steps.insert(step.clone(), step_name(found.kind));
            }
        }
        let (word, queued) = (doing(state), state.queue.len() as u64);
        let mut awake = self.lock();
        let tasks = awake.get(key).map_or(0, |one| one.tasks) + 1;
        awake.insert(key.clone(), Awake { tasks, state: word, queued, steps, track });
    }

    fn committed(&self, committed: &Committed<'_>) {
        self.metrics.committed(committed);
        let mut awake = self.lock();
        let Some(one) = awake.get_mut(committed.key) else { return };
        one.state = doing(committed.state);
        one.queued = committed.state.queue.len() as u64;
        let mut seq = committed.first;
        for event in committed.events {
            self.steps(one, event);
            if let Some(spans) = &self.spans {
                one.track.follow(committed.key, seq, event, committed.state, spans);
            }
            seq = Seq(seq.0 + 1);
        }
    }

    fn slept(&self, key: &SessionKey) {
        let mut awake = self.lock();
        let Some(one) = awake.get_mut(key) else { return };
        one.tasks = one.tasks.saturating_sub(1);
        if one.tasks == 0 {
            awake.remove(key);
        }
    }
}

impl Watch {
    /// Counts steps that end.
    fn steps(&self, awake: &mut Awake, event: &Event) {
        let (step, outcome) = match &event.kind {
            Kind::StepStarted { step, kind, .. } => {
                awake.steps.insert(step.clone(), step_name(*kind));
                return;
            }
            Kind::StepCompleted { step, .. } => (step, "completed"),
            Kind::StepFailed { step, .. } => (step, "failed"),
            Kind::StepUnknown { step } => (step, "unknown"),
            // What was under way is begun again under the same key, or is over.
            Kind::ExecutionEnded { .. } => return awake.steps.clear(),
            _ => return,
        };
        let kind = awake.steps.remove(step).unwrap_or("other");
        self.metrics.step_ended(kind, outcome);
    }
}

/// What a session is doing, in one of [`STATES`].
fn doing(state: &State) -> &'static str {
    match state.exec.as_ref().map(|exec| exec.phase) {
        None => "idle",
        Some(Phase::Running) => "running",
        Some(Phase::Parked) => "waiting",
        Some(Phase::Backoff { .. }) => "retrying",
        Some(Phase::Unresolved) => "unresolved",
    }
}
