//! The harness that is built in: `harness: {type: builtin, …}`. A model, tools, and a loop.
//!
//! Every model call and every tool call is a step, recorded before it is acted on, so that an
//! attempt that is run again gets the same answers without asking or doing anything twice. What
//! is sent to the model again and again is stored once: a request is named by a chain of hashes.
//! Steps, results and the chain are described in `docs/formats/harness-builtin.md`.

mod chain;
mod config;
mod journal;
mod model;
mod record;
mod talk;
mod tools;
mod turns;

use crate::config::ConfigError;
use crate::environment;
use crate::launch::{Exit, Io, Launch, Launcher};
use crate::link::{Link, Stop};
use crate::outside::Outside;
use crate::programs::Programs;
use crate::supervise::Options;
use ax_core::session::Failure;
use ax_gateway::Toolbox;
use config::Config;
use futures::future::BoxFuture;
use journal::Journal;
use model::Client;
pub(crate) use model::{connections, error_message};
use serde_json::Value;
use std::sync::{Arc, OnceLock};
use talk::Talk;
use tools::Tools;
use turns::{Setup, Turns};

/// Runs the built-in harness.
#[derive(Clone, Debug)]
pub struct BuiltinHarness {
    programs: Programs,
    connections: Arc<OnceLock<Result<reqwest::Client, Failure>>>,
}

impl BuiltinHarness {
    /// Runs commands under these supervisors.
    pub fn new(options: Options) -> Self {
        Self { programs: Programs::new(options), connections: Arc::default() }
    }

    /// Runs commands so.
    pub(crate) fn within(&self, programs: Programs) -> Self {
        Self { programs, connections: Arc::clone(&self.connections) }
    }

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
            let ran = harness.attempt(launch, toolbox, &mut link).await;
            match ran {
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
        let outside = Outside::open(toolbox, link).await?;
        let failed = |failure| Stop::Failed { failure, retry: false };
        let setup = self.prepare(launch, outside).map_err(failed)?;
        Turns::new(setup, link).run().await
    }

    fn prepare(&self, launch: Launch, outside: Outside) -> Result<Setup, Failure> {
        let config = Config::parse(&launch.agent.harness)
            .map_err(|error| Failure { code: "config".into(), message: error.to_string() })?;
        let http = self.connections.get_or_init(connections).clone()?;
        let client = Client::new(http, config.model.clone())?;
        let own = config.tools.iter().map(|tool| tool.kind.schema());
        let schemas = own.chain(outside.schemas()).collect();
        let talk = Talk::new(config.system.clone(), schemas, &launch.history, &launch.input)?;
        let env = self.programs.inherited().into_iter().chain(environment::identity(&launch));
        let again = launch.attempt.0 > 1;
        let tools = Tools::new(self.programs.clone(), launch.workspace, env.collect(), again);
        let journal = Journal::new(launch.journal);
        Ok(Setup { config, journal, talk, client, tools, outside })
    }
}

impl Launcher for BuiltinHarness {
    fn launch(&self, launch: Launch, io: Io) -> BoxFuture<'static, Exit> {
        self.run(launch, io, None)
    }
}
