//! What goes wrong while runs are merged.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::path::Path;
use std::time::Duration;

use ax_log::embedded::fake::FakeDisk;
use ax_log::{Append, AppendError, EmbeddedLog, EventLog, Lease, LogFault};
use support::{files, key, open, read};

/// Appends until the log is poisoned, `count` times at most. Returns the cause.
async fn append(log: &EmbeddedLog, lease: &mut Lease, count: u64) -> Option<String> {
    for _ in 0..count {
        let append = Append {
            key: key(1),
            epoch: lease.epoch,
            expected: lease.next,
            entries: vec![vec![7; 2000].into()],
            row: None,
            snapshot: None,
        };
        match log.append(append).await {
            Ok(last) => lease.next = last.next(),
            Err(AppendError::Fault(LogFault::Poisoned { cause })) => {
                return Some(cause.to_string());
            }
            Err(other) => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    None
}

async fn entry_count(log: &EmbeddedLog) -> u64 {
    read(log, &key(1), 0, 10).await.len() as u64
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_or_sync_while_merging_is_final_and_costs_nothing() {
    let mut merging = 0;
    for seed in support::seeds(50) {
        let disk = FakeDisk::new(seed);
        let log = open(&disk).unwrap();
        let mut lease = log.acquire(&key(1)).await.unwrap();
        append(&log, &mut lease, 1).await;
        disk.fail_file_changes_after(Some(seed % 50));
        let cause = append(&log, &mut lease, 80).await.unwrap();
        disk.fail_file_changes_after(None);
        merging += u64::from(cause.contains("merging"));
        assert!(append(&log, &mut lease, 1).await.is_some(), "a failure is final");
        let kept = lease.next.0 - 1;
        assert_eq!(entry_count(&log).await, kept, "{cause}");
        let log = open(&disk.crash()).unwrap();
        assert!(entry_count(&log).await >= kept, "{cause}");
    }
    assert!(merging > 3, "{merging} failures were met while merging");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_read_is_not_merged_and_the_log_goes_on() {
    let disk = FakeDisk::new(1);
    let log = open(&disk).unwrap();
    let mut lease = log.acquire(&key(1)).await.unwrap();
    while log.run_count() == 0 {
        append(&log, &mut lease, 1).await;
    }
    let damaged = lease.next.0 - 1;
    log.close().await.unwrap();
    let name = files(&disk).into_iter().find(|name| name.starts_with("run-")).unwrap();
    let path = Path::new("/data").join(name);
    let mut bytes = disk.content(&path).unwrap();
    // In the first entry.
    bytes[200] ^= 1;
    disk.set_content(&path, &bytes);
    let log = open(&disk).unwrap();
    let mut lease = log.acquire(&key(1)).await.unwrap();
    assert_eq!(append(&log, &mut lease, 80).await, None);
    assert!(log.run_count() > 3, "there are runs enough to be merged");
    assert!(disk.content(&path).is_some(), "what is damaged stays for a repair");
    let log = open(&disk.crash()).unwrap();
    assert_eq!(log.head(&key(1)).await.unwrap().unwrap().last.0, damaged + 80);
}
