//! Spans, made of events.
//!
//! A span is what lies between two events of the log, and its id is derived from them. So a
//! process that takes an execution up after a restart goes on with the same trace, and what a
//! crash cut short still gets its end. Names and attributes follow the conventions of
//! OpenTelemetry for generative AI; contents of messages are never among them.

use super::metrics::{Metrics, outcome_name, reason_name};
use ax_core::id::{AttemptId, ExecId, Seq, SessionKey};
use ax_core::session::{AgentRef, Event, Failure, Kind, Outcome, State, StepKey, StepKind, Usage};
use ax_core::time::Timestamp;
use ax_engine::trace::{self, Context};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event as Note, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// How many spans may wait for their export; what comes then is dropped and counted.
pub const SPANS_AHEAD: usize = 8_192;
/// How many moments of an execution are kept for its span.
const NOTES_MAX: usize = 128;
/// How many inputs that wait have their trace remembered.
const INPUTS_MAX: usize = 1_024;

/// Where spans go.
#[derive(Debug)]
pub(super) struct Spans {
    pub(super) sender: mpsc::Sender<Span>,
    pub(super) metrics: Arc<Metrics>,
}

impl Spans {
    fn send(&self, span: Span) {
        if self.sender.try_send(span).is_err() {
            self.metrics.spans_dropped(1);
        }
    }
}

/// What is known of a session's spans that are open.
#[derive(Debug, Default)]
pub(super) struct Track {
    /// The trace contexts of inputs, until their executions begin.
    inputs: BTreeMap<Seq, Arc<str>>,
    exec: Option<Exec>,
}

#[derive(Debug)]
struct Exec {
    id: ExecId,
    context: Context,
    agent: AgentRef,
    began_at: Timestamp,
    attempt: Option<(AttemptId, Timestamp)>,
    /// The span of the attempt before, which the next is linked to.
    before: Option<Vec<u8>>,
    steps: BTreeMap<StepKey, Step>,
    notes: Vec<Note>,
}

#[derive(Debug)]
struct Step {
    kind: StepKind,
    name: String,
    seq: Seq,
    began_at: Timestamp,
    again: bool,
}

impl Track {
    /// Takes in an event of the past, whose spans were sent long ago.
    pub(super) fn learn(&mut self, key: &SessionKey, seq: Seq, event: &Event) {
        self.event(key, seq, event, &AgentRef::default(), &mut |_| {});
    }

    /// Takes in an event, and sends the spans that it ends.
    pub(super) fn follow(
        &mut self,
        key: &SessionKey,
        seq: Seq,
        event: &Event,
        state: &State,
        spans: &Spans,
    ) {
        let agent = state.identity.as_ref().map(|identity| identity.agent.clone());
        let agent = agent.unwrap_or_default();
        self.event(key, seq, event, &agent, &mut |span| spans.send(span));
    }

    fn event(
        &mut self,
        key: &SessionKey,
        seq: Seq,
        event: &Event,
        agent: &AgentRef,
        send: &mut dyn FnMut(Span),
    ) {
        match &event.kind {
            Kind::InputReceived { .. } if !event.trace.is_empty() => {
                if self.inputs.len() < INPUTS_MAX {
                    self.inputs.insert(seq, Arc::clone(&event.trace));
                }
            }
            Kind::ExecutionStarted { input, .. } => {
                let Some(id) = event.exec else { return };
                let trace = self.inputs.remove(input).unwrap_or_default();
                self.exec = Some(Exec::new(key, id, &trace, agent, event.at));
            }
            Kind::ExecutionEnded { outcome, usage } => {
                if let Some(exec) = self.exec.take() {
                    exec.end(key, event.at, outcome, usage, agent, send);
                }
            }
            _ => {
                if let Some(exec) = &mut self.exec {
                    exec.event(key, seq, event, send);
                }
            }
        }
    }
}

impl Exec {
    fn new(
        key: &SessionKey,
        id: ExecId,
        trace: &str,
        agent: &AgentRef,
        began_at: Timestamp,
    ) -> Self {
        Self {
            id,
            context: Context::of(trace, key, id),
            agent: agent.clone(),
            began_at,
            attempt: None,
            before: None,
            steps: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    fn event(&mut self, key: &SessionKey, seq: Seq, event: &Event, send: &mut dyn FnMut(Span)) {
        let at = event.at;
        match &event.kind {
            Kind::AttemptStarted { .. } => {
                self.attempt = event.attempt.map(|attempt| (attempt, at));
            }
            Kind::AttemptLost { reason, .. } => {
                self.note(event);
                self.end_attempt(key, at, Some(failed(reason_name(reason))), send);
            }
            Kind::ActorSuspended => {
                self.note(event);
                self.end_attempt(key, at, None, send);
            }
            Kind::StepStarted { step, kind, name, again, .. } => {
                let (kind, name, again) = (*kind, name.clone(), *again);
                self.steps.insert(step.clone(), Step { kind, name, seq, began_at: at, again });
            }
            Kind::StepCompleted { step, usage, .. } => {
                self.end_step(key, step, at, usage, None, send);
            }
            Kind::StepFailed { step, failure, usage } => {
                self.end_step(key, step, at, usage, Some(error(failure)), send);
            }
            Kind::StepUnknown { step } => {
                let what = failed("unknown");
                self.end_step(key, step, at, &Usage::default(), Some(what), send);
                self.note(event);
            }
            Kind::AskRaised { .. }
            | Kind::AskAnswered { .. }
            | Kind::AskExpired { .. }
            | Kind::TimerSet { .. }
            | Kind::TimerFired { .. }
            | Kind::SignalDelivered { .. }
            | Kind::StepDiverged { .. }
            | Kind::BudgetExceeded { .. }
            | Kind::CheckpointCreated { .. }
            | Kind::WorkspaceUnsaved { .. } => self.note(event),
            _ => {}
        }
    }

    /// Keeps a moment for the span of the execution.
    fn note(&mut self, event: &Event) {
        if self.notes.len() < NOTES_MAX {
            let (time_unix_nano, name) = (nanos(event.at), event.kind.name().to_owned());
            self.notes.push(Note { time_unix_nano, name, ..Note::default() });
        }
    }

    fn id(&self, key: &SessionKey) -> Vec<u8> {
        trace::execution_id(key, self.id)
    }

    fn attempt_id(&self, key: &SessionKey, attempt: AttemptId) -> Vec<u8> {
        trace::attempt_id(key, self.id, attempt)
    }

    /// A span of this execution.
    fn span(&self, name: String, began_at: Timestamp, ended_at: Timestamp) -> Span {
        Span {
            trace_id: self.context.trace.clone(),
            name,
            kind: SpanKind::Internal as i32,
            start_time_unix_nano: nanos(began_at),
            end_time_unix_nano: nanos(ended_at).max(nanos(began_at)),
            flags: 1,
            ..Span::default()
        }
    }

    /// What every span says.
    fn about(&self, key: &SessionKey, operation: &str) -> Vec<KeyValue> {
        let mut about = vec![
            text("gen_ai.conversation.id", &key.session.to_string()),
            text("ax.namespace", key.namespace.as_str()),
            text("ax.execution", &self.id.to_string()),
        ];
        if !operation.is_empty() {
            about.push(text("gen_ai.operation.name", operation));
        }
        about
    }

    fn end_attempt(
        &mut self,
        key: &SessionKey,
        at: Timestamp,
        status: Option<Status>,
        send: &mut dyn FnMut(Span),
    ) {
        let Some((attempt, began_at)) = self.attempt.take() else { return };
        // What was under way ends with it: it is begun again, or nobody knows.
        let open: Vec<_> = self.steps.keys().cloned().collect();
        for step in open {
            let what = status.clone().or_else(|| Some(failed("suspended")));
            self.end_step_of(key, &step, (at, attempt), &Usage::default(), what, send);
        }
        let id = self.attempt_id(key, attempt);
        let link = self.before.replace(id.clone()).map(|span_id| Link {
            trace_id: self.context.trace.clone(),
            span_id,
            ..Link::default()
        });
        let mut attributes = self.about(key, "");
        attributes.push(number("ax.attempt", u64::from(attempt.0)));
        let span = Span {
            span_id: id,
            parent_span_id: self.id(key),
            attributes,
            links: link.into_iter().collect(),
            status,
            ..self.span(format!("attempt {}", attempt.0), began_at, at)
        };
        self.send(span, send);
    }

    fn end_step(
        &mut self,
        key: &SessionKey,
        step: &StepKey,
        at: Timestamp,
        usage: &Usage,
        status: Option<Status>,
        send: &mut dyn FnMut(Span),
    ) {
        let attempt = self.attempt.map_or(AttemptId(0), |(attempt, _)| attempt);
        self.end_step_of(key, step, (at, attempt), usage, status, send);
    }

    fn end_step_of(
        &mut self,
        key: &SessionKey,
        step: &StepKey,
        (at, attempt): (Timestamp, AttemptId),
        usage: &Usage,
        status: Option<Status>,
        send: &mut dyn FnMut(Span),
    ) {
        let Some(begun) = self.steps.remove(step) else { return };
        let (operation, name, kind) = match begun.kind {
            StepKind::Model => ("chat", format!("chat {}", begun.name), SpanKind::Client),
            StepKind::Tool => {
                ("execute_tool", format!("execute_tool {}", begun.name), SpanKind::Internal)
            }
            StepKind::User => ("", format!("step {}", begun.name), SpanKind::Internal),
        };
        let mut attributes = self.about(key, operation);
        attributes.push(text("ax.step", step.as_str()));
        attributes.push(number("ax.seq", begun.seq.0));
        attributes.push(number("ax.attempt", u64::from(attempt.0)));
        if begun.again {
            attributes.push(flag("ax.again"));
        }
        match begun.kind {
            StepKind::Model => {
                attributes.push(text("gen_ai.request.model", &begun.name));
                attributes.extend(consumed(usage));
            }
            StepKind::Tool => {
                attributes.push(text("gen_ai.tool.name", &begun.name));
                attributes.push(text("gen_ai.tool.call.id", step.as_str()));
            }
            StepKind::User => {}
        }
        if let Some(Status { message, .. }) = &status {
            let code = message.split(':').next().unwrap_or_default();
            attributes.push(text("error.type", code));
        }
        let span = Span {
            span_id: trace::derive(key, &format!("step at {}", begun.seq), 8),
            parent_span_id: self.attempt_id(key, attempt),
            attributes,
            status,
            ..self.span(name, begun.began_at, at)
        };
        self.send(Span { kind: kind as i32, ..span }, send);
    }

    fn end(
        mut self,
        key: &SessionKey,
        at: Timestamp,
        outcome: &Outcome,
        usage: &Usage,
        agent: &AgentRef,
        send: &mut dyn FnMut(Span),
    ) {
        let status = match outcome {
            Outcome::Completed { .. } => None,
            Outcome::Failed { failure } => Some(error(failure)),
            other => Some(failed(outcome_name(other))),
        };
        self.end_attempt(key, at, status.clone(), send);
        // What is known from the past does not say whose agent it was.
        let agent = if self.agent.name.is_empty() { agent.clone() } else { self.agent.clone() };
        let mut attributes = self.about(key, "invoke_agent");
        attributes.push(text("gen_ai.agent.name", &agent.name));
        attributes.push(text("gen_ai.agent.version", &agent.version.to_string()));
        attributes.push(text("ax.outcome", outcome_name(outcome)));
        attributes.extend(consumed(usage));
        if let Some(Status { message, .. }) = &status {
            attributes.push(text("error.type", message.split(':').next().unwrap_or_default()));
        }
        let span = Span {
            span_id: self.id(key),
            parent_span_id: self.context.parent.clone(),
            attributes,
            events: std::mem::take(&mut self.notes),
            status,
            ..self.span(format!("invoke_agent {}", agent.name), self.began_at, at)
        };
        self.send(span, send);
    }

    fn send(&self, span: Span, send: &mut dyn FnMut(Span)) {
        if !self.context.unsampled {
            send(span);
        }
    }
}

/// What was consumed, as far as there is something.
fn consumed(usage: &Usage) -> Vec<KeyValue> {
    let all = [
        ("gen_ai.usage.input_tokens", usage.input_tokens),
        ("gen_ai.usage.output_tokens", usage.output_tokens),
        ("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens),
        ("ax.cost_micros", usage.cost_micros),
    ];
    let used = all.into_iter().filter(|(_, count)| *count > 0);
    used.map(|(name, count)| number(name, count)).collect()
}

/// The status of a failure: its code. What it says may be about contents.
fn error(failure: &Failure) -> Status {
    Status { message: failure.code.clone(), code: StatusCode::Error as i32 }
}

fn failed(what: &str) -> Status {
    Status { message: what.into(), code: StatusCode::Error as i32 }
}

const fn nanos(at: Timestamp) -> u64 {
    at.millis.saturating_mul(1_000_000)
}

fn value(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn text(key: &str, text: &str) -> KeyValue {
    value(key, Value::StringValue(text.into()))
}

fn number(key: &str, number: u64) -> KeyValue {
    value(key, Value::IntValue(i64::try_from(number).unwrap_or(i64::MAX)))
}

fn flag(key: &str) -> KeyValue {
    value(key, Value::BoolValue(true))
}

/// Returns the spans of what a session's log says of it; those that are open are not among them.
pub fn spans_of(
    key: &SessionKey,
    agent: &AgentRef,
    events: impl IntoIterator<Item = (Seq, Event)>,
) -> Vec<Span> {
    let (mut track, mut spans) = (Track::default(), Vec::new());
    for (seq, event) in events {
        track.event(key, seq, &event, agent, &mut |span| spans.push(span));
    }
    spans
}

/// The request that exports spans (OTLP, `opentelemetry.proto.collector.trace.v1`).
pub fn export_request(
    service: &str,
    instance: &str,
    spans: Vec<Span>,
) -> ExportTraceServiceRequest {
    let version = env!("CARGO_PKG_VERSION");
    let attributes = vec![
        text("service.name", service),
        text("service.version", version),
        text("service.instance.id", instance),
    ];
    let scope = InstrumentationScope {
        name: "agent-executor".into(),
        version: version.into(),
        ..Default::default()
    };
    let scope_spans = ScopeSpans { scope: Some(scope), spans, ..Default::default() };
    let resource = Resource { attributes, ..Default::default() };
    let resource = ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![scope_spans],
        ..Default::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![resource] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ax_core::id::{Namespace, SessionId};

    fn key() -> SessionKey {
        SessionKey::new(Namespace::default(), SessionId(7))
    }

    fn event(millis: u64, attempt: Option<u32>, kind: Kind) -> Event {
        Event {
            at: Timestamp::from_millis(millis),
            actor: ax_core::session::Actor::Runtime,
            principal: "".into(),
            request: "".into(),
            trace: "".into(),
            exec: Some(ExecId(1)),
            attempt: attempt.map(AttemptId),
            kind,
        }
    }

    fn input(trace: &str) -> Event {
        let kind = Kind::InputReceived {
            key: None,
            digest: Default::default(),
            parts: Vec::new(),
            policy: ax_core::session::SubmitPolicy::Enqueue,
        };
        Event { trace: trace.into(), ..event(1, None, kind) }
    }

    /// The spans of a short execution whose input has this trace context; the first so many events
    /// are of the past.
    fn spans(trace: &str, past: usize) -> Vec<Span> {
        let started = Kind::ExecutionStarted { input: Seq(2), continues: None };
        let outcome = Outcome::Completed { result: None };
        let ended = Kind::ExecutionEnded { outcome, usage: Usage::default() };
        let events = [
            input(trace),
            event(2, None, started),
            event(3, Some(1), Kind::AttemptStarted { resumed: false }),
            event(9, Some(1), ended),
        ];
        let (mut track, mut sent) = (Track::default(), Vec::new());
        for (index, event) in events.iter().enumerate() {
            let seq = Seq(index as u64 + 2);
            if index < past {
                track.learn(&key(), seq, event);
            } else {
                track.event(&key(), seq, event, &AgentRef::default(), &mut |span| sent.push(span));
            }
        }
        sent
    }

    #[test]
    fn a_trace_that_a_client_began_is_continued() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let sent = spans(trace, 0);
        assert_eq!(sent.len(), 2);
        let execution = &sent[1];
        assert_eq!(execution.trace_id[..3], [0x0a, 0xf7, 0x65]);
        assert_eq!(execution.parent_span_id[..3], [0xb7, 0xad, 0x6b]);
        assert_eq!(sent[0].parent_span_id, execution.span_id);
        assert_eq!(execution.end_time_unix_nano - execution.start_time_unix_nano, 7_000_000);
        // The client does not record it, so nobody does.
        assert_eq!(spans(&trace.replace("-01", "-00"), 0), []);
    }

    #[test]
    fn what_another_process_began_has_the_same_ids() {
        assert_eq!(spans("", 0), spans("", 3));
        assert_eq!(spans("", 0)[0].trace_id.len(), 16);
        assert_ne!(spans("", 0)[0].span_id, spans("", 0)[1].span_id);
    }

    #[test]
    fn nonsense_is_no_trace_context() {
        let zeros = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        let forbidden = "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for text in ["", "00", "00-1-2-3", "00-ä-ä-ä", &zeros, forbidden] {
            assert!(Context::read(text).is_none(), "{text}");
        }
    }
}
