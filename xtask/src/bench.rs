//! Measurements beside the targets that they are to reach.

use crate::command::Program;
use crate::machine::{self, Machine};
use crate::{markers, python, take_flag, tree};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::path::PathBuf;

mod log;

/// Where the results stand.
pub(crate) const DOCUMENT: &str = "docs/benchmarks.md";
/// The pieces of the measurement of the log; each takes less than ten minutes.
pub(crate) const LOG_PIECES: &[&str] = &["grid", "sustained", "open", "sleeping", "branch"];

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

/// Runs `bench log` or `bench steps`.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    let mut arguments = arguments.to_vec();
    let write = take_flag(&mut arguments, "--write");
    let Some((what, pieces)) = arguments.split_first() else { bail!("bench log or bench steps?") };
    match what.as_str() {
        "log" => {
            let pieces: Vec<&str> = match pieces {
                [] => LOG_PIECES.to_vec(),
                named => named.iter().map(String::as_str).collect(),
            };
            let mut ok = true;
            for piece in pieces {
                ok &= show(&format!("log-{piece}"), &log_piece(piece)?, write)?;
            }
            Ok(ok)
        }
        "steps" => show("steps", &steps()?, write),
        other => bail!("no bench named {other:?}: log, steps"),
    }
}

/// Measures one piece of the log.
pub(crate) fn log_piece(piece: &str) -> Result<Vec<Row>> {
    if !LOG_PIECES.contains(&piece) {
        bail!("no piece named {piece:?}: {}", LOG_PIECES.join(", "));
    }
    let build = ["build", "--release", "--quiet", "-p", "ax-log", "--example", "bench_log"];
    Program::new("cargo").args(build).succeed()?;
    let program = tree::target()?.join("release/examples/bench_log");
    let text = Program::new(program).args([piece]).args([place()?]).stdout()?;
    let lines = text.lines().map(serde_json::from_str);
    let lines = lines.collect::<Result<Vec<Value>, _>>().context("bench_log printed no JSON")?;
    Ok(log::rows(piece, &lines))
}

/// Measures what one step of the Python SDK costs, through the real binary.
pub(crate) fn steps() -> Result<Vec<Row>> {
    Program::new("cargo").args(["build", "--release", "--quiet", "-p", "ax"]).succeed()?;
    let program = tree::target()?.join("release/ax");
    let script = tree::root().join("xtask/python/bench_steps.py");
    let (python, _) = python::interpreter()?;
    let text = Program::new(python)
        .args([script, program, place()?])
        .env("PYTHONPATH", tree::root().join("sdk/python/src"))
        .stdout()?;
    let lines = text.lines().map(serde_json::from_str);
    let lines = lines.collect::<Result<Vec<Value>, _>>().context("bench_steps printed no JSON")?;
    Ok(log::steps(&lines))
}

/// Prints a table; writes it into the document if wanted. Returns whether all targets are reached.
pub(crate) fn show(name: &str, rows: &[Row], write: bool) -> Result<bool> {
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
