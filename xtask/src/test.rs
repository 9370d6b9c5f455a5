//! Every test there is, in lanes, with one line that sums them up.

use crate::command::{Finished, Program};
use crate::{acp, antigravity, api, check, machine, mcp, python, sim, take_option, tree};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How many seeds of the simulation the test command runs.
const SEED_COUNT: u64 = 100;
const NEXTEST: &str = "cargo-nextest";
/// The Rust tests, but those that need packages of another language, or a browser.
pub(crate) const RUST: &[&str] = &[
    "--workspace",
    "-E",
    "not binary(langgraph) and not binary(matrix) and not binary(cut) \
     and not (package(ax) and (binary(acp) or binary(antigravity)))",
];
const LANE_LIMIT: Duration = Duration::from_secs(25 * 60);

/// What came of a lane.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Tests that passed.
    pub(crate) passed: usize,
    /// Tests that failed, or did not run although they should have.
    pub(crate) failed: usize,
    /// What was printed; shown if a test failed.
    pub(crate) text: String,
}

impl Tally {
    /// One check that is not made of tests.
    pub(crate) fn one(finished: Finished) -> Self {
        let passed = usize::from(finished.ok);
        Self { passed, failed: 1 - passed, text: finished.text }
    }

    /// Adds another.
    pub(crate) fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.text.push_str(&other.text);
    }

    /// Turns a failure into an error that holds all that was printed.
    pub(crate) fn into_remark(self) -> Result<String> {
        if self.failed > 0 {
            bail!("{}\n{} passed, {} failed", self.text, self.passed, self.failed);
        }
        Ok(format!("{} passed", self.passed))
    }
}

type Lane = (&'static str, fn(u64) -> Result<Tally>);

const LANES: &[Lane] = &[
    ("checks", |_| Ok(check::still())),
    ("rust", rust),
    ("doctests", |_| doctests()),
    ("simulation", simulation),
    ("python-sdk", |_| python::sdk()),
    ("fakemodel", |_| python::fakemodel()),
    ("langgraph", python::langgraph),
    ("langgraph-threads", |_| python::langgraph_threads()),
    ("adk", |_| python::adk()),
    ("claude", |_| python::claude()),
    ("openai", |_| python::openai()),
    ("api", api::test),
    ("cut", cut),
    ("ax1", |_| python::ax1()),
    ("mcp", |_| mcp::test()),
    ("acp", |_| acp::test()),
    ("antigravity", |_| antigravity::test()),
];

/// Runs all lanes, or those that are named.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    let mut only = arguments.to_vec();
    let given = take_option(&mut only, "--seed")?.or_else(|| std::env::var("AX_SEED").ok());
    let given = given.map(|text| text.parse().context("AX_SEED must be a number")).transpose()?;
    let seed: u64 = given.unwrap_or_else(machine::fresh_seed);
    if let Some(unknown) = only.iter().find(|name| LANES.iter().all(|(lane, _)| lane != name)) {
        let lanes: Vec<&str> = LANES.iter().map(|(lane, _)| *lane).collect();
        bail!("unknown lane {unknown:?}; there are: {}", lanes.join(", "));
    }
    println!("commit {}, seed {seed} (AX_SEED={seed} repeats it)", machine::commit()?);
    need_nextest()?;
    let wanted = LANES.iter().filter(|(name, _)| only.is_empty() || only.iter().any(|o| o == name));
    let mut total = Tally::default();
    for (name, lane) in wanted {
        total.add(&timed(name, || lane(seed)));
    }
    if total.failed > 0 {
        println!("AX_SEED={seed} repeats this run");
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(total.failed == 0)
}

/// Runs one lane and prints its line. A lane that cannot run has failed.
fn timed(name: &str, lane: impl FnOnce() -> Result<Tally>) -> Tally {
    print!("{name:<14} ");
    drop(std::io::stdout().flush());
    let started = Instant::now();
    let tally = lane().unwrap_or_else(|error| {
        let text = format!("the lane {name} could not run: {error:#}\n");
        Tally { passed: 0, failed: 1, text }
    });
    let seconds = started.elapsed().as_secs_f64();
    println!("{:>5} passed {:>3} failed {seconds:>7.1} s", tally.passed, tally.failed);
    if tally.failed > 0 {
        println!("{}", tally.text);
    }
    tally
}

fn rust(seed: u64) -> Result<Tally> {
    let cargo = Program::new("cargo").env("AX_SEED", seed.to_string());
    let cargo = cargo.env("AX_TWO_SEED", seed.to_string());
    nextest(cargo.env("AX_CRASH_SEED", seed.to_string()).limit(LANE_LIMIT), RUST)
}

/// Cuts connections of three kinds of clients, one of them a browser.
fn cut(seed: u64) -> Result<Tally> {
    let cargo = Program::new("cargo").env("AX_CUT_SEED", seed.to_string());
    nextest(cargo.limit(LANE_LIMIT), &["--workspace", "-E", "package(ax) and binary(cut)"])
}

fn simulation(seed: u64) -> Result<Tally> {
    sim::seeds(sim::Build::Dev, seed, SEED_COUNT)?;
    let passed = usize::try_from(SEED_COUNT).unwrap_or(usize::MAX);
    Ok(Tally { passed, failed: 0, text: String::new() })
}

/// Runs tests by cargo-nextest and counts them.
pub(crate) fn nextest(cargo: Program, args: &[&str]) -> Result<Tally> {
    let profile = if args.contains(&"full") { "full" } else { "default" };
    // Its store is below the root, wherever cargo builds to (`store.dir` of .config/nextest.toml).
    let report = tree::root().join("target/nextest").join(profile).join("junit.xml");
    forget(&report)?;
    let finished = cargo.args(["nextest", "run"]).args(args).run()?;
    count(finished, &report)
}

/// Counts the tests of a report; the run itself counts as failed if it failed without one.
pub(crate) fn count(finished: Finished, report: &Path) -> Result<Tally> {
    let Ok(xml) = std::fs::read_to_string(report) else {
        let failed = 1;
        return Ok(Tally { passed: 0, failed, text: finished.text });
    };
    let mut tally = tests_of(&xml).with_context(|| format!("read {}", report.display()))?;
    if !finished.ok && tally.failed == 0 || tally.passed + tally.failed == 0 {
        tally.failed += 1;
    }
    tally.text = finished.text;
    Ok(tally)
}

/// Finds the line of JSON that a test sums up with, and returns its numbers.
pub(crate) fn summary(text: &str, name: &str) -> Option<BTreeMap<String, u64>> {
    let lines = text.lines().map(str::trim).filter(|line| line.starts_with('{'));
    let mut values = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let value = values.find(|value| value["name"] == name)?;
    let fields = value.as_object()?.iter();
    Some(fields.filter_map(|(name, value)| Some((name.clone(), value.as_u64()?))).collect())
}

/// Removes the report of an earlier run.
pub(crate) fn forget(report: &Path) -> Result<()> {
    match std::fs::remove_file(report) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Sums up the suites of a JUnit report. What was skipped has not been shown to work.
fn tests_of(xml: &str) -> Result<Tally> {
    let mut tally = Tally::default();
    for suite in xml.split("<testsuite ").skip(1) {
        let (head, _) = suite.split_once('>').context("an open element")?;
        let number = |name| attribute(head, name).map_or(Ok(0), str::parse::<usize>);
        let tests = number("tests")?;
        let failed = number("failures")? + number("errors")? + number("skipped")?;
        tally.failed += failed;
        tally.passed += tests.saturating_sub(failed);
    }
    Ok(tally)
}

fn attribute<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = head.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

/// Runs the examples in the documentation of all crates.
pub(crate) fn doctests() -> Result<Tally> {
    let cargo = Program::new("cargo").args(["test", "--workspace", "--doc", "--no-fail-fast"]);
    let finished = cargo.limit(LANE_LIMIT).run()?;
    let mut tally = Tally::default();
    for line in finished.text.lines().filter(|line| line.starts_with("test result: ")) {
        tally.passed += counted(line, "passed");
        tally.failed += counted(line, "failed");
    }
    if !finished.ok && tally.failed == 0 {
        tally.failed = 1;
    }
    tally.text = finished.text;
    Ok(tally)
}

/// Returns the number before a word.
fn counted(line: &str, word: &str) -> usize {
    let words: Vec<&str> = line.split([' ', ';']).collect();
    let at = words.iter().position(|one| *one == word);
    let number = at.and_then(|at| words.get(at.checked_sub(1)?));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Installs cargo-nextest if it is not there.
pub(crate) fn need_nextest() -> Result<()> {
    if Program::new("cargo").args(["nextest", "--version"]).run()?.ok {
        return Ok(());
    }
    println!("installing {NEXTEST}, once for this machine (some minutes)");
    Program::new("cargo")
        .args(["install", "--locked", NEXTEST])
        .env("CARGO_TARGET_DIR", tree::target()?.join("tools"))
        .succeed()
        .context("cargo-nextest is needed and could not be installed")?;
    Ok(())
}

/// Builds all programs and examples as the tests build them; returns the directory they are in.
pub(crate) fn programs() -> Result<PathBuf> {
    let build = ["build", "--quiet", "--workspace", "--bins", "--examples"];
    Program::new("cargo").args(build).succeed()?;
    Ok(tree::target()?.join("debug"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_both_kinds_are_counted() {
        let rust = r#"<testsuites name="nextest-run" tests="3" failures="1" errors="0">
            <testsuite name="a" tests="2" disabled="0" errors="0" failures="1">
            <testsuite name="b" tests="1" disabled="0" errors="0" failures="0">"#;
        let tally = tests_of(rust).unwrap();
        assert_eq!((tally.passed, tally.failed), (2, 1));
        let python = r#"<testsuites name="pytest tests"><testsuite name="pytest" errors="0"
            failures="0" skipped="1" tests="12" time="1.0"><testcase/>"#;
        let tally = tests_of(python).unwrap();
        assert_eq!((tally.passed, tally.failed), (11, 1));
    }

    #[test]
    fn a_summary_is_found_among_other_lines() {
        let text = "seed 1: {..}\n    {\"events\":5,\"name\":\"crash\"}\n";
        assert_eq!(summary(text, "crash"), Some(BTreeMap::from([("events".to_owned(), 5)])));
        assert_eq!(summary(text, "other"), None);
    }

    #[test]
    fn the_summary_of_doctests_is_read() {
        let line = "test result: ok. 12 passed; 3 failed; 0 ignored; 0 measured";
        assert_eq!((counted(line, "passed"), counted(line, "failed")), (12, 3));
    }
}
