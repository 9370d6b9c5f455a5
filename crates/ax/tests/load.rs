//! Many sessions, many of them at work, many followers, for some time: no error, no session that is
//! left behind, bounded memory.
//!
//! `AX_LOAD_SECONDS`, `AX_LOAD_SESSIONS`, `AX_LOAD_ACTIVE` and `AX_LOAD_FOLLOWERS` say how much;
//! without them it is a small load. Times are figures, not conditions.

#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::print_stdout, reason = "its figures are its purpose")]

#[expect(dead_code, reason = "only a part of it is needed here")]
#[path = "crash/server.rs"]
mod server;

mod load {
    pub(crate) use super::server;

    pub(crate) mod follower;
    pub(crate) mod memory;
    pub(crate) mod worker;
}

use ax_client::Client;
use ax_fakemodel::{FakeModel, Options, Script};
use ax_proto::v1;
use load::follower::Place;
use load::memory::Memory;
use load::server::Server;
use load::{follower, worker};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How the model answers: a text in pieces, two a second, so that a turn takes some seconds.
const SCRIPT: &str = r#"{"version": 1, "turns": [{"when": {"text": "slowly"},
    "text": "one two three four five six seven eight nine ten eleven twelve",
    "pace": {"chunk_chars": 4, "chunk_delay_millis": 500}}]}"#;
/// How many gRPC clients share a connection.
const CLIENTS_EACH: usize = 100;
/// How long the followers may take to get everything when the work is over.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);

/// How much load there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) sessions: usize,
    pub(crate) active: usize,
    pub(crate) followers: usize,
    pub(crate) seconds: u64,
}

fn number(variable: &str, default: usize) -> usize {
    let Ok(text) = std::env::var(variable) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number"))
}

#[test]
fn under_load_nothing_fails_and_every_session_gets_on() {
    let size = Size {
        sessions: number("AX_LOAD_SESSIONS", 200),
        active: number("AX_LOAD_ACTIVE", 20),
        followers: number("AX_LOAD_FOLLOWERS", 60),
        seconds: number("AX_LOAD_SECONDS", 10) as u64,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    println!("{}", runtime.block_on(run(size, dir.path())));
}

async fn run(size: Size, dir: &Path) -> serde_json::Value {
    let script = Script::from_json(SCRIPT).unwrap();
    let model = FakeModel::start(Options { script, ..Options::default() }).await.unwrap();
    let data = dir.join("data");
    // Room for those that begin while others end.
    let runs_max = (size.active * 2).to_string();
    let mut server = Server::start(&data, &["--runs-max", &runs_max]);
    server.ready().await;
    let clients: Vec<Client> =
        (0..size.active.div_ceil(CLIENTS_EACH)).map(|_| server::client(&data)).collect();
    apply_agent(&clients[0], &model).await;
    let began = Instant::now();
    worker::begin_all(&clients, size).await;
    let begin_millis = u64::try_from(began.elapsed().as_millis()).unwrap();
    let done = CancellationToken::new();
    let memory = Arc::new(Memory::default());
    let watching = tokio::spawn(Arc::clone(&memory).watch(server.pid(), done.clone()));
    let mut followers = JoinSet::new();
    let mut places = Vec::new();
    for number in 0..size.followers {
        let session = worker::name(number * size.sessions / size.followers);
        let place = Place { session, last: Arc::default() };
        places.push(place.clone());
        followers.spawn(follower::follow(data.clone(), number, place, done.clone()));
    }
    let until = Instant::now() + Duration::from_secs(size.seconds);
    let turns = worker::work(&clients, size, until).await;
    caught_up(&clients[0], &places).await;
    done.cancel();
    watching.await.unwrap();
    let mut delivered = 0;
    while let Some(followed) = followers.join_next().await {
        delivered += followed.unwrap();
    }
    let ended = server.has_ended();
    assert!(ended.is_none(), "the server has ended: {ended:?}; {}", server.errors());
    server.stop();
    let figures = worker::Figures::of(turns);
    let (first_kib, most_kib, last_kib) = memory.figures();
    serde_json::json!({
        "name": "load", "sessions": size.sessions, "active": size.active,
        "followers": size.followers, "seconds": size.seconds, "errors": 0,
        "begin_millis": begin_millis, "turns": figures.turns, "delivered": delivered,
        "first_event_micros_median": figures.median, "first_event_micros_p99": figures.p99,
        "first_event_micros_most": figures.most, "ratio_percent": figures.ratio_percent,
        "memory_kib_first": first_kib, "memory_kib_most": most_kib, "memory_kib_last": last_kib,
    })
}

/// Waits until every follower has everything.
///
/// # Panics
///
/// Panics if one does not get there.
async fn caught_up(client: &Client, places: &[Place]) {
    let deadline = Instant::now() + CATCH_UP_MAX;
    for Place { session, last } in places {
        let request = v1::GetSessionRequest { session: session.clone(), ..Default::default() };
        let head = client.get_session(request).await.unwrap().session.unwrap().last;
        while last.load(Ordering::Relaxed) < head {
            assert!(Instant::now() < deadline, "the follower of {session} is left behind");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn apply_agent(client: &Client, model: &FakeModel) {
    let manifest = format!(
        "apiVersion: agentexecutor.dev/v1\nkind: Agent\nmetadata: {{name: talker}}\nspec:\n  \
         sandbox: process\n  harness: {{type: builtin, model: {{provider: anthropic, name: m, \
         base_url: \"{}\"}}}}\n",
        model.base_url()
    );
    let request = v1::ApplyAgentRequest { manifest, ..Default::default() };
    client.apply_agent(request).await.unwrap();
}
