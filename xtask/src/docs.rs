//! What documents promise about other files must be true.

use anyhow::{Result, bail};

/// Follows links, looks for pages of error codes, and for tests that documents name.
pub(crate) fn check() -> Result<String> {
    let mut problems = Vec::new();
    let links = crate::links::check(&mut problems)?;
    let codes = crate::codes::check(&mut problems)?;
    let tests = crate::spec::check(&mut problems)?;
    crate::words::check(&mut problems)?;
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(format!("{links} links, {codes} error codes, {tests} tests named"))
}
