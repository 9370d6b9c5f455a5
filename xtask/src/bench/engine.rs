//! What the measurements of the engine and the SDK print, as rows beside their targets.

use super::{Row, at_most, number, plain};
use serde_json::Value;

/// Turns what a piece printed into rows.
pub(super) fn rows(piece: &str, lines: &[Value]) -> Vec<Row> {
    let of: fn(&Value) -> Vec<Row> = match piece {
        "engine" => engine,
        "sdk" => sdk,
        "warm" => warm,
        "resume" => resume,
        _ => idle,
    };
    lines.iter().flat_map(of).collect()
}

fn name(line: &Value) -> String {
    line["name"].as_str().unwrap_or_default().replace('_', " ")
}

fn engine(line: &Value) -> Vec<Row> {
    let what = name(line);
    let of = |text: &str| format!("{what}: {text}");
    let (p50, p99) = (number(line, "/p50_us"), number(line, "/p99_us"));
    if what == "append" {
        return vec![plain(of("µs, p50, p99"), format!("{p50}, {p99}"))];
    }
    let beyond = number(line, "/overhead_p50_us");
    let note =
        format!("p99 {}, {} appends", number(line, "/overhead_p99_us"), line["appends_each"]);
    vec![
        at_most(of("µs in all, p50"), p50, &format!("p99 {p99}"), 1000.0),
        at_most(of("µs beyond its appends, p50"), beyond, &note, 200.0),
    ]
}

fn sdk(line: &Value) -> Vec<Row> {
    let what = name(line);
    let of = |text: &str| format!("{what}: {text}");
    let (step, sync) = (number(line, "/step_us_p50"), number(line, "/sync_us_p50"));
    let note = format!("step {step}, {} syncs of {sync}", line["syncs_each"]);
    let beyond = number(line, "/beyond_us_p50");
    vec![
        at_most(of("µs in all, p50"), step, &format!("p99 {}", line["step_us_p99"]), 1000.0),
        at_most(of("µs beyond its syncs, p50"), beyond, &note, 200.0),
    ]
}

fn warm(line: &Value) -> Vec<Row> {
    let (p50, p99) = (number(line, "/p50_us") / 1000.0, number(line, "/p99_us") / 1000.0);
    let what = format!("warm session, {}: ms, p50", name(line));
    let note = format!("p99 {p99:.2}");
    if line["name"] == "submit_to_event" {
        return vec![at_most(what, (p50 * 100.0).round() / 100.0, &note, 2.0)];
    }
    vec![plain(what, format!("{p50:.2} ({note})"))]
}

fn resume(line: &Value) -> Vec<Row> {
    let of = |text: &str| format!("restart with {} sessions at work: {text}", line["sessions"]);
    let seconds = |name: &str| number(line, &format!("/{name}_seconds"));
    vec![
        plain(of("s to open"), format!("{}", seconds("open"))),
        at_most(of("s until the first goes on"), seconds("first"), "", 5.0),
        at_most(of("s until the last goes on"), seconds("last"), "", 60.0),
        plain(of("s until all have ended"), format!("{}", seconds("ended"))),
    ]
}

fn idle(line: &Value) -> Vec<Row> {
    let of = |text: &str| format!("{} sessions asleep: {text}", line["sessions"]);
    let used = number(line, "/bytes_each_after_use");
    let opened = number(line, "/bytes_each_after_reopening");
    vec![
        at_most(of("bytes each, after use"), used, "", 1024.0),
        at_most(of("bytes each, after a restart"), opened, "", 1024.0),
        plain(of("tasks"), format!("{}", line["awake"])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_append_has_no_target_and_a_step_has_two() {
        let append = json!({"name": "append", "p50_us": 116.5, "p99_us": 203.8});
        assert_eq!(engine(&append)[0].target, None);
        let step = json!({"name": "step_once", "p50_us": 285.8, "p99_us": 1.0, "appends_each": 2.0,
            "overhead_p50_us": 232.1, "overhead_p99_us": 77.4});
        let met: Vec<_> = engine(&step).into_iter().map(|row| row.target.unwrap().1).collect();
        assert_eq!(met, [true, false]);
    }
}
