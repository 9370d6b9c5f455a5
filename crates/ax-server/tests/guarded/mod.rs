//! A server with tenants that must not know of each other.

use crate::support::{Answer, MANIFEST, World};
use ax_core::id::Namespace;
use ax_core::time::Timestamp;
use ax_engine::{Clock as _, SystemClock};
use ax_server::Options;
use ax_server::auth::{Auth, Keys, NewKey, Role, Settings, Shared, Shares};
use prost::Message as _;
use serde_json::{Value, json};
use std::sync::Arc;
use tempfile::TempDir;

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
}

impl Guarded {
    /// The settings hold once the tenants are there; most tests fail to get in often.
    pub(crate) async fn new(mut settings: Settings) -> Self {
        if settings.limits == Settings::default().limits {
            settings.limits.failures_per_second = 10_000;
        }
        let dir = tempfile::tempdir().unwrap();
        let auth = Auth::open(dir.path(), Settings::default()).unwrap();
        let options = Options { guard: Some(auth.guard()), ..Options::default() };
        let world = World::with(options, false).await;
        let (keys, shares) = (Keys::of(dir.path()), Shares::of(dir.path()));
        let root = key(&keys, "root", Role::Admin, None, None);
        let session = String::new();
        let mut guarded = Self { world, auth, keys, shares, root, session, dir };
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

    /// Calls a method with a message; returns the status, the message and the code.
    pub(crate) async fn call(
        &self,
        token: &str,
        path: &str,
        message: &[u8],
    ) -> (String, String, String) {
        let stream = tokio::net::TcpStream::connect(self.world.address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let request = http::Request::post(format!("http://x{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {token}"))
            .body(())
            .unwrap();
        let (answer, mut body) = client.send_request(request, false).unwrap();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        // A server that has refused already need not read on.
        drop(body.send_data([&[0], &length[..], message].concat().into(), true));
        let answer = answer.await.unwrap();
        let (head, mut body) = answer.into_parts();
        let mut headers = head.headers;
        // A stream that is open is an answer, too.
        if !headers.contains_key("grpc-status") && !path.ends_with("Follow") {
            while let Some(data) = body.data().await {
                let Ok(data) = data else { break };
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            headers.extend(body.trailers().await.unwrap().unwrap_or_default());
        }
        driver.abort();
        let text = |name: &str| {
            headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
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

/// Sends a request whose header lines say how long its body is; returns all that comes back.
pub(crate) async fn as_it_is(
    guarded: &Guarded,
    method: &str,
    path: &str,
    lines: &str,
    body: &str,
) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(guarded.world.address).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n");
    // A server that has refused already need not read on.
    drop(stream.write_all(format!("{head}{body}").as_bytes()).await);
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    String::from_utf8_lossy(&answer).into_owned()
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

/// All methods of gRPC, of both wires.
pub(crate) fn methods() -> Vec<String> {
    let mut methods = Vec::new();
    for descriptors in [ax_proto::API_DESCRIPTORS, ax_proto::ax1::DESCRIPTORS] {
        let set = prost_types::FileDescriptorSet::decode(descriptors).unwrap();
        for file in &set.file {
            for service in &file.service {
                let path = format!("/{}.{}", file.package(), service.name());
                methods.extend(service.method.iter().map(|one| format!("{path}/{}", one.name())));
            }
        }
    }
    // We are its client.
    methods.retain(|method| !method.starts_with("/ax.HarnessService/"));
    assert!(methods.iter().any(|method| method.starts_with("/ax.")), "{methods:?}");
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

pub(crate) fn filled(path: &str, session: &str) -> String {
    path.replace("{session}", session).replace("{agent}", "done").replace("{id}", "blob_00")
}
