//! Carrying calls out: each is a step of the session, recorded before and after.

use super::ledger::{Found, Ledger, Taken};
use super::server::{Asked, CallError, Server};
use super::{Answer, server};
use crate::canonical;
use crate::policy::{Policy, Verdict};
use crate::probe::Probe;
use crate::proof;
use crate::session::{self, Closed, KEY_PREFIX, Session, Told};
use ax_core::session::{
    self as core, AskKind, Body, Digest, EffectClass, Failure, Frame, StepKey, StepKind, Usage,
};
use rmcp::model::{CallToolResponse, ProgressNotificationParam};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often a call that changes nothing more is made when its server breaks.
const TRIES_MAX: u32 = 3;
/// The most calls that wait for something, people included.
const OPEN_MAX: usize = 1_024;
/// The most calls that are carried out at a time.
const UNDER_WAY_MAX: usize = 64;

/// What the calls of all servers share.
#[derive(Debug)]
pub(super) struct Calls {
    ledger: Mutex<Ledger>,
    asks: HashMap<StepKey, Option<core::Answer>>,
    session: Arc<Session>,
    scope: String,
    tasks: TaskTracker,
    stop: CancellationToken,
    open: Arc<Semaphore>,
    under_way: Semaphore,
}

/// A call, as it is carried out.
#[derive(Clone, Debug)]
struct Call {
    server: Arc<Server>,
    asked: Asked,
    digest: Digest,
    step: StepKey,
    effect: EffectClass,
    /// How to find out whether it was carried out, if it must not happen twice.
    probe: Option<Probe>,
    /// An earlier attempt may have carried it out.
    in_doubt: bool,
    /// Whether a person has to allow it.
    asks: bool,
    progress: broadcast::Sender<ProgressNotificationParam>,
}

impl Calls {
    pub(super) fn new(
        ledger: Ledger,
        asks: HashMap<StepKey, Option<core::Answer>>,
        session: Arc<Session>,
        scope: String,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (open, under_way) = (Arc::new(Semaphore::new(OPEN_MAX)), Semaphore::new(UNDER_WAY_MAX));
        let ledger = Mutex::new(ledger);
        Self { ledger, asks, session, scope, tasks, stop, open, under_way }
    }

    /// Finds the call that answers a request, or begins it.
    ///
    /// # Errors
    ///
    /// Says why it is not allowed.
    pub(super) async fn call(
        self: &Arc<Self>,
        server: &Arc<Server>,
        asked: Asked,
    ) -> Result<Taken, String> {
        let digest = digest(server, &asked);
        // What was done is done, whatever the policy says today.
        if let Some(taken) = self.ledger().known(server.name(), digest) {
            return Ok(taken);
        }
        let Policy { verdict, effect, probe } =
            match server.policy(&asked.tool, &asked.arguments).await {
                Ok(Policy { verdict: Verdict::Deny, .. }) => {
                    let why = format!("the policy of this agent does not allow {}", asked.tool);
                    return Err(self.denied(server, &asked, digest, why).await);
                }
                Ok(policy) => policy,
                Err(why) => {
                    let why = format!("it cannot be said whether this is allowed: {why}");
                    return Err(self.denied(server, &asked, digest, why).await);
                }
            };
        if self.session.is_closing() {
            return Err("the attempt is over".into());
        }
        let Ok(place) = Arc::clone(&self.open).try_acquire_owned() else {
            return Err(format!("{OPEN_MAX} calls are under way, which is the most"));
        };
        let (call, taken) = {
            let mut ledger = self.ledger();
            let (step, taken) = match ledger.ask(server.name(), digest) {
                Found::Known(taken) => return Ok(taken),
                Found::New(step, taken) => (step, taken),
            };
            let in_doubt = ledger.is_in_doubt(&step);
            let (server, progress) = (Arc::clone(server), taken.outcome().progress);
            let asks = verdict == Verdict::Ask;
            let call =
                Call { server, asked, digest, step, effect, probe, in_doubt, asks, progress };
            (call, taken)
        };
        let (calls, outcome) = (Arc::clone(self), taken.outcome());
        drop(self.tasks.spawn(async move {
            let _place = place;
            let done = tokio::select! {
                () = calls.stop.cancelled() => Err(Closed("the attempt is over".into())),
                done = calls.carry_out(&call) => done,
            };
            outcome.set(done.map_err(|closed| closed.0));
        }));
        Ok(taken)
    }

    /// Records that a call is denied, and why; returns what the harness is told.
    async fn denied(&self, server: &Server, asked: &Asked, digest: Digest, why: String) -> String {
        if self.ledger().deny(digest) {
            let hex: String = digest.to_string().chars().take(32).collect();
            let data = json!({"tool": format!("{}.{}", server.name(), asked.tool), "reason": why});
            let frame = Frame::Note {
                key: Some(format!("{KEY_PREFIX}denied:{}:{hex}", server.name()).into()),
                name: "gateway.denied".into(),
                data: Body::Text(data.to_string()),
            };
            // It is denied whether the session listens or not.
            let _gone = self.session.say(frame).await;
        }
        why
    }

    async fn carry_out(&self, call: &Call) -> Result<Answer, Closed> {
        let allowed = if call.asks { self.allowed(call).await? } else { Ok(()) };
        let place = self.under_way.acquire().await;
        let _place = place.map_err(|_| Closed("the attempt is over".into()))?;
        if self.session.is_closing() {
            return Err(Closed("the attempt is over".into()));
        }
        let known = if call.in_doubt { self.find_out(call).await? } else { None };
        let effect = if call.probe.is_some() { EffectClass::Probed } else { call.effect };
        let begin = begin(call, effect);
        let mut refused = None;
        match effect {
            // Its intent is durable before it is carried out.
            EffectClass::Once | EffectClass::Probed => {
                match self.session.ask(&call.step, begin).await? {
                    Told::Granted => {}
                    other => {
                        return Err(Closed(format!("the step cannot be carried out: {other:?}")));
                    }
                }
            }
            EffectClass::Read | EffectClass::Idempotent => {
                refused = Some(self.session.begin(&call.step, begin).await?);
            }
        }
        let answer = match (known, allowed) {
            (Some(answer), _) => answer,
            (None, Ok(())) => tokio::select! {
                answer = self.try_all(call) => answer?,
                why = session::refusal(refused) => return Err(Closed(why)),
            },
            (None, Err(why)) => Answer::failed(&why),
        };
        let stored = answer.store().map_err(|error| Closed(error.to_string()))?;
        let usage = Usage { tool_calls: 1, ..Usage::default() };
        self.session.record(&call.step, stored, usage).await?;
        Ok(answer)
    }

    /// Finds out whether an earlier attempt carried a call out; returns its result if so.
    async fn find_out(&self, call: &Call) -> Result<Option<Answer>, Closed> {
        let known = match &call.probe {
            Some(probe) => self.probe(call, probe).await,
            None if call.effect == EffectClass::Once => Err("there is no probe any more".into()),
            None => return Ok(None),
        };
        let Err(why) = known else { return Ok(known.unwrap_or_default()) };
        if !self.session.may_act() {
            return Err(Closed(why));
        }
        // A person is asked: from here on it is a step that nobody can find out about.
        match self.session.ask(&call.step, begin(call, EffectClass::Once)).await? {
            Told::Granted => Err(self.give_up(call, &why)),
            other => Err(Closed(format!("the step cannot be carried out: {other:?}"))),
        }
    }

    /// Asks the probe of a call; returns the result of the call if it was carried out.
    async fn probe(&self, call: &Call, probe: &Probe) -> Result<Option<Answer>, String> {
        let key = server::key(&self.scope, &call.step);
        let arguments = &call.asked.arguments;
        let asked = Asked::plain(&probe.tool, probe.arguments(arguments, &key).await?);
        for tried in 1.. {
            // An answer that somebody keeps under a key is of no use: what is asked changes.
            let probing = format!("{key}/probe/{}", proof::placeholder());
            if !self.session.may_act() {
                return Err("the session may be another's".into());
            }
            let broken = match call.server.call(&asked, &probing, &call.progress).await {
                Ok(CallToolResponse::Complete(result)) => {
                    let done = probe.is_done(&result, arguments, &key).await?;
                    return Ok(done.then(|| Answer::Result(Box::new(probe.mark(result)))));
                }
                Ok(_) => return Err("it wants to know something itself".into()),
                Err(CallError::Said(error)) => return Err(error.message.into_owned()),
                Err(CallError::Absent(message) | CallError::Broken(message)) => message,
            };
            if tried >= TRIES_MAX {
                return Err(broken);
            }
            pause(tried).await;
        }
        unreachable!("the last try returns")
    }

    /// Asks a person; returns what the harness is told if it is not allowed.
    async fn allowed(&self, call: &Call) -> Result<Result<(), String>, Closed> {
        let key = StepKey::from(call.step.as_str().replacen("tool:", "ask:", 1));
        let answer = if let Some(answer) = self.asks.get(&key) {
            answer.clone()
        } else {
            let details = Value::from(call.asked.arguments.clone());
            let frame = Frame::Ask {
                key: key.clone(),
                kind: AskKind::Approval,
                prompt: format!("Allow {} of {}?", call.asked.tool, call.server.name()),
                choices: Vec::new(),
                details: Some(Body::Text(details.to_string())),
                expires_millis: None,
            };
            match self.session.ask(&key, frame).await? {
                Told::Answered(answer) => answer,
                other => return Err(Closed(format!("the question has no answer: {other:?}"))),
            }
        };
        Ok(match answer {
            Some(core::Answer::Approve) => Ok(()),
            Some(core::Answer::Deny(why)) if why.is_empty() => {
                Err("a person did not allow it".into())
            }
            Some(core::Answer::Deny(why)) => Err(format!("a person did not allow it: {why}")),
            Some(core::Answer::Choice(..) | core::Answer::Text(_)) => {
                Err("it was not allowed".into())
            }
            None => Err("nobody allowed it in time".into()),
        })
    }

    /// Calls the tool, again if its server breaks and that changes nothing more.
    async fn try_all(&self, call: &Call) -> Result<Answer, Closed> {
        let key = server::key(&self.scope, &call.step);
        for tried in 1.. {
            if !self.session.may_act() {
                return Err(Closed("the session may be another's".into()));
            }
            let (broken, asked) = match call.server.call(&call.asked, &key, &call.progress).await {
                Ok(response) => return Ok(Answer::of(response)),
                Err(CallError::Said(error)) => return Ok(Answer::Error(error)),
                // Nothing was asked of it.
                Err(CallError::Absent(message)) if tried >= TRIES_MAX => {
                    return Ok(Answer::failed(&message));
                }
                Err(CallError::Absent(message)) => (message, false),
                Err(CallError::Broken(message)) => (message, true),
            };
            let (name, tool) = (call.server.name(), &call.asked.tool);
            tracing::warn!(server = name, tool, tried, message = broken, "a tool server broke");
            if asked && call.effect == EffectClass::Once {
                match &call.probe {
                    // The next attempt finds out.
                    Some(_) if tried >= TRIES_MAX => return Err(self.give_up(call, &broken)),
                    Some(probe) => match self.probe(call, probe).await {
                        Ok(Some(known)) => return Ok(known),
                        Ok(None) => {}
                        Err(why) => return Err(self.give_up(call, &format!("{broken}; {why}"))),
                    },
                    None => return Err(self.give_up(call, &broken)),
                }
            }
            if tried >= TRIES_MAX {
                return Ok(Answer::failed(&format!("the tool server broke: {broken}")));
            }
            pause(tried).await;
        }
        unreachable!("the last try returns")
    }

    /// Nobody knows what became of a call that must not happen twice: the attempt ends, and the
    /// session asks.
    fn give_up(&self, call: &Call, broken: &str) -> Closed {
        let message = format!("{} broke during {}: {broken}", call.server.name(), call.asked.tool);
        self.session.fail(Failure { code: "tool_server".into(), message: message.clone() });
        Closed(message)
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        // Each change of it is one call.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hash of what makes two calls the same.
fn digest(server: &Server, asked: &Asked) -> Digest {
    let mut same = json!({
        "server": server.name(),
        "tool": asked.tool,
        "arguments": asked.arguments,
    });
    if let Some(inputs) = &asked.inputs {
        same["inputs"] = json!(inputs);
    }
    if let Some(state) = &asked.state {
        same["state"] = json!(state);
    }
    canonical::hash(&same)
}

fn begin(call: &Call, effect: EffectClass) -> Frame {
    Frame::StepBegin {
        step: call.step.clone(),
        kind: StepKind::Tool,
        name: session::name(&format!("{}.{}", call.server.name(), call.asked.tool)),
        effect,
        digest: call.digest,
        request: Some(Body::Text(Value::from(call.asked.arguments.clone()).to_string())),
        prefix: None,
        limit_millis: None,
    }
}

async fn pause(tried: u32) {
    tokio::time::sleep(Duration::from_millis(200) * tried).await;
}
