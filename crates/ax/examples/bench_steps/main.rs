//! Measures what a session costs beyond its log: steps, warm inputs, recovery, sleep.
//!
//! `cargo run --release -p ax --example bench_steps -- PIECE [OPTIONS]` prints one JSON object a
//! line. The options are `--count N`, `--sessions N` and `--dir DIR`. The pieces:
//!
//! | piece | what is measured |
//! |---|---|
//! | `steps` | the overhead of a step beyond its durable writes, side by side with appends |
//! | `warm` | an input to a session that exists, until a follower sees the first event of it |
//! | `resume` | a restart with many sessions in the middle of an execution (default 10000) |
//! | `idle` | the memory of sessions that sleep (default 50000) |
//!
//! The harness is a Rust function in this process, so that nothing but the runtime is measured.
//! DIR is where the files go (default: the directory for temporary files).

#![expect(clippy::unwrap_used, reason = "a measurement has nothing better to do than to stop")]
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

mod harness;
mod idle;
mod resume;
mod steps;
mod timed;
mod world;

use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What the command line says.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    pub(crate) count: Option<usize>,
    pub(crate) sessions: Option<usize>,
    pub(crate) dir: PathBuf,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let piece = words.next().unwrap_or_default();
    let mut arguments = Arguments { count: None, sessions: None, dir: std::env::temp_dir() };
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        match name.as_str() {
            "--count" => arguments.count = Some(value.parse().unwrap()),
            "--sessions" => arguments.sessions = Some(value.parse().unwrap()),
            "--dir" => arguments.dir = value.into(),
            _ => return usage(),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match piece.as_str() {
        "steps" => runtime.block_on(steps::steps(&arguments)),
        "warm" => runtime.block_on(steps::warm(&arguments)),
        "resume" => runtime.block_on(resume::resume(&arguments)),
        // The first half of it, in a process of its own that is killed.
        "resume-begin" => runtime.block_on(resume::begin(&arguments)),
        "idle" => runtime.block_on(idle::idle(&arguments)),
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    println!("usage: bench_steps steps|warm|resume|idle [--count N] [--sessions N] [--dir DIR]");
    ExitCode::from(2)
}

pub(crate) fn say(figures: &Value) {
    println!("{figures}");
}

/// Returns the duration that this part of all is not longer than, in microseconds.
pub(crate) fn part(durations: &mut [Duration], part: f64) -> f64 {
    assert!(!durations.is_empty(), "something was measured");
    durations.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is an index")]
    let at = (durations.len() as f64 * part) as usize;
    round1(durations[at.min(durations.len() - 1)].as_secs_f64() * 1e6)
}

pub(crate) fn round1(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
