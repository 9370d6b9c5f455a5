//! The server's process, if we started it.

use super::config::Config;
use super::failure;
use super::place::Place;
use crate::launch::Launch;
use crate::process::tail::Tail;
use crate::programs::{Program, Programs};
use crate::reach::Reach;
use crate::supervise::{Ended, Spec};
use ax_core::session::Failure;
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::time::timeout;

/// How long the pipes of a process that is gone are read, should somebody else hold them open.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// A server under its supervisor, or one that is there anyway.
#[derive(Debug)]
pub(super) struct Host {
    running: Option<Running>,
    grace: Duration,
}

#[derive(Debug)]
struct Running {
    process: Program,
    stdout: Tail<pipe::Receiver>,
    stderr: Tail<pipe::Receiver>,
    ended: Option<Ended>,
}

impl Host {
    /// Starts the command, if there is one.
    pub(super) async fn start(
        programs: &Programs,
        config: &Config,
        launch: &Launch,
        place: &Place,
    ) -> Result<Self, Failure> {
        let grace = config.stop_grace();
        if config.command.is_empty() {
            return Ok(Self { running: None, grace });
        }
        let command = place.command(config);
        let dir = config.dir.as_ref().unwrap_or(&launch.workspace);
        let spec = Spec { command: &command, dir, env: place.env(programs, config, launch) };
        let mut process = programs
            .start(spec)
            .await
            .map_err(|error| failure("spawn", format!("the server cannot be started: {error}")))?;
        // It is told everything over the wire.
        process.stdin = None;
        let stdout = Tail::new(process.stdout.take());
        let stderr = Tail::new(process.stderr.take());
        let running = Some(Running { process, stdout, stderr, ended: None });
        Ok(Self { running, grace })
    }

    /// The way to its ports.
    pub(super) fn reach(&self) -> Reach {
        let running = self.running.as_ref();
        running.map_or(Reach::Machine, |running| running.process.reach())
    }

    /// Waits until the server is gone; for ever if it is not ours. May be dropped and called again.
    pub(super) async fn gone(&mut self) -> Failure {
        match &mut self.running {
            Some(running) => running.gone().await,
            None => std::future::pending().await,
        }
    }

    /// Ends the server, and waits until everything of it is gone. Adds what it wrote to standard
    /// error to the message of a failure.
    pub(super) async fn stop(mut self, at_once: bool, failure: Option<Failure>) -> Option<Failure> {
        let Some(running) = &mut self.running else { return failure };
        if !at_once && running.ended.is_none() {
            running.process.terminate();
            let _killed_below = timeout(self.grace, running.gone()).await;
        }
        if running.ended.is_none() {
            running.process.kill();
            drop(running.gone().await);
        }
        let _held_by_others = timeout(DRAIN_MAX, running.drain()).await;
        failure.map(|failure| {
            let message = running.stderr.after(&failure.message);
            Failure { code: failure.code, message }
        })
    }
}

impl Running {
    async fn gone(&mut self) -> Failure {
        loop {
            if let Some(ended) = &self.ended {
                return why(ended);
            }
            tokio::select! {
                result = self.process.wait() => {
                    self.ended = Some(result.unwrap_or(Ended::SupervisorDied));
                }
                () = self.stdout.read(), if !self.stdout.is_done() => {}
                () = self.stderr.read(), if !self.stderr.is_done() => {}
            }
        }
    }

    async fn drain(&mut self) {
        while !self.stdout.is_done() {
            self.stdout.read().await;
        }
        while !self.stderr.is_done() {
            self.stderr.read().await;
        }
    }
}

fn why(ended: &Ended) -> Failure {
    match ended {
        Ended::NotStarted(why) => failure("spawn", format!("the server cannot be started: {why}")),
        Ended::TimedOut => failure("time_limit", "the sandbox' time was over"),
        Ended::SupervisorDied => failure("supervisor", "the supervisor was killed"),
        Ended::Ran(status) => {
            failure("server_gone", format!("the server {status} before the harness was done"))
        }
    }
}
