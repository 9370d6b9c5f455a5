//! Agents of Google Antigravity, driven without its SDK: `harness: {type: antigravity, …}`.
//!
//! The program of the SDK's wheel, `localharness`, is told over its standard input where it may
//! keep its state, and says at which port it listens. All else goes over a WebSocket: JSON
//! messages, of which `wire.rs` has the ones that we use. It asks before each tool call, by a hook:
//! there the call is recorded, and rules or a person decide. It keeps a trajectory of its own,
//! which is taken up in the next execution. A branch begins with one that is made of what was said.
//! A turn that was cut is begun again from where its state was when the turn began. How it is
//! mapped is described in `docs/antigravity.md`.
//!
//! Start with [`AntigravityHarness`] and `attempt.rs`, the way of an attempt.

mod attempt;
mod calls;
mod config;
mod opening;
mod permission;
mod place;
mod questions;
#[cfg(test)]
mod recorded;
mod steps;
mod trajectory;
mod wire;

use crate::config::ConfigError;
use crate::launch::{Exit, Io, Launch, Launcher};
use crate::programs::Programs;
use crate::supervise::Options;
use config::Config;
use futures::future::BoxFuture;
use serde_json::Value;

/// Runs agents of Antigravity.
#[derive(Clone, Debug)]
pub struct AntigravityHarness {
    programs: Programs,
}

impl AntigravityHarness {
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

impl Launcher for AntigravityHarness {
    fn launch(&self, launch: Launch, io: Io) -> BoxFuture<'static, Exit> {
        let programs = self.programs.clone();
        Box::pin(
            async move { attempt::run(&programs, launch, io).await.unwrap_or_else(Exit::Gone) },
        )
    }
}
