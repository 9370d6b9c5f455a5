//! The way of a tool call: who asks, whether it is allowed, which result belongs to it, and if
//! there is none yet, calling the tool server.

mod ledger;
mod proxy;
mod server;
mod toolbox;

use crate::canonical;
use crate::config::ToolServer;
use crate::policy::{Policy, Verdict};
use crate::session::{self, Closed, KEY_PREFIX, Recorded, Session, Told};
use ax_core::session::{
    Answer, AskKind, Body, EffectClass, Failure, Frame, StepKey, StepKind, Usage,
};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use ledger::{Found, Ledger, Outcome, Taken};
use proxy::Proxy;
use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::tower::StreamableHttpServerConfig;
use serde_json::json;
use server::{CallError, Server};
pub use server::{Spawn, Spawned, ToolCommand};
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
pub use toolbox::{Offered, Said, Toolbox};

/// How often a harness that waits for a result hears that it is still waited for.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often a call that changes nothing more is made when its server breaks.
const TRIES_MAX: u32 = 3;

type Service = StreamableHttpService<Proxy, LocalSessionManager>;

/// Everything between a harness and its tool servers.
pub(crate) struct Tools {
    servers: HashMap<String, Service>,
    toolbox: Toolbox,
}

impl fmt::Debug for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tools").field("servers", &self.servers.keys()).finish_non_exhaustive()
    }
}

/// What tools begin with.
pub(crate) struct Setup {
    pub(crate) servers: Vec<ToolServer>,
    pub(crate) spawn: Spawn,
    /// What tells one execution from all others.
    pub(crate) scope: String,
    pub(crate) journal: Vec<Recorded>,
    /// Questions of earlier attempts, with their answers.
    pub(crate) asks: HashMap<StepKey, Option<Answer>>,
    pub(crate) session: Arc<Session>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// What the calls of all servers share.
#[derive(Debug)]
pub(crate) struct Calls {
    ledger: Mutex<Ledger>,
    asks: HashMap<StepKey, Option<Answer>>,
    session: Arc<Session>,
    scope: String,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A call, as it is carried out.
#[derive(Clone, Debug)]
struct Call {
    server: Arc<Server>,
    tool: String,
    arguments: JsonObject,
    step: StepKey,
    effect: EffectClass,
    /// Whether a person has to allow it.
    asks: bool,
}

impl Tools {
    pub(crate) fn new(setup: Setup) -> Self {
        let Setup { servers, spawn, scope, journal, asks, session, tasks, stop } = setup;
        let calls = Arc::new(Calls {
            ledger: Mutex::new(Ledger::new(journal)),
            asks,
            session,
            scope,
            tasks,
            stop: stop.clone(),
        });
        let server = |config| Arc::new(Server::new(config, Arc::clone(&spawn), stop.clone()));
        let servers: Vec<_> = servers.into_iter().map(server).collect();
        let toolbox = Toolbox::new(servers.clone(), Arc::clone(&calls));
        let servers = servers.into_iter().map(|server| {
            let name = server.name().to_owned();
            let proxy = Proxy::new(server, Arc::clone(&calls));
            let config = StreamableHttpServerConfig::default()
                .with_legacy_session_mode(false)
                .with_sse_keep_alive(Some(KEEP_ALIVE))
                .with_cancellation_token(stop.child_token());
            let service = Service::new(move || Ok(proxy.clone()), Arc::default(), config);
            (name, service)
        });
        Self { servers: servers.collect(), toolbox }
    }

    pub(crate) fn toolbox(&self) -> Toolbox {
        self.toolbox.clone()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.servers.contains_key(name)
    }

    /// Answers a request for a tool server.
    pub(crate) async fn answer(
        &self,
        name: &str,
        request: Request<Incoming>,
    ) -> Option<Response<BoxBody<bytes::Bytes, Infallible>>> {
        Some(self.servers.get(name)?.handle(request).await)
    }
}

impl Calls {
    /// Finds the call that answers a request, or begins it.
    fn call(
        self: &Arc<Self>,
        server: &Arc<Server>,
        tool: &str,
        arguments: JsonObject,
    ) -> Result<Taken, String> {
        let Policy { verdict, effect } = server.policy(tool);
        if verdict == Verdict::Deny {
            // It is not offered either: whoever asks for it has the name from elsewhere.
            return Err(format!("the policy of this agent does not allow {tool}"));
        }
        if self.session.is_closing() {
            return Err("the attempt is over".into());
        }
        let asked = json!({"server": server.name(), "tool": tool, "arguments": arguments});
        let digest = canonical::hash(&asked);
        let found = self.ledger().ask(server.name(), digest);
        let (step, taken) = match found {
            Found::Known(taken) => return Ok(taken),
            Found::New(step, taken) => (step, taken),
        };
        let asks = verdict == Verdict::Ask;
        let server = Arc::clone(server);
        let call = Call { server, tool: tool.to_owned(), arguments, step, effect, asks };
        let (calls, outcome) = (Arc::clone(self), taken.outcome());
        drop(self.tasks.spawn(async move {
            let done = tokio::select! {
                () = calls.stop.cancelled() => Err(Closed("the attempt is over".into())),
                done = calls.carry_out(&call, digest) => done,
            };
            outcome.set(done.map_err(|closed| closed.0));
        }));
        Ok(taken)
    }

    async fn carry_out(
        &self,
        call: &Call,
        digest: ax_core::session::Digest,
    ) -> Result<CallToolResult, Closed> {
        let allowed = if call.asks { self.allowed(call).await? } else { Ok(()) };
        let begin = Frame::StepBegin {
            step: call.step.clone(),
            kind: StepKind::Tool,
            name: session::name(&format!("{}.{}", call.server.name(), call.tool)),
            effect: call.effect,
            digest,
            request: Some(Body::Text(serde_json::Value::from(call.arguments.clone()).to_string())),
            prefix: None,
            limit_millis: None,
        };
        let mut refused = None;
        match call.effect {
            // Its intent is durable before it is carried out.
            EffectClass::Once => match self.session.ask(&call.step, begin).await? {
                Told::Granted => {}
                other => return Err(Closed(format!("the step cannot be carried out: {other:?}"))),
            },
            EffectClass::Read | EffectClass::Idempotent => {
                refused = Some(self.session.begin(&call.step, begin).await?);
            }
        }
        let result = match allowed {
            Ok(()) => tokio::select! {
                result = self.try_all(call) => result?,
                why = session::refusal(refused) => return Err(Closed(why)),
            },
            Err(why) => error(&why),
        };
        let stored = serde_json::to_string(&result).map_err(|error| Closed(error.to_string()))?;
        let usage = Usage { tool_calls: 1, ..Usage::default() };
        self.session.record(&call.step, stored, usage).await?;
        Ok(result)
    }

    /// Asks a person; returns what the harness is told if it is not allowed.
    async fn allowed(&self, call: &Call) -> Result<Result<(), String>, Closed> {
        let key = StepKey::from(call.step.as_str().replacen("tool:", "ask:", 1));
        let answer = if let Some(answer) = self.asks.get(&key) {
            answer.clone()
        } else {
            let details = serde_json::Value::from(call.arguments.clone());
            let frame = Frame::Ask {
                key: key.clone(),
                kind: AskKind::Approval,
                prompt: format!("Allow {} of {}?", call.tool, call.server.name()),
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
            Some(Answer::Approve) => Ok(()),
            Some(Answer::Deny(why)) if why.is_empty() => Err("a person did not allow it".into()),
            Some(Answer::Deny(why)) => Err(format!("a person did not allow it: {why}")),
            Some(Answer::Choice(..) | Answer::Text(_)) => Err("it was not allowed".into()),
            None => Err("nobody allowed it in time".into()),
        })
    }

    /// Calls the tool, again if its server breaks and that changes nothing more.
    async fn try_all(&self, call: &Call) -> Result<CallToolResult, Closed> {
        let key = format!("{}/{}", self.scope, call.step);
        for tried in 1.. {
            if !self.session.may_act() {
                return Err(Closed("the session may be another's".into()));
            }
            let (broken, asked) =
                match call.server.call(&call.tool, call.arguments.clone(), &key).await {
                    Ok(result) => return Ok(result),
                    Err(CallError::Said(message)) => return Ok(error(&message)),
                    // Nothing was asked of it.
                    Err(CallError::Absent(message)) if tried >= TRIES_MAX => {
                        return Ok(error(&message));
                    }
                    Err(CallError::Absent(message)) => (message, false),
                    Err(CallError::Broken(message)) => (message, true),
                };
            let (name, tool) = (call.server.name(), &call.tool);
            tracing::warn!(server = name, tool, tried, message = broken, "a tool server broke");
            if asked && call.effect == EffectClass::Once {
                return Err(self.give_up(call, &broken));
            }
            if tried >= TRIES_MAX {
                return Ok(error(&format!("the tool server broke: {broken}")));
            }
            tokio::time::sleep(Duration::from_millis(200) * tried).await;
        }
        unreachable!("the last try returns")
    }

    /// Nobody knows what became of a call that must not happen twice: the attempt ends, and the
    /// session asks.
    fn give_up(&self, call: &Call, broken: &str) -> Closed {
        let message = format!("{} broke during {}: {broken}", call.server.name(), call.tool);
        self.session.fail(Failure { code: "tool_server".into(), message: message.clone() });
        Closed(message)
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        // Each change of it is one call.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a harness is told when a tool did not do what it should.
fn error(message: &str) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(message)])
}

/// Reads what is recorded of a call: what a tool returned, or what a person said became of it.
fn read(result: &Result<String, Failure>) -> Outcome {
    let stored = match result {
        Ok(stored) => stored,
        Err(failure) => return Outcome::done(Ok(error(&failure.message))),
    };
    let result = serde_json::from_str::<CallToolResult>(stored).unwrap_or_else(|_| {
        let text =
            serde_json::from_str::<String>(stored).unwrap_or_else(|_| match stored.as_str() {
                "null" | "" => "[it was carried out; what it returned is not known]".to_owned(),
                other => other.to_owned(),
            });
        CallToolResult::success(vec![ContentBlock::text(text)])
    });
    Outcome::done(Ok(result))
}

/// Returns the name of the nth call with this request.
fn key(server: &str, digest: ax_core::session::Digest, number: usize) -> StepKey {
    let hex: String = digest.to_string().chars().take(32).collect();
    format!("{KEY_PREFIX}tool:{server}:{hex}:{number}").into()
}
