//! A restart with many sessions in the middle of an execution.

use crate::harness::Functions;
use crate::world::World;
use crate::{Arguments, round1, say};
use ax_core::session::EffectClass;
use serde_json::json;
use std::io::{BufRead as _, BufReader};
use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::Notify;
use tokio::task::JoinSet;

const SESSIONS_DEFAULT: usize = 10_000;
/// As many as `ax serve` runs at once, unless it is told otherwise.
const RUNS_MAX: usize = 64;
/// How many clients submit at once.
const CLIENT_COUNT: usize = 256;

/// Times from the opening of the store: until the first attempt runs, until every session has its
/// attempt, and until every session has ended.
pub(crate) async fn resume(arguments: &Arguments) {
    let count = arguments.sessions.unwrap_or(SESSIONS_DEFAULT);
    let dir = tempfile::tempdir_in(&arguments.dir).unwrap();
    kill_in_the_middle(dir.path(), count);
    let began = Instant::now();
    let resumed: Arc<Mutex<Vec<f64>>> = Arc::default();
    let ended = Arc::new((AtomicUsize::new(0), Notify::new()));
    let (times, over) = (Arc::clone(&resumed), Arc::clone(&ended));
    let harness = Functions::new(move |launch, mut talk| {
        times.lock().unwrap().push(began.elapsed().as_secs_f64());
        let over = Arc::clone(&over);
        async move {
            talk.step(&launch, "first".into(), EffectClass::Idempotent).await;
            talk.step(&launch, "second".into(), EffectClass::Idempotent).await;
            talk.end().await;
            over.0.fetch_add(1, Ordering::SeqCst);
            over.1.notify_one();
        }
    });
    let world = World::open(dir.path(), RUNS_MAX, harness).await;
    let open = began.elapsed().as_secs_f64();
    while ended.0.load(Ordering::SeqCst) < count {
        ended.1.notified().await;
    }
    world.asleep().await;
    let all = began.elapsed().as_secs_f64();
    let resumed = std::mem::take(&mut *resumed.lock().unwrap());
    assert_eq!(resumed.len(), count, "each session has one more attempt");
    say(&json!({
        "name": "resume", "sessions": count, "runs_max": RUNS_MAX,
        "open_seconds": round3(open), "first_seconds": round3(resumed[0]),
        "last_seconds": round3(resumed[count - 1]), "ended_seconds": round3(all),
        "resumed_per_second": round1(count as f64 / resumed[count - 1]),
    }));
    world.engine.shutdown().await;
}

fn round3(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// Runs `begin` in a process of its own, and kills it.
fn kill_in_the_middle(dir: &std::path::Path, count: usize) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["resume-begin", "--sessions", &count.to_string(), "--dir"])
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "ready");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Brings every session to where it has one step behind it, says so, and waits to be killed.
pub(crate) async fn begin(arguments: &Arguments) {
    let count = arguments.sessions.unwrap_or(SESSIONS_DEFAULT);
    let there = Arc::new((AtomicUsize::new(0), Notify::new()));
    let reached = Arc::clone(&there);
    let harness = Functions::new(move |launch, mut talk| {
        let reached = Arc::clone(&reached);
        async move {
            talk.step(&launch, "first".into(), EffectClass::Idempotent).await;
            reached.0.fetch_add(1, Ordering::SeqCst);
            reached.1.notify_one();
            std::future::pending().await
        }
    });
    let world = Arc::new(World::open(&arguments.dir, count, harness).await);
    world.apply_agent().await;
    submit_all(&world, 0..count, false).await;
    while there.0.load(Ordering::SeqCst) < count {
        there.1.notified().await;
    }
    println!("ready");
    std::future::pending().await
}

/// Submits an input to each of these new sessions; may wait until it is done with.
pub(crate) async fn submit_all(world: &Arc<World>, sessions: Range<usize>, finish: bool) {
    let mut clients = JoinSet::new();
    for client in 0..CLIENT_COUNT {
        let (world, sessions) = (Arc::clone(world), sessions.clone());
        clients.spawn(async move {
            for number in sessions.skip(client).step_by(CLIENT_COUNT) {
                let name = format!("s{number}");
                let submitted = world.submit(&name, "go").await;
                if finish {
                    world.finished(&name, submitted.seq).await;
                }
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
}
