//! What goes wrong with disks and files, one by one: a clear answer, nothing lost that need not be.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ax_core::id::Seq;
use ax_log::embedded::Limits;
use ax_log::embedded::fake::FakeDisk;
use ax_log::fsck::{self, Harm};
use ax_log::{
    Append, AppendError, EmbeddedLog, EventLog, Lease, LogFault, MemoryLog, OpenError, Options,
    ReadError,
};
use futures::future::join_all;
use support::{Change, Dice, assert_same, changes, files, key, make, open, options, payload, read};

/// Makes a store with a history of rotations, merges, branches, cuts and deletions.
async fn store(seed: u64) -> (FakeDisk, MemoryLog) {
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
fn copy(disk: &FakeDisk) -> FakeDisk {
    let copy = FakeDisk::new(1);
    for name in files(disk) {
        let path = Path::new("/data").join(name);
        copy.set_content(&path, &disk.content(&path).unwrap());
    }
    copy
}

fn path(name: &str) -> PathBuf {
    Path::new("/data").join(name)
}

async fn append(log: &EmbeddedLog, lease: &mut Lease, bytes: usize) -> Result<Seq, AppendError> {
    let append = Append {
        key: key(1),
        epoch: lease.epoch,
        expected: lease.next,
        entries: vec![vec![7; bytes].into()],
        row: None,
        snapshot: None,
    };
    let last = log.append(append).await?;
    lease.next = last.next();
    Ok(last)
}

#[tokio::test(start_paused = true)]
async fn a_second_opening_names_the_holder() {
    let disk = FakeDisk::new(1);
    let log = open(&disk).unwrap();
    let error = open(&disk).unwrap_err();
    assert!(matches!(&error, OpenError::Locked { .. }), "{error:?}");
    let pid = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&pid), "{error}");
    assert!(matches!(fsck::check(&options(&disk, Limits::tiny())), Err(OpenError::Locked { .. })));
    log.close().await.unwrap();
    open(&disk).unwrap();
}

#[tokio::test]
async fn a_second_opening_of_a_real_directory_names_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(&Options::new(dir.path())).unwrap();
    let error = EmbeddedLog::open(&Options::new(dir.path())).unwrap_err();
    let OpenError::Locked { dir: named, holder } = &error else { panic!("{error:?}") };
    assert_eq!(named, dir.path());
    assert!(holder.contains(&format!("process {} (", std::process::id())), "{holder}");
    log.close().await.unwrap();
    EmbeddedLog::open(&Options::new(dir.path())).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_read_only_disk_is_named_when_the_log_is_opened() {
    let (disk, _) = store(3).await;
    disk.set_read_only(true);
    let error = open(&disk).unwrap_err();
    let OpenError::Io { path, .. } = &error else { panic!("{error:?}") };
    assert!(path.starts_with("/data"), "{error}");
    disk.set_read_only(false);
    open(&disk).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_appends_and_takes_them_again_when_there_is_room() {
    let disk = FakeDisk::new(1);
    let log = open(&disk).unwrap();
    let mut lease = log.acquire(&key(1)).await.unwrap();
    disk.set_capacity(Some(100 * 1024));
    let full = loop {
        match append(&log, &mut lease, 3000).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(full, AppendError::Fault(LogFault::Full { .. })), "{full:?}");
    assert!(full.to_string().contains("/data"), "{full}");
    let kept = lease.next.0 - 1;
    assert!(kept > 5, "the disk had room for some");
    assert_eq!(read(&log, &key(1), 0, 10).await.len() as u64, kept);
    assert!(append(&log, &mut lease, 3000).await.is_err(), "it is still full");
    disk.set_capacity(None);
    for _ in 0..40 {
        // A run may still be waiting for its next try.
        if append(&log, &mut lease, 3000).await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    let last = lease.next.0 - 1;
    assert!(last > kept + 30, "the lease is good and appends go on");
    let log = open(&disk.crash()).unwrap();
    assert_eq!(read(&log, &key(1), 0, 10).await.len() as u64, last);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_with_a_file_for_segments_to_come_can_be_opened() {
    let disk = FakeDisk::new(1);
    let log = open(&disk).unwrap();
    let mut lease = log.acquire(&key(1)).await.unwrap();
    for _ in 0..60 {
        append(&log, &mut lease, 3000).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    log.close().await.unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    let disk = disk.crash();
    let log = open(&disk).unwrap();
    assert_eq!(read(&log, &key(1), 0, 10).await.len(), 60);
    log.close().await.unwrap();
    let log = open(&disk.crash()).unwrap();
    assert_eq!(read(&log, &key(1), 0, 10).await.len(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fills_up_at_any_moment_never_poisons_the_log() {
    for seed in 0..60 {
        let disk = FakeDisk::new(seed);
        let log = open(&disk).unwrap();
        let mut lease = log.acquire(&key(1)).await.unwrap();
        for _ in 0..20 + seed % 7 {
            append(&log, &mut lease, 3000).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // From too little for a manifest to enough for a merge.
        disk.set_capacity(Some(disk.used_bytes() + seed * 2048));
        for _ in 0..40 {
            match append(&log, &mut lease, 3000).await {
                Ok(_) | Err(AppendError::Fault(LogFault::Full { .. })) => {}
                Err(other) => panic!("seed {seed}: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        disk.set_capacity(None);
        tokio::time::sleep(Duration::from_secs(2)).await;
        for _ in 0..20 {
            append(&log, &mut lease, 3000).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let kept = lease.next.0 - 1;
        let log = open(&disk.crash()).unwrap();
        assert_eq!(read(&log, &key(1), 0, 10).await.len() as u64, kept, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_poisons_the_log_and_loses_nothing() {
    let disk = FakeDisk::new(1);
    let log = open(&disk).unwrap();
    let mut lease = log.acquire(&key(1)).await.unwrap();
    append(&log, &mut lease, 2000).await.unwrap();
    disk.fail_syncs(true);
    let failed = loop {
        match append(&log, &mut lease, 2000).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) => break error,
        }
    };
    assert!(matches!(failed, AppendError::Fault(LogFault::Poisoned { .. })), "{failed:?}");
    disk.fail_syncs(false);
    assert!(append(&log, &mut lease, 10).await.is_err(), "a failure is final");
    let kept = lease.next.0 - 1;
    assert_eq!(read(&log, &key(1), 0, 10).await.len() as u64, kept);
    let log = open(&disk.crash()).unwrap();
    assert!(read(&log, &key(1), 0, 10).await.len() as u64 >= kept);
}

fn reseal(bytes: &mut [u8], seed: &[u8]) {
    let at = bytes.len() - 4;
    let crc = crc32c::crc32c_append(crc32c::crc32c(seed), &bytes[..at]);
    bytes[at..].copy_from_slice(&crc.to_le_bytes());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_version_of_any_file_is_a_clear_error() {
    let (disk, _) = store(4).await;
    let store = 11_u64.to_le_bytes();
    for name in files(&disk) {
        let altered = copy(&disk);
        let mut bytes = altered.content(&path(&name)).unwrap();
        if name == "MANIFEST" {
            bytes[4] = 9;
            reseal(&mut bytes, &[]);
        } else if name.starts_with("run-") {
            let footer = bytes.len() - 192;
            bytes[footer + 4] = 9;
            reseal(&mut bytes[footer..], &store);
        } else if name.starts_with("wal-") {
            bytes[4] = 9;
            reseal(&mut bytes[..64], &store);
        } else {
            continue;
        }
        altered.set_content(&path(&name), &bytes);
        let error = open(&altered).unwrap_err();
        let OpenError::Version { path: named, found, known } = &error else { panic!("{error:?}") };
        assert_eq!((named, *found, *known), (&path(&name), 9, 1));
        let checked = fsck::check(&options(&altered, Limits::tiny()));
        assert!(matches!(checked, Err(OpenError::Version { .. })), "{name}: {checked:?}");
    }
}

/// What a store in which something is wrong gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// All that the model has.
    Whole,
    /// Not all, and the opening or the call that missed it said so.
    Refused,
    /// Not all, and nothing said so.
    Silent,
}

/// Opens a store in which something is wrong, and asserts that nothing wrong is ever read from it:
/// each session reads as in the model, or up to a gap, or says that it is damaged.
async fn look(disk: &FakeDisk, model: &MemoryLog) -> Seen {
    let Ok(log) = open(disk) else { return Seen::Refused };
    let (mut refused, mut silent) = (false, false);
    for session in 1..=1200 {
        let key = key(session);
        let expect = model.head(&key).await.unwrap();
        match log.head(&key).await {
            Ok(head) => silent |= head != expect,
            Err(_) => refused = true,
        }
        let Some(expect) = expect else { continue };
        let entries = read(model, &key, expect.first.0 - 1, 1000).await;
        let mut after = expect.first.prev();
        loop {
            match log.read(&key, after, ax_log::ReadLimit::default()).await {
                Ok(more) if more.is_empty() => {
                    silent |= after != expect.last;
                    break;
                }
                Ok(more) => {
                    for entry in more {
                        let at = usize::try_from(entry.seq.0 - expect.first.0).unwrap();
                        assert_eq!(entry, entries[at], "{key}");
                        after = entry.seq;
                    }
                }
                Err(ReadError::Fault(_)) => {
                    refused = true;
                    break;
                }
                Err(ReadError::NotFound | ReadError::Cut { .. }) => {
                    silent = true;
                    break;
                }
            }
        }
    }
    log.close().await.unwrap();
    match (refused, silent) {
        (_, true) => Seen::Silent,
        (true, false) => Seen::Refused,
        (false, false) => Seen::Whole,
    }
}

/// Repairs a store and asserts that it opens, that the report names all that is not there any more,
/// and that everything else is.
async fn assert_repairs(disk: &FakeDisk, model: &MemoryLog, what: &str) {
    let report = fsck::check(&options(disk, Limits::tiny())).unwrap();
    assert!(!report.is_sound(), "{what} is found");
    let repaired = fsck::repair(&options(disk, Limits::tiny())).unwrap();
    assert_eq!(repaired.report, report, "{what}");
    assert!(repaired.quarantine.is_some(), "{what}");
    let log = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    let names_lost = report.findings.iter().any(|finding| finding.harm == Harm::Damage);
    for session in 1..=1200 {
        let key = key(session);
        let Some(expect) = model.head(&key).await.unwrap() else { continue };
        let lost = report.lost.iter().find(|lost| lost.session == key);
        let Some(head) = log.head(&key).await.unwrap() else {
            assert!(names_lost, "{what}: {key} is gone");
            continue;
        };
        if let Some(lost) = lost {
            let none = head.last < head.first;
            assert!(head.last < lost.first || none, "{what}: {key} {head:?} {lost:?}");
        }
        let expected = read(model, &key, expect.first.0 - 1, 1000).await;
        for entry in read(&log, &key, head.first.0 - 1, 1000).await {
            assert_eq!(entry.payload, payload_of(&expected, entry.seq, &key), "{what}: {key}");
        }
    }
    log.close().await.unwrap();
    let after = fsck::check(&options(disk, Limits::tiny())).unwrap();
    assert!(after.is_sound(), "{what}: {after:?}");
}

fn payload_of(entries: &[ax_log::Entry], seq: Seq, key: &ax_core::id::SessionKey) -> bytes::Bytes {
    let found = entries.iter().find(|entry| entry.seq == seq);
    found.map_or_else(|| payload(key.session.0, seq.0), |entry| entry.payload.clone())
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_anywhere_is_never_read_and_can_be_repaired() {
    let (disk, model) = store(5).await;
    let mut dice = Dice(9);
    let sound = fsck::check(&options(&disk, Limits::tiny())).unwrap();
    assert!(sound.is_sound() && sound.lost.is_empty(), "{sound:?}");
    assert!(files(&disk).iter().any(|name| name.starts_with("run-")));
    let mut harmful = 0;
    for name in files(&disk) {
        if name == "LOCK" {
            continue;
        }
        let bytes = disk.content(&path(&name)).unwrap();
        let mut places: Vec<_> = (0..14).map(|_| dice.below(bytes.len() as u64)).collect();
        // The beginning and the end have the fields that everything else hangs on.
        places.extend([0, 5, 40, bytes.len() as u64 - 1, bytes.len() as u64 - 60]);
        for place in places {
            let damaged = copy(&disk);
            let mut bytes = bytes.clone();
            bytes[usize::try_from(place).unwrap()] ^= 1 << dice.below(8);
            damaged.set_content(&path(&name), &bytes);
            let what = format!("{name} at {place}");
            let before = copy(&damaged);
            let seen = look(&damaged, &model).await;
            if seen != Seen::Whole {
                let report = fsck::check(&options(&before, Limits::tiny())).unwrap();
                if report.is_sound() {
                    // The last block of all looks the same as a write that was cut short.
                    assert!(name.starts_with("wal-"), "{what}: {report:?}");
                    continue;
                }
                assert_eq!(seen, Seen::Refused, "{what}: {report:?}");
                harmful += 1;
                assert_repairs(&before, &model, &what).await;
            }
        }
    }
    assert!(harmful > 20, "most places matter: {harmful}");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_cut_off_or_gone_is_found_and_repaired() {
    let (disk, model) = store(6).await;
    for name in files(&disk) {
        let bytes = disk.content(&path(&name)).unwrap();
        for keep in [0, bytes.len() / 2, bytes.len() - 1] {
            let damaged = copy(&disk);
            damaged.set_content(&path(&name), &bytes[..keep]);
            let before = copy(&damaged);
            let seen = look(&damaged, &model).await;
            if name != "LOCK" && seen != Seen::Whole {
                let report = fsck::check(&options(&before, Limits::tiny())).unwrap();
                if !report.is_sound() {
                    assert_eq!(seen, Seen::Refused, "{name} cut to {keep}: {report:?}");
                    assert_repairs(&before, &model, &format!("{name} cut to {keep}")).await;
                }
            }
        }
        if name == "MANIFEST" || name.starts_with("run-") {
            let damaged = copy(&disk);
            ax_log::embedded::Disk::remove(&damaged, &path(&name)).unwrap();
            let error = open(&damaged).unwrap_err();
            assert!(error.to_string().contains("/data"), "{error}");
            assert_repairs(&damaged, &model, &format!("{name} gone")).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_manifest_is_made_again_without_a_loss() {
    let (disk, model) = store(7).await;
    ax_log::embedded::Disk::remove(&disk, &path("MANIFEST")).unwrap();
    let repaired = fsck::repair(&options(&disk, Limits::tiny())).unwrap();
    assert_eq!(repaired.report.lost, vec![]);
    let log = open(&disk).unwrap();
    assert_same(&log, &model).await;
}

#[tokio::test(start_paused = true)]
async fn a_repair_that_is_cut_short_is_made_again() {
    let (disk, model) = store(8).await;
    ax_log::embedded::Disk::remove(&disk, &path("MANIFEST")).unwrap();
    for count in 0..80 {
        let damaged = copy(&disk);
        damaged.crash_after(count);
        let cut_short = fsck::repair(&options(&damaged, Limits::tiny()));
        assert_eq!(cut_short.is_err(), damaged.is_dead());
        let after = damaged.crash();
        // Either it had not begun, or is under way, or is done: never half done unnoticed.
        let log = open(&after).or_else(|_| {
            fsck::repair(&options(&after, Limits::tiny())).unwrap();
            open(&after)
        });
        let log = log.unwrap_or_else(|error| panic!("after {count}: {error}"));
        assert_same(&log, &model).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_or_cut_gives_its_space_back() {
    let disk = FakeDisk::new(1);
    let log = open(&disk).unwrap();
    for round in 0..12_u128 {
        let session = 100 + 3 * round;
        for _ in 0..40 {
            let change = Change::Append { session, count: 8, snapshot: false };
            make(&log, &change).await.unwrap();
        }
        assert!(make(&log, &Change::Delete { session }).await.unwrap());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let payloads: usize = (1..=320).map(|seq| payload(100, seq).len()).sum();
    let used = usize::try_from(disk.used_bytes()).unwrap();
    assert!(used < 6 * payloads, "{used} bytes are used, {payloads} were written each time");
}

#[tokio::test]
async fn readers_see_every_entry_once_whatever_is_rotated_and_merged() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits::tiny();
    let log = Arc::new(EmbeddedLog::open(&Options { limits, ..Options::new(dir.path()) }).unwrap());
    let (acknowledged, known) = tokio::sync::watch::channel(0_u64);
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (log, known) = (Arc::clone(&log), known.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let mut rounds = 0;
                while known.has_changed().is_ok() {
                    let least = *known.borrow();
                    if least == 0 {
                        continue;
                    }
                    let entries = runtime.block_on(read(&*log, &key(1), 0, 64));
                    assert!(entries.len() as u64 >= least, "nothing acknowledged is missing");
                    for (entry, seq) in entries.iter().zip(1..) {
                        assert_eq!((entry.seq, &entry.payload), (Seq(seq), &payload(1, seq)));
                    }
                    rounds += 1;
                }
                rounds
            })
        })
        .collect();
    for count in 0..600 {
        let change = Change::Append { session: 1, count: 2, snapshot: count % 50 == 0 };
        assert!(make(&*log, &change).await.unwrap());
        acknowledged.send_replace(2 * (count + 1));
    }
    drop(acknowledged);
    for reader in readers {
        assert!(reader.join().unwrap() > 0, "each reader read");
    }
    assert!(log.run_count() > 0, "segments became runs meanwhile");
    log.close().await.unwrap();
}
