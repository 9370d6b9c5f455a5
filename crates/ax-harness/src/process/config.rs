//! The form of `harness: {type: process, …}`.

use crate::config::{self, ConfigError};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The longest that `stop_grace_ms` may be.
const STOP_GRACE_MILLIS_MAX: u64 = 600_000;

/// How a process and the runtime talk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Protocol {
    /// `docs/formats/harness-stdio.md`.
    #[default]
    Jsonl,
    /// Input as text, each line of output is an output.
    Text,
}

/// The `harness` section of a manifest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Always `process`.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// The program and its arguments. A program without a slash is looked up in `PATH`; a relative
    /// path is taken from the working directory.
    pub(super) command: Vec<String>,
    #[serde(default)]
    pub(super) protocol: Protocol,
    /// Added to the environment.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// Handed to the harness as it is.
    #[serde(default)]
    pub(super) config: Value,
    /// How long the process has to end by itself after it said that it is done, closed its output
    /// or broke the protocol, and how long between SIGTERM and SIGKILL, in milliseconds.
    #[serde(default = "default_stop_grace_ms")]
    stop_grace_ms: u64,
    /// The working directory, an absolute path; the workspace if it is left out.
    #[serde(default)]
    pub(super) dir: Option<PathBuf>,
}

const fn default_stop_grace_ms() -> u64 {
    2_000
}

impl Config {
    pub(super) fn parse(section: &Value) -> Result<Self, ConfigError> {
        let config: Self = config::parse(section)?;
        config.check()?;
        Ok(config)
    }

    pub(super) const fn stop_grace(&self) -> Duration {
        Duration::from_millis(self.stop_grace_ms)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.kind != "process" {
            let cause = format!("{:?} is not this kind of harness", self.kind);
            return Err(ConfigError::new("type", cause).suggest("use `process`"));
        }
        if self.command.first().is_none_or(String::is_empty) {
            return Err(ConfigError::new("command", "no program is named")
                .suggest("name a program and its arguments, such as [python3, agent.py]"));
        }
        if let Some(at) = self.command.iter().position(|word| word.contains('\0')) {
            let field = format!("command[{at}]");
            return Err(ConfigError::new(&field, "contains a NUL character"));
        }
        for (name, value) in &self.env {
            config::check_variable(name, value)?;
        }
        if self.stop_grace_ms > STOP_GRACE_MILLIS_MAX {
            let cause = format!("must be at most {STOP_GRACE_MILLIS_MAX}");
            return Err(ConfigError::new("stop_grace_ms", cause));
        }
        if self.dir.as_ref().is_some_and(|dir| !dir.is_absolute()) {
            return Err(ConfigError::new("dir", "must be an absolute path"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(section: &Value, expect: Result<(), &str>) {
        let result = Config::parse(section).map(drop).map_err(|error| error.path);
        assert_eq!(result, expect.map_err(str::to_owned), "{section}");
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        let command = json!(["sh"]);
        check(&json!({"type": "process", "command": command}), Ok(()));
        check(&json!({"type": "process"}), Err("harness"));
        check(&json!({"type": "process", "command": []}), Err("harness.command"));
        check(&json!({"type": "process", "command": ["a", "b\0"]}), Err("harness.command[1]"));
        check(&json!({"type": "process", "command": command, "x": 1}), Err("harness.x"));
        check(&json!({"type": "process", "command": "sh"}), Err("harness.command"));
        let protocol = json!({"type": "process", "command": command, "protocol": "grpc"});
        check(&protocol, Err("harness.protocol"));
        let env = json!({"type": "process", "command": command, "env": {"AX_KEY": "1"}});
        check(&env, Err("harness.env.AX_KEY"));
        let dir = json!({"type": "process", "command": command, "dir": "sub"});
        check(&dir, Err("harness.dir"));
        let grace = json!({"type": "process", "command": command, "stop_grace_ms": 600_001});
        check(&grace, Err("harness.stop_grace_ms"));
    }
}
