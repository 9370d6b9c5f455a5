//! A list of steps, one line each, with its time; everything a failed one said.

use anyhow::Result;
use std::io::Write as _;
use std::time::Instant;

/// Counts what passed and failed while steps are carried out.
#[derive(Debug)]
pub(crate) struct Steps {
    started: Instant,
    only: Vec<String>,
    known: Vec<&'static str>,
    failed: Vec<&'static str>,
}

impl Steps {
    /// Begins. If `only` names steps, the others are left out.
    pub(crate) fn new(only: &[String]) -> Self {
        let (known, failed) = (Vec::new(), Vec::new());
        Self { started: Instant::now(), only: only.to_vec(), known, failed }
    }

    /// Carries out a step; `Ok` holds a remark for its line.
    pub(crate) fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<String>) {
        self.known.push(name);
        if !self.only.is_empty() && !self.only.iter().any(|only| only == name) {
            return;
        }
        print!("{name:<14} ");
        flush();
        let started = Instant::now();
        let result = work();
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(remark) => println!("ok   {seconds:>6.1} s  {remark}"),
            Err(error) => {
                println!("FAIL {seconds:>6.1} s");
                println!("{error:#}");
                self.failed.push(name);
            }
        }
        flush();
    }

    /// Ends; prints what failed and how long all of it took. Returns whether nothing failed.
    pub(crate) fn finish(self) -> Result<bool> {
        if let Some(unknown) = self.only.iter().find(|only| !self.known.contains(&only.as_str())) {
            anyhow::bail!("unknown step {unknown:?}; there are: {}", self.known.join(", "));
        }
        let seconds = self.started.elapsed().as_secs_f64();
        if self.failed.is_empty() {
            println!("all checks passed in {seconds:.0} s");
        } else {
            println!("FAILED after {seconds:.0} s: {}", self.failed.join(", "));
        }
        Ok(self.failed.is_empty())
    }
}

fn flush() {
    // A terminal that is gone is no reason to stop checking.
    drop(std::io::stdout().flush());
}
