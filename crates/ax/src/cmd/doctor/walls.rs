//! Which walls of a sandbox stand on this machine.

use super::{Check, Level};
use crate::embed::programs;
use crate::paths::DataDir;
use ax_sandbox::{Standing, State};

/// Starts a sandbox that does nothing.
pub(super) async fn check(data: &DataDir) -> Vec<Check> {
    let probed = ax_sandbox::probe(&programs(data, true).sandboxes()).await;
    let walls = match probed {
        Ok(walls) => walls,
        Err(refusal) => {
            let found = format!("none can be made: {}", refusal.cause);
            let also = "agents that you trust can run with `sandbox: process`, with your rights";
            let hint = match refusal.hint.as_str() {
                "" => also.to_owned(),
                hint => format!("{hint}; {also}"),
            };
            return vec![Check::new(Level::Worth, "sandbox", found).hint(hint)];
        }
    };
    let standing = walls.iter().filter(|wall| wall.state == State::Stands).count();
    let named = Check::new(Level::Fine, "sandbox", format!("namespace, with {standing} walls"));
    let stands = walls.iter().filter(|wall| wall.state == State::Stands);
    let names = stands.map(|wall| wall.wall.to_string()).collect::<Vec<_>>().join(", ");
    let all = Check::new(Level::Fine, "walls", names);
    [named, all].into_iter().chain(walls.iter().filter_map(missing)).collect()
}

fn missing(standing: &Standing) -> Option<Check> {
    let State::Missing { why } = &standing.state else { return None };
    let found = format!("{} is missing: {why}", standing.wall);
    Some(Check::new(Level::Worth, "wall", found).hint(standing.wall.substitute()))
}
