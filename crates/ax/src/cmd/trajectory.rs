//! What a session did: its model and tool calls, what they took and cost, for people and programs.

use super::follow::each_event;
use crate::args::ExportFormat;
use crate::failure::Failure;
use crate::link::{Context, Link};
use crate::out::Style;
use crate::time::time_of_day;
use crate::view::json;
use crate::view::session::dollars;
use crate::view::table::{aligned, short};
use ax_core::id::{Namespace, Seq, SessionKey};
use ax_core::session::AgentRef;
use ax_engine::{Code, codec};
use ax_proto::v1;
use ax_proto::v1::event::Kind;
use ax_server::ops::{export_request, spans_of};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

/// How much of a name is shown, in characters.
const NAME_CHARS_MAX: usize = 48;

/// A step, from its first beginning to what came of it.
#[derive(Debug, Default)]
struct Step {
    seq: u64,
    execution: u32,
    kind: String,
    name: String,
    began_at_millis: u64,
    ended_at_millis: Option<u64>,
    /// How often it was begun.
    begun: u32,
    outcome: &'static str,
    usage: v1::Usage,
}

/// What a session did.
#[derive(Debug, Default)]
struct Trajectory {
    steps: Vec<Step>,
    /// Where the steps of the execution under way are.
    open: BTreeMap<String, usize>,
    /// What was answered from the journal.
    replayed: Replayed,
    total: v1::Usage,
}

#[derive(Debug, Default)]
struct Replayed {
    calls: u64,
    tokens: u64,
    cost_micros: u64,
}

/// Shows each step with what it took and cost.
pub(super) async fn show(cx: &Context, link: &Link, session: &str) -> Result<(), Failure> {
    let mut trajectory = Trajectory::default();
    each_event(link, session, 0, u64::MAX, |event| {
        trajectory.take(event);
        Ok(true)
    })
    .await?;
    if cx.out.json {
        for step in &trajectory.steps {
            cx.out.object(&step.json())?;
        }
        return cx.out.object(&trajectory.sum());
    }
    let heads = ["SEQ", "AT", "STEP", "NAME", "TOOK", "IN", "CACHED", "OUT", "COST", "RESULT"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(trajectory.steps.iter().map(Step::row));
    for (at, line) in aligned(&rows).iter().enumerate() {
        let line = if at == 0 { cx.out.style(Style::Bold, line) } else { line.clone() };
        cx.out.line(&line)?;
    }
    for line in trajectory.words() {
        cx.out.line(&line)?;
    }
    Ok(())
}

impl Trajectory {
    fn take(&mut self, event: &v1::Event) {
        let at = event.at_millis;
        match &event.kind {
            Some(Kind::ExecutionStarted(_)) => self.open.clear(),
            Some(Kind::StepStarted(started)) => self.begin(event, started),
            Some(Kind::StepCompleted(done)) => {
                self.end(&done.step, Some(at), "done", done.usage.unwrap_or_default());
            }
            Some(Kind::StepFailed(done)) => {
                self.end(&done.step, Some(at), "failed", done.usage.unwrap_or_default());
            }
            Some(Kind::StepUnknown(step)) => {
                self.end(&step.step, None, "unknown", v1::Usage::default());
            }
            Some(Kind::Note(note)) if note.name == "gateway.replayed" => self.replay(note),
            _ => {}
        }
    }

    fn begin(&mut self, event: &v1::Event, started: &v1::StepStarted) {
        if let Some(at) = self.open.get(&started.step) {
            let step = &mut self.steps[*at];
            step.begun += 1;
            step.outcome = "under way";
            return;
        }
        self.open.insert(started.step.clone(), self.steps.len());
        let kind = match started.kind() {
            v1::StepKind::Model => "model",
            v1::StepKind::Tool => "tool",
            v1::StepKind::User | v1::StepKind::Unspecified => "step",
        };
        self.steps.push(Step {
            seq: event.seq,
            execution: event.execution,
            kind: kind.to_owned(),
            name: started.name.clone(),
            began_at_millis: event.at_millis,
            begun: 1,
            outcome: "under way",
            ..Step::default()
        });
    }

    fn end(&mut self, step: &str, at: Option<u64>, outcome: &'static str, usage: v1::Usage) {
        let Some(index) = self.open.get(step) else { return };
        let step = &mut self.steps[*index];
        (step.ended_at_millis, step.outcome, step.usage) = (at, outcome, usage);
        let total = &mut self.total;
        total.input_tokens += usage.input_tokens;
        total.cached_tokens += usage.cached_tokens;
        total.output_tokens += usage.output_tokens;
        total.cost_micros += usage.cost_micros;
        total.model_calls += usage.model_calls;
        total.tool_calls += usage.tool_calls;
    }

    fn replay(&mut self, note: &v1::Note) {
        let Some(v1::body::Body::Text(text)) =
            note.data.as_ref().and_then(|body| body.body.as_ref())
        else {
            return;
        };
        let said: Value = serde_json::from_str(text).unwrap_or_default();
        let number = |name: &str| said[name].as_u64().unwrap_or(0);
        self.replayed.calls += number("calls");
        self.replayed.tokens += number("tokens");
        self.replayed.cost_micros += number("cost_micros");
    }

    /// How many model calls were begun again, and so perhaps paid again.
    fn again(&self) -> u32 {
        let models = self.steps.iter().filter(|step| step.kind == "model");
        models.map(|step| step.begun - 1).sum()
    }

    fn words(&self) -> Vec<String> {
        let total = &self.total;
        let tokens = total.input_tokens + total.output_tokens;
        let paid = format!(
            "paid: {} model calls, {tokens} tokens, {}; {} tool calls",
            total.model_calls,
            dollars(total.cost_micros),
            total.tool_calls
        );
        let mut words = vec![paid];
        if self.again() > 0 {
            words.push(format!("begun again because the server died: {}", self.again()));
        }
        let Replayed { calls, tokens, cost_micros } = self.replayed;
        if calls > 0 {
            let cost = dollars(cost_micros);
            words.push(format!(
                "answered from the journal: {calls} model calls, {tokens} tokens, {cost}"
            ));
        }
        words
    }

    fn sum(&self) -> Value {
        let total = &self.total;
        json!({
            "type": "total",
            "inputTokens": total.input_tokens,
            "cachedTokens": total.cached_tokens,
            "outputTokens": total.output_tokens,
            "costMicros": total.cost_micros,
            "modelCalls": total.model_calls,
            "toolCalls": total.tool_calls,
            "begunAgain": self.again(),
            "replayedCalls": self.replayed.calls,
            "replayedTokens": self.replayed.tokens,
            "replayedCostMicros": self.replayed.cost_micros,
        })
    }
}

impl Step {
    fn took_millis(&self) -> Option<u64> {
        Some(self.ended_at_millis?.saturating_sub(self.began_at_millis))
    }

    fn row(&self) -> Vec<String> {
        let count = |count: u64| if count > 0 { count.to_string() } else { "-".to_owned() };
        let took = self.took_millis().map_or_else(|| "-".to_owned(), |took| format!("{took} ms"));
        let cost = match self.usage.cost_micros {
            0 => "-".to_owned(),
            cost => dollars(cost),
        };
        let outcome = match self.begun {
            0 | 1 => self.outcome.to_owned(),
            begun => format!("{}, begun {begun} times", self.outcome),
        };
        vec![
            self.seq.to_string(),
            time_of_day(self.began_at_millis),
            self.kind.clone(),
            short(&self.name, NAME_CHARS_MAX),
            took,
            count(self.usage.input_tokens),
            count(self.usage.cached_tokens),
            count(self.usage.output_tokens),
            cost,
            outcome,
        ]
    }

    fn json(&self) -> Value {
        json!({
            "type": "step",
            "seq": self.seq,
            "execution": self.execution,
            "kind": self.kind,
            "name": self.name,
            "beganAtMillis": self.began_at_millis,
            "tookMillis": self.took_millis(),
            "begun": self.begun,
            "outcome": self.outcome,
            "inputTokens": self.usage.input_tokens,
            "cachedTokens": self.usage.cached_tokens,
            "outputTokens": self.usage.output_tokens,
            "costMicros": self.usage.cost_micros,
        })
    }
}

/// Writes a session's events, or its spans, for other programs.
pub(super) async fn export(
    cx: &Context,
    link: &Link,
    session: &str,
    format: ExportFormat,
    output: &Path,
) -> Result<(), Failure> {
    let text = match format {
        ExportFormat::Otel => spans(link, session).await?,
        ExportFormat::Jsonl | ExportFormat::Archive => lines(link, session).await?,
    };
    if output == Path::new("-") {
        return cx.out.line(text.trim_end());
    }
    let failed = |error| Failure::file("written", output, &error);
    let part = output.with_extension("part");
    let mut file = std::fs::File::create(&part).map_err(failed)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.and_then(|()| std::fs::rename(&part, output)).map_err(failed)
}

async fn lines(link: &Link, session: &str) -> Result<String, Failure> {
    let mut lines = String::new();
    each_event(link, session, 0, u64::MAX, |event| {
        lines.push_str(&json::event(event)?.to_string());
        lines.push('\n');
        Ok(true)
    })
    .await?;
    Ok(lines)
}

async fn spans(link: &Link, session: &str) -> Result<String, Failure> {
    let request = v1::GetSessionRequest { session: session.to_owned(), ..Default::default() };
    let shown = link.client.get_session(request).await?.session.unwrap_or_default();
    let wrong = |what: &str| Failure::new(Code::Internal, format!("the server sent {what}"));
    let namespace: Namespace =
        Namespace::new(&shown.namespace).map_err(|_| wrong("a namespace that is none"))?;
    let id = shown.id.parse().map_err(|_| wrong("an id that is none"))?;
    let key = SessionKey::new(namespace, id);
    let agent = AgentRef { name: shown.agent, version: shown.agent_version };
    let mut events = Vec::new();
    each_event(link, session, 0, u64::MAX, |event| {
        let seq = Seq(event.seq);
        let event = codec::from_proto(event.clone()).map_err(|error| {
            Failure::new(Code::Internal, "an event cannot be read").because(&error)
        })?;
        events.push((seq, event));
        Ok(true)
    })
    .await?;
    let request =
        export_request("agent-executor", &key.to_string(), spans_of(&key, &agent, events));
    serde_json::to_string(&request).map_err(|error| {
        Failure::new(Code::Internal, "the spans have no JSON form").because(&error)
    })
}
