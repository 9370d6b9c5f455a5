//! The form of `harness: {type: antigravity, …}`.

use super::permission::{Rule, rules};
use crate::config::{self, ConfigError, closest};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The longest that a time may be, in milliseconds.
const MILLIS_MAX: u64 = 600_000;

/// The tools that the program brings: our names for them, and its own.
pub(super) const TOOLS: [(&str, &str); 14] = [
    ("ask_question", "userQuestions"),
    ("create_file", "writeToFile"),
    ("edit_file", "fileEdit"),
    ("find_file", "find"),
    ("generate_image", "generateImage"),
    ("invoke_subagent", "subagents"),
    ("list_directory", "listDir"),
    ("read_url_content", "readUrlContent"),
    ("run_command", "runCommand"),
    ("run_workflow", "runWorkflow"),
    ("schedule", "schedule"),
    ("search_directory", "grepSearch"),
    ("search_web", "searchWeb"),
    ("view_file", "viewFile"),
];

/// What of the program's configuration is ours, and not the manifest's.
const OURS: [&str; 12] = [
    "agentBehavior",
    "appDataDir",
    "cascadeId",
    "enabledHooks",
    "harnessSideTools",
    "initialTrajectory",
    "mcpServers",
    "models",
    "policyConfig",
    "sessionContinuationMode",
    "systemInstructions",
    "workspaces",
];

/// How the agent is with people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Behavior {
    /// It asks what it does not know.
    #[default]
    Interactive,
    /// It asks nothing.
    Autonomous,
    /// It is told as little as possible of what it is.
    Minimal,
}

/// How a conversation is told to an agent that does not know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum History {
    /// As the steps of a trajectory.
    #[default]
    Trajectory,
    /// As text before the input.
    Text,
}

/// The `harness` section of a manifest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Always `antigravity`.
    #[serde(rename = "type")]
    kind: String,
    /// The program and its arguments; looked for in `venv` if it is left out.
    #[serde(default)]
    pub(super) command: Vec<String>,
    /// A Python environment with the wheel that has the program.
    #[serde(default)]
    pub(super) venv: Option<PathBuf>,
    /// The model.
    pub(super) model: String,
    /// Added to what the agent is told of itself.
    #[serde(default)]
    pub(super) instructions: Option<String>,
    /// Which of the tools that the program brings it may use: none of them unless they are named.
    #[serde(default)]
    pub(super) tools: Vec<String>,
    /// What is answered when the agent is about to use a tool.
    #[serde(default)]
    permissions: Value,
    /// How the agent is with people.
    #[serde(default)]
    pub(super) behavior: Behavior,
    /// How a conversation is told to an agent that does not know it.
    #[serde(default)]
    pub(super) history: History,
    /// More of the program's own configuration, as it is.
    #[serde(default)]
    pub(super) config: Map<String, Value>,
    /// Added to the environment. `{state}`, `{workspace}` and `{dir}` are filled in.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// What `{dir}` stands for, and where relative paths begin: an absolute path; the workspace if
    /// it is left out.
    #[serde(default)]
    pub(super) dir: Option<PathBuf>,
    /// How long the program has until it takes a prompt, in milliseconds.
    #[serde(default = "default_ready_ms")]
    ready_ms: u64,
    /// How long the program has between SIGTERM and SIGKILL, in milliseconds.
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
        if self.kind != "antigravity" {
            let cause = format!("{:?} is not this kind of harness", self.kind);
            return Err(ConfigError::new("type", cause).suggest("use `antigravity`"));
        }
        if self.model.is_empty() {
            return Err(ConfigError::new("model", "no model is named")
                .suggest("name one, such as gemini-2.5-pro"));
        }
        self.check_program()?;
        for (at, tool) in self.tools.iter().enumerate() {
            check_tool(at, tool)?;
        }
        if let Some(ours) = self.config.keys().find(|name| OURS.contains(&name.as_str())) {
            let field = format!("config.{ours}");
            return Err(ConfigError::new(&field, "is set by the runtime")
                .suggest("use the fields of the manifest"));
        }
        for (name, value) in &self.env {
            config::check_variable(name, value)?;
        }
        if self.dir.as_ref().is_some_and(|dir| !dir.is_absolute()) {
            return Err(ConfigError::new("dir", "must be an absolute path"));
        }
        for (field, millis) in [("ready_ms", self.ready_ms), ("stop_grace_ms", self.stop_grace_ms)]
        {
            if millis > MILLIS_MAX {
                return Err(ConfigError::new(field, format!("must be at most {MILLIS_MAX}")));
            }
        }
        self.permissions().map(drop)
    }

    fn check_program(&self) -> Result<(), ConfigError> {
        if !self.command.is_empty() && self.venv.is_some() {
            return Err(ConfigError::new("venv", "stands beside `command`")
                .suggest("leave one of them out"));
        }
        if self.command.first().is_some_and(String::is_empty) {
            return Err(ConfigError::new("command[0]", "no program is named")
                .suggest("name the program, or leave `command` out and name a `venv`"));
        }
        if let Some(at) = self.command.iter().position(|word| word.contains('\0')) {
            let field = format!("command[{at}]");
            return Err(ConfigError::new(&field, "contains a NUL character"));
        }
        Ok(())
    }
}

fn check_tool(at: usize, tool: &str) -> Result<(), ConfigError> {
    let names = || TOOLS.iter().map(|(name, _)| *name);
    if names().any(|name| name == tool) {
        return Ok(());
    }
    let wrong = ConfigError::new(&format!("tools[{at}]"), format!("there is no tool {tool:?}"));
    Err(match closest(tool, names()) {
        Some(known) => wrong.suggest(format!("did you mean `{known}`?")),
        None => wrong.suggest(format!("use some of {}", names().collect::<Vec<_>>().join(", "))),
    })
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
            let mut section = json!({"type": "antigravity", "model": "gemini-2.5-pro"});
            section[field] = value;
            section
        };
        check(&with("venv", json!(".venv")), Ok(()));
        check(&with("command", json!(["localharness"])), Ok(()));
        check(&with("tools", json!(["run_command", "ask_question"])), Ok(()));
        check(&with("behavior", json!("autonomous")), Ok(()));
        check(&with("history", json!("text")), Ok(()));
        check(&with("config", json!({"skillsPaths": ["skills"]})), Ok(()));
        check(&with("permissions", json!([{"tool": "run_*", "policy": "deny"}])), Ok(()));
        check(&with("permissions", json!("alow")), Err("harness.permissions"));
        check(&with("permissions", json!([{"kind": "x"}])), Err("harness.permissions[0].kind"));
        check(&with("tools", json!(["run_comand"])), Err("harness.tools[0]"));
        check(&with("config", json!({"cascadeId": "x"})), Err("harness.config.cascadeId"));
        check(&with("command", json!([""])), Err("harness.command[0]"));
        check(&with("command", json!(["a", "b\0"])), Err("harness.command[1]"));
        check(&with("comand", json!([])), Err("harness.comand"));
        check(&with("env", json!({"AX_X": "1"})), Err("harness.env.AX_X"));
        check(&with("dir", json!("here")), Err("harness.dir"));
        check(&with("model", json!("")), Err("harness.model"));
        check(&with("behavior", json!("shy")), Err("harness.behavior"));
        check(&with("ready_ms", json!(600_001)), Err("harness.ready_ms"));
        check(&json!({"type": "antigravity"}), Err("harness"));
        let mut both = with("venv", json!(".venv"));
        both["command"] = json!(["localharness"]);
        check(&both, Err("harness.venv"));
    }

    #[test]
    fn a_wrong_tool_is_corrected() {
        let section = json!({"type": "antigravity", "model": "m", "tools": ["run_comand"]});
        let error = Config::parse(&section).unwrap_err();
        assert_eq!(error.suggestion.as_deref(), Some("did you mean `run_command`?"));
    }
}
