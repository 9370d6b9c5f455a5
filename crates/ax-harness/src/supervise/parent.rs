//! The runtime's end: starting a supervisor, asking it to stop, learning what became of it.

use super::registry::{Entry, Registry};
use super::{ASK_KILL, ASK_START, ASK_TERMINATE, Options, TOKEN_VARIABLE};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::ffi::OsString;
use std::fmt;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// The longest thing a supervisor says, in bytes.
const SAYING_BYTES_MAX: usize = 16 * 1024;

/// What to run.
#[derive(Debug)]
pub(crate) struct Spec<'a> {
    /// The program and its arguments.
    pub(crate) command: &'a [OsString],
    /// The working directory.
    pub(crate) dir: &'a Path,
    /// The whole environment.
    pub(crate) env: Vec<(OsString, OsString)>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// With this exit status.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with status {code}"),
            Self::Signaled(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "was killed by {name}"),
                None => write!(f, "was killed by signal {signal}"),
            },
        }
    }
}

/// Returns the name of a signal that ends a process (signal(7)).
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}

/// What became of a command. Everything that it started is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It ran and ended.
    Ran(Status),
    /// Its time was over, and it was killed.
    TimedOut,
    /// It could not be started.
    NotStarted(String),
    /// The supervisor died first.
    SupervisorDied,
}

/// A command under its supervisor. Dropping it kills the command and everything it started.
#[derive(Debug)]
pub(crate) struct Supervised {
    child: Child,
    control: tokio::net::UnixStream,
    /// The same socket, to ask for something at once.
    orders: UnixStream,
    control_open: bool,
    said: Vec<u8>,
    entry: Option<Entry>,
    /// Removes what a supervisor that died has left.
    sweep: Option<JoinHandle<()>>,
    /// The command's standard input.
    pub(crate) stdin: Option<pipe::Sender>,
    /// The command's standard output.
    pub(crate) stdout: Option<pipe::Receiver>,
    /// The command's standard error.
    pub(crate) stderr: Option<pipe::Receiver>,
}

impl Supervised {
    /// Starts a command. That its program does not exist is learnt from [`Self::wait`].
    pub(crate) fn start(options: &Options, spec: Spec<'_>) -> io::Result<Self> {
        let (program, args) = options.supervisor.split_first().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "no supervisor is configured")
        })?;
        if !spec.dir.is_dir() {
            let message = format!("{} is not a directory", spec.dir.display());
            return Err(io::Error::new(io::ErrorKind::NotADirectory, message));
        }
        let entry = Registry::new(options.run_dir.clone()).enter()?;
        let (control, theirs) = UnixStream::pair()?;
        let (input_end, input) = io::pipe()?;
        let ((stdout, output), (stderr, errors)) = (io::pipe()?, io::pipe()?);
        send_input(&control, &OwnedFd::from(input_end))?;
        control.set_nonblocking(true)?;
        let child = Command::new(program)
            .args(args)
            .args(spec.command)
            .env_clear()
            .envs(spec.env)
            .env(TOKEN_VARIABLE, &entry.token)
            .current_dir(spec.dir)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(output))
            .stderr(Stdio::from(errors))
            .spawn()?;
        if let Some(pid) = child.id() {
            entry.started(pid)?;
        }
        Ok(Self {
            child,
            orders: control.try_clone()?,
            control: tokio::net::UnixStream::from_std(control)?,
            control_open: true,
            said: Vec::new(),
            entry: Some(entry),
            sweep: None,
            stdin: Some(pipe::Sender::from_owned_fd(OwnedFd::from(input))?),
            stdout: Some(pipe::Receiver::from_owned_fd(stdout.into())?),
            stderr: Some(pipe::Receiver::from_owned_fd(stderr.into())?),
        })
    }

    /// Sends SIGTERM to the command's process group.
    pub(crate) fn terminate(&self) {
        self.ask(ASK_TERMINATE);
    }

    /// Kills the command and everything it started.
    pub(crate) fn kill(&self) {
        self.ask(ASK_KILL);
    }

    fn ask(&self, order: u8) {
        // The socket takes far more than the few orders there are; a supervisor that is gone
        // needs none.
        let _supervisor_gone = (&self.orders).write_all(&[order]);
    }

    /// Waits until the command and everything it started are gone. May be dropped and called
    /// again.
    pub(crate) async fn wait(&mut self) -> io::Result<Ended> {
        while self.control_open {
            let mut bytes = [0; 512];
            let got = self.control.read(&mut bytes).await.unwrap_or(0);
            self.control_open = got > 0;
            if self.said.len() < SAYING_BYTES_MAX {
                self.said.extend_from_slice(&bytes[..got]);
            }
        }
        self.child.wait().await?;
        let ended = self.ended();
        if let Some(entry) = self.entry.take() {
            let died = ended == Ended::SupervisorDied;
            self.sweep = Some(tokio::task::spawn_blocking(move || {
                if died {
                    entry.sweep();
                }
            }));
        }
        if let Some(sweep) = &mut self.sweep {
            sweep.await.map_err(io::Error::other)?;
            self.sweep = None;
        }
        Ok(ended)
    }

    fn ended(&self) -> Ended {
        let said = String::from_utf8_lossy(&self.said);
        let number = |text: &str| text.trim().parse().unwrap_or(0);
        said.lines()
            .find_map(|line| {
                let (what, rest) = line.split_once(' ')?;
                match what {
                    "exited" => Some(Ended::Ran(Status::Exited(number(rest)))),
                    "signaled" => Some(Ended::Ran(Status::Signaled(number(rest)))),
                    "failed" => Some(Ended::NotStarted(rest.to_owned())),
                    _ => None,
                }
            })
            .unwrap_or(Ended::SupervisorDied)
    }
}

/// Hands the command's standard input to the supervisor.
fn send_input(control: &UnixStream, input: &OwnedFd) -> io::Result<()> {
    let descriptors = [input.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    sendmsg(control, &[IoSlice::new(&[ASK_START])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}
