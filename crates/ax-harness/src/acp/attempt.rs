//! One attempt: a process, a session of it, and one prompt.

use super::config::{AfterCrash, Config};
use super::opening::Opened;
use super::permission::{self, Request, Rule, Verdict};
use super::place::Place;
use super::updates::{Updates, note};
use super::wire::{Heard, Refused, Wire};
use super::{Over, failure, last};
use crate::launch::{AskResult, Exit, Io, JournalKind, Launch};
use crate::programs::Programs;
use crate::supervise::Spec;
use crate::turn::{self, Graces, Host, Link};
use ax_core::session::Failure;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::time::timeout;

/// The wire to a process.
type Pipes = Wire<pipe::Receiver, pipe::Sender>;

/// How long an agent that was hung up on has to end by itself.
const QUIT_MAX: Duration = Duration::from_millis(500);
/// How long an agent has to close its session.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// The error code of JSON-RPC for a method that is not there.
const METHOD_NOT_FOUND: i64 = -32_601;
/// The error code of JSON-RPC for parameters that do not fit.
const INVALID_PARAMS: i64 = -32_602;

/// Runs an attempt to its end.
pub(super) async fn run(programs: &Programs, launch: Launch, io: Io) -> Result<Exit, Failure> {
    let config = Config::parse(&launch.agent.harness).map_err(|error| failure("config", error))?;
    let rules = config.permissions().map_err(|error| failure("config", error))?;
    io.may_act.check()?;
    let (launch, config, place) = tokio::task::spawn_blocking(move || {
        let place = Place::of(&config, &launch);
        (launch, config, place)
    })
    .await
    .map_err(|error| failure("state", error))?;
    let place = place?;
    io.may_act.check()?;
    let (host, wire) = start(programs, &config, &launch, &place).await?;
    let (kill, frames) = (io.kill.clone(), io.frames.clone());
    let talk = Talk::new(Link::new(io), wire, &config, &launch, &place, &rules);
    Ok(turn::carry_out(host, talk.run(), &kill, &frames).await)
}

async fn start(
    programs: &Programs,
    config: &Config,
    launch: &Launch,
    place: &Place,
) -> Result<(Host, Pipes), Failure> {
    let command = place.command(config);
    let env = place.env(programs, config, launch);
    let spec = Spec { command: &command, dir: &place.workspace, env };
    let graces = Graces { quit: QUIT_MAX, stop: config.stop_grace() };
    let (host, output, input) = Host::start(programs, spec, graces).await?;
    Ok((host, Wire::new(output, input)))
}

/// The talk with an agent.
pub(super) struct Talk<'a> {
    pub(super) link: Link,
    wire: Pipes,
    pub(super) config: &'a Config,
    pub(super) launch: &'a Launch,
    pub(super) place: &'a Place,
    rules: &'a [Rule],
    updates: Updates,
    /// Whether what the agent says of its session is old.
    pub(super) quiet: bool,
    /// Requests for which a person is asked, by the key of the question.
    pending: BTreeMap<String, Request>,
    /// How often each request was made.
    seen: BTreeMap<String, u32>,
    /// What persons said in earlier attempts.
    known: BTreeMap<String, AskResult>,
    prompt: Option<u64>,
    session: String,
}

impl<'a> Talk<'a> {
    fn new(
        link: Link,
        wire: Pipes,
        config: &'a Config,
        launch: &'a Launch,
        place: &'a Place,
        rules: &'a [Rule],
    ) -> Self {
        let known = launch.journal.iter().filter_map(|entry| match &entry.kind {
            JournalKind::Ask(Some(result)) => Some((entry.key.as_str().to_owned(), result.clone())),
            _ => None,
        });
        Self {
            link,
            wire,
            config,
            launch,
            place,
            rules,
            updates: Updates::default(),
            quiet: false,
            pending: BTreeMap::new(),
            seen: BTreeMap::new(),
            known: known.collect(),
            prompt: None,
            session: String::new(),
        }
    }

    /// Whether the agent goes on with a turn that it has begun.
    pub(super) fn goes_on(&self) -> bool {
        self.config.after_crash == AfterCrash::Continue && self.launch.attempt.0 > 1
    }

    async fn run(mut self) -> Over {
        let Err(over) = self.turn().await;
        if let Over::Canceled(grace) = &over {
            let grace = *grace;
            let _ended_by_force_else = timeout(grace, self.cancel()).await;
        }
        self.wire.hang_up();
        over
    }

    /// Carries out the turn, to its end or until it is over.
    async fn turn(&mut self) -> Result<Infallible, Over> {
        let Opened { session, prompt, close } = self.open().await?;
        self.session.clone_from(&session);
        // The agent acts on it by itself: this is the last moment to ask.
        self.link.may_act()?;
        let params = json!({"sessionId": session, "prompt": prompt});
        let id = self.wire.request("session/prompt", &params);
        self.prompt = Some(id);
        let answer = self.answer_to(id).await?;
        self.prompt = None;
        if let Some(frame) = self.updates.close() {
            self.link.say(frame).await?;
        }
        let over = match answer {
            Ok(answer) => {
                self.link.say(note("stop", &answer)).await?;
                end_of(&answer)
            }
            Err(refused) => {
                let failure = refused.failure("session/prompt");
                Over::Failed { failure, retry: refused.may_pass() }
            }
        };
        if close {
            let close = self.wire.request("session/close", &json!({"sessionId": session}));
            if let Ok(Err(over @ (Over::Told(_) | Over::Canceled(_)))) =
                timeout(CLOSE_MAX, self.answer_to(close)).await
            {
                return Err(over);
            }
        }
        Err(over)
    }

    /// Tells the agent to stop, and waits until it has.
    async fn cancel(&mut self) {
        let Some(prompt) = self.prompt else { return };
        self.wire.notify("session/cancel", &json!({"sessionId": self.session}));
        for (_, request) in std::mem::take(&mut self.pending) {
            self.wire.answer(&request.id, &permission::cancelled());
        }
        while let Ok(heard) = self.wire.next().await {
            match heard {
                Heard::Answer(id, _) if id == prompt => return,
                Heard::Request(id, ..) => self.wire.answer(&id, &permission::cancelled()),
                Heard::Answer(..) | Heard::Notice(..) => {}
            }
        }
    }

    /// Asks for something, and waits for what the agent answers.
    pub(super) async fn call(
        &mut self,
        method: &str,
        params: &Value,
    ) -> Result<Result<Value, Refused>, Over> {
        let id = self.wire.request(method, params);
        let limit = self.config.ready_max();
        timeout(limit, self.answer_to(id)).await.unwrap_or_else(|_| {
            let message = format!("{method} was not answered within {} ms", limit.as_millis());
            Err(Over::Broken(failure("not_ready", message)))
        })
    }

    /// Asks for something without which it cannot go on.
    pub(super) async fn must(&mut self, method: &str, params: &Value) -> Result<Value, Over> {
        let answer = self.call(method, params).await?;
        answer.map_err(|refused| {
            let retry = refused.may_pass();
            Over::Failed { failure: refused.failure(method), retry }
        })
    }

    /// Waits for an answer; meanwhile everything else is heard and answered.
    async fn answer_to(&mut self, asked: u64) -> Result<Result<Value, Refused>, Over> {
        loop {
            while let Some((key, result)) = self.link.answer() {
                if let Some(request) = self.pending.remove(&key) {
                    self.wire.answer(&request.id, &request.answered(&result));
                }
            }
            self.link.works = self.pending.is_empty() && self.updates.is_working();
            let heard = tokio::select! {
                told = self.link.listen() => {
                    told?;
                    continue;
                }
                heard = self.wire.next() => heard.map_err(Over::Broken)?,
            };
            match heard {
                Heard::Answer(id, answer) if id == asked => return Ok(answer),
                // It comes too late.
                Heard::Answer(..) => {}
                Heard::Request(id, method, params) => self.request(&id, &method, params).await?,
                Heard::Notice(method, params) => self.notice(&method, params).await?,
            }
        }
    }

    async fn notice(&mut self, method: &str, mut params: Value) -> Result<(), Over> {
        if method != "session/update" {
            let data = json!({"method": method, "params": params});
            return self.link.say(note("notice", &data)).await;
        }
        if self.quiet {
            return Ok(());
        }
        let named = params.get("sessionId").and_then(Value::as_str);
        let ours = named.is_none_or(|named| self.session.is_empty() || named == self.session);
        let update = params.get_mut("update").map(Value::take);
        let Some(update) = update.filter(|_| ours) else {
            return self.link.say(note("notice", &params)).await;
        };
        for frame in self.updates.hear(update) {
            self.link.say(frame).await?;
        }
        Ok(())
    }

    async fn request(&mut self, id: &Value, method: &str, params: Value) -> Result<(), Over> {
        if method != "session/request_permission" {
            let words = format!("{method} is not offered");
            self.wire.refuse(id, METHOD_NOT_FOUND, &words);
            let data = json!({"method": method, "params": params});
            return self.link.say(note("refused", &data)).await;
        }
        let call = params.get("toolCall").cloned().unwrap_or_default();
        let named = call.get("toolCallId").and_then(Value::as_str).unwrap_or_default();
        let Some(request) = Request::of(id.clone(), &params, self.updates.call(named)) else {
            self.wire.refuse(id, INVALID_PARAMS, "this is no request for a permission");
            return self.link.say(note("refused", &params)).await;
        };
        self.learn(call).await?;
        let verdict = request.verdict(self.rules);
        if verdict != Verdict::Ask {
            let allowed = verdict == Verdict::Allow;
            let outcome = request.outcome(allowed);
            let data = json!({"request": params, "answer": outcome});
            self.link.say(note("permission", &data)).await?;
            self.wire.answer(id, &outcome);
            return Ok(());
        }
        let key = request.key(&mut self.seen);
        if let Some(result) = self.known.get(key.as_str()) {
            self.wire.answer(id, &request.answered(result));
            return Ok(());
        }
        self.link.say(request.question(key.clone())).await?;
        drop(self.pending.insert(key.as_str().to_owned(), request));
        Ok(())
    }

    /// Takes in what a request for a permission says of its call.
    async fn learn(&mut self, mut call: Value) -> Result<(), Over> {
        if let Value::Object(fields) = &mut call {
            drop(fields.insert("sessionUpdate".into(), "tool_call_update".into()));
        }
        for frame in self.updates.hear(call) {
            self.link.say(frame).await?;
        }
        Ok(())
    }
}

/// Returns what a turn's end means.
fn end_of(answer: &Value) -> Over {
    match answer.get("stopReason").and_then(Value::as_str) {
        Some("end_turn") => Over::Done,
        Some("max_tokens") => last("max_tokens", "the model came to its greatest length"),
        Some("max_turn_requests") => {
            last("max_turn_requests", "the agent made as many requests as it may in a turn")
        }
        Some("refusal") => last("refusal", "the agent refuses to go on"),
        Some("cancelled") => last("cancelled", "the agent canceled the turn by itself"),
        other => {
            last("protocol", format!("the turn ended for a reason that is not known: {other:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_none_is_a_failure() {
        let end = |reason: Value| end_of(&json!({"stopReason": reason}));
        assert!(matches!(end(json!("end_turn")), Over::Done));
        for reason in ["max_tokens", "max_turn_requests", "refusal", "cancelled", "tired"] {
            assert!(matches!(end(json!(reason)), Over::Failed { retry: false, .. }), "{reason}");
        }
        assert!(matches!(end(Value::Null), Over::Failed { .. }));
    }
}
