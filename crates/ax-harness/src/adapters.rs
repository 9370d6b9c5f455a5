//! All adapters behind one [`Launcher`].

use crate::ax1::Ax1Harness;
use crate::builtin::BuiltinHarness;
use crate::config::{ConfigError, closest};
use crate::launch::{Exit, Io, Launch, Launcher};
use crate::process::ProcessHarness;
use crate::supervise::Options;
use ax_core::session::{Failure, Frame};
use futures::future::BoxFuture;
use serde_json::Value;

/// What `harness.type` can be.
const TYPES: [&str; 3] = ["ax1", "builtin", "process"];

/// Runs whatever kind of harness a manifest names.
#[derive(Clone, Debug)]
pub struct Adapters {
    process: ProcessHarness,
    ax1: Ax1Harness,
    builtin: BuiltinHarness,
}

impl Adapters {
    /// Makes all adapters; what they start runs under these supervisors.
    pub fn new(options: Options) -> Self {
        Self {
            process: ProcessHarness::new(options.clone()),
            ax1: Ax1Harness::new(options.clone()),
            builtin: BuiltinHarness::new(options),
        }
    }

    /// Checks the `harness` section of a manifest.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn validate(harness: &Value) -> Result<(), ConfigError> {
        match harness.get("type").and_then(Value::as_str) {
            Some("process") => ProcessHarness::validate(harness),
            Some("ax1") => Ax1Harness::validate(harness),
            Some("builtin") => BuiltinHarness::validate(harness),
            Some(other) => Err(unknown(other)),
            None => Err(ConfigError::new("type", "is missing or not a text")
                .suggest(format!("use one of {}", TYPES.join(", ")))),
        }
    }
}

fn unknown(kind: &str) -> ConfigError {
    let error = ConfigError::new("type", format!("there is no kind of harness named {kind:?}"));
    match closest(kind, TYPES) {
        Some(known) => error.suggest(format!("did you mean `{known}`?")),
        None => error.suggest(format!("use one of {}", TYPES.join(", "))),
    }
}

impl Launcher for Adapters {
    fn launch(&self, launch: Launch, io: Io) -> BoxFuture<'static, Exit> {
        match launch.agent.harness.get("type").and_then(Value::as_str) {
            Some("process") => self.process.launch(launch, io),
            Some("ax1") => self.ax1.launch(launch, io),
            Some("builtin") => self.builtin.launch(launch, io),
            _ => Box::pin(async move {
                let wrong = Self::validate(&launch.agent.harness).err();
                let message = wrong.map_or_else(String::new, |wrong| match &wrong.suggestion {
                    Some(suggestion) => format!("{wrong}; {suggestion}"),
                    None => wrong.to_string(),
                });
                let failure = Failure { code: "config".into(), message };
                let frame = Frame::Fail { failure: failure.clone(), retry: false };
                tokio::select! {
                    sent = io.frames.send(frame) => match sent {
                        Ok(()) => Exit::Said,
                        Err(_) => Exit::Gone(failure),
                    },
                    () = io.kill.cancelled() => Exit::Gone(failure),
                }
            }),
        }
    }

    fn reap_orphans(&self) -> BoxFuture<'static, ()> {
        // All use the same run directory.
        self.process.reap_orphans()
    }
}
