//! What an agent says of its turn, as frames. Nothing of it is lost: what is no output is a note.

use ax_core::session::{BlockId, Body, Frame, Part, PartKind};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The media type of a part that is a link.
const LINK: &str = "text/uri-list";
/// What the media type of a part ends in whose text is the content in base64.
const BASE64: &str = ";base64";
/// The longest name of a part or of a note, in bytes.
const NAME_BYTES_MAX: usize = 120;
/// The most tool calls of a turn that are remembered.
const CALLS_MAX: usize = 10_000;

/// A tool call.
#[derive(Clone, Debug, Default)]
struct Call {
    /// All that is known of it: what came later wins.
    fields: Map<String, Value>,
    /// Whether it was said that it was made.
    said: bool,
    /// Whether it was said what came of it.
    ended: bool,
}

/// Turns updates into frames.
#[derive(Debug, Default)]
pub(super) struct Updates {
    calls: BTreeMap<String, Call>,
    /// The block that text goes to: its number, its kind, and the message of the agent it belongs
    /// to.
    open: Option<(u64, PartKind, Option<String>)>,
    blocks: u64,
    /// The last update of each kind that agents repeat.
    repeated: BTreeMap<String, Value>,
}

impl Updates {
    /// Returns what is known of a tool call.
    pub(super) fn call(&self, id: &str) -> Option<&Map<String, Value>> {
        self.calls.get(id).map(|call| &call.fields)
    }

    /// Whether a tool is at work.
    pub(super) fn is_working(&self) -> bool {
        self.calls.values().any(|call| !call.ended)
    }

    /// Takes in an update.
    pub(super) fn hear(&mut self, update: Value) -> Vec<Frame> {
        let kind = update.get("sessionUpdate").and_then(Value::as_str).unwrap_or_default();
        match kind {
            "agent_message_chunk" => self.chunk(PartKind::Text, update),
            "agent_thought_chunk" => self.chunk(PartKind::Thought, update),
            "tool_call" | "tool_call_update" => self.tool(update),
            _ => {
                let kind = kind.to_owned();
                self.other(&kind, update)
            }
        }
    }

    /// Ends what is open.
    pub(super) fn close(&mut self) -> Option<Frame> {
        let (number, ..) = self.open.take()?;
        Some(Frame::Output { block: Some(block(number)), key: None, parts: Vec::new() })
    }

    fn other(&mut self, kind: &str, update: Value) -> Vec<Frame> {
        if self.repeated.get(kind) == Some(&update) {
            return Vec::new();
        }
        if kind == "available_commands_update" {
            drop(self.repeated.insert(kind.to_owned(), update.clone()));
        }
        let name = if kind.is_empty() { "update" } else { kind };
        vec![note(name, &update)]
    }

    fn chunk(&mut self, kind: PartKind, update: Value) -> Vec<Frame> {
        let content = update.get("content").cloned().unwrap_or_default();
        let message = update.get("messageId").and_then(Value::as_str).map(str::to_owned);
        let text = content.get("text").and_then(Value::as_str);
        match (content.get("type").and_then(Value::as_str), text) {
            (Some("text"), Some(text)) => self.text(kind, message, text),
            _ => {
                let mut frames: Vec<Frame> = self.close().into_iter().collect();
                frames.push(match part(&content) {
                    Some(part) => Frame::Output { block: None, key: None, parts: vec![part] },
                    None => note("update", &update),
                });
                frames
            }
        }
    }

    fn text(&mut self, kind: PartKind, message: Option<String>, text: &str) -> Vec<Frame> {
        let mut frames = Vec::new();
        let fits = self.open.as_ref().is_some_and(|(_, of, to)| *of == kind && *to == message);
        if !fits {
            frames.extend(self.close());
        }
        if text.is_empty() {
            return frames;
        }
        let (number, ..) = *self.open.get_or_insert_with(|| {
            self.blocks += 1;
            (self.blocks, kind, message)
        });
        frames.push(Frame::Delta { block: block(number), part: kind, text: text.to_owned() });
        frames
    }

    fn tool(&mut self, update: Value) -> Vec<Frame> {
        let mut frames: Vec<Frame> = self.close().into_iter().collect();
        let id = update.get("toolCallId").and_then(Value::as_str).map(str::to_owned);
        let (Some(id), Value::Object(fields)) = (id, &update) else {
            frames.push(note("update", &update));
            return frames;
        };
        if self.calls.len() >= CALLS_MAX && !self.calls.contains_key(&id) {
            frames.push(note("tool_call", &update));
            return frames;
        }
        let call = self.calls.entry(id).or_default();
        let before = (call.said, call.ended);
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            drop(call.fields.insert(name.clone(), value.clone()));
        }
        let status = fields.get("status").and_then(Value::as_str);
        let ends = matches!(status, Some("completed" | "failed"));
        let begins = status == Some("in_progress") || ends || has_input(fields);
        if begins && !call.said {
            call.said = true;
            frames.push(output(made(&call.fields)));
        }
        if ends && !call.ended {
            call.ended = true;
            frames.push(output(came_of(&call.fields)));
        }
        // What changed in between is in neither.
        if before == (call.said, call.ended) && call.said {
            frames.push(note("tool_call_update", &update));
        }
        frames
    }
}

/// Returns a note.
pub(super) fn note(name: &str, data: &Value) -> Frame {
    let name = format!("acp.{}", cut(name));
    Frame::Note { key: None, name, data: Body::Text(data.to_string()) }
}

fn block(number: u64) -> BlockId {
    format!("acp-{number}").as_str().into()
}

fn output(part: Part) -> Frame {
    Frame::Output { block: None, key: None, parts: vec![part] }
}

fn cut(name: &str) -> &str {
    let end = (0..=NAME_BYTES_MAX.min(name.len())).rev().find(|&at| name.is_char_boundary(at));
    &name[..end.unwrap_or_default()]
}

fn has_input(fields: &Map<String, Value>) -> bool {
    match fields.get("rawInput") {
        None | Some(Value::Null) => false,
        Some(Value::Object(input)) => !input.is_empty(),
        Some(_) => true,
    }
}

/// What a tool is called: by its name if the agent tells it, else by its kind.
fn name(fields: &Map<String, Value>) -> String {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
    cut(text("name").or_else(|| text("kind")).unwrap_or("tool")).to_owned()
}

/// The call: `id`, `name`, `arguments`, and what else the agent says of it.
fn made(fields: &Map<String, Value>) -> Part {
    let mut value = fields.clone();
    let taken = ["sessionUpdate", "content", "rawOutput", "status"];
    taken.iter().for_each(|name| drop(value.remove(*name)));
    rename(&mut value, "toolCallId", "id");
    rename(&mut value, "rawInput", "arguments");
    drop(value.insert("name".into(), name(fields).into()));
    json(PartKind::ToolCall, name(fields), value)
}

/// What came of it: `id`, `name`, `result`, `status`, and what else the agent says of it.
fn came_of(fields: &Map<String, Value>) -> Part {
    let mut value = fields.clone();
    ["sessionUpdate", "rawInput", "kind"].iter().for_each(|name| drop(value.remove(*name)));
    rename(&mut value, "toolCallId", "id");
    let shown = if value.contains_key("rawOutput") { "rawOutput" } else { "content" };
    rename(&mut value, shown, "result");
    drop(value.insert("name".into(), name(fields).into()));
    json(PartKind::ToolResult, name(fields), value)
}

fn rename(value: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(field) = value.remove(from) {
        drop(value.insert(to.into(), field));
    }
}

fn json(kind: PartKind, name: String, value: Map<String, Value>) -> Part {
    let body = Body::Text(Value::Object(value).to_string());
    Part { kind, media_type: "application/json".into(), name, body }
}

/// Reads a content that is no text.
fn part(content: &Value) -> Option<Part> {
    let text = |value: &Value, name: &str| Some(value.get(name)?.as_str()?.to_owned());
    let of = |kind, media_type: String, name: String, text: String| {
        Some(Part { kind, media_type, name, body: Body::Text(text) })
    };
    match content.get("type")?.as_str()? {
        "image" | "audio" => {
            let kind = if content["type"] == "image" { PartKind::Image } else { PartKind::Audio };
            let media_type = format!("{}{BASE64}", text(content, "mimeType")?);
            of(kind, media_type, String::new(), text(content, "data")?)
        }
        "resource_link" => {
            let name = cut(&text(content, "name").unwrap_or_default()).to_owned();
            of(PartKind::Document, LINK.into(), name, text(content, "uri")?)
        }
        "resource" => {
            let resource = content.get("resource")?;
            let name = cut(&text(resource, "uri")?).to_owned();
            let media_type = text(resource, "mimeType");
            if let Some(words) = text(resource, "text") {
                let media_type = media_type.unwrap_or_else(|| "text/plain".into());
                return of(PartKind::Document, media_type, name, words);
            }
            let media_type = media_type.unwrap_or_else(|| "application/octet-stream".into());
            of(PartKind::Document, format!("{media_type}{BASE64}"), name, text(resource, "blob")?)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hear(updates: &[Value]) -> Vec<String> {
        let mut turn = Updates::default();
        let mut frames: Vec<Frame> =
            updates.iter().flat_map(|update| turn.hear(update.clone())).collect();
        frames.extend(turn.close());
        frames.iter().map(shown).collect()
    }

    fn shown(frame: &Frame) -> String {
        match frame {
            Frame::Delta { block, part, text } => format!("{block} {part:?} {text}"),
            Frame::Output { block: Some(block), parts, .. } => format!("{block} . {}", parts.len()),
            Frame::Output { parts, .. } => parts
                .iter()
                .map(|part| {
                    let Body::Text(text) = &part.body else { panic!("a text") };
                    format!("{:?} {} {} {text}", part.kind, part.name, part.media_type)
                })
                .collect(),
            Frame::Note { name, data: Body::Text(data), .. } => format!("note {name} {data}"),
            other => panic!("{other:?}"),
        }
    }

    fn chunk(kind: &str, text: &str) -> Value {
        json!({"sessionUpdate": kind, "content": {"type": "text", "text": text}})
    }

    #[test]
    fn text_of_a_kind_goes_to_a_block() {
        let said = hear(&[
            chunk("agent_thought_chunk", "hm"),
            chunk("agent_message_chunk", "a"),
            chunk("agent_message_chunk", "b"),
            json!({"sessionUpdate": "plan", "entries": []}),
            chunk("agent_message_chunk", "c"),
        ]);
        assert_eq!(
            said,
            [
                "acp-1 Thought hm",
                "acp-1 . 0",
                "acp-2 Text a",
                "acp-2 Text b",
                "note acp.plan {\"entries\":[],\"sessionUpdate\":\"plan\"}",
                "acp-2 Text c",
                "acp-2 . 0",
            ]
        );
    }

    #[test]
    fn a_tool_call_is_said_when_its_input_is_known() {
        let said = hear(&[
            json!({"sessionUpdate": "tool_call", "toolCallId": "1", "title": "Terminal",
                "kind": "execute", "status": "pending", "rawInput": {}}),
            json!({"sessionUpdate": "tool_call_update", "toolCallId": "1", "title": "ls",
                "rawInput": {"command": "ls"}}),
            json!({"sessionUpdate": "tool_call_update", "toolCallId": "1", "_meta": {"x": 1}}),
            json!({"sessionUpdate": "tool_call_update", "toolCallId": "1", "status": "completed",
                "rawOutput": "a b"}),
        ]);
        assert_eq!(said.len(), 3, "{said:?}");
        let call = "ToolCall execute application/json {\"arguments\":{\"command\":\"ls\"},\
            \"id\":\"1\",\"kind\":\"execute\",\"name\":\"execute\",\"title\":\"ls\"}";
        assert_eq!(said[0], call);
        assert!(said[1].starts_with("note acp.tool_call_update"), "{said:?}");
        assert!(said[2].starts_with("ToolResult execute application/json"), "{said:?}");
        assert!(said[2].contains("\"result\":\"a b\",\"status\":\"completed\""), "{said:?}");
    }

    #[test]
    fn a_tool_is_at_work_until_its_end_is_known() {
        let mut turn = Updates::default();
        drop(turn.hear(json!({"sessionUpdate": "tool_call", "toolCallId": "1", "title": "t"})));
        assert!(turn.is_working());
        drop(turn.hear(
            json!({"sessionUpdate": "tool_call_update", "toolCallId": "1", "status": "failed"}),
        ));
        assert!(!turn.is_working());
    }

    #[test]
    fn what_is_no_text_is_a_part_and_what_is_not_understood_a_note() {
        let content =
            |content: Value| json!({"sessionUpdate": "agent_message_chunk", "content": content});
        let said = hear(&[
            content(json!({"type": "image", "mimeType": "image/png", "data": "AAA="})),
            content(json!({"type": "resource_link", "name": "n", "uri": "file:///n"})),
            content(json!({"type": "resource", "resource": {"uri": "u", "text": "t"}})),
            content(json!({"type": "hologram"})),
            json!({"sessionUpdate": "tool_call"}),
            json!({"sessionUpdate": "of_tomorrow", "x": 1}),
            json!({"x": 1}),
        ]);
        assert_eq!(said[0], "Image  image/png;base64 AAA=");
        assert_eq!(said[1], "Document n text/uri-list file:///n");
        assert_eq!(said[2], "Document u text/plain t");
        assert!(said[3].starts_with("note acp.update") && said[3].contains("hologram"));
        assert!(said[4].starts_with("note acp.update"));
        assert!(said[5].starts_with("note acp.of_tomorrow"));
        assert!(said[6].starts_with("note acp.update"));
    }

    /// What a real agent said in a turn with a tool, and what becomes of it.
    fn recorded(agent: &str) {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/acp");
        let said = std::fs::read_to_string(dir.join(format!("{agent}.jsonl"))).unwrap();
        let messages = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let updates: Vec<Value> = messages
            .filter(|message| message["method"] == "session/update")
            .map(|message| message["params"]["update"].clone())
            .collect();
        assert!(!updates.is_empty());
        let frames = hear(&updates).join("\n");
        expect_test::expect_file![dir.join(format!("{agent}.txt"))].assert_eq(&frames);
    }

    #[test]
    fn a_turn_of_codex_is_understood() {
        recorded("codex");
    }

    #[test]
    fn a_turn_of_claude_code_is_understood() {
        recorded("claude-code");
    }

    #[test]
    fn a_turn_of_opencode_is_understood() {
        recorded("opencode");
    }

    #[test]
    fn a_turn_of_gemini_cli_is_understood() {
        recorded("gemini-cli");
    }
}
