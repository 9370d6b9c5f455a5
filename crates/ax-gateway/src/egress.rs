//! The way out for everything else: an explicit HTTP proxy that lets nothing through but what the
//! manifest names. Tunnels (`CONNECT`, RFC 9110 §9.3.6) stay closed to it: their TLS is the
//! harness' own, but for hosts to whose requests the manifest adds credentials (`open.rs`). Names
//! are resolved here, once, and the connection goes to the address that was
//! checked: whoever answers for a name cannot have it mean another one a moment later.

mod address;
mod authority;
mod forward;
mod inject;
mod notes;
mod open;
mod rule;
#[cfg(test)]
mod tests;
mod trust;

use crate::denials::Noted;
use crate::gateway::OpenError;
use crate::session::Session;
use bytes::Bytes;
use forward::{answered, sent_on};
use futures::future::BoxFuture;
use http::header::{self, HeaderName};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use inject::Credential;
use notes::{Exchange, Notes, Traffic};
use open::Opened;
use rule::Way;
use serde_json::json;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::io::{InspectReader, InspectWriter};
use tokio_util::sync::CancellationToken;
use trust::{Roots, Trust, system_roots};

pub(crate) use rule::EgressRule;
pub(crate) use trust::Files;

/// How many connections of an attempt may be open.
const OPEN_MAX: usize = 256;
/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// How many refusals of an attempt are recorded; the rest is counted.
const DENIED_MAX: usize = 64;
/// How many places an attempt reaches that are recorded each.
const PLACES_MAX: usize = 256;
/// How many requests of an attempt are recorded each; the rest is counted.
const REQUESTS_MAX: u64 = 256;
/// Headers that belong to a connection and are not sent on (RFC 9110 §7.6.1).
const OF_CONNECTION: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Finds the addresses of a name.
pub(crate) type Resolve =
    Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The body of what a harness gets.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The proxy of one attempt.
pub(crate) struct Egress {
    rules: Rules,
    resolve: Resolve,
    session: Arc<Session>,
    stop: CancellationToken,
    notes: Arc<Notes>,
    open: Arc<Semaphore>,
}

/// Where a harness may go, and what is added to its requests.
pub(crate) struct Rules {
    /// Those that add something first.
    rules: Vec<Ready>,
    trust: Option<Trust>,
}

/// A rule, and what it adds.
struct Ready {
    rule: EgressRule,
    credential: Option<Box<Credential>>,
}

/// A connection to a place, its address, and its turn among those that are open.
struct Out {
    /// Until it is used.
    stream: Option<Counted>,
    address: SocketAddr,
    traffic: Arc<Traffic>,
    turn: Option<OwnedSemaphorePermit>,
}

type Count = Box<dyn Fn(&[u8]) + Send>;
type Counted = InspectReader<InspectWriter<TcpStream, Count>, Count>;

/// Why something is not let through.
#[derive(Debug, thiserror::Error)]
enum Denied {
    #[error("the manifest does not let {0} through")]
    NotNamed(String),
    #[error("{0} is an address of this machine or of a private network")]
    Private(String),
    #[error("there is no address for {0}")]
    Unknown(String),
    #[error("{0}")]
    Unreachable(String),
    #[error("{OPEN_MAX} connections are open, which is the most")]
    Crowded,
    #[error("the attempt may not act any more")]
    Over,
    #[error("the request is for another host than its tunnel: {0}")]
    Elsewhere(String),
    #[error("{0}")]
    Broken(String),
    #[error("where credentials are added, no other protocol can follow HTTP")]
    Upgrade,
    #[error("where credentials are added, {0} is not let through")]
    Shows(Method),
}

impl Denied {
    const fn status(&self) -> StatusCode {
        match self {
            Self::NotNamed(_) | Self::Private(_) => StatusCode::FORBIDDEN,
            Self::Unknown(_) | Self::Unreachable(_) | Self::Broken(_) => StatusCode::BAD_GATEWAY,
            Self::Crowded | Self::Over => StatusCode::SERVICE_UNAVAILABLE,
            Self::Elsewhere(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::Upgrade => StatusCode::NOT_IMPLEMENTED,
            Self::Shows(_) => StatusCode::METHOD_NOT_ALLOWED,
        }
    }
}

/// Where a request wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
}

impl Place {
    /// The host as addresses have it: of version 6 in brackets.
    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.bracketed(), self.port)
    }
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Egress").finish_non_exhaustive()
    }
}

/// Asks the system for the addresses of a name.
pub(crate) fn system_resolver() -> Resolve {
    Arc::new(|host, port| {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    })
}

/// Whether a request is for the proxy and not for a route of the gateway.
pub(crate) fn is_for_proxy(request: &Request<Incoming>) -> bool {
    request.method() == Method::CONNECT || request.uri().scheme().is_some()
}

impl Rules {
    /// Reads the secrets that rules name, and makes certificates for the hosts whose tunnels are
    /// opened. The files that vouch for them are written below `dir`, and gone when they are
    /// dropped. Blocks.
    ///
    /// # Errors
    ///
    /// Fails without a secret, or if the certificates cannot be made.
    pub(crate) fn open(
        rules: Vec<EgressRule>,
        roots: impl FnOnce() -> Roots,
        dir: &Path,
    ) -> Result<(Self, Option<Files>), OpenError> {
        let hosts: BTreeSet<&str> = rules
            .iter()
            .filter(|rule| rule.scheme() == Some(inject::Scheme::Https))
            .map(|rule| rule.host.as_str())
            .collect();
        let made = (!hosts.is_empty()).then(|| Trust::open(&hosts, &roots(), dir)).transpose();
        let (trust, files) = made.map_err(|source| OpenError::Trust { source })?.unzip();
        let ready = |rule: EgressRule| {
            let inject = rule.inject.as_ref();
            let credential = inject.map(|inject| inject.credential(&rule.host)).transpose()?;
            Ok(Ready { rule, credential: credential.map(Box::new) })
        };
        let mut rules: Vec<_> = rules.into_iter().map(ready).collect::<Result<_, OpenError>>()?;
        rules.sort_by_key(|ready| ready.credential.is_none());
        Ok((Self { rules, trust }, files))
    }
}

/// Makes the rules of a manifest ready, with what the system believes; see [`Rules::open`].
pub(crate) async fn open(
    rules: Vec<EgressRule>,
    dir: PathBuf,
) -> Result<(Rules, Option<Files>), OpenError> {
    let opened = tokio::task::spawn_blocking(move || Rules::open(rules, system_roots, &dir)).await;
    opened.unwrap_or_else(|error| Err(OpenError::Trust { source: io::Error::other(error) }))
}

impl Egress {
    pub(crate) fn new(
        rules: Rules,
        resolve: Resolve,
        session: Arc<Session>,
        stop: CancellationToken,
    ) -> Self {
        let open = Arc::new(Semaphore::new(OPEN_MAX));
        let notes = Arc::new(Notes::new(Arc::clone(&session)));
        Self { rules, resolve, session, stop, notes, open }
    }

    /// Answers a request that wants to go out. `holds` says whether it has shown whose it is.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        holds: bool,
    ) -> Response<Body> {
        if !holds {
            let message = "this is not the password that the runtime gave to this harness";
            let mut answer = refuse(StatusCode::PROXY_AUTHENTICATION_REQUIRED, message);
            let challenge = http::HeaderValue::from_static("Basic realm=\"gateway\"");
            answer.headers_mut().insert(header::PROXY_AUTHENTICATE, challenge);
            drop(answer.extensions_mut().insert(Noted(message.into())));
            return answer;
        }
        let Some(place) = place(&request) else {
            return refuse(StatusCode::BAD_REQUEST, "the request names no host");
        };
        let method = request.method().clone();
        let answer = match method {
            Method::CONNECT => self.tunnel(request, &place).await,
            _ => self.forward(request, &place).await,
        };
        match answer {
            Ok(answer) => answer,
            Err(denied) => {
                self.notes.denied(&method, &place, &denied).await;
                refusal(&denied)
            }
        }
    }

    /// Returns the rule that lets a request through.
    fn rule(&self, way: Way, method: &Method, place: &Place) -> Result<&Ready, Denied> {
        let lets = |ready: &&Ready| ready.rule.lets(way, method, &place.host, place.port);
        let ready = self.rules.rules.iter().find(lets);
        let ready = ready.ok_or_else(|| Denied::NotNamed(format!("{method} {place}")))?;
        // Its answer is the request, with all that was added; some servers heed small letters.
        if ready.credential.is_some() && method.as_str().eq_ignore_ascii_case("TRACE") {
            return Err(Denied::Shows(method.clone()));
        }
        if !self.session.may_act() || self.session.is_closing() {
            return Err(Denied::Over);
        }
        Ok(ready)
    }

    /// Connects to a place that may be reached.
    async fn connect(&self, rule: &EgressRule, place: &Place) -> Result<Out, Denied> {
        let turn = Arc::clone(&self.open).try_acquire_owned().map_err(|_| Denied::Crowded)?;
        let resolved = timeout(CONNECT_MAX, (self.resolve)(place.host.clone(), place.port)).await;
        let resolved = match resolved {
            Ok(Ok(addresses)) if !addresses.is_empty() => addresses,
            _ => return Err(Denied::Unknown(place.host.clone())),
        };
        let is_open = |address: &SocketAddr| rule.private || address::is_public(address.ip());
        let mut last = Denied::Private(place.to_string());
        for address in resolved.into_iter().filter(is_open) {
            match dial(address, place).await {
                // One's own address is no way around.
                Ok(stream) if !rule.private && is_own(&stream) => {
                    last = Denied::Private(place.to_string());
                }
                Ok(stream) => {
                    let opened = rule.opens(&place.host, place.port);
                    let traffic = self.notes.reached(place, opened).await;
                    let stream = Some(counted(stream, &traffic));
                    return Ok(Out { stream, address, traffic, turn: Some(turn) });
                }
                Err(denied) => last = denied,
            }
        }
        Err(last)
    }

    /// Returns the connection of a tunnel that is opened, or another to the same address.
    async fn stream(&self, out: &Mutex<Out>, place: &Place) -> Result<Counted, Denied> {
        let (address, traffic) = {
            let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(stream) = out.stream.take() {
                return Ok(stream);
            }
            (out.address, Arc::clone(&out.traffic))
        };
        let stream = dial(address, place).await?;
        traffic.connected();
        Ok(counted(stream, &traffic))
    }

    async fn tunnel(
        self: &Arc<Self>,
        request: Request<Incoming>,
        place: &Place,
    ) -> Result<Response<Body>, Denied> {
        let opens = |ready: &&Ready| ready.rule.opens(&place.host, place.port);
        let stop = self.stop.clone();
        if let Some(ready) = self.rules.rules.iter().find(opens)
            && let Some(trust) = &self.rules.trust
            && let Some(server) = trust.hosts.get(&place.host).cloned()
        {
            if !self.session.may_act() || self.session.is_closing() {
                return Err(Denied::Over);
            }
            let mut out = self.connect(&ready.rule, place).await?;
            let turn = out.turn.take();
            let opened = Opened {
                egress: Arc::clone(self),
                place: place.clone(),
                client: Arc::clone(&trust.client),
                out: Mutex::new(out),
                idle: Mutex::default(),
            };
            drop(tokio::spawn(async move {
                let _turn = turn;
                let Ok(harness) = hyper::upgrade::on(request).await else { return };
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = opened.serve(harness, server) => {}
                }
            }));
            return Ok(nothing());
        }
        let ready = self.rule(Way::Tunnel, request.method(), place)?;
        let Out { stream, turn, .. } = self.connect(&ready.rule, place).await?;
        drop(tokio::spawn(async move {
            let (_turn, Some(mut stream)) = (turn, stream) else { return };
            let Ok(harness) = hyper::upgrade::on(request).await else { return };
            let mut harness = TokioIo::new(harness);
            tokio::select! {
                () = stop.cancelled() => {}
                _over = tokio::io::copy_bidirectional(&mut harness, &mut stream) => {}
            }
        }));
        Ok(nothing())
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
        place: &Place,
    ) -> Result<Response<Body>, Denied> {
        let broken = |error: hyper::Error| Denied::Unreachable(format!("{place}: {error}"));
        let ready = self.rule(Way::Plain, request.method(), place)?;
        let Out { stream, turn, .. } = self.connect(&ready.rule, place).await?;
        let stream = stream.expect("a new connection is not used yet");
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(broken)?;
        let stop = self.stop.clone();
        drop(tokio::spawn(async move {
            let _turn = turn;
            tokio::select! {
                () = stop.cancelled() => {}
                _over = connection => {}
            }
        }));
        let credential = ready.credential.as_deref();
        let exchange = self.exchange(&request, place, credential);
        let request = sent_on(request, place, 80, credential, &exchange);
        let answer = sender.send_request(request).await.map_err(broken)?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Denied::Upgrade);
        }
        Ok(answered(answer, credential, exchange))
    }

    fn exchange(
        &self,
        request: &Request<Incoming>,
        place: &Place,
        credential: Option<&Credential>,
    ) -> Exchange {
        let path = request.uri().path();
        let path = credential.map_or_else(|| path.to_owned(), |known| known.hide_in(path));
        self.notes.exchange(request.method(), place, &path, credential.is_some())
    }

    /// Notes how much went where until now. Called when the attempt is over.
    pub(crate) async fn sum_up(&self) {
        self.notes.sum_up().await;
    }
}

async fn dial(address: SocketAddr, place: &Place) -> Result<TcpStream, Denied> {
    match timeout(CONNECT_MAX, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Denied::Unreachable(format!("{place}: {error}"))),
        Err(_) => Err(Denied::Unreachable(format!("{place} does not answer"))),
    }
}

/// Counts what goes through a connection.
fn counted(stream: TcpStream, traffic: &Arc<Traffic>) -> Counted {
    let (sent, received) = (Arc::clone(traffic), Arc::clone(traffic));
    let add = |counter: &AtomicU64, bytes: &[u8]| {
        counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    };
    let on_write: Count = Box::new(move |bytes| add(&sent.sent, bytes));
    let on_read: Count = Box::new(move |bytes| add(&received.received, bytes));
    InspectReader::new(InspectWriter::new(stream, on_write), on_read)
}

/// Whether both ends of a connection are this machine.
fn is_own(stream: &TcpStream) -> bool {
    let (own, peer) = (stream.local_addr(), stream.peer_addr());
    own.is_ok_and(|own| peer.is_ok_and(|peer| own.ip() == peer.ip()))
}

/// Reads where a request wants to go; a place that is not plain is none.
fn place(request: &Request<Incoming>) -> Option<Place> {
    let uri = request.uri();
    let (authority, default) = match uri.scheme() {
        None => (uri.authority()?, None),
        Some(scheme) if *scheme == Scheme::HTTP => (uri.authority()?, Some(80)),
        Some(_) => return None,
    };
    of_authority(authority, default)
}

fn of_authority(authority: &Authority, default: Option<u16>) -> Option<Place> {
    if authority.as_str().contains('@') {
        return None;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let port = authority.port_u16().or(default)?;
    (!host.is_empty()).then_some(Place { host, port })
}

fn nothing() -> Response<Body> {
    Response::new(UnsyncBoxBody::new(Empty::new().map_err(|never| match never {})))
}

fn refusal(denied: &Denied) -> Response<Body> {
    refuse(denied.status(), &denied.to_string())
}

fn refuse(status: StatusCode, message: &str) -> Response<Body> {
    let text = json!({"error": {"message": message}}).to_string();
    let body = http_body_util::Full::new(Bytes::from(text)).map_err(|never| match never {});
    let mut response = Response::new(UnsyncBoxBody::new(body));
    *response.status_mut() = status;
    response
}
