//! A guarded server with two tenants.

use super::{Answer, MANIFEST, World};
use ax_core::id::Namespace;
use ax_core::time::Timestamp;
use ax_engine::{Clock as _, Info, SystemClock};
use ax_server::Options;
use ax_server::auth::{Auth, Keys, NewKey, Role, Settings, Shared, Shares};
use ax_server::ops::Metrics;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use prost::Message as _;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A session that nobody ever made.
pub(crate) const NOBODYS: &str = "ses_0123456789abcdef0123456789abcdef";

/// A guarded server with two tenants, and keys of all kinds.
pub(crate) struct Guarded {
    pub(crate) world: World,
    pub(crate) auth: Arc<Auth>,
    pub(crate) keys: Keys,
    pub(crate) shares: Shares,
    pub(crate) root: String,
    /// A session of the namespace `theirs`.
    pub(crate) session: String,
    pub(crate) dir: TempDir,
    metrics: Arc<Metrics>,
}

impl Guarded {
    /// The settings hold once the tenants are there; most tests fail to get in often.
    pub(crate) async fn new(mut settings: Settings) -> Self {
        if settings.limits == Settings::default().limits {
            settings.limits.failures_per_second = 10_000;
        }
        let dir = tempfile::tempdir().unwrap();
        let auth = Auth::open(dir.path(), Settings::default()).unwrap();
        let metrics = Arc::new(Metrics::new());
        let options = Options {
            guard: Some(auth.guard()),
            metrics: Some(Arc::clone(&metrics)),
            ..Options::default()
        };
        let world = World::with(options, false).await;
        let (keys, shares) = (Keys::of(dir.path()), Shares::of(dir.path()));
        let root = key(&keys, "root", Role::Admin, None, None);
        let session = String::new();
        let mut guarded = Self { world, auth, keys, shares, root, session, dir, metrics };
        for namespace in ["theirs", "mine"] {
            let body = json!({"manifest": MANIFEST, "namespace": namespace});
            let applied = guarded.send(&guarded.root, "POST", "/v1/agents", Some(&body)).await;
            assert_eq!(applied.status, 200, "{applied:?}");
            let body = submission(namespace);
            let sent = guarded.send(&guarded.root, "POST", "/v1/inputs", Some(&body)).await;
            guarded.session = sent.json()["session"].as_str().unwrap().to_owned();
            if namespace == "theirs" {
                continue;
            }
        }
        let listed = guarded.send(&guarded.root, "GET", "/v1/sessions?namespace=theirs", None);
        let listed = listed.await.json();
        guarded.session = listed["sessions"][0]["id"].as_str().unwrap().to_owned();
        guarded.auth.reload(settings).unwrap();
        guarded
    }

    /// What the server has counted.
    pub(crate) fn counted(&self) -> String {
        self.metrics.text(&Info::default(), 0)
    }

    pub(crate) fn key(&self, name: &str, role: Role, namespace: Option<&str>) -> String {
        key(&self.keys, name, role, namespace, None)
    }

    pub(crate) fn share(&self, session: &str, expires_at: Timestamp) -> String {
        let namespace = Namespace::new("theirs").unwrap();
        let session = session.parse().unwrap();
        self.shares.make(&Shared { namespace, session, expires_at }).unwrap()
    }

    pub(crate) async fn send(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Answer {
        let lines = match token {
            "" => String::new(),
            token => format!("authorization: Bearer {token}\r\n"),
        };
        let kind = if body.is_some() { "content-type: application/json\r\n" } else { "" };
        let body = body.map(Value::to_string).unwrap_or_default();
        self.world.send(method, path, &format!("{lines}{kind}"), body.as_bytes()).await
    }

    /// Calls a method with a message; returns the status, the message and the code. A stream that
    /// was begun has none of them.
    pub(crate) async fn call(&self, token: &str, path: &str, message: &[u8]) -> Said {
        self.call_in(token, "", path, message).await
    }

    /// The same, and the header of the AX wire names a namespace.
    pub(crate) async fn call_in(
        &self,
        token: &str,
        namespace: &str,
        path: &str,
        message: &[u8],
    ) -> Said {
        let mut call = self.begin(token, namespace, path).await;
        call.say(message, true);
        let streams = STREAMS.iter().any(|name| path.ends_with(name));
        if streams && !call.head().await.contains_key("grpc-status") {
            return Said::default();
        }
        call.end().await
    }

    /// Begins a call.
    pub(crate) async fn begin(&self, token: &str, namespace: &str, path: &str) -> Call {
        Call::begin(self.world.address, token, namespace, path).await
    }
}

/// The methods that answer for as long as the client likes.
const STREAMS: [&str; 5] =
    ["/Follow", "/Exec", "/CreateInteraction", "/Watch", "/ServerReflectionInfo"];

/// How a call ended: the status, the message, the code.
pub(crate) type Said = (String, String, String);

/// A call on its way.
pub(crate) struct Call {
    driver: JoinHandle<Result<(), h2::Error>>,
    sender: h2::SendStream<Bytes>,
    answer: Option<h2::client::ResponseFuture>,
    headers: HeaderMap,
    body: Option<h2::RecvStream>,
    /// What came of messages that are not yet whole or asked for.
    unread: BytesMut,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Call {
    /// Begins a call over a connection of its own.
    pub(crate) async fn begin(
        address: SocketAddr,
        token: &str,
        namespace: &str,
        path: &str,
    ) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let mut request = http::Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if !namespace.is_empty() {
            request = request.header("ax-namespace", namespace);
        }
        let request = request.body(()).unwrap();
        let (answer, sender) = client.send_request(request, false).unwrap();
        Self {
            driver,
            sender,
            answer: Some(answer),
            headers: HeaderMap::new(),
            body: None,
            unread: BytesMut::new(),
        }
    }

    /// Sends a message, perhaps the last.
    pub(crate) fn say(&mut self, message: &[u8], last: bool) {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        // A server that has refused already need not read on.
        drop(self.sender.send_data([&[0], &length[..], message].concat().into(), last));
    }

    /// Sends the beginning of a message and no more.
    pub(crate) fn say_half(&mut self) {
        drop(self.sender.send_data(Bytes::from_static(&[0, 0, 0, 0, 99, 10]), false));
    }

    async fn head(&mut self) -> &HeaderMap {
        if let Some(answer) = self.answer.take() {
            let (head, body) = answer.await.unwrap().into_parts();
            (self.headers, self.body) = (head.headers, Some(body));
        }
        &self.headers
    }

    /// The next piece of the answer, which is a message if it is small.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        self.head().await;
        let body = self.body.as_mut().unwrap();
        let data = body.data().await?.ok()?;
        body.flow_control().release_capacity(data.len()).unwrap();
        Some(data.slice(5.min(data.len())..))
    }

    /// The next message of the answer, however many come in one piece.
    pub(crate) async fn message(&mut self) -> Option<Bytes> {
        loop {
            if let Some((head, rest)) = self.unread.split_first_chunk::<5>() {
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if rest.len() >= length {
                    let message = self.unread.split_to(5 + length).freeze();
                    return Some(message.slice(5..));
                }
            }
            self.head().await;
            let body = self.body.as_mut().unwrap();
            let data = body.data().await?.ok()?;
            body.flow_control().release_capacity(data.len()).unwrap();
            self.unread.extend_from_slice(&data);
        }
    }

    /// Reads to the end.
    pub(crate) async fn end(mut self) -> Said {
        while self.next().await.is_some() {}
        let trailers = self.body.as_mut().unwrap().trailers().await.unwrap();
        self.headers.extend(trailers.unwrap_or_default());
        let text = |name: &str| {
            let value = self.headers.get(name);
            value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        let details = base64(&text("ax-error-bin"));
        let details = ax_proto::v1::Error::decode(&details[..]).unwrap();
        (text("grpc-status"), details.message, details.code)
    }
}

fn base64(text: &str) -> Vec<u8> {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::STANDARD_NO_PAD.decode(text.trim_end_matches('=')).unwrap()
}

pub(crate) fn key(
    keys: &Keys,
    name: &str,
    role: Role,
    namespace: Option<&str>,
    expires_at: Option<Timestamp>,
) -> String {
    let namespace = namespace.map(|name| Namespace::new(name).unwrap());
    let new = NewKey { name: name.into(), role, namespace, expires_at };
    keys.create(new, SystemClock.now()).unwrap().text
}

pub(crate) fn submission(namespace: &str) -> Value {
    let part = json!({"kind": "PART_KIND_TEXT", "mediaType": "text/plain",
        "body": {"text": "hello"}});
    json!({"agent": "done", "namespace": namespace, "parts": [part]})
}

/// All operations of the HTTP side, as the server itself describes them.
pub(crate) async fn operations(guarded: &Guarded) -> Vec<(String, String)> {
    let document = guarded.send(&guarded.root, "GET", "/v1/openapi.json", None).await.json();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().filter(|name| *name != "parameters") {
            operations.push((method.to_uppercase(), path.clone()));
        }
    }
    assert!(operations.len() >= 25, "{operations:?}");
    operations
}

/// Sends a request whose header lines say how long its body is; returns all that comes back.
pub(crate) async fn as_it_is(
    guarded: &Guarded,
    method: &str,
    path: &str,
    lines: &str,
    body: &str,
) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = TcpStream::connect(guarded.world.address).await.unwrap();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{lines}\r\n");
    // A server that has refused already need not read on.
    drop(stream.write_all(format!("{head}{body}").as_bytes()).await);
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The method that needs nothing.
pub(crate) const FREE: &str = "/grpc.health.v1.Health/Check";

/// All methods of gRPC that a server has.
pub(crate) fn methods() -> Vec<String> {
    let mut methods = Vec::new();
    for set in [
        ax_proto::API_DESCRIPTORS,
        ax_proto::ax1::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ] {
        let files = prost_types::FileDescriptorSet::decode(set).unwrap().file;
        for (file, service) in
            files.iter().flat_map(|file| file.service.iter().map(move |s| (file, s)))
        {
            let service_name = format!("{}.{}", file.package(), service.name());
            let names = service.method.iter().map(|method| method.name());
            methods.extend(names.map(|name| format!("/{service_name}/{name}")));
        }
    }
    // We call it, and do not have it.
    methods.retain(|method| method != "/ax.HarnessService/Connect");
    assert!(methods.len() > 35, "{methods:?}");
    methods
}

/// A message whose first two fields are texts: what every request about something begins with.
pub(crate) fn message(namespace: &str, about: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (tag, text) in [(0x0a, namespace), (0x12, about)] {
        if !text.is_empty() {
            bytes.push(tag);
            bytes.push(u8::try_from(text.len()).unwrap());
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// A request about a session, in the form that a method takes.
pub(crate) fn about(method: &str, namespace: &str, session: &str) -> Vec<u8> {
    let named = message(namespace, session);
    match method {
        method if method.ends_with("/SubmitStream") => {
            [&[0x12, u8::try_from(named.len()).unwrap()], &named[..]].concat()
        }
        method if method.starts_with("/agentexecutor.") => named,
        method if method.starts_with("/ax.") => message(session, ""),
        _ => Vec::new(),
    }
}

pub(crate) fn filled(path: &str, session: &str) -> String {
    path.replace("{session}", session).replace("{agent}", "done").replace("{id}", "blob_00")
}
