//! A gateway in front of an adapter: what the harness asks of models goes through it.

use crate::config::{ConfigError, closest_in};
use crate::environment;
use crate::launch::{AskResult, Exit, Io, JournalEntry, JournalKind, Launch, Told};
use crate::process::tail::Tail;
use crate::programs::{GATEWAY_PORT, Program, Programs};
use crate::supervise::Spec;
use ax_core::session::{Answer, Failure, Frame, StepKey};
use ax_gateway::{
    Config, Desk, Gateway, Listen, Port, Quotas, Rates, Recorded, Setup, Sockets, Spawn, Spawned,
    ToolCommand, Toolbox,
};
use futures::future::BoxFuture;
use serde_json::Value;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::TaskTracker;

/// How many frames a harness can be ahead.
const FRAMES_AHEAD: usize = 64;
/// How many things a harness can be told that it has not read.
const TOLD_AHEAD: usize = 4_096;
/// How often the session hears that a model is still asked.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);

/// Checks the `gateway` section of a manifest.
pub(crate) fn validate(section: &Value) -> Result<(), ConfigError> {
    let Err(error) = Config::parse(section) else { return Ok(()) };
    let meant = closest_in(&error.cause).map(|name| format!("did you mean `{name}`?"));
    let path = match error.path.as_str() {
        "" => "gateway".into(),
        path => format!("gateway.{path}"),
    };
    let suggestion = Some(error.hint).filter(|hint| !hint.is_empty()).or(meant);
    Err(ConfigError { path, cause: error.cause, suggestion })
}

/// What all gateways have in common.
pub(crate) struct Shared {
    /// Connections to the outside.
    pub(crate) http: reqwest::Client,
    /// How fast agents call.
    pub(crate) rates: Rates,
    /// What namespaces may use.
    pub(crate) quotas: Quotas,
    /// What starts tool servers.
    pub(crate) programs: Programs,
    /// Where gateways listen.
    pub(crate) sockets: Sockets,
    /// Where the runtime's own interface is.
    pub(crate) desk: Desk,
}

/// Runs an attempt behind a gateway.
pub(crate) async fn run(
    Shared { http, rates, quotas, programs, sockets, desk }: Shared,
    mut launch: Launch,
    io: Io,
    adapter: impl FnOnce(Programs, Launch, Io, Toolbox) -> BoxFuture<'static, Exit>,
) -> Result<Exit, Failure> {
    let config = Config::parse(&launch.agent.gateway).map_err(|error| failure("config", &error))?;
    let (journal, rest) = std::mem::take(&mut launch.journal).into_iter().partition(is_ours);
    launch.journal = rest;
    let may_act = io.may_act.clone();
    let servers = TaskTracker::new();
    let files = programs.options().gateways();
    let listen = listen(&programs, &sockets)?;
    let setup = Setup {
        config,
        listen,
        files,
        http,
        frames: io.frames.clone(),
        may_act: Box::new(move || may_act.now()),
        asks: journal.iter().filter_map(asked).collect(),
        journal: journal.into_iter().filter_map(recorded).collect(),
        doubts: launch.doubts.iter().cloned().collect(),
        sent: std::mem::take(&mut launch.sent),
        scope: format!("{}/{}/{}", launch.key.namespace.as_str(), launch.key.session, launch.exec),
        spawn: spawn(programs.clone(), &launch, servers.clone()),
        used: launch.used,
        rates,
        rated: format!("{}/{}", launch.key.namespace.as_str(), launch.agent.name),
        quotas,
        namespace: launch.key.namespace.as_str().to_owned(),
        session: launch.key.clone(),
        desk,
        trace: traced(&launch),
    };
    let gateway = Gateway::open(setup).await.map_err(|error| failure("gateway", &error))?;
    launch.env.extend(gateway.environment().iter().cloned());
    let (frames_sender, frames) = mpsc::channel(FRAMES_AHEAD);
    let (told_sender, told) = mpsc::channel(TOLD_AHEAD);
    let kill = io.kill.child_token();
    let inner = Io { frames: frames_sender, told, kill: kill.clone(), may_act: io.may_act.clone() };
    let programs = programs.reach(gateway.socket(), gateway.files());
    let running = adapter(programs, launch, inner, gateway.toolbox().clone());
    let between = Between { gateway, io, frames, told: told_sender, kill, canceled: false };
    let exit = between.run(running).await;
    // The gateway is closed, so that they are told to end.
    servers.close();
    servers.wait().await;
    Ok(exit)
}

/// Makes the ways in: for programs in a sandbox the socket, to which a port of theirs leads.
fn listen(programs: &Programs, sockets: &Sockets) -> Result<Listen, Failure> {
    let users = programs.users();
    match sockets.open() {
        Ok(socket) if programs.are_sandboxed() => {
            Ok(Listen { socket: Some(socket), port: Port::Forwarded(GATEWAY_PORT), users })
        }
        Ok(socket) => Ok(Listen { socket: Some(socket), port: Port::Loopback, users }),
        Err(error) if programs.are_sandboxed() => Err(failure("gateway", &error)),
        Err(error) => {
            // A program that speaks TCP needs none.
            tracing::warn!(%error, "a gateway has no socket");
            Ok(Listen { socket: None, port: Port::Loopback, users })
        }
    }
}

/// The span that the attempt is in, if it is traced.
fn traced(launch: &Launch) -> Option<String> {
    let named = launch.env.iter().find(|(name, _)| name == "TRACEPARENT");
    named.map(|(_, value)| value.clone())
}

/// Returns what starts tool servers: as the harness, in its directory, with the environment that a
/// harness inherits.
fn spawn(programs: Programs, launch: &Launch, servers: TaskTracker) -> Spawn {
    let named = launch.agent.harness.get("dir").and_then(Value::as_str).map(PathBuf::from);
    let dir = named.unwrap_or_else(|| launch.workspace.clone());
    let identity = environment::identity(launch);
    Arc::new(move |program: ToolCommand| {
        let command: Vec<OsString> = program.command.iter().map(OsString::from).collect();
        let added = program.env.iter().map(|(name, value)| (name.into(), value.into()));
        // What comes later wins.
        let env = programs.inherited().into_iter().chain(added).chain(identity.clone());
        let env = env.collect();
        let (programs, dir, all) = (programs.clone(), dir.clone(), servers.clone());
        // If nobody waits for it any more, it is still one that has to be told to end.
        let started = servers.spawn(async move {
            let spec = Spec { command: &command, dir: &dir, env };
            watch(programs.start(spec).await?, program, &all)
        });
        Box::pin(async move { started.await? })
    })
}

/// Hands the ends of a tool server over, and sees to it that it ends when it is told to.
fn watch(mut process: Program, program: ToolCommand, servers: &TaskTracker) -> io::Result<Spawned> {
    let (output, input) = (process.stdout.take(), process.stdin.take());
    let mut errors = Tail::new(process.stderr.take());
    let (Some(output), Some(input)) = (output, input) else {
        return Err(io::Error::other("the tool server has no standard input and output"));
    };
    drop(servers.spawn(async move {
        let (mut killed, mut ended) = (false, None);
        while ended.is_none() || !errors.is_done() {
            tokio::select! {
                () = program.stop.cancelled(), if !killed => {
                    killed = true;
                    process.kill();
                }
                () = errors.read(), if !errors.is_done() => {}
                gone = process.wait(), if ended.is_none() => ended = Some(gone),
            }
        }
        if !killed {
            let said = errors.after("a tool server ended");
            tracing::warn!(command = ?program.command.first(), "{said}");
        }
    }));
    Ok(Spawned { output: Box::new(output), input: Box::new(input) })
}

/// Returns a question of an earlier attempt that has an answer.
fn asked(entry: &JournalEntry) -> Option<(StepKey, Option<Answer>)> {
    Some((entry.key.clone(), answered(&entry.kind)?))
}

/// Returns what came of a question; nothing while it is open.
fn answered(kind: &JournalKind) -> Option<Option<Answer>> {
    match kind {
        JournalKind::Ask(Some(result)) => Some(answer(result)),
        _ => None,
    }
}

fn answer(result: &AskResult) -> Option<Answer> {
    match result {
        AskResult::Answered(answer) => Some(answer.clone()),
        AskResult::Expired => None,
    }
}

fn is_ours(entry: &JournalEntry) -> bool {
    Gateway::owns(&entry.key)
}

fn recorded(entry: JournalEntry) -> Option<Recorded> {
    let JournalKind::Step { name, digest, result, asked, .. } = entry.kind else { return None };
    let asked = asked.map(|asked| *asked);
    let (request, prefix) = asked.map(|asked| (asked.request, asked.prefix)).unzip();
    let request = request.unwrap_or_default();
    Some(Recorded { key: entry.key, name, digest, request, prefix, result })
}

fn failure(code: &str, error: &impl ToString) -> Failure {
    Failure { code: code.into(), message: error.to_string() }
}

/// Stands between the adapter and the session.
struct Between {
    gateway: Gateway,
    io: Io,
    /// What the adapter says.
    frames: mpsc::Receiver<Frame>,
    /// What it is told.
    told: mpsc::Sender<Told>,
    kill: tokio_util::sync::CancellationToken,
    /// The execution is over, whatever the harness still says.
    canceled: bool,
}

impl Between {
    async fn run(mut self, mut running: BoxFuture<'static, Exit>) -> Exit {
        let mut beat = interval(HEARTBEAT_EVERY);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut exit, mut talks, mut listens) = (None, true, true);
        let (mut failed, mut last, mut unsaid) = (None, None, false);
        // While the adapter runs or what it said is on its way.
        while exit.is_none() || talks || last.is_some() {
            tokio::select! {
                frame = self.frames.recv(), if talks => match frame {
                    // It goes on in another attempt, which shall not pay again.
                    Some(frame @ Frame::Fail { .. }) => last = Some(frame),
                    Some(frame) => self.said(frame).await,
                    None => talks = false,
                },
                () = self.gateway.drain(), if last.is_some() => {
                    if let Some(frame) = last.take() {
                        self.said(frame).await;
                    }
                }
                () = self.io.kill.cancelled(), if last.is_some() => {
                    (last, unsaid) = (None, true);
                }
                told = self.io.told.recv(), if listens => match told {
                    Some(told) => self.tell(told),
                    None => listens = false,
                },
                ended = &mut running, if exit.is_none() => exit = Some(ended),
                () = self.io.frames.closed(), if !self.kill.is_cancelled() => self.kill.cancel(),
                failure = self.gateway.failed(), if failed.is_none() => {
                    failed = Some(failure);
                    self.kill.cancel();
                }
                _ = beat.tick() => self.beat(),
            }
        }
        let exit = exit.expect("the loop ends with it");
        let exit = match (failed, exit) {
            (Some(failure), Exit::Gone(_)) => Exit::Gone(failure),
            (_, Exit::Said) if unsaid => {
                let message = "the attempt was killed while answers were waited for".into();
                Exit::Gone(Failure { code: "killed".into(), message })
            }
            (_, exit) => exit,
        };
        // What a harness that is gone had asked is paid, so it is heard to its end; but not for an
        // execution that is over: nothing of it is recorded any more.
        if matches!(exit, Exit::Gone(_)) && !self.canceled {
            self.drain().await;
        }
        exit
    }

    /// Waits until nothing is under way any more, unless the attempt is killed.
    async fn drain(&mut self) {
        let mut beat = interval(HEARTBEAT_EVERY);
        let Self { gateway, io, .. } = self;
        let drained = gateway.drain();
        tokio::pin!(drained);
        let mut listens = true;
        loop {
            tokio::select! {
                () = &mut drained => return,
                () = io.kill.cancelled() => return,
                () = io.frames.closed() => return,
                told = io.told.recv(), if listens => match told {
                    Some(told) => drop(tell(gateway, told)),
                    None => listens = false,
                },
                _ = beat.tick() => drop(io.frames.try_send(Frame::Heartbeat)),
            }
        }
    }

    async fn said(&mut self, frame: Frame) {
        if let Some(key) = frame.key().filter(|key| Gateway::owns(key)) {
            let message =
                format!("keys that begin with {} are the gateway's", ax_gateway::KEY_PREFIX);
            let refused = Told::Refused { key: Some(key.clone()), code: "AX1205".into(), message };
            return self.pass(refused);
        }
        if matches!(frame, Frame::End { .. }) {
            // It has what it needs.
            self.gateway.close().await;
        }
        // That nobody listens any more is noticed by the adapter.
        let _gone = self.io.frames.send(frame).await;
    }

    fn tell(&mut self, told: Told) {
        self.canceled |= matches!(told, Told::Cancel { .. });
        if let Some(told) = tell(&self.gateway, told) {
            self.pass(told);
        }
    }

    fn pass(&self, told: Told) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.told.try_send(told) {
            // A harness that does not read what it is told cannot be helped.
            self.kill.cancel();
        }
    }

    fn beat(&self) {
        if self.gateway.is_busy() {
            // A full channel shows as much life as a heartbeat.
            let _full = self.io.frames.try_send(Frame::Heartbeat);
        }
    }
}

/// Tells the gateway what is for it; returns what is for the adapter.
fn tell(gateway: &Gateway, told: Told) -> Option<Told> {
    let ours = |key: &StepKey| Gateway::owns(key);
    let (key, said) = match &told {
        Told::Granted { step } if ours(step) => (step, ax_gateway::Told::Granted),
        // It was answered before it was asked again.
        Told::Recorded { key, before: Some(JournalEntry { kind, .. }), .. }
            if ours(key) && answered(kind).is_some() =>
        {
            (key, ax_gateway::Told::Answered(answered(kind).unwrap_or_default()))
        }
        Told::Recorded { key, .. } if ours(key) => (key, ax_gateway::Told::Recorded),
        Told::Answered { key, result } if ours(key) => {
            (key, ax_gateway::Told::Answered(answer(result)))
        }
        Told::Refused { key: Some(key), message, .. } if ours(key) => {
            (key, ax_gateway::Told::Refused(message.clone()))
        }
        _ => return Some(told),
    };
    gateway.tell(key, said);
    None
}
