//! Inputs a second, and what the server computes for each.

use crate::server::{Server, input};
use crate::stats::part;
use crate::wire::Connection;
use crate::{Arguments, raw, say};
use ax_proto::v1;
use ax_proto::v1::sessions_client::SessionsClient;
use futures::StreamExt as _;
use futures::future::join_all;
use serde_json::json;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

const CLIENT_COUNT: usize = 64;
/// How many connections the gRPC clients share.
const CONNECTION_COUNT: usize = 8;
/// How many inputs each of the bidirectional streams has under way.
const WINDOW: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Unary,
    Stream,
    Http,
}

pub(crate) async fn measure(arguments: &Arguments) {
    let log = raw::log(&arguments.dir, CLIENT_COUNT, arguments.span / 2).await;
    for way in [Way::Unary, Way::Stream, Way::Http] {
        let name = format!("{way:?}").to_lowercase();
        let server = Server::start(&arguments.ax, &arguments.dir.join(&name));
        let sessions = server.busy(&name, CLIENT_COUNT).await;
        let (began, cpu) = (Instant::now(), server.cpu_seconds());
        let mut spent = submit(way, &server, &sessions, began + arguments.span).await;
        let seconds = began.elapsed().as_secs_f64();
        let cpu = (server.cpu_seconds() - cpu) * 1e6 / spent.len() as f64;
        let rate = spent.len() as f64 / seconds;
        say(&json!({
            "piece": "submits", "way": name, "clients": CLIENT_COUNT,
            "bytes": raw::PAYLOAD_BYTES, "rate": rate.round(), "log_rate": log.round(),
            "p50_us": part(&mut spent, 0.5), "p99_us": part(&mut spent, 0.99),
            "cpu_us": crate::stats::round1(cpu),
        }));
    }
}

/// Submits until then; returns how long each took.
async fn submit(way: Way, server: &Server, sessions: &[String], until: Instant) -> Vec<Duration> {
    let mut channels = Vec::new();
    for _ in 0..CONNECTION_COUNT {
        let endpoint = format!("http://{}", server.address);
        channels.push(Channel::from_shared(endpoint).unwrap().connect().await.unwrap());
    }
    let each = sessions.iter().enumerate().map(|(number, session)| {
        let client = SessionsClient::new(channels[number % CONNECTION_COUNT].clone());
        let (session, address) = (session.clone(), server.address.clone());
        tokio::spawn(async move {
            match way {
                Way::Unary => unary(client, &session, until).await,
                Way::Stream => stream(client, session, until).await,
                Way::Http => http(&address, &session, until).await,
            }
        })
    });
    join_all(each).await.into_iter().flat_map(Result::unwrap).collect()
}

async fn unary(
    mut client: SessionsClient<Channel>,
    session: &str,
    until: Instant,
) -> Vec<Duration> {
    let mut spent = Vec::new();
    while Instant::now() < until {
        let began = Instant::now();
        client.submit(input(session, raw::PAYLOAD_BYTES)).await.unwrap();
        spent.push(began.elapsed());
    }
    spent
}

async fn stream(
    mut client: SessionsClient<Channel>,
    session: String,
    until: Instant,
) -> Vec<Duration> {
    let (sender, receiver) = mpsc::channel(WINDOW);
    let send = |id: u64, sender: mpsc::Sender<_>, session: String| async move {
        let submit = Some(input(&session, raw::PAYLOAD_BYTES));
        sender.send(v1::SubmitStreamRequest { id, submit }).await.unwrap();
    };
    let mut begun = HashMap::new();
    for id in 0..WINDOW as u64 {
        begun.insert(id, Instant::now());
        send(id, sender.clone(), session.clone()).await;
    }
    let answers = client.submit_stream(ReceiverStream::new(receiver)).await.unwrap();
    let (mut answers, mut next) = (answers.into_inner(), WINDOW as u64);
    let (mut spent, mut sender) = (Vec::new(), Some(sender));
    while let Some(answer) = answers.next().await {
        let answer = answer.unwrap();
        let done = matches!(answer.answer, Some(v1::submit_stream_response::Answer::Done(_)));
        assert!(done, "{answer:?}");
        spent.push(begun.remove(&answer.id).unwrap().elapsed());
        if Instant::now() >= until {
            sender = None;
        }
        if let Some(sender) = &sender {
            begun.insert(next, Instant::now());
            send(next, sender.clone(), session.clone()).await;
            next += 1;
        }
    }
    spent
}

async fn http(address: &str, session: &str, until: Instant) -> Vec<Duration> {
    let path = format!("/v1/sessions/{session}/inputs");
    let text = "x".repeat(raw::PAYLOAD_BYTES);
    let part = json!({
        "kind": "PART_KIND_TEXT", "mediaType": "text/plain", "body": {"text": text},
    });
    let body = json!({"agent": "busy", "parts": [part]}).to_string();
    let mut connection = Connection::open(address).await;
    let mut spent = Vec::new();
    while Instant::now() < until {
        let began = Instant::now();
        let (status, said) =
            connection.request("POST", &path, "application/json", body.as_bytes()).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&said));
        spent.push(began.elapsed());
    }
    spent
}
