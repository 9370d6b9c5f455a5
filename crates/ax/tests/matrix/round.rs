//! One round: a harness works once, and somebody is killed on the way.

use crate::dice::Dice;
use crate::judge::{CALL_COUNT, Counts, Left, answered};
use crate::person;
use crate::rows::{Installed, Row};
use crate::server::{self, Found, Server};
use ax_fakemodel::{FakeModel, Options, Script};
use ax_proto::v1;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a tool lingers after its effect, in seconds: long enough to be killed then.
pub(crate) const LINGER_SECONDS: &str = "0.15";
/// How often somebody is killed in a round.
const KILL_COUNT: u64 = 2;
/// How long the next attempt is waited for.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
/// How long a call is waited for.
const CALL_MAX: Duration = Duration::from_secs(120);

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Harness,
    Server,
    Both,
}

/// Lets a harness work once, and somebody be killed on the way.
pub(crate) async fn play(row: Row, installed: &Installed, seed: u64, counts: &mut Counts) {
    let mut dice = Dice::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let (data, effects) = (dir.path().join("data"), dir.path().join("effects.txt"));
    let script = Script::from_json(&row.script()).unwrap();
    let model = FakeModel::start(Options { script, ..Options::default() }).await.unwrap();
    let mut server = Server::start(&data, &[]);
    server.ready().await;
    let client = server::client(&data);
    let request = v1::ApplyAgentRequest {
        manifest: row.manifest(installed, &model.base_url(), &effects),
        dir: row.example().display().to_string(),
        ..Default::default()
    };
    client.apply_agent(request).await.unwrap();
    person::submit(&client, &row.agent()).await;
    let unknown = Arc::new(AtomicU64::new(0));
    let answering = person::answer(client.clone(), effects.clone(), Arc::clone(&unknown));
    let answering = tokio::spawn(answering);
    let mut servers_killed = 0;
    // The moments are places in the conversation, each of them later than the one before.
    for kill in 0..KILL_COUNT {
        let span = CALL_COUNT as u64 / KILL_COUNT;
        let calls = kill * span + dice.between(1, span);
        let pause = Duration::from_millis(dice.between(0, 350));
        let victim = match dice.pick(&[Victim::Harness, Victim::Server, Victim::Both]) {
            _ if row.is_built_in() => Victim::Both,
            victim => victim,
        };
        asked(&model, calls, &mut server).await;
        tokio::time::sleep(pause).await;
        let harness = match victim {
            Victim::Harness => running(dir.path()).await,
            Victim::Server | Victim::Both => harness(dir.path()),
        };
        if victim == Victim::Harness {
            // It may be done: then nobody was killed.
            counts.kills += u64::from(!harness.is_empty());
            harness.iter().for_each(Found::kill);
            continue;
        }
        counts.kills += 1;
        servers_killed += 1;
        server.kill();
        if victim == Victim::Both {
            harness.iter().for_each(Found::kill);
        }
        server = Server::start(&data, &[]);
        server.ready().await;
    }
    person::rest(&client).await;
    answering.abort();
    counts.unknown += unknown.load(Ordering::Relaxed);
    let (events, effects) = (person::events(&client).await, person::effects(&effects));
    let (events, effects) = (&events, &effects);
    counts.judge(&Left { seed, servers_killed, events, effects, model: &model });
    assert!(server.stop().success());
    assert!(working_in(dir.path()).is_empty(), "nothing is left");
}

/// Finds the processes of the harness: all that work in the directory but the tool server.
fn harness(dir: &Path) -> Vec<Found> {
    let mut found = working_in(dir);
    found.retain(|found| !of(found, "cmdline").contains("warehouse.py"));
    found
}

/// Finds the processes of the harness as soon as there are some; it may be between two attempts.
async fn running(dir: &Path) -> Vec<Found> {
    let began = Instant::now();
    loop {
        let found = harness(dir);
        if !found.is_empty() || began.elapsed() > ATTEMPT_MAX {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Finds the processes of attempts whose workspace is below a directory, other than supervisors.
fn working_in(dir: &Path) -> Vec<Found> {
    let workspace = format!("AX_WORKSPACE={}/", dir.display());
    let mut found = server::find("");
    found.retain(|found| of(found, "environ").split('\0').any(|one| one.starts_with(&workspace)));
    found
}

/// Reads what the system knows of a process; nothing if it is gone.
fn of(found: &Found, what: &str) -> String {
    let bytes = fs::read(format!("/proc/{}/{what}", found.pid)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits until the model was asked so often for something new.
async fn asked(model: &FakeModel, calls: u64, server: &mut Server) {
    let began = Instant::now();
    while (answered(model) as u64) < calls {
        assert!(server.has_ended().is_none(), "{}", server.errors());
        assert!(began.elapsed() < CALL_MAX, "it does not get on: {}", server.errors());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
