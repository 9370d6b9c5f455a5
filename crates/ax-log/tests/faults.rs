//! What goes wrong with disks and files, one by one: a clear answer, nothing lost that need not be.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use ax_core::id::Seq;
use ax_log::embedded::Limits;
use ax_log::embedded::fake::FakeDisk;
use ax_log::{
    Append, AppendError, EmbeddedLog, EventLog, Lease, LogFault, OpenError, Options, fsck,
};
use support::{
    Change, assert_same, copy, files, key, make, open, options, path, payload, read, store,
};

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
    for seed in support::seeds(60) {
        let disk = FakeDisk::new(seed);
        let log = open(&disk).unwrap();
        let mut lease = log.acquire(&key(1)).await.unwrap();
        for _ in 0..20 + seed % 7 {
            append(&log, &mut lease, 3000).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // From too little for a manifest to enough for a merge.
        disk.set_capacity(Some(disk.used_bytes() + seed % 60 * 2048));
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

#[tokio::test(start_paused = true)]
async fn a_lost_manifest_is_made_again_without_a_loss() {
    for seed in support::seeds(4) {
        let (disk, model) = store(seed).await;
        ax_log::embedded::Disk::remove(&disk, &path("MANIFEST")).unwrap();
        let repaired = fsck::repair(&options(&disk, Limits::tiny())).unwrap();
        assert_eq!(repaired.report.lost, vec![]);
        let log = open(&disk).unwrap();
        assert_same(&log, &model).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_repair_that_is_cut_short_is_made_again() {
    for seed in support::seeds(1) {
        let (disk, model) = store(seed).await;
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
