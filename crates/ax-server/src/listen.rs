//! The socket, from its making to its end.

use crate::admin::Admin;
use crate::agents::Agents;
use crate::caller::Peer;
use crate::connections::{Connection, Connections};
use crate::sessions::Sessions;
use crate::{DRAIN_MILLIS_MAX, REQUEST_BYTES_MAX};
use ax_core::time::Timestamp;
use ax_engine::Engine;
use ax_proto::v1::agents_server::AgentsServer;
use ax_proto::v1::server_server::ServerServer;
use ax_proto::v1::sessions_server::SessionsServer;
use futures::{Stream, StreamExt as _, stream};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected as _;

/// How long to wait after a connection could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[error("the socket {} cannot be made", path.display())]
pub struct BindError {
    /// The socket.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Why a server stopped before it was asked to.
#[derive(Debug, thiserror::Error)]
#[error("the server stopped")]
pub struct ServeError {
    /// What the transport said.
    #[from]
    pub source: tonic::transport::Error,
}

/// Where connections come from.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A socket in the file system, removed in the end.
    Socket(UnixListener, PathBuf),
    /// One connection that there is already.
    Pair(UnixStream),
}

impl Listener {
    /// Makes a socket that only its owner can use, in the place of one that may be left over. The
    /// caller must own what the socket stands for, such as the lock of the data directory.
    ///
    /// # Errors
    ///
    /// Returns [`BindError`] if the system refuses.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |source| BindError { path: path.to_owned(), source };
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
}

/// What is served, and until when.
#[derive(Clone, Debug)]
pub struct Server {
    /// The engine.
    pub engine: Engine,
    /// The data directory, for those who ask.
    pub data_dir: PathBuf,
    /// When this process began to serve.
    pub started_at: Timestamp,
    /// Triggered to stop: by the owner, or by a request.
    pub stop: CancellationToken,
    /// Counts the connections.
    pub connections: Connections,
}

impl Server {
    /// Serves until `stop` is triggered: then stops the engine, which ends what follows it, waits
    /// a while for requests under way, and removes the socket.
    ///
    /// # Errors
    ///
    /// Returns [`ServeError`] if the transport fails.
    pub async fn serve(self, listener: Listener) -> Result<(), ServeError> {
        let (incoming, path) = self.incoming(listener);
        let engine = self.engine.clone();
        let stop = self.stop.clone();
        let stopped = CancellationToken::new();
        let (told, engine_stopped) = (stopped.clone(), stopped.clone());
        let serving = tonic::transport::Server::builder()
            .add_service(
                SessionsServer::new(Sessions { engine: self.engine.clone() })
                    .max_decoding_message_size(REQUEST_BYTES_MAX),
            )
            .add_service(
                AgentsServer::new(Agents { engine: self.engine.clone() })
                    .max_decoding_message_size(REQUEST_BYTES_MAX),
            )
            .add_service(ServerServer::new(Admin { server: self }))
            .serve_with_incoming_shutdown(incoming, async move {
                stop.cancelled().await;
                engine.shutdown().await;
                told.cancel();
            });
        let drained = async {
            engine_stopped.cancelled().await;
            tokio::time::sleep(Duration::from_millis(DRAIN_MILLIS_MAX)).await;
        };
        let result = tokio::select! {
            served = serving => served,
            () = drained => {
                tracing::warn!("requests under way were cut off");
                Ok(())
            }
        };
        if let Some(path) = path
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::debug!(%error, "the socket was removed by somebody else");
        }
        Ok(result?)
    }

    fn incoming(
        &self,
        listener: Listener,
    ) -> (stream::BoxStream<'static, io::Result<Connection>>, Option<PathBuf>) {
        let connections = self.connections.clone();
        match listener.kind {
            Kind::Socket(listener, path) => (accept(listener, connections).boxed(), Some(path)),
            // More never come, and the stream must not end: that would end the server.
            Kind::Pair(stream) => {
                let one = stream::iter([Ok(connections.add(stream))]);
                (one.chain(stream::pending()).boxed(), None)
            }
        }
    }
}

/// Takes connections of the own user and of root; others find the door closed.
fn accept(
    listener: UnixListener,
    connections: Connections,
) -> impl Stream<Item = io::Result<Connection>> {
    let own = rustix::process::geteuid().as_raw();
    stream::unfold(listener, move |listener| {
        let connections = connections.clone();
        async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let connection = connections.add(stream);
                        match connection.connect_info() {
                            Some(Peer { uid }) if uid == own || uid == 0 => {
                                return Some((Ok(connection), listener));
                            }
                            peer => tracing::warn!(?peer, "a connection of another user"),
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be taken");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    })
}
