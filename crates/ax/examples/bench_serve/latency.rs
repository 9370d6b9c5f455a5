//! From sending an input until followers have it.

use crate::server::{Server, input};
use crate::stats::part;
use crate::wire::Connection;
use crate::{Arguments, raw, say};
use ax_client::Item;
use ax_proto::v1;
use futures::future::join_all;
use serde_json::json;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

/// How many followers, and how many events a second they get.
const CASES: &[(usize, u32)] = &[(1, 200), (100, 50), (1_000, 20)];
/// How many gRPC followers share a connection.
const STREAMS_EACH: usize = 125;
/// How long an event may be on its way.
const WAY_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Sse,
    Grpc,
}

/// A position, and when it came.
type Seen = (u64, Instant);

pub(crate) async fn measure(arguments: &Arguments) {
    for wire in [Wire::Sse, Wire::Grpc] {
        for &(followers, rate) in CASES {
            case(arguments, wire, followers, rate).await;
        }
    }
}

async fn case(arguments: &Arguments, wire: Wire, followers: usize, rate: u32) {
    let name = format!("{wire:?}-{followers}").to_lowercase();
    let server = Server::start(&arguments.ax, &arguments.dir.join(&name));
    let session = server.busy("latency", 1).await.remove(0);
    let count = rate * u32::try_from(arguments.span.as_secs()).unwrap();
    let pause = Duration::from_secs(1) / rate;
    let (ready, mut readies) = mpsc::channel(followers);
    let following = start(&server, wire, &session, followers, count, &ready).await;
    for _ in 0..followers {
        timeout(WAY_MAX, readies.recv()).await.unwrap().unwrap();
    }
    let client = server.client();
    let (mut sent, mut ticks) = (HashMap::new(), interval(pause));
    let mut acknowledged = Vec::new();
    let cpu = server.cpu_seconds();
    for _ in 0..count {
        ticks.tick().await;
        let began = Instant::now();
        let done = client.submit(input(&session, raw::PAYLOAD_BYTES)).await.unwrap();
        acknowledged.push(began.elapsed());
        sent.insert(done.seq, began);
    }
    let mut ways = Vec::new();
    for follower in following {
        for (seq, at) in timeout(WAY_MAX, follower).await.unwrap().unwrap() {
            ways.extend(sent.get(&seq).map(|began| at.duration_since(*began)));
        }
    }
    let cpu = (server.cpu_seconds() - cpu) * 1e6 / ways.len() as f64;
    assert_eq!(ways.len(), followers * count as usize, "every follower has every event");
    let dir = arguments.dir.clone();
    let sync = tokio::task::spawn_blocking(move || raw::sync(&dir, count.min(400), pause));
    let sync = sync.await.unwrap();
    let (p50, p99) = (part(&mut ways, 0.5), part(&mut ways, 0.99));
    say(&json!({
        "piece": "latency", "wire": format!("{wire:?}").to_lowercase(), "followers": followers,
        "rate": rate, "p50_us": p50, "p99_us": p99, "sync_p50_us": sync.0, "sync_p99_us": sync.1,
        "acknowledged_p50_us": part(&mut acknowledged, 0.5), "cpu_us_each": cpu.round(),
        "over_p99_us": (p99 - sync.1).round(),
    }));
}

async fn start(
    server: &Server,
    wire: Wire,
    session: &str,
    followers: usize,
    count: u32,
    ready: &mpsc::Sender<()>,
) -> Vec<JoinHandle<Vec<Seen>>> {
    let all = (0..followers).collect::<Vec<_>>();
    let mut tasks = Vec::new();
    for some in all.chunks(STREAMS_EACH) {
        let client = server.client();
        #[expect(clippy::async_yields_async, reason = "each goes on while the next is opened")]
        let opened = some.iter().map(|_| async {
            match wire {
                Wire::Sse => {
                    let path = format!("/v1/sessions/{session}/follow");
                    let connection = Connection::open(&server.address).await.follow(&path).await;
                    tokio::spawn(sse(connection, count, ready.clone()))
                }
                Wire::Grpc => {
                    let session = session.to_owned();
                    let follow = client.follow(v1::FollowRequest { session, ..Default::default() });
                    tokio::spawn(grpc(follow, count, ready.clone()))
                }
            }
        });
        tasks.extend(join_all(opened).await);
    }
    tasks
}

async fn sse(mut connection: Connection, count: u32, ready: mpsc::Sender<()>) -> Vec<Seen> {
    connection.next("event: caught-up").await;
    connection.next("id:").await;
    ready.send(()).await.unwrap();
    let mut seen = Vec::with_capacity(count as usize);
    while seen.len() < count as usize {
        connection.next("event: input.received").await;
        let (id, at) = connection.next("id:").await;
        seen.push((id.parse().unwrap(), at));
    }
    seen
}

async fn grpc(mut follow: ax_client::Follow, count: u32, ready: mpsc::Sender<()>) -> Vec<Seen> {
    let mut seen = Vec::with_capacity(count as usize);
    let mut live = false;
    while seen.len() < count as usize {
        match follow.next().await.unwrap() {
            Some(Item::CaughtUp(_)) => {
                live = true;
                ready.send(()).await.unwrap();
            }
            Some(Item::Event(event)) => {
                let input = matches!(event.kind, Some(v1::event::Kind::InputReceived(_)));
                if live && input {
                    seen.push((event.seq, Instant::now()));
                }
            }
            other => panic!("the stream says {other:?}"),
        }
    }
    seen
}
