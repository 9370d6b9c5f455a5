//! What an agent said, from events: whole messages in their order, each once.
//!
//! A message without a key is void when its attempt is lost: it is said again. The wire cannot take
//! anything back, so such a message, and what comes after it, is held until it is known to stay.

use super::inputs::ask_id;
use super::who::Asked;
use super::{Streamed, steps};
use crate::status::status;
use ax_core::id::{AskId, AttemptId, ExecId, Seq};
use ax_core::session::{BlobRef, BlockId, Body, Event, Kind, Outcome, Part, PartKind};
use ax_engine::{Code, Engine, Error, FollowItem, Stream, WaitState, codec};
use ax_harness::ax1::{role, sent, status_code};
use ax_proto::ax1::{self, content};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use std::collections::{BTreeMap, VecDeque};
use tonic::{Code as Grpc, Status};

/// How much of one message is put together, in bytes.
const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// How many messages are held at most; what is more is sent as it is.
const HELD_MAX: usize = 10_000;
/// How many events a page has when the beginning of a message is looked for.
const PAGE: u64 = 1_000;

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The end of the execution of this input.
    Input(Seq),
    /// The end of this execution.
    Exec(ExecId),
    /// Nothing: what is recorded is all.
    Rest,
}

/// A message that was heard.
#[derive(Debug)]
struct Heard {
    seq: Seq,
    keyed: bool,
    parts: Vec<Part>,
}

type BlockKey = (AttemptId, BlockId);

/// Streamed pieces of a block, and how many there were.
#[derive(Debug, Default)]
struct Pieces {
    parts: Vec<(PartKind, String)>,
    count: u32,
    bytes: usize,
}

impl Pieces {
    fn push(&mut self, kind: PartKind, text: &str) {
        self.count += 1;
        self.bytes += text.len();
        if self.bytes > MESSAGE_BYTES_MAX {
            return;
        }
        match self.parts.last_mut() {
            Some((last, so_far)) if *last == kind => so_far.push_str(text),
            _ => self.parts.push((kind, text.to_owned())),
        }
    }

    fn into_parts(self) -> impl Iterator<Item = Part> {
        self.parts.into_iter().map(|(kind, text)| Part { kind, ..Part::text(text) })
    }
}

/// A client's stream.
pub(super) struct Outputs {
    engine: Engine,
    asked: Asked,
    items: Stream<FollowItem>,
    target: Target,
    /// What is later than this is shown.
    shown_after: Seq,
    /// Where the reading began.
    began_after: Option<Seq>,
    blocks: BTreeMap<BlockKey, Pieces>,
    held: VecDeque<Heard>,
    ready: VecDeque<Result<ax1::ExecResponse, Status>>,
    /// The questions of this stream that are open.
    asks: BTreeMap<AskId, Option<ExecId>>,
    caught_up: bool,
    /// How the last execution of this stream ended.
    outcome: Option<Status>,
    over: bool,
}

impl Outputs {
    pub(super) fn new(
        engine: Engine,
        asked: Asked,
        items: Stream<FollowItem>,
        target: Target,
        shown_after: Seq,
    ) -> Self {
        Self {
            engine,
            asked,
            items,
            target,
            shown_after,
            began_after: None,
            blocks: BTreeMap::new(),
            held: VecDeque::new(),
            ready: VecDeque::new(),
            asks: BTreeMap::new(),
            caught_up: false,
            outcome: None,
            over: false,
        }
    }

    pub(super) fn stream(self) -> Streamed<ax1::ExecResponse> {
        let responses = stream::unfold(self, |mut outputs| async move {
            let response = outputs.next().await?;
            Some((response, outputs))
        });
        responses.boxed()
    }

    async fn next(&mut self) -> Option<Result<ax1::ExecResponse, Status>> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                return Some(response);
            }
            if self.over {
                return None;
            }
            let item = self.items.next().await;
            if let Err(error) = self.take(item).await {
                self.over = true;
                self.ready.push_back(Err(status(error)));
            }
        }
    }

    async fn take(&mut self, item: Option<Result<FollowItem, Error>>) -> Result<(), Error> {
        match item {
            Some(Ok(FollowItem::Event(seq, encoded))) => {
                let event = decode(seq, &encoded)?;
                self.hear(seq, event).await
            }
            Some(Ok(FollowItem::CaughtUp(_))) => self.caught_up().await,
            Some(Ok(FollowItem::Deleted(_))) => {
                let gone = Error::new(Code::Deleted, "the conversation was deleted");
                Err(self.asked.about(gone))
            }
            Some(Ok(FollowItem::Shutdown(last))) => {
                let message = "the server stops; the work goes on when it is up again";
                Err(Error::new(Code::Stopping, message)
                    .with_hint(format!("ask again with the last step that you saw, up to {last}")))
            }
            Some(Err(error)) => Err(error),
            Some(Ok(FollowItem::Reached(..))) | None => {
                Err(Error::new(Code::Internal, "a follower ended by itself"))
            }
        }
    }

    async fn hear(&mut self, seq: Seq, event: Event) -> Result<(), Error> {
        self.began_after.get_or_insert_with(|| seq.prev());
        let (exec, attempt) = (event.exec, event.attempt.unwrap_or_default());
        match event.kind {
            Kind::OutputDelta { block, part, text } => {
                self.blocks.entry((attempt, block)).or_default().push(part, &text);
            }
            Kind::OutputMessage { block, key, deltas, parts } => {
                let streamed = self.streamed(seq, (attempt, block), deltas).await?;
                let parts = streamed.into_parts().chain(parts).collect();
                self.held.push_back(Heard { seq, keyed: key.is_some(), parts });
                let stays = self.held.iter().all(|heard| heard.keyed);
                if stays || self.held.len() > HELD_MAX {
                    self.release().await?;
                }
            }
            Kind::AttemptLost { .. }
            | Kind::ActorSuspended
            | Kind::ExecutionStarted { continues: Some(_), .. } => {
                self.blocks.clear();
                self.held.retain(|heard| heard.keyed);
                self.release().await?;
            }
            Kind::ExecutionStarted { input, continues: None } => {
                self.release().await?;
                if let (Target::Input(wanted), Some(exec)) = (self.target, exec)
                    && wanted == input
                {
                    self.target = Target::Exec(exec);
                }
            }
            Kind::ExecutionEnded { outcome, .. } => {
                self.release().await?;
                self.blocks.clear();
                self.asks.retain(|_, of| *of != exec);
                self.outcome = failed(&outcome);
                self.over |= exec.is_some_and(|exec| self.target == Target::Exec(exec));
                self.say_outcome();
            }
            Kind::InputCanceled { input } if self.target == Target::Input(input) => {
                self.outcome = Some(Status::cancelled("the input was taken back"));
                self.over = true;
                self.say_outcome();
            }
            Kind::AskRaised { ask, prompt, choices, .. } => {
                self.release().await?;
                self.asks.insert(ask, exec);
                self.ask(seq, ask, prompt, &choices)?;
                self.over |= self.caught_up && self.is_asked();
            }
            Kind::AskAnswered { ask, .. } | Kind::AskExpired { ask } => {
                self.asks.remove(&ask);
            }
            _ => {}
        }
        Ok(())
    }

    /// Everything that is recorded was heard: perhaps nothing else is waited for.
    async fn caught_up(&mut self) -> Result<(), Error> {
        self.caught_up = true;
        if self.over {
            return Ok(());
        }
        if self.target == Target::Rest {
            self.release().await?;
            self.over = true;
            self.say_outcome();
            return Ok(());
        }
        if self.is_asked() {
            self.over = true;
            return Ok(());
        }
        // Who asks again without an answer is asked again.
        let Asked { namespace, session, .. } = &self.asked;
        let view = self.engine.session(namespace, session).await;
        let view = view.map_err(|error| self.asked.about(error))?;
        let waits = view.status.state == WaitState::WaitingAsk
            && view.status.exec.is_some_and(|exec| self.target == Target::Exec(exec));
        if waits && self.asks.is_empty() && !view.status.asks.is_empty() {
            self.release().await?;
            let seq = self.shown_after;
            for (ask, open) in view.status.asks {
                self.question(seq, ask, open.prompt, &open.choices)?;
            }
            self.over = true;
        }
        Ok(())
    }

    /// Whether the execution that is waited for waits for a person.
    fn is_asked(&self) -> bool {
        let Target::Exec(target) = self.target else { return false };
        self.asks.values().any(|exec| *exec == Some(target))
    }

    /// If all is over, the client learns of a failure by the status of the stream.
    fn say_outcome(&mut self) {
        if self.over
            && let Some(outcome) = self.outcome.take()
        {
            self.ready.push_back(Err(outcome));
        }
    }

    fn ask(
        &mut self,
        seq: Seq,
        ask: AskId,
        prompt: String,
        choices: &[String],
    ) -> Result<(), Error> {
        if seq <= self.shown_after {
            return Ok(());
        }
        self.question(seq, ask, prompt, choices)
    }

    fn question(
        &mut self,
        seq: Seq,
        ask: AskId,
        prompt: String,
        choices: &[String],
    ) -> Result<(), Error> {
        let question =
            if choices.is_empty() { prompt } else { format!("{prompt} ({})", choices.join(", ")) };
        let confirmation =
            ax1::ConfirmationContent { id: ask_id(ask), question, ..Default::default() };
        let content = content::Type::Confirmation(confirmation);
        let content = Some(ax1::Content { r#type: Some(content) });
        let message = ax1::Message { role: "assistant".into(), content, internal_only: false };
        let step = steps::step(seq)?;
        self.ready.push_back(Ok(ax1::ExecResponse { outputs: vec![message], step }));
        Ok(())
    }

    /// Sends what was held.
    async fn release(&mut self) -> Result<(), Error> {
        while let Some(heard) = self.held.pop_front() {
            if heard.seq <= self.shown_after {
                continue;
            }
            let mut outputs = Vec::with_capacity(heard.parts.len());
            for part in heard.parts {
                let bytes = bytes(&self.engine, &self.asked, &part).await?;
                let content = sent(part.kind, &part.media_type, &part.name, bytes);
                let role = role(part.kind).into();
                let content = Some(content);
                outputs.push(ax1::Message { role, content, internal_only: false });
            }
            if !outputs.is_empty() {
                let step = steps::step(heard.seq)?;
                self.ready.push_back(Ok(ax1::ExecResponse { outputs, step }));
            }
        }
        Ok(())
    }

    /// Returns what was streamed into a block. A reader that began in the middle of it reads the
    /// pieces before.
    async fn streamed(&mut self, seq: Seq, key: BlockKey, deltas: u32) -> Result<Pieces, Error> {
        let mut pieces = self.blocks.remove(&key).unwrap_or_default();
        let began_after = self.began_after.unwrap_or(seq);
        // What is not shown is not put together.
        if seq > self.shown_after && pieces.count < deltas {
            pieces =
                look_back(&self.engine, &self.asked, began_after, &key, deltas, pieces).await?;
        }
        if pieces.bytes > MESSAGE_BYTES_MAX {
            return Err(too_large());
        }
        Ok(pieces)
    }
}

/// Puts the pieces of a block that a reader began behind before those that it has heard.
async fn look_back(
    engine: &Engine,
    asked: &Asked,
    began_after: Seq,
    key: &BlockKey,
    deltas: u32,
    later: Pieces,
) -> Result<Pieces, Error> {
    let mut earlier: VecDeque<(PartKind, String)> = VecDeque::new();
    let mut to = began_after;
    let missing = deltas.saturating_sub(later.count) as usize;
    let mut bytes = later.bytes;
    while to > Seq::ZERO && earlier.len() < missing {
        let from = Seq(to.0.saturating_sub(PAGE));
        for piece in pieces_between(engine, asked, from, to, key).await?.into_iter().rev() {
            bytes += piece.1.len();
            if bytes > MESSAGE_BYTES_MAX {
                return Err(too_large());
            }
            if earlier.len() < missing {
                earlier.push_front(piece);
            }
        }
        to = from;
    }
    if earlier.len() < missing {
        let there = earlier.len() + later.count as usize;
        let message = format!("of {deltas} pieces of a message there are {there}");
        return Err(Error::new(Code::Damaged, message));
    }
    let mut pieces = Pieces::default();
    for (kind, text) in earlier.into_iter().chain(later.parts) {
        pieces.push(kind, &text);
    }
    Ok(pieces)
}

/// Reads the pieces of a block after one position and up to another, however many reads it takes.
async fn pieces_between(
    engine: &Engine,
    asked: &Asked,
    from: Seq,
    to: Seq,
    key: &BlockKey,
) -> Result<Vec<(PartKind, String)>, Error> {
    let Asked { namespace, session, .. } = asked;
    let (mut at, mut bytes, mut pieces) = (from, 0, Vec::new());
    while at < to {
        let page = engine.events(namespace, session, at, 0).await?;
        let Some((last, _)) = page.events.last() else { break };
        for (seq, encoded) in page.events.iter().filter(|(seq, _)| *seq <= to) {
            let event = decode(*seq, encoded)?;
            if let Kind::OutputDelta { block, part, text } = event.kind
                && (event.attempt.unwrap_or_default(), &block) == (key.0, &key.1)
            {
                bytes += text.len();
                pieces.push((part, text));
            }
        }
        if bytes > MESSAGE_BYTES_MAX {
            return Err(too_large());
        }
        at = *last;
    }
    Ok(pieces)
}

/// Returns the content of a part.
async fn bytes(engine: &Engine, asked: &Asked, part: &Part) -> Result<Vec<u8>, Error> {
    let blob = match &part.body {
        Body::Text(text) => return Ok(text.clone().into_bytes()),
        Body::Blob(blob) => *blob,
    };
    if blob.bytes > MESSAGE_BYTES_MAX as u64 {
        return Err(too_large());
    }
    read_blob(engine, asked, blob).await
}

fn decode(seq: Seq, encoded: &Bytes) -> Result<Event, Error> {
    codec::decode_event(encoded).map_err(|error| {
        Error::new(Code::Damaged, format!("event {seq} cannot be read")).caused_by(&error)
    })
}

fn too_large() -> Error {
    let message = format!("a message has more than {} MiB", MESSAGE_BYTES_MAX >> 20);
    Error::new(Code::TooLarge, message).with_hint("read it over agentexecutor.v1")
}

fn unreadable(blob: BlobRef, error: &dyn std::error::Error) -> Error {
    Error::new(Code::Read, format!("{blob} cannot be read")).caused_by(error)
}

async fn read_blob(engine: &Engine, asked: &Asked, blob: BlobRef) -> Result<Vec<u8>, Error> {
    let id = blob.to_string().parse().map_err(|_| Error::invalid("not a blob id"))?;
    let pieces = engine.blobs().get(&asked.namespace, &id).await;
    let mut pieces = pieces.map_err(|error| unreadable(blob, &error))?;
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece.map_err(|error| unreadable(blob, &error))?);
    }
    Ok(bytes)
}

/// The status for an execution that did not complete.
fn failed(outcome: &Outcome) -> Option<Status> {
    match outcome {
        Outcome::Completed { .. } => None,
        Outcome::Failed { failure } => {
            let code = match failure.code.as_str() {
                "budget_exceeded" => Grpc::ResourceExhausted,
                word => match status_code(word).map(Grpc::from_i32) {
                    None | Some(Grpc::Ok) => Grpc::Internal,
                    Some(code) => code,
                },
            };
            // Messages travel in headers, which are short.
            let message: String = failure.message.chars().take(1_000).collect();
            Some(Status::new(code, format!("{message} ({})", failure.code)))
        }
        Outcome::Canceled { reason } => Some(Status::cancelled(if reason.is_empty() {
            "the execution was canceled"
        } else {
            reason.as_str()
        })),
        Outcome::TimedOut { limit_millis } => {
            let message = format!("the execution took longer than {limit_millis} ms");
            Some(Status::deadline_exceeded(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ax_core::session::Failure;

    #[test]
    fn an_execution_that_failed_has_the_status_of_its_failure() {
        let code = |code: &str| {
            let failure = Failure { code: code.into(), message: "m".into() };
            failed(&Outcome::Failed { failure }).map(|status| status.code())
        };
        assert_eq!(code("failed_precondition"), Some(Grpc::FailedPrecondition));
        assert_eq!(code("budget_exceeded"), Some(Grpc::ResourceExhausted));
        assert_eq!(code("exit_status"), Some(Grpc::Internal));
        assert_eq!(code("ok"), Some(Grpc::Internal));
        assert!(failed(&Outcome::Completed { result: None }).is_none());
    }

    #[test]
    fn pieces_of_one_kind_are_one_part() {
        let mut pieces = Pieces::default();
        for (kind, text) in
            [(PartKind::Thought, "h"), (PartKind::Thought, "m"), (PartKind::Text, "yes")]
        {
            pieces.push(kind, text);
        }
        assert_eq!(pieces.count, 3);
        let parts: Vec<Part> = pieces.into_parts().collect();
        let thought = Part { kind: PartKind::Thought, ..Part::text("hm") };
        assert_eq!(parts, [thought, Part::text("yes")]);
    }
}
