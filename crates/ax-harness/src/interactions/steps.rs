//! The steps of the provider, put together from its events, as frames of ours. Nothing here waits
//! or asks: what is said twice is dropped, what is unknown is kept as it is.

use super::past::{Heard, fits, said_key};
use super::wire::{Event, Kind};
use crate::sse::Parser;
use ax_core::session::{BlockId, Body, Frame, Part, PartKind};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The most steps of the provider that are under way at once.
const OPEN_MAX: usize = 32;
/// The most that a step of the provider may say, in bytes.
const STEP_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The longest piece of a text that is said at once, in bytes.
const PIECE_BYTES_MAX: usize = 32 * 1024;
/// How much of what the agent said last is kept for a question, in characters.
const WORDS_CHARS_MAX: usize = 4_096;
/// What the media type of a part ends in whose text is the content in base64.
const BASE64: &str = ";base64";

/// A step of the provider under way.
#[derive(Debug, Default)]
struct Open {
    /// What it began with.
    step: Value,
    text: String,
    arguments: String,
    /// Everything else that was added.
    more: Vec<Value>,
    bytes: usize,
    /// How often something was added, and how much of that was said again since.
    added: u64,
    repeated: u64,
}

impl Open {
    /// Begins a step with what comes at once; an error if that is too much.
    fn begin(step: Value) -> Result<Self, String> {
        let bytes = if step.is_null() { 0 } else { step.to_string().len() };
        let open = Self { step, bytes, ..Self::default() };
        too_long(&open).map(|()| open)
    }

    fn kind(&self) -> &str {
        self.step["type"].as_str().unwrap_or_default()
    }

    /// Returns the step as JSON, with everything that was added.
    fn whole(&self) -> Value {
        let mut whole = self.step.clone();
        if !self.arguments.is_empty() && whole.is_object() {
            let parsed = serde_json::from_str(&self.arguments);
            whole["arguments"] = parsed.unwrap_or_else(|_| self.arguments.as_str().into());
        }
        match (&mut whole, self.more.as_slice()) {
            (_, []) => {}
            // Most results come as one addition of the same form.
            (Value::Object(fields), [Value::Object(one)]) => {
                for (name, value) in one.iter().filter(|(name, _)| *name != "type") {
                    fields.insert(name.clone(), value.clone());
                }
            }
            (Value::Object(fields), more) => {
                fields.insert("added".into(), more.into());
            }
            (other, more) => *other = json!({"step": other, "added": more}),
        }
        whole
    }
}

/// An interaction as far as it is known.
#[derive(Debug)]
pub(super) struct Steps {
    turn: u32,
    open: BTreeMap<u64, Open>,
    heard: Heard,
    /// The last event that was read.
    latest: Option<String>,
    /// Whether the next event is the first of a stream that was asked for from behind `latest`.
    resumed: bool,
    /// Whether all events had names that can be kept.
    named: bool,
    /// What the agent said last.
    words: String,
    /// How much has come that was not known.
    progress: u64,
}

impl Steps {
    /// Goes on from what is in the log.
    pub(super) fn new(turn: u32, heard: Heard) -> Self {
        let latest = heard.after.clone();
        let (open, named) = (BTreeMap::new(), heard.steps.is_empty() || latest.is_some());
        let (resumed, words) = (false, heard.words.clone());
        Self { turn, open, heard, latest, resumed, named, words, progress: 0 }
    }

    /// Returns the event to go on from behind; `None` to begin at the beginning.
    pub(super) fn after(&mut self) -> Option<&str> {
        self.resumed = true;
        self.latest.as_deref().filter(|_| self.named)
    }

    /// The provider does not know the event: begins at the beginning.
    pub(super) fn begin_anew(&mut self) {
        self.latest = None;
    }

    /// The calls of functions, in their order.
    pub(super) fn calls(&self) -> impl Iterator<Item = (u64, &Value)> {
        self.heard.steps.iter().filter_map(|(index, call)| Some((*index, call.as_ref()?)))
    }

    /// How much has come that was not known.
    pub(super) const fn progress(&self) -> u64 {
        self.progress
    }

    /// What the agent said last.
    pub(super) fn words(&self) -> &str {
        &self.words
    }

    /// Takes in an event; returns what is to be said.
    pub(super) fn hear(&mut self, event: Event) -> Result<Vec<Frame>, String> {
        let Event { id, kind } = event;
        let resumed = std::mem::take(&mut self.resumed);
        if resumed && self.named && id.is_some() && id == self.latest {
            return Ok(Vec::new());
        }
        match id.filter(|id| fits(id)) {
            Some(id) => self.latest = Some(id),
            None => self.named &= kind == Kind::Done,
        }
        let frames = match kind {
            Kind::Start(index, step) => {
                self.start(index, step)?;
                Vec::new()
            }
            Kind::Delta(index, delta) => self.add(index, delta)?,
            Kind::Stop(index) => self.stop(index)?,
            _ => Vec::new(),
        };
        if self.open.is_empty() && self.named {
            self.heard.after.clone_from(&self.latest);
        }
        Ok(frames)
    }

    fn start(&mut self, index: u64, step: Value) -> Result<(), String> {
        if self.heard.steps.contains_key(&index) {
            return Ok(());
        }
        if let Some(open) = self.open.get_mut(&index) {
            // The provider begins at an earlier event than it was asked to.
            open.repeated = 0;
            return Ok(());
        }
        if self.open.len() >= OPEN_MAX {
            return Err(format!("more than {OPEN_MAX} steps are under way"));
        }
        let open = Open::begin(step)?;
        self.progress += 1;
        self.open.insert(index, open);
        Ok(())
    }

    fn add(&mut self, index: u64, delta: Value) -> Result<Vec<Frame>, String> {
        if self.heard.steps.contains_key(&index) {
            return Ok(Vec::new());
        }
        if !self.open.contains_key(&index) {
            self.start(index, Value::Null)?;
        }
        let block = block(self.turn, index);
        let open = self.open.get_mut(&index).expect("it was begun");
        if open.repeated < open.added {
            open.repeated += 1;
            return Ok(Vec::new());
        }
        self.progress += 1;
        open.added += 1;
        open.repeated = open.added;
        let (part, text) = match delta["type"].as_str().unwrap_or_default() {
            "text" => (PartKind::Text, delta["text"].as_str()),
            "thought_summary" => (PartKind::Thought, delta["content"]["text"].as_str()),
            // The provider keeps it with the interaction.
            "thought_signature" => return Ok(Vec::new()),
            "arguments_delta" => {
                let piece = delta["arguments"].as_str().unwrap_or_default();
                open.arguments.push_str(piece);
                open.bytes += piece.len();
                return too_long(open).map(|()| Vec::new());
            }
            _ => (PartKind::Data, None),
        };
        let Some(text) = text else {
            open.bytes += delta.to_string().len();
            open.more.push(delta);
            return too_long(open).map(|()| Vec::new());
        };
        open.bytes += text.len();
        open.text.push_str(text);
        too_long(open)?;
        if part == PartKind::Text {
            self.words = last(&open.text);
        }
        Ok(pieces(&block, part, text))
    }

    fn stop(&mut self, index: u64) -> Result<Vec<Frame>, String> {
        let Some(open) = self.open.remove(&index) else { return Ok(Vec::new()) };
        if self.open.is_empty() && self.named {
            self.heard.after.clone_from(&self.latest);
        }
        let is_call = open.kind() == "function_call";
        let parts = parts(&open);
        let call = is_call.then(|| open.whole());
        if let Some(call) = &call
            && (call["id"].as_str().is_none() || call["name"].as_str().is_none())
        {
            return Err("a call of a function has no id or no name".into());
        }
        self.heard.steps.insert(index, call);
        if parts.is_empty() && open.text.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(Part { kind: PartKind::Text, body: Body::Text(text), .. }) = parts.last() {
            self.words = last(text);
        }
        let block = (!open.text.is_empty()).then(|| block(self.turn, index));
        let after = self.heard.after.as_deref().filter(|_| self.named);
        let key = Some(said_key(self.turn, index, is_call, after));
        Ok(vec![Frame::Output { block, key, parts }])
    }

    /// Takes in the whole steps of an interaction that is over.
    pub(super) fn fill(&mut self, steps: Vec<Value>) -> Result<Vec<Frame>, String> {
        let mut frames = Vec::new();
        let said = |step: &Value| {
            let kind = step["type"].as_str().unwrap_or_default();
            !matches!(kind, "user_input" | "function_result")
        };
        for (index, step) in (0..).zip(steps.into_iter().filter(said)) {
            if self.heard.steps.contains_key(&index) {
                continue;
            }
            let begun = self.open.remove(&index);
            let whole = Open::begin(step)?;
            let mut open = match begun.filter(|begun| !begun.text.is_empty()) {
                Some(begun) => {
                    let texts: String = texts(&whole.step).collect();
                    if let Some(rest) = texts.strip_prefix(begun.text.as_str()) {
                        let part = match whole.kind() {
                            "thought" => PartKind::Thought,
                            _ => PartKind::Text,
                        };
                        frames.extend(pieces(&block(self.turn, index), part, rest));
                    }
                    begun
                }
                None => whole,
            };
            open.repeated = open.added;
            self.open.insert(index, open);
            frames.extend(self.stop(index)?);
        }
        Ok(frames)
    }

    /// Ends what the provider has left open at the end.
    pub(super) fn close(&mut self) -> Result<Vec<Frame>, String> {
        let mut frames = Vec::new();
        while let Some(index) = self.open.keys().next().copied() {
            frames.extend(self.stop(index)?);
        }
        Ok(frames)
    }
}

fn block(turn: u32, index: u64) -> BlockId {
    format!("{turn}.{index}").into()
}

fn too_long(open: &Open) -> Result<(), String> {
    if open.bytes > STEP_BYTES_MAX {
        return Err(format!("a step is longer than {STEP_BYTES_MAX} bytes"));
    }
    Ok(())
}

/// Returns as much of the end of a text as is kept for a question.
pub(super) fn last(text: &str) -> String {
    let skip = text.chars().count().saturating_sub(WORDS_CHARS_MAX);
    text.chars().skip(skip).collect()
}

/// Cuts a text into pieces that may be said at once.
fn pieces(block: &BlockId, part: PartKind, text: &str) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE_BYTES_MAX));
        let (block, text) = (block.clone(), piece.to_owned());
        frames.push(Frame::Delta { block, part, text });
        rest = after;
    }
    frames
}

/// The texts that a step begins with.
fn texts(step: &Value) -> impl Iterator<Item = &str> {
    contents(step).filter_map(|content| content["text"].as_str())
}

fn contents(step: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["content", "summary"].into_iter().filter_map(|name| step[name].as_array());
    lists.flatten()
}

/// Returns what is to be said of a step that was not streamed.
fn parts(open: &Open) -> Vec<Part> {
    let data = |kind: PartKind, name: &str| Part {
        kind,
        media_type: "application/json".into(),
        name: name.chars().take(64).collect(),
        body: Body::Text(open.whole().to_string()),
    };
    match open.kind() {
        kind if kind.ends_with("_call") => {
            let name = open.step["name"].as_str().unwrap_or(kind);
            vec![data(PartKind::ToolCall, name)]
        }
        kind if kind.ends_with("_result") => vec![data(PartKind::ToolResult, kind)],
        "model_output" | "thought" | "" => {
            let kind = match open.kind() {
                "thought" => PartKind::Thought,
                _ => PartKind::Text,
            };
            let begun = contents(&open.step)
                .filter(|content| open.text.is_empty() || content.get("text").is_none());
            begun.chain(&open.more).filter_map(|content| part(kind, content)).collect()
        }
        kind => vec![data(PartKind::Data, kind)],
    }
}

/// Returns a content as a part; nothing of a text that is empty.
fn part(words: PartKind, content: &Value) -> Option<Part> {
    let text = |name: &str| content[name].as_str();
    let made = |kind, media_type: String, body: &str| Part {
        kind,
        media_type,
        name: String::new(),
        body: Body::Text(body.into()),
    };
    let kind = match (text("type").unwrap_or_default(), text("text")) {
        ("text", Some(said)) => {
            let part = Part { kind: words, ..Part::text(said) };
            return (!said.is_empty()).then_some(part);
        }
        ("image", _) => PartKind::Image,
        ("audio", _) => PartKind::Audio,
        ("video", _) => PartKind::Video,
        ("document", _) => PartKind::Document,
        _ => PartKind::Data,
    };
    let media_type = text("mime_type").unwrap_or("application/octet-stream");
    Some(match (kind, text("data"), text("uri")) {
        (PartKind::Data, ..) | (_, None, None) => {
            made(PartKind::Data, "application/json".into(), &content.to_string())
        }
        (kind, Some(data), _) => made(kind, format!("{media_type}{BASE64}"), data),
        (kind, None, Some(uri)) => made(kind, "text/uri-list".into(), uri),
    })
}

/// Reads a stream; for `ax-fuzz`.
pub(crate) fn decodes(stream: &[u8]) -> Result<usize, String> {
    let (mut parser, mut events) = (Parser::default(), Vec::new());
    if !parser.feed(stream, &mut events) {
        return Err("an event is longer than it may be".into());
    }
    parser.end(&mut events);
    let mut steps = Steps::new(1, Heard::default());
    let mut count = 0;
    for event in events {
        count += steps.hear(Event::read(&event.data)?)?.len();
    }
    Ok(count + steps.close()?.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps() -> Steps {
        Steps::new(1, Heard::default())
    }

    fn event(id: &str, event: Value) -> Event {
        let mut event = event;
        if !id.is_empty() {
            event["event_id"] = id.into();
        }
        Event::read(&event.to_string()).unwrap()
    }

    fn start(index: u64, kind: &str) -> Value {
        json!({"event_type": "step.start", "index": index, "step": {"type": kind}})
    }

    fn text(index: u64, text: &str) -> Value {
        let delta = json!({"type": "text", "text": text});
        json!({"event_type": "step.delta", "index": index, "delta": delta})
    }

    fn stop(index: u64) -> Value {
        json!({"event_type": "step.stop", "index": index})
    }

    /// Hears events with names; returns the text that was streamed, and the keys of what is whole.
    fn hear(steps: &mut Steps, events: &[(&str, Value)]) -> (String, Vec<String>) {
        let (mut said, mut keys) = (String::new(), Vec::new());
        for (id, one) in events {
            for frame in steps.hear(event(id, one.clone())).unwrap() {
                match frame {
                    Frame::Delta { text, .. } => said.push_str(&text),
                    Frame::Output { key: Some(key), .. } => keys.push(key.to_string()),
                    other => panic!("{other:?}"),
                }
            }
        }
        (said, keys)
    }

    #[test]
    fn what_is_under_way_is_read_again_by_the_next_attempt_and_nothing_else() {
        let mut steps = steps();
        let heard = hear(
            &mut steps,
            &[
                ("a", start(0, "model_output")),
                ("b", text(0, "one")),
                ("c", start(1, "model_output")),
                ("d", stop(0)),
                ("e", text(1, "two")),
            ],
        );
        // Behind `a` nothing of the second step would be lacking, and nothing before it is known.
        assert_eq!(heard, ("onetwo".into(), vec!["out:1:0:".into()]));
        assert_eq!(steps.after(), Some("e"), "the same attempt goes on exactly");
        let heard = hear(&mut steps, &[("f", stop(1)), ("g", start(2, "model_output"))]);
        assert_eq!(heard.1, ["out:1:1:f"]);
    }

    #[test]
    fn what_the_provider_says_again_is_dropped() {
        let all = [
            ("", start(0, "model_output")),
            ("", text(0, "one ")),
            ("", text(0, "two")),
            ("", stop(0)),
            ("", start(1, "model_output")),
            ("", text(1, "three")),
        ];
        for cut in 0..=all.len() {
            let mut steps = steps();
            let before = hear(&mut steps, &all[..cut]);
            assert!(cut == 0 || steps.after().is_none(), "events have no names");
            let after = hear(&mut steps, &all);
            assert_eq!(before.0 + &after.0, "one twothree", "cut at {cut}");
            assert_eq!([before.1, after.1].concat(), ["out:1:0:"]);
        }
    }

    #[test]
    fn the_event_that_was_named_may_come_again() {
        let mut steps = steps();
        hear(&mut steps, &[("a", start(0, "model_output")), ("b", text(0, "x"))]);
        assert_eq!(steps.after(), Some("b"));
        let heard = hear(&mut steps, &[("b", text(0, "x")), ("c", text(0, "y"))]);
        assert_eq!(heard.0, "y");
    }

    #[test]
    fn calls_and_what_is_unknown_are_kept_as_they_are() {
        let mut steps = steps();
        let begun = json!({"event_type": "step.start", "index": 0,
            "step": {"type": "function_call", "id": "c1", "name": "count", "arguments": {}}});
        let piece = |text: &str| {
            let delta = json!({"type": "arguments_delta", "arguments": text});
            json!({"event_type": "step.delta", "index": 0, "delta": delta})
        };
        let heard = hear(
            &mut steps,
            &[("a", begun), ("b", piece("{\"shelf\"")), ("c", piece(":1}")), ("d", stop(0))],
        );
        assert_eq!(heard.1, ["call:1:0:d"]);
        let calls: Vec<_> = steps.calls().collect();
        let call = json!({"type": "function_call", "id": "c1", "name": "count",
            "arguments": {"shelf": 1}});
        assert_eq!(calls, [(0, &call)]);
        let added = json!({"event_type": "step.delta", "index": 1, "delta": {"type": "hologram"}});
        hear(&mut steps, &[("e", start(1, "vision")), ("f", added)]);
        let frames = steps.hear(event("g", stop(1))).unwrap();
        let [Frame::Output { parts, .. }] = frames.as_slice() else { panic!("{frames:?}") };
        assert_eq!(parts[0].kind, PartKind::Data);
        assert_eq!(parts[0].media_type, "application/json");
    }

    #[test]
    fn what_is_too_much_or_has_no_name_is_an_error() {
        let mut many = steps();
        for index in 0..OPEN_MAX as u64 {
            many.hear(event("", start(index, "thought"))).unwrap();
        }
        assert!(many.hear(event("", start(99, "thought"))).is_err());
        let mut long = steps();
        let piece = "ä".repeat(STEP_BYTES_MAX / 4);
        let frames = long.hear(event("a", text(0, &piece))).unwrap();
        assert!(frames.len() > 100, "a long text is said in pieces");
        long.hear(event("b", text(0, &piece))).unwrap();
        assert!(long.hear(event("c", text(0, &piece))).is_err());
        let mut whole = start(0, "vision");
        whole["step"]["data"] = "x".repeat(STEP_BYTES_MAX).into();
        assert!(steps().hear(event("a", whole.clone())).is_err());
        assert!(steps().fill(vec![whole["step"].take()]).is_err());
        let mut nameless = steps();
        nameless.hear(event("a", start(0, "function_call"))).unwrap();
        assert!(nameless.hear(event("b", stop(0))).is_err());
    }

    #[test]
    fn a_whole_interaction_fills_what_its_stream_lacked() {
        let mut steps = steps();
        hear(&mut steps, &[("a", start(0, "model_output")), ("b", text(0, "one "))]);
        let output = |said: &str| {
            let content = json!([{"type": "text", "text": said}]);
            json!({"type": "model_output", "content": content})
        };
        let call = json!({"type": "function_call", "id": "c", "name": "n", "arguments": {}});
        let whole = vec![json!({"type": "user_input"}), output("one two"), output("three"), call];
        let frames = steps.fill(whole.clone()).unwrap();
        assert!(matches!(&frames[0], Frame::Delta { text, .. } if text == "two"), "{frames:?}");
        assert_eq!(frames.len(), 4);
        assert_eq!(steps.calls().count(), 1);
        assert!(steps.fill(whole).unwrap().is_empty(), "nothing is said twice");
        assert!(steps.close().unwrap().is_empty());
    }

    #[test]
    fn what_the_agent_said_last_is_known_to_the_next_attempt() {
        let heard = Heard { words: "Shall I?".into(), ..Heard::default() };
        let mut steps = Steps::new(1, heard);
        assert_eq!(steps.words(), "Shall I?");
        hear(&mut steps, &[("a", start(3, "model_output")), ("b", text(3, "Or not?"))]);
        assert_eq!(steps.words(), "Or not?");
    }

    #[test]
    fn streams_are_decoded_whatever_they_are() {
        let stream = "event: step.start\ndata: {\"event_type\": \"step.start\", \"index\": 0, \
            \"step\": null}\n\ndata: {\"event_type\": \"step.delta\", \"index\": 0, \"delta\": 7}\
            \n\ndata: [DONE]\n\n";
        assert_eq!(decodes(stream.as_bytes()), Ok(1));
        assert!(decodes(b"data: {\n\n").is_err());
    }
}
