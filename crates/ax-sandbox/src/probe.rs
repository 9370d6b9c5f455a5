//! Which walls stand on this machine: found out by trying.

use crate::backend::{Backend, Ended, Namespace, Options, Spec};
use crate::wall::{Refusal, Standing};
use std::ffi::OsString;

/// Starts a sandbox that does nothing, and returns which walls stood around it.
///
/// # Errors
///
/// Says which mandatory wall cannot be built here, why, and what may help.
pub async fn probe(options: &Options) -> Result<Vec<Standing>, Refusal> {
    let failed = |error: std::io::Error| Refusal::new(format!("the probe failed: {error}"), "");
    let dir = options.run_dir.join("probe");
    std::fs::create_dir_all(&dir).map_err(failed)?;
    let command = ["/bin/sh", "-c", ":"].map(OsString::from).to_vec();
    let spec = Spec { command, dir, ..Spec::default() };
    let mut running = Namespace::new(options.clone()).start(spec)?;
    let walls = running.started().await.map_err(failed)?;
    match (running.wait().await.map_err(failed)?, walls) {
        (Ended::NotStarted(refusal), _) => Err(refusal),
        (_, Some(walls)) => Ok(walls),
        (ended, None) => Err(Refusal::new(format!("the probe ended: {ended:?}"), "")),
    }
}
