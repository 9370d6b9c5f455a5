//! What comes before a prompt: greeting, authenticating, and finding the agent's session.

use super::attempt::Talk;
use super::place::Marker;
use super::prompt::{self, Takes};
use super::updates::note;
use super::wire::Refused;
use super::{Over, PROTOCOL, last};
use crate::launch::Launch;
use crate::turn::{said, tool_servers};
use ax_core::session::{Body, Frame};
use serde_json::{Value, json};

/// What the keys of notes begin with that say how an attempt came by the agent's session.
const KEY_PREFIX: &str = "acp:session:";
/// The agent's session is a new one.
const NEW: &str = "new";

/// What an agent offers.
#[derive(Debug, Default)]
pub(super) struct Offers {
    /// `agentInfo`, as it is.
    about: Value,
    load: bool,
    resume: bool,
    /// Whether a session can be closed.
    pub(super) close: bool,
    /// Whether it takes tool servers at an address.
    http: bool,
    takes: Takes,
}

impl Offers {
    fn of(answer: &Value) -> Self {
        let at = |path: &str| answer.pointer(path).cloned().unwrap_or_default();
        let sessions = at("/agentCapabilities/sessionCapabilities");
        let can = |name: &str| sessions.get(name).is_some_and(|value| !value.is_null());
        Self {
            about: at("/agentInfo"),
            load: at("/agentCapabilities/loadSession") == Value::Bool(true),
            resume: can("resume"),
            close: can("close"),
            http: at("/agentCapabilities/mcpCapabilities/http") == Value::Bool(true),
            takes: Takes::of(&at("/agentCapabilities/promptCapabilities")),
        }
    }
}

/// The agent's session, ready for a prompt.
#[derive(Debug)]
pub(super) struct Opened {
    /// The agent's name for it.
    pub(super) session: String,
    /// What it is asked.
    pub(super) prompt: Vec<Value>,
    /// Whether a session can be closed.
    pub(super) close: bool,
}

impl Talk<'_> {
    /// Does all that comes before a prompt. When this returns, the log and the disk know which of
    /// the agent's sessions is ours.
    pub(super) async fn open(&mut self) -> Result<Opened, Over> {
        let offers = self.greet().await?;
        if let Some(method) = &self.config.auth_method {
            drop(self.must("authenticate", &json!({"methodId": method})).await?);
        }
        let servers = servers(self.launch, offers.http)?;
        let (session, how, state) = self.session(&offers, &servers).await?;
        self.settle(&session, &state).await?;
        self.place.mark(&Marker::new(&session)).map_err(Over::Broken)?;
        let key = format!("{KEY_PREFIX}{}:{how}", self.launch.attempt.0);
        let data = json!({"session": session, "how": how, "agent": offers.about});
        self.link
            .say(Frame::Note {
                key: Some(key.as_str().into()),
                name: "acp.session".into(),
                data: Body::Text(data.to_string()),
            })
            .await?;
        self.link.recorded(&key).await?;
        let prompt = self.prompt(&offers, how).map_err(Over::Broken)?;
        Ok(Opened { session, prompt, close: offers.close })
    }

    async fn greet(&mut self) -> Result<Offers, Over> {
        let params = json!({
            "protocolVersion": PROTOCOL,
            "clientCapabilities": {
                "fs": {"readTextFile": false, "writeTextFile": false},
                "terminal": false,
            },
            "clientInfo": {
                "name": "agent-executor",
                "title": "Agent Executor",
                "version": env!("CARGO_PKG_VERSION"),
            },
        });
        let answer = self.must("initialize", &params).await?;
        match answer.get("protocolVersion").and_then(Value::as_u64) {
            Some(PROTOCOL) => Ok(Offers::of(&answer)),
            other => {
                let message = other.map_or_else(
                    || "the agent does not say which version it speaks".to_owned(),
                    |version| format!("the agent speaks version {version}, not {PROTOCOL}"),
                );
                Err(last("protocol", message))
            }
        }
    }

    /// Takes up the session that the agent has, or begins one. Returns its name, how it was come
    /// by, and what the agent says of it.
    async fn session(
        &mut self,
        offers: &Offers,
        servers: &Value,
    ) -> Result<(String, &'static str, Value), Over> {
        let cwd = self.place.workspace.display().to_string();
        // An attempt does as the one before it did: else the model would be asked something else.
        // One that is to go on takes up what the one before it began.
        let takes_up = self.goes_on() || !began_anew(self.launch);
        let marker = self.place.marker().filter(|_| takes_up);
        if let Some(Marker { session, .. }) = marker {
            let params = json!({"sessionId": session, "cwd": cwd, "mcpServers": servers});
            let ways = [("session/resume", offers.resume), ("session/load", offers.load)];
            for (method, _) in ways.into_iter().filter(|(_, offered)| *offered) {
                // What was said before is in the log already.
                self.quiet = true;
                let answer = self.call(method, &params).await?;
                self.quiet = false;
                match answer {
                    Ok(state) => return Ok((session, &method["session/".len()..], state)),
                    Err(refused) => self.lost(&session, method, &refused).await?,
                }
            }
        }
        let state = self.must("session/new", &json!({"cwd": cwd, "mcpServers": servers})).await?;
        match state.get("sessionId").and_then(Value::as_str) {
            Some(session) => Ok((session.to_owned(), NEW, state)),
            None => Err(last("protocol", "session/new was answered without a sessionId")),
        }
    }

    async fn lost(&mut self, session: &str, method: &str, why: &Refused) -> Result<(), Over> {
        let why = why.failure(method);
        let data = json!({"session": session, "method": method, "why": why.message});
        self.link.say(note("session_lost", &data)).await
    }

    /// Sets mode and options, as the manifest says.
    async fn settle(&mut self, session: &str, state: &Value) -> Result<(), Over> {
        if let Some(mode) = &self.config.mode {
            let known = state.pointer("/modes/availableModes").and_then(Value::as_array);
            let known = known.map_or_else(Vec::new, |modes| {
                modes.iter().filter_map(|mode| mode.get("id")?.as_str()).collect()
            });
            if !known.is_empty() && !known.contains(&mode.as_str()) {
                let message =
                    format!("the agent has no mode {mode:?}; it has {}", known.join(", "));
                return Err(last("config", message));
            }
            let params = json!({"sessionId": session, "modeId": mode});
            drop(self.must("session/set_mode", &params).await?);
        }
        for (option, value) in &self.config.options {
            let params = json!({"sessionId": session, "configId": option, "value": value});
            drop(self.must("session/set_config_option", &params).await?);
        }
        Ok(())
    }

    fn prompt(&self, offers: &Offers, how: &str) -> Result<Vec<Value>, ax_core::session::Failure> {
        let mut prompt = Vec::new();
        if how == NEW {
            prompt.extend(said::history(&self.launch.history)?.as_deref().map(prompt::text));
        } else if self.goes_on() {
            prompt.push(prompt::text(
                "You were interrupted while you worked on the following. Find out what is done \
                 already, and go on from there.",
            ));
        }
        prompt.extend(prompt::blocks(self.launch, offers.takes)?);
        Ok(prompt)
    }
}

/// Whether an earlier attempt of the execution began a new session.
fn began_anew(launch: &Launch) -> bool {
    let mut keys = launch.journal.iter().map(|entry| entry.key.as_str());
    keys.any(|key| {
        let how = key.strip_prefix(KEY_PREFIX).and_then(|rest| rest.split_once(':'));
        how.is_some_and(|(_, how)| how == NEW)
    })
}

/// Returns the tool servers of the gateway, as the agent is told of them.
fn servers(launch: &Launch, http: bool) -> Result<Value, Over> {
    let servers = tool_servers(launch).map_err(Over::Broken)?;
    if !servers.is_empty() && !http {
        let message = "the agent takes no tool servers over HTTP, as the gateway's are; take \
            `tools` out of `gateway`";
        return Err(last("config", message));
    }
    let named = |(name, url)| json!({"type": "http", "name": name, "url": url, "headers": []});
    Ok(servers.into_iter().map(named).collect())
}
