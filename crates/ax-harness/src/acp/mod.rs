//! Harnesses that are agents of the Agent Client Protocol, version 1: `harness: {type: acp, …}`.
//!
//! The agent is a process that speaks JSON-RPC over its standard input and output; we are its
//! client, as an editor would be. What it says becomes outputs and notes, the permissions that it
//! asks for are given by rules or by a person. It keeps a session of its own, which is taken up
//! again in the next execution; a turn that was cut is begun again from where its state was when
//! the turn began. Files and terminals are not offered to it: it has its own. How it is mapped, and
//! what real agents can do, is described in `docs/acp.md`.
//!
//! Start with [`AcpHarness`] and `attempt.rs`, the way of an attempt.

mod attempt;
mod config;
mod opening;
mod permission;
mod place;
mod prompt;
mod updates;
mod wire;

pub(crate) use permission::{Verdict, fits, verdict};

use crate::config::ConfigError;
use crate::launch::{Exit, Io, Launch, Launcher};
use crate::programs::Programs;
use crate::supervise::Options;
use crate::turn::{Over, failure, last};
use config::Config;
use futures::future::BoxFuture;
use serde_json::Value;

/// The version of the protocol.
const PROTOCOL: u64 = 1;

/// Runs agents of the Agent Client Protocol.
#[derive(Clone, Debug)]
pub struct AcpHarness {
    programs: Programs,
}

impl AcpHarness {
    /// Starts agents under these supervisors.
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

impl Launcher for AcpHarness {
    fn launch(&self, launch: Launch, io: Io) -> BoxFuture<'static, Exit> {
        let programs = self.programs.clone();
        Box::pin(
            async move { attempt::run(&programs, launch, io).await.unwrap_or_else(Exit::Gone) },
        )
    }
}
