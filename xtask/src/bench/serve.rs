//! What the measurements of the server print, as rows beside their targets.

use super::{Row, at_most, number, plain};
use crate::command::Program;
use crate::{api, tree};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::path::PathBuf;

/// The peer that is measured beside, as the registry names it.
const PEER: [&str; 3] = ["durable-streams", "--version", "0.1.5"];
const PEER_PROGRAM: &str = "durable-streams-server";
/// The peer that takes steps, from npm, and its program.
const RESTATE: &str = "@restatedev/restate-server@1.7.12";
const RESTATE_PROGRAM: &str = "@restatedev/restate-server-linux-x64/bin/restate-server";

/// Turns what a piece printed into rows.
pub(super) fn rows(lines: &[Value]) -> Vec<Row> {
    lines.iter().flat_map(of).collect()
}

/// Finds the program of the peer; installs it if it is not there.
pub(super) fn peer() -> Result<PathBuf> {
    let root = tree::target()?.join("tools");
    let program = root.join("bin").join(PEER_PROGRAM);
    if !program.exists() {
        let install = Program::new("cargo").args(["install", "--locked", "--quiet", "--root"]);
        let install = install.args([&root]).args(PEER);
        install
            .env("CARGO_TARGET_DIR", root.join("build"))
            .succeed()
            .context("install the peer")?;
    }
    Ok(program)
}

/// Finds the program of Restate; installs it if it is not there.
pub(super) fn restate() -> Result<PathBuf> {
    api::npm_program(RESTATE, RESTATE_PROGRAM)
}

fn of(line: &Value) -> Vec<Row> {
    match (line["piece"].as_str(), line["what"].as_str()) {
        (Some("latency"), _) => latency(line),
        (Some("submits"), _) => submits(line),
        (Some("memory"), _) => memory(line),
        (Some("durable-streams"), Some("appends")) => peer_appends(line),
        (Some("durable-streams"), _) => peer_latency(line),
        (Some("restate"), Some(who)) => step(line, who),
        _ => Vec::new(),
    }
}

fn text<'a>(line: &'a Value, name: &str) -> &'a str {
    line[name].as_str().unwrap_or_default()
}

/// Microseconds as milliseconds with two digits.
fn millis(line: &Value, name: &str) -> f64 {
    (number(line, &format!("/{name}")) / 10.0).round() / 100.0
}

fn latency(line: &Value) -> Vec<Row> {
    let followers = &line["followers"];
    let wire = text(line, "wire");
    let of =
        |text: &str| format!("{wire}, {followers} followers, {} events/s: {text}", line["rate"]);
    let (p50, p99) = (millis(line, "p50_us"), millis(line, "p99_us"));
    let (sync50, sync99) = (millis(line, "sync_p50_us"), millis(line, "sync_p99_us"));
    let note = format!("whole way {p99}, sync {sync99}");
    let beyond = of("ms beyond the sync, p99");
    let over = millis(line, "over_p99_us");
    vec![
        plain(of("ms, p50"), format!("{p50} (sync {sync50})")),
        match followers.as_u64() {
            Some(100) => at_most(beyond, over, &note, 5.0),
            _ => plain(beyond, format!("{over} ({note})")),
        },
        plain(of("µs that the server computes, each"), format!("{}", line["cpu_us_each"])),
    ]
}

fn submits(line: &Value) -> Vec<Row> {
    let way = match text(line, "way") {
        "unary" => "unary gRPC",
        "stream" => "bidirectional gRPC",
        _ => "HTTP/JSON",
    };
    let of = |text: &str| format!("{way}, {} clients: {text}", line["clients"]);
    let (p50, p99) = (millis(line, "p50_us"), millis(line, "p99_us"));
    let rate = format!("{} (log alone {})", line["rate"], line["log_rate"]);
    vec![
        plain(of("inputs/s"), rate),
        plain(of("ms, p50 · p99"), format!("{p50} · {p99}")),
        at_most(of("µs that the server computes, each"), number(line, "/cpu_us"), "", 30.0),
    ]
}

fn memory(line: &Value) -> Vec<Row> {
    let what = text(line, "what").replace("follower_sse", "idle follower, server-sent events");
    let what = what.replace("follower_grpc", "idle follower, gRPC");
    let what = what.replace("connection", "idle connection, HTTP");
    let each = format!("{} (of {})", line["bytes_each"], line["count"]);
    vec![plain(format!("{what}: bytes each"), each)]
}

fn peer_appends(line: &Value) -> Vec<Row> {
    let of = |text: &str| format!("appends, {} clients: {text}", line["clients"]);
    let (p50, p99) = (millis(line, "p50_us"), millis(line, "p99_us"));
    vec![
        plain(of("appends/s"), format!("{}", line["rate"])),
        plain(of("ms, p50 · p99"), format!("{p50} · {p99}")),
        plain(of("µs that the server computes, each"), format!("{}", line["cpu_us"])),
    ]
}

fn peer_latency(line: &Value) -> Vec<Row> {
    let of =
        |text: &str| format!("{} followers, {} events/s: {text}", line["followers"], line["rate"]);
    let (p50, p99) = (millis(line, "p50_us"), millis(line, "p99_us"));
    vec![
        plain(of("ms, p50 · p99"), format!("{p50} · {p99}")),
        plain(of("bytes of memory, each"), format!("{}", line["bytes_each"])),
    ]
}

fn step(line: &Value, who: &str) -> Vec<Row> {
    let (p50, p99) = (millis(line, "p50_us"), millis(line, "p99_us"));
    vec![plain(format!("a durable step in {who}: ms, p50 · p99"), format!("{p50} · {p99}"))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_hundred_followers_have_a_target() {
        let line = |followers: u64, over: f64| {
            json!({"piece": "latency", "wire": "sse", "followers": followers, "rate": 50,
                "p50_us": 900.0, "p99_us": 4000.0, "sync_p50_us": 300.0, "sync_p99_us": 900.0,
                "over_p99_us": over, "cpu_us_each": 8.0})
        };
        let met = |rows: Vec<Row>| rows.into_iter().find_map(|row| row.target).map(|(_, met)| met);
        assert_eq!(met(rows(&[line(100, 3100.0)])), Some(true));
        assert_eq!(met(rows(&[line(100, 5100.0)])), Some(false));
        assert_eq!(met(rows(&[line(1, 5100.0)])), None);
    }

    #[test]
    fn every_piece_gives_rows() {
        for (piece, what, count) in [
            ("submits", "", 3),
            ("memory", "connection", 1),
            ("durable-streams", "appends", 3),
            ("durable-streams", "latency", 2),
            ("restate", "ax", 1),
        ] {
            let line = json!({"piece": piece, "what": what, "way": "http"});
            assert_eq!(rows(&[line]).len(), count, "{piece} {what}");
        }
    }
}
