//! The way into a sandbox that runs.

use crate::order::{self, CONNECTED};
use rustix::fd::{AsFd, OwnedFd};
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use tokio::io::AsyncReadExt;

/// Leads to what the programs of one sandbox listen at, on its loopback interface, and to nothing
/// else. It has no address: who has it was given it. Clones lead to the same sandbox.
#[derive(Clone, Debug)]
pub struct Door(Arc<UnixStream>);

impl Door {
    /// Makes a door; returns pid 1's end as well.
    pub(crate) fn make() -> io::Result<(Self, OwnedFd)> {
        let (own, theirs) = UnixStream::pair()?;
        own.set_nonblocking(true)?;
        Ok((Self(Arc::new(own)), theirs.into()))
    }

    /// Connects to a port. May be dropped.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::ConnectionRefused`] if nobody listens there;
    /// [`io::ErrorKind::BrokenPipe`] if the sandbox is gone; [`io::ErrorKind::WouldBlock`] if too
    /// many wait to be let in.
    pub async fn connect(&self, port: u16) -> io::Result<tokio::net::UnixStream> {
        let (own, theirs) = UnixStream::pair()?;
        own.set_nonblocking(true)?;
        let mut own = tokio::net::UnixStream::from_std(own)?;
        order::send_word(&self.0, port.into(), &[theirs.as_fd()])?;
        // Only pid 1 has it from here on, so that its end is seen.
        drop(theirs);
        let mut word = [0];
        match own.read(&mut word).await? {
            1 if word == [CONNECTED] => Ok(own),
            _ => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}
