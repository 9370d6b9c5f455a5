//! A follower at a terminal: `ax follow --json`, begun again whenever it gives up.

use super::clients::World;
use super::server;
use serde_json::Value;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::{sleep, timeout_at};

/// Follows until so many inputs are done with; returns what was printed.
pub(crate) async fn follow(
    world: Arc<World>,
    session: String,
    end: usize,
) -> Result<Vec<Value>, String> {
    let (mut events, mut ended) = (Vec::new(), 0);
    while ended < end {
        let after = events.len().to_string();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ax"))
            .args(["follow", &session, "--json", "--after", &after, "--server"])
            .arg(server::socket(&world.data))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while ended < end {
            let line = timeout_at(world.deadline, lines.next_line()).await;
            let line = line.map_err(|_| format!("nothing was printed after event {after}"))?;
            // It has given up: no server answered when it began.
            let Some(line) = line.map_err(|error| error.to_string())? else { break };
            ended += usize::from(take(&mut events, &line)?);
        }
        drop(child);
        sleep(Duration::from_millis(20)).await;
    }
    Ok(events)
}

/// Takes a line; returns whether an input is done with.
fn take(events: &mut Vec<Value>, line: &str) -> Result<bool, String> {
    let event: Value = serde_json::from_str(line).map_err(|error| format!("{line}: {error}"))?;
    let seq = event["seq"].as_str().and_then(|seq| seq.parse::<usize>().ok());
    if seq != Some(events.len() + 1) {
        return Err(format!("after event {} was printed {line}", events.len()));
    }
    let name = event["type"].as_str().unwrap_or_default();
    let ends = name == "input.canceled"
        || name.strip_prefix("execution.").is_some_and(|what| what != "started");
    events.push(event);
    Ok(ends)
}
