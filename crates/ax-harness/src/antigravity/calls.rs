//! The tool calls of an agent, of which it tells at its hooks: what it is about to do, and what
//! came of it. They are recorded under keys, once, however often a turn is begun again.

use super::wire::ToolArgs;
use crate::launch::AskResult;
use ax_core::session::{Answer, AskKind, Body, Frame, Part, PartKind, StepKey};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// How much of a command or a path is shown in a question, in characters.
const SHOWN_CHARS_MAX: usize = 2_000;
/// The longest name of a part, in bytes.
const NAME_BYTES_MAX: usize = 120;
/// The longest value that is recorded of a call, in bytes.
const VALUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The tool that asks a person by itself.
const QUESTIONS: &str = "ask_question";
/// What shows best what a tool would do, by the names of arguments.
const TELLING: [&str; 6] =
    ["CommandLine", "TargetFile", "AbsolutePath", "DirectoryPath", "Url", "query"];

/// A tool call.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    /// The agent's name for it.
    id: String,
    /// The tool, as the model knows it.
    pub(super) tool: String,
    arguments: Value,
    /// The same in each attempt that makes the same call.
    same: String,
    /// Whether the tool asks or has rules by itself.
    pub(super) has_its_own: bool,
}

/// Keeps the calls of a turn.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// The tool servers of the gateway, which has policies for them.
    servers: BTreeSet<String>,
    made: BTreeMap<String, Call>,
    open: BTreeSet<String>,
    /// How often each was made, or came to the same.
    seen: BTreeMap<String, u32>,
}

impl Calls {
    /// Keeps calls where these are the tool servers of the gateway.
    pub(super) fn new(servers: BTreeSet<String>) -> Self {
        Self { servers, ..Self::default() }
    }

    /// Whether a tool is at work.
    pub(super) fn is_working(&self) -> bool {
        !self.open.is_empty()
    }

    /// A call came to nothing. If it is clear which, it is at work no more: of some we are told
    /// nothing else.
    pub(super) fn lose(&mut self) {
        if self.open.len() == 1 {
            self.open.clear();
        }
    }

    /// Takes in what the agent is about to do; returns the key of the frame too.
    pub(super) fn made(&mut self, args: &ToolArgs) -> (Call, String, Frame) {
        let tool = if args.server_name.is_empty() {
            args.tool_name.clone()
        } else {
            format!("mcp_{}_{}", args.server_name, args.tool_name)
        };
        let has_its_own = self.servers.contains(&args.server_name) || tool == QUESTIONS;
        let arguments: Value = serde_json::from_str(&args.arguments_json)
            .unwrap_or_else(|_| args.arguments_json.clone().into());
        let same = self.count(&json!([tool, arguments]));
        let id = args.call_id.clone();
        let call = Call { id, tool, arguments, same, has_its_own };
        let arguments = bounded(call.arguments.clone());
        let data = json!({"id": call.id, "name": call.tool, "arguments": arguments});
        let key = format!("antigravity:call:{}", call.same);
        let frame = output(&key, PartKind::ToolCall, &call.tool, &data);
        self.open.insert(call.id.clone());
        drop(self.made.insert(call.id.clone(), call.clone()));
        (call, key, frame)
    }

    /// Takes in what came of a call.
    pub(super) fn came_of(&mut self, args: &ToolArgs) -> Frame {
        let error = if args.error.is_empty() { &args.error_message } else { &args.error };
        if error.is_empty() {
            let result = serde_json::from_str(&args.result);
            let result = result.unwrap_or_else(|_| Value::from(args.result.clone()));
            self.end(&args.call_id, &args.tool_name, ("result", result))
        } else {
            self.end(&args.call_id, &args.tool_name, ("error", error.clone().into()))
        }
    }

    /// Takes in that a call is not made.
    pub(super) fn denied(&mut self, call: &Call, why: &str) -> Frame {
        self.end(&call.id, &call.tool, ("error", why.into()))
    }

    fn end(&mut self, id: &str, tool: &str, (field, what): (&str, Value)) -> Frame {
        self.open.remove(id);
        let made = self.made.get(id);
        let name = made.map_or(tool, |call| call.tool.as_str()).to_owned();
        let same = made.map_or_else(String::new, |call| call.same.clone());
        let count = self.count(&json!([same, field, what]));
        let data = json!({"id": id, "name": name, field: bounded(what)});
        output(&format!("antigravity:result:{count}"), PartKind::ToolResult, &name, &data)
    }

    /// Returns a hash and how often it was there.
    fn count(&mut self, what: &Value) -> String {
        let hash = blake3::hash(what.to_string().as_bytes()).to_hex()[..32].to_owned();
        let count = self.seen.entry(hash.clone()).or_default();
        *count += 1;
        format!("{hash}:{count}")
    }
}

impl Call {
    /// The key of the question whether it may be made.
    pub(super) fn ask_key(&self) -> StepKey {
        format!("antigravity:ask:{}", self.same).into()
    }

    /// Returns the question to a person.
    pub(super) fn question(&self) -> Frame {
        let argument = |name: &&str| self.arguments.get(*name)?.as_str();
        let telling = TELLING.iter().find_map(argument);
        let shown = telling.map_or_else(|| self.arguments.to_string(), str::to_owned);
        let shown: String = shown.chars().take(SHOWN_CHARS_MAX).collect();
        let tool: String = self.tool.chars().take(NAME_BYTES_MAX).collect();
        let arguments = bounded(self.arguments.clone());
        let details = json!({"tool": self.tool, "arguments": arguments});
        Frame::Ask {
            key: self.ask_key(),
            kind: AskKind::Approval,
            prompt: format!("May the agent do this? {tool}: {shown}"),
            choices: Vec::new(),
            details: Some(Body::Text(details.to_string())),
            expires_millis: None,
        }
    }
}

/// Returns why a person does not permit something; nothing if it is permitted.
pub(super) fn refusal(result: &AskResult) -> Option<String> {
    match result {
        AskResult::Answered(Answer::Approve) => None,
        AskResult::Answered(Answer::Deny(why)) if !why.is_empty() => {
            Some(format!("a person did not permit it: {why}"))
        }
        AskResult::Answered(_) => Some("a person did not permit it".into()),
        AskResult::Expired => Some("nobody permitted it in time".into()),
    }
}

/// Returns a value as it is recorded: a text that is too long is cut, and of what else is too long
/// there is only how long it was.
fn bounded(value: Value) -> Value {
    let bytes = value.to_string().len();
    match value {
        value if bytes <= VALUE_BYTES_MAX => value,
        Value::String(mut text) => {
            let end = text.floor_char_boundary(VALUE_BYTES_MAX);
            text.truncate(end);
            let cut = Value::from(text);
            // Some characters are longer in JSON.
            let fits = cut.to_string().len() <= VALUE_BYTES_MAX + VALUE_BYTES_MAX / 2;
            if fits { cut } else { json!({"left_out": bytes}) }
        }
        _ => json!({"left_out": bytes}),
    }
}

fn output(key: &str, kind: PartKind, name: &str, data: &Value) -> Frame {
    let end = (0..=NAME_BYTES_MAX.min(name.len())).rev().find(|&at| name.is_char_boundary(at));
    let name = name[..end.unwrap_or_default()].to_owned();
    let body = Body::Text(data.to_string());
    let part = Part { kind, media_type: "application/json".into(), name, body };
    Frame::Output { block: None, key: Some(key.into()), parts: vec![part] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(id: &str, server: &str, tool: &str, arguments: &str) -> ToolArgs {
        ToolArgs {
            tool_name: tool.into(),
            server_name: server.into(),
            call_id: id.into(),
            arguments_json: arguments.into(),
            ..ToolArgs::default()
        }
    }

    fn shown(frame: &Frame) -> (String, String) {
        let Frame::Output { key: Some(key), parts, .. } = frame else { panic!("{frame:?}") };
        let Body::Text(text) = &parts[0].body else { panic!("a text") };
        (key.as_str().to_owned(), text.clone())
    }

    #[test]
    fn a_call_has_the_same_key_in_each_attempt() {
        let servers = BTreeSet::from(["warehouse".to_owned()]);
        let (mut first, mut second) = (Calls::new(servers), Calls::default());
        let send = r#"{"shelf": 3}"#;
        let (call, key, frame) = first.made(&args("a", "warehouse", "send", send));
        let (again, same_key, _) = second.made(&args("b", "warehouse", "send", r#"{"shelf":3}"#));
        assert_eq!((call.tool.as_str(), &key), ("mcp_warehouse_send", &same_key));
        assert_eq!(call.ask_key(), again.ask_key());
        assert!(call.has_its_own && !again.has_its_own, "only servers of the gateway have");
        assert_eq!(shown(&frame).0, key);
        let (_, other, _) = first.made(&args("c", "warehouse", "send", send));
        assert_ne!(key, other, "it is made twice");
    }

    #[test]
    fn a_result_belongs_to_its_call() {
        let mut calls = Calls::default();
        drop(calls.made(&args("a", "", "run_command", r#"{"CommandLine": "ls"}"#)));
        assert!(calls.is_working());
        let mut done = args("a", "", "run_command", "");
        done.result = r#"{"exit_code": 0}"#.into();
        let (_, text) = shown(&calls.came_of(&done));
        assert_eq!(text, r#"{"id":"a","name":"run_command","result":{"exit_code":0}}"#);
        assert!(!calls.is_working());
        done.result.clear();
        done.error_message = "no such file".into();
        let (_, text) = shown(&calls.came_of(&done));
        assert_eq!(text, r#"{"error":"no such file","id":"a","name":"run_command"}"#);
    }

    #[test]
    fn a_question_shows_what_would_be_done() {
        let prompt = |arguments: &str| {
            let (call, ..) = Calls::default().made(&args("a", "", "run_command", arguments));
            assert!(!call.has_its_own);
            let Frame::Ask { prompt, .. } = call.question() else { panic!("a question") };
            prompt
        };
        let command = prompt(r#"{"CommandLine": "rm -r x", "Cwd": "/"}"#);
        assert_eq!(command, "May the agent do this? run_command: rm -r x");
        assert_eq!(prompt(r#"{"a":1}"#), r#"May the agent do this? run_command: {"a":1}"#);
    }

    #[test]
    fn what_is_too_long_is_cut_or_left_out() {
        assert_eq!(bounded(json!({"a": "b"})), json!({"a": "b"}));
        let long = "ä".repeat(VALUE_BYTES_MAX);
        let cut = bounded(long.clone().into());
        assert_eq!(cut.as_str().map(str::len), Some(VALUE_BYTES_MAX));
        let bytes = json!([long]).to_string().len();
        assert_eq!(bounded(json!([long])), json!({"left_out": bytes}));
        let escaped = bounded("\u{1}".repeat(VALUE_BYTES_MAX).into());
        assert_eq!(escaped, json!({"left_out": 6 * VALUE_BYTES_MAX + 2}));
    }

    #[test]
    fn only_a_yes_permits() {
        let answered = |answer| refusal(&AskResult::Answered(answer));
        assert_eq!(answered(Answer::Approve), None);
        let denied = answered(Answer::Deny("too dear".into())).unwrap();
        assert_eq!(denied, "a person did not permit it: too dear");
        assert!(answered(Answer::Text("yes".into())).is_some());
        assert!(refusal(&AskResult::Expired).is_some());
    }
}
