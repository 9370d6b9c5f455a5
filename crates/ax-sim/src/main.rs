//! `ax-sim SEED`: runs a seed of the simulation twice, and says what came of it in one line.
//!
//! `ax-sim SEED [--seeds N] [--from S] [--steps K] [--shared] [--verbose]` runs N seeds, from S (or
//! SEED) on, with K things that clients do in each; `--shared` runs several processes on one store.
//! The line of a failed run names the seed; running that seed at the same commit shows the same
//! failure. With `--coverage` it says what the runs reached, and fails if something that has to be
//! tried was not.
#![expect(clippy::print_stdout, reason = "a command-line tool")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

struct Arguments {
    from: u64,
    seeds: u64,
    steps: u64,
    verbose: bool,
    shared: bool,
    coverage: bool,
}

/// What came of all runs so far.
#[derive(Default)]
struct Results {
    failed: Vec<u64>,
    reached: BTreeMap<String, u64>,
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        println!(
            "usage: ax-sim SEED [--seeds N] [--from S] [--steps K] [--shared] [--verbose] \
             [--coverage]"
        );
        return ExitCode::from(2);
    };
    let next = AtomicU64::new(arguments.from);
    let results = Mutex::new(Results::default());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(&arguments, &next, &results));
        }
    });
    let Results { mut failed, reached } = results.into_inner().unwrap_or_default();
    failed.sort_unstable();
    match failed.first() {
        None if arguments.coverage => covered(&reached),
        None => ExitCode::SUCCESS,
        Some(seed) => {
            println!("{} of {} seeds failed", failed.len(), arguments.seeds);
            let shared = if arguments.shared { " --shared" } else { "" };
            println!("to see it again: ax-sim {seed} --steps {}{shared}", arguments.steps);
            ExitCode::FAILURE
        }
    }
}

/// Says what was reached, and whether that is all that has to be tried.
fn covered(reached: &BTreeMap<String, u64>) -> ExitCode {
    for (what, count) in reached {
        println!("reached {count:>8}  {what}");
    }
    let missing = ax_sim::missing(reached);
    for what in &missing {
        println!("NOT REACHED       {what}");
    }
    if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(arguments: &Arguments, next: &AtomicU64, results: &Mutex<Results>) {
    let results = || results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed - arguments.from >= arguments.seeds {
            return;
        }
        let check = if arguments.shared { ax_sim::check_shared } else { ax_sim::check };
        match check(seed, arguments.steps) {
            Ok(report) => {
                println!("seed {seed}: {report}");
                let mut results = results();
                for (what, count) in &report.reached {
                    *results.reached.entry(what.clone()).or_default() += count;
                }
                if arguments.verbose {
                    for (what, count) in &report.tally {
                        println!("    {what}: {count}");
                    }
                }
            }
            Err(failures) => {
                println!("seed {seed}: FAILED\n    {}", failures.join("\n    "));
                results().failed.push(seed);
            }
        }
    }
}

fn arguments() -> Option<Arguments> {
    let (mut from, mut seeds, mut steps) = (None, 1, ax_sim::STEPS_DEFAULT);
    let (mut verbose, mut shared, mut coverage) = (false, false, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next()?.parse().ok();
        match word.as_str() {
            "--seeds" => seeds = number()?,
            "--from" => from = Some(number()?),
            "--steps" => steps = number()?,
            "--verbose" => verbose = true,
            "--shared" => shared = true,
            "--coverage" => coverage = true,
            word => from = Some(word.parse().ok()?),
        }
    }
    Some(Arguments { from: from?, seeds, steps, verbose, shared, coverage })
}
