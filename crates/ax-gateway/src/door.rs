//! Listening, and who may come in.

use crate::config::INTERFACE;
use crate::denials::{Denials, Noted};
use crate::egress::{self, Body, Egress};
use crate::models::Models;
use crate::proof::{Proof, WRONG_KEY};
use crate::records::Records;
use crate::tools::Tools;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The most connections of a harness at a time, over the port and over the socket each.
const CONNECTIONS_MAX: usize = 256;
/// How long a harness may take for the head of a request.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What is behind port and socket.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) models: Arc<Models>,
    pub(crate) tools: Tools,
    pub(crate) egress: Arc<Egress>,
    pub(crate) denials: Arc<Denials>,
    /// The runtime's own interface, if the harness may use it.
    pub(crate) records: Option<Records>,
    /// What the harness has instead of a key.
    pub(crate) placeholder: Box<str>,
    /// Who else may come through the socket.
    pub(crate) users: Users,
}

/// Which users besides the runtime's own may come through a socket; nobody if it is the default.
#[derive(Clone)]
pub struct Users(Arc<dyn Fn(u32) -> bool + Send + Sync>);

impl Users {
    /// Those whose ids this says yes to, whenever somebody comes.
    pub fn of(are: impl Fn(u32) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(are))
    }
}

impl Default for Users {
    fn default() -> Self {
        Self::of(|_| false)
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Users")
    }
}

/// One of the two ways in.
#[derive(Debug)]
pub(crate) enum Listener {
    /// Anybody on the machine can connect.
    Port(TcpListener),
    /// Only the harness can.
    Socket(UnixListener),
}

/// A connection that somebody made.
enum Stream {
    Port(TcpStream),
    Socket(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Port(listener) => Ok(Stream::Port(listener.accept().await?.0)),
            Self::Socket(listener) => Ok(Stream::Socket(listener.accept().await?.0)),
        }
    }
}

/// Serves until it is told to stop.
pub(crate) async fn serve(listener: Listener, door: Arc<Door>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the gateway was lost");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (door, stop) = (Arc::clone(&door), stop.clone());
        match stream {
            Stream::Port(stream) => {
                // It only makes small pieces wait; without it they come all the same.
                let _slower = stream.set_nodelay(true);
                drop(tokio::spawn(door.talk(stream, false, place, stop)));
            }
            Stream::Socket(stream) if is_known(&stream, &door.users) => {
                drop(tokio::spawn(door.talk(stream, true, place, stop)));
            }
            Stream::Socket(_) => door.denials.note("socket", "the peer is another user").await,
        }
    }
}

/// Whether the program at the other end is of our user, or one of those. The directory of the
/// socket lets nobody else in; a descriptor can be handed on.
fn is_known(stream: &UnixStream, users: &Users) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || (users.0)(peer.uid()))
}

impl Door {
    /// Answers the requests of a connection.
    async fn talk(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        by_socket: bool,
        place: OwnedSemaphorePermit,
        stop: CancellationToken,
    ) {
        let _place = place;
        let service = service_fn(|request| {
            let door = Arc::clone(&self);
            async move { Ok::<_, Infallible>(door.answer(request, by_socket).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_MAX)
            .max_buf_size(HEAD_BYTES_MAX * 4)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = connection => ended,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection of a harness broke");
            if error.is_parse() {
                self.denials.note("", &format!("not HTTP: {error}")).await;
            }
        }
    }

    /// Answers a request; what is refused is noted.
    async fn answer(&self, request: Request<Incoming>, by_socket: bool) -> Response<Body> {
        let uri = request.uri();
        let place = uri.authority().map_or("", |authority| authority.as_str());
        let route = format!("{} {place}{}", request.method(), uri.path());
        let mut answer = self.let_in(request, by_socket).await;
        if let Some(Noted(reason)) = answer.extensions_mut().remove() {
            self.denials.note(&route, &reason).await;
        }
        answer
    }

    async fn let_in(&self, request: Request<Incoming>, by_socket: bool) -> Response<Body> {
        let proof = Proof { placeholder: &self.placeholder, by_socket };
        if egress::is_for_proxy(&request) {
            let holds = proof.is_password_in(request.headers());
            return self.egress.answer(request, holds).await;
        }
        let target = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let holds = proof.is_in(request.headers(), target);
        let path = request.uri().path();
        // A path that is not plain is for nobody: whoever reads it next may read it otherwise.
        let plain = !path.contains("//") && !path.contains("/.") && !path.contains(['%', '\\']);
        let first = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        match first {
            Some(("mcp", name)) if plain && self.tools.has(name) => {
                let name = name.to_owned();
                self.tool(&name, request, holds).await
            }
            // Here names of sessions are segments, whatever they contain.
            Some((INTERFACE, _)) if self.records.is_some() => self.record(request, holds).await,
            Some((name, _)) if plain && self.models.has(name) => {
                let (head, body) = request.into_parts();
                self.models.answer(head, body, holds).await.map(UnsyncBoxBody::new)
            }
            _ => deny(StatusCode::NOT_FOUND, "this is no route of the gateway"),
        }
    }

    async fn record(&self, request: Request<Incoming>, holds: bool) -> Response<Body> {
        if !holds {
            return deny(StatusCode::UNAUTHORIZED, WRONG_KEY);
        }
        let answer = match &self.records {
            Some(records) => records.answer(request).await,
            None => None,
        };
        let Some(mut answer) = answer else {
            return deny(StatusCode::SERVICE_UNAVAILABLE, "the attempt is over, or not begun");
        };
        if answer.status() == StatusCode::FORBIDDEN {
            let reason = "a harness reaches records of sessions that its manifest names";
            drop(answer.extensions_mut().insert(Noted(reason.into())));
        }
        answer
    }

    async fn tool(&self, name: &str, request: Request<Incoming>, holds: bool) -> Response<Body> {
        if !holds {
            return deny(StatusCode::UNAUTHORIZED, WRONG_KEY);
        }
        match self.tools.answer(name, request).await {
            Some(answer) => {
                answer.map(|body| UnsyncBoxBody::new(body.map_err(|never| match never {})))
            }
            None => deny(StatusCode::NOT_FOUND, "there is no such tool server"),
        }
    }
}

fn deny(status: StatusCode, message: &str) -> Response<Body> {
    let text = serde_json::json!({"error": {"message": message}}).to_string();
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {});
    let mut response = Response::new(UnsyncBoxBody::new(body));
    *response.status_mut() = status;
    drop(response.extensions_mut().insert(Noted(message.into())));
    response
}
