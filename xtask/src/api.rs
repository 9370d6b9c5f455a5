//! The lane of the public interface: its style, that nothing released changes, and clients that
//! know nothing but what is published.

use crate::command::Program;
use crate::python::Venv;
use crate::test::{self, Tally};
use crate::tree;
use anyhow::{Context as _, Result};
use std::path::PathBuf;
use std::time::Duration;

/// The tool for proto files, from npm.
const BUF: &str = "@bufbuild/buf@1.75.0";
const HINT: &str = "install Node.js with npm (Debian and Ubuntu: apt install npm)";
/// Where the proto files are, and how they are to be.
const PROTO: &str = "crates/ax-proto";
/// The interface as it was last released; `buf build` makes it anew then.
const RELEASED: &str = "api/released.binpb";
const INSTALL_LIMIT: Duration = Duration::from_secs(5 * 60);
/// How long requests are made up in the lane, and in a piece of the full figures, in seconds.
const SECONDS: u64 = 30;
pub(crate) const FULL_PIECE_SECONDS: u64 = 400;

/// Runs all of it.
pub(crate) fn test(seed: u64) -> Result<Tally> {
    let mut tally = proto()?;
    tally.add(&clients(seed, SECONDS, &[])?);
    Ok(tally)
}

/// Only makes requests up, for longer.
pub(crate) fn schemathesis(seed: u64) -> Result<Tally> {
    clients(seed, FULL_PIECE_SECONDS, &["-k", "openapi"])
}

fn proto() -> Result<Tally> {
    let (buf, dir) = (buf()?, tree::root().join(PROTO));
    let mut tally = Tally::one(Program::new(&buf).args(["lint"]).dir(&dir).run()?);
    let released = tree::root().join(RELEASED);
    let breaking = Program::new(&buf).args(["breaking", "--against"]).args([released]);
    tally.add(&Tally::one(breaking.dir(&dir).run()?));
    Ok(tally)
}

fn clients(seed: u64, seconds: u64, more: &[&str]) -> Result<Tally> {
    let venv = Venv::get("api", &["tests/python/api/requirements.txt"])?;
    let server = test::programs()?.join("ax");
    let env = [
        ("AX", server),
        ("AX_SEED", PathBuf::from(seed.to_string())),
        ("SCHEMATHESIS_SECONDS", PathBuf::from(seconds.to_string())),
    ];
    venv.pytest(&tree::root().join("tests/python/api"), more, &env)
}

/// Finds the tool, or installs it.
fn buf() -> Result<PathBuf> {
    npm_program(BUF, "@bufbuild/buf-linux-x64/bin/buf")
}

/// Finds a program of an npm package, or installs the package below the target directory.
pub(crate) fn npm_program(package: &str, program: &str) -> Result<PathBuf> {
    let name = package.trim_start_matches('@').replace(['/', '@'], "-");
    let dir = tree::target()?.join("npm").join(name);
    let program = dir.join("node_modules").join(program);
    if !program.exists() {
        std::fs::create_dir_all(&dir).context("make the directory of the package")?;
        let quietly = ["--no-audit", "--no-fund", "--no-save", "--ignore-scripts"];
        let npm = Program::new("npm").args(["install", "--prefix"]).args([&dir]);
        npm.args(quietly).args([package]).limit(INSTALL_LIMIT).succeed().context(HINT)?;
    }
    Ok(program)
}
