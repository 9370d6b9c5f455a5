//! A server on a port of the loopback, in front of a real engine on a log in memory, and the
//! simplest of HTTP clients.

pub(crate) mod guarded;

use ax_core::session::{Failure, Frame, PartKind};
use ax_core::time::Timestamp;
use ax_engine::{Engine, SystemClock, SystemEntropy};
use ax_harness::{Exit, Io, Launch, Launcher};
use ax_log::MemoryLog;
use ax_server::{Connections, Listener, Options, Server};
use ax_store::Blobs;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const MANIFEST: &str = "apiVersion: agentexecutor.dev/v1\nkind: Agent\n\
    metadata: {name: done}\nspec:\n  sandbox: process\n  \
    harness: {type: process, command: [unused]}\n";

/// Runs attempts that are done as soon as they may.
#[derive(Debug)]
struct WhenTold(watch::Receiver<bool>, Vec<Frame>);

impl Launcher for WhenTold {
    fn launch(&self, _launch: Launch, io: Io) -> BoxFuture<'static, Exit> {
        let killed = Failure { code: "killed".into(), message: "it was told to".into() };
        let (mut told, frames) = (self.0.clone(), self.1.clone());
        Box::pin(async move {
            let told = async {
                // A world that is gone tells nothing more.
                drop(told.wait_for(|told| *told).await);
            };
            tokio::select! {
                () = told => {
                    for frame in frames {
                        // An engine that is gone needs no answer.
                        drop(io.frames.send(frame).await);
                    }
                    Exit::Said
                }
                () = io.kill.cancelled() => Exit::Gone(killed),
            }
        })
    }
}

/// A text in pieces, and the end.
fn said() -> Vec<Frame> {
    let block = || "text".into();
    let piece =
        |text: &str| Frame::Delta { block: block(), part: PartKind::Text, text: text.into() };
    let closed = Frame::Output { block: Some(block()), key: None, parts: Vec::new() };
    vec![piece("one\r\n"), piece("\n\ntwo"), piece("three"), closed, Frame::End { result: None }]
}

pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
    pub(crate) connections: Connections,
    /// Set to `true` to let attempts end.
    pub(crate) done: watch::Sender<bool>,
    _dir: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Options::default(), true).await
    }

    pub(crate) async fn with(options: Options, open: bool) -> Self {
        Self::saying(said(), options, open).await
    }

    /// With attempts that say these things.
    pub(crate) async fn saying(frames: Vec<Frame>, options: Options, open: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (done, told) = watch::channel(true);
        let engine = Engine::open(ax_engine::Options {
            data_dir: dir.path().to_owned(),
            runs_max: 64,
            log: Arc::new(MemoryLog::new()),
            blobs: Blobs::memory(),
            launcher: Arc::new(WhenTold(told, frames)),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
        });
        let engine = engine.await.unwrap();
        let (stop, connections) = (CancellationToken::new(), Connections::default());
        let server = Server {
            engine,
            data_dir: dir.path().to_owned(),
            started_at: Timestamp::from_millis(1),
            stop: stop.clone(),
            connections: connections.clone(),
            options,
        };
        let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let listener = if open { listener.open_to_anybody() } else { listener };
        let address = listener.address().unwrap();
        let serving = tokio::spawn(async move { server.serve(vec![listener]).await.unwrap() });
        Self { address, stop, serving, connections, done, _dir: dir }
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let kind = if body.is_empty() { "" } else { "content-type: application/json\r\n" };
        self.send(method, path, kind, body.as_bytes()).await
    }

    /// Sends a request with these header lines.
    pub(crate) async fn send(&self, method: &str, path: &str, lines: &str, body: &[u8]) -> Answer {
        let lines = format!("host: localhost\r\ncontent-length: {}\r\n{lines}", body.len());
        self.exchange(method, path, &lines, body).await
    }

    /// Sends a request that has no body, with these header lines and no others.
    pub(crate) async fn raw(&self, method: &str, path: &str, lines: &str) -> Answer {
        self.exchange(method, path, lines, b"").await
    }

    async fn exchange(&self, method: &str, path: &str, lines: &str, body: &[u8]) -> Answer {
        let mut stream = BufReader::new(TcpStream::connect(self.address).await.unwrap());
        let head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n{lines}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that has refused already need not read on.
        drop(stream.write_all(body).await);
        let (status, headers) = head_of(&mut stream).await;
        let mut body = Vec::new();
        drop(stream.read_to_end(&mut body).await);
        if headers.contains("transfer-encoding: chunked") {
            body = unchunked(&body);
        }
        Answer { status, headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None).await
    }

    /// Applies the agent that is done when it may be.
    pub(crate) async fn agent(&self) {
        let applied = self.ask("POST", "/v1/agents", Some(json!({"manifest": MANIFEST}))).await;
        assert_eq!(applied.status, 200, "{applied:?}");
    }

    /// Submits a text.
    pub(crate) async fn submit(&self, session: &str, text: &str) -> Answer {
        let part = json!({"kind": "PART_KIND_TEXT", "mediaType": "text/plain",
            "body": {"text": text}});
        let body = json!({"agent": "done", "parts": [part]});
        self.ask("POST", &format!("/v1/sessions/{session}/inputs"), Some(body)).await
    }

    /// Follows; returns what server-sent events there are.
    pub(crate) async fn follow(&self, path: &str, lines: &str) -> Stream {
        let socket = TcpSocket::new_v4().unwrap();
        // So that it takes little to fill it.
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = BufReader::new(socket.connect(self.address).await.unwrap());
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (status, headers) = head_of(&mut stream).await;
        assert_eq!(status, 200, "{headers}");
        Stream { stream, buffer: String::new(), headers }
    }
}

async fn head_of(stream: &mut BufReader<TcpStream>) -> (u16, String) {
    let mut headers = String::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if line.trim().is_empty() {
            break;
        }
        headers.push_str(&line.to_lowercase());
    }
    let status = headers.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status in {headers:?}")), headers)
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(at) = body.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&body[..at]).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        whole.extend_from_slice(&body[at + 2..at + 2 + size]);
        body = &body[at + 4 + size..];
    }
    whole
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{error}: {} {:?}", self.headers, String::from_utf8_lossy(&self.body))
        })
    }

    /// The code and message of an error, all of whose fields are there.
    pub(crate) fn error(&self) -> (u16, String, String) {
        let json = self.json();
        for field in ["code", "message", "hint", "retryable", "causes"] {
            assert!(json.get(field).is_some(), "{field} is missing in {json}");
        }
        let text = |name: &str| json[name].as_str().unwrap().to_owned();
        (self.status, text("code"), text("message"))
    }
}

/// Server-sent events as they come.
pub(crate) struct Stream {
    stream: BufReader<TcpStream>,
    buffer: String,
    pub(crate) headers: String,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sent {
    pub(crate) event: String,
    pub(crate) id: String,
    pub(crate) data: String,
    pub(crate) retry: String,
}

impl Stream {
    /// The next block; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let mut sent = Sent::default();
                for line in block.lines() {
                    match line.split_once(": ") {
                        Some(("event", event)) => sent.event = event.into(),
                        Some(("id", id)) => sent.id = id.into(),
                        Some(("data", data)) => sent.data.push_str(data),
                        Some(("retry", retry)) => sent.retry = retry.into(),
                        Some(("", _)) => {}
                        _ => panic!("not a field: {line:?}"),
                    }
                }
                self.buffer = rest.to_owned();
                return Some(sent);
            }
            let chunk = self.chunk().await?;
            self.buffer.push_str(&chunk);
        }
    }

    async fn chunk(&mut self) -> Option<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.ok()?;
        let size = usize::from_str_radix(line.trim(), 16).ok().filter(|size| *size > 0)?;
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk).await.ok()?;
        Some(String::from_utf8(chunk[..size].to_vec()).unwrap())
    }

    /// Everything up to the end.
    pub(crate) async fn rest(&mut self) -> Vec<Sent> {
        let mut all = Vec::new();
        while let Some(sent) = self.next().await {
            all.push(sent);
        }
        all
    }

    /// Reads until there is an event of this name.
    pub(crate) async fn until(&mut self, event: &str) -> Sent {
        loop {
            let sent = self.next().await.expect("the stream goes on");
            if sent.event == event {
                return sent;
            }
        }
    }
}
