//! One attempt: an interaction, and one more for whatever its agent wants to know.

use super::client::Client;
use super::config::Config;
use super::failure;
use super::follow::{Known, keep};
use super::past::{Past, ask_key};
use super::request::{self, Request};
use super::steps::Steps;
use super::wire::Standing;
use crate::launch::{AskResult, KEEP_NOTE, Launch};
use crate::link::{Link, Stop};
use crate::outside::Outside;
use ax_core::session::{Answer, AskKind, Body, Frame, StepKey};
use serde_json::{Value, json};

/// How much of the arguments of a call is in a question, in characters.
const SHOWN_CHARS_MAX: usize = 2_000;
/// How much of the name of a function is in a question, in characters.
const NAME_CHARS_MAX: usize = 256;
/// The longest question, in bytes.
const PROMPT_BYTES_MAX: usize = 64 * 1024;
/// The number of a question that is about no call.
const ABOUT_NOTHING: u64 = u64::MAX;

/// An attempt under way.
pub(super) struct Run<'a> {
    pub(super) link: &'a mut Link,
    pub(super) config: &'a Config,
    pub(super) client: &'a Client,
    pub(super) launch: &'a Launch,
    pub(super) outside: Outside,
    pub(super) past: Past,
}

impl Run<'_> {
    /// Runs to the end; the last frame is said by the caller if it fails.
    pub(super) async fn run(&mut self) -> Result<(), Stop> {
        let mut request = self.first().map_err(|failure| Stop::Failed { failure, retry: false })?;
        for turn in 1..=self.config.max_turns {
            let mut known = self.create(turn, request).await?;
            let mut steps = Steps::new(turn, self.past.heard(turn));
            let standing = self.hear(turn, &mut known, &mut steps).await?;
            match standing.status.as_str() {
                "completed" => return self.done(turn, &known, &standing).await,
                "requires_action" => request = self.act(turn, known, &standing, &steps).await?,
                _ => return Err(Stop::Failed { failure: failed(&standing), retry: false }),
            }
        }
        let turns = self.config.max_turns;
        let message = format!("the agent still wants something after {turns} turns; see max_turns");
        Err(Stop::final_failure("max_turns", message))
    }

    /// Returns the name of the session.
    pub(super) fn session(&self) -> String {
        self.launch.key.session.to_string()
    }

    /// Says something that only this harness understands.
    pub(super) async fn note(&mut self, name: &str, data: &Value) -> Result<(), Stop> {
        let data = Body::Text(data.to_string());
        self.link.say(Frame::Note { key: None, name: name.into(), data }).await
    }

    async fn done(&mut self, turn: u32, known: &Known, standing: &Standing) -> Result<(), Stop> {
        let frame = Frame::Note {
            key: Some("keep".into()),
            name: KEEP_NOTE.into(),
            data: Body::Text(keep(&known.id).to_string()),
        };
        self.link.say(frame).await?;
        let result = json!({"interaction": known.id, "status": standing.status, "turns": turn});
        self.link.say(Frame::End { result: Some(Body::Text(result.to_string())) }).await
    }

    /// Does what the agent waits for; returns what it is told.
    async fn act(
        &mut self,
        turn: u32,
        known: Known,
        standing: &Standing,
        steps: &Steps,
    ) -> Result<Request, Stop> {
        let mut input = Vec::new();
        let calls: Vec<(u64, Value)> =
            steps.calls().map(|(index, call)| (index, call.clone())).collect();
        for (index, call) in &calls {
            input.push(self.call(turn, *index, call).await?);
        }
        if calls.is_empty() {
            let words = match standing.words.trim() {
                "" => "The agent waits for an answer, and does not say what it wants to know.",
                words => words,
            };
            let key = ask_key(turn, ABOUT_NOTHING);
            let details = json!({"interaction": known.id});
            let answer = self.ask(&key, words.to_owned(), &details).await?;
            let text = answer.map_err(|why| Stop::final_failure("interaction_unanswered", why))?;
            input.push(request::text(text));
        }
        Ok(Request { input, previous: Some(known.id) })
    }

    /// Carries out a call of a function, by a tool server or a person.
    async fn call(&mut self, turn: u32, index: u64, call: &Value) -> Result<Value, Stop> {
        let name = call["name"].as_str().unwrap_or_default();
        let arguments = match &call["arguments"] {
            Value::Null => json!({}),
            arguments => arguments.clone(),
        };
        if let Some(returned) = self.outside.call(self.link, name, &arguments).await? {
            return Ok(request::result(call, &returned.text, returned.error));
        }
        let shown: String = arguments.to_string().chars().take(SHOWN_CHARS_MAX).collect();
        let named: String = name.chars().take(NAME_CHARS_MAX).collect();
        let words = format!(
            "The agent calls {named}, which no tool server offers, with {shown}. \
             What does it return?"
        );
        let answer = self.ask(&ask_key(turn, index), words, call).await?;
        Ok(match answer {
            Ok(text) => request::result(call, &text, false),
            Err(why) => request::result(call, &why, true),
        })
    }

    /// Asks a person; returns the answer, or why there is none.
    async fn ask(
        &mut self,
        key: &StepKey,
        mut prompt: String,
        details: &Value,
    ) -> Result<Result<String, String>, Stop> {
        let result = match self.past.ask(key) {
            Some(result) => result.clone(),
            None => {
                let end = prompt.floor_char_boundary(PROMPT_BYTES_MAX);
                prompt.truncate(end);
                let frame = Frame::Ask {
                    key: key.clone(),
                    kind: AskKind::Text,
                    prompt,
                    choices: Vec::new(),
                    details: Some(Body::Text(details.to_string())),
                    expires_millis: None,
                };
                self.link.say(frame).await?;
                self.link.answer(key).await?
            }
        };
        Ok(match result {
            AskResult::Expired => Err("nobody answered in time".into()),
            AskResult::Answered(Answer::Text(text)) => Ok(text),
            AskResult::Answered(Answer::Choice(choice, text)) => {
                Ok([choice, text].join(" ").trim().to_owned())
            }
            AskResult::Answered(Answer::Approve) => Ok("yes".into()),
            AskResult::Answered(Answer::Deny(why)) if why.trim().is_empty() => {
                Err("a person denied it".into())
            }
            AskResult::Answered(Answer::Deny(why)) => Err(format!("a person denied it: {why}")),
        })
    }
}

/// Says why an interaction that is over did not succeed.
fn failed(standing: &Standing) -> ax_core::session::Failure {
    let (code, what) = match standing.status.as_str() {
        "failed" => ("interaction_failed", "the interaction failed"),
        "cancelled" => ("interaction_cancelled", "somebody canceled it at the provider"),
        "incomplete" => ("interaction_incomplete", "the interaction broke off"),
        "budget_exceeded" => ("interaction_budget", "the budget at the provider is used up"),
        "requires_continuation" => {
            let what = "the interaction came to its greatest length; use `background: true`";
            ("interaction_incomplete", what)
        }
        other => {
            let other: String = other.chars().take(64).collect();
            return failure(
                "protocol",
                format!("the interaction is {other:?}, which is not known"),
            );
        }
    };
    let why = standing.errors.join("; ");
    failure(code, if why.is_empty() { what.to_owned() } else { format!("{what}: {why}") })
}
