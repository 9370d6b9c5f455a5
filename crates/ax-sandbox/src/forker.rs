//! The launcher that stays ready. Executing our binary costs about as much as everything that a
//! sandbox is made of; so one launcher per backend is executed, at the first start, and forks one
//! for each sandbox.
//!
//! It has one thread, an empty environment and no order in its memory: what a sandbox is told goes
//! straight to the fork. It reads one socket, and ends when the runtime's end of that is closed,
//! however the runtime ended. A forker that is gone is noticed at the next start, which executes
//! another one; sandboxes do not need it once they are forked.

use crate::order;
use rustix::fd::{AsFd, OwnedFd};
use std::ffi::OsString;
use std::io;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a forker may take, which is a matter of a millisecond. After that it is replaced.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The forker of a backend, made when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Forker(Mutex<Option<Ready>>);

#[derive(Debug)]
struct Ready {
    socket: UnixStream,
    child: Child,
}

/// A launcher that was forked.
#[derive(Debug)]
pub(crate) struct Forked {
    pub(crate) pid: u32,
    /// Readable when it has ended.
    pub(crate) process: OwnedFd,
}

impl Forker {
    /// Forks a launcher that gets its order over this socket.
    pub(crate) fn fork(&self, launcher: &[OsString], control: &OwnedFd) -> io::Result<Forked> {
        let mut ready = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(forker) = &*ready
            && let Ok(forked) = forker.fork(control)
        {
            return Ok(forked);
        }
        let forker = ready.insert(Ready::start(launcher)?);
        forker.fork(control)
    }
}

impl Ready {
    fn start(launcher: &[OsString]) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        socket.set_write_timeout(Some(ANSWER_LIMIT))?;
        let mut command = command(launcher, theirs.into())?;
        Ok(Self { socket, child: command.spawn()? })
    }

    fn fork(&self, control: &OwnedFd) -> io::Result<Forked> {
        order::send_word(&self.socket, 0, &[control.as_fd()])?;
        let (pid, mut descriptors) = order::receive_word(&self.socket)?;
        let process = descriptors.pop().filter(|_| pid != 0);
        let process = process.ok_or_else(|| io::Error::other("no process can be made"))?;
        Ok(Forked { pid, process })
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Returns what executes the launcher, with nothing of this process but its control socket.
pub(crate) fn command(launcher: &[OsString], control: OwnedFd) -> io::Result<Command> {
    let (program, args) = launcher.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(args).env_clear();
    command.stdin(control).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}
