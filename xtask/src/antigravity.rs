//! The lane of Google Antigravity: the program of the real SDK, with a scripted model.

use crate::command::Program;
use crate::python::Venv;
use crate::test::{self, Tally};
use anyhow::{Context as _, Result};
use std::time::Duration;

const REQUIREMENTS: &str = "tests/python/antigravity/requirements.txt";
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Installs the wheel that has the program, and tests it as its example has it.
pub(crate) fn test() -> Result<Tally> {
    let venv = Venv::get("antigravity", &[REQUIREMENTS])?;
    let find = "import importlib.metadata as m; \
        print(next(f.locate() for f in m.files('google-antigravity') if f.name == 'localharness'))";
    let program = venv.program(["-c", find]).stdout().context("find the program of the wheel")?;
    let cargo = Program::new("cargo").env("AX_ANTIGRAVITY", program.trim()).limit(LIMIT);
    test::nextest(cargo, &["--workspace", "-E", "package(ax) and binary(antigravity)"])
}
