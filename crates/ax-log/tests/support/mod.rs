//! Two logs side by side: the embedded one and the model that it must agree with.

#![allow(dead_code)]
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ax_core::id::{Namespace, Seq, SessionId, SessionKey};
use ax_log::embedded::fake::FakeDisk;
use ax_log::embedded::{Limits, ShuffleSpawner, TaskSpawner};
use ax_log::{
    Append, EmbeddedLog, EventLog, Filter, ListQuery, MemoryLog, OpenError, Options, ReadLimit, Row,
};
use bytes::Bytes;
use futures::future::join_all;

/// Random numbers by a seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }
}

/// Seeds to try, other ones each time. Says which one it was if a test fails.
pub(crate) struct Seeds {
    next: u64,
    left: u64,
}

/// Returns `count` seeds: from the one that `AX_SEED` names, or else from a fresh one.
pub(crate) fn seeds(count: u64) -> Seeds {
    let given = std::env::var("AX_SEED").ok().and_then(|text| text.parse().ok());
    let next = given.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_secs() % 1_000_000_000
    });
    Seeds { next, left: count }
}

impl Iterator for Seeds {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        self.next = self.next.wrapping_add(1);
        Some(self.next.wrapping_sub(1))
    }
}

#[expect(clippy::print_stderr, reason = "it is what the reader of a failed test looks for")]
impl Drop for Seeds {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.next.wrapping_sub(1);
            eprintln!("seed {seed} failed; see it again with AX_SEED={seed}");
        }
    }
}

/// A change to one session (or of one, to a new one).
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Append { session: u128, count: u64, snapshot: bool },
    Branch { parent: u128, child: u128 },
    Cut { session: u128 },
    Delete { session: u128 },
}

pub(crate) const SESSION_COUNT: u64 = 12;

pub(crate) fn key(session: u128) -> SessionKey {
    let name = if session.is_multiple_of(3) { "third" } else { "default" };
    SessionKey::new(Namespace::new(name).unwrap(), SessionId(session))
}

pub(crate) fn options(disk: &FakeDisk, limits: Limits) -> Options {
    Options {
        disk: Arc::new(disk.clone()),
        spawner: Arc::new(TaskSpawner),
        limits,
        store: Some(11),
        ..Options::new("/data")
    }
}

/// Opens a log whose commit loops overtake each other at random.
pub(crate) fn open_shuffled(disk: &FakeDisk, seed: u64) -> Result<EmbeddedLog, OpenError> {
    let spawner = Arc::new(ShuffleSpawner::new(seed));
    EmbeddedLog::open(&Options { spawner, ..options(disk, Limits::tiny()) })
}

pub(crate) fn open(disk: &FakeDisk) -> Result<EmbeddedLog, OpenError> {
    EmbeddedLog::open(&options(disk, Limits::tiny()))
}

/// Draws changes of different sessions, to be made at the same time.
pub(crate) fn changes(dice: &mut Dice, born: &mut u128) -> Vec<Change> {
    let mut used = Vec::new();
    let mut changes = Vec::new();
    for _ in 0..=dice.below(6) {
        let session = u128::from(dice.below(SESSION_COUNT)) + 1;
        if used.contains(&session) {
            continue;
        }
        used.push(session);
        changes.push(match dice.below(30) {
            0 => Change::Delete { session },
            1 | 2 => Change::Cut { session },
            3 | 4 => {
                // A branch stays in the namespace of its parent.
                *born += 3;
                Change::Branch { parent: session, child: *born + session % 3 }
            }
            n => Change::Append { session, count: dice.below(9), snapshot: n == 5 },
        });
    }
    changes
}

/// Makes a change. Returns whether it was made; `Err` if the log could not say.
pub(crate) async fn make(log: &dyn EventLog, change: &Change) -> Result<bool, ()> {
    use ax_log::{AcquireError, AppendError, BranchError, CutError, DeleteError};
    match change {
        Change::Append { session, count, snapshot } => {
            let key = key(*session);
            let lease = match log.acquire(&key).await {
                Ok(lease) => lease,
                Err(AcquireError::Deleted) => return Ok(false),
                Err(AcquireError::Fault(_)) => return Err(()),
            };
            let last = lease.next.0 - 1 + count;
            let entries = (lease.next.0..=last).map(|seq| payload(*session, seq)).collect();
            let append = Append {
                key: key.clone(),
                epoch: lease.epoch,
                expected: lease.next,
                entries,
                row: (count % 3 == 0 && !(*count == 0 && *snapshot))
                    .then(|| Row { data: format!("{session} at {last}").into(), ..Row::default() }),
                snapshot: snapshot.then(|| format!("{session} to {last}").into()),
            };
            let appended = log.append(append).await;
            log.release(&key, lease.epoch);
            match appended {
                Ok(seq) => assert_eq!(seq, Seq(last)),
                Err(AppendError::Fault(_)) => return Err(()),
                Err(other) => panic!("{other:?}"),
            }
            Ok(true)
        }
        Change::Branch { parent, child } => {
            let parent = key(*parent);
            let Some(head) = log.head(&parent).await.map_err(drop)? else { return Ok(false) };
            let at = Seq(u64::midpoint(head.first.0.saturating_sub(1), head.last.0));
            let row = Row { data: "branched".into(), ..Row::default() };
            match log.branch(&parent, at, SessionId(*child), row).await {
                Ok(()) => Ok(true),
                Err(BranchError::Fault(_)) => Err(()),
                Err(other) => panic!("{other:?}"),
            }
        }
        Change::Cut { session } => {
            let key = key(*session);
            let Some(head) = log.head(&key).await.map_err(drop)? else { return Ok(false) };
            let below = Seq(u64::midpoint(head.first.0, head.last.0) + 1);
            match log.cut(&key, below).await {
                Ok(()) => Ok(true),
                Err(CutError::Uncovered { .. }) => Ok(false),
                Err(CutError::Fault(_)) => Err(()),
                Err(other) => panic!("{other:?}"),
            }
        }
        Change::Delete { session } => match log.delete(&key(*session)).await {
            Ok(()) => Ok(true),
            Err(DeleteError::NotFound) => Ok(false),
            Err(DeleteError::Fault(_)) => Err(()),
        },
    }
}

/// Makes a change on the model if the log turns out to have made it.
pub(crate) async fn catch_up(log: &dyn EventLog, model: &MemoryLog, change: &Change) {
    let session = match change {
        Change::Append { session, .. } | Change::Cut { session } | Change::Delete { session } => {
            *session
        }
        Change::Branch { child, .. } => *child,
    };
    let (key, all) = (key(session), Seq(u64::MAX));
    let (is, was) = (log.head(&key).await.unwrap(), model.head(&key).await.unwrap());
    let snapshot = log.snapshot(&key, all).await.unwrap();
    if is != was || snapshot != model.snapshot(&key, all).await.unwrap() {
        assert!(make(model, change).await.unwrap(), "{change:?} was made in part");
    }
}

pub(crate) fn payload(session: u128, seq: u64) -> Bytes {
    let length = usize::try_from((seq * 131) % 700).unwrap();
    Bytes::from(format!("{session}/{seq}/{}", "p".repeat(length)))
}

/// Asserts that two logs hold the same.
pub(crate) async fn assert_same(log: &dyn EventLog, model: &dyn EventLog) {
    assert_eq!(log.namespaces().await.unwrap(), model.namespaces().await.unwrap());
    for namespace in model.namespaces().await.unwrap() {
        let rows = rows(model, &namespace, 1000).await;
        assert_eq!(self::rows(log, &namespace, 3).await, rows);
        for row in rows {
            let key = SessionKey::new(namespace.clone(), row.session);
            let first = row.head.first.0;
            let half = u64::midpoint(first, row.head.last.0);
            // Everything may be cut away.
            let newest = row.head.last.0.saturating_sub(1).max(first - 1);
            for after in [first - 1, half, newest] {
                let expect = read(model, &key, after, 1000).await;
                assert_eq!(read(log, &key, after, 5).await, expect, "{key} after {after}");
                let at = Seq(after);
                let expect = model.snapshot(&key, at).await.unwrap();
                assert_eq!(log.snapshot(&key, at).await.unwrap(), expect, "{key} to {after}");
            }
            assert_eq!(log.head(&key).await.unwrap(), Some(row.head));
        }
    }
}

async fn rows(log: &dyn EventLog, namespace: &Namespace, limit: usize) -> Vec<ax_log::RowEntry> {
    let mut rows = Vec::new();
    let mut after = None;
    loop {
        let namespace = namespace.clone();
        let query = ListQuery { namespace, after, limit, filter: Filter::default() };
        let page = log.list(query).await.unwrap();
        rows.extend(page.rows);
        after = page.next;
        if after.is_none() {
            return rows;
        }
    }
}

pub(crate) async fn read(
    log: &dyn EventLog,
    key: &SessionKey,
    mut after: u64,
    limit: usize,
) -> Vec<ax_log::Entry> {
    let mut entries = Vec::new();
    loop {
        let limit = ReadLimit { entries: limit, bytes: 1 << 30 };
        let more = log.read(key, Seq(after), limit).await.unwrap();
        let Some(last) = more.last() else { return entries };
        after = last.seq.0;
        entries.extend(more);
    }
}

/// Returns the names of the log's files.
pub(crate) fn files(disk: &FakeDisk) -> Vec<String> {
    ax_log::embedded::Disk::list(disk, Path::new("/data")).unwrap()
}

/// Makes a store with a history of rotations, merges, branches, cuts and deletions.
pub(crate) async fn store(seed: u64) -> (FakeDisk, MemoryLog) {
    let (disk, model) = (FakeDisk::new(seed), MemoryLog::new());
    let mut dice = Dice(seed);
    let mut born = 999;
    let log = open(&disk).unwrap();
    for _ in 0..120 {
        let batch = changes(&mut dice, &mut born);
        join_all(batch.iter().map(|change| make(&log, change))).await;
        join_all(batch.iter().map(|change| make(&model, change))).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_same(&log, &model).await;
    log.close().await.unwrap();
    (disk, model)
}

/// Returns a disk with the same files.
pub(crate) fn copy(disk: &FakeDisk) -> FakeDisk {
    let copy = FakeDisk::new(1);
    for name in files(disk) {
        let path = Path::new("/data").join(name);
        copy.set_content(&path, &disk.content(&path).unwrap());
    }
    copy
}

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new("/data").join(name)
}
