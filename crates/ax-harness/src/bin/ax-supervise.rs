//! The supervisor as a program of its own, for tests; `ax` has it as a hidden subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    ax_harness::supervise::main(std::env::args_os().skip(1))
}
