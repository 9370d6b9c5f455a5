//! The program of the attack suite. It is the launcher, the host side of a test as any user, and
//! what attacks from inside: `launch`, `host ORDER`, `conform DIR ID`, `inside NAME ARGS…`.
#![expect(unsafe_code, reason = "attacks speak to the kernel directly")]
#![expect(clippy::print_stdout, reason = "its output is what it is for")]
#![cfg_attr(test, expect(clippy::print_stderr, reason = "says what was not tested"))]

#[cfg(test)]
mod bench;
mod host;
mod suite;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("launch") => ax_sandbox::launcher::main(),
        Some("host") => host::run(&args[2]),
        Some("conform") => host::conform(&args[2], &args[0], &args[3]),
        Some("inside") => {
            let attack = suite::ALL.iter().find(|attack| attack.name == args[2]);
            let verdict = attack.map(|attack| (attack.inside)(&args[3..]));
            println!("{}", serde_json::to_string(&verdict).unwrap_or_default());
            ExitCode::SUCCESS
        }
        // For the attack with a set-user-id program: says who it is.
        Some("who") => {
            println!("{}", rustix::process::geteuid().as_raw());
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    }
}
