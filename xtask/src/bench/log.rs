//! What the measurements of the log print, as rows beside their targets.

use super::{Row, at_most, number, plain};
use serde_json::Value;

/// Turns what a piece printed into rows.
pub(super) fn rows(piece: &str, lines: &[Value]) -> Vec<Row> {
    let of: fn(&Value) -> Vec<Row> = match piece {
        "grid" => |line| vec![grid(line)],
        "sustained" => sustained,
        "open" => open,
        "sleeping" => sleeping,
        _ => |line| vec![branch(line)],
    };
    lines.iter().flat_map(of).collect()
}

fn grid(line: &Value) -> Row {
    let (bytes, clients) = (number(line, "/bytes"), number(line, "/clients"));
    let target = match (bytes > 1024.0, clients > 64.0) {
        (false, false) => 0.9,
        (false, true) => 0.65,
        (true, false) => 0.8,
        (true, true) => 0.5,
    };
    let raw = number(line, "/raw_fdatasync/rate").max(number(line, "/raw_direct/rate"));
    let (rate, p99) = (number(line, "/log/rate"), number(line, "/log/p99_millis"));
    let ratio = number(line, "/ratio");
    Row {
        what: format!("{bytes} B, {clients} sessions: rate / raw"),
        measured: format!("{ratio:.2} ({rate:.0}/s of {raw:.0}/s, p99 {p99} ms)"),
        target: Some((format!("≥ {target}"), ratio >= target)),
    }
}

fn sustained(line: &Value) -> Vec<Row> {
    let sessions = number(line, "/sessions");
    let (rate, p99) = (number(line, "/log/rate"), number(line, "/log/p99_millis"));
    let of = |text: &str| format!("sustained 1 KiB, 512 writers, {sessions} sessions: {text}");
    // The targets are those of the many sessions that write at once.
    let limited = sessions <= 512.0;
    vec![
        at_most(of("p99 / raw p99"), number(line, "/p99_ratio"), &format!("p99 {p99} ms"), 3.0)
            .only(limited),
        plain(of("rate / raw"), format!("{} ({rate:.0}/s)", number(line, "/rate_ratio"))),
        at_most(of("bytes written / payload"), number(line, "/written_per_payload"), "", 2.2)
            .only(limited),
        plain(of("bytes kept / payload"), format!("{}", number(line, "/kept_per_payload"))),
    ]
}

fn open(line: &Value) -> Vec<Row> {
    let (events, attempt) = (number(line, "/events"), number(line, "/attempt"));
    let of = |text: &str| format!("{events} events, opening {attempt}: {text}");
    let millis = number(line, "/open_millis");
    let tail = |p: &str| number(line, &format!("/tail_10_micros_{p}"));
    let mut rows = vec![
        at_most(of("ms to open"), millis, "", 150.0),
        plain(of("tail of 10, µs p50, p99"), format!("{}, {}", tail("p50"), tail("p99"))),
        plain(of("scan of 10 000, ms"), format!("{}", number(line, "/scan_10k_millis"))),
    ];
    if attempt > 1.0 {
        return rows;
    }
    let written = number(line, "/load/written_per_payload");
    rows.push(at_most(of("bytes written / payload"), written, "", 2.2));
    let kept = number(line, "/kept_per_payload");
    rows.push(at_most(of("bytes kept / payload"), kept, "", 1.2));
    rows
}

fn sleeping(line: &Value) -> Vec<Row> {
    let sessions = number(line, "/sessions");
    let of = |text: &str| format!("{sessions} sleeping sessions: {text}");
    let mib = |pointer: &str| format!("{:.0} MiB", number(line, pointer) / 1_048_576.0);
    let opened = "/after_restart/anonymous_bytes_opened";
    let wake = |p: &str| number(line, &format!("/after_restart/wake_micros_{p}"));
    let each = number(line, "/bytes_per_session");
    vec![
        at_most(of("bytes of memory each"), each, &mib("/anonymous_bytes"), 1024.0),
        plain(of("memory after a restart"), mib(opened)),
        plain(of("kept on disk"), mib("/kept_bytes")),
        plain(of("µs to wake one, p50, p99"), format!("{}, {}", wake("p50"), wake("p99"))),
    ]
}

fn branch(line: &Value) -> Row {
    let events = number(line, "/events");
    let millis = number(line, "/branch_millis_p50");
    let note = format!("{millis} ms");
    at_most(format!("branch at {events} events / append"), number(line, "/ratio"), &note, 1.2)
}

impl Row {
    /// Drops the target unless it applies.
    fn only(self, applies: bool) -> Self {
        Self { target: self.target.filter(|_| applies), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_target_depends_on_size_and_concurrency() {
        let line = |bytes: u32, clients: u32| {
            json!({"bytes": bytes, "clients": clients, "ratio": 0.7, "log": {"rate": 7.0},
                "raw_direct": {"rate": 10.0}, "raw_fdatasync": {"rate": 9.0}})
        };
        let met = |bytes, clients| grid(&line(bytes, clients)).target.map(|(_, met)| met);
        assert_eq!(met(1024, 64), Some(false));
        assert_eq!(met(1024, 512), Some(true));
        assert_eq!(met(16_384, 64), Some(false));
        assert_eq!(met(16_384, 512), Some(true));
    }

    #[test]
    fn a_missing_figure_reaches_nothing() {
        assert_eq!(branch(&json!({})).target.map(|(_, met)| met), Some(false));
    }
}
