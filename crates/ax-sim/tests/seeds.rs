//! A few seeds, other ones each time: `AX_SEED` says which, and is printed when one fails.

use std::time::{SystemTime, UNIX_EPOCH};

/// How many seeds are run.
const SEEDS: u64 = 20;
/// How many of them with several processes.
const SHARED_SEEDS: u64 = 10;

#[test]
fn the_invariants_hold_in_a_storm() {
    let given = std::env::var("AX_SEED").ok().and_then(|text| text.parse().ok());
    let from = given.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_secs() % 1_000_000_000
    });
    for seed in from..from + SEEDS {
        if let Err(failures) = ax_sim::check(seed, ax_sim::STEPS_DEFAULT) {
            panic!(
                "seed {seed} failed; see it again with AX_SEED={seed}:\n{}",
                failures.join("\n")
            );
        }
    }
}

#[test]
fn a_seed_gives_the_same_run_again_and_another_seed_another_one() {
    let trace = |seed| ax_sim::run(seed, ax_sim::STEPS_DEFAULT).map(|report| report.trace);
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

#[test]
fn several_processes_on_one_store_keep_the_invariants() {
    let given = std::env::var("AX_SEED").ok().and_then(|text| text.parse().ok());
    let from: u64 = given.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_secs() % 1_000_000_000
    });
    for seed in from..from + SHARED_SEEDS {
        if let Err(failures) = ax_sim::check_shared(seed, ax_sim::STEPS_DEFAULT) {
            panic!(
                "seed {seed} failed; see it again with AX_SEED={seed}:\n{}",
                failures.join("\n")
            );
        }
    }
}
