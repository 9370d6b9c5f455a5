//! `kill -9` of server, harness, or both, at random moments, under twenty busy sessions.
//!
//! Real processes, real files. `AX_CRASH_ROUNDS` says how many rounds (6 unless given), and
//! `AX_CRASH_SEED` the seed of the first; the next round has the next seed. A round that fails
//! prints its seed, which reproduces what every session is told, who is killed, and when.

#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::print_stdout, reason = "the seed must be known")]

mod crash {
    pub(crate) mod clients;
    pub(crate) mod dice;
    pub(crate) mod effects;
    pub(crate) mod oracle;
    pub(crate) mod program;
    pub(crate) mod round;
    pub(crate) mod server;
    pub(crate) mod terminal;
}

use crash::oracle::Counts;
use crash::round;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// How many rounds, unless the environment says.
const ROUNDS_DEFAULT: u64 = 6;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

#[test]
fn nothing_is_lost_and_nothing_is_done_twice_whoever_is_killed() {
    let rounds = number("AX_CRASH_ROUNDS").unwrap_or(ROUNDS_DEFAULT);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let base = number("AX_CRASH_SEED").unwrap_or(now.as_secs() << 8);
    println!("AX_CRASH_SEED={base} AX_CRASH_ROUNDS={rounds}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut total = Counts::default();
    for seed in base..base + rounds {
        let began = Instant::now();
        let dir = home.path().join(seed.to_string());
        let running = runtime.spawn(round::run(seed, dir.clone()));
        let ended = runtime.block_on(running);
        let counts = ended.unwrap_or_else(|error| Err(error.to_string()));
        match counts {
            Ok(counts) => {
                println!("seed {seed}: {counts:?} in {:.1} s", began.elapsed().as_secs_f64());
                total.add(&counts);
                std::fs::remove_dir_all(dir).unwrap();
            }
            Err(error) => {
                let kept = home.keep().join(seed.to_string());
                panic!(
                    "AX_CRASH_SEED={seed} AX_CRASH_ROUNDS=1 fails: {error}\nkept: {}",
                    kept.display()
                );
            }
        }
    }
    println!("{}", summary(rounds, &total));
}

/// The summary that the lane for many rounds keeps.
fn summary(rounds: u64, total: &Counts) -> String {
    serde_json::json!({
        "name": "crash", "rounds": rounds, "events": total.events, "attempts": total.attempts,
        "attempts_lost": total.attempts_lost, "effects": total.effects,
        "unknown": total.unknown, "model_calls_paid": total.paid,
        "model_calls_again": total.paid_again, "model_calls_unmarked": total.paid_unmarked,
        "interrupted": total.interrupted, "lost": 0, "gaps": 0, "duplicates": 0,
    })
    .to_string()
}
