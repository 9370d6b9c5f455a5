//! What is counted.

use super::process::Process;
use ax_core::session::{Event, Kind, LostReason, Outcome, StepKind, Usage};
use ax_engine::{Committed, Info};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info as About;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// The media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The bounds of times, in seconds: from a tenth of a millisecond to half a minute.
const SECONDS: [f64; 17] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0,
];

/// The label of a metric that has one; each has a fixed set of values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    kind: &'static str,
}

/// The labels of steps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    kind: &'static str,
    outcome: &'static str,
}

/// The labels of requests: methods are those that exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    code: String,
}

/// The label of times of requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabel {
    method: String,
}

type Kinds = Family<Label, Counter>;
type Times = Family<MethodLabel, Histogram, fn() -> Histogram>;

/// Everything that is counted, and the text of it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    appends: Counter,
    append_bytes: Counter,
    commit_seconds: Histogram,
    events: Kinds,
    executions_started: Counter,
    executions_ended: Kinds,
    attempts_lost: Kinds,
    steps_started: Kinds,
    steps_ended: Family<StepLabels, Counter>,
    tokens: Kinds,
    cost_dollars: Counter<f64, AtomicU64>,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Times,
    spans_dropped: Counter,
    gauges: Gauges,
    sessions: Family<Label, Gauge>,
}

/// What is looked at when somebody asks.
#[derive(Debug, Default)]
struct Gauges {
    awake: Gauge,
    running: Gauge,
    waiting_attempts: Gauge,
    queued_inputs: Gauge,
    followers: Gauge,
    connections: Gauge,
    resident: Gauge,
    descriptors: Gauge,
    threads: Gauge,
    cpu_seconds: Gauge<f64, AtomicU64>,
    blobs_put: Gauge,
    blob_bytes_put: Gauge,
    blobs_read: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Counts from zero.
    pub fn new() -> Self {
        let times = || Histogram::new(SECONDS);
        let mut made = Self {
            registry: Registry::with_prefix("ax"),
            appends: Counter::default(),
            append_bytes: Counter::default(),
            commit_seconds: times(),
            events: Kinds::default(),
            executions_started: Counter::default(),
            executions_ended: Kinds::default(),
            attempts_lost: Kinds::default(),
            steps_started: Kinds::default(),
            steps_ended: Family::default(),
            tokens: Kinds::default(),
            cost_dollars: Counter::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(times),
            spans_dropped: Counter::default(),
            gauges: Gauges::default(),
            sessions: Family::default(),
        };
        made.register_work();
        made.register_server();
        made
    }

    fn register_work(&mut self) {
        let r = &mut self.registry;
        r.register("log_appends", "Appends to the log", self.appends.clone());
        r.register("log_append_bytes", "Bytes of events appended", self.append_bytes.clone());
        r.register(
            "log_commit_seconds",
            "From the request of an append to its durability",
            self.commit_seconds.clone(),
        );
        r.register("events", "Events recorded, by kind", self.events.clone());
        r.register("executions_started", "Executions begun", self.executions_started.clone());
        r.register(
            "executions_ended",
            "Executions ended, by outcome",
            self.executions_ended.clone(),
        );
        r.register("attempts_lost", "Attempts lost, by reason", self.attempts_lost.clone());
        r.register("steps_started", "Steps begun, by kind", self.steps_started.clone());
        r.register("steps_ended", "Steps ended, by kind and outcome", self.steps_ended.clone());
        r.register("tokens", "Tokens of models, by kind", self.tokens.clone());
        r.register("cost_dollars", "Cost of models in US dollars", self.cost_dollars.clone());
        let sessions = "Sessions awake, by what they do";
        r.register("sessions_awake_by_state", sessions, self.sessions.clone());
        let g = &self.gauges;
        r.register("sessions_awake", "Sessions with a task", g.awake.clone());
        r.register("attempts_running", "Attempts that run", g.running.clone());
        let waiting = "Attempts that wait for a free place";
        r.register("attempts_waiting", waiting, g.waiting_attempts.clone());
        let queued = "Inputs that wait for their execution, of sessions awake";
        r.register("inputs_queued", queued, g.queued_inputs.clone());
    }

    fn register_server(&mut self) {
        let (r, g) = (&mut self.registry, &self.gauges);
        let version = env!("CARGO_PKG_VERSION");
        r.register("build", "What runs here", About::new([("version", version)]));
        r.register("followers", "Followers of sessions", g.followers.clone());
        r.register("connections", "Open connections", g.connections.clone());
        r.register("requests", "Requests, by method and code", self.requests.clone());
        let seconds = "From a request to the head of its answer, by method";
        r.register("request_seconds", seconds, self.request_seconds.clone());
        r.register("trace_spans_dropped", "Spans not exported", self.spans_dropped.clone());
        r.register("process_resident_bytes", "Resident memory", g.resident.clone());
        r.register("process_descriptors", "Open file descriptors", g.descriptors.clone());
        r.register("process_threads", "Threads", g.threads.clone());
        r.register("process_cpu_seconds", "Time on processors", g.cpu_seconds.clone());
        r.register("blobs_put", "Blobs put since the start", g.blobs_put.clone());
        r.register("blobs_put_bytes", "Their bytes", g.blob_bytes_put.clone());
        r.register("blobs_read", "Blobs read since the start", g.blobs_read.clone());
    }

    /// Counts an append and the events in it.
    pub(super) fn committed(&self, committed: &Committed<'_>) {
        self.appends.inc();
        self.append_bytes.inc_by(committed.bytes as u64);
        self.commit_seconds.observe(committed.took.as_secs_f64());
        for event in committed.events {
            self.event(event);
        }
    }

    fn event(&self, event: &Event) {
        let count = |family: &Kinds, kind| {
            family.get_or_create(&Label { kind }).inc();
        };
        count(&self.events, event.kind.name());
        match &event.kind {
            Kind::ExecutionStarted { .. } => {
                self.executions_started.inc();
            }
            Kind::ExecutionEnded { outcome, .. } => {
                count(&self.executions_ended, outcome_name(outcome));
            }
            Kind::AttemptLost { reason, .. } => count(&self.attempts_lost, reason_name(reason)),
            Kind::StepStarted { kind, .. } => count(&self.steps_started, step_name(*kind)),
            Kind::StepCompleted { usage, .. } | Kind::StepFailed { usage, .. } => self.usage(usage),
            _ => {}
        }
    }

    fn usage(&self, usage: &Usage) {
        let count = |kind, by| {
            self.tokens.get_or_create(&Label { kind }).inc_by(by);
        };
        if usage.model_calls > 0 || usage.input_tokens > 0 {
            count("input", usage.input_tokens.saturating_sub(usage.cached_tokens));
            count("cached", usage.cached_tokens);
            count("output", usage.output_tokens);
        }
        if usage.cost_micros > 0 {
            // Exact up to some billions of dollars.
            let micros = u32::try_from(usage.cost_micros).unwrap_or(u32::MAX);
            self.cost_dollars.inc_by(f64::from(micros) / 1e6);
        }
    }

    /// Counts a step that is over.
    pub(super) fn step_ended(&self, kind: &'static str, outcome: &'static str) {
        self.steps_ended.get_or_create(&StepLabels { kind, outcome }).inc();
    }

    /// Counts spans that were not exported.
    pub fn spans_dropped(&self, count: u64) {
        self.spans_dropped.inc_by(count);
    }

    /// Counts a request. `method` must be one of those there are: it becomes a label.
    pub fn request(&self, method: &str, code: &str, took: Duration) {
        let method = method.to_owned();
        let labels = RequestLabels { method: method.clone(), code: code.to_owned() };
        self.requests.get_or_create(&labels).inc();
        self.request_seconds.get_or_create(&MethodLabel { method }).observe(took.as_secs_f64());
    }

    /// Says how many sessions do what, and how many inputs wait.
    pub(super) fn sessions(
        &self,
        states: impl Iterator<Item = (&'static str, usize)>,
        queued: u64,
    ) {
        for (kind, count) in states {
            self.sessions.get_or_create(&Label { kind }).set(signed(count as u64));
        }
        self.gauges.queued_inputs.set(signed(queued));
    }

    /// Writes everything in the text format of OpenMetrics.
    pub fn text(&self, info: &Info, connections: usize) -> String {
        let (g, process) = (&self.gauges, Process::look());
        for (gauge, value) in [
            (&g.awake, info.awake_sessions),
            (&g.running, info.running_attempts),
            (&g.waiting_attempts, info.waiting_attempts),
            (&g.followers, info.followers),
            (&g.connections, connections as u64),
            (&g.resident, process.resident_bytes),
            (&g.descriptors, process.descriptors),
            (&g.threads, process.threads),
            (&g.blobs_put, info.blobs.puts),
            (&g.blob_bytes_put, info.blobs.put_bytes),
            (&g.blobs_read, info.blobs.gets),
        ] {
            gauge.set(signed(value));
        }
        let millis = u32::try_from(process.cpu_millis / 10).unwrap_or(u32::MAX);
        g.cpu_seconds.set(f64::from(millis) / 100.0);
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes everything");
        text
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The label of a kind of step.
pub(super) const fn step_name(kind: StepKind) -> &'static str {
    match kind {
        StepKind::Model => "model",
        StepKind::Tool => "tool",
        StepKind::User => "user",
    }
}

/// The label of an outcome.
pub(super) const fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Completed { .. } => "completed",
        Outcome::Failed { .. } => "failed",
        Outcome::Canceled { .. } => "canceled",
        Outcome::TimedOut { .. } => "timed_out",
    }
}

/// The label of a reason.
pub(super) const fn reason_name(reason: &LostReason) -> &'static str {
    match reason {
        LostReason::Runtime => "runtime",
        LostReason::Harness(_) => "harness",
        LostReason::Idle { .. } => "idle",
        LostReason::Step { .. } => "step",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ax_core::id::{ExecId, Namespace, Seq, SessionId, SessionKey};
    use ax_core::session::{Actor, State, StepKey};
    use ax_core::time::Timestamp;

    fn event(kind: Kind) -> Event {
        Event {
            at: Timestamp::from_millis(1),
            actor: Actor::Runtime,
            principal: "somebody".into(),
            request: "".into(),
            trace: "".into(),
            exec: Some(ExecId(1)),
            attempt: None,
            kind,
        }
    }

    fn commit(metrics: &Metrics, session: u128, step: &str) {
        let usage =
            Usage { input_tokens: 10, cached_tokens: 4, cost_micros: 5, ..Usage::default() };
        let result = ax_core::session::Body::from("1");
        let step = StepKey::from(step);
        let events = [event(Kind::StepCompleted { step, result, usage })];
        let key = SessionKey::new(Namespace::default(), SessionId(session));
        let (first, state) = (Seq(1), State::default());
        let took = Duration::from_millis(3);
        metrics.committed(&Committed {
            key: &key,
            first,
            events: &events,
            state: &state,
            bytes: 100,
            took,
        });
    }

    fn series(metrics: &Metrics) -> Vec<String> {
        let text = metrics.text(&Info::default(), 2);
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn what_is_counted_does_not_grow_with_sessions() {
        let metrics = Metrics::new();
        commit(&metrics, 1, "one");
        let few = series(&metrics);
        for session in 2..1_000 {
            commit(&metrics, session, &format!("step-{session}"));
        }
        let many = series(&metrics);
        assert_eq!(few.len(), many.len());
        let has = |line: &str| assert!(many.contains(&line.to_owned()), "{line} in {many:#?}");
        has("ax_log_appends_total 999");
        has("ax_log_append_bytes_total 99900");
        has("ax_log_commit_seconds_bucket{le=\"0.0025\"} 0");
        has("ax_log_commit_seconds_bucket{le=\"0.005\"} 999");
        has("ax_events_total{kind=\"step.completed\"} 999");
        has("ax_tokens_total{kind=\"input\"} 5994");
        has("ax_tokens_total{kind=\"cached\"} 3996");
        has("ax_connections 2");
        assert!(!many.concat().contains("ses_"), "{many:#?}");
    }
}
