//! Random changes on a disk that loses power at random moments, compared with the model.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::sync::Arc;

use ax_log::embedded::fake::FakeDisk;
use ax_log::{EventLog, MemoryLog};
use futures::future::join_all;
use support::{Dice, assert_same, catch_up, changes, make, open};

/// How many seeds are tried; `AX_LOG_SEEDS=FIRST..LAST` names others.
const SEED_COUNT: u64 = 40;
const LIFE_COUNT: usize = 5;
const BATCH_COUNT: usize = 60;

/// Lives through one life of the process: opens, changes, and ends where the power fails. Returns
/// the disk as it is then.
async fn live(disk: &FakeDisk, model: &MemoryLog, dice: &mut Dice, born: &mut u128) -> FakeDisk {
    if dice.below(4) > 0 {
        disk.crash_after(dice.below(250));
    }
    let Ok(log) = open(disk) else {
        assert!(disk.is_dead(), "a log opens unless the power fails");
        return disk.crash();
    };
    let log = Arc::new(log);
    for _ in 0..BATCH_COUNT {
        let batch = changes(dice, born);
        let made = join_all(batch.iter().map(|change| make(&*log, change))).await;
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
