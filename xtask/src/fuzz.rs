//! A minute of mutated input for every decoder.

use crate::command::Program;
use crate::machine;
use anyhow::Result;

/// How long all targets together take, in seconds.
const SECONDS: &str = "60";

/// Runs `ax-fuzz`, built with the checks of arithmetic; the arguments are for it.
pub(crate) fn smoke(arguments: &[String]) -> Result<bool> {
    let mut fuzz = vec!["run", "--quiet", "-p", "ax-fuzz", "--"];
    if !arguments.iter().any(|argument| argument == "--seconds") {
        fuzz.extend(["--seconds", SECONDS]);
    }
    fuzz.extend(arguments.iter().map(String::as_str));
    let ran = Program::new("cargo").args(fuzz).run()?;
    println!("{}", ran.text.trim_end());
    if !ran.ok {
        println!("fuzz-smoke FAILED at commit {}", machine::commit()?);
    }
    Ok(ran.ok)
}
