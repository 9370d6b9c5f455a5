//! How many packages the binary is made of.

use crate::command::Program;
use anyhow::{Result, bail};
use std::collections::BTreeSet;

/// More packages than this are too many.
const PACKAGE_COUNT_MAX: usize = 450;

/// Counts what `cargo tree … | sort -u | wc -l` counts.
pub(crate) fn check() -> Result<String> {
    let tree = Program::new("cargo")
        .args(["tree", "-p", "ax", "-e", "normal", "--target", "x86_64-unknown-linux-gnu"])
        .args(["--prefix", "none"])
        .stdout()?;
    let count = tree.lines().collect::<BTreeSet<_>>().len();
    if count > PACKAGE_COUNT_MAX {
        bail!("ax depends on {count} packages, more than {PACKAGE_COUNT_MAX}");
    }
    Ok(format!("{count} of at most {PACKAGE_COUNT_MAX} packages"))
}
