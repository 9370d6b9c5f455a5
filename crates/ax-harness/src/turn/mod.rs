//! What adapters share whose agent is a process that is given a prompt and works on it by itself.
//!
//! `host.rs` is the process, `link.rs` our end of the conversation with the engine, `copies.rs`
//! directories that are put back when a turn is begun again, `said.rs` what was said before.

pub(crate) mod copies;
mod host;
mod link;
pub(crate) mod said;

pub(crate) use host::{Graces, Host};
pub(crate) use link::Link;

use crate::launch::{Exit, Launch};
use ax_core::session::{Failure, Frame};
use serde_json::Value;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long an agent that is gone may have left something on the wire.
const LAST_WORDS_MAX: Duration = Duration::from_secs(2);
/// How long after it closed its output it may be found out that an agent is gone.
const NOTICE_MAX: Duration = Duration::from_millis(500);

/// Why the talk with an agent is over.
#[derive(Debug)]
pub(crate) enum Over {
    /// The turn came to its end.
    Done,
    /// The turn failed.
    Failed {
        /// Why.
        failure: Failure,
        /// Whether another attempt may help.
        retry: bool,
    },
    /// We were told to stop.
    Told(Failure),
    /// We were told to cancel, and how long that may take.
    Canceled(Duration),
    /// Something is wrong with the agent or with what it says.
    Broken(Failure),
}

pub(crate) fn failure(code: &str, message: impl ToString) -> Failure {
    Failure { code: code.into(), message: message.to_string() }
}

/// A failure that another attempt would only repeat.
pub(crate) fn last(code: &str, message: impl ToString) -> Over {
    Over::Failed { failure: failure(code, message), retry: false }
}

/// Returns the names and the addresses of the tool servers of the gateway.
pub(crate) fn tool_servers(launch: &Launch) -> Result<Vec<(String, String)>, Failure> {
    let tools = launch.agent.gateway.get("tools").and_then(Value::as_array);
    let names = tools.into_iter().flatten().filter_map(|server| server.get("name")?.as_str());
    let located = |name: &str| {
        let variable = format!("AX_MCP_{}_URL", name.to_ascii_uppercase().replace('-', "_"));
        let known = launch.env.iter().rev().find(|(name, _)| *name == variable);
        let message = || format!("{variable} is not set: the gateway does not stand");
        let (_, url) = known.ok_or_else(|| failure("gateway", message()))?;
        Ok((name.to_owned(), url.clone()))
    };
    names.map(located).collect()
}

/// Runs the talk with an agent until it is over, the agent is gone or nobody wants it to go on;
/// then lets the agent end, and says the last word.
pub(crate) async fn carry_out(
    mut host: Host,
    talk: impl Future<Output = Over>,
    kill: &CancellationToken,
    frames: &mpsc::Sender<Frame>,
) -> Exit {
    let over = {
        let mut talk = std::pin::pin!(talk);
        tokio::select! {
            over = &mut talk => over,
            () = stopped(kill, frames) => Over::Told(failure("killed", "the attempt was killed")),
            why = host.gone() => match timeout(LAST_WORDS_MAX, &mut talk).await {
                Ok(over @ (Over::Done | Over::Failed { .. })) => over,
                _ => Over::Broken(why),
            },
        }
    };
    let why = match over {
        Over::Done => return end(host, None, kill, frames).await,
        Over::Failed { failure, retry } => {
            return end(host, Some((failure, retry)), kill, frames).await;
        }
        Over::Told(why) => why,
        Over::Canceled(_) => {
            tokio::select! {
                () = host.quit() => {}
                () = stopped(kill, frames) => {}
            }
            failure("canceled", "the agent was told to stop")
        }
        // That the agent is gone says more than that its output broke.
        Over::Broken(why) if why.code == "output_closed" => {
            timeout(NOTICE_MAX, host.gone()).await.unwrap_or(why)
        }
        Over::Broken(why) => why,
    };
    host.stop(Some(why)).await.map_or(Exit::Said, Exit::Gone)
}

/// Waits until nobody wants the attempt to go on.
pub(crate) async fn stopped(kill: &CancellationToken, frames: &mpsc::Sender<Frame>) {
    tokio::select! {
        () = kill.cancelled() => {}
        () = frames.closed() => {}
    }
}

/// Lets the agent end, so that all it knows is on its disk, and says the last word.
async fn end(
    mut host: Host,
    failed: Option<(Failure, bool)>,
    kill: &CancellationToken,
    frames: &mpsc::Sender<Frame>,
) -> Exit {
    tokio::select! {
        () = host.quit() => {}
        () = stopped(kill, frames) => {}
    }
    let (why, retry) = failed.unzip();
    let frame = match host.stop(why).await {
        Some(failure) => Frame::Fail { failure, retry: retry.unwrap_or(true) },
        None => Frame::End { result: None },
    };
    tokio::select! {
        sent = frames.send(frame) => match sent {
            Ok(()) => Exit::Said,
            Err(_) => Exit::Gone(unsaid()),
        },
        () = kill.cancelled() => Exit::Gone(unsaid()),
    }
}

fn unsaid() -> Failure {
    failure("killed", "the attempt was killed before it had said its last word")
}
