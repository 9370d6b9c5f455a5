//! Pid 1: builds the sandbox, starts the command, reaps, forwards to the gateway, and tells what
//! became of the command. When it ends, the kernel kills everything else in there.

use super::{Held, Inside, ROOTLESS_ID, Stdio, confine, enter, filetree, forward, spare};
use crate::order::{self, ASK_TERMINATE, Ids, Order, Started};
use crate::sys;
use crate::wall::{Refusal, Standing, State, Wall};
use rustix::fd::OwnedFd;
use rustix::fs::fchown;
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Gid, Pid, Signal, Uid, WaitOptions, WaitStatus, kill_process_group,
    set_child_subreaper, set_dumpable_behavior, set_parent_process_death_signal, setsid, wait,
};
use serde::{Deserialize, Serialize};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, exit};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

/// What the command's process says before it becomes the command.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    /// How the second wall fares.
    Landlock(State),
    /// It cannot become the command.
    Failed(Refusal),
}

/// Is pid 1. Never returns.
pub(super) fn run(inside: Inside) -> ! {
    let Ok(control) = inside.control.try_clone() else { exit(2) };
    if let Err(refusal) = live(inside) {
        order::say(&control, "failed", &refusal);
    }
    exit(0)
}

fn live(inside: Inside) -> Result<(), Refusal> {
    let failed = |error: io::Error| Refusal::new(format!("pid 1 failed: {error}"), "");
    let Inside { order, filters, network, groups, owners, orders, control, stdio, .. } = inside;
    let Held { entry: _entry, door } = inside.held;
    die_with_launcher().map_err(failed)?;
    let mut orders = PipeReader::from(orders);
    let mut go = [0; 1];
    // Unmapped and unlimited until then.
    orders.read_exact(&mut go).map_err(failed)?;
    if !order.has(Wall::PidNamespace) {
        set_child_subreaper(Some(rustix::process::getpid())).map_err(|e| failed(e.into()))?;
    }
    let listener = outside(&order, network)?;
    let tree = filetree::build(&order, &owners)?;
    drop(owners);
    give_pipes(&order, &stdio).map_err(failed)?;
    let (report, say) = io::pipe().map_err(failed)?;
    let limited = groups.missing.is_empty() && !groups.dirs.is_empty();
    let Some(payload) = sys::fork().map_err(failed)? else {
        drop((report, control, orders, listener, door));
        become_command(&order, stdio, say, &filters, limited);
    };
    drop((stdio, say));
    let ids = order.ids.map(|ids| if order.has(Wall::OwnId) { ids.init } else { 0 });
    confine::init(&order, ids)?;
    die_with_launcher().map_err(failed)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| failed(e.into()))?;
    confine::filter(&order, &filters)?;
    let landlock = hear(report)?;
    let mut walls = tree;
    walls.push(Standing { wall: Wall::Landlock, state: landlock });
    let started =
        Started { walls: confine::report(&order, walls, &groups), cgroups: groups.dirs.clone() };
    order::say(&control, "started", &started);
    serve(&order, &control, orders, (listener, door), payload).map_err(failed)
}

/// Lets the command open its own pipes again by name, as by `/dev/stderr`.
fn give_pipes(order: &Order, stdio: &Stdio) -> io::Result<()> {
    let Some(ids) = order.ids else { return Ok(()) };
    let (user, group) = (Uid::from_raw(ids.user), Gid::from_raw(ids.user));
    for pipe in [&stdio.input, &stdio.output, &stdio.errors] {
        fchown(pipe, Some(user), Some(group))?;
    }
    Ok(())
}

fn die_with_launcher() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Sets the host name, brings up loopback unless it is, and listens for those who want to the
/// gateway.
fn outside(order: &Order, network: bool) -> Result<Option<TcpListener>, Refusal> {
    if order.has(Wall::UtsNamespace) {
        rustix::system::sethostname(order.plan.hostname.as_bytes())
            .map_err(|error| Refusal::at(Wall::UtsNamespace, "naming", &error))?;
    }
    if order.has(Wall::NetNamespace) && !network {
        spare::loopback().map_err(|error| Refusal::at(Wall::NetNamespace, "loopback", &error))?;
    }
    let Some(gateway) = &order.gateway else { return Ok(None) };
    TcpListener::bind(("127.0.0.1", gateway.port)).map(Some).map_err(|error| {
        let cause = format!("port {} of the sandbox's loopback: {error}", gateway.port);
        Refusal::new(cause, "")
    })
}

/// Confines itself and becomes the command. Never returns.
fn become_command(
    order: &Order,
    stdio: Stdio,
    mut say: PipeWriter,
    filters: &crate::seccomp::Programs,
    limited: bool,
) -> ! {
    let mut tell = |report: &Report| {
        let line = serde_json::to_string(report).unwrap_or_default() + "\n";
        let _pid_1_is_gone = say.write_all(line.as_bytes());
    };
    let landlock = |state| tell(&Report::Landlock(state));
    let Err(refusal) = execute(order, stdio, filters, limited, landlock);
    tell(&Report::Failed(refusal));
    exit(127)
}

fn execute(
    order: &Order,
    stdio: Stdio,
    filters: &crate::seccomp::Programs,
    limited: bool,
    landlock: impl FnOnce(State),
) -> Result<std::convert::Infallible, Refusal> {
    let failed = |error: io::Error| Refusal::new(format!("the command's process: {error}"), "");
    setsid().map_err(|error| failed(error.into()))?;
    let mut command = command(order, stdio)?;
    if order.has(Wall::Descriptors) {
        sys::close_rest_at_exec()
            .map_err(|error| Refusal::at(Wall::Descriptors, "close_range", &error))?;
    }
    let user = order.ids.map(|Ids { user, .. }| if order.has(Wall::OwnId) { user } else { 0 });
    confine::command(order, user, limited)?;
    landlock(confine::landlock(order)?);
    confine::filter(order, filters)?;
    // With everything in force: whether the directory can be entered is part of the answer.
    let error = command.exec();
    let name = order.command.first().map(|name| name.to_string_lossy().into_owned());
    let hint = "it must exist inside the sandbox: mount it, or install it below /usr";
    Err(Refusal::new(format!("{}: {error}", name.unwrap_or_default()), hint))
}

fn command(order: &Order, stdio: Stdio) -> Result<Command, Refusal> {
    let (program, args) =
        order.command.split_first().ok_or_else(|| Refusal::new("there is no command", ""))?;
    let mut command = Command::new(program);
    command.args(args).current_dir(&order.dir);
    command.stdin(stdio.input).stdout(stdio.output).stderr(stdio.errors);
    if order.has(Wall::Environment) {
        command.env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", "/tmp");
        command.envs(order.image.iter().flat_map(super::image::env));
    }
    command.envs(order.env.iter().map(|(name, value)| (name, value)));
    Ok(command)
}

/// Hears what the command's process says until it is the command.
fn hear(mut report: PipeReader) -> Result<State, Refusal> {
    let mut text = String::new();
    let _what_there_is = report.read_to_string(&mut text);
    let mut state = State::Missing { why: "not said".into() };
    for line in text.lines() {
        match serde_json::from_str(line) {
            Ok(Report::Landlock(said)) => state = said,
            Ok(Report::Failed(refusal)) => return Err(refusal),
            Err(error) => return Err(Refusal::new(format!("not understood: {error}"), "")),
        }
    }
    Ok(state)
}

/// Reaps and forwards, both ways, until the command has ended.
fn serve(
    order: &Order,
    control: &UnixStream,
    orders: PipeReader,
    (listener, door): (Option<TcpListener>, OwnedFd),
    payload: Pid,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut ended = signal(SignalKind::child())?;
        let mut orders = pipe::Receiver::from_owned_fd(OwnedFd::from(orders))?;
        if let (Some(listener), Some(gateway)) = (listener, &order.gateway) {
            let forward = forward::run(listener, filetree::gateway_inside(gateway))?;
            drop(tokio::spawn(forward));
        }
        drop(tokio::spawn(enter::run(door.into())?));
        loop {
            if let Some(status) = reap(payload)? {
                tell(control, status);
                return Ok(());
            }
            let mut asked = [0; 1];
            tokio::select! {
                _ = ended.recv() => {}
                got = orders.read(&mut asked) => match got {
                    Ok(1) if asked[0] == ASK_TERMINATE => {
                        let _gone_already = kill_process_group(payload, Signal::TERM);
                    }
                    // The launcher is dead.
                    _ => return Ok(()),
                },
            }
        }
    })
}

/// Takes the remains of all that has ended; returns the command's status if it is among them.
fn reap(payload: Pid) -> io::Result<Option<WaitStatus>> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == payload => return Ok(Some(status)),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Tells the runtime how the command ended.
pub(super) fn tell(control: &UnixStream, status: WaitStatus) {
    if let Some(code) = status.exit_status() {
        order::say(control, "exited", &code);
    } else if let Some(signal) = status.terminating_signal() {
        order::say(control, "signaled", &signal);
    }
}

/// Returns the user id that the command has, as it sees it.
pub(super) fn user_inside(order: &Order) -> u32 {
    order.ids.map_or(ROOTLESS_ID, |ids| ids.user)
}
