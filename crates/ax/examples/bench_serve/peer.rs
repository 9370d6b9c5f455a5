//! The same load on a peer: the server of Durable Streams (crate `durable-streams`), which keeps
//! streams of bytes, durable before they are acknowledged, and follows them by server-sent events.

use crate::server::{cpu_seconds, memory};
use crate::stats::{part, round1};
use crate::wire::Connection;
use crate::{Arguments, raw, say};
use futures::future::join_all;
use serde_json::json;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::time::{interval, sleep, timeout};

const CLIENT_COUNT: usize = 64;
/// How many followers, and how many events a second they get.
const CASES: &[(usize, u32)] = &[(1, 200), (100, 50), (1_000, 20)];
const KIND: &str = "text/plain";
/// How long something may take that takes no time.
const WAY_MAX: Duration = Duration::from_secs(30);

struct Peer {
    child: Child,
    address: String,
}

impl Peer {
    async fn start(arguments: &Arguments) -> Self {
        // It does not say which port it took: this one was free just now.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(&arguments.peer)
            .args(["--port", &port.to_string(), "--data-dir"])
            .arg(arguments.dir.join(format!("peer-{port}")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = format!("127.0.0.1:{port}");
        while tokio::net::TcpStream::connect(&address).await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
        Self { child, address }
    }

    fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.child.id())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) async fn measure(arguments: &Arguments) {
    appends(arguments).await;
    for &(followers, rate) in CASES {
        follow(arguments, followers, rate).await;
    }
}

fn payload(number: u64) -> Vec<u8> {
    let head = format!("{number:010} ");
    let fill = "x".repeat(raw::PAYLOAD_BYTES - head.len() - 1);
    format!("{head}{fill}\n").into_bytes()
}

async fn create(connection: &mut Connection, path: &str) {
    let (status, _) = connection.request("PUT", path, KIND, b"").await;
    assert!((200..300).contains(&status), "{status}");
}

async fn appends(arguments: &Arguments) {
    let peer = Peer::start(arguments).await;
    let mut connections = Vec::new();
    for number in 0..CLIENT_COUNT {
        let mut connection = Connection::open(&peer.address).await;
        let path = format!("/stream-{number}");
        create(&mut connection, &path).await;
        connections.push((connection, path));
    }
    let (began, cpu) = (Instant::now(), peer.cpu_seconds());
    let until = began + arguments.span;
    let each = connections.into_iter().map(|(mut connection, path)| {
        tokio::spawn(async move {
            let mut spent = Vec::new();
            while Instant::now() < until {
                let began = Instant::now();
                let (status, _) = connection.request("POST", &path, KIND, &payload(0)).await;
                assert!((200..300).contains(&status), "{status}");
                spent.push(began.elapsed());
            }
            spent
        })
    });
    let mut spent: Vec<_> = join_all(each).await.into_iter().flat_map(Result::unwrap).collect();
    let seconds = began.elapsed().as_secs_f64();
    let cpu = (peer.cpu_seconds() - cpu) * 1e6 / spent.len() as f64;
    say(&json!({
        "piece": "durable-streams", "what": "appends", "clients": CLIENT_COUNT,
        "bytes": raw::PAYLOAD_BYTES, "rate": (spent.len() as f64 / seconds).round(),
        "p50_us": part(&mut spent, 0.5), "p99_us": part(&mut spent, 0.99), "cpu_us": round1(cpu),
    }));
}

async fn follow(arguments: &Arguments, followers: usize, rate: u32) {
    let peer = Peer::start(arguments).await;
    let mut writer = Connection::open(&peer.address).await;
    create(&mut writer, "/followed").await;
    let count = u64::from(rate) * arguments.span.as_secs();
    let before = memory(peer.child.id());
    let mut tasks = Vec::new();
    for _ in 0..followers {
        let connection = Connection::open(&peer.address).await;
        let connection = connection.follow("/followed?offset=-1&live=sse").await;
        tasks.push(tokio::spawn(read(connection, count)));
    }
    sleep(Duration::from_millis(500)).await;
    let each = memory(peer.child.id()).saturating_sub(before) / followers as u64;
    let (mut sent, mut ticks) = (Vec::new(), interval(Duration::from_secs(1) / rate));
    for number in 0..count {
        ticks.tick().await;
        sent.push(Instant::now());
        let (status, _) = writer.request("POST", "/followed", KIND, &payload(number)).await;
        assert!((200..300).contains(&status), "{status}");
    }
    let mut ways = Vec::new();
    for task in tasks {
        for (number, at) in timeout(WAY_MAX, task).await.unwrap().unwrap() {
            ways.push(at.duration_since(sent[usize::try_from(number).unwrap()]));
        }
    }
    say(&json!({
        "piece": "durable-streams", "what": "latency", "followers": followers, "rate": rate,
        "p50_us": part(&mut ways, 0.5), "p99_us": part(&mut ways, 0.99), "bytes_each": each,
    }));
}

async fn read(mut connection: Connection, count: u64) -> Vec<(u64, Instant)> {
    let mut seen = Vec::new();
    while (seen.len() as u64) < count {
        let (line, at) = connection.next("data:").await;
        // Other lines say how far the stream is.
        if let Some(Ok(number)) = line.split(' ').next().map(str::parse) {
            seen.push((number, at));
        }
    }
    seen
}
