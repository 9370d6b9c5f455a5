//! Connections that are cut, reset and held up while agents stream, with the server killed in
//! between: what every client puts together is the log, byte for byte.
//!
//! Real processes: `ax serve`, its agents, the Rust client over gRPC, the Python client over
//! server-sent events, and a browser with a plain `EventSource`. `AX_CUT_COUNT` says how many cuts
//! there are to be (30 unless given), and `AX_CUT_SEED` the seed of the first round; the next round
//! has the next seed.

#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::print_stdout, reason = "the seed must be known")]

#[path = "crash/dice.rs"]
mod dice;
#[expect(dead_code, reason = "only a part of it is needed here")]
#[path = "crash/server.rs"]
mod server;

mod cut {
    pub(crate) use super::{dice, server};

    pub(crate) mod browser;
    pub(crate) mod check;
    pub(crate) mod plan;
    pub(crate) mod proxy;
    pub(crate) mod python;
    pub(crate) mod round;
    pub(crate) mod rust;
    pub(crate) mod text;
}

use cut::browser::Browser;
use cut::round::{self, Counts};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// How many cuts, unless the environment says.
const CUTS_DEFAULT: u64 = 30;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

#[test]
fn every_client_sees_the_log_byte_for_byte_however_often_it_is_cut_off() {
    let wanted = number("AX_CUT_COUNT").unwrap_or(CUTS_DEFAULT);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let base = number("AX_CUT_SEED").unwrap_or(now.as_secs() << 8);
    println!("AX_CUT_SEED={base} AX_CUT_COUNT={wanted}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut browser = runtime.block_on(Browser::start(home.path()));
    let mut total = Counts::default();
    let mut seed = base;
    while total.cuts < wanted || total.fewest() == 0 || total.superseded == 0 {
        let began = Instant::now();
        let dir = home.path().join(seed.to_string());
        let ended = runtime.block_on(round::run(seed, &dir, &mut browser));
        match ended {
            Ok(counts) => {
                println!("seed {seed}: {counts:?} in {:.1} s", began.elapsed().as_secs_f64());
                total.add(&counts);
                std::fs::remove_dir_all(dir).unwrap();
            }
            Err(error) => {
                drop(browser);
                let kept = home.keep().join(seed.to_string());
                panic!("AX_CUT_SEED={seed} fails: {error}\nkept: {}", kept.display());
            }
        }
        seed += 1;
    }
    println!("{}", summary(seed - base, &total));
}

/// The summary that the lane for many cuts keeps.
fn summary(rounds: u64, total: &Counts) -> String {
    serde_json::json!({
        "name": "cut", "rounds": rounds, "cuts": total.cuts, "resets": total.resets,
        "stalls": total.stalls, "cuts_rust": total.rust, "cuts_python": total.python,
        "cuts_browser": total.browser, "kills": total.kills, "events": total.events,
        "streams": total.streams, "superseded": total.superseded, "gaps": 0, "duplicates": 0,
    })
    .to_string()
}
