//! The form of `harness: {type: builtin, …}`.

use super::tools::Kind;
use crate::config::{self, ConfigError};
use ax_core::session::EffectClass;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::fmt;
use std::path::PathBuf;

/// How many model calls an execution may make, unless the manifest says.
const TURNS_MAX_DEFAULT: u32 = 100;

/// Whose wire format a model speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Provider {
    /// Anthropic Messages.
    Anthropic,
    /// OpenAI Responses.
    Openai,
    /// OpenAI Chat Completions, and whatever imitates them.
    #[serde(rename = "openai-chat")]
    OpenaiChat,
    /// Gemini `generateContent`.
    Gemini,
}

/// The `harness` section of a manifest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Always `builtin`.
    #[serde(rename = "type")]
    kind: String,
    pub(super) model: Model,
    /// The system prompt.
    #[serde(default)]
    pub(super) system: String,
    #[serde(default)]
    pub(super) tools: Vec<Tool>,
    /// Where tool servers are started, an absolute path; the workspace if it is left out.
    #[serde(default)]
    dir: Option<PathBuf>,
    /// How many model calls an execution may make.
    #[serde(default = "default_max_turns")]
    pub(super) max_turns: u32,
}

const fn default_max_turns() -> u32 {
    TURNS_MAX_DEFAULT
}

/// The model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    pub(super) provider: Provider,
    pub(super) name: String,
    /// Where the provider is; the vendor's own address if it is left out.
    #[serde(default)]
    pub(super) base_url: Option<String>,
    /// The environment variable of the runtime that holds the key.
    #[serde(default)]
    pub(super) api_key_env: Option<String>,
    /// The longest answer, in tokens.
    #[serde(default = "default_max_tokens")]
    pub(super) max_tokens: u32,
    #[serde(default)]
    pub(super) temperature: Option<f64>,
    /// Added to every request as it is.
    #[serde(default)]
    pub(super) extra: Map<String, Value>,
}

const fn default_max_tokens() -> u32 {
    8_192
}

/// A tool, and what it means to carry it out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tool {
    pub(super) kind: Kind,
    pub(super) effect: EffectClass,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Effect {
    Read,
    Idempotent,
    Once,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Long {
    name: Kind,
    effect: Option<Effect>,
}

/// A tool is its name, or a map of its name and more.
impl<'de> Deserialize<'de> for Tool {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Long;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a tool, or a map of its name and its effect")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Long, E> {
                let name = Kind::deserialize(serde::de::value::StrDeserializer::new(name))?;
                Ok(Long { name, effect: None })
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Long, A::Error> {
                Long::deserialize(serde::de::value::MapAccessDeserializer::new(map))
            }
        }
        let long = from.deserialize_any(Visitor)?;
        let effect = long.effect.map_or_else(
            || long.name.effect(),
            |effect| match effect {
                Effect::Read => EffectClass::Read,
                Effect::Idempotent => EffectClass::Idempotent,
                Effect::Once => EffectClass::Once,
            },
        );
        Ok(Self { kind: long.name, effect })
    }
}

impl Config {
    pub(super) fn parse(section: &Value) -> Result<Self, ConfigError> {
        let config: Self = config::parse(section)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.kind != "builtin" {
            let cause = format!("{:?} is not this kind of harness", self.kind);
            return Err(ConfigError::new("type", cause).suggest("use `builtin`"));
        }
        self.model.check()?;
        for (at, tool) in self.tools.iter().enumerate() {
            if self.tools[..at].iter().any(|before| before.kind == tool.kind) {
                let cause = format!("the tool {} is named twice", tool.kind.name());
                return Err(ConfigError::new(&format!("tools[{at}]"), cause));
            }
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

impl Model {
    fn check(&self) -> Result<(), ConfigError> {
        if self.name.trim().is_empty() {
            return Err(
                ConfigError::new("model.name", "is empty").suggest("name a model of the provider")
            );
        }
        if !self.name.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#%".contains(&byte)) {
            return Err(ConfigError::new("model.name", "has characters that no model's name has"));
        }
        if let Some(url) = &self.base_url {
            match reqwest::Url::parse(url) {
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {}
                _ => {
                    return Err(ConfigError::new("model.base_url", "is not an http or https URL")
                        .suggest("write it in full, such as https://api.example.com/v1"));
                }
            }
        }
        if self.max_tokens == 0 {
            return Err(ConfigError::new("model.max_tokens", "must be at least 1"));
        }
        if self.temperature.is_some_and(|degree| !(0.0..=2.0).contains(&degree)) {
            return Err(ConfigError::new("model.temperature", "must be from 0 to 2"));
        }
        if let Some(name) = &self.api_key_env
            && (name.is_empty() || name.contains(['=', '\0']))
        {
            let cause = "is not the name of an environment variable";
            return Err(ConfigError::new("model.api_key_env", cause)
                .suggest("name the variable that holds the key, not the key"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(change: &str, value: Value, expect: Option<(&str, Option<&str>)>) {
        let mut section = json!({
            "type": "builtin",
            "model": {"provider": "anthropic", "name": "m"},
            "tools": ["shell", {"name": "read", "effect": "once"}],
        });
        if let Some(at) = section.pointer_mut(change) {
            *at = value;
        } else {
            let (parent, field) = change.rsplit_once('/').unwrap();
            section.pointer_mut(parent).unwrap()[field] = value;
        }
        let error = Config::parse(&section).err();
        let error = error.as_ref().map(|error| (&*error.path, error.suggestion.as_deref()));
        assert_eq!(error, expect, "{section}");
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        check("/system", json!("be kind"), None);
        check("/model/base_url", json!("http://127.0.0.1:1/v1"), None);
        let use_url = Some("write it in full, such as https://api.example.com/v1");
        check("/model/base_url", json!("127.0.0.1"), Some(("harness.model.base_url", use_url)));
        let anthropic = Some("did you mean `anthropic`?");
        check("/model/provider", json!("antropic"), Some(("harness.model.provider", anthropic)));
        let name = Some("name a model of the provider");
        check("/model/name", json!(""), Some(("harness.model.name", name)));
        let shell = Some("did you mean `shell`?");
        check("/tools/0", json!("shel"), Some(("harness.tools[0]", shell)));
        check("/tools/0", json!("read"), Some(("harness.tools[1]", None)));
        let effect = Some("did you mean `once`?");
        check("/tools/1/effect", json!("onc"), Some(("harness.tools[1].effect", effect)));
        check("/max_turns", json!(0), Some(("harness.max_turns", None)));
        let turns = Some("did you mean `max_turns`?");
        check("/max_turn", json!(0), Some(("harness.max_turn", turns)));
        check("/model/temperature", json!(2.5), Some(("harness.model.temperature", None)));
    }

    #[test]
    fn a_tool_has_its_own_effect_unless_the_manifest_says() {
        let tools = json!(["shell", "write", {"name": "shell", "effect": "read"}]);
        let tools: Vec<Tool> = serde_json::from_value(tools).unwrap();
        let effects: Vec<_> = tools.iter().map(|tool| tool.effect).collect();
        assert_eq!(effects, [EffectClass::Once, EffectClass::Idempotent, EffectClass::Read]);
    }
}
