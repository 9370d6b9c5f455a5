//! Measures the server: a release build of `ax serve` as a process of its own, with its clients in
//! this one, over the loopback interface.
//!
//! `cargo run --release -p ax --example bench_serve -- PIECE --ax PATH [OPTIONS]` prints one JSON
//! object a line. The options are `--dir DIR`, `--seconds N` (for each figure that takes time) and
//! `--peer PATH` (the program of the peer). The pieces:
//!
//! | piece | what is measured |
//! |---|---|
//! | `latency` | from sending an input until followers have it; 1, 100 and 1 000 followers |
//! | `submits` | inputs a second by 64 clients, and the server's CPU time for each |
//! | `memory` | memory of connections and followers that are idle |
//! | `durable-streams` | the same appends and followers with a peer's server |
//! | `calls` | model calls through the gateway, through nginx (the peer), and directly |
//! | `streams` | the same with answers that come in pieces |
//!
//! Each runs beside what the disk, or the log in the library, does in the same run.

#![expect(clippy::unwrap_used, reason = "a measurement has nothing better to do than to stop")]
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

mod gateway;
mod latency;
mod memory;
mod peer;
mod raw;
mod server;
mod stats;
mod submits;
mod wire;

use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What the command line says.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    /// The server's program.
    pub(crate) ax: PathBuf,
    /// The peer's.
    pub(crate) peer: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) span: Duration,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let piece = words.next().unwrap_or_default();
    let mut arguments = Arguments {
        ax: PathBuf::new(),
        peer: PathBuf::new(),
        dir: std::env::temp_dir(),
        span: Duration::from_secs(5),
    };
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        match name.as_str() {
            "--ax" => arguments.ax = value.into(),
            "--peer" => arguments.peer = value.into(),
            "--dir" => arguments.dir = value.into(),
            "--seconds" => arguments.span = Duration::from_secs(value.parse().unwrap()),
            _ => return usage(),
        }
    }
    let dir = tempfile::tempdir_in(&arguments.dir).unwrap();
    arguments.dir = dir.path().to_owned();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match piece.as_str() {
        "latency" => runtime.block_on(latency::measure(&arguments)),
        "submits" => runtime.block_on(submits::measure(&arguments)),
        "memory" => runtime.block_on(memory::measure(&arguments)),
        "durable-streams" => runtime.block_on(peer::measure(&arguments)),
        "calls" => runtime.block_on(gateway::calls(&arguments)),
        "streams" => runtime.block_on(gateway::streams(&arguments)),
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    println!(
        "usage: bench_serve latency|submits|memory|durable-streams|calls|streams --ax PATH \
         [--peer PATH] [--dir DIR] [--seconds N]"
    );
    ExitCode::from(2)
}

pub(crate) fn say(figures: &Value) {
    println!("{figures}");
}
