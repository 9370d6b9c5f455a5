//! The backend `process`: no walls at all. What the command starts is killed when it ends, as far
//! as it can be found: this process is its subreaper.

use super::{Stdio, init, obey};
use crate::order::{self, ASK_TERMINATE, Order, Started};
use crate::wall::{Refusal, Standing, State, Wall};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group,
    pidfd_open, set_child_subreaper, wait,
};
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long to wait between two looks for descendants that are still to be killed.
const KILL_PAUSE: Duration = Duration::from_millis(5);
/// How often remains of descendants are taken while the command runs.
const REAP_PAUSE: Duration = Duration::from_secs(1);

pub(super) fn run(order: &Order, control: &UnixStream, stdio: Stdio) -> Result<(), Refusal> {
    let failed = |error: io::Error| Refusal::new(format!("the launcher failed: {error}"), "");
    set_child_subreaper(Some(getpid())).map_err(|error| failed(error.into()))?;
    let command = start(order, stdio)?;
    let why = "the backend `process` has no walls";
    let walls = Wall::ALL.map(|wall| Standing { wall, state: State::Missing { why: why.into() } });
    let started = Started { walls: walls.to_vec(), cgroups: Vec::new() };
    order::say(control, "started", &started);
    let status = watch(order, control, command).map_err(failed)?;
    kill_rest(status.is_none().then_some(command));
    if let Some(status) = status {
        init::tell(control, status);
    }
    Ok(())
}

fn start(order: &Order, stdio: Stdio) -> Result<Pid, Refusal> {
    let (program, args) =
        order.command.split_first().ok_or_else(|| Refusal::new("there is no command", ""))?;
    let child = Command::new(program)
        .args(args)
        .current_dir(&order.dir)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .envs(order.env.iter().map(|(name, value)| (name, value)))
        .stdin(stdio.input)
        .stdout(stdio.output)
        .stderr(stdio.errors)
        .process_group(0)
        .spawn();
    let child = child.map_err(|error| {
        let cause = format!("{}: {error}", program.to_string_lossy());
        Refusal::new(cause, "it must exist where the runtime runs")
    })?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| Refusal::new("the command has no process id", ""))
}

/// Waits until the command has ended, and returns its status; `None` if it is to be killed.
fn watch(order: &Order, control: &UnixStream, command: Pid) -> io::Result<Option<WaitStatus>> {
    let begun_at = Instant::now();
    let limit = order.plan.time_limit.map(Duration::from_secs);
    let process = pidfd_open(command, PidfdFlags::empty())?;
    loop {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == command {
                return Ok(Some(status));
            }
        }
        if limit.is_some_and(|limit| begun_at.elapsed() >= limit) {
            order::say(control, "timeout", &());
            return Ok(None);
        }
        let left = limit.map_or(REAP_PAUSE, |limit| limit.saturating_sub(begun_at.elapsed()));
        let pause = Timespec::try_from(left.min(REAP_PAUSE)).ok();
        let mut events =
            [PollFd::new(&process, PollFlags::IN), PollFd::new(control, PollFlags::IN)];
        let ready = poll(&mut events, pause.as_ref()).is_ok();
        if !ready || events[1].revents().is_empty() {
            continue;
        }
        let mut asked = Vec::new();
        let go_on = obey(control, &mut asked);
        if asked.contains(&ASK_TERMINATE) {
            let _gone_already = kill_process_group(command, Signal::TERM);
        }
        if !go_on {
            return Ok(None);
        }
    }
}

/// Kills the command's group and every descendant, until none is left.
fn kill_rest(command: Option<Pid>) {
    if let Some(command) = command {
        let _gone_already = kill_process_group(command, Signal::KILL);
    }
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => continue,
            Ok(None) => {}
            Err(_) => return,
        }
        for pid in descendants(getpid().as_raw_nonzero().get()) {
            if let Some(pid) = Pid::from_raw(pid) {
                let _gone_already = kill_process(pid, Signal::KILL);
            }
        }
        std::thread::sleep(KILL_PAUSE);
    }
}

fn descendants(root: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let all: Vec<(i32, i32)> = entries
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name is in parentheses and may contain anything, parentheses included.
            let parent = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?;
            Some((pid, parent.parse().ok()?))
        })
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}
