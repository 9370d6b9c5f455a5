//! Agents and models behind the Gemini Interactions API: `harness: {type: interactions, …}`.
//!
//! The agent runs at the provider, whether we listen or not; we are its client. Its identifier is
//! durable before anything else of it is read, so that a crash begins no second run; its events are
//! copied into the log, and an attempt goes on behind the last one that is whole there. Functions
//! that it calls are those of tool servers, or a person answers for them. How it is mapped is
//! described in `docs/interactions.md`.
//!
//! Start with [`InteractionsHarness`] and `run.rs`, the way of an attempt.

mod client;
mod config;
mod follow;
mod past;
mod request;
mod run;
mod steps;
mod wire;

use crate::builtin::connections;
use crate::config::ConfigError;
use crate::launch::{Exit, Io, Launch, Launcher};
use crate::link::{Link, Stop};
use crate::outside::Outside;
use ax_core::session::Failure;
use ax_gateway::Toolbox;
use client::Client;
use config::Config;
use futures::future::BoxFuture;
use past::Past;
use run::Run;
use serde_json::Value;
use std::sync::{Arc, OnceLock};

pub(crate) use steps::decodes;

/// Runs agents behind the Interactions API.
#[derive(Clone, Debug, Default)]
pub struct InteractionsHarness {
    connections: Arc<OnceLock<Result<reqwest::Client, Failure>>>,
}

impl InteractionsHarness {
    /// Checks the `harness` section of a manifest.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn validate(harness: &Value) -> Result<(), ConfigError> {
        Config::parse(harness).map(drop)
    }

    /// Runs with the tools of the gateway, if there is one.
    pub(crate) fn run(
        &self,
        launch: Launch,
        io: Io,
        toolbox: Option<Toolbox>,
    ) -> BoxFuture<'static, Exit> {
        let harness = self.clone();
        Box::pin(async move {
            let mut link = Link::new(io);
            match harness.attempt(launch, toolbox, &mut link).await {
                Ok(()) => Exit::Said,
                Err(stop) => link.last_word(stop).await,
            }
        })
    }

    async fn attempt(
        &self,
        launch: Launch,
        toolbox: Option<Toolbox>,
        link: &mut Link,
    ) -> Result<(), Stop> {
        let failed = |failure| Stop::Failed { failure, retry: false };
        let config = Config::parse(&launch.agent.harness)
            .map_err(|error| Stop::final_failure("config", error.to_string()))?;
        let http = self.connections.get_or_init(connections).clone().map_err(failed)?;
        let client = Client::new(http, &config).map_err(failed)?;
        let outside = Outside::open(toolbox, link).await?;
        let past = Past::of(&launch.journal);
        Run { link, config: &config, client: &client, launch: &launch, outside, past }.run().await
    }
}

impl Launcher for InteractionsHarness {
    fn launch(&self, launch: Launch, io: Io) -> BoxFuture<'static, Exit> {
        self.run(launch, io, None)
    }
}

fn failure(code: &str, message: impl ToString) -> Failure {
    Failure { code: code.into(), message: message.to_string() }
}
