//! The way in: the runtime sends a socket and names a port, and pid 1 connects it with that port of
//! the sandbox's loopback. Bytes are passed on and not looked at. The sockets have no address, so
//! nobody else can connect to them.

use crate::order::{self, CONNECTED};
use rustix::fd::OwnedFd;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// The most connections at a time; more have to wait.
const CONNECTIONS_MAX: usize = 64;
/// How long a program may leave a connection unanswered.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Returns what lets the runtime in until it lets go of the door.
pub(super) fn run(door: UnixStream) -> io::Result<impl Future<Output = ()> + Send> {
    door.set_nonblocking(true)?;
    let door = tokio::net::UnixStream::from_std(door)?;
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    Ok(async move {
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            let asked = door.async_io(Interest::READABLE, || order::receive_word(&door)).await;
            let Ok((port, mut sockets)) = asked else { return };
            // There was no descriptor left for it: the runtime sees its end.
            let Some(socket) = sockets.pop() else { continue };
            drop(tokio::spawn(async move {
                let _either_has_gone = pass(port, socket).await;
                drop(place);
            }));
        }
    })
}

async fn pass(port: u32, socket: OwnedFd) -> io::Result<()> {
    let socket = UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    let mut from = tokio::net::UnixStream::from_std(socket)?;
    let port = u16::try_from(port).map_err(io::Error::other)?;
    let mut to = timeout(CONNECT_MAX, connect(port)).await??;
    from.write_all(&[CONNECTED]).await?;
    tokio::io::copy_bidirectional(&mut from, &mut to).await?;
    Ok(())
}

async fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(stream) => stream,
        Err(_) => TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}
