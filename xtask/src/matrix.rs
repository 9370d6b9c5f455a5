//! The kill matrix: real harnesses, killed while they work, and what that cost.

use crate::command::Program;
use crate::test;
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;

/// What was counted, by name.
type Counts = BTreeMap<String, u64>;

/// A harness; the name is the one that its test prints.
#[derive(Debug)]
struct Row {
    name: &'static str,
    test: &'static str,
    pieces: u64,
    /// How often it works in a piece; in each round somebody is killed twice.
    rounds: u64,
}

const ROWS: &[Row] = &[
    Row { name: "built-in", test: "light::built_in", pieces: 5, rounds: 6 },
    Row { name: "langgraph", test: "light::langgraph", pieces: 5, rounds: 6 },
    Row { name: "adk", test: "light::adk", pieces: 5, rounds: 6 },
    Row { name: "antigravity", test: "heavy::antigravity", pieces: 2, rounds: 5 },
    Row { name: "claude-code", test: "heavy::claude_code", pieces: 2, rounds: 5 },
    Row { name: "codex", test: "heavy::codex", pieces: 2, rounds: 5 },
    Row { name: "gemini-cli", test: "heavy::gemini_cli", pieces: 2, rounds: 5 },
    Row { name: "opencode", test: "heavy::opencode", pieces: 2, rounds: 5 },
];

/// The columns of the table: their heads, and the counters that stand in them.
const COLUMNS: [(&str, &str); 10] = [
    ("kills", "kills"),
    ("of them servers", "server_kills"),
    ("attempts lost", "lost"),
    ("model calls paid", "model_calls_paid"),
    ("beyond the minimum", "model_calls_again"),
    ("`idempotent` tools called again", "idempotent_calls_again"),
    ("`once` effects twice", "once_effects_twice"),
    ("`once` effects in doubt", "unknown"),
    ("not finished", "not_finished"),
    ("diverged", "diverged"),
];

/// How many pieces there are.
pub(crate) const fn piece_count() -> u64 {
    let (mut count, mut at) = (0, 0);
    while at < ROWS.len() {
        count += ROWS[at].pieces;
        at += 1;
    }
    count
}

/// Runs a piece; returns what it counted, with the harness before each name.
pub(crate) fn piece(piece: u64, seed: u64) -> Result<Counts> {
    let row = row_of(piece).context("no such piece")?;
    let cargo = Program::new("cargo")
        .env("AX_MATRIX_ROUNDS", row.rounds.to_string())
        // A piece takes as many seeds as it has rounds, and no row has more than these.
        .env("AX_SEED", (seed + piece * 100).to_string());
    let filter = format!("package(ax) and binary(matrix) and test(/^{}/)", row.test);
    let args = ["-p", "ax", "-E", &filter, "--profile", "full", "--success-output", "final"];
    let tally = test::nextest(cargo, &args)?;
    let counts = test::summary(&tally.text, row.name);
    tally.into_remark()?;
    let counts = counts.context("the test printed no summary")?.into_iter();
    Ok(counts.map(|(name, count)| (format!("{}.{name}", row.name), count)).collect())
}

fn row_of(piece: u64) -> Option<&'static Row> {
    let mut before = 0;
    ROWS.iter().find(|row| {
        before += row.pieces;
        piece < before
    })
}

/// Renders what was counted.
pub(crate) fn table(counts: &Counts) -> String {
    let heads = COLUMNS.map(|(head, _)| head).join(" | ");
    let mut lines =
        vec![format!("| harness | {heads} |"), format!("|---{}|", "|---".repeat(COLUMNS.len()))];
    for row in ROWS {
        let cell = |name: &str| counts.get(&format!("{}.{name}", row.name));
        let cells = COLUMNS.map(|(_, name)| cell(name).map_or_else(String::new, u64::to_string));
        lines.push(format!("| {} | {} |", row.name, cells.join(" | ")));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_has_a_row() {
        let names: Vec<_> = (0..piece_count()).filter_map(row_of).map(|row| row.name).collect();
        assert_eq!(names.len() as u64, piece_count());
        assert_eq!((names.first(), names.last()), (Some(&"built-in"), Some(&"opencode")));
        assert!(row_of(piece_count()).is_none());
    }

    #[test]
    fn a_table_has_a_line_for_each_harness() {
        let counts = Counts::from([("adk.kills".to_owned(), 50)]);
        let table = table(&counts);
        assert!(table.contains("\n| adk | 50 |  |"), "{table}");
        assert_eq!(table.lines().count(), ROWS.len() + 2);
    }
}
