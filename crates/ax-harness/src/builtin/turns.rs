//! The loop: model, tools, model, until the model wants no more tools.

use super::config::{Config, Tool};
use super::journal::{Journal, Step};
use super::model::{CallError, Client, OWN_ID, Reason, Reply, Streamed};
use super::record::{self, Recorded};
use super::talk::{Call, Piece, Talk};
use super::tools::{Returned, Tools};
use crate::launch::Role;
use crate::link::{Link, Stop};
use crate::outside::Outside;
use ax_core::session::{
    BlockId, Body, EffectClass, Failure, Frame, PartKind, StepKey, StepKind, Usage,
};
use ax_gateway::canonical;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// How often a model is asked before the attempt fails.
const TRIES_MAX: u32 = 6;
/// The pause before the second try; it doubles with each.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// The longest pause that the provider did not ask for.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How long a tool's step may take beyond the tool's own limit, in milliseconds.
const STEP_MARGIN_MILLIS: u64 = 60_000;
/// The longest name of a tool that is passed on, in characters.
const NAME_CHARS_MAX: usize = 60;

/// What an attempt works with.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) config: Config,
    pub(super) journal: Journal,
    pub(super) talk: Talk,
    pub(super) client: Client,
    pub(super) tools: Tools,
    pub(super) outside: Outside,
}

/// An attempt under way.
#[derive(Debug)]
pub(super) struct Turns<'a> {
    link: &'a mut Link,
    config: Config,
    journal: Journal,
    talk: Talk,
    client: Client,
    tools: Tools,
    outside: Outside,
}

impl<'a> Turns<'a> {
    pub(super) fn new(setup: Setup, link: &'a mut Link) -> Self {
        let Setup { config, journal, talk, client, tools, outside } = setup;
        Self { link, config, journal, talk, client, tools, outside }
    }

    /// Runs to the end; the last frame is said by the caller if it fails.
    pub(super) async fn run(&mut self) -> Result<(), Stop> {
        for turn in 1..=self.config.max_turns {
            let answer = self.model(turn).await?;
            if let Some(word) = &answer.refused {
                let message = format!("the model does not want to answer ({word})");
                return Err(Stop::final_failure("model_refused", message));
            }
            let calls: Vec<Call> = answer.calls().cloned().collect();
            answer.pieces.into_iter().for_each(|piece| self.talk.received(piece));
            if calls.is_empty() {
                let result = json!({"stop_reason": answer.stop_reason, "turns": turn});
                return self.link.say(Frame::End { result: Some(text(&result)) }).await;
            }
            for (at, call) in calls.iter().enumerate() {
                let returned = self.tool(turn, at + 1, call).await?;
                let (id, name) = (call.id.clone(), call.name.clone());
                let Returned { text, error } = returned;
                self.talk.add(Role::User, Piece::Result { id, name, text, error });
            }
        }
        let turns = self.config.max_turns;
        let message = format!("the model still wants tools after {turns} turns; see max_turns");
        Err(Stop::final_failure("max_turns", message))
    }

    /// Carries out the model call of a turn, or takes what it returned before.
    async fn model(&mut self, turn: u32) -> Result<Recorded, Stop> {
        let key = StepKey::from(format!("model:{turn}"));
        let prefix = self.talk.request();
        let name = self.config.model.name.clone();
        let step = Step { key: &key, kind: StepKind::Model, name: &name, digest: prefix.chain };
        match self.journal.step(&step)? {
            Some(Ok(result)) => return record::read(result, &self.journal),
            Some(Err(failure)) => {
                return Err(Stop::Failed { failure: failure.clone(), retry: false });
            }
            None => {}
        }
        let begin = Frame::StepBegin {
            step: key.clone(),
            kind: StepKind::Model,
            name,
            effect: EffectClass::Idempotent,
            digest: prefix.chain,
            request: None,
            prefix: Some(prefix),
            limit_millis: None,
        };
        self.link.say(begin).await?;
        let mut usage = Usage::default();
        let (mut reply, block) = match self.ask(&key, &mut usage).await? {
            Ok(reply) => reply,
            Err(failure) => {
                let result = Err(failure.clone());
                self.link.say(Frame::StepEnd { step: key, result, usage }).await?;
                return Err(Stop::Failed { failure, retry: false });
            }
        };
        name_calls(turn, &mut reply);
        let recorded = record::of(&reply);
        if let Some(block) = &block {
            let output = Frame::Output {
                block: Some(block.clone()),
                key: Some(record::output_key(block.as_str())),
                parts: Vec::new(),
            };
            self.link.say(output).await?;
        }
        let result = text(&recorded.json(block.as_ref().map(BlockId::as_str)));
        let end = Frame::StepEnd { step: key.clone(), result: Ok(result), usage };
        self.link.say(end).await?;
        self.link.recorded(&key).await?;
        Ok(recorded)
    }

    /// Asks the model until it has answered to the end. Returns the answer and the block that it
    /// was streamed into, or why it will never answer.
    async fn ask(
        &mut self,
        key: &StepKey,
        usage: &mut Usage,
    ) -> Result<Result<(Reply, Option<BlockId>), Failure>, Stop> {
        // A block that an earlier attempt closed, whose step it did not end, is not used again.
        let mut block_number = 1;
        for asked in 1..=TRIES_MAX {
            while self.journal.has(&record::output_key(&record::block(key, block_number))) {
                block_number += 1;
            }
            let block = BlockId::from(record::block(key, block_number));
            let error = match self.ask_once(&block, usage).await? {
                Ok((reply, streamed)) => return Ok(Ok((reply, streamed.then_some(block)))),
                Err(error) => error,
            };
            if !error.again {
                return Ok(Err(error.failure));
            }
            if asked == TRIES_MAX {
                return Err(Stop::Failed { failure: error.failure, retry: true });
            }
            block_number += 1;
            let pause = error.pause.unwrap_or_else(|| backoff(asked));
            tracing::info!(%key, code = error.failure.code, ?pause, "a model is asked again");
            self.link.during(tokio::time::sleep(pause)).await?;
        }
        unreachable!("the last try returns")
    }

    /// Asks once; returns the answer, and whether anything was streamed.
    async fn ask_once(
        &mut self,
        block: &BlockId,
        usage: &mut Usage,
    ) -> Result<Result<(Reply, bool), CallError>, Stop> {
        self.link.may_act()?;
        let mut answer = match self.link.during(self.client.ask(&self.talk)).await? {
            Ok(answer) => answer,
            Err(error) => return Ok(Err(error)),
        };
        // From here on it is paid, whether it comes to its end or not.
        usage.model_calls += 1;
        let mut streamed = false;
        loop {
            let pieces = match self.link.during(answer.next()).await? {
                Ok(Some(pieces)) => pieces,
                Ok(None) => break,
                Err(error) => return Ok(Err(error)),
            };
            for piece in pieces {
                let (part, text) = match piece {
                    Streamed::Text(text) => (PartKind::Text, text),
                    Streamed::Thought(text) => (PartKind::Thought, text),
                };
                streamed = true;
                self.link.say(Frame::Delta { block: block.clone(), part, text }).await?;
            }
        }
        let reply = answer.reply();
        usage.add(&reply.usage);
        Ok(Ok((reply, streamed)))
    }

    /// Carries out a tool call, or takes what it returned before.
    async fn tool(&mut self, turn: u32, at: usize, call: &Call) -> Result<Returned, Stop> {
        // The gateway journals it.
        if let Some(returned) = self.outside.call(self.link, &call.name, &call.input).await? {
            return Ok(returned);
        }
        let key = StepKey::from(format!("tool:{turn}:{at}"));
        let tool = self.config.tools.iter().copied().find(|tool| tool.kind.name() == call.name);
        let name: String = match call.name.as_str() {
            "" => "?".into(),
            name => name.chars().take(NAME_CHARS_MAX).collect(),
        };
        let digest = canonical::hash(&json!({"tool": call.name, "input": call.input}));
        let step = Step { key: &key, kind: StepKind::Tool, name: &name, digest };
        if let Some(result) = self.journal.step(&step)? {
            return Ok(record::returned(result));
        }
        let limit = tool.map_or(Duration::ZERO, |tool| Tools::limit(tool.kind, &call.input));
        let limit_millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let effect = tool.map_or(EffectClass::Read, |tool| tool.effect);
        let begin = Frame::StepBegin {
            step: key.clone(),
            kind: StepKind::Tool,
            name,
            effect,
            digest,
            request: Some(text(&record::shortened(&call.input))),
            prefix: None,
            limit_millis: Some(limit_millis.saturating_add(STEP_MARGIN_MILLIS)),
        };
        self.link.say(begin).await?;
        if effect == EffectClass::Once {
            self.link.granted(&key).await?;
        }
        let returned = self.carry_out(tool, call).await?;
        let usage = Usage { tool_calls: 1, ..Usage::default() };
        let result = Ok(text(&record::tool_json(&returned)));
        self.link.say(Frame::StepEnd { step: key.clone(), result, usage }).await?;
        self.link.recorded(&key).await?;
        Ok(returned)
    }

    async fn carry_out(&mut self, tool: Option<Tool>, call: &Call) -> Result<Returned, Stop> {
        match tool {
            Some(tool) => {
                self.link.may_act()?;
                self.tools.run(self.link, tool.kind, &call.input).await
            }
            None => {
                let own = self.config.tools.iter().map(|tool| tool.kind.name().to_owned());
                let names = own.chain(self.outside.names()).collect::<Vec<_>>().join(", ");
                Ok(Returned::error(format!("there is no such tool; the tools are: {names}")))
            }
        }
    }
}

/// Makes the ids that we gave unique within the execution.
fn name_calls(turn: u32, reply: &mut Reply) {
    for piece in &mut reply.pieces {
        if let Piece::Call(call) = piece
            && let Some(at) = call.id.strip_prefix(OWN_ID)
        {
            call.id = format!("{OWN_ID}{turn}_{at}");
        }
    }
}

fn backoff(asked: u32) -> Duration {
    let pause = BACKOFF_MIN.saturating_mul(1 << (asked - 1).min(16)).min(BACKOFF_MAX);
    // Spreads those who were refused at the same moment.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    pause + Duration::from_millis(u64::from(now.subsec_nanos() % 250))
}

fn text(value: &Value) -> Body {
    Body::Text(value.to_string())
}

impl Recorded {
    /// Returns the tools that the model asks for.
    fn calls(&self) -> impl Iterator<Item = &Call> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Call(call) => Some(call),
            _ => None,
        })
    }
}

impl From<&Reason> for Option<String> {
    fn from(reason: &Reason) -> Self {
        match reason {
            Reason::Refused(word) => Some(word.clone()),
            Reason::Done | Reason::Length => None,
        }
    }
}
