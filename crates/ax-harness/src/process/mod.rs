//! Harnesses that run as a process: `harness: {type: process, …}`.
//!
//! With `protocol: jsonl` the harness speaks `docs/formats/harness-stdio.md` and is durable; with
//! `protocol: text` it is any program at all. Every attempt runs under a supervisor, so that
//! nothing of it outlives the attempt or the runtime.

mod attempt;
mod config;
mod decode;
mod encode;
pub(crate) mod line;
mod outbox;
pub(crate) mod tail;
mod text;

use crate::config::ConfigError;
use crate::environment;
use crate::launch::{Exit, Io, Launch, Launcher};
use crate::programs::Programs;
use crate::supervise::{Options, Registry, Spec};
use ax_core::session::Failure;
use config::Config;
use futures::future::BoxFuture;
use serde_json::Value;
use std::ffi::OsString;

/// The version of the protocol.
const PROTOCOL: u64 = 1;
/// The longest line, in bytes.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Whether a line can be read; else the words that the harness is told.
pub(crate) fn decodes(line: &[u8]) -> Result<(), String> {
    decode::line(line).map(drop).map_err(|broken| broken.to_string())
}

/// Runs harnesses as processes.
#[derive(Clone, Debug)]
pub struct ProcessHarness {
    programs: Programs,
}

impl ProcessHarness {
    /// Uses these supervisors.
    pub fn new(options: Options) -> Self {
        Self::within(Programs::new(options))
    }

    pub(crate) const fn within(programs: Programs) -> Self {
        Self { programs }
    }

    /// Checks the `harness` section of a manifest.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn validate(harness: &Value) -> Result<(), ConfigError> {
        Config::parse(harness).map(drop)
    }
}

impl Launcher for ProcessHarness {
    fn launch(&self, launch: Launch, io: Io) -> BoxFuture<'static, Exit> {
        let programs = self.programs.clone();
        Box::pin(async move { run(programs, launch, io).await.unwrap_or_else(Exit::Gone) })
    }

    fn reap_orphans(&self) -> BoxFuture<'static, ()> {
        let registry = Registry::new(self.programs.options().run_dir.clone());
        Box::pin(async move {
            let reaped = tokio::task::spawn_blocking(move || registry.reap_orphans()).await;
            if let Err(error) = reaped {
                tracing::error!(%error, "what earlier lives left could not be ended");
            }
        })
    }
}

async fn run(programs: Programs, launch: Launch, io: Io) -> Result<Exit, Failure> {
    let config = Config::parse(&launch.agent.harness).map_err(|error| failure("config", error))?;
    let command: Vec<OsString> = config.command.iter().map(OsString::from).collect();
    let dir = config.dir.as_ref().unwrap_or(&launch.workspace);
    let added = config.env.iter().map(|(name, value)| (name.into(), value.into()));
    // What comes later wins.
    let env = programs.inherited().into_iter().chain(added);
    let env = env.chain(environment::identity(&launch)).collect();
    io.may_act.check()?;
    let process = programs
        .start(Spec { command: &command, dir, env })
        .await
        .map_err(|error| failure("spawn", format!("the harness cannot be started: {error}")))?;
    attempt::Attempt::new(&config, process).run(launch, &config, io).await
}

fn failure(code: &str, message: impl ToString) -> Failure {
    Failure { code: code.into(), message: message.to_string() }
}
