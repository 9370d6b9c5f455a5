//! The way to a port that a program listens at.

use std::io;
use std::net::Ipv4Addr;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

/// A connection to a port.
pub(crate) type Connection = Either<TcpStream, UnixStream>;

/// Leads to the loopback interface that a program sees.
#[derive(Clone, Debug)]
pub(crate) enum Reach {
    /// That of the machine, where others may listen as well.
    Machine,
    /// That of its sandbox.
    Sandbox(ax_sandbox::Door),
}

impl Reach {
    /// Connects to a port. May be dropped.
    pub(crate) async fn connect(&self, port: u16) -> io::Result<Connection> {
        match self {
            Self::Machine => {
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
                stream.set_nodelay(true)?;
                Ok(Either::Left(stream))
            }
            Self::Sandbox(door) => door.connect(port).await.map(Either::Right),
        }
    }
}
