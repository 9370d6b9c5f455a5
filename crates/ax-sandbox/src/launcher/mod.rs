//! What runs between the runtime and the command: our own binary, started again.
//!
//! The launcher makes the namespaces, so that everything in them can be done by a process with one
//! thread; the runtime has many, and nothing but `exec` is sound in a child of those. It stays
//! outside, waits, and removes what is left: control groups and the entry in the registry. Pid 1
//! ends with it, by its parent-death signal, and with pid 1 everything inside.
//!
//! A launcher that is asked to fork stays as it is, knows nothing of any order, and ends with the
//! runtime; see [`crate::forker`].

mod confine;
mod enter;
mod filetree;
mod forward;
mod image;
mod init;
mod plain;
mod spare;

use crate::cgroup::{Groups, Hierarchy};
use crate::order::{self, ASK_KILL, ASK_TERMINATE, Asked, DESCRIPTORS, Order};
use crate::seccomp;
use crate::sys;
use crate::wall::{Refusal, Wall};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, getegid, geteuid, pidfd_send_signal, setsid, waitpid,
};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The user id inside, where the runtime is not root.
const ROOTLESS_ID: u32 = 1000;

/// The command's ends of the pipes.
struct Stdio {
    input: OwnedFd,
    output: OwnedFd,
    errors: OwnedFd,
}

/// Runs the launcher. Standard input is the control socket that the runtime made. Call it before
/// the process starts any thread.
///
/// Ends when the command and everything that it started are gone.
pub fn main() -> ExitCode {
    match launch() {
        Ok(()) => ExitCode::SUCCESS,
        // There is nobody to tell: the runtime is gone, or this was not started by one.
        Err(_) => ExitCode::from(2),
    }
}

fn launch() -> io::Result<()> {
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let nowhere = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nowhere)?;
    // Fails only for a process group leader, which has left the terminal's group already.
    let _already_leader = setsid();
    let filters = seccomp::compile();
    let filters = filters.map_err(|error| Refusal::at(Wall::Seccomp, "compiling", &error));
    let mut kit = Kit { filters, hierarchies: Hierarchy::all(), network: false };
    let (control, asked) = match order::receive(&control)? {
        Asked::Fork(first) => {
            let begun = spare::fork_for_ever(&control, first)?;
            kit.network = begun.network;
            let asked = order::receive(&begun.control)?;
            // What leads to the runtime's requests to fork is the parent's.
            drop(control);
            (begun.control, asked)
        }
        run @ Asked::Run(..) => (control, run),
    };
    let Asked::Run(order, descriptors) = asked else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    carry_out(*order, kit, &control, descriptors);
    Ok(())
}

/// What is made before an order is known.
struct Kit {
    filters: Result<seccomp::Programs, Refusal>,
    hierarchies: Vec<Hierarchy>,
    /// Whether this process is in a network namespace that its sandbox is to have.
    network: bool,
}

fn carry_out(
    order: Order,
    kit: Kit,
    control: &UnixStream,
    [input, output, errors, entry, door]: [OwnedFd; DESCRIPTORS],
) {
    let stdio = Stdio { input, output, errors };
    let path = order.entry.clone();
    let done = if order.isolated {
        isolated(order, kit, control, stdio, Held { entry, door })
    } else {
        plain::run(&order, control, stdio)
    };
    if let Err(refusal) = done {
        order::say(control, "failed", &refusal);
    }
    let _reaped_at_next_start = fs::remove_file(path);
}

/// What only pid 1 holds.
struct Held {
    /// Never used: the lock of the registry.
    entry: OwnedFd,
    /// Where connections of the runtime come in.
    door: OwnedFd,
}

/// What pid 1 is given.
struct Inside {
    order: Order,
    filters: seccomp::Programs,
    /// Whether its network is as it is to be.
    network: bool,
    groups: Groups,
    owners: filetree::Owners,
    /// Where the launcher says go, and forwards orders; its end means that the launcher died.
    orders: OwnedFd,
    control: UnixStream,
    stdio: Stdio,
    held: Held,
}

fn isolated(
    order: Order,
    kit: Kit,
    control: &UnixStream,
    stdio: Stdio,
    held: Held,
) -> Result<(), Refusal> {
    if order.ids.is_none() && geteuid().is_root() {
        let cause = "root without CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID cannot give a sandbox \
                     an id of its own, and its own is never used";
        return Err(Refusal::new(cause, "give these capabilities, or run as an ordinary user"));
    }
    let Kit { filters, hierarchies, network } = kit;
    let filters = filters?;
    let owners = filetree::Owners::make(&order)?;
    let groups = if order.has(Wall::Cgroup) {
        Groups::make(&order.name, &hierarchies, &order.plan.resources)
    } else {
        Groups::default()
    };
    let deadline = order.plan.time_limit.map(Duration::from_secs);
    let failed = |error: io::Error| Refusal::new(format!("the launcher failed: {error}"), "");
    let (orders, mut forward) = io::pipe().map_err(failed)?;
    let made = born(&order, network, &groups);
    if made.is_err() {
        let _not_entered = groups.leave();
        groups.remove();
    }
    let Some((pid, descriptor)) = made? else {
        drop(forward);
        let control = control.try_clone().map_err(failed)?;
        let orders = OwnedFd::from(orders);
        init::run(Inside { order, filters, network, groups, owners, orders, control, stdio, held });
    };
    drop((orders, stdio, owners, held.door));
    let ready = admit(pid, &order, &groups).and_then(|()| forward.write_all(b"G").map_err(failed));
    if ready.is_ok() {
        watch(control, &descriptor, &mut forward, deadline);
    }
    let _gone_already = pidfd_send_signal(&descriptor, Signal::KILL);
    bury(pid);
    if ready.is_err() {
        let _left_already = groups.leave();
    }
    groups.remove();
    ready
}

/// Makes pid 1, in its namespaces and control groups.
fn born(order: &Order, network: bool, groups: &Groups) -> Result<Option<(Pid, OwnedFd)>, Refusal> {
    let failed = |error: io::Error| Refusal::at(Wall::Cgroup, "entering", &error);
    let group = groups.open().map_err(failed)?;
    groups.enter().map_err(failed)?;
    sys::clone(namespaces(order, network), group.as_ref().map(AsFd::as_fd)).map_err(|error| {
        let wall = if order.ids.is_none() { Wall::UserNamespace } else { Wall::Root };
        Refusal::at(wall, "new namespaces are refused", &error)
    })
}

fn namespaces(order: &Order, network: bool) -> u64 {
    let flags = [
        (Wall::PidNamespace, libc::CLONE_NEWPID),
        (Wall::NetNamespace, if network { 0 } else { libc::CLONE_NEWNET }),
        (Wall::IpcNamespace, libc::CLONE_NEWIPC),
        (Wall::UtsNamespace, libc::CLONE_NEWUTS),
        (Wall::CgroupNamespace, libc::CLONE_NEWCGROUP),
    ];
    let user = if order.ids.is_none() { libc::CLONE_NEWUSER } else { 0 };
    let wanted = flags.iter().filter(|(wall, _)| order.has(*wall)).map(|(_, flag)| *flag);
    let all = wanted.fold(libc::CLONE_NEWNS | user, |all, flag| all | flag);
    u64::from(all.cast_unsigned())
}

/// Takes the remains of a child that was killed.
fn bury(pid: Pid) {
    while matches!(waitpid(Some(pid), WaitOptions::empty()), Err(Errno::INTR)) {}
}

/// Gives pid 1 its ids, and leaves its control groups to it.
fn admit(pid: Pid, order: &Order, groups: &Groups) -> Result<(), Refusal> {
    if order.ids.is_none() {
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        let maps = [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("{ROOTLESS_ID} {user} 1")),
            ("gid_map", format!("{ROOTLESS_ID} {group} 1")),
        ];
        for (file, text) in maps {
            let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
            fs::write(path, text)
                .map_err(|error| Refusal::at(Wall::UserNamespace, file, &error))?;
        }
    }
    groups.leave().map_err(|error| Refusal::at(Wall::Cgroup, "leaving", &error))
}

/// Waits until pid 1 has ended, the runtime wants it to or has died, or its time is over.
fn watch(
    control: &UnixStream,
    process: &OwnedFd,
    forward: &mut impl Write,
    limit: Option<Duration>,
) {
    let begun_at = Instant::now();
    loop {
        let left = limit.map(|limit| limit.saturating_sub(begun_at.elapsed()));
        if left == Some(Duration::ZERO) {
            order::say(control, "timeout", &());
            return;
        }
        let mut events = [PollFd::new(process, PollFlags::IN), PollFd::new(control, PollFlags::IN)];
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        if poll(&mut events, left.as_ref()).is_err() {
            continue;
        }
        if !events[0].revents().is_empty() {
            return;
        }
        if !events[1].revents().is_empty() && !obey(control, forward) {
            return;
        }
    }
}

/// Carries out what the runtime asks; returns whether to go on.
fn obey(control: &UnixStream, forward: &mut impl Write) -> bool {
    let mut orders = [0; 16];
    let got = rustix::io::read(control, &mut orders).unwrap_or(0);
    let orders = &orders[..got];
    if orders.contains(&ASK_TERMINATE) {
        let _ends_anyway = forward.write_all(&[ASK_TERMINATE]);
    }
    got > 0 && !orders.contains(&ASK_KILL)
}
