//! Harnesses that are servers of the AX wire, generation 1: `harness: {type: ax1, …}`.
//!
//! Such a server waits for `ax.HarnessService/Connect`; we are its client. It is either there
//! already, or started under a supervisor for each attempt. What it says becomes outputs and
//! questions; it keeps no journal, so an attempt that is lost is begun again from the input. The
//! wire and how it is mapped are described in `docs/formats/ax1.md`.
//!
//! Start with [`Ax1Harness`]; [`received`] and [`sent`] convert contents for the serving side too.

mod attempt;
mod config;
mod connect;
mod content;
mod host;
mod place;
mod start;

pub use content::{Received, binary, received, role, sent};

use crate::config::ConfigError;
use crate::launch::{Exit, Io, Launch, Launcher};
use crate::programs::Programs;
use crate::supervise::Options;
use ax_core::session::Failure;
use config::Config;
use futures::future::BoxFuture;
use serde_json::Value;

/// The words for the status codes of gRPC, by their numbers: the codes of our failures.
const STATUS_WORDS: [&str; 17] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

/// Returns the word for a status code of gRPC.
pub fn status_word(code: i32) -> &'static str {
    usize::try_from(code).ok().and_then(|code| STATUS_WORDS.get(code)).unwrap_or(&"unknown")
}

/// Returns the status code of gRPC that a word stands for.
pub fn status_code(word: &str) -> Option<i32> {
    let at = STATUS_WORDS.iter().position(|known| *known == word)?;
    i32::try_from(at).ok()
}

/// Runs harnesses that are servers of the AX wire.
#[derive(Clone, Debug)]
pub struct Ax1Harness {
    programs: Programs,
}

impl Ax1Harness {
    /// Starts servers under these supervisors.
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

impl Launcher for Ax1Harness {
    fn launch(&self, launch: Launch, io: Io) -> BoxFuture<'static, Exit> {
        let programs = self.programs.clone();
        Box::pin(
            async move { attempt::run(&programs, launch, io).await.unwrap_or_else(Exit::Gone) },
        )
    }
}

fn failure(code: &str, message: impl ToString) -> Failure {
    Failure { code: code.into(), message: message.to_string() }
}
