//! What must hold before a commit.

use crate::command::Program;
use crate::steps::Steps;
use crate::test::{self, Tally};
use crate::{dependencies, docs, layers, sim, sizes};
use anyhow::Result;

const SEED_COUNT: u64 = 200;

type Step = (&'static str, fn() -> Result<String>);

/// The steps that look at the source only.
const STILL: &[Step] = &[
    ("format", format),
    ("layers", layers::check),
    ("sizes", sizes::check),
    ("dependencies", dependencies::check),
    ("docs", docs::check),
    ("clippy", clippy),
];

/// Runs all steps, or those that are named.
pub(crate) fn run(only: &[String]) -> Result<bool> {
    test::need_nextest()?;
    let mut steps = Steps::new(only);
    for (name, step) in STILL {
        steps.step(name, step);
    }
    steps.step("tests", || {
        let tally = test::nextest(Program::new("cargo"), test::RUST)?;
        tally.into_remark()
    });
    steps.step("doctests", || test::doctests()?.into_remark());
    steps.step("simulation", || {
        sim::seeds(sim::Build::Dev, 1, SEED_COUNT)?;
        Ok(format!("{SEED_COUNT} seeds"))
    });
    steps.finish()
}

/// Runs the steps that look at the source only, and counts them.
pub(crate) fn still() -> Tally {
    let mut tally = Tally::default();
    for (name, step) in STILL {
        let (passed, failed, text) = match step() {
            Ok(_) => (1, 0, String::new()),
            Err(error) => (0, 1, format!("{name}: {error:#}\n")),
        };
        tally.add(&Tally { passed, failed, text });
    }
    tally
}

fn format() -> Result<String> {
    quiet(Program::new("cargo").args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<String> {
    let clippy = Program::new("cargo").args(["clippy", "--quiet", "--workspace"]);
    quiet(clippy.args(["--all-targets", "--", "-D", "warnings"]))
}

fn quiet(program: Program) -> Result<String> {
    program.succeed().map(|_| String::new())
}
