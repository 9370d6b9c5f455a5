//! What the measurements of the sandbox print, as rows beside their targets.

use super::{Row, at_most, number, plain};
use crate::command::Program;
use anyhow::{Result, bail};
use serde_json::Value;

const HINT: &str = "Debian and Ubuntu: apt install bubblewrap runc runsc gcc libc6-dev";
/// What is measured beside, and the C compiler that makes what is run.
const PEERS: [&str; 4] = ["bwrap", "runc", "runsc", "cc"];
/// What a sandbox may take longer to its first byte than a plain process, in milliseconds.
const ADDED_MILLIS_MAX: f64 = 4.0;
const WAYS: [(&str, &str); 6] = [
    ("plain", "plain fork and exec"),
    ("warm", "namespace"),
    ("cold", "namespace, the first of a server"),
    ("bubblewrap", "bubblewrap"),
    ("runc", "runc"),
    ("runsc", "runsc (gVisor)"),
];

/// Finds what is measured beside. It is not installed: that may take an administrator.
pub(super) fn peers() -> Result<()> {
    for name in PEERS {
        if !Program::new(name).args(["--version"]).run().is_ok_and(|finished| finished.ok) {
            bail!("{name} was not found: {HINT}");
        }
    }
    Ok(())
}

/// Turns what a piece printed into rows.
pub(super) fn rows(lines: &[Value]) -> Vec<Row> {
    super::with_load(lines.iter().flat_map(of).collect())
}

fn of(line: &Value) -> Vec<Row> {
    match line["piece"].as_str() {
        Some("start") => start(line),
        Some("memory") => memory(line),
        Some("overhead") => overhead(line),
        _ => Vec::new(),
    }
}

fn start(line: &Value) -> Vec<Row> {
    let at = |way: &str, part: usize| number(line, &format!("/micros/{way}/{part}"));
    let millis = |micros: f64| (micros / 10.0).round() / 100.0;
    let mut rows: Vec<Row> = WAYS
        .iter()
        .map(|(way, name)| {
            let both = format!("{} · {}", millis(at(way, 0)), millis(at(way, 1)));
            plain(format!("{name}: ms to the first byte, p50 · p99"), both)
        })
        .collect();
    let added = millis(at("warm", 0) - at("plain", 0));
    rows.push(at_most("ms added by namespace, p50".to_owned(), added, "", ADDED_MILLIS_MAX));
    let ratio = ratio(at("warm", 0), at("bubblewrap", 0));
    rows.push(at_most("namespace / bubblewrap, p50".to_owned(), ratio, "", 1.0));
    rows
}

fn memory(line: &Value) -> Vec<Row> {
    let of = |way: &str, name: &str| {
        let kib = number(line, &format!("/kib/{way}"));
        plain(format!("{name}: KiB of an idle one"), format!("{kib}"))
    };
    let ways = WAYS.iter().filter(|(way, _)| *way != "cold");
    ways.map(|(way, name)| of(way, name)).collect()
}

fn overhead(line: &Value) -> Vec<Row> {
    let what = if line["what"] == "calls" { "a system call" } else { "a step of computing" };
    let at = |way: &str| number(line, &format!("/nanos/{way}"));
    let ways = WAYS.iter().filter(|(way, _)| *way != "cold");
    ways.map(|(way, name)| {
        let nanos = (at(way) * 10.0).round() / 10.0;
        let times = ratio(at(way), at("plain"));
        plain(format!("{name}: ns for {what}"), format!("{nanos} ({times} times plain)"))
    })
    .collect()
}

fn ratio(value: f64, of: f64) -> f64 {
    (value / of * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn met(warm: f64) -> Vec<bool> {
        let micros =
            json!({"plain": [600.0, 900.0], "warm": [warm, 9e3], "bubblewrap": [5e3, 9e3]});
        let rows = start(&json!({"piece": "start", "micros": micros}));
        rows.iter().filter_map(|row| row.target.as_ref()).map(|(_, met)| *met).collect()
    }

    #[test]
    fn a_start_is_measured_against_a_plain_one_and_against_bubblewrap() {
        assert_eq!(met(4_600.0), [true, true]);
        assert_eq!(met(4_700.0), [false, true]);
        assert_eq!(met(5_100.0), [false, false]);
    }

    #[test]
    fn a_figure_that_is_missing_reaches_no_target() {
        let rows = start(&json!({"piece": "start", "micros": {}}));
        assert!(rows.iter().filter_map(|row| row.target.as_ref()).all(|(_, met)| !met));
    }

    #[test]
    fn every_way_has_its_rows() {
        assert_eq!(memory(&json!({"piece": "memory"})).len(), 5);
        assert_eq!(overhead(&json!({"piece": "overhead", "what": "calls"})).len(), 5);
    }
}
