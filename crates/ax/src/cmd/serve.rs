//! `ax serve`, and servers that are started in the background.

use crate::args::ServeArgs;
use crate::config::{self, Config};
use crate::embed::{Doors, Embedded, Purpose};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::guard::Gate;
use crate::interrupt::{Interrupts, Told};
use crate::link::{Context, tell_late};
use crate::paths::{DataDir, Holder};
use crate::service::Service;
use crate::takeover::{self, Lock, silent};
use ax_core::id::Namespace;
use ax_engine::{Code, Engine, WaitState};
use ax_log::{EventLog, Filter, ListQuery, LogFault, StateMask};
use ax_server::Connections;
use ax_server::ops::{Health, Probes};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a server in the background lives without a client and without work, in seconds.
const IDLE_EXIT_SECONDS: u64 = 120;
/// How often it is looked whether a server is idle.
const IDLE_LOOK: Duration = Duration::from_millis(200);
/// How long a server that was started is waited for.
const START_MAX: Duration = Duration::from_secs(20);
/// How often it is looked for.
const START_LOOK: Duration = Duration::from_millis(20);
/// How long a server that has the data directory is given to answer, at least.
const ANSWER_MIN: Duration = Duration::from_secs(1);
/// How long a data directory that is in use, but not served, is waited for.
const LOCKED_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether the log has failed.
const FAILED_LOOK: Duration = Duration::from_millis(500);
/// How often it is looked whether it is free.
const LOCKED_LOOK: Duration = Duration::from_millis(50);
/// How much of the server's log is shown when it does not start, in bytes.
const LOG_BYTES_SHOWN: usize = 2_000;
/// When the server's log is begun anew, in bytes.
const LOG_BYTES_MAX: u64 = 16 << 20;

pub(crate) async fn serve(cx: &Context, args: ServeArgs) -> Result<Exit, Failure> {
    if cx.global.server.is_some() {
        return Err(Failure::usage("`ax serve` serves a data directory, not a server")
            .hint("leave out --server and AX_SERVER, and name the directory with --data"));
    }
    if args.detached {
        // Fails only for the leader of a process group, which has no terminal to lose.
        let _already_leader = rustix::process::setsid();
    }
    let data = cx.data()?;
    let mut interrupts = Interrupts::new()?;
    let runs_max = cx.runs_max();
    let standby = cx.config.is("server.standby");
    let after = cx.config.duration("server.takeover_after").unwrap_or_default();
    let doors = Doors::of(&cx.config);
    let open = doors.open;
    let plain =
        doors.locks.tls.is_none() && doors.listen.iter().any(|address| !address.ip().is_loopback());
    let purpose = || Purpose::Serve { runs_max, doors: doors.clone() };
    let service = Service::new();
    let opened = tokio::select! {
        opened = open_when_free(cx, &data, purpose, standby, after) => opened,
        _terminated = interrupts.next() => return Ok(Exit::Interrupted),
    };
    let embedded = opened?;
    tell_late(&cx.out, &embedded);
    if open {
        let at = embedded.addresses.join(" and ");
        cx.out.danger(&format!(
            "anybody who reaches {at} can run agents as this user: there is no authentication"
        ));
    }
    if plain && !open {
        cx.out.notice("keys and contents cross the network in the clear: see --tls-certificate");
    }
    announce(cx, &data, &embedded.addresses)?;
    service.ready();
    run(cx, embedded, &service, interrupts).await
}

/// Serves until it is told to stop, has nothing to do for long enough, or fails.
async fn run(
    cx: &Context,
    mut embedded: Embedded,
    service: &Service,
    mut interrupts: Interrupts,
) -> Result<Exit, Failure> {
    let (log, connections) = (Arc::clone(&embedded.log), embedded.connections.clone());
    let idle =
        idle(cx.config.duration("engine.idle_exit"), embedded.engine.clone(), log, connections);
    tokio::pin!(idle);
    let probes = embedded.probes.clone();
    let watchdog = watchdog(service, &probes);
    tokio::pin!(watchdog);
    let failed = failed(embedded.engine.clone());
    tokio::pin!(failed);
    let gate = embedded.gate.clone();
    let mut current = Arc::clone(&cx.config);
    let mut stopping = false;
    loop {
        let stop = embedded.stop.clone();
        tokio::select! {
            served = embedded.served() => return served.map(|()| Exit::Done),
            // A terminal that is gone ends what was begun at it.
            told = interrupts.which() => match told {
                Told::Hangup if !cx.out.watched => {
                    service.reloading();
                    current = reload(cx, &current, &gate);
                    service.ready();
                    continue;
                }
                _ if stopping => return Ok(Exit::Interrupted),
                _ => {
                    cx.out.progress("stopping; interrupt again to stop at once");
                    stop.cancel();
                }
            },
            // What was acknowledged is safe, and only an opening finds out what else there is.
            () = &mut failed => {
                let what = "the log took a failed write, and takes nothing more";
                return Err(ax_engine::Error::new(Code::Poisoned, what).into());
            }
            () = &mut watchdog => {}
            () = &mut idle, if !stopping => stop.cancel(),
        }
        if !stopping {
            service.stopping();
        }
        stopping = true;
    }
}

/// Opens a data directory once nobody else has it. A server that has it and answers keeps it: that
/// is waited for, or an error. One that does not answer is ended.
async fn open_when_free(
    cx: &Context,
    data: &DataDir,
    purpose: impl Fn() -> Purpose,
    waits: bool,
    after: Duration,
) -> Result<Embedded, Failure> {
    let mut began = Instant::now();
    let mut waiting_for = None;
    data.make()?;
    loop {
        let lock = takeover::look(data, after.max(ANSWER_MIN)).await?;
        let locked = match &lock {
            Lock::Free => match Embedded::open(data, purpose(), &cx.config).await {
                Err(failure) if failure.code == Code::Locked.to_string() => failure,
                opened => return opened,
            },
            Lock::Answers(Holder { pid, .. }) | Lock::Silent(Holder { pid, .. }) => {
                takeover::in_use(data, *pid)
            }
            Lock::Busy(pid) => takeover::in_use(data, pid.as_raw_nonzero().get().unsigned_abs()),
        };
        match lock {
            Lock::Silent(server) if after.is_zero() => return Err(silent(data, &server)),
            Lock::Silent(server) => takeover::end(data, &server, &cx.out).await?,
            Lock::Answers(server) if waits => {
                if waiting_for != Some(server.pid) {
                    let root = data.root.display();
                    cx.out.notice(&format!("standing by: pid {} serves {root}", server.pid));
                    waiting_for = Some(server.pid);
                }
                began = Instant::now();
            }
            Lock::Answers(_) => return Err(name(data, locked)),
            // It is about to serve, or to let go.
            Lock::Free | Lock::Busy(_) if waits || began.elapsed() < LOCKED_MAX => {}
            Lock::Free | Lock::Busy(_) => return Err(name(data, locked)),
        }
        sleep(LOCKED_LOOK).await;
    }
}

/// Waits until the log takes nothing more.
async fn failed(engine: Engine) {
    while !engine.info().has_failed || engine.info().is_stopping {
        sleep(FAILED_LOOK).await;
    }
}

/// Tells systemd that the server lives, as long as it does: not any more once its log has failed.
async fn watchdog(service: &Service, probes: &Probes) {
    let Some(pause) = service.watchdog else { return std::future::pending().await };
    loop {
        if probes.health().await != Health::Failed {
            service.alive();
        }
        sleep(pause).await;
    }
}

/// Reads the configuration again. What is wrong changes nothing; what needs a restart is named.
fn reload(cx: &Context, current: &Arc<Config>, gate: &Gate) -> Arc<Config> {
    let fresh = config::load(&cx.given);
    for problem in &fresh.problems {
        tracing::error!(%problem, "the configuration was not read again");
    }
    if !fresh.problems.is_empty() {
        return Arc::clone(current);
    }
    // First, so that what follows is logged by the new levels.
    cx.logs.reload(&fresh);
    // What is in files of their own: which files those are needs a restart.
    gate.reload(current, &fresh);
    for setting in current.changed(&fresh) {
        if setting.reloads {
            tracing::info!(setting = setting.path, "a setting was changed");
        } else {
            tracing::warn!(setting = setting.path, "a change of this setting needs a restart");
        }
    }
    tracing::info!("the configuration was read again");
    Arc::new(fresh)
}

/// Adds to the failure of a directory that is in use who serves it.
fn name(data: &DataDir, failure: Failure) -> Failure {
    match data.holder() {
        Some(holder) if failure.code == Code::Locked.to_string() => {
            let hint = format!(
                "pid {} serves it at {}: other commands use that server by themselves",
                holder.pid,
                holder.socket.display(),
            );
            failure.hint(hint)
        }
        _ => failure,
    }
}

fn announce(cx: &Context, data: &DataDir, addresses: &[String]) -> Result<(), Failure> {
    let socket = data.socket()?;
    if cx.out.json {
        return cx.out.object(&json!({
            "type": "serving",
            "socket": socket.to_string_lossy(),
            "addresses": addresses,
            "data": data.root.to_string_lossy(),
            "pid": std::process::id(),
        }));
    }
    if cx.out.quiet {
        return Ok(());
    }
    cx.out.line(&format!("serving {}", socket.display()))?;
    addresses.iter().try_for_each(|address| cx.out.line(&format!("serving {address}")))
}

/// Waits until there has been no client and no work for so long; for ever if nothing is said.
async fn idle(
    after: Option<Duration>,
    engine: Engine,
    log: Arc<dyn EventLog>,
    connections: Connections,
) {
    let Some(after) = after else { return std::future::pending().await };
    let mut since = Instant::now();
    loop {
        sleep(IDLE_LOOK).await;
        if connections.count() > 0 || engine.info().running_attempts > 0 {
            since = Instant::now();
        } else if since.elapsed() >= after {
            // A log that cannot be read is no reason to go on for ever.
            if !has_work(&*log).await.unwrap_or(false) {
                return;
            }
            since = Instant::now();
        }
    }
}

/// Whether a session will go on by itself.
async fn has_work(log: &dyn EventLog) -> Result<bool, LogFault> {
    let states = StateMask::of(WaitState::Running as u8)
        .and(WaitState::Retrying as u8)
        .and(WaitState::WaitingTimer as u8)
        .and(WaitState::WaitingCapacity as u8);
    let works = Filter { states, due_before_millis: None };
    // An ask that expires, a wait that ends with its execution.
    let is_due = Filter { states: StateMask::ALL, due_before_millis: Some(u64::MAX) };
    for namespace in log.namespaces().await? {
        for filter in [works, is_due] {
            if any(log, &namespace, filter).await? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether a session passes a filter. A page may be empty and not be the last.
async fn any(log: &dyn EventLog, namespace: &Namespace, filter: Filter) -> Result<bool, LogFault> {
    let mut after = None;
    loop {
        let query = ListQuery { namespace: namespace.clone(), after, limit: 1, filter };
        let page = log.list(query).await?;
        if !page.rows.is_empty() || page.next.is_none() {
            return Ok(!page.rows.is_empty());
        }
        after = page.next;
    }
}

/// Sees to it that a server runs, in the background if it has to be started.
pub(crate) async fn ensure(cx: &Context) -> Result<(), Failure> {
    if cx.server().await?.is_some() || cx.global.server.is_some() {
        return Ok(());
    }
    let data = cx.data()?;
    data.make()?;
    let mut child = start(&data)?;
    let began = Instant::now();
    loop {
        if cx.server().await?.is_some() {
            return Ok(());
        }
        let ended = child.try_wait();
        if matches!(ended, Ok(Some(_))) || began.elapsed() > START_MAX {
            // Another one may have been faster.
            if cx.server().await?.is_some() {
                return Ok(());
            }
            let message = "the server in the background did not start";
            let mut failure = Failure::new(Code::Unavailable, message)
                .hint(format!("{} says why", data.server_log().display()));
            failure.causes.extend(last_words(&data));
            return Err(failure);
        }
        sleep(START_LOOK).await;
    }
}

/// Starts a server that outlives this process and its terminal.
fn start(data: &DataDir) -> Result<std::process::Child, Failure> {
    let path = data.server_log();
    let failed = |error| Failure::file("written", &path, &error);
    let full = path.metadata().is_ok_and(|about| about.len() > LOG_BYTES_MAX);
    let log = OpenOptions::new().create(true).append(!full).write(true).truncate(full).open(&path);
    let log = log.map_err(failed)?;
    let errors = log.try_clone().map_err(failed)?;
    let exe = std::env::current_exe().map_err(|error| {
        Failure::new(Code::Internal, "the path of this program is not known").because(&error)
    })?;
    let idle = IDLE_EXIT_SECONDS.to_string();
    let started = Command::new(exe)
        .arg("serve")
        .arg("--data")
        .arg(&data.root)
        .args(["--detached", "--idle-exit", &idle, "--color", "never"])
        .env_remove("AX_SERVER")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::from(log))
        .stderr(Stdio::from(errors))
        .spawn();
    started.map_err(|error| {
        Failure::new(Code::Unavailable, "a server cannot be started").because(&error)
    })
}

/// The end of the server's log, without the lines that say that all is well.
fn last_words(data: &DataDir) -> Vec<String> {
    let mut text = String::new();
    let read = File::open(data.server_log())
        .and_then(|mut file| std::io::Read::read_to_string(&mut file, &mut text));
    if read.is_err() {
        return Vec::new();
    }
    let from = text.ceil_char_boundary(text.len().saturating_sub(LOG_BYTES_SHOWN));
    let says = |line: &&str| !line.starts_with("serving") && !line.starts_with('{');
    let lines = text[from..].lines().filter(says);
    let lines: Vec<_> = lines.map(str::to_owned).collect();
    lines[lines.len().saturating_sub(5)..].to_vec()
}
