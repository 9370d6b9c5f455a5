//! Measures the embedded log beside a raw durable write of the same bytes, in the same run.
//!
//! `bench_log PIECE [DIR]` prints one JSON object per measurement. The pieces are `grid`,
//! `sustained`, `open`, `sleeping` and `branch`; each takes less than ten minutes. DIR is where the
//! files go (default: the directory for temporary files).

#![expect(clippy::unwrap_used, reason = "a measurement has nothing better to do than to stop")]
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

mod closed_loop;
mod history;
mod raw;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ax_log::{EmbeddedLog, Options};
use closed_loop::{Cell, Figures};
use serde_json::{Value, json};

const ROUND: Duration = Duration::from_millis(800);
const ROUND_COUNT: usize = 3;
const SUSTAINED: Duration = Duration::from_secs(6);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let piece = arguments.next().unwrap_or_default();
    let dir = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    match piece.as_str() {
        "grid" => runtime.block_on(grid(&dir)),
        "profile" => runtime.block_on(profile(&dir)),
        "sustained" => runtime.block_on(sustained(&dir)),
        "open" => runtime.block_on(history::open(&dir)),
        "load" => runtime.block_on(history::load(&dir)),
        "sleeping" => runtime.block_on(history::sleeping(&dir)),
        "wake" => runtime.block_on(history::wake(&dir)),
        "branch" => runtime.block_on(history::branch(&dir)),
        _ => {
            println!("usage: bench_log grid|sustained|open|sleeping|branch [DIR]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

pub(crate) fn say(figures: &Value) {
    println!("{figures}");
}

pub(crate) fn fresh(dir: &Path) -> tempfile::TempDir {
    tempfile::tempdir_in(dir).unwrap()
}

pub(crate) fn open_log(dir: &Path) -> Arc<EmbeddedLog> {
    Arc::new(EmbeddedLog::open(&Options::new(dir)).unwrap())
}

/// Runs every cell on every engine, interleaved, and keeps the medians.
async fn grid(dir: &Path) {
    let only: Option<usize> = std::env::var("CLIENTS").ok().map(|text| text.parse().unwrap());
    let only_bytes: Option<usize> = std::env::var("BYTES").ok().map(|text| text.parse().unwrap());
    for bytes in [256, 1024, 16 * 1024] {
        for clients in [1, 8, 64, 512] {
            if only.is_some_and(|only| only != clients) || only_bytes.is_some_and(|b| b != bytes) {
                continue;
            }
            let cell = Cell { clients, bytes, sessions: clients, length: ROUND };
            let mut rounds: [Vec<Figures>; 3] = Default::default();
            for round in 0..ROUND_COUNT {
                for turn in 0..3 {
                    let engine = (round + turn) % 3;
                    rounds[engine].push(run(engine, dir, cell).await);
                }
            }
            let [log, buffered, direct] = rounds.map(Figures::median);
            let limit = buffered.rate.max(direct.rate);
            say(&json!({
                "piece": "grid", "bytes": bytes, "clients": clients,
                "ratio": round2(log.rate / limit),
                "log": log.json(), "raw_fdatasync": buffered.json(), "raw_direct": direct.json(),
            }));
        }
    }
}

/// Runs the log alone for a while, for a look at where its time goes.
async fn profile(dir: &Path) {
    let number = |name| std::env::var(name).unwrap().parse().unwrap();
    let (clients, bytes) = (number("CLIENTS"), number("BYTES"));
    let cell = Cell { clients, bytes, sessions: clients, length: SUSTAINED };
    let figures = run(0, dir, cell).await;
    say(&json!({ "piece": "profile", "log": figures.json() }));
}

/// Runs one engine: the log, the raw buffered writer with fdatasync, or the raw direct one.
async fn run(engine: usize, dir: &Path, cell: Cell) -> Figures {
    let dir = fresh(dir);
    match engine {
        0 => {
            let log = open_log(dir.path());
            history::grow(&log).await;
            let figures = closed_loop::log(&log, cell).await;
            ax_log::EventLog::close(&*log).await.unwrap();
            figures
        }
        1 => closed_loop::raw(raw::Raw::start(dir.path(), false), cell).await,
        _ => closed_loop::raw(raw::Raw::start(dir.path(), true), cell).await,
    }
}

/// Runs for longer, so that runs are written beside the commits; hot sessions and many sessions.
async fn sustained(dir: &Path) {
    for sessions in [512, 100_000] {
        let cell = Cell { clients: 512, bytes: 1024, sessions, length: SUSTAINED };
        let raw = run(2, dir, cell).await;
        let place = fresh(dir);
        let log = open_log(place.path());
        history::grow(&log).await;
        let before = written_bytes();
        let figures = closed_loop::log(&log, cell).await;
        let written = written_bytes() - before;
        let payload = figures.count as f64 * cell.bytes as f64;
        let kept = kept_bytes(place.path());
        let runs = log.run_count();
        ax_log::EventLog::close(&*log).await.unwrap();
        let raw_after = run(2, dir, cell).await;
        let raw_p99 = f64::midpoint(raw.p99_millis, raw_after.p99_millis);
        let raw_rate = f64::midpoint(raw.rate, raw_after.rate);
        say(&json!({
            "piece": "sustained", "sessions": sessions,
            "rate_ratio": round2(figures.rate / raw_rate),
            "p99_ratio": round2(figures.p99_millis / raw_p99),
            "log": figures.json(), "raw_direct_before": raw.json(),
            "raw_direct_after": raw_after.json(),
            "written_per_payload": round2(written as f64 / payload),
            "kept_per_payload": round2(kept as f64 / payload), "runs": runs,
        }));
    }
}

pub(crate) fn round2(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Returns how much this process has written so far, in bytes.
pub(crate) fn written_bytes() -> u64 {
    field("/proc/self/io", "write_bytes:")
}

/// Returns the anonymous memory of this process, in bytes.
pub(crate) fn anonymous_bytes() -> u64 {
    field("/proc/self/status", "RssAnon:") * 1024
}

fn field(path: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Returns what the files in a directory take on the disk, in bytes.
pub(crate) fn kept_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let files = std::fs::read_dir(dir).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
}
