//! The supervisor and the launcher of sandboxes as a program of their own, for tests; `ax` has them
//! as hidden subcommands.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|arg| arg == "__sandbox") {
        return ax_sandbox::launcher::main();
    }
    ax_harness::supervise::main(std::env::args_os().skip(1))
}
