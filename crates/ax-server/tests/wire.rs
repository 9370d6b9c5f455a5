//! The server over a real socket, in front of a real engine on a log in memory.

#![expect(clippy::unwrap_used, reason = "a test")]

use ax_client::{Client, Item, Patience};
use ax_core::session::Frame;
use ax_core::time::Timestamp;
use ax_engine::{Engine, Options, SystemClock, SystemEntropy};
use ax_harness::{Exit, Io, Launch, Launcher};
use ax_log::MemoryLog;
use ax_proto::v1;
use ax_proto::v1::event::Kind;
use ax_server::{Connections, Listener, Server};
use ax_store::Blobs;
use futures::future::BoxFuture;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const MANIFEST: &str = "apiVersion: agentexecutor.dev/v1\nkind: Agent\n\
    metadata: {name: done}\nspec:\n  sandbox: process\n  \
    harness: {type: process, command: [unused]}\n";

/// Runs attempts that are done at once.
#[derive(Debug)]
struct AtOnce;

impl Launcher for AtOnce {
    fn launch(&self, _launch: Launch, io: Io) -> BoxFuture<'static, Exit> {
        Box::pin(async move {
            // An engine that is gone needs no answer.
            drop(io.frames.send(Frame::End { result: None }).await);
            Exit::Said
        })
    }
}

struct World {
    dir: TempDir,
    client: Client,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(Options {
            data_dir: dir.path().to_owned(),
            runs_max: 4,
            log: Arc::new(MemoryLog::new()),
            blobs: Blobs::memory(),
            launcher: Arc::new(AtOnce),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
        });
        let stop = CancellationToken::new();
        let server = Server {
            engine: engine.await.unwrap(),
            data_dir: dir.path().to_owned(),
            started_at: Timestamp::from_millis(1),
            stop: stop.clone(),
            connections: Connections::default(),
            options: ax_server::Options::default(),
        };
        let socket = dir.path().join("ax.sock");
        let listener = Listener::bind(&socket).unwrap();
        let serving = tokio::spawn(async move { server.serve(vec![listener]).await.unwrap() });
        let patience = Patience { outage_millis_max: 0, ..Patience::default() };
        let client = Client::unix(socket, "default").patient(patience);
        Self { dir, client, stop, serving }
    }

    async fn submit(&self, session: &str) -> v1::SubmitResponse {
        let apply = v1::ApplyAgentRequest { manifest: MANIFEST.into(), ..Default::default() };
        self.client.apply_agent(apply).await.unwrap();
        let text = Some(v1::body::Body::Text("go".into()));
        let part = v1::Part {
            kind: v1::PartKind::Text.into(),
            media_type: "text/plain".into(),
            body: Some(v1::Body { body: text }),
            ..Default::default()
        };
        let (session, agent) = (session.to_owned(), "done".to_owned());
        let request = v1::SubmitRequest { session, agent, parts: vec![part], ..Default::default() };
        self.client.submit(request).await.unwrap()
    }
}

fn follow(session: &str) -> v1::FollowRequest {
    v1::FollowRequest { session: session.into(), ..Default::default() }
}

#[tokio::test]
async fn an_input_is_recorded_for_the_user_at_the_other_end() {
    let world = World::new().await;
    let sent = world.submit("talk").await;
    let mut follow =
        world.client.follow(v1::FollowRequest { until_input: sent.seq, ..follow("talk") });
    let mut seqs = Vec::new();
    while let Some(item) = follow.next().await.unwrap() {
        match item {
            Item::Event(event) => {
                if matches!(event.kind, Some(Kind::InputReceived(_))) {
                    assert!(!event.principal.is_empty());
                }
                seqs.push(event.seq);
            }
            Item::End(end) => assert_eq!(end.reason(), v1::follow_end::Reason::Reached),
            Item::CaughtUp(_) | Item::Broken(_) => {}
        }
    }
    assert!(seqs.len() > 3, "{seqs:?}");
    assert!(seqs.iter().zip(1..).all(|(seq, expect)| *seq == expect), "{seqs:?}");
}

#[tokio::test]
async fn a_refusal_says_all_that_the_engine_says() {
    let world = World::new().await;
    let request = v1::GetSessionRequest { session: "nowhere".into(), ..Default::default() };
    let error = world.client.get_session(request).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.broken, error.retryable), ("AX1002", false, false));
    assert_eq!(error.message, "there is no session \"nowhere\"");
    assert!(error.hint.contains("ax session list"), "{error:?}");
}

#[tokio::test]
async fn contradictions_and_nonsense_are_refused() {
    let world = World::new().await;
    world.submit("talk").await;
    let both = v1::FollowRequest { until_idle: true, until_input: 1, ..follow("talk") };
    let error = world.client.follow(both).next().await.unwrap_err();
    assert_eq!(error.code, "AX1001");
    let branch = v1::BranchRequest {
        session: "talk".into(),
        at: 1,
        checkpoint: "c".into(),
        ..Default::default()
    };
    assert_eq!(world.client.branch(branch).await.unwrap_err().code, "AX1001");
    let cursor = v1::ListSessionsRequest { cursor: "x".into(), ..Default::default() };
    assert_eq!(world.client.list_sessions(cursor).await.unwrap_err().code, "AX1001");
    let nothing = v1::AnswerRequest { session: "talk".into(), ..Default::default() };
    assert_eq!(world.client.answer(nothing).await.unwrap_err().code, "AX1001");
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused() {
    let world = World::new().await;
    let manifest = "x".repeat(9 << 20);
    let request = v1::ApplyAgentRequest { manifest, ..Default::default() };
    let error = world.client.apply_agent(request).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.broken), ("AX1013", false), "{error:?}");
}

#[tokio::test]
async fn a_content_comes_back_as_it_was_stored() {
    let world = World::new().await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let stored = world.client.write_blob(&content[..]).await.unwrap();
    assert_eq!(stored.bytes, 3_000_000);
    let mut read = Vec::new();
    assert_eq!(world.client.read_blob(&stored.id, &mut read).await.unwrap(), 3_000_000);
    assert_eq!(read, content);
    let empty = world.client.write_blob(&b""[..]).await.unwrap();
    assert_eq!(empty.bytes, 0);
    let missing = format!("blob_{}", "0".repeat(64));
    let error = world.client.read_blob(&missing, &mut read).await.unwrap_err();
    assert_eq!(error.code, "AX1015");
    let error = world.client.read_blob("blob_1", &mut read).await.unwrap_err();
    assert_eq!(error.code, "AX1001");
}

#[tokio::test]
async fn a_server_that_stops_ends_its_followers_and_removes_its_socket() {
    let world = World::new().await;
    world.submit("talk").await;
    let socket = world.dir.path().join("ax.sock");
    let about = socket.symlink_metadata().unwrap();
    assert_eq!((about.permissions().mode() & 0o777, about.uid()), (0o600, uid()));
    let mut follow = world.client.follow(follow("talk"));
    while !matches!(follow.next().await.unwrap(), Some(Item::CaughtUp(_))) {}
    world.stop.cancel();
    let error = loop {
        match follow.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the follower ended without a word"),
            Err(error) => break error,
        }
    };
    assert!(error.broken, "{error:?}");
    world.serving.await.unwrap();
    assert!(!socket.exists());
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}
