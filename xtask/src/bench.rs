//! Measurements beside the targets that they are to reach.

use crate::command::Program;
use crate::machine::{self, Machine};
use crate::{markers, python, take_flag, tree};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::path::PathBuf;

mod engine;
mod gateway;
mod log;
mod sandbox;
mod serve;

/// Where the results stand.
pub(crate) const DOCUMENT: &str = "docs/benchmarks.md";

/// Something that is measured in pieces, each of which takes less than ten minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    /// The log beside the raw disk.
    Log,
    /// What the engine and the SDK add to the log.
    Steps,
    /// What the server adds to the log, beside a peer.
    Serve,
    /// What the gateway adds to model calls, beside a plain reverse proxy.
    Gateway,
    /// What a sandbox costs, beside a plain process and other kinds of sandboxes.
    Sandbox,
}

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// The figure, and those it comes from.
    pub(crate) measured: String,
    /// What is to be reached, and whether it is; `None` for figures that only inform.
    pub(crate) target: Option<(String, bool)>,
}

/// Runs `bench log`, `bench steps`, `bench serve`, `bench gateway` or `bench sandbox`.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    let mut arguments = arguments.to_vec();
    let write = take_flag(&mut arguments, "--write");
    let (suite, named) = match arguments.split_first() {
        Some((name, named)) if name == "log" => (Suite::Log, named),
        Some((name, named)) if name == "steps" => (Suite::Steps, named),
        Some((name, named)) if name == "serve" => (Suite::Serve, named),
        Some((name, named)) if name == "gateway" => (Suite::Gateway, named),
        Some((name, named)) if name == "sandbox" => (Suite::Sandbox, named),
        _ => bail!("bench log, bench steps, bench serve, bench gateway or bench sandbox?"),
    };
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    let mut ok = true;
    for piece in if named.is_empty() { suite.pieces() } else { &named } {
        ok &= suite.measure(piece, write)?;
    }
    Ok(ok)
}

impl Suite {
    const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Steps => "steps",
            Self::Serve => "serve",
            Self::Gateway => "gateway",
            Self::Sandbox => "sandbox",
        }
    }

    /// The pieces, in order.
    pub(crate) const fn pieces(self) -> &'static [&'static str] {
        match self {
            Self::Log => &["grid", "sustained", "open", "sleeping", "branch"],
            Self::Steps => &["engine", "sdk", "warm", "resume", "idle"],
            Self::Serve => &["latency", "submits", "memory", "durable-streams", "restate"],
            Self::Gateway => &["calls", "streams"],
            Self::Sandbox => &["start", "memory", "overhead"],
        }
    }

    /// Measures a piece, shows it and writes it down if wanted. Returns whether it is reached.
    pub(crate) fn measure(self, piece: &str, write: bool) -> Result<bool> {
        if !self.pieces().contains(&piece) {
            bail!("no piece named {piece:?}: {}", self.pieces().join(", "));
        }
        let rows = match (self, piece) {
            (Self::Log, _) => log::rows(piece, &log_piece(piece)?),
            (Self::Steps, "sdk") => engine::rows(piece, &sdk_piece()?),
            (Self::Steps, _) => engine::rows(piece, &engine_piece(piece)?),
            (Self::Serve, "restate") => serve::rows(&restate_piece()?),
            (Self::Serve, _) => serve::rows(&serve_piece(piece)?),
            (Self::Gateway, _) => gateway::rows(&serve_piece(piece)?),
            (Self::Sandbox, _) => sandbox::rows(&sandbox_piece(piece)?),
        };
        if rows.is_empty() {
            bail!("the measurement of {piece} printed nothing");
        }
        show(&format!("{}-{piece}", self.name()), &rows, write)
    }
}

fn log_piece(piece: &str) -> Result<Vec<Value>> {
    let build = ["build", "--release", "--quiet", "-p", "ax-log", "--example", "bench_log"];
    Program::new("cargo").args(build).succeed()?;
    let program = Program::new(tree::target()?.join("release/examples/bench_log"));
    lines(&program.args([piece]).args([place()?]).stdout()?)
}

fn sandbox_piece(piece: &str) -> Result<Vec<Value>> {
    sandbox::peers()?;
    let build = ["build", "--release", "--quiet", "-p", "ax-sandbox", "--example", "bench_sandbox"];
    Program::new("cargo").args(build).succeed()?;
    let program = Program::new(tree::target()?.join("release/examples/bench_sandbox"));
    lines(&program.args([piece]).args([place()?]).stdout()?)
}

fn engine_piece(piece: &str) -> Result<Vec<Value>> {
    let build = ["build", "--release", "--quiet", "-p", "ax", "--example", "bench_steps"];
    Program::new("cargo").args(build).succeed()?;
    let program = Program::new(tree::target()?.join("release/examples/bench_steps"));
    let piece = if piece == "engine" { "steps" } else { piece };
    lines(&program.args([piece, "--dir"]).args([place()?]).stdout()?)
}

/// Measures steps of the Python SDK, through the real binary.
fn sdk_piece() -> Result<Vec<Value>> {
    Program::new("cargo").args(["build", "--release", "--quiet", "-p", "ax"]).succeed()?;
    let program = tree::target()?.join("release/ax");
    let script = tree::root().join("xtask/python/bench_steps.py");
    let (python, _) = python::interpreter()?;
    let bench = Program::new(python).args([script, program, place()?]);
    lines(&bench.env("PYTHONPATH", tree::root().join("sdk/python/src")).stdout()?)
}

/// Measures steps of the Python SDK beside those of Restate, which is installed first.
fn restate_piece() -> Result<Vec<Value>> {
    Program::new("cargo").args(["build", "--release", "--quiet", "-p", "ax"]).succeed()?;
    let venv = python::Venv::get("restate", &["xtask/python/restate.txt"])?;
    let script = tree::root().join("xtask/python/bench_restate.py");
    let programs = [serve::restate()?, tree::target()?.join("release/ax"), place()?];
    lines(&venv.program([]).args([script]).args(programs).stdout()?)
}

/// Measures the real binary; the piece of the peer installs it first, unless it is nginx.
fn serve_piece(piece: &str) -> Result<Vec<Value>> {
    let peer = match piece {
        "durable-streams" => Some(serve::peer()?),
        "calls" | "streams" => Some(gateway::nginx()?),
        _ => None,
    };
    let build = ["build", "--release", "--quiet", "-p", "ax", "--bins", "--example", "bench_serve"];
    Program::new("cargo").args(build).succeed()?;
    let built = tree::target()?.join("release");
    let program = Program::new(built.join("examples/bench_serve")).args([piece]);
    let program = program.args(["--ax"]).args([built.join("ax")]);
    let program = program.args(["--dir"]).args([place()?]);
    let program = match peer {
        Some(peer) => program.args(["--peer"]).args([peer]),
        None => program,
    };
    lines(&program.stdout()?)
}

fn lines(text: &str) -> Result<Vec<Value>> {
    let values = text.lines().map(serde_json::from_str);
    values.collect::<Result<_, _>>().context("the measurement printed something else than JSON")
}

/// Prints a table; writes it into the document if wanted. Returns whether all targets are reached.
fn show(name: &str, rows: &[Row], write: bool) -> Result<bool> {
    let table = table(rows);
    println!("\n{name}\n{table}");
    if write {
        markers::write(DOCUMENT, name, &format!("{}\n\n{table}", stamp()?))?;
    }
    let missed = rows.iter().filter(|row| row.target.as_ref().is_some_and(|(_, met)| !met));
    Ok(missed.count() == 0)
}

/// Says where, when and from which commit a figure is.
pub(crate) fn stamp() -> Result<String> {
    let machine = Machine::of(&place()?).line();
    let (day, commit) = (machine::today(), machine::commit()?);
    Ok(format!("Measured {day} at commit `{commit}` on {machine}."))
}

/// The directory that is measured in.
fn place() -> Result<PathBuf> {
    let dir = tree::target()?.join("bench");
    std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    Ok(dir)
}

/// Renders rows as a table for documents and terminals alike.
fn table(rows: &[Row]) -> String {
    let header = ["what", "measured", "target", "reached"].map(str::to_owned);
    let mut cells = vec![header];
    for row in rows {
        let (target, met) = match &row.target {
            None => ("", ""),
            Some((target, true)) => (target.as_str(), "yes"),
            Some((target, false)) => (target.as_str(), "**no**"),
        };
        cells.push([row.what.clone(), row.measured.clone(), target.to_owned(), met.to_owned()]);
    }
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max();
    let widths = [0, 1, 2, 3].map(|column| width(column).unwrap_or(0));
    cells.insert(1, widths.map(|width| "-".repeat(width)));
    let line = |row: &[String; 4]| {
        let padded = row.iter().zip(widths).map(|(cell, width)| format!(" {cell:<width$} "));
        format!("|{}|", padded.collect::<Vec<_>>().join("|"))
    };
    cells.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Adds how many processes wanted to compute in the last minute, if anything was measured.
fn with_load(mut rows: Vec<Row>) -> Vec<Row> {
    if !rows.is_empty() {
        let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = text.split(' ').next().unwrap_or_default().to_owned();
        rows.push(plain("load average of the machine, at the end".to_owned(), load));
    }
    rows
}

fn at_most(what: String, value: f64, note: &str, limit: f64) -> Row {
    let measured = if note.is_empty() { format!("{value}") } else { format!("{value} ({note})") };
    Row { what, measured, target: Some((format!("≤ {limit}"), value <= limit)) }
}

const fn plain(what: String, measured: String) -> Row {
    Row { what, measured, target: None }
}

/// Returns a figure; one that is missing reaches no target.
fn number(line: &Value, pointer: &str) -> f64 {
    line.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_says_what_was_missed() {
        let target = Some(("≥ 2".to_owned(), false));
        let rows = [Row { what: "a".to_owned(), measured: "1.5".to_owned(), target }];
        let lines = [
            "| what | measured | target | reached |",
            "| ---- | -------- | ------ | ------- |",
            "| a    | 1.5      | ≥ 2    | **no**  |",
        ];
        assert_eq!(table(&rows), lines.join("\n"));
    }
}
