//! Running a command.

use super::output::HeadAndTail;
use super::{OUTPUT_BYTES_MAX, Returned, Tools, parse};
use crate::link::{Link, Stop};
use crate::programs::Program;
use crate::supervise::{Ended, Spec, Status};
use serde::Deserialize;
use serde_json::Value;
use std::io;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep_until};

/// How long a command may take if the model does not say, in milliseconds.
const TIMEOUT_MILLIS: u64 = 120_000;
/// How long the model can let a command take, in milliseconds.
const TIMEOUT_MILLIS_MAX: u64 = 600_000;
/// Runs the command with both outputs as one, in the order in which it writes.
const SCRIPT: &str = "exec 2>&1; eval \"$1\"";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    command: String,
    timeout_ms: Option<u64>,
}

/// Returns how long a command may take.
pub(super) fn limit(input: &Value) -> Duration {
    let asked = input.get("timeout_ms").and_then(Value::as_u64).unwrap_or(TIMEOUT_MILLIS);
    Duration::from_millis(asked.clamp(1, TIMEOUT_MILLIS_MAX))
}

/// A command that runs, and what it has written.
struct Running {
    process: Program,
    stdout: Option<pipe::Receiver>,
    output: HeadAndTail,
    deadline: Instant,
    timed_out: bool,
}

impl Tools {
    pub(super) async fn shell(&self, link: &mut Link, input: &Value) -> Result<Returned, Stop> {
        let given: Input = match parse(input) {
            Ok(given) => given,
            Err(wrong) => return Ok(Returned::error(wrong)),
        };
        if given.command.contains('\0') {
            return Ok(Returned::error("a command cannot contain a NUL character"));
        }
        let limit = limit(input);
        let command = ["sh", "-c", SCRIPT, "sh", &given.command].map(Into::into);
        let spec = Spec { command: &command, dir: &self.workspace, env: self.env.clone() };
        let mut process = match self.programs.start(spec).await {
            Ok(process) => process,
            Err(error) => {
                return Ok(Returned::error(format!("the command cannot be started: {error}")));
            }
        };
        process.stdin = None;
        process.stderr = None;
        let stdout = process.stdout.take();
        let output = HeadAndTail::new(OUTPUT_BYTES_MAX);
        let deadline = Instant::now() + limit;
        let mut running = Running { process, stdout, output, deadline, timed_out: false };
        let ended = link.during(running.finish()).await;
        if ended.is_err() {
            running.process.kill();
            let _status_of_no_interest = running.process.wait().await;
        }
        Ok(running.returned(ended?, given.timeout_ms.is_some(), limit))
    }
}

impl Running {
    /// Waits until everything of the command is gone and its output is read.
    async fn finish(&mut self) -> io::Result<Ended> {
        let mut ended = None;
        while ended.is_none() || self.stdout.is_some() {
            let mut bytes = [0; 8 * 1024];
            tokio::select! {
                got = read(&mut self.stdout, &mut bytes), if self.stdout.is_some() => {
                    match got {
                        Ok(0) | Err(_) => self.stdout = None,
                        Ok(got) => self.output.add(&bytes[..got]),
                    }
                }
                result = self.process.wait(), if ended.is_none() => ended = Some(result?),
                () = sleep_until(self.deadline), if !self.timed_out => {
                    self.timed_out = true;
                    self.process.kill();
                }
            }
        }
        Ok(ended.unwrap_or(Ended::SupervisorDied))
    }

    fn returned(self, ended: io::Result<Ended>, asked: bool, limit: Duration) -> Returned {
        let mut text = self.output.text();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let how = match ended {
            _ if self.timed_out => {
                let hint = if asked { "" } else { "; timeout_ms allows more" };
                format!("it was killed after {} ms{hint}", limit.as_millis())
            }
            Ok(Ended::Ran(Status::Exited(0))) => return Returned { text, error: false },
            Ok(Ended::Ran(status)) => format!("it {status}"),
            Ok(Ended::NotStarted(why)) => format!("it cannot be started: {why}"),
            Ok(Ended::TimedOut) => "it was killed: the sandbox' time was over".into(),
            Ok(Ended::SupervisorDied) => "the process that watched over it was killed".into(),
            Err(error) => format!("what became of it is not known: {error}"),
        };
        text.push_str(&format!("[{how}]"));
        Returned { text, error: true }
    }
}

async fn read(from: &mut Option<pipe::Receiver>, into: &mut [u8]) -> io::Result<usize> {
    match from {
        Some(from) => from.read(into).await,
        None => Ok(0),
    }
}
