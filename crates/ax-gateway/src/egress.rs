//! The way out for everything else: an explicit HTTP proxy that lets nothing through but what the
//! manifest names. Tunnels (`CONNECT`, RFC 9110 §9.3.6) stay closed to it: their TLS is the
//! harness' own. Names are resolved here, once, and the connection goes to the address that was
//! checked: whoever answers for a name cannot have it mean another one a moment later.

mod address;
mod rule;
#[cfg(test)]
mod tests;

use crate::denials::Noted;
use crate::session::{KEY_PREFIX, Session};
use ax_core::session::{Body as Content, Frame, StepKey};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{self, HeaderName};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::io::{InspectReader, InspectWriter};
use tokio_util::sync::CancellationToken;

pub(crate) use rule::EgressRule;

/// How many connections of an attempt may be open.
const OPEN_MAX: usize = 256;
/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// How many refusals of an attempt are recorded; the rest is counted.
const DENIED_MAX: usize = 64;
/// How many places an attempt reaches that are recorded each.
const PLACES_MAX: usize = 256;
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
    rules: Vec<EgressRule>,
    resolve: Resolve,
    session: Arc<Session>,
    stop: CancellationToken,
    seen: Mutex<Seen>,
    open: Arc<Semaphore>,
}

/// What is noted of an attempt.
#[derive(Debug, Default)]
struct Seen {
    denied: BTreeSet<String>,
    denied_count: u64,
    places: BTreeMap<String, Arc<Traffic>>,
    others: Arc<Traffic>,
    /// It was noted.
    summed_up: bool,
}

/// What went to and came from a place.
#[derive(Debug, Default)]
struct Traffic {
    connections: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

/// A connection to a place, counted, and its turn among those that are open.
struct Out {
    stream: Counted,
    turn: OwnedSemaphorePermit,
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
        f.debug_struct("Egress").field("rules", &self.rules).finish_non_exhaustive()
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

impl Egress {
    pub(crate) fn new(
        rules: Vec<EgressRule>,
        resolve: Resolve,
        session: Arc<Session>,
        stop: CancellationToken,
    ) -> Self {
        let open = Arc::new(Semaphore::new(OPEN_MAX));
        Self { rules, resolve, session, stop, seen: Mutex::default(), open }
    }

    /// Answers a request that wants to go out. `holds` says whether it has shown whose it is.
    pub(crate) async fn answer(&self, request: Request<Incoming>, holds: bool) -> Response<Body> {
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
        match self.connect(&method, &place).await {
            Ok(out) if method == Method::CONNECT => self.tunnel(request, out),
            Ok(out) => self.forward(request, out, &place).await,
            Err(denied) => {
                self.denied(&method, &place, &denied).await;
                let status = match denied {
                    Denied::NotNamed(_) | Denied::Private(_) => StatusCode::FORBIDDEN,
                    Denied::Unknown(_) | Denied::Unreachable(_) => StatusCode::BAD_GATEWAY,
                    Denied::Crowded | Denied::Over => StatusCode::SERVICE_UNAVAILABLE,
                };
                refuse(status, &denied.to_string())
            }
        }
    }

    /// Connects to a place, if it may be reached.
    async fn connect(&self, method: &Method, place: &Place) -> Result<Out, Denied> {
        let rule = self.rules.iter().find(|rule| rule.lets(method, &place.host, place.port));
        let rule = rule.ok_or_else(|| Denied::NotNamed(format!("{method} {place}")))?;
        if !self.session.may_act() || self.session.is_closing() {
            return Err(Denied::Over);
        }
        let turn = Arc::clone(&self.open).try_acquire_owned().map_err(|_| Denied::Crowded)?;
        let resolved = timeout(CONNECT_MAX, (self.resolve)(place.host.clone(), place.port)).await;
        let resolved = match resolved {
            Ok(Ok(addresses)) if !addresses.is_empty() => addresses,
            _ => return Err(Denied::Unknown(place.host.clone())),
        };
        let is_open = |address: &&SocketAddr| rule.private || address::is_public(address.ip());
        let mut last = Denied::Private(place.to_string());
        for address in resolved.iter().filter(is_open) {
            match timeout(CONNECT_MAX, TcpStream::connect(address)).await {
                // One's own address is no way around.
                Ok(Ok(stream)) if !rule.private && is_own(&stream) => {
                    last = Denied::Private(place.to_string());
                }
                Ok(Ok(stream)) => {
                    let stream = counted(stream, &self.reached(place).await);
                    return Ok(Out { stream, turn });
                }
                Ok(Err(error)) => last = Denied::Unreachable(format!("{place}: {error}")),
                Err(_) => last = Denied::Unreachable(format!("{place} does not answer")),
            }
        }
        Err(last)
    }

    fn tunnel(&self, request: Request<Incoming>, out: Out) -> Response<Body> {
        let stop = self.stop.clone();
        drop(tokio::spawn(async move {
            let Out { mut stream, turn } = out;
            let _turn = turn;
            let Ok(harness) = hyper::upgrade::on(request).await else { return };
            let mut harness = TokioIo::new(harness);
            tokio::select! {
                () = stop.cancelled() => {}
                _over = tokio::io::copy_bidirectional(&mut harness, &mut stream) => {}
            }
        }));
        let nothing = Empty::new().map_err(|never| match never {});
        Response::new(UnsyncBoxBody::new(nothing))
    }

    async fn forward(&self, request: Request<Incoming>, out: Out, place: &Place) -> Response<Body> {
        let unreachable = |error: &dyn std::error::Error| {
            refuse(StatusCode::BAD_GATEWAY, &format!("{place}: {error}"))
        };
        let Out { stream, turn } = out;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = match handshake {
            Ok(made) => made,
            Err(error) => return unreachable(&error),
        };
        let stop = self.stop.clone();
        drop(tokio::spawn(async move {
            let _turn = turn;
            tokio::select! {
                () = stop.cancelled() => {}
                _over = connection => {}
            }
        }));
        match sender.send_request(sent_on(request, place)).await {
            Ok(answer) => {
                let (mut head, body) = answer.into_parts();
                for name in &OF_CONNECTION {
                    head.headers.remove(name);
                }
                Response::from_parts(head, UnsyncBoxBody::new(body.map_err(io::Error::other)))
            }
            Err(error) => unreachable(&error),
        }
    }

    /// Records that a place is reached, once.
    async fn reached(&self, place: &Place) -> Arc<Traffic> {
        let name = place.to_string();
        let (is_new, traffic) = {
            let mut seen = self.seen();
            let is_new = !seen.places.contains_key(&name) && seen.places.len() < PLACES_MAX;
            if is_new {
                drop(seen.places.insert(name.clone(), Arc::default()));
            }
            // What is more than can be listed is counted together.
            let listed = seen.places.get(&name).unwrap_or(&seen.others);
            (is_new, Arc::clone(listed))
        };
        traffic.connections.fetch_add(1, Ordering::Relaxed);
        if is_new {
            let data = json!({"host": place.host, "port": place.port});
            self.note("egress", &name, &data).await;
        }
        traffic
    }

    /// Records what was refused, once for each place and method.
    async fn denied(&self, method: &Method, place: &Place, denied: &Denied) {
        let name = format!("{method} {place}");
        let is_new = {
            let mut seen = self.seen();
            seen.denied_count += 1;
            seen.denied.len() < DENIED_MAX && seen.denied.insert(name.clone())
        };
        if is_new {
            let why = denied.to_string();
            let method = method.as_str();
            let data =
                json!({"method": method, "host": place.host, "port": place.port, "why": why});
            self.note("egress_denied", &name, &data).await;
        }
    }

    async fn note(&self, what: &str, name: &str, data: &Value) {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        let key = StepKey::from(format!("{KEY_PREFIX}{what}:{}", &hash[..32]));
        let (name, data) = (format!("gateway.{what}"), Content::Text(data.to_string()));
        // That nobody listens any more ends the attempt elsewhere.
        let _gone = self.session.say(Frame::Note { key: Some(key), name, data }).await;
    }

    /// Notes how much went where until now. Called when the attempt is over.
    pub(crate) async fn sum_up(&self) {
        let data = {
            let seen = self.seen();
            if seen.summed_up || (seen.places.is_empty() && seen.denied_count == 0) {
                return;
            }
            let places = seen.places.iter().map(|(place, traffic)| traffic.json(place));
            let others = Some(&seen.others).filter(|others| others.any());
            let others = others.map(|others| others.json("others"));
            let places: Vec<_> = places.chain(others).collect();
            json!({"places": places, "denied": seen.denied_count})
        };
        let (name, data) = ("gateway.traffic".to_owned(), Content::Text(data.to_string()));
        let said = self.session.say(Frame::Note { key: None, name, data }).await;
        // Who waits for this may be called away before it is said.
        self.seen().summed_up = said.is_ok();
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Traffic {
    fn any(&self) -> bool {
        self.connections.load(Ordering::Relaxed) > 0
    }

    fn json(&self, place: &str) -> Value {
        let [connections, sent, received] = [&self.connections, &self.sent, &self.received]
            .map(|count| count.load(Ordering::Relaxed));
        json!({"place": place, "connections": connections, "sent": sent, "received": received})
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

/// Writes a request as its server wants it: the path alone, and the host as it was checked.
fn sent_on(request: Request<Incoming>, place: &Place) -> Request<Incoming> {
    let (mut head, body) = request.into_parts();
    let named: Vec<HeaderName> = head
        .headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in OF_CONNECTION.iter().chain(&named) {
        head.headers.remove(name);
    }
    let host = match place.port {
        80 => place.bracketed(),
        _ => place.to_string(),
    };
    if let Ok(host) = host.parse() {
        drop(head.headers.insert(header::HOST, host));
    }
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
    Request::from_parts(head, body)
}

fn refuse(status: StatusCode, message: &str) -> Response<Body> {
    let text = json!({"error": {"message": message}}).to_string();
    let body = http_body_util::Full::new(Bytes::from(text)).map_err(|never| match never {});
    let mut response = Response::new(UnsyncBoxBody::new(body));
    *response.status_mut() = status;
    response
}
