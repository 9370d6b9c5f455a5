//! The server, from the first connection to the last.

use crate::caller::Peer;
use crate::connections::{Connections, Counted};
use crate::listen::{Kind, Listener, Taken, Wire};
use crate::ops::Metrics;
use crate::quiet::{Quiet, paced};
use crate::{
    BODY_PAUSE_MAX, DRAIN_MILLIS_MAX, FIRST_REQUEST_MAX, HEADER_BYTES_MAX, HEADER_COUNT_MAX,
    HEADER_READ_MAX, KEEP_ALIVE_PAUSE, PING_ANSWER_MAX, PING_PAUSE, SEND_BUFFER_BYTES,
    STREAM_COUNT_MAX, WINDOW_BYTES, router,
};
use ax_core::time::Timestamp;
use ax_engine::Engine;
use ax_harness::Desk;
use axum::Router;
use axum::body::Body;
use futures::future::join_all;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

/// Why a server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Anybody could do anything.
    #[error("{address} would be open to anybody: there is no authentication")]
    Unguarded {
        /// The address.
        address: SocketAddr,
    },
}

/// What authenticates: it puts its layer around the whole router. `caller.rs` says what the layer
/// owes.
#[derive(Clone)]
pub struct Guard(pub Arc<dyn Fn(Router) -> Router + Send + Sync>);

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

/// What a server may be given beside its engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// What authenticates those who come from afar.
    pub guard: Option<Guard>,
    /// Web pages of these origins may use the server in a browser; `*` for all.
    pub origins: Vec<String>,
    /// Routes beside the API, behind the same guard.
    pub beside: Router,
    /// Routes that anybody may call.
    pub open: Router,
    /// Where harnesses find the interface.
    pub desk: Desk,
    /// Counts requests.
    pub metrics: Option<Arc<Metrics>>,
    /// How long a request's headers, or a handshake, may take.
    pub header_read_max: Duration,
    /// How long it may take until a request of a connection from afar was let in.
    pub first_request_max: Duration,
    /// How long the next piece of a request's body may take.
    pub body_pause_max: Duration,
    /// How long a follower hears nothing at most.
    pub keep_alive_pause: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            guard: None,
            origins: Vec::new(),
            beside: Router::new(),
            open: Router::new(),
            desk: Desk::default(),
            metrics: None,
            header_read_max: HEADER_READ_MAX,
            first_request_max: FIRST_REQUEST_MAX,
            body_pause_max: BODY_PAUSE_MAX,
            keep_alive_pause: KEEP_ALIVE_PAUSE,
        }
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
    /// What else there is.
    pub options: Options,
}

/// What all connections share.
#[derive(Clone, Debug)]
struct Shared {
    router: Router,
    connections: Connections,
    header_read_max: Duration,
    first_request_max: Duration,
    body_pause_max: Duration,
    tasks: TaskTracker,
    /// No more requests on open connections.
    finish: CancellationToken,
    /// Time is up.
    cut: CancellationToken,
}

impl Server {
    /// Serves until `stop` is triggered. Then new requests are refused, the engine is stopped,
    /// which ends what follows it, requests under way are waited for a while, and the socket is
    /// removed.
    ///
    /// # Errors
    ///
    /// Returns [`ServeError`] if an address is neither guarded nor open on purpose.
    pub async fn serve(self, listeners: Vec<Listener>) -> Result<(), ServeError> {
        check(&listeners, &self.options)?;
        let (stop, engine) = (self.stop.clone(), self.engine.clone());
        let connections = self.connections.clone();
        let Options { header_read_max, first_request_max, body_pause_max, .. } = self.options;
        let (router, health, _answers_harnesses) = router::router(self).await;
        let shared = Shared {
            connections,
            header_read_max,
            first_request_max,
            body_pause_max,
            tasks: TaskTracker::new(),
            finish: CancellationToken::new(),
            cut: CancellationToken::new(),
            router,
        };
        let accepting = join_all(listeners.into_iter().map(|listener| accept(&shared, listener)));
        tokio::join!(accepting, async {
            stop.cancelled().await;
            router::unhealthy(&health).await;
            engine.shutdown().await;
            shared.finish.cancel();
        });
        shared.tasks.close();
        let drained = timeout(Duration::from_millis(DRAIN_MILLIS_MAX), shared.tasks.wait()).await;
        if drained.is_err() {
            tracing::warn!(open = shared.connections.count(), "requests under way were cut off");
            shared.cut.cancel();
            shared.tasks.wait().await;
        }
        Ok(())
    }
}

/// Checks, before anything is started, that nobody comes in who should not.
///
/// # Errors
///
/// Returns [`ServeError`] if an address is neither guarded nor open on purpose.
pub fn check(listeners: &[Listener], options: &Options) -> Result<(), ServeError> {
    for listener in listeners {
        if let (Kind::Address { open: false, .. }, None) = (&listener.kind, &options.guard)
            && let Some(address) = listener.address()
        {
            return Err(ServeError::Unguarded { address });
        }
    }
    Ok(())
}

/// Takes connections until the engine has stopped, and removes the socket.
async fn accept(shared: &Shared, mut listener: Listener) {
    if let Kind::Pair(stream) = listener.kind {
        let peer = stream.peer_cred().map(|peer| Peer::User { uid: peer.uid() });
        match peer {
            Ok(peer) => start(shared, Taken::Unix(stream, peer)),
            Err(error) => tracing::warn!(%error, "the system does not say who the caller is"),
        }
        return shared.finish.cancelled().await;
    }
    loop {
        let taken = tokio::select! {
            taken = listener.accept() => taken,
            () = shared.finish.cancelled() => break,
        };
        match taken {
            // The local socket stays open to whoever has to put things right.
            Taken::Tcp { address, .. } if shared.connections.are_enough() => {
                tracing::warn!(%address, "a connection was refused: there are too many");
            }
            taken => start(shared, taken),
        }
    }
    if let Kind::Socket(_, path) = &listener.kind
        && let Err(error) = fs::remove_file(path)
    {
        tracing::debug!(%error, "the socket was removed by somebody else");
    }
}

/// Serves a connection in a task of its own.
fn start(shared: &Shared, taken: Taken) {
    let (shared, counted) = (shared.clone(), shared.connections.add());
    let tasks = shared.tasks.clone();
    let serving = async move {
        let (wire, peer): (Box<dyn Wire>, Peer) = match taken {
            Taken::Unix(stream, peer) => (Box::new(stream), peer),
            Taken::Tcp { stream, address, secure: None, open } => {
                (Box::new(stream), Peer::Remote { address, certificate: None, open })
            }
            Taken::Tcp { stream, address, secure: Some(secure), open } => {
                match timeout(shared.header_read_max, secure.secure(stream)).await {
                    Ok(Ok((wire, certificate))) => {
                        (wire, Peer::Remote { address, certificate, open })
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(%address, %error, "a connection was not secured");
                        return;
                    }
                    Err(_) => return,
                }
            }
        };
        connection(shared, wire, peer, counted).await;
    };
    drop(tasks.spawn(serving));
}

/// Serves a connection to its end.
async fn connection(shared: Shared, wire: Box<dyn Wire>, peer: Peer, _counted: Counted) {
    let (router, pause_max) = (shared.router, shared.body_pause_max);
    let quiet = matches!(peer, Peer::Remote { .. }).then(Quiet::new);
    let seen = quiet.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let under_way = seen.as_ref().and_then(|seen| seen.begin(&request));
        let request = request.map(Body::new);
        let request = if seen.is_some() { paced(request, pause_max) } else { request };
        let answer = router.clone().oneshot(request);
        async move {
            let answer = answer.await?;
            if let Some(under_way) = under_way {
                under_way.answered(&answer);
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let builder = builder(shared.header_read_max);
    let serving = builder.serve_connection(TokioIo::new(wire), service);
    tokio::pin!(serving);
    let patience = || quiet.as_ref().and_then(|quiet| quiet.until(shared.first_request_max));
    let mut impatient = patience();
    let mut finishing = false;
    loop {
        tokio::select! {
            // What has come is seen before the time is.
            biased;
            served = serving.as_mut() => {
                if let Err(error) = served {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
            () = shared.finish.cancelled(), if !finishing => {
                finishing = true;
                serving.as_mut().graceful_shutdown();
            }
            () = shared.cut.cancelled() => return,
            () = until(impatient) => {
                impatient = patience();
                if impatient.is_some_and(|then| then <= Instant::now()) {
                    tracing::debug!("a connection asked for nothing that it may have");
                    return;
                }
            }
        }
    }
}

async fn until(then: Option<Instant>) {
    match then {
        Some(then) => sleep_until(then).await,
        None => sleep(Duration::MAX).await,
    }
}

fn builder(header_read_max: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_read_max)
        .max_headers(HEADER_COUNT_MAX)
        .max_buf_size(HEADER_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_PAUSE)
        .keep_alive_timeout(PING_ANSWER_MAX)
        .max_concurrent_streams(STREAM_COUNT_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(4 * WINDOW_BYTES);
    builder
}
