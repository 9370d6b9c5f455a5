//! The form of `harness: {type: interactions, …}`.

use crate::config::{self, ConfigError};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// How many interactions an execution may begin, unless the manifest says.
const TURNS_MAX_DEFAULT: u32 = 100;
/// What a request has that `extra` cannot change.
const OURS: [&str; 9] = [
    "agent",
    "background",
    "input",
    "model",
    "previous_interaction_id",
    "store",
    "stream",
    "system_instruction",
    "tools",
];

/// The `harness` section of a manifest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Always `interactions`.
    #[serde(rename = "type")]
    kind: String,
    /// An agent of the provider.
    #[serde(default)]
    agent: Option<String>,
    /// A model of the provider.
    #[serde(default)]
    model: Option<String>,
    /// Where the provider is, with the version of the API; the vendor's own address if left out.
    #[serde(default = "default_base_url")]
    pub(super) base_url: String,
    /// The environment variable of the runtime that holds the key.
    #[serde(default)]
    pub(super) api_key_env: Option<String>,
    /// Whether the provider goes on when nobody listens.
    #[serde(default = "default_background")]
    pub(super) background: bool,
    /// The system instruction.
    #[serde(default)]
    pub(super) system: String,
    /// Tools of the provider, as they are.
    #[serde(default)]
    pub(super) tools: Vec<Value>,
    /// Added to every request as it is.
    #[serde(default)]
    pub(super) extra: Map<String, Value>,
    /// Where tool servers are started, an absolute path; the workspace if it is left out.
    #[serde(default)]
    dir: Option<PathBuf>,
    /// How many interactions an execution may begin.
    #[serde(default = "default_max_turns")]
    pub(super) max_turns: u32,
}

/// Where the vendor is.
pub(super) const VENDOR_URL: &str = "https://generativelanguage.googleapis.com/v1beta";

fn default_base_url() -> String {
    VENDOR_URL.into()
}

const fn default_background() -> bool {
    true
}

const fn default_max_turns() -> u32 {
    TURNS_MAX_DEFAULT
}

impl Config {
    pub(super) fn parse(section: &Value) -> Result<Self, ConfigError> {
        let config: Self = config::parse(section)?;
        config.check()?;
        Ok(config)
    }

    /// Returns what runs: the field of a request that names it, and its name.
    pub(super) fn who(&self) -> (&'static str, &str) {
        match (&self.agent, &self.model) {
            (Some(agent), _) => ("agent", agent),
            (None, model) => ("model", model.as_deref().unwrap_or_default()),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.kind != "interactions" {
            let cause = format!("{:?} is not this kind of harness", self.kind);
            return Err(ConfigError::new("type", cause).suggest("use `interactions`"));
        }
        if self.agent.is_some() == self.model.is_some() {
            let cause = "either `agent` or `model` must be given, and not both";
            return Err(ConfigError::new("", cause)
                .suggest("name an agent, such as `agent: deep-research-preview-04-2026`"));
        }
        let (field, name) = self.who();
        if name.trim().is_empty() || name.len() > 200 {
            return Err(ConfigError::new(field, "must have 1 to 200 bytes"));
        }
        match reqwest::Url::parse(&self.base_url) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {}
            _ => {
                return Err(ConfigError::new("base_url", "is not an http or https URL")
                    .suggest(format!("write it in full, such as {VENDOR_URL}")));
            }
        }
        if let Some(name) = &self.api_key_env
            && (name.is_empty() || name.contains(['=', '\0']))
        {
            let cause = "is not the name of an environment variable";
            return Err(ConfigError::new("api_key_env", cause)
                .suggest("name the variable that holds the key, not the key"));
        }
        if let Some(at) = self.tools.iter().position(|tool| !tool.is_object()) {
            return Err(ConfigError::new(&format!("tools[{at}]"), "is not a map")
                .suggest("write it as the provider does, such as `{type: google_search}`"));
        }
        if let Some(name) = OURS.iter().find(|name| self.extra.contains_key(**name)) {
            let cause = "is set by the harness";
            return Err(ConfigError::new(&format!("extra.{name}"), cause)
                .suggest("take it out; most have a field of their own in `harness`"));
        }
        if self.dir.as_ref().is_some_and(|dir| !dir.is_absolute()) {
            return Err(ConfigError::new("dir", "must be an absolute path"));
        }
        if self.max_turns == 0 {
            return Err(ConfigError::new("max_turns", "must be at least 1"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(field: &str, value: Value, expect: Option<&str>) {
        let mut section = json!({"type": "interactions", "agent": "deep-research"});
        section[field] = value;
        let error = Config::parse(&section).err().map(|error| error.path);
        assert_eq!(error.as_deref(), expect, "{section}");
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        check("system", json!("Be brief."), None);
        check("base_url", json!("http://127.0.0.1:1/v1beta"), None);
        check("base_url", json!("127.0.0.1"), Some("harness.base_url"));
        check("agent", json!(" "), Some("harness.agent"));
        check("agent", Value::Null, Some("harness"));
        check("model", json!("gemini"), Some("harness"));
        check("modell", json!("gemini"), Some("harness.modell"));
        check("tools", json!([{"type": "google_search"}]), None);
        check("tools", json!(["google_search"]), Some("harness.tools[0]"));
        check("extra", json!({"agent_config": {"type": "deep-research"}}), None);
        check("extra", json!({"store": false}), Some("harness.extra.store"));
        check("api_key_env", json!("A=B"), Some("harness.api_key_env"));
        check("max_turns", json!(0), Some("harness.max_turns"));
        check("dir", json!("here"), Some("harness.dir"));
    }
}
