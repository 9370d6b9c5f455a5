//! The log grows with what is new (promise P10): a turn of a hundred tool calls on a chat of two
//! hundred thousand tokens, by the built-in harness under a real server.
//!
//! New content is what a model had not been sent before, and what it answered, byte for byte as it
//! was received: a proxy between harness and model counts both. Kept are the payloads of events
//! and the blobs.

#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::print_stdout, reason = "the figures are of interest")]

#[path = "crash/server.rs"]
#[expect(dead_code, reason = "another test kills processes with it")]
mod server;

use ax_client::{Client, Item};
use ax_fakemodel::{FakeModel, Options, Script};
use ax_proto::v1;
use prost::Message as _;
use serde_json::{Value, json};
use server::Server;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// How many tool calls the turn has.
const CALL_COUNT: usize = 100;
/// How many messages the chat has before it.
const CHAT_COUNT: usize = 10;
/// How long each of them is, in bytes: together two hundred thousand tokens.
const CHAT_BYTES: usize = 80_000;
/// Kept bytes per byte of new content, at most.
const RATIO_MAX: f64 = 1.1;

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_of_a_hundred_calls_on_a_long_chat_keeps_only_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let script = Script::from_json(&script().to_string()).unwrap();
    let model = FakeModel::start(Options { script, ..Options::default() }).await.unwrap();
    let proxy = Proxy::start(model.addr()).await;
    let mut server = Server::start(&data, &[]);
    server.ready().await;
    let client = server::client(&data);
    let manifest = manifest(proxy.address);
    client.apply_agent(v1::ApplyAgentRequest { manifest, ..Default::default() }).await.unwrap();

    for number in 0..CHAT_COUNT {
        say(&client, &prose(number)).await;
    }
    let before = kept(&client, &data).await;
    let new_before = proxy.seen.lock().unwrap().new_bytes();
    say(&client, "GO, and use the tools").await;
    let after = kept(&client, &data).await;
    let seen = proxy.seen.lock().unwrap();
    let new = seen.new_bytes();

    assert_eq!(seen.request_count, CHAT_COUNT + CALL_COUNT + 1, "each model call is made once");
    let calls = model.ledger().iter().filter(|entry| entry.is_paid()).count();
    assert_eq!(calls, seen.request_count);
    let whole = ratio(after.logical(), new);
    let turn = ratio(after.logical() - before.logical(), new - new_before);
    let figures = json!({
        "name": "linear", "calls": CALL_COUNT, "sent_bytes": seen.sent_bytes,
        "new_bytes": new, "new_bytes_turn": new - new_before,
        "event_bytes": after.events, "blob_bytes": after.blobs, "disk_bytes": after.disk,
        "disk_bytes_turn": after.disk - before.disk.min(after.disk),
        "ratio": whole, "ratio_turn": turn,
        "ratio_without_framing": ratio(after.logical(), seen.part_bytes + seen.said_bytes),
    });
    println!("{figures}");
    assert!(seen.sent_bytes > 100 * (CHAT_COUNT * CHAT_BYTES) as u64, "all is sent every time");
    assert!(whole <= RATIO_MAX, "{figures}");
    assert!(turn <= RATIO_MAX, "{figures}");
    drop(seen);
    assert!(server.stop().success());
}

fn ratio(kept: u64, new: u64) -> f64 {
    kept as f64 / new as f64
}

/// Text that repeats nothing.
fn prose(number: usize) -> String {
    let mut text = format!("Message {number}.");
    let mut at = number as u64 + 1;
    while text.len() < CHAT_BYTES {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!(" {:x}", at >> 20));
    }
    text.truncate(CHAT_BYTES);
    text
}

/// The turn: files are written, read, searched, and commands run.
fn script() -> Value {
    let call = |number: usize| {
        let path = format!("file-{}.txt", number / 4);
        match number % 4 {
            0 => {
                let content = format!("{path}: {}\n", &prose(number + 1_000)[..1_500]);
                json!({"tool": "write", "arguments": {"path": path, "content": content}})
            }
            1 => json!({"tool": "read", "arguments": {"path": path}}),
            2 => {
                let command = format!("seq {number} {}", number + 400);
                json!({"tool": "shell", "arguments": {"command": command}})
            }
            _ => json!({"tool": "search", "arguments": {"pattern": "file-[0-9]"}}),
        }
    };
    let mut turns: Vec<Value> = (0..CALL_COUNT)
        .map(|number| {
            json!({
                "when": {"text": "GO", "turn": CHAT_COUNT + number},
                "text": format!("Step {number}: I look at what there is, and go on from there."),
                "calls": [call(number)],
            })
        })
        .collect();
    turns.push(json!({"when": {"text": "GO"}, "text": "That is all."}));
    json!({"version": 1, "turns": turns})
}

fn manifest(model: SocketAddr) -> String {
    format!(
        "apiVersion: agentexecutor.dev/v1\nkind: Agent\nmetadata: {{name: long}}\nspec:\n  \
         sandbox: process\n  harness:\n    type: builtin\n    max_turns: 200\n    \
         system: You are careful.\n    tools: [shell, read, write, search]\n    \
         model: {{provider: anthropic, name: m, base_url: \"http://{model}\"}}\n"
    )
}

/// Submits an input to the session, and waits until it is done.
async fn say(client: &Client, text: &str) {
    let body = Some(v1::Body { body: Some(v1::body::Body::Text(text.into())) });
    let kind = v1::PartKind::Text.into();
    let part = v1::Part { kind, media_type: "text/plain".into(), name: String::new(), body };
    let request = v1::SubmitRequest {
        session: "chat".into(),
        agent: "long".into(),
        parts: vec![part],
        ..Default::default()
    };
    let sent = client.submit(request).await.unwrap();
    let mut follow = client.follow(v1::FollowRequest {
        session: sent.session,
        after: sent.seq,
        until_input: sent.seq,
        ..Default::default()
    });
    loop {
        match follow.next().await.unwrap() {
            Some(Item::End(end)) => {
                let status = end.status.unwrap();
                assert_eq!(status.state(), v1::State::Completed, "{status:?}");
                return;
            }
            Some(_) => {}
            None => panic!("it ends with its end"),
        }
    }
}

/// What is kept, in bytes.
#[derive(Clone, Copy, Debug)]
struct Kept {
    events: u64,
    blobs: u64,
    /// What the data directory takes on the disk.
    disk: u64,
}

impl Kept {
    const fn logical(&self) -> u64 {
        self.events + self.blobs
    }
}

async fn kept(client: &Client, data: &Path) -> Kept {
    let (mut events, mut after) = (0, 0);
    loop {
        let request = v1::ListEventsRequest { session: "chat".into(), after, ..Default::default() };
        let page = client.list_events(request).await.unwrap();
        for event in page.events {
            after = event.seq;
            // The position is not stored.
            events += v1::Event { seq: 0, ..event }.encoded_len() as u64;
        }
        if after >= page.last {
            break;
        }
    }
    let blobs = sizes(&data.join("blobs"), |file| file.len());
    let disk = sizes(data, |file| std::os::unix::fs::MetadataExt::blocks(file) * 512);
    Kept { events, blobs, disk }
}

/// Adds up the files of a directory.
fn sizes(dir: &Path, size: impl Fn(&std::fs::Metadata) -> u64 + Copy) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let each = entries.map(|entry| {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() { sizes(&entry.path(), size) } else { size(&metadata) }
    });
    each.sum()
}

/// What went by between harness and model.
#[derive(Debug, Default)]
struct Seen {
    request_count: usize,
    /// All that was sent.
    sent_bytes: u64,
    /// What was sent for the first time.
    parts: BTreeSet<String>,
    part_bytes: u64,
    received_bytes: u64,
    /// Of what was received, the texts and the arguments of calls, without the words around them.
    said_bytes: u64,
}

impl Seen {
    const fn new_bytes(&self) -> u64 {
        self.part_bytes + self.received_bytes
    }

    fn request(&mut self, body: &[u8]) {
        self.request_count += 1;
        self.sent_bytes += body.len() as u64;
        let body: Value = serde_json::from_slice(body).unwrap();
        self.part(&body["system"]);
        body["tools"].as_array().into_iter().flatten().for_each(|tool| self.part(tool));
        for message in body["messages"].as_array().unwrap() {
            // What the model said itself was counted when it was received.
            if message["role"] == "user" {
                message["content"].as_array().unwrap().iter().for_each(|part| self.part(part));
            }
        }
    }

    fn answer(&mut self, body: &[u8]) {
        self.received_bytes += body.len() as u64;
        let events = std::str::from_utf8(body).unwrap().lines();
        for event in events.filter_map(|line| line.strip_prefix("data: ")) {
            let delta = &serde_json::from_str::<Value>(event).unwrap()["delta"];
            let said = ["text", "partial_json"].iter().find_map(|name| delta[*name].as_str());
            self.said_bytes += said.map_or(0, |said| said.len() as u64);
        }
    }

    /// Counts the content of a part, not the words around it, and the same content once.
    fn part(&mut self, part: &Value) {
        let content = ["text", "content"].iter().find_map(|name| part[*name].as_str());
        let content = content.map_or_else(|| part.to_string(), str::to_owned);
        let bytes = content.len() as u64;
        if self.parts.insert(content) {
            self.part_bytes += bytes;
        }
    }
}

/// A proxy that looks at what it passes on.
#[derive(Debug)]
struct Proxy {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Proxy {
    async fn start(model: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let far = TcpStream::connect(model).await.unwrap();
                let (requests, answers) = (Arc::clone(&shared), Arc::clone(&shared));
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                tokio::spawn(pass(near_read, far_write, move |body| {
                    requests.lock().unwrap().request(body);
                }));
                tokio::spawn(pass(far_read, near_write, move |body| {
                    answers.lock().unwrap().answer(body);
                }));
            }
        });
        Self { address, seen }
    }
}

/// Passes HTTP messages on as they are, and shows the body of each before its last byte goes.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, show: impl Fn(&[u8])) {
    let mut read = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut chunk).await.unwrap_or(0);
        if count == 0 {
            return;
        }
        read.extend_from_slice(&chunk[..count]);
        while let Some((length, body)) = message(&read) {
            show(&body);
            read.drain(..length);
        }
        if to.write_all(&chunk[..count]).await.is_err() {
            return;
        }
    }
}

/// Returns the length and the body of the HTTP/1.1 message at the beginning, if it is whole.
fn message(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
    let head_length = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..head_length]).to_lowercase();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if field("transfer-encoding:") != Some("chunked") {
        let length: usize = field("content-length:").map_or(0, |length| length.parse().unwrap());
        let body = bytes.get(head_length..head_length + length)?;
        return Some((head_length + length, body.to_vec()));
    }
    let (mut at, mut body) = (head_length, Vec::new());
    loop {
        let line = bytes[at..].windows(2).position(|two| two == b"\r\n")?;
        let digits = std::str::from_utf8(&bytes[at..at + line]).unwrap();
        let size = usize::from_str_radix(digits.split(';').next().unwrap(), 16).unwrap();
        at += line + 2;
        body.extend_from_slice(bytes.get(at..at + size)?);
        at += size + 2;
        if at > bytes.len() {
            return None;
        }
        if size == 0 {
            return Some((at, body));
        }
    }
}
