//! The full figures of a lane, in pieces of at most ten minutes that can be cut short between them.

use crate::command::Program;
use crate::test::{self, Tally};
use crate::{api, bench, machine, markers, matrix, python, sim, take_flag, tree};
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// No new piece begins after this time, unless all are wanted.
const CALL_LIMIT: Duration = Duration::from_secs(8 * 60);
const DOCUMENT: &str = "docs/testing.md";
const CRASH_ROUND_COUNT: u64 = 200;
const CRASH_PIECE_COUNT: u64 = 20;
const TWO_ROUND_COUNT: u64 = 100;
const TWO_PIECE_COUNT: u64 = 10;
const SEED_COUNT: u64 = 10_000;
const SEED_PIECE_COUNT: u64 = 20;
const SANDBOX_ROUND_COUNT: u64 = 200;
const SANDBOX_PIECE_COUNT: u64 = 5;
const LANGGRAPH_PIECE_COUNT: u64 = 20;
const SCHEMATHESIS_PIECE_COUNT: u64 = 3;
const CUT_COUNT: u64 = 1_000;
const CUT_PIECE_COUNT: u64 = 10;
/// What 99 % of the sessions under load may take at most for their worst turn, in percent of the
/// median turn.
const LOAD_RATIO_PERCENT_MAX: u64 = 500;
/// How much load there is, and for how long.
const LOAD: [(&str, &str); 4] = [
    ("AX_LOAD_SESSIONS", "10000"),
    ("AX_LOAD_ACTIVE", "500"),
    ("AX_LOAD_FOLLOWERS", "2000"),
    ("AX_LOAD_SECONDS", "600"),
];

/// What was counted, by name.
type Counts = BTreeMap<String, u64>;

/// One lane.
#[derive(Debug)]
struct Lane {
    name: &'static str,
    pieces: u64,
    /// Runs one piece under the seed of the run; returns what it counted.
    work: fn(piece: u64, seed: u64) -> Result<Counts>,
    results: Results,
}

/// What becomes of what the pieces found.
#[derive(Clone, Copy, Debug)]
enum Results {
    /// A line about all of them, which begins like this.
    Line(&'static str),
    /// A table of what they counted, beside the other measurements.
    Table(fn(&Counts) -> String),
    /// They write it down themselves.
    Pieces,
}

const LANES: &[Lane] = &[
    Lane {
        name: "crash",
        pieces: CRASH_PIECE_COUNT,
        work: crash,
        results: Results::Line("200 rounds of `kill -9` at random moments"),
    },
    Lane {
        name: "two-servers",
        pieces: TWO_PIECE_COUNT,
        work: two_servers,
        results: Results::Line(
            "100 rounds of two servers that are stopped, continued and killed at random",
        ),
    },
    Lane {
        name: "sandbox",
        pieces: SANDBOX_PIECE_COUNT,
        work: sandbox,
        results: Results::Line(
            "200 rounds of `kill -9` of a runtime that makes, runs or removes a sandbox",
        ),
    },
    Lane {
        name: "sim",
        pieces: SEED_PIECE_COUNT,
        work: simulation,
        results: Results::Line("10 000 seeds of the simulation"),
    },
    Lane {
        name: "langgraph",
        pieces: LANGGRAPH_PIECE_COUNT,
        work: langgraph,
        results: Results::Line(
            "20 runs of the LangGraph agent that is killed in the middle of a tool call",
        ),
    },
    Lane {
        name: "matrix",
        pieces: matrix::piece_count(),
        work: matrix::piece,
        results: Results::Table(matrix::table),
    },
    Lane {
        name: "schemathesis",
        pieces: SCHEMATHESIS_PIECE_COUNT,
        work: schemathesis,
        results: Results::Line("twenty minutes of requests made up from the OpenAPI document"),
    },
    Lane {
        name: "cut",
        pieces: CUT_PIECE_COUNT,
        work: cut,
        results: Results::Line("1 000 cuts of connections over which agents streamed"),
    },
    Lane {
        name: "load",
        pieces: 1,
        work: heavy,
        results: Results::Line(
            "10 000 sessions, 500 of them at work, 2 000 followers, for 10 minutes",
        ),
    },
    Lane {
        name: "upgrade",
        pieces: 1,
        work: upgrade,
        results: Results::Line(
            "stores of the commit before, gone on with, and the other way round",
        ),
    },
    Lane {
        name: "bench-log",
        pieces: bench::Suite::Log.pieces().len() as u64,
        work: bench_log,
        results: Results::Pieces,
    },
    Lane {
        name: "bench-steps",
        pieces: bench::Suite::Steps.pieces().len() as u64,
        work: bench_steps,
        results: Results::Pieces,
    },
    Lane {
        name: "bench-serve",
        pieces: bench::Suite::Serve.pieces().len() as u64,
        work: bench_serve,
        results: Results::Pieces,
    },
    Lane {
        name: "bench-gateway",
        pieces: bench::Suite::Gateway.pieces().len() as u64,
        work: bench_gateway,
        results: Results::Pieces,
    },
    Lane {
        name: "bench-sandbox",
        pieces: bench::Suite::Sandbox.pieces().len() as u64,
        work: bench_sandbox,
        results: Results::Pieces,
    },
];

/// How far a lane is; kept in a file between calls.
#[derive(Debug, PartialEq)]
struct Progress {
    seed: u64,
    done: u64,
    seconds: u64,
    commits: Vec<String>,
    counts: Counts,
}

/// Goes on with a lane.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    let mut arguments = arguments.to_vec();
    let all = take_flag(&mut arguments, "--all");
    let restart = take_flag(&mut arguments, "--restart");
    let names: Vec<&str> = LANES.iter().map(|lane| lane.name).collect();
    let [name] = arguments.as_slice() else { bail!("which lane? {}", names.join(", ")) };
    let lane = LANES.iter().find(|lane| lane.name == name);
    let lane = lane.with_context(|| format!("no lane {name:?}: {}", names.join(", ")))?;
    test::need_nextest()?;
    let started = Instant::now();
    let mut progress = if restart { None } else { load(lane)? }.unwrap_or_else(Progress::fresh);
    println!("{name}: {} of {} pieces done, seed {}", progress.done, lane.pieces, progress.seed);
    while progress.done < lane.pieces {
        if !all && started.elapsed() > CALL_LIMIT {
            println!(
                "{name}: {} of {} pieces done; the same command goes on",
                progress.done, lane.pieces
            );
            return Ok(true);
        }
        if !piece(lane, &mut progress)? {
            return Ok(false);
        }
    }
    finish(lane, &progress)
}

/// Runs the next piece and keeps what came of it. Returns whether it passed.
fn piece(lane: &Lane, progress: &mut Progress) -> Result<bool> {
    let (number, began) = (progress.done, Instant::now());
    let commit = machine::commit()?;
    let result = (lane.work)(number, progress.seed);
    let seconds = began.elapsed().as_secs();
    let counts = match result {
        Ok(counts) => counts,
        Err(error) => {
            println!("{error:#}");
            println!(
                "{}: piece {number} FAILED, seed {}, commit {commit}",
                lane.name, progress.seed
            );
            return Ok(false);
        }
    };
    for (name, count) in counts {
        *progress.counts.entry(name).or_default() += count;
    }
    progress.done += 1;
    progress.seconds += seconds;
    if !progress.commits.contains(&commit) {
        progress.commits.push(commit);
    }
    println!("{}: piece {} of {} passed in {seconds} s", lane.name, number + 1, lane.pieces);
    save(lane, progress)?;
    Ok(true)
}

/// Writes the result into its document and forgets the progress.
fn finish(lane: &Lane, progress: &Progress) -> Result<bool> {
    let passed = format!(
        "passed in {} s, seed {}, commits {}. {}",
        progress.seconds,
        progress.seed,
        progress.commits.join(" "),
        bench::stamp()?,
    );
    let (document, text) = match lane.results {
        Results::Line(shows) => {
            (DOCUMENT, format!("{shows}: {passed}{}", counted(&progress.counts)))
        }
        Results::Table(table) => {
            (bench::DOCUMENT, format!("All {passed}\n\n{}", table(&progress.counts)))
        }
        Results::Pieces => (bench::DOCUMENT, String::new()),
    };
    if !text.is_empty() {
        println!("{text}");
        markers::write(document, &format!("full-{}", lane.name), &text)?;
    }
    test::forget(&path(lane)?)?;
    println!("{}: finished; see {document}", lane.name);
    Ok(true)
}

/// Lists what was counted.
fn counted(counts: &Counts) -> String {
    let named = counts.iter().map(|(name, count)| format!("{} {count}", name.replace('_', " ")));
    let named = named.collect::<Vec<_>>().join(", ");
    if named.is_empty() { named } else { format!(" Counted: {named}.") }
}

fn crash(piece: u64, seed: u64) -> Result<Counts> {
    let rounds = CRASH_ROUND_COUNT / CRASH_PIECE_COUNT;
    let cargo = Program::new("cargo")
        .env("AX_CRASH_ROUNDS", rounds.to_string())
        .env("AX_CRASH_SEED", (seed + piece * rounds).to_string());
    let args = ["-p", "ax", "--test", "crash", "--profile", "full"];
    let tally = test::nextest(cargo, &[&args[..], &["--success-output", "final"]].concat())?;
    let counts = test::summary(&tally.text, "crash");
    passed(tally)?;
    counts.context("the test printed no summary")
}

fn two_servers(piece: u64, seed: u64) -> Result<Counts> {
    let rounds = TWO_ROUND_COUNT / TWO_PIECE_COUNT;
    let cargo = Program::new("cargo")
        .env("AX_TWO_ROUNDS", rounds.to_string())
        .env("AX_TWO_SEED", (seed + piece * rounds).to_string());
    let args = ["-p", "ax", "--test", "two_servers", "--profile", "full"];
    let tally = test::nextest(cargo, &[&args[..], &["--success-output", "final"]].concat())?;
    let counts = test::summary(&tally.text, "two-servers");
    passed(tally)?;
    counts.context("the test printed no summary")
}

/// Half of the rounds are root's, half an ordinary user's.
fn sandbox(piece: u64, seed: u64) -> Result<Counts> {
    let rounds = SANDBOX_ROUND_COUNT / SANDBOX_PIECE_COUNT / 2;
    let cargo = Program::new("cargo")
        .env("AX_SANDBOX_ROUNDS", rounds.to_string())
        .env("AX_SANDBOX_SEED", (seed + piece).to_string());
    let only = "test(a_runtime_killed_at_any_moment)";
    let args = ["-p", "ax-sandbox", "--test", "attack", "--profile", "full", "-E", only];
    let tally = test::nextest(cargo, &[&args[..], &["--success-output", "final"]].concat())?;
    let counts = test::summary(&tally.text, "sandbox");
    passed(tally)?;
    counts.context("the test printed no summary")
}

fn cut(piece: u64, seed: u64) -> Result<Counts> {
    let cargo = Program::new("cargo")
        .env("AX_CUT_COUNT", (CUT_COUNT / CUT_PIECE_COUNT).to_string())
        // A piece takes as many seeds as it needs.
        .env("AX_CUT_SEED", (seed + piece * CUT_COUNT).to_string());
    let args = ["-p", "ax", "--test", "cut", "--profile", "full", "--success-output", "final"];
    let tally = test::nextest(cargo, &args)?;
    let counts = test::summary(&tally.text, "cut");
    passed(tally)?;
    counts.context("the test printed no summary")
}

fn heavy(_piece: u64, _seed: u64) -> Result<Counts> {
    let mut cargo = Program::new("cargo");
    for (name, value) in LOAD {
        cargo = cargo.env(name, value);
    }
    let args = ["-p", "ax", "--test", "load", "--profile", "full", "--success-output", "final"];
    let release = ["--release"];
    let tally = test::nextest(cargo, &[&args[..], &release].concat())?;
    let counts = test::summary(&tally.text, "load");
    passed(tally)?;
    let counts = counts.context("the test printed no summary")?;
    let ratio = counts.get("ratio_percent").copied().unwrap_or(u64::MAX);
    if ratio > LOAD_RATIO_PERCENT_MAX {
        anyhow::bail!("some sessions are left behind: {counts:?}");
    }
    Ok(counts)
}

fn simulation(piece: u64, seed: u64) -> Result<Counts> {
    let count = SEED_COUNT / SEED_PIECE_COUNT;
    sim::seeds(sim::Build::Release, seed + piece * count, count).map(|()| Counts::new())
}

fn langgraph(piece: u64, seed: u64) -> Result<Counts> {
    passed(python::langgraph(seed + piece)?).map(|()| Counts::new())
}

fn schemathesis(piece: u64, seed: u64) -> Result<Counts> {
    passed(api::schemathesis(seed + piece)?).map(|()| Counts::new())
}

/// Builds the commit before this one, and lets each of the two go on with what the other began.
fn upgrade(_piece: u64, _seed: u64) -> Result<Counts> {
    let place = tree::target()?.join("full/upgrade");
    let (source, target) = (place.join("source"), place.join("target"));
    let git = |args: &[&OsStr]| Program::new("git").args(args).succeed().map(drop);
    let worktree: [&OsStr; 2] = ["worktree".as_ref(), "remove".as_ref()];
    if source.exists() {
        git(&[worktree[0], worktree[1], "--force".as_ref(), source.as_ref()])?;
    }
    std::fs::create_dir_all(&place)?;
    let add = ["worktree", "add", "--detach"].map(OsStr::new);
    git(&[add[0], add[1], add[2], source.as_ref(), "HEAD^".as_ref()])?;
    let build = Program::new("cargo").args(["build", "-p", "ax", "--bin", "ax"]);
    build.dir(&source).env("CARGO_TARGET_DIR", &target).succeed()?;
    let cargo = Program::new("cargo").env("AX_UPGRADE_OLD", target.join("debug/ax"));
    let tested = test::nextest(cargo, &["-p", "ax", "--test", "upgrade", "--profile", "full"]);
    git(&[worktree[0], worktree[1], "--force".as_ref(), source.as_ref()])?;
    passed(tested?).map(|()| Counts::new())
}

fn bench_log(piece: u64, _seed: u64) -> Result<Counts> {
    measure(bench::Suite::Log, piece)
}

fn bench_steps(piece: u64, _seed: u64) -> Result<Counts> {
    measure(bench::Suite::Steps, piece)
}

fn bench_serve(piece: u64, _seed: u64) -> Result<Counts> {
    measure(bench::Suite::Serve, piece)
}

fn bench_gateway(piece: u64, _seed: u64) -> Result<Counts> {
    measure(bench::Suite::Gateway, piece)
}

fn bench_sandbox(piece: u64, _seed: u64) -> Result<Counts> {
    measure(bench::Suite::Sandbox, piece)
}

/// Measures a piece. A target that is missed is written down like one that is reached.
fn measure(suite: bench::Suite, piece: u64) -> Result<Counts> {
    let name = usize::try_from(piece).ok().and_then(|piece| suite.pieces().get(piece));
    suite.measure(name.context("no such piece")?, true).map(|_| Counts::new())
}

fn passed(tally: Tally) -> Result<()> {
    tally.into_remark().map(drop)
}

impl Progress {
    fn fresh() -> Self {
        Self {
            seed: machine::fresh_seed(),
            done: 0,
            seconds: 0,
            commits: Vec::new(),
            counts: Counts::new(),
        }
    }

    fn to_json(&self) -> Value {
        let Self { seed, done, seconds, commits, counts } = self;
        json!({
            "seed": seed, "done": done, "seconds": seconds, "commits": commits, "counts": counts,
        })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let commits = value["commits"].as_array()?.iter();
        let counts = value["counts"].as_object()?.iter();
        Some(Self {
            seed: value["seed"].as_u64()?,
            done: value["done"].as_u64()?,
            seconds: value["seconds"].as_u64()?,
            commits: commits.filter_map(|one| one.as_str().map(str::to_owned)).collect(),
            counts: counts.filter_map(|(name, one)| Some((name.clone(), one.as_u64()?))).collect(),
        })
    }
}

fn path(lane: &Lane) -> Result<PathBuf> {
    Ok(tree::target()?.join("full").join(format!("{}.json", lane.name)))
}

/// Reads how far the lane is, if it was begun.
fn load(lane: &Lane) -> Result<Option<Progress>> {
    let path = path(lane)?;
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
    let value = serde_json::from_str(&text).ok();
    let progress = value.as_ref().and_then(Progress::from_json);
    let unreadable = || format!("{} is not readable; --restart begins anew", path.display());
    progress.with_context(unreadable).map(Some)
}

fn save(lane: &Lane, progress: &Progress) -> Result<()> {
    let path = path(lane)?;
    let parent = path.parent().context("a directory")?;
    std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    // Written beside and renamed: a call that is cut short leaves the old one.
    let new = path.with_extension("new");
    std::fs::write(&new, progress.to_json().to_string())?;
    std::fs::rename(&new, &path).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_as_it_was_written() {
        let counts = Counts::from([("events".to_owned(), 3)]);
        let commits = vec!["a".to_owned()];
        let progress = Progress { seed: 7, done: 2, seconds: 9, commits, counts };
        assert_eq!(Progress::from_json(&progress.to_json()), Some(progress));
    }

    #[test]
    fn pieces_make_up_the_figures_that_are_named() {
        assert_eq!(CRASH_ROUND_COUNT % CRASH_PIECE_COUNT, 0);
        assert_eq!(SEED_COUNT % SEED_PIECE_COUNT, 0);
        assert_eq!(SCHEMATHESIS_PIECE_COUNT * api::FULL_PIECE_SECONDS, 20 * 60);
        assert_eq!(CUT_COUNT % CUT_PIECE_COUNT, 0);
        assert_eq!(SANDBOX_ROUND_COUNT % (2 * SANDBOX_PIECE_COUNT), 0);
    }
}
