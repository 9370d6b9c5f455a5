//! A session as it goes on: what the agent says on standard output, what it does on standard error.

use super::describe::{answer, blob_id, body, bytes, failure, parts, step_kind, why_lost};
use super::{json, session, table::short};
use crate::embed::LATE_MILLIS_MIN;
use crate::failure::Failure;
use crate::out::{Out, Style};
use crate::time::{rfc3339, span};
use ax_client::Client;
use ax_proto::v1;
use ax_proto::v1::event::Kind;
use std::collections::BTreeMap;

/// How much of a request is shown, in characters.
const REQUEST_CHARS_MAX: usize = 80;

/// An execution, an attempt and the name of a block in it.
type BlockKey = (u32, u32, String);

/// Shows events, one after the other.
#[derive(Debug)]
pub(crate) struct Transcript {
    out: Out,
    client: Client,
    /// Whether inputs are shown, too.
    inputs: bool,
    blocks: BTreeMap<BlockKey, String>,
    /// The block that is being written to the terminal.
    current: Option<BlockKey>,
    /// Whether the last thing written to the terminal was not the end of a line.
    mid_line: bool,
    /// Whether the agent has said anything in this execution.
    spoke: bool,
    /// Whether the attempt has said something whole that the next one says again.
    loose: bool,
    /// Open steps: kind, name and beginning.
    steps: BTreeMap<String, (&'static str, String, u64)>,
    timers: BTreeMap<String, u64>,
}

impl Transcript {
    pub(crate) const fn new(out: Out, client: Client, inputs: bool) -> Self {
        Self {
            out,
            client,
            inputs,
            blocks: BTreeMap::new(),
            current: None,
            mid_line: false,
            spoke: false,
            loose: false,
            steps: BTreeMap::new(),
            timers: BTreeMap::new(),
        }
    }

    /// Shows an event.
    pub(crate) async fn show(&mut self, event: &v1::Event) -> Result<(), Failure> {
        if self.out.json {
            return self.out.object(&json::event(event)?);
        }
        let Some(kind) = &event.kind else { return Ok(()) };
        match kind {
            Kind::OutputDelta(delta) => self.delta(event, delta)?,
            Kind::OutputMessage(message) => self.message(event, message).await?,
            Kind::InputReceived(input) if self.inputs => {
                self.end_line()?;
                let text = short(&parts(&input.parts), 2_000);
                self.out.line(&self.out.style(Style::Bold, &format!("> {text}")))?;
            }
            Kind::ExecutionStarted(started) => {
                self.spoke = false;
                self.loose &= started.continues != 0;
            }
            Kind::AttemptStarted(_) => {
                self.void()?;
                self.doing(event, kind)?;
            }
            Kind::ExecutionCompleted(completed) => self.result(completed)?,
            Kind::AttemptLost(lost) => self.lost(event, lost)?,
            _ => self.doing(event, kind)?,
        }
        Ok(())
    }

    /// Ends a line that was begun.
    pub(crate) fn end_line(&mut self) -> Result<(), Failure> {
        self.current = None;
        if std::mem::take(&mut self.mid_line) { self.out.text("\n") } else { Ok(()) }
    }

    fn delta(&mut self, event: &v1::Event, delta: &v1::OutputDelta) -> Result<(), Failure> {
        let key = (event.execution, event.attempt, delta.block.clone());
        let thought = delta.part() == v1::PartKind::Thought;
        if self.out.live {
            if self.current.as_ref() != Some(&key) {
                self.end_line()?;
                self.current = Some(key);
            }
            self.spoke |= !thought;
            self.mid_line = !delta.text.ends_with('\n');
            let style = |text: &str| self.out.style(Style::Dim, text);
            return self.out.text(&if thought { style(&delta.text) } else { delta.text.clone() });
        }
        if !thought {
            self.blocks.entry(key).or_default().push_str(&delta.text);
        }
        Ok(())
    }

    async fn message(
        &mut self,
        event: &v1::Event,
        message: &v1::OutputMessage,
    ) -> Result<(), Failure> {
        self.end_line()?;
        let key = (event.execution, event.attempt, message.block.clone());
        if let Some(text) = self.blocks.remove(&key) {
            self.say(&text)?;
        }
        for part in &message.parts {
            self.part(part).await?;
        }
        // What has a key is said once, in whatever attempt.
        self.loose |= message.key.is_empty();
        Ok(())
    }

    /// What was said without a key is said again by the next attempt. It cannot be taken back here,
    /// but it can be said to be void.
    fn void(&mut self) -> Result<(), Failure> {
        if !std::mem::take(&mut self.loose) {
            return Ok(());
        }
        let mark = "[superseded: what was said above without a key is void, and said again]";
        if self.out.live {
            self.end_line()?;
            return self.out.line(&self.out.style(Style::Yellow, mark));
        }
        self.out.notice(mark);
        Ok(())
    }

    async fn part(&mut self, part: &v1::Part) -> Result<(), Failure> {
        let content = part.body.as_ref().and_then(|body| body.body.as_ref());
        match (part.kind(), content) {
            (v1::PartKind::Text | v1::PartKind::Data, Some(v1::body::Body::Text(text))) => {
                self.say(text)
            }
            (v1::PartKind::Text | v1::PartKind::Data, Some(v1::body::Body::Blob(blob))) => {
                let mut content = Vec::new();
                self.client.read_blob(&blob_id(blob), &mut content).await?;
                self.say(&String::from_utf8_lossy(&content))
            }
            (v1::PartKind::Thought, Some(v1::body::Body::Text(text))) => {
                self.out.progress(text);
                Ok(())
            }
            (v1::PartKind::ToolCall | v1::PartKind::ToolResult | v1::PartKind::Thought, _) => {
                Ok(())
            }
            (_, Some(v1::body::Body::Blob(blob))) => {
                let what = [&part.media_type, &part.name];
                let what = what.map(String::as_str).join(" ");
                let (size, id) = (bytes(blob.bytes), blob_id(blob));
                self.say(&format!("[{}, {size}: {id}]", what.trim()))
            }
            (_, Some(v1::body::Body::Text(text))) => self.say(text),
            (_, None) => Ok(()),
        }
    }

    fn say(&mut self, text: &str) -> Result<(), Failure> {
        self.spoke = true;
        self.out.line(text.strip_suffix('\n').unwrap_or(text))
    }

    /// Shows what the harness returned, unless it has said something.
    fn result(&mut self, completed: &v1::ExecutionCompleted) -> Result<(), Failure> {
        self.end_line()?;
        if let Some(usage) = completed.usage.as_ref().filter(|usage| usage.model_calls > 0) {
            self.out.progress(&format!("done: {}", session::usage(usage)));
        }
        let text = completed.result.as_ref().map(body).unwrap_or_default();
        if self.spoke || text.is_empty() || text == "null" {
            return Ok(());
        }
        match serde_json::from_str(&text) {
            Ok(serde_json::Value::String(text)) => self.say(&text),
            _ => self.say(&text),
        }
    }

    fn lost(&mut self, event: &v1::Event, lost: &v1::AttemptLost) -> Result<(), Failure> {
        self.end_line()?;
        self.steps.clear();
        for block in &lost.superseded {
            let key = (event.execution, event.attempt, block.clone());
            if self.blocks.remove(&key).is_none() && self.out.live {
                let mark = "[superseded: what was said above of this block is void]";
                self.out.line(&self.out.style(Style::Yellow, mark))?;
            }
        }
        let next = match lost.retry_at_millis.saturating_sub(event.at_millis) {
            0 if lost.retry_at_millis > 0 => ", tries again".to_owned(),
            0 => String::new(),
            pause => format!(", tries again in {}", span(pause)),
        };
        let (attempt, why) = (event.attempt, why_lost(lost));
        self.out.notice(&format!("attempt {attempt} was lost: {why}{next}"));
        Ok(())
    }

    /// Tells what goes on beside what is said.
    fn doing(&mut self, event: &v1::Event, kind: &Kind) -> Result<(), Failure> {
        let at = event.at_millis;
        let text = match kind {
            Kind::StepStarted(step) => {
                let kind = step_kind(step);
                self.steps.insert(step.step.clone(), (kind, step.name.clone(), at));
                let request = step.request.as_ref().map(body).unwrap_or_default();
                let again = if step.again { " (again)" } else { "" };
                if kind == "model" {
                    return Ok(());
                }
                format!("▸ {}{again} {}", step.name, short(&request, REQUEST_CHARS_MAX))
            }
            Kind::StepCompleted(step) => {
                let words = self.step_end(&step.step, at);
                let tokens = step.usage.as_ref().filter(|usage| usage.input_tokens > 0);
                let tokens = tokens.map_or_else(String::new, |usage| {
                    format!(", {} tokens in, {} out", usage.input_tokens, usage.output_tokens)
                });
                format!("✓ {words}{tokens}")
            }
            Kind::StepFailed(step) => {
                let words = self.step_end(&step.step, at);
                format!("✗ {words}: {}", failure(step.failure.as_ref()))
            }
            Kind::TimerSet(timer) => {
                self.timers.insert(timer.key.clone(), timer.due_at_millis);
                format!("sleeps until {}", rfc3339(timer.due_at_millis))
            }
            Kind::TimerFired(timer) => {
                let due = self.timers.remove(&timer.key).unwrap_or(at);
                let late = at.saturating_sub(due);
                if late < LATE_MILLIS_MIN {
                    return Ok(());
                }
                self.end_line()?;
                let (key, due, late) = (&timer.key, rfc3339(due), span(late));
                let words = format!("the timer {key} fired late, by {late}: it was due at {due}");
                self.out.notice(&format!("{words}, and nothing ran then"));
                return Ok(());
            }
            Kind::SignalAwaited(signal) => format!("waits for the signal {}", signal.name),
            Kind::SignalReceived(signal) => format!("the signal {} came", signal.name),
            Kind::AskRaised(ask) if self.inputs => format!("? {}", ask.prompt),
            Kind::AskAnswered(answered) => {
                format!("ask_{}: {}", answered.ask, answer(answered.answer.as_ref()))
            }
            Kind::AskExpired(ask) => format!("ask_{}: nobody answered in time", ask.ask),
            Kind::AttemptStarted(_) if event.attempt > 1 => format!("attempt {}", event.attempt),
            Kind::CheckpointCreated(point) => format!("checkpoint {} at {}", point.name, event.seq),
            Kind::BudgetExceeded(budget) => format!("the budget of {} is used up", budget.budget),
            Kind::WorkspaceUnsaved(unsaved) => {
                let why = unsaved.failure.as_ref().map_or("", |failure| failure.message.as_str());
                format!("the files could not be kept: {why}")
            }
            Kind::StepUnknown(step) => {
                format!("nobody knows whether step {} was carried out", step.step)
            }
            _ => return Ok(()),
        };
        if self.out.watched {
            self.end_line()?;
        }
        self.out.progress(&text);
        Ok(())
    }

    fn step_end(&mut self, step: &str, at: u64) -> String {
        match self.steps.remove(step) {
            Some((_, name, began)) => format!("{name} {}", span(at.saturating_sub(began))),
            None => step.to_owned(),
        }
    }
}
