//! One attempt: a process, a connection to it, and one prompt.

use super::calls::{Call, Calls, refusal};
use super::config::Config;
use super::permission::{Rule, decide};
use super::place::Place;
use super::questions::{self, Form};
use super::steps::{Steps, note};
use super::wire::{self, Heard, Hook, State, Step, Wire};
use crate::acp::Verdict;
use crate::launch::{AskResult, Exit, Io, JournalKind, Launch};
use crate::programs::Programs;
use crate::reach::Reach;
use crate::supervise::Spec;
use crate::turn::{self, Graces, Host, Link, Over, failure, last};
use ax_core::session::{AskKind, Failure, Frame};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::time::timeout;

/// How long the program has to end by itself, so that its state is on the disk.
const QUIT_MAX: Duration = Duration::from_secs(5);

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
    let command = place.command(&config)?;
    let env = place.env(programs, &config, &launch);
    let spec = Spec { command: &command, dir: &place.workspace, env };
    let graces = Graces { quit: QUIT_MAX, stop: config.stop_grace() };
    let (host, output, input) = Host::start(programs, spec, graces).await?;
    let (kill, frames) = (io.kill.clone(), io.frames.clone());
    let around = Around { config: &config, launch: &launch, place: &place, rules: &rules };
    let talk = talk(around, Link::new(io), host.reach(), output, input);
    Ok(turn::carry_out(host, talk, &kill, &frames).await)
}

/// What an attempt is about.
#[derive(Clone, Copy)]
struct Around<'a> {
    config: &'a Config,
    launch: &'a Launch,
    place: &'a Place,
    rules: &'a [Rule],
}

/// Talks with the program, until it is over. The program ends when this lets go of its pipes.
async fn talk(
    around: Around<'_>,
    mut link: Link,
    reach: Reach,
    mut output: pipe::Receiver,
    mut input: pipe::Sender,
) -> Over {
    let ready = around.config.ready_max();
    let storage = around.place.trajectories();
    let connect = async {
        let door = wire::greet(&mut output, &mut input, &storage).await?;
        Wire::connect(&reach, &door).await
    };
    let late = || failure("not_ready", "the program does not let us in in time");
    let reached = async { timeout(ready, connect).await.unwrap_or_else(|_| Err(late())) };
    match link.during(reached).await {
        Ok(Ok(wire)) => Talk::new(around, link, wire).run(ready).await,
        Ok(Err(why)) => Over::Broken(why),
        Err(over) => over,
    }
}

/// Something that waits for a person.
enum Pending {
    /// Whether a tool may be used, at this hook.
    Permission { hook: String, call: Call },
    /// Whether a step may go on.
    Confirmation { trajectory: String, step: u32 },
    /// Questions of the agent.
    Questions(Form),
}

/// The talk with a program.
pub(super) struct Talk<'a> {
    pub(super) link: Link,
    pub(super) wire: Wire,
    pub(super) config: &'a Config,
    pub(super) launch: &'a Launch,
    pub(super) place: &'a Place,
    rules: &'a [Rule],
    steps: Steps,
    calls: Calls,
    /// What a person is asked for, by the key of the question.
    pending: BTreeMap<String, Pending>,
    /// How often each question was put.
    seen: BTreeMap<String, u32>,
    /// The steps whose questions are put.
    asked: BTreeSet<(String, u32)>,
    /// What persons said in earlier attempts.
    known: BTreeMap<String, AskResult>,
    /// Whether the turn is under way.
    begun: bool,
}

impl<'a> Talk<'a> {
    fn new(around: Around<'a>, link: Link, wire: Wire) -> Self {
        let Around { config, launch, place, rules } = around;
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
            steps: Steps::new(&place.id),
            calls: Calls::new(servers(launch)),
            pending: BTreeMap::new(),
            seen: BTreeMap::new(),
            asked: BTreeSet::new(),
            known: known.collect(),
            begun: false,
        }
    }

    async fn run(mut self, ready: Duration) -> Over {
        let Err(over) = self.turn(ready).await;
        if let Over::Canceled(grace) = &over {
            let grace = *grace;
            let _ended_by_force_else = timeout(grace, self.halt()).await;
        }
        over
    }

    /// Carries out the turn, to its end or until it is over.
    async fn turn(&mut self, ready: Duration) -> Result<Infallible, Over> {
        let model = self.place.model(self.config, self.launch);
        let model = model.map_err(|why| Over::Failed { failure: why, retry: false })?;
        let prompt = self.open(&model, ready).await?;
        fits(&prompt)?;
        // The agent acts on it by itself: this is the last moment to ask.
        self.link.may_act()?;
        self.wire.send("userInput", &prompt);
        loop {
            while let Some((key, result)) = self.link.answer() {
                if let Some(pending) = self.pending.remove(&key) {
                    self.answered(pending, &result).await?;
                }
            }
            self.link.works = self.pending.is_empty() && self.calls.is_working();
            let heard = tokio::select! {
                told = self.link.listen() => {
                    told?;
                    continue;
                }
                heard = self.wire.next() => heard.map_err(Over::Broken)?,
            };
            self.hear(heard).await?;
        }
    }

    /// Tells the program to stop, and waits until it has.
    async fn halt(&mut self) {
        if !self.begun {
            return;
        }
        self.wire.send("haltRequest", &true.into());
        while let Ok(heard) = self.wire.next().await {
            match heard {
                Heard::State(state) if self.is_idle(&state) => return,
                Heard::Hook(hook) if hook.pre_tool_args.is_some() => {
                    self.deny(&hook.request_id, "the turn is canceled");
                }
                Heard::Hook(hook) => self.go_on(&hook.request_id),
                _ => {}
            }
        }
    }

    fn is_idle(&self, state: &State) -> bool {
        let ended = matches!(state.state.as_str(), "STATE_FULLY_IDLE" | "STATE_CANCELLED");
        ended && state.trajectory_id == self.place.id
    }

    /// Takes in what the program says.
    pub(super) async fn hear(&mut self, heard: Heard) -> Result<(), Over> {
        match heard {
            Heard::Step(step) => self.step(&step).await,
            Heard::State(state) => self.state(&state).await,
            Heard::Hook(hook) => self.hook(&hook).await,
            Heard::Policy(request) => {
                let outcome = "POLICY_EVALUATION_OUTCOME_NO_MATCH";
                let answer = json!({"requestId": request, "outcome": outcome});
                self.wire.send("policyDecisionResponse", &answer);
                Ok(())
            }
            Heard::Call(id, name) => {
                let message = format!("there is no tool {name}");
                self.wire.send("toolResponse", &json!({"id": id, "errorMessage": message}));
                self.link.say(note("refused", &json!({"id": id, "tool": name}))).await
            }
            Heard::Usage(usage) => self.link.say(note("usage", &usage)).await,
            Heard::Opened => Ok(()),
            Heard::Other(other) => self.link.say(note("notice", &other)).await,
        }
    }

    async fn step(&mut self, step: &Step) -> Result<(), Over> {
        for frame in self.steps.hear(step) {
            self.link.say(frame).await?;
        }
        if step.state == "STATE_ERROR" {
            self.calls.lose();
        }
        let which = (step.trajectory_id.clone(), step.step_index);
        if step.state != "STATE_WAITING_FOR_USER" {
            // It may wait again, and is asked for again then.
            if !step.state.is_empty() {
                self.asked.remove(&which);
            }
            return Ok(());
        }
        if self.asked.contains(&which) {
            return Ok(());
        }
        if let Some(form) = Form::of(step) {
            self.asked.insert(which);
            return self.put(form).await;
        }
        if step.tool_confirmation_request.is_some() {
            self.asked.insert(which);
            return self.confirm(step).await;
        }
        Ok(())
    }

    /// Puts the next question of the agent, or tells it the answers.
    async fn put(&mut self, mut form: Form) -> Result<(), Over> {
        while let Some((key, frame)) = form.next(&mut self.seen) {
            if let Some(result) = self.known.get(key.as_str()) {
                form.answer(result);
                continue;
            }
            self.link.say(frame).await?;
            drop(self.pending.insert(key.as_str().to_owned(), Pending::Questions(form)));
            return Ok(());
        }
        self.wire.send("questionResponse", &form.response());
        Ok(())
    }

    /// Asks whether a step may go on.
    async fn confirm(&mut self, step: &Step) -> Result<(), Over> {
        let count = self.seen.entry(step.request_text.clone()).or_default();
        *count += 1;
        let hash = blake3::hash(step.request_text.as_bytes()).to_hex()[..32].to_owned();
        let key = format!("antigravity:confirm:{hash}:{count}");
        let (trajectory, step_index) = (step.trajectory_id.clone(), step.step_index);
        let pending = Pending::Confirmation { trajectory, step: step_index };
        if let Some(result) = self.known.get(&key).cloned() {
            return self.answered(pending, &result).await;
        }
        self.link
            .say(Frame::Ask {
                key: key.as_str().into(),
                kind: AskKind::Approval,
                prompt: questions::prompt(format!("May the agent go on? {}", step.request_text)),
                choices: Vec::new(),
                details: None,
                expires_millis: None,
            })
            .await?;
        drop(self.pending.insert(key, pending));
        Ok(())
    }

    async fn state(&mut self, state: &State) -> Result<(), Over> {
        if state.trajectory_id != self.place.id {
            let data = json!({"trajectory": state.trajectory_id, "state": state.state});
            return self.link.say(note("helper", &data)).await;
        }
        if !self.is_idle(state) {
            self.begun = true;
            return Ok(());
        }
        if !self.begun {
            return Ok(());
        }
        if let Some(frame) = self.steps.close() {
            self.link.say(frame).await?;
        }
        let data = json!({"state": state.state, "error": state.error,
            "errorCode": state.error_code, "stopReason": state.stop_reason});
        self.link.say(note("stop", &data)).await?;
        Err(end_of(state, self.steps.http_code))
    }

    async fn hook(&mut self, hook: &Hook) -> Result<(), Over> {
        if let Some(args) = &hook.pre_tool_args {
            let (call, key, frame) = self.calls.made(args);
            self.link.say(frame).await?;
            // What it is about to do is durable before it does it.
            self.link.recorded(&key).await?;
            return self.permit(hook.request_id.clone(), call).await;
        }
        let ended = hook.post_tool_args.as_ref().or(hook.on_tool_error_args.as_ref());
        let frame = match ended {
            Some(args) => self.calls.came_of(args),
            None => note("hook", &hook.whole),
        };
        self.link.say(frame).await?;
        self.go_on(&hook.request_id);
        Ok(())
    }

    async fn permit(&mut self, hook: String, call: Call) -> Result<(), Over> {
        match decide(self.rules, &call.tool, call.has_its_own) {
            Verdict::Allow => self.allow(&hook),
            Verdict::Deny => {
                let why = "the rules do not permit it";
                self.link.say(self.calls.denied(&call, why)).await?;
                self.deny(&hook, why);
                Ok(())
            }
            Verdict::Ask => {
                let key = call.ask_key();
                let pending = Pending::Permission { hook, call: call.clone() };
                if let Some(result) = self.known.get(key.as_str()).cloned() {
                    return self.answered(pending, &result).await;
                }
                self.link.say(call.question()).await?;
                drop(self.pending.insert(key.as_str().to_owned(), pending));
                Ok(())
            }
        }
    }

    /// Tells the program what a person said.
    async fn answered(&mut self, pending: Pending, result: &AskResult) -> Result<(), Over> {
        match pending {
            Pending::Permission { hook, call } => match refusal(result) {
                None => self.allow(&hook),
                Some(why) => {
                    self.link.say(self.calls.denied(&call, &why)).await?;
                    self.deny(&hook, &why);
                    Ok(())
                }
            },
            Pending::Confirmation { trajectory, step } => {
                self.link.may_act()?;
                let accepted = refusal(result).is_none();
                let answer =
                    json!({"trajectoryId": trajectory, "stepIndex": step, "accepted": accepted});
                self.wire.send("toolConfirmation", &answer);
                Ok(())
            }
            Pending::Questions(mut form) => {
                form.answer(result);
                Box::pin(self.put(form)).await
            }
        }
    }

    fn allow(&mut self, hook: &str) -> Result<(), Over> {
        self.link.may_act()?;
        let answer = json!({"requestId": hook, "preToolResult": {"decision": "ALLOW"}});
        self.wire.send("callHookResponse", &answer);
        Ok(())
    }

    fn deny(&mut self, hook: &str, why: &str) {
        let result = json!({"decision": "DENY", "reason": why});
        let answer = json!({"requestId": hook, "preToolResult": result});
        self.wire.send("callHookResponse", &answer);
    }

    fn go_on(&mut self, hook: &str) {
        let answer: Value = json!({"requestId": hook, "emptyResult": {}});
        self.wire.send("callHookResponse", &answer);
    }
}

/// Returns the names of the tool servers of the gateway; none if it does not stand, which is found
/// out when the program is told of them.
fn servers(launch: &Launch) -> BTreeSet<String> {
    let servers = turn::tool_servers(launch).unwrap_or_default();
    servers.into_iter().map(|(name, _)| name).collect()
}

/// Checks that a prompt is not more than the program can be told.
fn fits(prompt: &Value) -> Result<(), Over> {
    let (bytes, limit) = (prompt.to_string().len(), wire::QUEUE_BYTES_MAX);
    if bytes > limit {
        let message = format!("the input is {bytes} bytes long, and may be {limit} at most");
        return Err(last("input_too_large", message));
    }
    Ok(())
}

/// Returns what a turn's end means.
fn end_of(state: &State, http_code: u32) -> Over {
    let reason = state.stop_reason.strip_prefix("STOP_REASON_").unwrap_or_default();
    if !reason.is_empty() && reason != "UNSPECIFIED" {
        let code = reason.to_ascii_lowercase();
        let message = format!("the agent stopped: {}", code.replace('_', " "));
        return last(&code, message);
    }
    if state.state == "STATE_CANCELLED" {
        return last("cancelled", "the agent canceled the turn by itself");
    }
    if state.error.is_empty() {
        return Over::Done;
    }
    // What was asked wrongly is asked wrongly again.
    let retry = !(400..500).contains(&http_code) || matches!(http_code, 408 | 429);
    Over::Failed { failure: failure("agent", &state.error), retry }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_that_is_too_long_is_refused_for_good() {
        assert!(fits(&json!("hello")).is_ok());
        let over = fits(&"x".repeat(wire::QUEUE_BYTES_MAX).into()).unwrap_err();
        let Over::Failed { failure, retry: false } = over else { panic!("{over:?}") };
        assert_eq!(failure.code, "input_too_large");
    }

    #[test]
    fn an_end_that_is_none_is_a_failure() {
        let end = |state: &str, error: &str, reason: &str, http_code| {
            let (state, error) = (format!("STATE_{state}"), error.to_owned());
            let stop_reason = reason.to_owned();
            end_of(&State { state, error, stop_reason, ..State::default() }, http_code)
        };
        let idle = |error: &str, http_code| end("FULLY_IDLE", error, "", http_code);
        assert!(matches!(idle("", 0), Over::Done));
        assert!(matches!(idle("no", 400), Over::Failed { retry: false, .. }));
        assert!(matches!(idle("no", 429), Over::Failed { retry: true, .. }));
        assert!(matches!(idle("no", 0), Over::Failed { retry: true, .. }));
        assert!(matches!(end("CANCELLED", "", "", 0), Over::Failed { retry: false, .. }));
        let over = end("FULLY_IDLE", "", "STOP_REASON_MAX_MODEL_CALLS_EXCEEDED", 0);
        let Over::Failed { failure, retry: false } = over else { panic!("{over:?}") };
        assert_eq!(failure.code, "max_model_calls_exceeded");
    }
}
