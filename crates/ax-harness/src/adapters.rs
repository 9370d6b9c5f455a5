//! All adapters behind one [`Launcher`].

use crate::acp::AcpHarness;
use crate::antigravity::AntigravityHarness;
use crate::ax1::Ax1Harness;
use crate::builtin::BuiltinHarness;
use crate::config::{ConfigError, closest};
use crate::external;
use crate::gateway;
use crate::interactions::InteractionsHarness;
use crate::launch::{AgentInfo, Exit, Io, Launch, Launcher};
use crate::process::ProcessHarness;
use crate::programs::{self, Programs};
use crate::supervise::Options;
use ax_core::session::{Failure, Frame};
use ax_gateway::{Desk, Quotas, Sockets, Toolbox};
use ax_sandbox::{Backend as _, BackendKind};
use futures::future::BoxFuture;
use serde_json::Value;
use std::sync::{Arc, OnceLock};

/// What `harness.type` can be.
const TYPES: [&str; 7] =
    ["acp", "antigravity", "ax1", "builtin", "external", "interactions", "process"];

/// Runs whatever kind of harness a manifest names.
#[derive(Clone, Debug)]
pub struct Adapters {
    builtin: BuiltinHarness,
    interactions: InteractionsHarness,
    /// What starts harnesses and tool servers.
    programs: Programs,
    /// Connections of gateways, made when they are first needed.
    http: Arc<OnceLock<reqwest::Client>>,
    /// How fast agents call models through gateways.
    rates: ax_gateway::Rates,
    /// What namespaces may use of models.
    quotas: Quotas,
    /// Where gateways listen.
    sockets: Sockets,
    /// Where gateways find the runtime's own interface.
    desk: Desk,
}

impl Adapters {
    /// Makes all adapters; this is how they start what they run.
    pub fn new(options: Options) -> Self {
        Self {
            builtin: BuiltinHarness::new(options.clone()),
            interactions: InteractionsHarness::default(),
            sockets: Sockets::new(options.run_dir.clone()),
            programs: Programs::new(options),
            http: Arc::default(),
            rates: ax_gateway::Rates::default(),
            quotas: Quotas::default(),
            desk: Desk::default(),
        }
    }

    /// Says what namespaces may use of models through gateways.
    pub fn within(self, quotas: Quotas) -> Self {
        Self { quotas, ..self }
    }

    /// Says where harnesses find the runtime's own interface, when their gateways let them.
    pub fn at(self, desk: Desk) -> Self {
        Self { desk, ..self }
    }

    /// Checks the `harness` section of a manifest.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn validate(harness: &Value) -> Result<(), ConfigError> {
        match harness.get("type").and_then(Value::as_str) {
            Some("process") => ProcessHarness::validate(harness),
            Some("acp") => AcpHarness::validate(harness),
            Some("antigravity") => AntigravityHarness::validate(harness),
            Some("ax1") => Ax1Harness::validate(harness),
            Some("builtin") => BuiltinHarness::validate(harness),
            Some("external") => external::validate(harness),
            Some("interactions") => InteractionsHarness::validate(harness),
            Some(other) => Err(unknown(other)),
            None => Err(ConfigError::new("type", "is missing or not a text")
                .suggest(format!("use one of {}", TYPES.join(", ")))),
        }
    }
}

impl Adapters {
    /// Checks the `gateway` section of a manifest whose harness is of this type.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn validate_gateway(gateway: &Value, kind: &str) -> Result<(), ConfigError> {
        gateway::validate(gateway)?;
        let itself = match kind {
            "builtin" => Some("the built-in harness asks its model itself"),
            "interactions" => Some("this harness asks the provider itself"),
            _ => None,
        };
        let models = gateway.get("models").filter(|models| !models.is_null());
        if let (Some(cause), Some(_)) = (itself, models) {
            let cause = cause.to_owned();
            let suggestion = Some("leave `models` out, or use `type: process`".to_owned());
            return Err(ConfigError { path: "gateway.models".into(), cause, suggestion });
        }
        Ok(())
    }

    /// Checks the `sandbox` section of a manifest; returns what its programs run in.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn validate_sandbox(sandbox: &Value) -> Result<BackendKind, ConfigError> {
        programs::validate(sandbox)
    }

    fn connections(&self) -> Result<reqwest::Client, Failure> {
        if let Some(http) = self.http.get() {
            return Ok(http.clone());
        }
        let http = ax_gateway::connections().map_err(|error| Failure {
            code: "tls".into(),
            message: format!("no connection can be made: {error}"),
        })?;
        Ok(self.http.get_or_init(|| http).clone())
    }

    async fn behind_gateway(
        self,
        programs: Programs,
        launch: Launch,
        io: Io,
    ) -> Result<Exit, Failure> {
        let http = self.connections()?;
        let (rates, quotas) = (self.rates.clone(), self.quotas.clone());
        let (sockets, desk) = (self.sockets.clone(), self.desk.clone());
        let shared = gateway::Shared { http, rates, quotas, programs, sockets, desk };
        let adapter = |programs, launch, io, tools| self.adapter(programs, launch, io, Some(tools));
        gateway::run(shared, launch, io, adapter).await
    }
}

fn unknown(kind: &str) -> ConfigError {
    let error = ConfigError::new("type", format!("there is no kind of harness named {kind:?}"));
    match closest(kind, TYPES) {
        Some(known) => error.suggest(format!("did you mean `{known}`?")),
        None => error.suggest(format!("use one of {}", TYPES.join(", "))),
    }
}

impl Adapters {
    fn adapter(
        &self,
        programs: Programs,
        launch: Launch,
        io: Io,
        tools: Option<Toolbox>,
    ) -> BoxFuture<'static, Exit> {
        match launch.agent.harness.get("type").and_then(Value::as_str) {
            Some("process") => ProcessHarness::within(programs).launch(launch, io),
            Some("acp") => AcpHarness::within(programs).launch(launch, io),
            Some("antigravity") => AntigravityHarness::within(programs).launch(launch, io),
            Some("ax1") => Ax1Harness::within(programs).launch(launch, io),
            Some("builtin") => self.builtin.within(programs).run(launch, io, tools),
            Some("external") => Box::pin(refuse(external::failure(), io)),
            Some("interactions") => self.interactions.run(launch, io, tools),
            _ => {
                let wrong = Self::validate(&launch.agent.harness).err();
                let message = wrong.map_or_else(String::new, |wrong| match &wrong.suggestion {
                    Some(suggestion) => format!("{wrong}; {suggestion}"),
                    None => wrong.to_string(),
                });
                Box::pin(refuse(Failure { code: "config".into(), message }, io))
            }
        }
    }
}

/// Whether anything of an agent runs as a program of this machine.
fn starts_programs(agent: &AgentInfo) -> bool {
    match agent.harness.get("type").and_then(Value::as_str) {
        Some("external") => false,
        Some("interactions") => !agent.gateway.is_null(),
        Some("ax1") => agent.harness.get("command").is_some() || !agent.gateway.is_null(),
        _ => true,
    }
}

/// Ends an execution that no attempt can carry out.
async fn refuse(failure: Failure, io: Io) -> Exit {
    let frame = Frame::Fail { failure: failure.clone(), retry: false };
    tokio::select! {
        sent = io.frames.send(frame) => match sent {
            Ok(()) => Exit::Said,
            Err(_) => Exit::Gone(failure),
        },
        () = io.kill.cancelled() => Exit::Gone(failure),
    }
}

impl Launcher for Adapters {
    fn launch(&self, launch: Launch, io: Io) -> BoxFuture<'static, Exit> {
        let programs = if starts_programs(&launch.agent) {
            self.programs.of(&launch)
        } else {
            Ok(self.programs.clone())
        };
        let programs = match programs {
            Ok(programs) => programs,
            Err(failure) => return Box::pin(refuse(failure, io)),
        };
        if launch.agent.gateway.is_null() {
            return self.adapter(programs, launch, io, None);
        }
        let adapters = self.clone();
        Box::pin(async move {
            adapters.behind_gateway(programs, launch, io).await.unwrap_or_else(Exit::Gone)
        })
    }

    fn refuses(&self, sandbox: &Value) -> Option<Failure> {
        self.programs.plan(sandbox).err()
    }

    fn reap_orphans(&self) -> BoxFuture<'static, ()> {
        let sockets = self.sockets.clone();
        let orphans = ProcessHarness::within(self.programs.clone()).reap_orphans();
        let gateways = self.programs.options().gateways();
        let programs = self.programs.clone();
        Box::pin(async move {
            // All adapters use the same run directory.
            orphans.await;
            let swept = tokio::task::spawn_blocking(move || {
                programs.maker().reap();
                sockets.sweep();
            });
            let swept = swept.await;
            swept.expect("removing files does not panic");
            // Its files vouch for keys that are gone.
            if let Err(error) = tokio::fs::remove_dir_all(&gateways).await
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %gateways.display(), %error, "old files stay behind");
            }
        })
    }
}
