//! Where connections come from.

use crate::caller::Peer;
use futures::future::BoxFuture;
use std::fmt::Debug;
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// How long to wait after a connection could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A socket in the file system cannot be made.
    #[error("the socket {} cannot be made", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An address cannot be listened at.
    #[error("cannot listen at {address}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What bytes go over.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// What came of securing a connection: a channel, and the certificate of the client in DER.
pub type Secured = io::Result<(Box<dyn Wire>, Option<Arc<[u8]>>)>;

/// Puts a secure channel over a connection, such as TLS. It is given a bounded time.
pub trait Secure: Debug + Send + Sync {
    /// Does so.
    fn secure(&self, stream: TcpStream) -> BoxFuture<'static, Secured>;
}

/// Where connections come from.
#[derive(Debug)]
pub struct Listener {
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// A socket in the file system, removed in the end.
    Socket(UnixListener, PathBuf),
    /// One connection that there is already.
    Pair(UnixStream),
    /// An address.
    Address {
        listener: TcpListener,
        secure: Option<Arc<dyn Secure>>,
        /// Whether anybody may do anything.
        open: bool,
    },
}

/// A connection that was taken.
#[derive(Debug)]
pub(crate) enum Taken {
    Unix(UnixStream, Peer),
    Tcp { stream: TcpStream, address: SocketAddr, secure: Option<Arc<dyn Secure>>, open: bool },
}

impl Listener {
    /// Makes a socket that only its owner can use, in the place of one that may be left over. The
    /// caller must own what the socket stands for, such as the lock of the data directory.
    ///
    /// # Errors
    ///
    /// Returns [`BindError`] if the system refuses.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |source| BindError::Socket { path: path.to_owned(), source };
        // Made under another name and then moved, so that nobody finds it before it is closed to
        // others, and a connection to what is left over fails until then.
        let fresh = path.with_extension("new");
        for old in [path, &fresh] {
            match fs::remove_file(old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        let listener = UnixListener::bind(&fresh).map_err(failed)?;
        fs::set_permissions(&fresh, Permissions::from_mode(0o600)).map_err(failed)?;
        fs::rename(&fresh, path).map_err(failed)?;
        Ok(Self { kind: Kind::Socket(listener, path.to_owned()) })
    }

    /// Serves this one connection, and nobody else.
    pub const fn pair(stream: UnixStream) -> Self {
        Self { kind: Kind::Pair(stream) }
    }

    /// Listens at an address; port 0 takes a free one. Whoever connects must be authenticated, by
    /// the [`Guard`](crate::Guard) of the server.
    ///
    /// # Errors
    ///
    /// Returns [`BindError`] if the system refuses.
    pub async fn tcp(address: SocketAddr) -> Result<Self, BindError> {
        let bound = TcpListener::bind(address).await;
        let listener = bound.map_err(|source| BindError::Address { address, source })?;
        Ok(Self { kind: Kind::Address { listener, secure: None, open: false } })
    }

    /// Puts a secure channel over each connection to an address.
    #[must_use]
    pub fn secured(mut self, with: Arc<dyn Secure>) -> Self {
        if let Kind::Address { secure, .. } = &mut self.kind {
            *secure = Some(with);
        }
        self
    }

    /// Lets anybody who reaches the address do anything.
    #[must_use]
    pub const fn open_to_anybody(mut self) -> Self {
        if let Kind::Address { open, .. } = &mut self.kind {
            *open = true;
        }
        self
    }

    /// The address that it listens at, with the real port.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.kind {
            Kind::Address { listener, .. } => listener.local_addr().ok(),
            _ => None,
        }
    }

    /// The URL that clients reach it at, if that is an address.
    pub fn url(&self) -> Option<String> {
        let scheme = match &self.kind {
            Kind::Address { secure: Some(_), .. } => "https",
            _ => "http",
        };
        self.address().map(|address| format!("{scheme}://{address}"))
    }

    /// Takes the next connection; of the local socket only those of the own user and of root.
    pub(crate) async fn accept(&mut self) -> Taken {
        loop {
            let failed = match self.kind {
                Kind::Socket(ref listener, _) => match listener.accept().await {
                    Ok((stream, _)) => match own(&stream) {
                        Some(peer) => return Taken::Unix(stream, peer),
                        None => continue,
                    },
                    Err(error) => error,
                },
                Kind::Address { ref listener, ref secure, open } => match listener.accept().await {
                    Ok((stream, address)) => {
                        // A transport that cannot be told so is slower, and no worse.
                        drop(stream.set_nodelay(true));
                        return Taken::Tcp { stream, address, secure: secure.clone(), open };
                    }
                    Err(error) => error,
                },
                // More never come.
                Kind::Pair(_) => std::future::pending().await,
            };
            tracing::warn!(error = %failed, "a connection could not be taken");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// Says who is at the other end of the local socket, if it is the own user or root.
fn own(stream: &UnixStream) -> Option<Peer> {
    let uid = stream.peer_cred().ok()?.uid();
    if uid == rustix::process::geteuid().as_raw() || uid == 0 {
        return Some(Peer::User { uid });
    }
    tracing::warn!(uid, "a connection of another user");
    None
}
