//! Running the simulation: real code over a fake world, under a seed.

use crate::command::Program;
use crate::{machine, take_option};
use anyhow::{Context as _, Result, bail};
use std::io::Write as _;

/// How many seeds one call of the simulator is given.
const BATCH_COUNT: u64 = 100;
const SEED_COUNT: u64 = 1000;
/// How many seeds reach everything that has to be tried.
const COVERAGE_COUNT: u64 = 100;
/// Of so many seeds one is run with several processes, too.
const SHARED_PART: u64 = 4;

/// Which build of the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// The one that the tests use anyway.
    Dev,
    /// For thousands of seeds.
    Release,
}

/// Runs seeds until the first that fails.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    let mut arguments = arguments.to_vec();
    let count = number(&mut arguments, "--seeds")?.unwrap_or(SEED_COUNT);
    let from = number(&mut arguments, "--from")?.unwrap_or_else(machine::fresh_seed);
    if let Some(unknown) = arguments.first() {
        bail!("unknown argument {unknown:?}");
    }
    println!("seeds {from} to {}", from + count - 1);
    let mut done = 0;
    while done < count {
        let batch = BATCH_COUNT.min(count - done);
        if let Err(error) = seeds(Build::Release, from + done, batch) {
            println!("\n{error:#}\ncommit {}", machine::commit()?);
            return Ok(false);
        }
        done += batch;
        print!("\r{done} of {count}");
        std::io::stdout().flush()?;
    }
    println!(" seeds passed at commit {}", machine::commit()?);
    Ok(true)
}

/// Runs `count` seeds from `from` on, and a part of them with several processes on one store; fails
/// with what the first failing one printed.
pub(crate) fn seeds(build: Build, from: u64, count: u64) -> Result<()> {
    simulate(build, from, count, &[])?;
    simulate(build, from, count.div_ceil(SHARED_PART), &["--shared"])
}

fn simulate(build: Build, from: u64, count: u64, more: &[&str]) -> Result<()> {
    let mut cargo = Program::new("cargo").args(["run", "--quiet", "-p", "ax-sim"]);
    if build == Build::Release {
        cargo = cargo.args(["--release"]);
    }
    let range = ["--seeds".to_owned(), count.to_string(), "--from".to_owned(), from.to_string()];
    // Fewer seeds need not reach everything.
    let covers = count >= COVERAGE_COUNT && more.is_empty();
    let coverage = covers.then_some("--coverage");
    let finished = cargo.args(["--"]).args(range).args(coverage).args(more).run()?;
    if !finished.ok {
        bail!("{}", failures(&finished.text));
    }
    Ok(())
}

/// Leaves out the lines of the seeds that passed.
fn failures(text: &str) -> String {
    let passed = |line: &str| {
        line.starts_with("seed ") && line.contains(" lives, ") || line.starts_with("reached ")
    };
    let lines = text.lines().filter(|line| !passed(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn number(arguments: &mut Vec<String>, name: &str) -> Result<Option<u64>> {
    let text = take_option(arguments, name)?;
    text.map(|text| text.parse().with_context(|| format!("{name} {text} is no number"))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_failed_is_shown() {
        let text = "seed 1: 5 lives, 3 sessions\nseed 2: FAILED\n    E5 alone: x\nsee it again";
        assert_eq!(failures(text), "seed 2: FAILED\n    E5 alone: x\nsee it again");
    }
}
