//! The form of `harness: {type: acp, …}`.

use super::permission::{Rule, rules};
use crate::config::{self, ConfigError};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// The longest that a time may be, in milliseconds.
const MILLIS_MAX: u64 = 600_000;

/// What becomes of a turn that was cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum AfterCrash {
    /// The agent's state is put back to where the turn began, and the prompt is sent again.
    #[default]
    Replay,
    /// The agent keeps what it has of the turn, and is told to go on.
    Continue,
}

/// The `harness` section of a manifest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Always `acp`.
    #[serde(rename = "type")]
    kind: String,
    /// The agent and its arguments. `{state}`, `{workspace}`, `{dir}` and, behind a gateway,
    /// the names of its variables in braces are filled in.
    pub(super) command: Vec<String>,
    /// Added to the environment; filled in like the command.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// Files that are written into the agent's state before it is started, by their paths there;
    /// filled in like the command.
    #[serde(default)]
    pub(super) files: BTreeMap<String, String>,
    /// What `{dir}` stands for, and where a program with a relative path is: an absolute path; the
    /// workspace if it is left out. The agent works in the workspace in any case.
    #[serde(default)]
    pub(super) dir: Option<PathBuf>,
    /// How to authenticate, by the agent's name for it; not at all if it is left out.
    #[serde(default, rename = "authMethod")]
    pub(super) auth_method: Option<String>,
    /// The agent's mode, by its name for it; the agent's default if it is left out.
    #[serde(default)]
    pub(super) mode: Option<String>,
    /// Options of the agent's sessions, such as `model`, by its names for them.
    #[serde(default)]
    pub(super) options: BTreeMap<String, String>,
    /// What is answered when the agent asks for a permission.
    #[serde(default)]
    permissions: Value,
    /// What becomes of a turn that was cut.
    #[serde(default, rename = "afterCrash")]
    pub(super) after_crash: AfterCrash,
    /// How long the agent has for each answer before a prompt, in milliseconds.
    #[serde(default = "default_ready_ms")]
    ready_ms: u64,
    /// How long the agent has to end by itself, and between SIGTERM and SIGKILL, in milliseconds.
    #[serde(default = "default_stop_grace_ms")]
    stop_grace_ms: u64,
}

const fn default_ready_ms() -> u64 {
    120_000
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

    pub(super) fn permissions(&self) -> Result<Vec<Rule>, ConfigError> {
        rules(&self.permissions)
    }

    pub(super) const fn ready_max(&self) -> Duration {
        Duration::from_millis(self.ready_ms)
    }

    pub(super) const fn stop_grace(&self) -> Duration {
        Duration::from_millis(self.stop_grace_ms)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.kind != "acp" {
            let cause = format!("{:?} is not this kind of harness", self.kind);
            return Err(ConfigError::new("type", cause).suggest("use `acp`"));
        }
        if self.command.first().is_none_or(String::is_empty) {
            return Err(ConfigError::new("command", "no program is named")
                .suggest("name an agent and its arguments, such as [opencode, acp]"));
        }
        if let Some(at) = self.command.iter().position(|word| word.contains('\0')) {
            let field = format!("command[{at}]");
            return Err(ConfigError::new(&field, "contains a NUL character"));
        }
        for (name, value) in &self.env {
            config::check_variable(name, value)?;
        }
        if self.dir.as_ref().is_some_and(|dir| !dir.is_absolute()) {
            return Err(ConfigError::new("dir", "must be an absolute path"));
        }
        for path in self.files.keys() {
            let plain = |part| matches!(part, Component::Normal(_));
            if path.is_empty() || path.contains('\0') || !Path::new(path).components().all(plain) {
                let field = format!("files.{path}");
                return Err(ConfigError::new(&field, "is not the path of a file in the state")
                    .suggest("write a path without `..` that does not begin with a slash"));
            }
        }
        for (field, millis) in [("ready_ms", self.ready_ms), ("stop_grace_ms", self.stop_grace_ms)]
        {
            if millis > MILLIS_MAX {
                return Err(ConfigError::new(field, format!("must be at most {MILLIS_MAX}")));
            }
        }
        self.permissions().map(drop)
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
        let with = |field: &str, value: Value| {
            let mut section = json!({"type": "acp", "command": ["codex-acp"]});
            section[field] = value;
            section
        };
        check(&with("authMethod", json!("gemini-api-key")), Ok(()));
        check(&with("mode", json!("plan")), Ok(()));
        check(&with("options", json!({"model": "fast"})), Ok(()));
        check(&with("afterCrash", json!("continue")), Ok(()));
        check(&with("permissions", json!("allow")), Ok(()));
        check(&with("permissions", json!([{"kind": "read", "policy": "allow"}])), Ok(()));
        check(&with("permissions", json!("alow")), Err("harness.permissions"));
        check(
            &with("permissions", json!([{"policy": "no"}])),
            Err("harness.permissions[0].policy"),
        );
        check(&with("permissions", json!([{"tool": "x"}])), Err("harness.permissions[0].tool"));
        check(&with("afterCrash", json!("hope")), Err("harness.afterCrash"));
        check(&with("files", json!({"a/b.json": "{}"})), Ok(()));
        check(&with("files", json!({"../b": ""})), Err("harness.files.../b"));
        check(&with("files", json!({"/b": ""})), Err("harness.files./b"));
        check(&with("command", json!([])), Err("harness.command"));
        check(&with("command", json!(["a", "b\0"])), Err("harness.command[1]"));
        check(&with("comand", json!([])), Err("harness.comand"));
        check(&with("env", json!({"AX_X": "1"})), Err("harness.env.AX_X"));
        check(&with("dir", json!("here")), Err("harness.dir"));
        check(&with("ready_ms", json!(600_001)), Err("harness.ready_ms"));
        check(&json!({"type": "acp"}), Err("harness"));
    }
}
