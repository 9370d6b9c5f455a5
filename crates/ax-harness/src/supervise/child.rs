//! What runs inside the supervisor.

use super::{ASK_KILL, ASK_START, ASK_TERMINATE, tree};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, getpid, kill_process_group, set_child_subreaper,
    setrlimit, setsid, wait,
};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

/// How long to wait between two looks for descendants that are still to be killed.
const KILL_PAUSE: Duration = Duration::from_millis(10);

/// Runs the supervisor: `args` are the command and its arguments. Standard input is the control
/// socket that the runtime made. Call it before the process starts any thread.
///
/// Ends when the command and everything that it started are gone.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command: Vec<OsString> = args.into_iter().collect();
    match supervise(&command) {
        Ok(()) => ExitCode::SUCCESS,
        // There is nobody to tell: the runtime is gone, or this was not started by one.
        Err(_) => ExitCode::from(2),
    }
}

fn supervise(command: &[OsString]) -> io::Result<()> {
    // A harness holds what it was told. Its limit is that of its supervisor.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Fails only for a process group leader, which has left the terminal's group already.
    let _already_leader = setsid();
    set_child_subreaper(Some(getpid()))?;
    let input = receive_input(&control)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let signals = Signals::new()?;
        match start(command, input) {
            Ok(pid) => Watch::new(control, pid, signals)?.run().await,
            Err(error) => {
                let message = error.to_string().replace('\n', " ");
                writeln!(&control, "failed {message}")
            }
        }
    })
}

/// Waits for the command's standard input, which comes over the control socket.
fn receive_input(control: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = loop {
        match recvmsg(control, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    match descriptors.flatten().next() {
        Some(input) if got.bytes == 1 && byte == [ASK_START] => Ok(input),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Starts the command in its own process group and lets go of its ends of the pipes.
fn start(command: &[OsString], input: OwnedFd) -> io::Result<Pid> {
    let (program, args) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let child = Command::new(program).args(args).stdin(Stdio::from(input)).process_group(0).spawn();
    let child = child.map_err(|error| {
        io::Error::new(error.kind(), format!("{}: {error}", program.to_string_lossy()))
    })?;
    let nowhere = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nowhere)?;
    rustix::stdio::dup2_stdout(&nowhere)?;
    rustix::stdio::dup2_stderr(&nowhere)?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::ErrorKind::Other.into())
}

struct Signals {
    child: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            child: signal(SignalKind::child())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

struct Watch {
    control: tokio::net::UnixStream,
    /// The same socket, to say things at once.
    reports: UnixStream,
    control_open: bool,
    command: Pid,
    /// Whether the command itself still runs.
    command_runs: bool,
    signals: Signals,
    /// Whether everything is to be killed.
    killing: bool,
}

impl Watch {
    fn new(control: UnixStream, command: Pid, signals: Signals) -> io::Result<Self> {
        control.set_nonblocking(true)?;
        let reports = control.try_clone()?;
        let control = tokio::net::UnixStream::from_std(control)?;
        let watch = Self {
            control,
            reports,
            control_open: true,
            command,
            command_runs: true,
            signals,
            killing: false,
        };
        watch.tell(&format!("started {}\n", command.as_raw_nonzero()));
        Ok(watch)
    }

    async fn run(mut self) -> io::Result<()> {
        loop {
            if self.reap()? {
                return Ok(());
            }
            if self.killing {
                self.kill();
            }
            let mut order = [0; 16];
            let Signals { child, terminate, interrupt, hangup } = &mut self.signals;
            tokio::select! {
                _ = child.recv() => {}
                // Whoever wants the supervisor to stop means the command.
                _ = terminate.recv() => self.terminate(),
                _ = interrupt.recv() => self.terminate(),
                _ = hangup.recv() => self.terminate(),
                got = self.control.read(&mut order), if self.control_open => {
                    self.obey(&order[..got.unwrap_or(0)]);
                }
                () = tokio::time::sleep(KILL_PAUSE), if self.killing => {}
            }
        }
    }

    /// Takes the remains of every child that has ended; returns whether none is left. As
    /// descendants become children when their parents end, none is left of them either.
    fn reap(&mut self) -> io::Result<bool> {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.command => {
                    self.command_runs = false;
                    self.killing = true;
                    if let Some(code) = status.exit_status() {
                        self.tell(&format!("exited {code}\n"));
                    } else if let Some(signal) = status.terminating_signal() {
                        self.tell(&format!("signaled {signal}\n"));
                    }
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return Ok(false),
                Err(Errno::CHILD) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn kill(&self) {
        if self.command_runs {
            // All of a group at once: a process that forks cannot run away from it.
            let _gone_already = kill_process_group(self.command, Signal::KILL);
        }
        for process in tree::descendants(getpid().as_raw_nonzero().get()) {
            process.signal(Signal::KILL);
        }
    }

    fn terminate(&self) {
        if self.command_runs {
            let _gone_already = kill_process_group(self.command, Signal::TERM);
        }
    }

    fn obey(&mut self, orders: &[u8]) {
        if orders.is_empty() {
            self.control_open = false;
            self.killing = true;
        }
        for order in orders {
            match *order {
                ASK_TERMINATE => self.terminate(),
                ASK_KILL => self.killing = true,
                _ => {}
            }
        }
    }

    /// Tells the runtime something. A runtime that is gone needs to know nothing.
    fn tell(&self, line: &str) {
        let _runtime_gone = (&self.reports).write_all(line.as_bytes());
    }
}
