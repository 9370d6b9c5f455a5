//! What comes before a prompt: finding the program's session, and what it is told of its work.

use super::attempt::Talk;
use super::config::{Behavior, History, TOOLS};
use super::place::Model;
use super::trajectory;
use super::wire::Heard;
use crate::launch::Content;
use crate::turn::said::{BASE64, history, in_base64, words};
use crate::turn::{Over, failure, tool_servers};
use ax_core::session::{Body, Failure, Frame, PartKind};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The largest content that is sent as it is, in bytes; a larger one is named by its file.
const CONTENT_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// The points of the program's work at which it waits for our word.
const HOOKS: [&str; 3] =
    ["LIFECYCLE_HOOK_PRE_TOOL", "LIFECYCLE_HOOK_POST_TOOL", "LIFECYCLE_HOOK_ON_TOOL_ERROR"];

/// How an attempt comes by the program's session.
struct Opening {
    /// Its name in the log.
    how: &'static str,
    /// Its name in the program's configuration.
    mode: &'static str,
    /// The trajectory that it begins with.
    initial: Option<Vec<u8>>,
    /// What is said before the input.
    before: Option<String>,
}

impl Talk<'_> {
    /// Does all that comes before a prompt; returns the prompt. When this returns, the log knows
    /// how we came by the program's session.
    pub(super) async fn open(&mut self, model: &Model, ready: Duration) -> Result<Value, Over> {
        let opening = self.opening().map_err(Over::Broken)?;
        let config = self.harness_config(&opening, model).map_err(Over::Broken)?;
        self.wire.send("config", &config);
        let until = Instant::now() + ready;
        let opened = timeout_at(until, self.opened()).await.unwrap_or_else(|_| {
            Err(Over::Broken(failure("not_ready", "the program does not open its session in time")))
        });
        opened?;
        let key = format!("antigravity:session:{}:{}", self.launch.attempt.0, opening.how);
        let data = json!({"session": self.place.id, "how": opening.how});
        self.link
            .say(Frame::Note {
                key: Some(key.as_str().into()),
                name: "antigravity.session".into(),
                data: Body::Text(data.to_string()),
            })
            .await?;
        self.link.recorded(&key).await?;
        self.prompt(opening.before).map_err(Over::Broken)
    }

    fn opening(&self) -> Result<Opening, Failure> {
        if self.place.has_trajectory() {
            return Ok(Opening { how: "resume", mode: "RESUME", initial: None, before: None });
        }
        self.place.clear()?;
        let mode = "CREATE_ONLY";
        let new = Opening { how: "new", mode, initial: None, before: None };
        Ok(match self.config.history {
            History::Trajectory => match trajectory::of(&self.launch.history, &self.place.id)? {
                Some(told) => Opening { how: "trajectory", initial: Some(told), ..new },
                None => new,
            },
            History::Text => match history(&self.launch.history)? {
                Some(told) => Opening { how: "text", before: Some(told), ..new },
                None => new,
            },
        })
    }

    async fn opened(&mut self) -> Result<(), Over> {
        loop {
            let heard = tokio::select! {
                told = self.link.listen() => {
                    told?;
                    continue;
                }
                heard = self.wire.next() => heard.map_err(Over::Broken)?,
            };
            match heard {
                Heard::Opened => return Ok(()),
                other => self.hear(other).await?,
            }
        }
    }

    /// Returns what the program is told of the agent.
    fn harness_config(&self, opening: &Opening, model: &Model) -> Result<Value, Failure> {
        let config = self.config;
        let mut told = config.config.clone();
        let mut set = |name: &str, value: Value| drop(told.insert(name.into(), value));
        set("cascadeId", self.place.id.as_str().into());
        set("sessionContinuationMode", opening.mode.into());
        if let Some(initial) = &opening.initial {
            set("initialTrajectory", BASE64_STANDARD.encode(initial).into());
        }
        set("appDataDir", self.place.app().display().to_string().into());
        let workspace = self.place.workspace.display().to_string();
        set("workspaces", json!([{"filesystemWorkspace": {"directory": workspace}}]));
        let mut endpoint = json!({"apiKey": model.key});
        if let Some(base_url) = &model.base_url {
            endpoint["baseUrl"] = base_url.as_str().into();
        }
        // It looks for a key of its own for a kind of model that is not named.
        let kinds = ["MODEL_TYPE_TEXT", "MODEL_TYPE_IMAGE"];
        let named = json!({"name": config.model, "types": kinds, "geminiApiEndpoint": endpoint});
        set("models", json!([named]));
        set("harnessSideTools", tools(&config.tools));
        set("enabledHooks", json!(HOOKS));
        // All of it comes by our hook first.
        let rule = json!({"tool": "*", "decision": "POLICY_DECISION_ALLOW"});
        set("policyConfig", json!({"rules": [rule]}));
        set("agentBehavior", behavior(config.behavior).into());
        if let Some(instructions) = &config.instructions {
            let section = json!({"content": instructions});
            set("systemInstructions", json!({"appended": {"appendedSections": [section]}}));
        }
        let server =
            |(name, url)| json!({"name": name, "http": {"url": url}, "forceAllToolsEager": true});
        set("mcpServers", tool_servers(self.launch)?.into_iter().map(server).collect());
        Ok(Value::Object(told))
    }

    fn prompt(&self, before: Option<String>) -> Result<Value, Failure> {
        let before = before.into_iter().map(|text| json!({"text": text})).map(Ok);
        let parts: Vec<Value> =
            before.chain(self.launch.input.iter().map(part)).collect::<Result<_, _>>()?;
        Ok(json!({"parts": parts}))
    }
}

/// Which of its own tools the program may use.
fn tools(wanted: &[String]) -> Value {
    let has = |tool: &str| wanted.iter().any(|wanted| wanted == tool);
    let enabled = |on: bool| json!({"enabled": on});
    let mut tools: Map<String, Value> =
        TOOLS.iter().map(|(ours, its)| ((*its).to_owned(), enabled(has(ours)))).collect();
    // It looks after what these have begun.
    drop(tools.insert("manageTask".into(), enabled(has("run_command") || has("schedule"))));
    Value::Object(tools)
}

const fn behavior(behavior: Behavior) -> &'static str {
    match behavior {
        Behavior::Interactive => "AGENT_BEHAVIOR_INTERACTIVE",
        Behavior::Autonomous => "AGENT_BEHAVIOR_AUTONOMOUS",
        Behavior::Minimal => "AGENT_BEHAVIOR_MINIMAL",
    }
}

/// Returns a part of the input as the program takes it.
fn part(part: &Content) -> Result<Value, Failure> {
    let is_media = matches!(
        part.kind,
        PartKind::Image | PartKind::Audio | PartKind::Video | PartKind::Document
    );
    let is_large = part.file.as_ref().is_some_and(|(_, _, bytes)| *bytes > CONTENT_BYTES_MAX);
    if is_large
        && part.kind != PartKind::Text
        && let Some((path, ..)) = &part.file
    {
        let name = if part.name.is_empty() { "a file" } else { &part.name };
        let text = format!("[{} {name}: {}]", part.media_type, path.display());
        return Ok(json!({"text": text}));
    }
    if is_media && (part.file.is_some() || part.media_type.ends_with(BASE64)) {
        let (media_type, data) = in_base64(part)?;
        return Ok(json!({"media":
            {"mimeType": media_type, "description": part.name, "data": data}}));
    }
    Ok(json!({"text": words(part)?}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_tools_that_are_named_are_there() {
        let told = tools(&["run_command".to_owned()]);
        assert_eq!(told["runCommand"], json!({"enabled": true}));
        assert_eq!(told["manageTask"], json!({"enabled": true}));
        let on = |told: &Value| {
            told.as_object().unwrap().values().filter(|tool| tool["enabled"] == true).count()
        };
        assert_eq!(on(&told), 2);
        assert_eq!(on(&tools(&[])), 0);
    }

    #[test]
    fn a_part_is_sent_as_text_or_as_media() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        fs::write(&path, [0, 255]).unwrap();
        let content = |kind, media_type: &str, text: &str| Content {
            kind,
            media_type: media_type.into(),
            name: "n".into(),
            text: text.into(),
            file: None,
        };
        let check = |content: &Content, expect: Value| assert_eq!(part(content).unwrap(), expect);
        check(&content(PartKind::Text, "text/plain", "hello"), json!({"text": "hello"}));
        check(&content(PartKind::Data, "application/json", "{}"), json!({"text": "{}"}));
        let image = content(PartKind::Image, "image/png;base64", "AAA=");
        let media = |data: &str| {
            let media = json!({"mimeType": "image/png", "description": "n", "data": data});
            json!({"media": media})
        };
        check(&image, media("AAA="));
        let in_file = |bytes| Content {
            media_type: "image/png".into(),
            file: Some((path.clone(), "id".into(), bytes)),
            ..image.clone()
        };
        check(&in_file(2), media("AP8="));
        let named = format!("[image/png n: {}]", path.display());
        check(&in_file(CONTENT_BYTES_MAX + 1), json!({"text": named}));
    }
}
