//! Throws mutated input at everything that decodes what others wrote.
//!
//! It needs no other compiler than the rest: inputs are drawn from examples, and those that are
//! answered in a new way become examples. It is not a search for every path of the code; it is a
//! minute in which every decoder sees a million things that nobody would think of.
//!
//! ```text
//! ax-fuzz [--seconds N] [--seed S] [TARGET…]
//! ax-fuzz --hex TARGET HEX        one input again
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod driver;
mod mutate;
mod targets;

use anyhow::{Context as _, Result, bail};
use driver::{Outcome, Target};
use std::process::ExitCode;
use std::time::Duration;

#[global_allocator]
static MEMORY: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

/// How long all targets together take, in seconds, unless the command line says.
const SECONDS: u64 = 60;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // A panic is caught and reported with its input.
    std::panic::set_hook(Box::new(|_| {}));
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[String]) -> Result<bool> {
    let all = targets::all();
    let find = |name: &str| {
        let names: Vec<_> = all.iter().map(|target| target.name).collect();
        let found = all.iter().find(|target| target.name == name);
        found.with_context(|| format!("no target {name:?}: {}", names.join(", ")))
    };
    let (mut seconds, mut seed, mut chosen) = (SECONDS, driver::fresh_seed(), Vec::new());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--seconds" => seconds = value()?.parse()?,
            "--seed" => seed = value()?.parse()?,
            "--hex" => {
                let (name, hex) = (value()?, value()?);
                return Ok(show(find(name)?, &driver::once(find(name)?, &bytes(hex)?)));
            }
            flag if flag.starts_with("--") => bail!("unknown option {flag}"),
            name => chosen.push(find(name)?),
        }
    }
    let chosen = if chosen.is_empty() { all.iter().collect() } else { chosen };
    let each = Duration::from_secs(seconds) / u32::try_from(chosen.len().max(1))?;
    let mut sound = true;
    for target in chosen {
        sound &= show(target, &driver::fuzz(target, seed, each, u64::MAX));
    }
    Ok(sound)
}

fn show(target: &Target, outcome: &Outcome) -> bool {
    let Outcome { runs, accepted, examples, seed, failure } = outcome;
    println!(
        "{}: {runs} inputs, {accepted} accepted, {examples} kinds of answer, seed {seed}",
        target.name
    );
    let Some((what, input)) = failure else { return true };
    let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{} FAILED: {what}\n  ax-fuzz --hex {} {hex}", target.name, target.name);
    false
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    if !hex.is_ascii() || !hex.len().is_multiple_of(2) {
        bail!("not hexadecimal");
    }
    let read = |at| u8::from_str_radix(&hex[at..at + 2], 16).context("not hexadecimal");
    (0..hex.len()).step_by(2).map(read).collect()
}
