//! Random changes on a disk that loses power at random moments, compared with the model.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::path::Path;
use std::sync::Arc;

use ax_log::embedded::fake::FakeDisk;
use ax_log::embedded::{Disk, Limits};
use ax_log::{Append, EmbeddedLog, EventLog, Lease, MemoryLog, Options, fsck};
use bytes::Bytes;
use futures::future::join_all;
use support::{
    Dice, assert_same, catch_up, changes, key, make, open, open_shuffled, options, read,
};

/// How many seeds are tried.
const SEED_COUNT: u64 = 40;
const LIFE_COUNT: usize = 5;
const BATCH_COUNT: usize = 60;

/// Lives through one life of the process: opens, changes, and ends where the power fails. Returns
/// the disk as it is then.
async fn live(disk: &FakeDisk, model: &MemoryLog, dice: &mut Dice, born: &mut u128) -> FakeDisk {
    if dice.below(4) > 0 {
        disk.crash_after(dice.below(250));
    }
    let Ok(log) = open_shuffled(disk, dice.below(u64::MAX)) else {
        assert!(disk.is_dead(), "a log opens unless the power fails");
        return disk.crash();
    };
    let log = Arc::new(log);
    for _ in 0..BATCH_COUNT {
        let batch = changes(dice, born);
        let made = batch.iter().map(|change| {
            let (log, delay) = (&*log, dice.below(30));
            async move {
                // So that they do not all come together in one block.
                for _ in 0..delay {
                    tokio::task::yield_now().await;
                }
                make(log, change).await
            }
        });
        let made = join_all(made).await;
        let mut unknown = Vec::new();
        for (change, made) in batch.iter().zip(made) {
            match made {
                Ok(made) => assert_eq!(make(model, change).await, Ok(made), "{change:?}"),
                Err(()) => unknown.push(change),
            }
        }
        if disk.is_dead() {
            // What was cut short may have been made, but then as a whole.
            let after = disk.crash();
            let log = open(&after).unwrap();
            for change in unknown {
                catch_up(&log, model, change).await;
            }
            return after.crash();
        }
        assert!(unknown.is_empty());
        if dice.below(10) == 0 {
            // Lets the background loops get on.
            tokio::time::sleep(std::time::Duration::from_millis(dice.below(40))).await;
        }
    }
    assert_same(&*log, model).await;
    if dice.below(2) == 0 {
        log.close().await.unwrap();
    }
    disk.crash()
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_survives_and_what_was_not_is_whole_or_absent() {
    for seed in support::seeds(SEED_COUNT) {
        let mut dice = Dice(seed);
        let mut disk = FakeDisk::new(seed);
        let model = MemoryLog::new();
        let mut born = 999;
        for _ in 0..LIFE_COUNT {
            disk = live(&disk, &model, &mut dice, &mut born).await;
            let log = open(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_same(&log, &model).await;
            drop(log);
            disk = disk.crash();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_store_survives_with_the_directories_above_it() {
    for seed in support::seeds(40) {
        let disk = FakeDisk::new(seed);
        let options = Options { dir: "/new/er/data".into(), ..options(&disk, Limits::tiny()) };
        // A process before this one was killed when it had made some of them.
        for dir in ["/new", "/new/er"].iter().take(usize::try_from(seed % 3).unwrap()) {
            Disk::create_dir(&disk, Path::new(dir)).unwrap();
            if seed % 3 == 2 {
                Disk::sync_dir(&disk, Path::new("/")).unwrap();
            }
        }
        let log = EmbeddedLog::open(&options).unwrap();
        let mut leases = [log.acquire(&key(1)).await.unwrap()];
        append_all(&log, &mut leases, &mut [0]).await;
        let disk = disk.crash();
        let log = EmbeddedLog::open(&Options { disk: Arc::new(disk), ..options }).unwrap();
        assert_eq!(read(&log, &key(1), 0, 100).await.len(), 1, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_repair_put_aside_survives() {
    for seed in support::seeds(40) {
        let disk = FakeDisk::new(seed);
        let log = open(&disk).unwrap();
        let mut leases = [log.acquire(&key(1)).await.unwrap()];
        append_all(&log, &mut leases, &mut [0]).await;
        log.close().await.unwrap();
        Disk::remove(&disk, Path::new("/data/MANIFEST")).unwrap();
        let repaired = fsck::repair(&options(&disk, Limits::tiny())).unwrap();
        let kept = repaired.quarantine.unwrap();
        assert!(!Disk::list(&disk.crash(), &kept).unwrap().is_empty(), "seed {seed}");
    }
}

/// Whether a block got lost while one that was under way with it did not.
fn is_out_of_order(disk: &FakeDisk) -> bool {
    let report = fsck::check(&options(disk, Limits::tiny())).unwrap();
    assert!(report.is_sound(), "{report:?}");
    report.findings.iter().any(|finding| finding.what.contains("is whole, but block"))
}

/// An entry of which one to each block fits.
fn entry(session: u128, seq: u64) -> Bytes {
    let byte = u8::try_from((u64::try_from(session).unwrap() * 31 + seq) % 256).unwrap();
    let length = if (session + u128::from(seq)).is_multiple_of(3) { 900 } else { 3800 };
    vec![byte; length].into()
}

/// Appends one entry to each session at once, and notes what was acknowledged.
async fn append_all(log: &EmbeddedLog, leases: &mut [Lease], lasts: &mut [u64]) {
    let appends =
        leases.iter_mut().zip(lasts).zip(1..).map(|((lease, last), session)| async move {
            let append = Append {
                key: key(session),
                epoch: lease.epoch,
                expected: lease.next,
                entries: vec![entry(session, lease.next.0)],
                row: None,
                snapshot: None,
            };
            if let Ok(seq) = log.append(append).await {
                (*last, lease.next) = (seq.0, seq.next());
            }
        });
    join_all(appends).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_comes_back_if_blocks_reach_the_disk_in_the_wrong_order() {
    let mut out_of_order = 0;
    for seed in support::seeds(150) {
        let mut dice = Dice(seed);
        let mut disk = FakeDisk::new(seed);
        let mut lasts = [0; 5];
        for _ in 0..4 {
            let log = open_shuffled(&disk, dice.below(u64::MAX)).unwrap();
            let mut leases = Vec::new();
            for session in 1..=5 {
                leases.push(log.acquire(&key(session)).await.unwrap());
            }
            disk.crash_after(dice.below(15));
            while !disk.is_dead() {
                append_all(&log, &mut leases, &mut lasts).await;
            }
            disk = disk.crash();
            out_of_order += u64::from(is_out_of_order(&disk));
            let log = open(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            for (last, session) in lasts.iter_mut().zip(1..) {
                let found = match log.head(&key(session)).await.unwrap() {
                    Some(_) => read(&log, &key(session), 0, 100).await,
                    None => Vec::new(),
                };
                let whole = found
                    .iter()
                    .zip(1..)
                    .all(|(found, seq)| found.seq.0 == seq && found.payload == entry(session, seq));
                assert!(whole, "seed {seed}: session {session}");
                let count = found.len() as u64;
                assert!(*last <= count && count <= *last + 1, "seed {seed}: session {session}");
                *last = count;
            }
            log.close().await.unwrap();
        }
    }
    assert!(out_of_order > 0, "no block got lost while a later one did not");
}
