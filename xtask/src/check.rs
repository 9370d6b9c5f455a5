//! What must hold before a commit.

use crate::command::Program;
use crate::steps::Steps;
use crate::{dependencies, docs, layers, sim, sizes, test};
use anyhow::Result;

const SEED_COUNT: u64 = 200;

/// Runs all steps, or those that are named.
pub(crate) fn run(only: &[String]) -> Result<bool> {
    test::need_nextest()?;
    let mut steps = Steps::new(only);
    steps.step("format", || quiet(Program::new("cargo").args(["fmt", "--all", "--check"])));
    steps.step("layers", layers::check);
    steps.step("sizes", sizes::check);
    steps.step("dependencies", dependencies::check);
    steps.step("docs", docs::check);
    steps.step("clippy", || {
        let clippy = Program::new("cargo").args(["clippy", "--quiet", "--workspace"]);
        quiet(clippy.args(["--all-targets", "--", "-D", "warnings"]))
    });
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

fn quiet(program: Program) -> Result<String> {
    program.succeed().map(|_| String::new())
}
