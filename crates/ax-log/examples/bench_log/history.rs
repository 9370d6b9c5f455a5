//! What a long history and many sleeping sessions cost.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use ax_core::id::{Seq, SessionId};
use ax_log::{Append, EmbeddedLog, EventLog as _, Lease, ReadLimit, Row};
use bytes::Bytes;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::closed_loop::{key, payloads};
use crate::{anonymous_bytes, fresh, kept_bytes, open_log, round2, say, written_bytes};

const EVENT_COUNT: usize = 1_000_000;
const EVENT_BYTES: usize = 1024;
const BATCH_COUNT: usize = 512;
const LONG_COUNT: usize = 10_000;
const SHORT_COUNT: usize = 100;
const SLEEPING_COUNT: usize = 1_000_000;
const WAKE_COUNT: usize = 10_000;

fn append(session: usize, lease: &Lease, entries: Vec<Bytes>) -> Append {
    Append {
        key: key(session),
        epoch: lease.epoch,
        expected: lease.next,
        entries,
        row: None,
        snapshot: None,
    }
}

/// Runs a piece in a process of its own, which leaves without closing anything.
fn child(piece: &str, dir: &Path) -> Value {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).arg(piece).arg(dir).output().unwrap();
    assert!(output.status.success(), "{piece}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Writes until segments have their full length and there are spare ones, as in any store that
/// has been in use for a while.
pub(crate) async fn grow(log: &EmbeddedLog) {
    const GROWN_RUNS: usize = 6;
    let payload = Bytes::from(vec![b'g'; 64 * 1024]);
    let mut lease = log.acquire(&key(usize::MAX - 1)).await.unwrap();
    while log.run_count() < GROWN_RUNS {
        let entries = vec![payload.clone(); 16];
        let append = append(usize::MAX - 1, &lease, entries);
        lease.next = log.append(append).await.unwrap().next();
    }
    log.release(&key(usize::MAX - 1), lease.epoch);
}

/// Loads a history in another process, then opens it twice and reads.
pub(crate) async fn open(dir: &Path) {
    let place = fresh(dir);
    let loaded = child("load", place.path());
    for attempt in 1..=3 {
        let before = Instant::now();
        let log = open_log(place.path());
        let millis = before.elapsed().as_secs_f64() * 1000.0;
        let (tail_p50, tail_p99) = tails(&log).await;
        let scan_millis = scan(&log).await;
        say(&json!({
            "piece": "open", "events": EVENT_COUNT, "attempt": attempt,
            "open_millis": round2(millis), "tail_10_micros_p50": tail_p50,
            "tail_10_micros_p99": tail_p99, "scan_10k_millis": round2(scan_millis),
            "kept_per_payload":
                round2(kept_bytes(place.path()) as f64 / (EVENT_COUNT * EVENT_BYTES) as f64),
            "runs": log.run_count(), "load": loaded, "anonymous_bytes": anonymous_bytes(),
        }));
        log.close().await.unwrap();
    }
}

async fn tails(log: &EmbeddedLog) -> (f64, f64) {
    let mut micros = Vec::new();
    for round in 0..20_000_usize {
        let session = 1 + (round * 7919) % ((EVENT_COUNT - LONG_COUNT) / SHORT_COUNT);
        let before = Instant::now();
        let after = Seq(SHORT_COUNT as u64 - 10);
        let read = log.read(&key(session), after, ReadLimit::default()).await.unwrap();
        micros.push(before.elapsed().as_secs_f64() * 1e6);
        assert_eq!(read.len(), 10);
    }
    micros.sort_by(f64::total_cmp);
    (round2(micros[micros.len() / 2]), round2(micros[micros.len() * 99 / 100]))
}

async fn scan(log: &EmbeddedLog) -> f64 {
    let before = Instant::now();
    let mut after = Seq::ZERO;
    loop {
        let read = log.read(&key(0), after, ReadLimit::default()).await.unwrap();
        let Some(last) = read.last() else { break };
        after = last.seq;
    }
    assert_eq!(after, Seq(LONG_COUNT as u64));
    before.elapsed().as_secs_f64() * 1000.0
}

/// Writes one long session and many short ones, interleaved, and leaves at once.
pub(crate) async fn load(dir: &Path) {
    let log = open_log(dir);
    let payloads = payloads(EVENT_BYTES);
    let (before, started) = (written_bytes(), Instant::now());
    let sessions = (EVENT_COUNT - LONG_COUNT) / SHORT_COUNT;
    let mut leases = Vec::new();
    for session in 0..=sessions {
        leases.push(log.acquire(&key(session)).await.unwrap());
    }
    let mut order = (0..EVENT_COUNT - LONG_COUNT).map(|at| 1 + at % sessions);
    let mut long = 0;
    let mut done = 0;
    while done < EVENT_COUNT {
        let mut batch = Vec::new();
        while batch.len() < BATCH_COUNT && done < EVENT_COUNT {
            let due = long * EVENT_COUNT < done * LONG_COUNT;
            let session = if due && long < LONG_COUNT { 0 } else { order.next().unwrap_or(0) };
            long += usize::from(session == 0);
            let lease = &mut leases[session];
            batch.push(log.append(append(session, lease, vec![payloads[done % 64].clone()])));
            lease.next = lease.next.next();
            done += 1;
        }
        for result in join_all(batch).await {
            result.unwrap();
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let payload = (EVENT_COUNT * EVENT_BYTES) as f64;
    say(&json!({
        "rate": (EVENT_COUNT as f64 / seconds).round(),
        "written_per_payload": round2((written_bytes() - before) as f64 / payload),
        "kept_per_payload": round2(kept_bytes(dir) as f64 / payload),
    }));
    std::process::exit(0);
}

/// Makes many sessions, each with an entry and a row, all asleep, and looks at the memory.
pub(crate) async fn sleeping(dir: &Path) {
    let place = fresh(dir);
    let log = open_log(place.path());
    let empty = anonymous_bytes();
    let row = Row { state: 1, data: Bytes::from(vec![b'r'; 100]), ..Row::default() };
    let mut growth = Vec::new();
    let started = Instant::now();
    for batch in 0..SLEEPING_COUNT / 1000 {
        let sleepers = (0..1000).map(|at| sleeper(&log, batch * 1000 + at, &row));
        join_all(sleepers).await;
        if (batch + 1) % 200 == 0 {
            growth.push(json!({ "sessions": (batch + 1) * 1000, "bytes": anonymous_bytes() }));
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let after = anonymous_bytes();
    let cached = log.cache_bytes();
    log.close().await.unwrap();
    drop(log);
    let woken = child("wake", place.path());
    say(&json!({
        "piece": "sleeping", "sessions": SLEEPING_COUNT, "made_per_second":
            (SLEEPING_COUNT as f64 / seconds).round(),
        "anonymous_bytes_empty": empty, "anonymous_bytes": after, "cache_bytes": cached,
        "growth": growth,
        "bytes_per_session": round2((after - empty) as f64 / SLEEPING_COUNT as f64),
        "kept_bytes": kept_bytes(place.path()), "after_restart": woken,
    }));
}

async fn sleeper(log: &EmbeddedLog, session: usize, row: &Row) {
    let lease = log.acquire(&key(session)).await.unwrap();
    let mut append = append(session, &lease, vec![Bytes::from_static(&[7; 200])]);
    append.row = Some(row.clone());
    log.append(append).await.unwrap();
    log.release(&key(session), lease.epoch);
}

/// Opens a store of sleeping sessions, wakes some of them, and looks at the memory.
pub(crate) async fn wake(dir: &Path) {
    let before = Instant::now();
    let log = open_log(dir);
    let open_millis = round2(before.elapsed().as_secs_f64() * 1000.0);
    let opened = anonymous_bytes();
    let mut micros = Vec::new();
    for round in 0..WAKE_COUNT {
        let session = (round * 7919) % SLEEPING_COUNT;
        let before = Instant::now();
        let lease = log.acquire(&key(session)).await.unwrap();
        assert_eq!(lease.next, Seq(2));
        log.release(&key(session), lease.epoch);
        micros.push(before.elapsed().as_secs_f64() * 1e6);
    }
    micros.sort_by(f64::total_cmp);
    say(&json!({
        "open_millis": open_millis, "anonymous_bytes_opened": opened,
        "anonymous_bytes_after_waking": anonymous_bytes(), "cache_bytes": log.cache_bytes(),
        "runs": log.run_count(), "wake_micros_p50": round2(micros[WAKE_COUNT / 2]),
        "wake_micros_p99": round2(micros[WAKE_COUNT * 99 / 100]),
    }));
    std::process::exit(0);
}

/// Branches sessions of several lengths and depths beside single appends.
pub(crate) async fn branch(dir: &Path) {
    let place = fresh(dir);
    let log = open_log(place.path());
    let payloads = payloads(EVENT_BYTES);
    for (number, length) in [10_usize, 1_000, 10_000].into_iter().enumerate() {
        let mut lease = log.acquire(&key(number)).await.unwrap();
        while lease.next.0 <= length as u64 {
            let count = (length + 1 - usize::try_from(lease.next.0).unwrap()).min(100);
            let entries = payloads.iter().cycle().take(count).cloned().collect();
            lease.next = log.append(append(number, &lease, entries)).await.unwrap().next();
        }
        let (mut branches, mut appends) = (Vec::new(), Vec::new());
        for child in 0..300_u128 {
            let before = Instant::now();
            let at = Seq(length as u64);
            let child = SessionId(((number as u128 + 1) << 64) + child);
            log.branch(&key(number), at, child, Row::default()).await.unwrap();
            branches.push(before.elapsed().as_secs_f64() * 1000.0);
            let before = Instant::now();
            let one = append(number, &lease, vec![payloads[0].clone()]);
            lease.next = log.append(one).await.unwrap().next();
            appends.push(before.elapsed().as_secs_f64() * 1000.0);
        }
        branches.sort_by(f64::total_cmp);
        appends.sort_by(f64::total_cmp);
        say(&json!({
            "piece": "branch", "events": length,
            "branch_millis_p50": round2(branches[150]), "append_millis_p50": round2(appends[150]),
            "ratio": round2(branches[150] / appends[150]),
        }));
    }
    log.close().await.unwrap();
}
