//! What a sandbox costs, beside a plain process, bubblewrap, runc and runsc, in turns: until the
//! first byte, in memory, and for programs that call the kernel or compute. One JSON line a figure.
//!
//! `bench_sandbox PIECE DIR`; `bench_sandbox launch` is the launcher itself.
#![expect(clippy::print_stdout, reason = "the figures")]

mod figures;
mod memory;
mod overhead;
mod start;
mod ways;

use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> Result<ExitCode> {
    let args: Vec<String> = std::env::args().collect();
    let piece = args.get(1).map_or("", String::as_str);
    if piece == "launch" {
        return Ok(ax_sandbox::launcher::main());
    }
    let dir = PathBuf::from(args.get(2).context("in which directory?")?);
    let place = ways::Place::new(&dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match piece {
            "start" => start::measure(&place).await,
            "memory" => memory::measure(&place).await,
            "overhead" => overhead::measure(&place).await,
            _ => bail!("no piece named {piece:?}"),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}
