//! What is in memory stays within its constants, however many sessions and events there are.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::time::Duration;

use ax_core::id::Seq;
use ax_log::embedded::fake::FakeDisk;
use ax_log::embedded::{FROZEN_COUNT_MAX, Limits};
use ax_log::{Append, EmbeddedLog, EventLog, ReadLimit, Row};
use futures::future::join_all;
use support::{Dice, key, open};

/// How many sessions are written at the same time.
const AWAKE_COUNT: u128 = 16;

/// Wakes a session, appends to it, and lets it sleep again.
async fn step(log: &EmbeddedLog, session: u128) {
    let key = key(session);
    let lease = log.acquire(&key).await.unwrap();
    let append = Append {
        key: key.clone(),
        epoch: lease.epoch,
        expected: lease.next,
        entries: vec![vec![7; 40].into()],
        row: Some(Row { data: "sleeps".into(), ..Row::default() }),
        snapshot: None,
    };
    log.append(append).await.unwrap();
    log.release(&key, lease.epoch);
}

/// Asserts that everything in memory is within its bound, and that no session is awake.
async fn assert_bounded(log: &EmbeddedLog) {
    // A release is not answered; what follows it is.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let limits = Limits::tiny();
    assert_eq!(log.writable_count(), 0, "a released session takes no memory");
    let cached = log.cache_bytes();
    assert!(cached <= limits.index_cache_bytes_max, "{cached} bytes are cached");
    // What is being written when a memtable is full still goes into it.
    let one = limits.memtable_bytes_max + 2 * limits.commit_bytes_max;
    let tables = log.memtable_bytes();
    assert!(tables <= (1 + FROZEN_COUNT_MAX) * one, "memtables of {tables} bytes");
}

/// Reads sessions here and there, so that the cache is asked for more than it may hold.
async fn read_some(log: &EmbeddedLog, dice: &mut Dice, count: u64) {
    for _ in 0..60 {
        let key = key(u128::from(dice.below(count)) + 1);
        let found = log.read(&key, Seq::ZERO, ReadLimit::default()).await.unwrap();
        assert!(!found.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn the_memory_of_a_log_does_not_grow_with_its_sessions_and_events() {
    for seed in support::seeds(2) {
        let (disk, mut dice) = (FakeDisk::new(seed), Dice(seed));
        let log = open(&disk).unwrap();
        let mut full = 0;
        for round in 0..160_u128 {
            // Each of them once more, and as many new ones.
            let first = round / 2 * AWAKE_COUNT + 1;
            join_all((first..first + AWAKE_COUNT).map(|session| step(&log, session))).await;
            assert_bounded(&log).await;
            let count = u64::try_from(first + AWAKE_COUNT - 1).unwrap();
            read_some(&log, &mut dice, count).await;
            assert_bounded(&log).await;
            full += u64::from(log.cache_bytes() > Limits::tiny().index_cache_bytes_max / 2);
            // Three of a size are merged into one.
            assert!(log.run_count() < 16, "{} runs", log.run_count());
        }
        assert!(full > 80, "the cache is used: {full}");
        log.close().await.unwrap();
        let log = open(&disk).unwrap();
        read_some(&log, &mut dice, 80 * 16).await;
        assert_bounded(&log).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_memory_of_a_log_does_not_grow_with_one_long_session() {
    let log = open(&FakeDisk::new(1)).unwrap();
    for _ in 0..1500 {
        step(&log, 1).await;
        assert_bounded(&log).await;
    }
    assert_eq!(log.head(&key(1)).await.unwrap().unwrap().last, Seq(1500));
}

#[tokio::test(start_paused = true)]
async fn only_sessions_that_someone_may_write_take_memory() {
    let log = open(&FakeDisk::new(1)).unwrap();
    let mut leases = Vec::new();
    for session in 1..=300 {
        leases.push((key(session), log.acquire(&key(session)).await.unwrap()));
        assert_eq!(log.writable_count(), leases.len());
    }
    for (key, lease) in leases {
        log.release(&key, lease.epoch);
    }
    assert_bounded(&log).await;
}
