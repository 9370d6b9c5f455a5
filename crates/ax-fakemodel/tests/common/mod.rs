//! A client that sees every byte.

#![expect(unreachable_pub, reason = "a module of several test files")]
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses a part of it")]

use ax_fakemodel::{FakeModel, Options, Script};
use serde_json::Value;
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Starts a server with a script.
pub async fn start(script: &str) -> FakeModel {
    let script = Script::from_json(script).unwrap();
    FakeModel::start(Options { script, ..Options::default() }).await.unwrap()
}

/// Starts a server that goes by the prompt.
pub async fn prompted() -> FakeModel {
    FakeModel::start(Options::default()).await.unwrap()
}

/// A response, as far as it came.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub whole: bool,
}

impl Reply {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        assert!(self.whole, "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The events of a stream that came whole: name (or nothing) and data.
    pub fn events(&self) -> Vec<(String, Value)> {
        assert_eq!(self.headers["content-type"], "text/event-stream");
        let events = self.text().split_inclusive("\n\n").filter(|event| event.ends_with("\n\n"));
        let field = |event: &str, name: &str| {
            let line = event.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().to_owned()
        };
        let event = |event: &str| {
            let data = field(event, "data: ");
            (field(event, "event: "), serde_json::from_str(&data).unwrap_or(Value::String(data)))
        };
        events.map(event).collect()
    }

    /// The names of the events, with repeated ones once.
    pub fn event_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.events().into_iter().map(|(name, _)| name).collect();
        names.dedup();
        names
    }
}

/// Sends a request and reads until the connection ends.
pub async fn send(model: &FakeModel, head: &str, body: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(model.addr()).await.unwrap();
    let head = format!("{head}\r\nhost: test\r\nconnection: close\r\n");
    let length = format!("content-length: {}\r\n\r\n", body.len());
    let length = if head.contains("transfer-encoding") { "\r\n" } else { &length };
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(length.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut bytes = Vec::new();
    // A connection that breaks may end in an error; what came is what counts.
    drop(stream.read_to_end(&mut bytes).await);
    parse(&bytes)
}

/// Posts JSON.
pub async fn post(model: &FakeModel, path: &str, body: &Value) -> Reply {
    let head = format!("POST {path} HTTP/1.1\r\ncontent-type: application/json");
    send(model, &head, body.to_string().as_bytes()).await
}

/// Gets a path.
pub async fn get(model: &FakeModel, path: &str) -> Reply {
    send(model, &format!("GET {path} HTTP/1.1"), b"").await
}

fn parse(bytes: &[u8]) -> Reply {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let Some(end) = end else {
        return Reply { status: 0, headers: BTreeMap::new(), body: Vec::new(), whole: false };
    };
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: BTreeMap<String, String> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let rest = &bytes[end + 4..];
    if headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
        let (body, whole) = dechunk(rest);
        return Reply { status, headers, body, whole };
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let body = rest.to_vec();
    Reply { status, whole: body.len() == length, headers, body }
}

fn dechunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        rest = &rest[end + 2..];
        if size == 0 {
            return (body, true);
        }
        body.extend_from_slice(&rest[..size.min(rest.len())]);
        rest = rest.get(size + 2..).unwrap_or_default();
    }
    (body, false)
}
