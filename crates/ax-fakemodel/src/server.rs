//! The server: starting, stopping, and what it keeps.

use crate::handle;
use crate::ledger::{Entry, Ledger};
use crate::script::Script;
use crate::stored::Store;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// How to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to answer; without turns, the prompt of each request decides.
    pub script: Script,
    /// A file to which the ledger is appended as well; what is in it goes on counting.
    pub ledger_file: Option<PathBuf>,
    /// Where to listen; a free port of the loopback interface unless given.
    pub listen: SocketAddr,
}

impl Default for Options {
    fn default() -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { script: Script::default(), ledger_file: None, listen }
    }
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("the model server cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The ledger file cannot be opened.
    #[error("the ledger {} cannot be opened", path.display())]
    Ledger {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) script: Mutex<Arc<Script>>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) store: Store,
}

impl Server {
    /// Takes another script; its turns count from nothing.
    pub(crate) fn set_script(&self, script: Script) {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(script);
        self.ledger.reset_turns();
    }

    pub(crate) fn script(&self) -> Arc<Script> {
        Arc::clone(&self.script.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forgets what was asked.
    pub(crate) fn reset(&self) {
        self.ledger.reset();
        self.store.clear();
    }
}

/// A running server. Dropping it breaks every connection, as if its process were killed.
#[derive(Debug)]
pub struct FakeModel {
    address: SocketAddr,
    server: Arc<Server>,
    task: JoinHandle<()>,
}

impl FakeModel {
    /// Starts a server; it answers when this returns. Must be called within a tokio runtime with
    /// I/O and time.
    ///
    /// # Errors
    ///
    /// Returns [`StartError`] if the address or the ledger file cannot be used.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let (listener, address, server) = open(options).await?;
        let task = tokio::spawn(accept(listener, Arc::clone(&server)));
        Ok(Self { address, server, task })
    }

    /// Where it listens.
    pub const fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The base URL for clients, without a slash at its end. Clients of OpenAI want `/v1` after it.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far, in order.
    pub fn ledger(&self) -> Vec<Entry> {
        self.server.ledger.entries(0)
    }

    /// Takes another script; its turns count from nothing.
    pub fn set_script(&self, script: Script) {
        self.server.set_script(script);
    }

    /// Forgets every request and stored answer; the script stays, and its turns count from nothing.
    pub fn reset(&self) {
        self.server.reset();
    }

    /// Stops, breaking every connection, and returns when nothing of it runs any more.
    pub async fn shutdown(mut self) {
        self.task.abort();
        drop((&mut self.task).await);
    }
}

impl Drop for FakeModel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs a server until the future is dropped. `ready` is told where it listens.
///
/// # Errors
///
/// Returns [`StartError`] if the address or the ledger file cannot be used.
pub async fn serve(
    options: Options,
    ready: impl FnOnce(SocketAddr) + Send,
) -> Result<(), StartError> {
    let (listener, address, server) = open(options).await?;
    ready(address);
    accept(listener, server).await;
    Ok(())
}

async fn open(options: Options) -> Result<(TcpListener, SocketAddr, Arc<Server>), StartError> {
    let ledger = Ledger::open(options.ledger_file.as_deref()).map_err(|source| {
        StartError::Ledger { path: options.ledger_file.clone().unwrap_or_default(), source }
    })?;
    let failed = |source| StartError::Listen { address: options.listen, source };
    let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let script = Mutex::new(Arc::new(options.script));
    let server = Server { script, ledger: Arc::new(ledger), store: Store::default() };
    Ok((listener, address, Arc::new(server)))
}

/// Accepts connections until it is dropped, and them with it.
async fn accept(listener: TcpListener, server: Arc<Server>) {
    let router = Router::new().fallback(handle::handle).with_state(server);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, router.clone()));
                }
                // Out of file descriptors, usually: others have to be closed first.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    // Chunks are small, and each must be on its way before the next.
    drop(stream.set_nodelay(true));
    let service = TowerToHyperService::new(router);
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // Fails when the client goes away, or a fault breaks the connection.
    drop(served.await);
}
