//! What the measurements of the gateway print, as rows beside their targets.

use super::{Row, at_most, number, plain};
use crate::command::Program;
use anyhow::{Result, bail};
use serde_json::Value;
use std::path::PathBuf;

const HINT: &str = "install it (Debian and Ubuntu: apt install nginx-light; it need not run as a \
    service), or name the program by AX_NGINX";
/// What a call may take longer through the gateway, in milliseconds.
const ADDED_MILLIS_MAX: f64 = 1.0;
/// What the server may compute for a call, in microseconds.
const CPU_MICROS_MAX: f64 = 50.0;

/// Finds nginx, which is measured beside. It is not installed: that may take an administrator.
pub(super) fn nginx() -> Result<PathBuf> {
    let named = std::env::var("AX_NGINX").ok();
    let usual = ["nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx"];
    let names: Vec<&str> = named.as_deref().map_or_else(|| usual.to_vec(), |name| vec![name]);
    for name in &names {
        if Program::new(name).args(["-v"]).run().is_ok_and(|finished| finished.ok) {
            return Ok(PathBuf::from(name));
        }
    }
    bail!("nginx was not found ({}): {HINT}", names.join(", "))
}

/// Turns what a piece printed into rows.
pub(super) fn rows(lines: &[Value]) -> Vec<Row> {
    super::with_load(lines.iter().flat_map(of).collect())
}

fn of(line: &Value) -> Vec<Row> {
    match line["piece"].as_str() {
        Some("calls") => calls(line),
        Some("streams") => streams(line),
        _ => Vec::new(),
    }
}

/// Microseconds as milliseconds with two digits.
fn millis(line: &Value, pointer: &str) -> f64 {
    (number(line, pointer) / 10.0).round() / 100.0
}

/// p50 and p99 of what is at a place.
fn both(line: &Value, pointer: &str) -> String {
    let at = |part: usize| millis(line, &format!("{pointer}/{part}"));
    format!("{} · {}", at(0), at(1))
}

/// How much longer the gateway takes than nothing, at p50 (0) or p99 (1), in milliseconds.
fn added(line: &Value, what: &str, part: usize) -> f64 {
    let at = |way: &str| number(line, &format!("/{way}/{what}/{part}"));
    ((at("gateway") - at("direct")) / 10.0).round() / 100.0
}

fn callers(line: &Value) -> String {
    match line["callers"].as_u64() {
        Some(1) => "1 caller".to_owned(),
        _ => format!("{} callers", line["callers"]),
    }
}

fn calls(line: &Value) -> Vec<Row> {
    let of = |text: &str| format!("{}, {} KiB: {text}", callers(line), line["kib"]);
    let sync = millis(line, "/sync/0");
    let cpu = number(line, "/gateway/cpu_us");
    let note = format!("a raw sync {sync}, p99 {}", added(line, "whole", 1));
    let (more, computes) =
        (of("ms added by the gateway, p50"), of("µs that the server computes, each"));
    let mut rows = vec![
        plain(of("ms directly, p50 · p99"), both(line, "/direct/whole")),
        plain(of("ms through nginx, p50 · p99"), both(line, "/nginx/whole")),
        plain(of("ms through the gateway, p50 · p99"), both(line, "/gateway/whole")),
    ];
    let has_target = line["callers"] == 1 && line["kib"] == 1;
    let millis = added(line, "whole", 0);
    let syncs = format!("a raw sync {}", number(line, "/sync_cpu_us"));
    rows.extend(if has_target {
        [
            at_most(more, millis, &note, ADDED_MILLIS_MAX),
            at_most(computes, cpu, &syncs, CPU_MICROS_MAX),
        ]
    } else {
        [plain(more, format!("{millis} ({note})")), plain(computes, format!("{cpu} ({syncs})"))]
    });
    let nginx = number(line, "/nginx/cpu_us");
    rows.push(plain(of("µs that nginx computes, each"), format!("{nginx}")));
    rows
}

fn streams(line: &Value) -> Vec<Row> {
    let of = |text: &str| format!("{}: {text}", callers(line));
    let sync = millis(line, "/sync/0");
    let mut rows = Vec::new();
    for (what, name) in
        [("first", "until the first piece"), ("piece", "a later piece"), ("whole", "until the end")]
    {
        for (way, through) in
            [("direct", "directly"), ("nginx", "through nginx"), ("gateway", "through the gateway")]
        {
            let text = of(&format!("{name}, {through}: ms, p50 · p99"));
            rows.push(plain(text, both(line, &format!("/{way}/{what}"))));
        }
        let text = of(&format!("{name}: ms added by the gateway, p50"));
        let millis = added(line, what, 0);
        rows.push(match what {
            "whole" => plain(text, format!("{millis} (a raw sync {sync})")),
            _ => at_most(text, millis, "", ADDED_MILLIS_MAX),
        });
    }
    for (way, who) in [("nginx", "nginx"), ("gateway", "the server")] {
        let text = of(&format!("µs that {who} computes, a piece"));
        rows.push(plain(text, format!("{}", number(line, &format!("/{way}/piece_cpu_us")))));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(callers: u64, gateway: f64, cpu: f64) -> Value {
        let way = |p50: f64, cpu: f64| {
            json!({"whole": [p50, 900.0], "first": [p50, 900.0], "piece": [p50, 900.0],
                "cpu_us": cpu, "piece_cpu_us": cpu})
        };
        json!({"piece": "calls", "callers": callers, "kib": 1, "sync": [300.0, 900.0],
            "direct": way(100.0, 0.0), "nginx": way(150.0, 30.0), "gateway": way(gateway, cpu)})
    }

    fn met(rows: &[Row]) -> Vec<bool> {
        rows.iter().filter_map(|row| row.target.as_ref()).map(|(_, met)| *met).collect()
    }

    #[test]
    fn a_lone_caller_has_targets_beyond_the_direct_way() {
        assert_eq!(met(&calls(&line(1, 1_090.0, 50.0))), [true, true]);
        assert_eq!(met(&calls(&line(1, 1_200.0, 50.1))), [false, false]);
        assert!(met(&calls(&line(16, 9_000.0, 90.0))).is_empty());
    }

    #[test]
    fn a_figure_that_is_missing_reaches_no_target() {
        let mut missing = line(1, 500.0, 40.0);
        missing["gateway"] = json!({});
        assert_eq!(met(&calls(&missing)), [false, false]);
        assert_eq!(met(&streams(&missing)), [false, false]);
    }

    #[test]
    fn every_piece_of_a_stream_has_its_rows() {
        let rows = streams(&line(1, 500.0, 40.0));
        assert_eq!(rows.len(), 14);
        assert_eq!(met(&rows), [true, true]);
    }
}
