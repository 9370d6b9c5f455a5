//! The agent's process.

use super::failure;
use crate::process::tail::Tail;
use crate::programs::{Program, Programs};
use crate::reach::Reach;
use crate::supervise::{Ended, Spec};
use ax_core::session::Failure;
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::time::timeout;

/// How long the pipe of a process that is gone is read, should somebody else hold it open.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// How long an agent that was hung up on has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Graces {
    /// To end by itself, before SIGTERM.
    pub(crate) quit: Duration,
    /// Between SIGTERM and SIGKILL.
    pub(crate) stop: Duration,
}

/// An agent under its supervisor.
#[derive(Debug)]
pub(crate) struct Host {
    process: Program,
    stderr: Tail<pipe::Receiver>,
    ended: Option<Ended>,
    graces: Graces,
}

impl Host {
    /// Starts the agent; returns its standard output and input as well.
    pub(crate) async fn start(
        programs: &Programs,
        spec: Spec<'_>,
        graces: Graces,
    ) -> Result<(Self, pipe::Receiver, pipe::Sender), Failure> {
        let spawn = |why: String| failure("spawn", format!("the agent cannot be started: {why}"));
        let mut process = programs.start(spec).await.map_err(|error| spawn(error.to_string()))?;
        let (output, input) = (process.stdout.take(), process.stdin.take());
        let (Some(output), Some(input)) = (output, input) else {
            return Err(spawn("it has no standard input and output".into()));
        };
        let stderr = Tail::new(process.stderr.take());
        Ok((Self { process, stderr, ended: None, graces }, output, input))
    }

    /// The way to its ports.
    pub(crate) fn reach(&self) -> Reach {
        self.process.reach()
    }

    /// Waits until the agent is gone. May be dropped and called again.
    pub(crate) async fn gone(&mut self) -> Failure {
        loop {
            if let Some(ended) = &self.ended {
                return why(ended);
            }
            tokio::select! {
                result = self.process.wait() => {
                    self.ended = Some(result.unwrap_or(Ended::SupervisorDied));
                }
                () = self.stderr.read(), if !self.stderr.is_done() => {}
            }
        }
    }

    /// Lets an agent that was hung up on end; uses force if it does not.
    pub(crate) async fn quit(&mut self) {
        if timeout(self.graces.quit, self.gone()).await.is_err() {
            self.process.terminate();
            let _killed_later = timeout(self.graces.stop, self.gone()).await;
        }
    }

    /// Kills what is still there, and waits until everything of it is gone. Adds what the agent
    /// wrote to standard error to the message of a failure.
    pub(crate) async fn stop(mut self, failure: Option<Failure>) -> Option<Failure> {
        if self.ended.is_none() {
            self.process.kill();
            drop(self.gone().await);
        }
        let drained = async {
            while !self.stderr.is_done() {
                self.stderr.read().await;
            }
        };
        let _held_by_others = timeout(DRAIN_MAX, drained).await;
        failure.map(|failure| {
            let message = self.stderr.after(&failure.message);
            Failure { code: failure.code, message }
        })
    }
}

fn why(ended: &Ended) -> Failure {
    match ended {
        Ended::NotStarted(why) => failure("spawn", format!("the agent cannot be started: {why}")),
        Ended::TimedOut => failure("time_limit", "the sandbox' time was over"),
        Ended::SupervisorDied => failure("supervisor", "the supervisor was killed"),
        Ended::Ran(status) => {
            failure("agent_gone", format!("the agent {status} before its turn was over"))
        }
    }
}
