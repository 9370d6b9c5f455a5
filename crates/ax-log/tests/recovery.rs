//! What an opening makes of a store that was left in an unusual way.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ax_log::embedded::Limits;
use ax_log::embedded::fake::FakeDisk;
use ax_log::fsck;
use ax_log::{Append, AppendError, EmbeddedLog, EventLog, Lease, LogFault, OpenError};
use futures::future::join_all;
use support::{files, key, open, open_shuffled, options, read};

async fn append(
    log: &EmbeddedLog,
    session: u128,
    lease: &mut Lease,
    bytes: usize,
) -> Result<(), AppendError> {
    let append = Append {
        key: key(session),
        epoch: lease.epoch,
        expected: lease.next,
        entries: vec![vec![7; bytes].into()],
        row: None,
        snapshot: None,
    };
    lease.next = log.append(append).await?.next();
    Ok(())
}

/// Appends until the log is poisoned. Returns whether that came within `count` appends.
async fn append_until_poisoned(log: &EmbeddedLog, lease: &mut Lease, count: u64) -> bool {
    for _ in 0..count {
        match append(log, 1, lease, 2000).await {
            Ok(()) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(AppendError::Fault(LogFault::Poisoned { .. })) => return true,
            Err(other) => panic!("{other:?}"),
        }
    }
    false
}

/// Returns how many entries of session 1 can be read.
async fn entry_count(log: &EmbeddedLog) -> u64 {
    match log.head(&key(1)).await.unwrap() {
        Some(_) => read(log, &key(1), 0, 10).await.len() as u64,
        None => 0,
    }
}

/// Makes a store of three sessions, each with one entry in a block of its own, in one file.
async fn three_blocks() -> (FakeDisk, PathBuf) {
    let disk = FakeDisk::new(1);
    let log = open(&disk).unwrap();
    for session in 1..=3 {
        let mut lease = log.acquire(&key(session)).await.unwrap();
        append(&log, session, &mut lease, 500).await.unwrap();
    }
    log.close().await.unwrap();
    let name = files(&disk).into_iter().find(|name| name.starts_with("wal-")).unwrap();
    (disk, Path::new("/data").join(name))
}

/// Rewrites a field of 8 bytes in the header of a block, each of which takes one page here.
fn set_header(disk: &FakeDisk, file: &Path, block: usize, field: usize, value: u64) {
    let mut bytes = disk.content(file).unwrap();
    let header = &mut bytes[(block - 1) * 4096..][..64];
    header[field..field + 8].copy_from_slice(&value.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&11_u64.to_le_bytes()), &header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    disk.set_content(file, &bytes);
}

/// Where the header of a block says up to which block all was durable.
const SETTLED: usize = 52;

/// Makes the last of three blocks one that was under way together with the one before it, and
/// flips bits.
async fn two_in_flight(damage: &[usize]) -> (FakeDisk, PathBuf) {
    let (disk, file) = three_blocks().await;
    set_header(&disk, &file, 3, SETTLED, 1);
    let mut bytes = disk.content(&file).unwrap();
    for at in damage {
        bytes[*at] ^= 1;
    }
    disk.set_content(&file, &bytes);
    (disk, file)
}

async fn sessions(log: &EmbeddedLog) -> Vec<u128> {
    let mut found = Vec::new();
    for session in 1..=9 {
        if log.head(&key(session)).await.unwrap().is_some() {
            assert_eq!(read(log, &key(session), 0, 10).await.len(), 1);
            found.push(session);
        }
    }
    found
}

/// Appends to a new session in a block that takes one page.
async fn add(log: &EmbeddedLog, session: u128) {
    let mut lease = log.acquire(&key(session)).await.unwrap();
    append(log, session, &mut lease, 500).await.unwrap();
}

/// Goes on after a crash that left the first of two blocks that were under way cut short.
async fn go_on(disk: FakeDisk, waits: bool, loses_power: bool) {
    let report = fsck::check(&options(&disk, Limits::tiny())).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.sessions, report.entries), (1, 1));
    let mut log = open(&disk).unwrap();
    assert_eq!(sessions(&log).await, [1]);
    if waits {
        log.close().await.unwrap();
        log = open(&disk).unwrap();
        assert_eq!(sessions(&log).await, [1]);
    }
    // This one ends exactly where the one begins that was under way.
    add(&log, 4).await;
    log.close().await.unwrap();
    let disk = if loses_power { disk.crash() } else { disk };
    let report = fsck::check(&options(&disk, Limits::tiny())).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.sessions, report.entries), (2, 2));
    let log = open(&disk).unwrap();
    assert_eq!(sessions(&log).await, [1, 4]);
    add(&log, 5).await;
    log.close().await.unwrap();
    let log = open(&disk).unwrap();
    assert_eq!(sessions(&log).await, [1, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_whole_block_behind_one_that_was_cut_short_is_never_taken_up() {
    // The header of the second block, or its body, or all of it never reached the disk.
    for damage in [&[4096][..], &[4096 + 70], &[4096 + 3, 4096 + 63, 4096 + 600]] {
        for (waits, loses_power) in [(false, false), (true, false), (false, true), (true, true)] {
            let (disk, _) = two_in_flight(damage).await;
            go_on(disk, waits, loses_power).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_block_that_was_cut_short_takes_the_one_under_way_with_it_along() {
    for (damage, moves) in [(0, false), (70, false), (0, true), (70, true)] {
        let (disk, file) = three_blocks().await;
        set_header(&disk, &file, 2, SETTLED, 0);
        let mut bytes = disk.content(&file).unwrap();
        bytes[damage] ^= 1;
        bytes[8192] ^= 1;
        disk.set_content(&file, &bytes);
        let report = fsck::check(&options(&disk, Limits::tiny())).unwrap();
        assert!(report.is_sound(), "{report:?}");
        let log = open(&disk).unwrap();
        assert_eq!(sessions(&log).await, []);
        if moves {
            // It does not fit into the file, which becomes a spare one with what is left in it.
            let mut lease = log.acquire(&key(4)).await.unwrap();
            append(&log, 4, &mut lease, 20_000).await.unwrap();
        } else {
            add(&log, 4).await;
        }
        log.close().await.unwrap();
        for _ in 0..2 {
            let report = fsck::check(&options(&disk, Limits::tiny())).unwrap();
            assert!(report.is_sound(), "{report:?}");
            let log = open(&disk).unwrap();
            assert_eq!(sessions(&log).await, [4]);
            log.close().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_that_was_durable_before_a_later_one_was_made_is_damage() {
    for (block, damage) in [(1, 70), (2, 4096 + 70), (2, 4096)] {
        let (disk, file) = three_blocks().await;
        let mut bytes = disk.content(&file).unwrap();
        bytes[damage] ^= 1;
        disk.set_content(&file, &bytes);
        assert_refused(&disk, &file);
        let repaired = fsck::repair(&options(&disk, Limits::tiny())).unwrap();
        assert_eq!(repaired.report.entries, 2, "all but block {block}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_the_manifest_knows_of_cannot_vanish() {
    let (disk, file) = three_blocks().await;
    open(&disk).unwrap().close().await.unwrap();
    // More than what is looked through is gone, or the whole file.
    disk.set_content(&file, &vec![0; disk.content(&file).unwrap().len()]);
    let error = open(&disk).err();
    assert!(matches!(error, Some(OpenError::Damaged { .. })), "{error:?}");
    let report = fsck::check(&options(&disk, Limits::tiny())).unwrap();
    assert!(!report.is_sound(), "{report:?}");
    fsck::repair(&options(&disk, Limits::tiny())).unwrap();
    assert_eq!(sessions(&open(&disk).unwrap()).await, []);
}

#[tokio::test(start_paused = true)]
async fn blocks_that_were_under_way_together_survive_once_they_were_read() {
    let mut both = 0;
    for seed in support::seeds(60) {
        let disk = FakeDisk::new(seed);
        let log = open_shuffled(&disk, seed).unwrap();
        let mut leases = Vec::new();
        for session in 1..=4 {
            leases.push(log.acquire(&key(session)).await.unwrap());
        }
        append(&log, 1, &mut leases[0], 10).await.unwrap();
        disk.fail_writes(true);
        let appends = leases.iter_mut().zip(1..).skip(1).map(|(lease, session)| {
            let log = &log;
            // Each of them fills a block.
            async move { append(log, session, lease, 3800).await.unwrap_err() }
        });
        join_all(appends).await;
        disk.fail_writes(false);
        log.close().await.unwrap();
        // The process is another one, but the power was never cut.
        let log = open(&disk).unwrap();
        let found = sessions(&log).await;
        both += u64::from(found.len() == 3);
        let log = open(&disk.crash()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(sessions(&log).await, found, "seed {seed}");
    }
    assert!(both > 5, "two blocks were under way {both} times");
}

#[tokio::test(start_paused = true)]
async fn the_only_block_of_a_segment_that_the_manifest_knows_of_cannot_be_damaged_unnoticed() {
    let disk = FakeDisk::new(1);
    let log = open(&disk).unwrap();
    add(&log, 1).await;
    log.close().await.unwrap();
    open(&disk).unwrap().close().await.unwrap();
    let name = files(&disk).into_iter().find(|name| name.starts_with("wal-")).unwrap();
    let file = Path::new("/data").join(name);
    let mut bytes = disk.content(&file).unwrap();
    bytes[70] ^= 1;
    disk.set_content(&file, &bytes);
    let error = open(&disk).err();
    assert!(matches!(error, Some(OpenError::Damaged { .. })), "{error:?}");
    let report = fsck::check(&options(&disk, Limits::tiny())).unwrap();
    assert!(!report.is_sound(), "{report:?}");
    fsck::repair(&options(&disk, Limits::tiny())).unwrap();
    assert_eq!(sessions(&open(&disk).unwrap()).await, []);
}

fn assert_refused(disk: &FakeDisk, file: &Path) {
    let before = disk.content(file).unwrap();
    let error = open(disk).err();
    let Some(OpenError::Damaged { path, .. }) = &error else { panic!("{error:?}") };
    assert_eq!(Path::new(&**path), file);
    assert_eq!(disk.content(file).unwrap(), before, "what is there stays for a repair");
    let report = fsck::check(&options(disk, Limits::tiny())).unwrap();
    assert!(!report.is_sound(), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_segment_with_a_damaged_beginning_is_no_spare_file() {
    for damage in [10, 61] {
        let (disk, file) = three_blocks().await;
        let mut bytes = disk.content(&file).unwrap();
        bytes[damage] ^= 1;
        disk.set_content(&file, &bytes);
        assert_refused(&disk, &file);
        fsck::repair(&options(&disk, Limits::tiny())).unwrap();
        let log = open(&disk).unwrap();
        // The name of a namespace is in its first block, so another one stands in for it.
        assert_eq!(log.namespaces().await.unwrap().len(), 2);
        log.close().await.unwrap();
        let report = fsck::check(&options(&disk, Limits::tiny())).unwrap();
        assert!(report.is_sound(), "{report:?}");
        assert_eq!((report.sessions, report.entries), (2, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_that_is_older_than_the_one_before_it_is_not_replayed() {
    let (disk, file) = three_blocks().await;
    let mut bytes = disk.content(&file).unwrap();
    // The first block is now one that was written when the store had been opened again.
    bytes[24] += 1;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&11_u64.to_le_bytes()), &bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    disk.set_content(&file, &bytes);
    assert_refused(&disk, &file);
    fsck::repair(&options(&disk, Limits::tiny())).unwrap();
    let log = open(&disk).unwrap();
    assert_eq!(read(&log, &key(1), 0, 10).await.len(), 1);
    assert_eq!(log.head(&key(2)).await.unwrap(), None, "it was not of this history");
}

#[tokio::test(start_paused = true)]
async fn no_failed_sync_of_the_directory_costs_anything() {
    let mut poisoned = 0;
    for seed in support::seeds(16) {
        let count = seed % 16;
        let disk = FakeDisk::new(seed);
        let log = open(&disk).unwrap();
        let mut lease = log.acquire(&key(1)).await.unwrap();
        disk.fail_dir_syncs_after(Some(count));
        poisoned += u64::from(append_until_poisoned(&log, &mut lease, 60).await);
        let kept = lease.next.0 - 1;
        log.close().await.unwrap();
        disk.fail_dir_syncs_after(None);
        let log = open(&disk).unwrap_or_else(|error| panic!("after {count}: {error}"));
        assert!(entry_count(&log).await >= kept, "after {count}");
        log.close().await.unwrap();
        let log = open(&disk.crash()).unwrap_or_else(|error| panic!("after {count}: {error}"));
        assert!(entry_count(&log).await >= kept, "after {count}");
    }
    assert!(poisoned > 10, "{poisoned}");
}

#[tokio::test(start_paused = true)]
async fn an_opening_removes_nothing_before_the_manifest_is_durable() {
    let tiny = Limits::tiny();
    for seed in support::seeds(200) {
        let disk = FakeDisk::new(seed);
        let log = open(&disk).unwrap();
        let mut lease = log.acquire(&key(1)).await.unwrap();
        disk.fail_dir_syncs_after(Some(seed % 10));
        append_until_poisoned(&log, &mut lease, 60).await;
        let kept = lease.next.0 - 1;
        log.close().await.unwrap();
        disk.fail_dir_syncs_after(None);
        disk.crash_after(seed / 10 % 9);
        // With limits by which the files of the segments before are too short to be kept.
        let limits = Limits { segment_bytes_min: 1 << 16, segment_bytes_max: 1 << 16, ..tiny };
        drop(EmbeddedLog::open(&options(&disk, limits)));
        let log = open(&disk.crash()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(entry_count(&log).await >= kept, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_can_be_read_after_a_failed_write_survives_a_loss_of_power() {
    for seed in support::seeds(20) {
        let disk = FakeDisk::new(seed);
        let log = open(&disk).unwrap();
        let mut lease = log.acquire(&key(1)).await.unwrap();
        for _ in 0..=seed % 3 {
            append(&log, 1, &mut lease, 3000).await.unwrap();
        }
        disk.fail_writes(true);
        append(&log, 1, &mut lease, 3000).await.unwrap_err();
        disk.fail_writes(false);
        log.close().await.unwrap();
        // The process is another one, but the power was never cut.
        let log = open(&disk).unwrap();
        assert_eq!(
            entry_count(&log).await,
            seed % 3 + 2,
            "the fake shows what was not made durable"
        );
        if seed % 2 == 0 {
            let mut lease = log.acquire(&key(2)).await.unwrap();
            append(&log, 2, &mut lease, 500).await.unwrap();
        }
        let log = open(&disk.crash()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(entry_count(&log).await, seed % 3 + 2, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_segment_whose_first_block_was_cut_short_can_move_into_a_longer_file() {
    for seed in support::seeds(20) {
        let disk = FakeDisk::new(seed);
        let log = open(&disk).unwrap();
        let mut lease = log.acquire(&key(1)).await.unwrap();
        // The file is made and gets its name; then the power fails in the write of the block.
        disk.crash_after(2);
        append(&log, 1, &mut lease, 3000).await.unwrap_err();
        let disk = disk.crash();
        let log = open(&disk).unwrap();
        let mut lease = log.acquire(&key(2)).await.unwrap();
        append(&log, 2, &mut lease, 20_000).await.unwrap();
        log.close().await.unwrap();
        let log = open(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(read(&log, &key(2), 0, 10).await.len(), 1, "seed {seed}");
    }
}
