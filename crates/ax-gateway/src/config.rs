//! The `gateway` section of a manifest: `docs/formats/manifest.md`.

use crate::egress::EgressRule;
use crate::policy::{self, Rule};
use ax_core::session::Usage;
use regex_lite::Regex;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most providers of models.
const PROVIDERS_MAX: usize = 32;
/// The most tool servers.
const SERVERS_MAX: usize = 64;
/// The most rules of a tool server.
const RULES_MAX: usize = 256;
/// The most models that stand in for another.
const FALLBACKS_MAX: usize = 8;
/// The most patterns of what is ignored.
const IGNORED_MAX: usize = 16;
/// The longest of them, in bytes.
const PATTERN_BYTES_MAX: usize = 256;
/// The first segment of the routes of the runtime's own interface.
pub(crate) const INTERFACE: &str = "v1";
/// The most tries of a call, the first one included.
const TRIES_MAX: u32 = 20;

/// What the gateway lets through, and to whom.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// The providers of models that a harness may call.
    #[serde(default)]
    pub(crate) models: Vec<Provider>,
    /// The tool servers that a harness may use.
    #[serde(default)]
    pub(crate) tools: Vec<ToolServer>,
    /// What happens when a new attempt asks something else than the one before did.
    #[serde(default)]
    pub(crate) on_divergence: OnDivergence,
    /// What model calls may cost.
    #[serde(default)]
    pub(crate) limits: Limits,
    /// What else of the outside a harness may reach.
    #[serde(default)]
    pub(crate) egress: Vec<EgressRule>,
    /// Lets a harness keep records in sessions.
    pub(crate) records: Option<Records>,
}

/// In which sessions a harness may keep records: in its own, and in those that are named.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Records {
    /// Names of other sessions of its namespace. `*` stands for any text, `{session}` for the id of
    /// the own one.
    #[serde(default)]
    pub(crate) sessions: Vec<String>,
}

impl Records {
    fn check(&self) -> Result<(), ConfigError> {
        if self.sessions.len() > RULES_MAX {
            let cause = format!("there may be {RULES_MAX} at most");
            return Err(ConfigError::new("records.sessions", cause, ""));
        }
        let wrong = |name: &String| {
            name.is_empty() || name.starts_with(['*', '{']) || name.starts_with("ses_")
        };
        if let Some(at) = self.sessions.iter().position(wrong) {
            let cause = "does not say how the names of sessions begin";
            let hint = "write the name of a session, or how names begin, such as `adk/shop/*`";
            return Err(ConfigError::new(format!("records.sessions[{at}]"), cause, hint));
        }
        Ok(())
    }
}

/// What model calls may cost, and how many there may be in a minute.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Limits {
    /// For an execution.
    pub(crate) execution: Option<Amount>,
    /// For a session, all its executions together.
    pub(crate) session: Option<Amount>,
    /// In a minute, for each provider, all sessions of the agent in a namespace together.
    pub(crate) rate: Option<Rate>,
    /// In a minute, for all providers, a session alone.
    pub(crate) session_rate: Option<Rate>,
}

/// What may be consumed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Amount {
    /// Input and output together.
    pub(crate) tokens: Option<u64>,
    /// In US dollars, by the prices of the manifest.
    pub(crate) cost: Option<f64>,
    pub(crate) calls: Option<u64>,
}

/// What may be consumed in a minute.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Rate {
    pub(crate) calls: Option<u64>,
    pub(crate) tokens: Option<u64>,
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
        let amounts = [("execution", &self.execution), ("session", &self.session)];
        for (name, amount) in amounts {
            let Some(amount) = amount else { continue };
            if amount.cost.is_some_and(|cost| !(0.0..=1e9).contains(&cost)) {
                let hint = "write US dollars, such as 2.5";
                let path = format!("limits.{name}.cost");
                return Err(ConfigError::new(path, "is not an amount", hint));
            }
        }
        for (name, rate) in [("rate", &self.rate), ("sessionRate", &self.session_rate)] {
            let Some(rate) = rate else { continue };
            if rate.calls == Some(0) || rate.tokens == Some(0) {
                let (path, cause) = (format!("limits.{name}"), "must let something through");
                return Err(ConfigError::new(path, cause, "leave out what has no limit"));
            }
        }
        Ok(())
    }
}

/// A tool server (Model Context Protocol): a program that speaks over its standard input and
/// output, or an address.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ToolServer {
    /// The last segment of its route.
    pub(crate) name: String,
    /// Program and arguments.
    #[serde(default)]
    pub(crate) command: Vec<String>,
    /// Added to the program's environment.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// Where it is, if it is no program.
    pub(crate) url: Option<String>,
    /// The environment variable of the runtime that holds the key for the address.
    pub(crate) api_key_env: Option<String>,
    /// What holds for its tools.
    #[serde(default)]
    pub(crate) tools: Vec<Rule>,
}

/// What happens when a new attempt asks something else than the one before did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnDivergence {
    /// The execution fails.
    #[default]
    Stop,
    /// It is noted, and the model is asked anew.
    Continue,
}

/// A provider of models.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Provider {
    /// How it wants to be spoken to.
    pub(crate) provider: Kind,
    /// The first segment of its routes; the provider's word unless given.
    name: Option<String>,
    /// Where it is; the vendor's own address unless given.
    base_url: Option<String>,
    /// The environment variable of the runtime that holds its key.
    pub(crate) api_key_env: Option<String>,
    /// The models that are asked, in this order, when the one asked for cannot answer.
    #[serde(default)]
    pub(crate) fallback: Vec<String>,
    /// How often a call is tried that could not be answered.
    #[serde(default = "default_tries")]
    pub(crate) tries: u32,
    /// Patterns (regular expressions) of what two equal requests may differ in, such as clocks.
    #[serde(default)]
    ignore: Vec<String>,
    /// What the models cost, by name.
    #[serde(default)]
    prices: BTreeMap<String, Price>,
}

const fn default_tries() -> u32 {
    5
}

/// How a provider wants to be spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Anthropic,
    Openai,
    Gemini,
}

/// What a model costs, in US dollars for a million tokens.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Price {
    input: f64,
    output: f64,
    /// Input that the provider read from its cache; as other input unless given.
    cached: Option<f64>,
}

/// What is wrong with the section.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {cause}")]
pub struct ConfigError {
    /// The field, below `gateway`, such as `models[0].provider`.
    pub path: String,
    /// What is wrong with it.
    pub cause: String,
    /// What may help; may be empty.
    pub hint: String,
}

impl ConfigError {
    pub(crate) fn new(path: impl Into<String>, cause: impl Into<String>, hint: &str) -> Self {
        Self { path: path.into(), cause: cause.into(), hint: hint.into() }
    }
}

impl Config {
    /// Reads and checks the section.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn parse(section: &Value) -> Result<Self, ConfigError> {
        let config: Self = serde_path_to_error::deserialize(section).map_err(|error| {
            let path = error.path().to_string();
            let path = if path == "." { String::new() } else { path };
            let hint = policy::hint(&path);
            ConfigError::new(path, error.inner().to_string(), hint)
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.limits.check()?;
        if let Some(records) = &self.records {
            records.check()?;
        }
        if self.egress.len() > RULES_MAX {
            let cause = format!("there may be {RULES_MAX} at most");
            return Err(ConfigError::new("egress", cause, ""));
        }
        for (at, rule) in self.egress.iter().enumerate() {
            rule.check(&format!("egress[{at}]"))?;
        }
        if self.models.len() > PROVIDERS_MAX {
            let cause = format!("there may be {PROVIDERS_MAX} at most");
            return Err(ConfigError::new("models", cause, ""));
        }
        for (at, provider) in self.models.iter().enumerate() {
            provider.check(&format!("models[{at}]"))?;
            if self.records.is_some() && provider.name() == INTERFACE {
                let cause = format!("{INTERFACE:?} is the route of records");
                return Err(ConfigError::new(format!("models[{at}].name"), cause, ""));
            }
            if self.models[..at].iter().any(|other| other.name() == provider.name()) {
                let cause = format!("{:?} is named twice", provider.name());
                let hint = "give each provider a name of its own";
                return Err(ConfigError::new(format!("models[{at}].name"), cause, hint));
            }
        }
        if self.tools.len() > SERVERS_MAX {
            let cause = format!("there may be {SERVERS_MAX} at most");
            return Err(ConfigError::new("tools", cause, ""));
        }
        for (at, server) in self.tools.iter().enumerate() {
            server.check(&format!("tools[{at}]"))?;
            if self.tools[..at].iter().any(|other| other.name == server.name) {
                let cause = format!("{:?} is named twice", server.name);
                let hint = "give each tool server a name of its own";
                return Err(ConfigError::new(format!("tools[{at}].name"), cause, hint));
            }
        }
        Ok(())
    }
}

/// Checks a name that is a segment of routes.
fn check_name(path: &str, name: &str) -> Result<(), ConfigError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=63).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(());
    }
    let cause = format!("{name:?} cannot be a name");
    Err(ConfigError::new(format!("{path}.name"), cause, "use 1 to 63 of a-z, 0-9 and '-'"))
}

/// Checks the address of a service.
fn check_url(path: &str, url: &str) -> Result<(), ConfigError> {
    let parsed = url.parse::<http::Uri>().ok();
    let is_service = parsed.is_some_and(|url| {
        let scheme = matches!(url.scheme_str(), Some("http" | "https"));
        scheme && url.host().is_some() && url.query().is_none()
    });
    if is_service {
        return Ok(());
    }
    let cause = format!("{url:?} is not the address of a service");
    Err(ConfigError::new(path, cause, "write it as https://HOST or https://HOST/PATH"))
}

/// Checks the name of a variable of the runtime.
pub(crate) fn check_variable(path: &str, name: Option<&String>) -> Result<(), ConfigError> {
    if name.is_some_and(|name| name.is_empty() || name.contains(['=', '\0'])) {
        let cause = "is not the name of an environment variable";
        return Err(ConfigError::new(format!("{path}.apiKeyEnv"), cause, ""));
    }
    Ok(())
}

/// Checks a pattern of what is ignored.
fn check_pattern(path: &str, pattern: &str) -> Result<(), ConfigError> {
    let cause = match Regex::new(pattern) {
        _ if pattern.len() > PATTERN_BYTES_MAX => {
            format!("is longer than {PATTERN_BYTES_MAX} bytes")
        }
        Err(error) => format!("is not a regular expression: {error}"),
        Ok(compiled) if compiled.is_match("") => "matches everything".to_owned(),
        Ok(_) => return Ok(()),
    };
    let hint = "match what differs and its surroundings, such as `Current time: [0-9T:Z-]+`";
    Err(ConfigError::new(path, cause, hint))
}

impl ToolServer {
    /// The key for its address, if there is one at hand.
    pub(crate) fn key(&self) -> Option<String> {
        std::env::var(self.api_key_env.as_ref()?).ok()
    }

    /// Returns an error without the key that the server may repeat in it.
    pub(crate) fn hidden(&self, message: String) -> String {
        match self.key().filter(|key| !key.is_empty()) {
            Some(key) => message.replace(&key, "[key]"),
            None => message,
        }
    }

    fn check(&self, path: &str) -> Result<(), ConfigError> {
        check_name(path, &self.name)?;
        let program = self.command.first().is_some_and(|program| !program.is_empty());
        match &self.url {
            Some(url) if self.command.is_empty() => check_url(&format!("{path}.url"), url)?,
            None if program => {}
            _ => {
                let cause = "must have either a `command` or a `url`";
                let hint = "name a program and its arguments, such as [python3, server.py]";
                return Err(ConfigError::new(path, cause, hint));
            }
        }
        check_variable(path, self.api_key_env.as_ref())?;
        let words = self.command.iter().chain(self.env.keys()).chain(self.env.values());
        if words.into_iter().any(|word| word.contains('\0')) {
            return Err(ConfigError::new(path, "contains a NUL character", ""));
        }
        if self.env.keys().any(|name| name.is_empty() || name.contains('=')) {
            let cause = "has a name that no environment variable can have";
            return Err(ConfigError::new(format!("{path}.env"), cause, ""));
        }
        if self.tools.len() > RULES_MAX {
            let cause = format!("there may be {RULES_MAX} at most");
            return Err(ConfigError::new(format!("{path}.tools"), cause, ""));
        }
        if let Some(at) = self.tools.iter().position(|rule| rule.tool.is_empty()) {
            let hint = "name a tool, or write `*` for all";
            return Err(ConfigError::new(format!("{path}.tools[{at}].tool"), "is empty", hint));
        }
        if let Some(at) = self.tools.iter().position(Rule::probes_in_vain) {
            let cause = "is for tools with the effect `once`";
            let hint = "leave it out: what may happen twice is called again";
            return Err(ConfigError::new(format!("{path}.tools[{at}].probe"), cause, hint));
        }
        Ok(())
    }
}

impl Provider {
    fn check(&self, path: &str) -> Result<(), ConfigError> {
        check_name(path, self.name())?;
        check_url(&format!("{path}.baseUrl"), self.base_url())?;
        check_variable(path, self.api_key_env.as_ref())?;
        if self.fallback.len() > FALLBACKS_MAX || self.fallback.iter().any(String::is_empty) {
            let cause = format!("must name {FALLBACKS_MAX} models at most");
            return Err(ConfigError::new(format!("{path}.fallback"), cause, ""));
        }
        if !(1..=TRIES_MAX).contains(&self.tries) {
            let cause = format!("must be 1 to {TRIES_MAX}");
            return Err(ConfigError::new(format!("{path}.tries"), cause, ""));
        }
        if self.ignore.len() > IGNORED_MAX {
            let cause = format!("there may be {IGNORED_MAX} at most");
            return Err(ConfigError::new(format!("{path}.ignore"), cause, ""));
        }
        for (at, pattern) in self.ignore.iter().enumerate() {
            check_pattern(&format!("{path}.ignore[{at}]"), pattern)?;
        }
        for (model, price) in &self.prices {
            let figures = [price.input, price.output, price.cached.unwrap_or(0.0)];
            if figures.iter().any(|figure| !(0.0..=1e6).contains(figure)) {
                let path = format!("{path}.prices.{model}");
                let hint = "write US dollars for a million tokens, such as 3.0";
                return Err(ConfigError::new(path, "is not a price", hint));
            }
        }
        Ok(())
    }

    /// What two equal requests may differ in.
    pub(crate) fn ignored(&self) -> Arc<[Regex]> {
        self.ignore.iter().filter_map(|pattern| Regex::new(pattern).ok()).collect()
    }

    /// The first segment of its routes.
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(match self.provider {
            Kind::Anthropic => "anthropic",
            Kind::Openai => "openai",
            Kind::Gemini => "gemini",
        })
    }

    /// Where it is, without a slash at the end.
    pub(crate) fn base_url(&self) -> &str {
        let own = match self.provider {
            Kind::Anthropic => "https://api.anthropic.com",
            Kind::Openai => "https://api.openai.com",
            Kind::Gemini => "https://generativelanguage.googleapis.com",
        };
        self.base_url.as_deref().unwrap_or(own).trim_end_matches('/')
    }

    /// Whether it is the vendor itself, which wants a key.
    pub(crate) const fn is_vendor(&self) -> bool {
        self.base_url.is_none()
    }

    /// The variable that its key is in unless another is named.
    pub(crate) fn key_variable(&self) -> &str {
        self.api_key_env.as_deref().unwrap_or(match self.provider {
            Kind::Anthropic => "ANTHROPIC_API_KEY",
            Kind::Openai => "OPENAI_API_KEY",
            Kind::Gemini => "GEMINI_API_KEY",
        })
    }

    /// What a call costs, in millionths of a US dollar; 0 if no price is known.
    pub(crate) fn cost_micros(&self, model: &str, usage: &Usage) -> u64 {
        let Some(price) = self.prices.get(model) else { return 0 };
        #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
        let [input, cached, output] = [
            usage.input_tokens.saturating_sub(usage.cached_tokens) as f64,
            usage.cached_tokens as f64,
            usage.output_tokens as f64,
        ];
        let cost = input * price.input
            + cached * price.cached.unwrap_or(price.input)
            + output * price.output;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "prices are not negative, and the cast saturates"
        )]
        let micros = cost.round() as u64;
        micros
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(provider: Value, expect: Result<(), &str>) {
        let section = json!({"models": [provider]});
        let result = Config::parse(&section).map(drop).map_err(|error| error.path);
        assert_eq!(result, expect.map_err(str::to_owned), "{section}");
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        check(json!({"provider": "anthropic"}), Ok(()));
        check(json!({"provider": "mistral"}), Err("models[0].provider"));
        check(json!({"provider": "openai", "name": "a/b"}), Err("models[0].name"));
        check(json!({"provider": "openai", "baseUrl": "file:///etc"}), Err("models[0].baseUrl"));
        check(json!({"provider": "openai", "baseUrl": "http://h?x=1"}), Err("models[0].baseUrl"));
        check(json!({"provider": "openai", "tries": 0}), Err("models[0].tries"));
        for pattern in ["(", "x*", &"x".repeat(257)] {
            let section = json!({"provider": "openai", "ignore": ["ok", pattern]});
            check(section, Err("models[0].ignore[1]"));
        }
        let prices = json!({"m": {"input": -1.0, "output": 1.0}});
        check(json!({"provider": "openai", "prices": prices}), Err("models[0].prices.m"));
        for (limits, path) in [
            (json!({"session": {"cost": -1.0}}), "limits.session.cost"),
            (json!({"rate": {"calls": 0}}), "limits.rate"),
            (json!({"sessionRate": {"tokens": 0}}), "limits.sessionRate"),
            (json!({"execution": {"token": 1}}), "limits.execution.token"),
        ] {
            assert_eq!(Config::parse(&json!({"limits": limits})).unwrap_err().path, path);
        }
        for (rule, path) in [
            (json!({"host": ""}), "egress[0].host"),
            (json!({"host": "A.com"}), "egress[0].host"),
            (json!({"host": "a.com", "port": 0}), "egress[0].port"),
            (json!({"host": "a.com", "methods": ["get"]}), "egress[0].methods"),
            (json!({"host": "a.com", "methods": ["CONNECT"]}), "egress[0].methods"),
        ] {
            assert_eq!(Config::parse(&json!({"egress": [rule]})).unwrap_err().path, path);
        }
        let twice = json!({"models": [{"provider": "openai"}, {"provider": "openai"}]});
        assert_eq!(Config::parse(&twice).unwrap_err().path, "models[1].name");
        assert_eq!(Config::parse(&json!({"model": []})).unwrap_err().path, "model");
    }

    #[test]
    fn what_is_wrong_with_a_tool_server_is_named_by_its_field() {
        for (server, expect) in [
            (json!({"name": "a", "command": ["b"]}), None),
            (json!({"name": "a", "url": "http://127.0.0.1:1/mcp"}), None),
            (json!({"name": "a"}), Some("tools[0]")),
            (json!({"name": "a", "command": ["b"], "url": "http://h"}), Some("tools[0]")),
            (json!({"name": "A", "command": ["b"]}), Some("tools[0].name")),
            (json!({"name": "a", "url": "h"}), Some("tools[0].url")),
            (json!({"name": "a", "command": ["b"], "env": {"": "c"}}), Some("tools[0].env")),
            (
                json!({"name": "a", "command": ["b"], "tools": [{"tool": ""}]}),
                Some("tools[0].tools[0].tool"),
            ),
            (
                json!({"name": "a", "command": ["b"], "tools": [{"tool": "c", "effect": "x"}]}),
                Some("tools[0].tools[0].effect"),
            ),
            (
                json!({"name": "a", "command": ["b"], "tools": [{"tool": "c", "when": "args."}]}),
                Some("tools[0].tools[0].when"),
            ),
            (
                json!({"name": "a", "command": ["b"], "tools": [{"tool": "c",
                    "probe": {"tool": "d", "done": "results"}}]}),
                Some("tools[0].tools[0].probe.done"),
            ),
            (
                json!({"name": "a", "command": ["b"], "tools": [{"tool": "c", "effect": "read",
                    "probe": {"tool": "d", "done": "true"}}]}),
                Some("tools[0].tools[0].probe"),
            ),
        ] {
            let section = json!({"tools": [server]});
            let wrong = Config::parse(&section).err();
            let hinted = wrong
                .as_ref()
                .is_none_or(|wrong| !wrong.path.ends_with(".when") || wrong.hint.contains("args."));
            assert!(hinted, "{wrong:?}");
            assert_eq!(wrong.map(|wrong| wrong.path).as_deref(), expect, "{section}");
        }
    }

    #[test]
    fn a_call_costs_what_its_tokens_do() {
        let prices = json!({"m": {"input": 3.0, "output": 15.0, "cached": 0.3}});
        let section = json!({"models": [{"provider": "anthropic", "prices": prices}]});
        let config = Config::parse(&section).unwrap();
        let usage = Usage {
            input_tokens: 1_200,
            cached_tokens: 1_000,
            output_tokens: 100,
            ..Usage::default()
        };
        assert_eq!(config.models[0].cost_micros("m", &usage), 600 + 300 + 1_500);
        assert_eq!(config.models[0].cost_micros("other", &usage), 0);
    }
}
