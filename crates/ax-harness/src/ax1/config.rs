//! The form of `harness: {type: ax1, …}`.

use crate::config::{self, ConfigError};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The longest that a time may be, in milliseconds.
const MILLIS_MAX: u64 = 600_000;
/// The largest configuration that a harness is handed, in bytes of JSON.
const CONFIG_BYTES_MAX: usize = 64 * 1024;

/// The `harness` section of a manifest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Always `ax1`.
    #[serde(rename = "type")]
    kind: String,
    /// A server that is there: `unix:///…` or `http://HOST:PORT`.
    #[serde(default)]
    address: Option<String>,
    /// Starts a server for each attempt. `{socket}`, `{port}` and `{state}` are filled in.
    #[serde(default)]
    pub(super) command: Vec<String>,
    /// Added to the environment of the command.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// The working directory of the command, an absolute path; the workspace if it is left out.
    #[serde(default)]
    pub(super) dir: Option<PathBuf>,
    /// What the server is told that it is; the agent's name if it is left out.
    #[serde(default)]
    pub(super) id: Option<String>,
    /// Handed to the server with every start, as JSON.
    #[serde(default = "empty")]
    pub(super) config: Value,
    /// Whether the server is told what was said in earlier executions.
    #[serde(default = "yes")]
    pub(super) history: bool,
    /// How long the server has until it says that it serves, in milliseconds.
    #[serde(default = "default_ready_ms")]
    ready_ms: u64,
    /// How long the command has between SIGTERM and SIGKILL, in milliseconds.
    #[serde(default = "default_stop_grace_ms")]
    stop_grace_ms: u64,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// A socket in the file system.
    Unix(PathBuf),
    /// A host and a port, as a URL.
    Http(String),
}

fn empty() -> Value {
    json!({})
}

const fn yes() -> bool {
    true
}

const fn default_ready_ms() -> u64 {
    60_000
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

    /// Returns where the server is; `None` if it is started.
    pub(super) fn address(&self) -> Result<Option<Address>, ConfigError> {
        self.address.as_deref().map(address).transpose()
    }

    pub(super) const fn ready_max(&self) -> Duration {
        Duration::from_millis(self.ready_ms)
    }

    pub(super) const fn stop_grace(&self) -> Duration {
        Duration::from_millis(self.stop_grace_ms)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.kind != "ax1" {
            let cause = format!("{:?} is not this kind of harness", self.kind);
            return Err(ConfigError::new("type", cause).suggest("use `ax1`"));
        }
        drop(self.address()?);
        match (&self.address, self.command.first()) {
            (None, None) => {
                return Err(ConfigError::new("", "names no server")
                    .suggest("give the `address` of one, or a `command` that starts one"));
            }
            (Some(_), Some(_)) => {
                return Err(ConfigError::new("address", "is given beside `command`")
                    .suggest("leave one of the two out: a server is either there or started"));
            }
            (None, Some(program)) if program.is_empty() => {
                return Err(ConfigError::new("command", "no program is named"));
            }
            (Some(_), None) if !self.env.is_empty() || self.dir.is_some() => {
                let cause = "is only for a server that is started by `command`";
                let field = if self.dir.is_some() { "dir" } else { "env" };
                return Err(ConfigError::new(field, cause));
            }
            _ => {}
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
        for (field, millis) in [("ready_ms", self.ready_ms), ("stop_grace_ms", self.stop_grace_ms)]
        {
            if millis > MILLIS_MAX {
                return Err(ConfigError::new(field, format!("must be at most {MILLIS_MAX}")));
            }
        }
        if !self.config.is_object() || self.config.to_string().len() > CONFIG_BYTES_MAX {
            let cause = format!("must be a map of at most {CONFIG_BYTES_MAX} bytes as JSON");
            return Err(ConfigError::new("config", cause));
        }
        Ok(())
    }
}

fn address(text: &str) -> Result<Address, ConfigError> {
    let wrong = |cause: &str| {
        ConfigError::new("address", cause)
            .suggest("write unix:///run/harness.sock or http://127.0.0.1:50053")
    };
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        let plain = path.starts_with('/') && !path.contains('\0');
        return if plain {
            Ok(Address::Unix(PathBuf::from(path)))
        } else {
            Err(wrong("does not name a socket by an absolute path"))
        };
    }
    match reqwest::Url::parse(text) {
        Ok(url) if url.scheme() == "http" && url.has_host() && url.path() == "/" => {
            Ok(Address::Http(text.to_owned()))
        }
        Ok(url) if url.scheme() == "https" => {
            Err(wrong("is encrypted, which a harness on this machine is not"))
        }
        _ => Err(wrong("is neither a socket nor an http URL with a host")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(section: &Value, expect: Result<(), &str>) {
        let result = Config::parse(section).map(drop).map_err(|error| error.path);
        assert_eq!(result, expect.map_err(str::to_owned), "{section}");
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        let with = |field: &str, value: Value| {
            let mut section = json!({"type": "ax1", "command": ["h", "--listen", "{socket}"]});
            section[field] = value;
            section
        };
        check(&with("id", json!("antigravity")), Ok(()));
        check(&json!({"type": "ax1"}), Err("harness"));
        check(&with("address", json!("http://127.0.0.1:1")), Err("harness.address"));
        check(&with("command", json!([""])), Err("harness.command"));
        check(&with("command", json!(["a", "b\0"])), Err("harness.command[1]"));
        check(&with("comand", json!([])), Err("harness.comand"));
        check(&with("env", json!({"AX_X": "1"})), Err("harness.env.AX_X"));
        check(&with("dir", json!("here")), Err("harness.dir"));
        check(&with("ready_ms", json!(600_001)), Err("harness.ready_ms"));
        check(&with("config", json!([1])), Err("harness.config"));
        let there = json!({"type": "ax1", "address": "http://127.0.0.1:1", "env": {"A": "b"}});
        check(&there, Err("harness.env"));
    }

    #[test]
    fn an_address_is_a_socket_or_a_url() {
        let socket = Address::Unix("/run/h.sock".into());
        assert_eq!(address("unix:///run/h.sock"), Ok(socket.clone()));
        assert_eq!(address("unix:/run/h.sock"), Ok(socket));
        let url = "http://127.0.0.1:50053";
        assert_eq!(address(url), Ok(Address::Http(url.into())));
        for wrong in ["unix:h.sock", "127.0.0.1:1", "https://h:1", "http://h:1/path", "ftp://h"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
