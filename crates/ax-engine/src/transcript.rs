//! What a new attempt is told of what was before: the conversation, and the execution's journal.

use crate::bodies::Bodies;
use crate::codec;
use crate::{Code, Error};
use ax_core::id::{AskId, AttemptId, ExecId, Seq, SessionKey};
use ax_core::session::{
    Answer, BlockId, Body, Digest, EffectClass, Event, Exec, Failure, Kind, Part, PartKind, Prefix,
    StepKey, StepKind,
};
use ax_harness::{AskResult, Asked, Content, JournalEntry, JournalKind, KEEP_NOTE, Role, Turn};
use ax_log::{EventLog, ReadLimit};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// How far back the conversation is read, in events.
const HISTORY_EVENTS_MAX: u64 = 16_384;
/// The most of the conversation that an attempt is told, in bytes.
const HISTORY_BYTES_MAX: u64 = 1024 * 1024;

/// Reads a session's events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) log: &'a dyn EventLog,
    pub(crate) bodies: &'a Bodies,
    pub(crate) key: &'a SessionKey,
}

impl Reader<'_> {
    /// Hands every event after `after`, up to and with `to`, to `each`.
    pub(crate) async fn scan(
        &self,
        after: Seq,
        to: Seq,
        mut each: impl FnMut(Seq, Event),
    ) -> Result<(), Error> {
        let mut after = after;
        while after < to {
            let entries = self.log.read(self.key, after, ReadLimit::default()).await?;
            let Some(last) = entries.last() else { break };
            after = last.seq;
            for entry in entries.into_iter().filter(|entry| entry.seq <= to) {
                let event = codec::decode_event(&entry.payload).map_err(|error| {
                    let what = format!("event {} of {} cannot be read", entry.seq, self.key);
                    Error::new(Code::Damaged, what).caused_by(&error)
                })?;
                each(entry.seq, event);
            }
        }
        Ok(())
    }

    /// Returns one event.
    pub(crate) async fn event(&self, seq: Seq) -> Result<Event, Error> {
        let mut found = None;
        self.scan(seq.prev(), seq, |_, event| found = Some(event)).await?;
        found.ok_or_else(|| Error::new(Code::Damaged, format!("there is no event {seq}")))
    }

    /// Returns the parts of an input, and the `traceparent` of who sent it; may be empty.
    pub(crate) async fn input(
        &self,
        seq: Seq,
        workspace: &Path,
    ) -> Result<(Vec<Content>, Arc<str>), Error> {
        let event = self.event(seq).await?;
        match event.kind {
            Kind::InputReceived { parts, .. } => {
                Ok((self.contents(&parts, workspace).await?, event.trace))
            }
            other => {
                let what = format!("event {seq} is {}, not an input", other.name());
                Err(Error::new(Code::Damaged, what))
            }
        }
    }

    async fn contents(&self, parts: &[Part], workspace: &Path) -> Result<Vec<Content>, Error> {
        let mut contents = Vec::with_capacity(parts.len());
        for part in parts {
            contents.push(self.bodies.content(self.key, part, workspace).await?);
        }
        Ok(contents)
    }

    /// Returns what a new attempt is told of the executions before this one.
    pub(crate) async fn history(&self, exec: &Exec, workspace: &Path) -> Result<Before, Error> {
        let to = exec.journal_from.prev();
        let after = Seq(to.0.saturating_sub(HISTORY_EVENTS_MAX));
        let mut talk = Conversation::default();
        let mut sent = Vec::new();
        let hear = |seq, event| {
            sent.extend(stored_request(&event));
            talk.hear(seq, event);
        };
        self.scan(after, to, hear).await?;
        let mut room = HISTORY_BYTES_MAX;
        let mut turns = Vec::new();
        for (role, parts) in talk.turns.into_iter().rev() {
            let bytes = parts.iter().map(|part| part.body.bytes()).sum::<u64>();
            if bytes > room {
                break;
            }
            room -= bytes;
            turns.push(Turn { role, parts: self.contents(&parts, workspace).await? });
        }
        turns.reverse();
        let kept = match talk.kept {
            Some(body) => Some(self.bodies.text(self.key, &body).await?),
            None => None,
        };
        Ok(Before { history: turns, kept, sent })
    }

    /// Returns what earlier attempts of an execution recorded, in that order, and which requests
    /// to models the log holds of them.
    pub(crate) async fn journal(
        &self,
        exec: &Exec,
        to: Seq,
    ) -> Result<(Vec<JournalEntry>, Vec<Prefix>), Error> {
        let mut book = Book { execs: exec.continues.clone(), ..Book::default() };
        book.execs.push(exec.id);
        let mut sent = Vec::new();
        let hear = |seq, event| {
            sent.extend(stored_request(&event));
            book.hear(seq, event);
        };
        self.scan(exec.journal_from.prev(), to, hear).await?;
        book.payloads(self).await?;
        let mut journal = Vec::with_capacity(book.order.len());
        for key in std::mem::take(&mut book.order) {
            let Some((seq, draft)) = book.drafts.remove(&key) else { continue };
            if let Some(kind) = self.entry(draft).await? {
                journal.push(JournalEntry { key, seq, kind });
            }
        }
        Ok((journal, sent))
    }

    async fn entry(&self, draft: Draft) -> Result<Option<JournalKind>, Error> {
        Ok(Some(match draft {
            Draft::Begun(..) => return Ok(None),
            Draft::Ended(begun, result) => {
                let result = match result {
                    Ok(body) => Ok(self.bodies.text(self.key, &body).await?),
                    Err(failure) => Err(failure),
                };
                let Begun { kind, name, effect, digest, request, prefix } = begun;
                let asked = match (request, prefix) {
                    (Some(body), Some(prefix)) => {
                        let request = self.bodies.text(self.key, &body).await?;
                        Some(Box::new(Asked { request, prefix }))
                    }
                    _ => None,
                };
                JournalKind::Step { kind, name, effect, digest, asked, result }
            }
            Draft::Output(mut text, bodies) => {
                for body in bodies {
                    text.push_str(&self.bodies.text(self.key, &body).await?);
                }
                JournalKind::Output(text)
            }
            Draft::Ask(result) => JournalKind::Ask(result),
            Draft::Sleep(due_at, fired) => JournalKind::Sleep { due_at, fired },
            Draft::Signal(name, payload) => {
                let payload = match payload {
                    Some(body) => Some(self.bodies.text(self.key, &body).await?),
                    None => None,
                };
                JournalKind::Signal { name, payload }
            }
            Draft::Note(name) => JournalKind::Note { name },
            Draft::Checkpoint => JournalKind::Checkpoint,
        }))
    }
}

/// What was before an execution.
#[derive(Debug)]
pub(crate) struct Before {
    /// What was said, oldest first.
    pub(crate) history: Vec<Turn>,
    /// What the harness kept, as JSON.
    pub(crate) kept: Option<String>,
    /// The requests to models that the log holds.
    pub(crate) sent: Vec<Prefix>,
}

/// How a step began.
#[derive(Debug)]
struct Begun {
    kind: StepKind,
    name: String,
    effect: EffectClass,
    digest: Digest,
    request: Option<Body>,
    prefix: Option<Prefix>,
}

/// Returns the place of a request whose parts an event holds.
fn stored_request(event: &Event) -> Option<Prefix> {
    match &event.kind {
        Kind::StepStarted { request: Some(_), prefix, .. } => prefix.clone(),
        _ => None,
    }
}

/// A journal entry whose content is not at hand yet.
#[derive(Debug)]
enum Draft {
    Begun(Begun),
    Ended(Begun, Result<Body, Failure>),
    Output(String, Vec<Body>),
    Ask(Option<AskResult>),
    Sleep(ax_core::time::Timestamp, bool),
    Signal(String, Option<Body>),
    Note(String),
    Checkpoint,
}

/// Collects the journal of an execution.
#[derive(Debug, Default)]
struct Book {
    execs: Vec<ExecId>,
    order: Vec<StepKey>,
    drafts: BTreeMap<StepKey, (Seq, Draft)>,
    asks: BTreeMap<AskId, StepKey>,
    streamed: Streamed,
    /// Waits whose signal came, and the signal.
    delivered: Vec<(StepKey, Seq)>,
}

impl Book {
    fn put(&mut self, key: &StepKey, seq: Seq, draft: Draft) {
        let is_recorded = |draft: &Draft| !matches!(draft, Draft::Begun(..));
        let before = self.drafts.get(key).is_some_and(|(_, draft)| is_recorded(draft));
        if is_recorded(&draft) && !before {
            self.order.push(key.clone());
        }
        self.drafts.insert(key.clone(), (seq, draft));
    }

    fn hear(&mut self, seq: Seq, event: Event) {
        if event.exec.is_none_or(|exec| !self.execs.contains(&exec)) {
            return;
        }
        self.streamed.hear(&event);
        match event.kind {
            Kind::StepStarted { step, kind, name, effect, digest, request, prefix, .. } => {
                let begun = Begun { kind, name, effect, digest, request, prefix };
                self.put(&step, seq, Draft::Begun(begun));
            }
            Kind::StepCompleted { step, result, .. } => self.end(&step, seq, Ok(result)),
            Kind::StepFailed { step, failure, .. } => self.end(&step, seq, Err(failure)),
            Kind::OutputMessage { block, key: Some(key), parts, .. } => {
                let attempt = event.attempt.unwrap_or_default();
                let text = self.streamed.take(attempt, &block);
                let bodies = parts.into_iter().map(|part| part.body).collect();
                self.put(&key, seq, Draft::Output(text, bodies));
            }
            Kind::AskRaised { ask, key: Some(key), .. } => {
                self.put(&key, seq, Draft::Ask(None));
                self.asks.insert(ask, key);
            }
            Kind::AskAnswered { ask, answer, .. } => self.ask_ended(ask, seq, Some(answer)),
            Kind::AskExpired { ask } => self.ask_ended(ask, seq, None),
            Kind::TimerSet { key, due_at } => self.put(&key, seq, Draft::Sleep(due_at, false)),
            Kind::TimerFired { key } => {
                if let Some((_, Draft::Sleep(_, fired))) = self.drafts.get_mut(&key) {
                    *fired = true;
                }
            }
            Kind::SignalAwaited { key, name } => self.put(&key, seq, Draft::Signal(name, None)),
            Kind::SignalDelivered { key, signal } => self.delivered.push((key, signal)),
            Kind::Note { key: Some(key), name, .. } => self.put(&key, seq, Draft::Note(name)),
            Kind::CheckpointCreated { key: Some(key), .. } => {
                self.put(&key, seq, Draft::Checkpoint);
            }
            // What a branch does not carry on: its execution waits anew, under the same keys.
            Kind::ExecutionStarted { continues: Some(_), .. } => self.drop_open_waits(),
            _ => {}
        }
    }

    fn end(&mut self, step: &StepKey, seq: Seq, result: Result<Body, Failure>) {
        if let Some((_, Draft::Begun(begun))) = self.drafts.remove(step) {
            self.put(step, seq, Draft::Ended(begun, result));
        }
    }

    fn ask_ended(&mut self, ask: AskId, seq: Seq, answer: Option<Answer>) {
        if let Some(key) = self.asks.get(&ask).cloned() {
            let result = answer.map_or(AskResult::Expired, AskResult::Answered);
            self.put(&key, seq, Draft::Ask(Some(result)));
        }
    }

    fn drop_open_waits(&mut self) {
        let delivered = std::mem::take(&mut self.delivered);
        self.drafts.retain(|key, (_, draft)| match draft {
            Draft::Ask(None) | Draft::Sleep(_, false) => false,
            Draft::Signal(_, None) => delivered.iter().any(|(waits, _)| waits == key),
            _ => true,
        });
        self.delivered = delivered;
        let drafts = &self.drafts;
        self.order.retain(|key| drafts.contains_key(key));
    }

    /// Fetches what came with the signals.
    async fn payloads(&mut self, reader: &Reader<'_>) -> Result<(), Error> {
        for (key, signal) in std::mem::take(&mut self.delivered) {
            let event = reader.event(signal).await?;
            if let Some((_, Draft::Signal(_, payload))) = self.drafts.get_mut(&key)
                && let Kind::SignalReceived { payload: came, .. } = event.kind
            {
                *payload = Some(came);
            }
        }
        Ok(())
    }
}

/// The text that was streamed into blocks.
#[derive(Debug, Default)]
struct Streamed {
    blocks: BTreeMap<(AttemptId, BlockId), String>,
}

impl Streamed {
    fn hear(&mut self, event: &Event) {
        if let Kind::OutputDelta { block, part: PartKind::Text, text } = &event.kind {
            let attempt = event.attempt.unwrap_or_default();
            self.blocks.entry((attempt, block.clone())).or_default().push_str(text);
        }
    }

    fn take(&mut self, attempt: AttemptId, block: &BlockId) -> String {
        self.blocks.remove(&(attempt, block.clone())).unwrap_or_default()
    }
}

/// Collects a conversation.
#[derive(Debug, Default)]
struct Conversation {
    inputs: BTreeMap<Seq, Vec<Part>>,
    turns: Vec<(Role, Vec<Part>)>,
    streamed: Streamed,
    kept: Option<Body>,
    /// Where the messages without a key of the running attempt begin among the turns.
    loose: Vec<usize>,
}

impl Conversation {
    fn hear(&mut self, seq: Seq, event: Event) {
        self.streamed.hear(&event);
        match event.kind {
            Kind::InputReceived { parts, .. } => {
                self.inputs.insert(seq, parts);
            }
            Kind::ExecutionStarted { input, continues: None } => {
                self.loose.clear();
                if let Some(parts) = self.inputs.remove(&input) {
                    self.turns.push((Role::User, parts));
                }
            }
            Kind::OutputMessage { block, key, parts, .. } => {
                let text = self.streamed.take(event.attempt.unwrap_or_default(), &block);
                let mut said = Vec::new();
                if !text.is_empty() {
                    said.push(Part::text(text));
                }
                said.extend(parts);
                if key.is_none() {
                    self.loose.push(self.turns.len());
                }
                self.turns.push((Role::Agent, said));
            }
            Kind::Note { name, data, .. } if name == KEEP_NOTE => self.kept = Some(data),
            // What was said without a key is said again.
            Kind::AttemptLost { .. }
            | Kind::ActorSuspended
            | Kind::ExecutionStarted { continues: Some(_), .. } => {
                for at in std::mem::take(&mut self.loose).into_iter().rev() {
                    self.turns.remove(at);
                }
            }
            Kind::SessionBranched { .. } => self.streamed = Streamed::default(),
            _ => {}
        }
    }
}
