//! One method under three names: say something, and hear what comes of it.

use super::Streamed;
use super::fork::is_under_way;
use super::inputs::{self, Said};
use super::outputs::{Outputs, Target};
use super::steps;
use super::who::{Act, Asked};
use crate::convert;
use crate::status::status;
use ax_core::id::{AskId, Seq};
use ax_core::session::{Answer, Event, IdempotencyKey, Kind, Part, SubmitPolicy};
use ax_engine::{Code, Engine, Error, FollowOptions, SessionView, Submission, Until, codec};
use ax_proto::ax1;
use tonic::{Request, Status};

/// The header with a key of the client's own: the same key again is the same input.
const KEY: &str = "ax-idempotency-key";
/// The agent of a conversation that names none, if there is one of this name.
const DEFAULT_AGENT: &str = "default";
/// Within how many events a conversation has its first input.
const FIRST_EVENTS: usize = 16;
/// Through what questions are answered.
const VIA: &str = "ax1";

/// Says what a client says, and streams what comes of it.
pub(super) async fn exec(
    engine: &Engine,
    request: Request<ax1::ExecRequest>,
) -> Result<Streamed<ax1::ExecResponse>, Status> {
    let exec = Exec::read(engine, request).await.map_err(status)?;
    let (target, after, shown_after) = exec.say().await.map_err(status)?;
    let Exec { engine, asked, .. } = exec;
    let options = FollowOptions { after, until: Until::Forever, no_deltas: false };
    let items = engine.follow(&asked.namespace, &asked.session, options).await;
    let items = items.map_err(|error| status(asked.about(error)))?;
    Ok(Outputs::new(engine, asked, items, target, shown_after).stream())
}

/// A request that makes sense.
struct Exec {
    engine: Engine,
    asked: Asked,
    said: Said,
    /// As it came, for the key that is made of it.
    inputs: Vec<ax1::Message>,
    key: Option<IdempotencyKey>,
    /// The last step that the client has seen; 0 if it does not say.
    seen: Seq,
    /// Empty if the client does not say.
    agent: String,
    /// The conversation, if there is one already.
    view: Option<SessionView>,
}

/// What is followed, from where, and what of it is shown.
type Way = (Target, Seq, Seq);

impl Exec {
    async fn read(engine: &Engine, request: Request<ax1::ExecRequest>) -> Result<Self, Error> {
        let listens = request.get_ref().inputs.is_empty();
        let act = if listens { Act::Read } else { Act::Write };
        let asked = Asked::of(&request, act, &request.get_ref().conversation_id)?;
        let key = request.metadata().get(KEY).map(|key| key.to_str().unwrap_or_default());
        let key = convert::key(key.unwrap_or_default().to_owned())?;
        let request = request.into_inner();
        check_config(&request.harness_config)?;
        let seen = steps::seq(request.last_step)?;
        let said = inputs::read(request.inputs.clone())?;
        let view = match engine.session(&asked.namespace, &asked.session).await {
            Ok(view) => Some(view),
            Err(error) if error.code == Code::NoSession => None,
            Err(error) => return Err(error),
        };
        let exec = Self {
            engine: engine.clone(),
            asked,
            said,
            inputs: request.inputs,
            key,
            seen,
            agent: request.harness_id,
            view,
        };
        exec.check()?;
        Ok(exec)
    }

    /// Checks what is asked for against what there is.
    fn check(&self) -> Result<(), Error> {
        let Some(view) = &self.view else {
            if self.seen > Seq::ZERO || !matches!(self.said, Said::Input(_)) {
                let missing = Error::new(Code::NoSession, "there is no such conversation");
                return Err(self.asked.about(missing));
            }
            return Ok(());
        };
        let name = self.agent.split('@').next().unwrap_or_default();
        if !name.is_empty() && name != view.agent.name {
            let message =
                format!("the conversation belongs to {:?}, not to {name:?}", view.agent.name);
            return Err(Error::new(Code::Busy, message)
                .with_hint("name the same harness or none, or begin a new conversation"));
        }
        if self.seen > view.last {
            let message = format!("the conversation ends at {}, before {}", view.last, self.seen);
            return Err(Error::new(Code::OutOfRange, message));
        }
        Ok(())
    }

    /// Hands over what the client says, if that did not happen before.
    async fn say(&self) -> Result<Way, Error> {
        match (&self.said, &self.view) {
            (Said::Input(parts), view) => self.submit(parts.clone(), view.as_ref()).await,
            (Said::Answers(answers), Some(view)) => {
                let mut last = self.seen;
                for (ask, answer) in answers {
                    last = self.answer(*ask, answer).await?;
                }
                let from = if self.seen > Seq::ZERO { self.seen } else { last };
                Ok((listen(view), from, from))
            }
            (_, Some(view)) => Ok((listen(view), self.seen, self.seen)),
            (_, None) => unreachable!("`check` has refused it"),
        }
    }

    async fn submit(&self, parts: Vec<Part>, view: Option<&SessionView>) -> Result<Way, Error> {
        let Asked { caller, namespace, session } = self.asked.clone();
        let agent = match (view, self.agent.as_str()) {
            (Some(_), _) => None,
            (None, "") => Some(self.default_agent().await?),
            (None, named) => Some(named.to_owned()),
        };
        let submission = Submission {
            session: Some(session),
            agent,
            key: Some(self.key(view).await?),
            parts: inputs::store(&self.engine, &namespace, parts).await?,
            policy: Some(SubmitPolicy::Reject),
            title: None,
        };
        let submitted = self.engine.submit(caller, &namespace, submission).await;
        let submitted = submitted.map_err(|error| self.asked.about(self.busy(error)))?;
        let (input, seen) = (submitted.seq, self.seen);
        // The execution begins after its input, which may be before what the client has seen.
        let shown_after = if seen > Seq::ZERO { seen } else { input };
        Ok((Target::Input(input), shown_after.min(input), shown_after))
    }

    /// A client that waits for an answer is told what it can answer.
    fn busy(&self, error: Error) -> Error {
        let asks = self.view.as_ref().map_or(&[][..], |view| &view.status.asks);
        match (error.code, asks.first()) {
            (Code::Busy, Some((ask, open))) => {
                let message = format!("the conversation waits for an answer: {}", open.prompt);
                let hint = format!("send a confirmation with the id {}", inputs::ask_id(*ask));
                Error { message, ..error }.with_hint(hint)
            }
            (Code::Busy, None) => error.with_hint("send no inputs to listen to what is under way"),
            _ => error,
        }
    }

    /// The key of the input. A client that says what it has seen last says the same again after
    /// the same step; one that does not, only while what it said is under way, or as its first.
    async fn key(&self, view: Option<&SessionView>) -> Result<IdempotencyKey, Error> {
        if let Some(key) = &self.key {
            return Ok(key.clone());
        }
        let exec = view.and_then(|view| view.status.exec).map_or(0, |exec| exec.0);
        let of_turn = |turn| inputs::key(self.seen, turn, &self.inputs);
        let Some(view) = view.filter(|_| self.seen == Seq::ZERO) else {
            return Ok(of_turn(if self.seen > Seq::ZERO { 0 } else { 1 }));
        };
        if is_under_way(view) {
            return Ok(of_turn(exec.max(1)));
        }
        let first = of_turn(1);
        if exec <= 1 && self.is_first_input(&first).await? {
            return Ok(first);
        }
        Ok(of_turn(exec.saturating_add(1)))
    }

    /// Whether the first input of the conversation has this key.
    async fn is_first_input(&self, wanted: &IdempotencyKey) -> Result<bool, Error> {
        let Asked { namespace, session, .. } = &self.asked;
        let page = self.engine.events(namespace, session, Seq::ZERO, FIRST_EVENTS).await?;
        for (seq, encoded) in &page.events {
            if let Kind::InputReceived { key, .. } = decode(*seq, encoded)?.kind {
                return Ok(key.as_ref() == Some(wanted));
            }
        }
        Ok(false)
    }

    async fn default_agent(&self) -> Result<String, Error> {
        let agents = self.engine.agents(&self.asked.namespace).await?;
        if agents.iter().any(|agent| agent.name == DEFAULT_AGENT) {
            return Ok(DEFAULT_AGENT.to_owned());
        }
        match agents.as_slice() {
            [only] => Ok(only.name.clone()),
            _ => {
                let message = format!(
                    "the request names no harness, and of {} agents none is called `default`",
                    agents.len()
                );
                Err(Error::new(Code::NoAgent, message)
                    .with_hint("name one in harness_id: the name of an agent, or NAME@VERSION"))
            }
        }
    }

    /// Answers a question; returns where that is recorded. The same answer again is no error.
    async fn answer(&self, ask: AskId, answer: &Answer) -> Result<Seq, Error> {
        let Asked { caller, namespace, session } = self.asked.clone();
        let answered = self
            .engine
            .answer(caller, &namespace, &session, Some(ask), answer.clone(), VIA.into())
            .await;
        match answered {
            Ok(recorded) => Ok(recorded.seq),
            Err(error) if error.code == Code::NotOpen => {
                let before = self.answered_before(ask, answer).await?;
                before.ok_or_else(|| self.asked.about(error))
            }
            Err(error) => Err(self.asked.about(error)),
        }
    }

    /// Looks for an answer after what the client has seen.
    async fn answered_before(&self, ask: AskId, answer: &Answer) -> Result<Option<Seq>, Error> {
        let Asked { namespace, session, .. } = &self.asked;
        let mut at = self.seen;
        loop {
            let page = self.engine.events(namespace, session, at, 0).await?;
            let Some((last, _)) = page.events.last() else { return Ok(None) };
            at = *last;
            for (seq, encoded) in &page.events {
                let event = decode(*seq, encoded)?;
                if matches!(&event.kind, Kind::AskAnswered { ask: of, answer: given, .. }
                    if *of == ask && given == answer)
                {
                    return Ok(Some(*seq));
                }
            }
        }
    }
}

fn decode(seq: Seq, encoded: &[u8]) -> Result<Event, Error> {
    codec::decode_event(encoded).map_err(|error| {
        Error::new(Code::Damaged, format!("event {seq} cannot be read")).caused_by(&error)
    })
}

/// What a client listens to that says nothing new.
fn listen(view: &SessionView) -> Target {
    match view.status.exec.filter(|_| is_under_way(view)) {
        Some(exec) => Target::Exec(exec),
        None => Target::Rest,
    }
}

/// Refuses a configuration: what comes with a request is kept for ever, secrets included.
fn check_config(config: &[u8]) -> Result<(), Error> {
    let nothing: [&[u8]; 3] = [b"", b"{}", b"null"];
    if nothing.contains(&config.trim_ascii()) {
        return Ok(());
    }
    Err(Error::invalid("the request has a configuration for the harness")
        .with_hint("put it under spec.harness.config of the agent's manifest"))
}
