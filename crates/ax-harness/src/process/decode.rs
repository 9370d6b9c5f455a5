//! What a harness says, from lines: `docs/formats/harness-stdio.md`, *Harness to runtime*.

use super::PROTOCOL;
use crate::config::closest;
use ax_core::session::{
    AskKind, Body, Digest, EffectClass, Failure, Frame, Part, PartKind, StepKind, Usage,
};
use ax_core::time::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// How a line breaks the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Broken {
    /// The error code, `AX####`.
    pub(super) code: &'static str,
    /// What is wrong.
    pub(super) message: String,
    /// What to do about it.
    pub(super) hint: String,
}

impl Broken {
    pub(super) fn new(code: &'static str, message: impl Into<String>, hint: &str) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }
}

/// Every type of frame that a harness may say.
const TYPES: [&str; 14] = [
    "hello",
    "heartbeat",
    "delta",
    "output",
    "step_begin",
    "step_end",
    "ask",
    "sleep",
    "signal",
    "emit",
    "checkpoint",
    "diverged",
    "end",
    "fail",
];

/// Reads a line; `None` is hello, in our version of the protocol.
pub(super) fn line(bytes: &[u8]) -> Result<Option<Frame>, Broken> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| malformed(format!("the line is not UTF-8: {error}"), bytes))?;
    let head: Head<'_> = serde_json::from_str(text)
        .map_err(|error| malformed(format!("the line is not a frame: {error}"), bytes))?;
    let frame = match &*head.kind {
        "hello" => return hello(&read(text, "hello")?).map(|()| None),
        "heartbeat" => Frame::Heartbeat,
        "delta" => read::<Delta>(text, "delta")?.into(),
        "output" => read::<Output>(text, "output")?.frame()?,
        "step_begin" => read::<StepBegin<'_>>(text, "step_begin")?.frame()?,
        "step_end" => read::<StepEnd<'_>>(text, "step_end")?.frame()?,
        "ask" => read::<Ask<'_>>(text, "ask")?.into(),
        "sleep" => read::<Sleep>(text, "sleep")?.into(),
        "signal" => read::<Signal>(text, "signal")?.into(),
        "emit" => read::<Emit<'_>>(text, "emit")?.into(),
        "checkpoint" => read::<Checkpoint>(text, "checkpoint")?.into(),
        "diverged" => read::<Diverged>(text, "diverged")?.into(),
        "end" => Frame::End { result: body(read::<End<'_>>(text, "end")?.result) },
        "fail" => read::<Fail>(text, "fail")?.into(),
        unknown => return Err(unknown_type(unknown)),
    };
    Ok(Some(frame))
}

fn malformed(message: String, line: &[u8]) -> Broken {
    let shown: String = String::from_utf8_lossy(line).chars().take(120).collect();
    let hint = "standard output is for frames only; print everything else to standard error";
    Broken::new("AX1201", format!("{message}; it begins {shown:?}"), hint)
}

fn unknown_type(kind: &str) -> Broken {
    let shown: String = kind.chars().take(80).collect();
    let hint = closest(&shown, TYPES).map(|known| format!("did you mean `{known}`?"));
    let hint = hint.unwrap_or_else(|| format!("the types are {}", TYPES.join(", ")));
    Broken::new("AX1204", format!("unknown type of frame: {shown:?}"), &hint)
}

fn read<'a, T: Deserialize<'a>>(text: &'a str, kind: &str) -> Result<T, Broken> {
    serde_json::from_str(text).map_err(|error| {
        Broken::new("AX1201", format!("malformed `{kind}` frame: {error}"), "see harness-stdio.md")
    })
}

fn hello(hello: &Hello) -> Result<(), Broken> {
    if hello.protocol == PROTOCOL {
        return Ok(());
    }
    let message = format!("the harness speaks protocol {}, not {PROTOCOL}", hello.protocol);
    Err(Broken::new("AX1203", message, "use a version of the SDK that fits this runtime"))
}

fn body(value: Option<&RawValue>) -> Option<Body> {
    value.map(|value| Body::Text(value.get().to_owned()))
}

/// Reads a value that may be null, but is there.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(from).map(Some)
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Hello {
    protocol: u64,
}

#[derive(Deserialize)]
struct Delta {
    block: String,
    text: String,
    #[serde(default)]
    kind: Kind,
}

impl From<Delta> for Frame {
    fn from(delta: Delta) -> Self {
        Self::Delta { block: delta.block.into(), part: delta.kind.into(), text: delta.text }
    }
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    #[default]
    Text,
    Thought,
    Image,
    Audio,
    Document,
    Video,
    ToolCall,
    ToolResult,
    Data,
}

impl From<Kind> for PartKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text,
            Kind::Thought => Self::Thought,
            Kind::Image => Self::Image,
            Kind::Audio => Self::Audio,
            Kind::Document => Self::Document,
            Kind::Video => Self::Video,
            Kind::ToolCall => Self::ToolCall,
            Kind::ToolResult => Self::ToolResult,
            Kind::Data => Self::Data,
        }
    }
}

#[derive(Deserialize)]
struct Output {
    key: Option<String>,
    block: Option<String>,
    text: Option<String>,
    #[serde(default)]
    parts: Vec<OutputPart>,
}

#[derive(Deserialize)]
struct OutputPart {
    #[serde(default)]
    kind: Kind,
    media_type: Option<String>,
    #[serde(default)]
    name: String,
    text: String,
}

impl Output {
    fn frame(self) -> Result<Frame, Broken> {
        if self.text.is_some() && !self.parts.is_empty() {
            let message = "malformed `output` frame: it has both `text` and `parts`";
            return Err(Broken::new("AX1201", message, "put the text into a part"));
        }
        let parts = self.parts.into_iter().map(|part| Part {
            kind: part.kind.into(),
            media_type: part.media_type.unwrap_or_else(|| media_type(part.kind).to_owned()),
            name: part.name,
            body: Body::Text(part.text),
        });
        let block = self.block.map(Into::into);
        let key = self.key.map(Into::into);
        Ok(Frame::Output {
            block,
            key,
            parts: self.text.map(Part::text).into_iter().chain(parts).collect(),
        })
    }
}

const fn media_type(kind: Kind) -> &'static str {
    match kind {
        Kind::ToolCall | Kind::Data => "application/json",
        _ => "text/plain",
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    Model,
    Tool,
    User,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Effect {
    Read,
    Idempotent,
    Once,
}

#[derive(Deserialize)]
struct StepBegin<'a> {
    key: String,
    kind: Step,
    name: String,
    effect: Effect,
    digest: Option<String>,
    #[serde(borrow)]
    request: Option<&'a RawValue>,
    limit_ms: Option<u64>,
}

impl StepBegin<'_> {
    fn frame(self) -> Result<Frame, Broken> {
        let digest = match self.digest {
            None => Digest::default(),
            Some(text) => digest(&text).ok_or_else(|| {
                let message = "malformed `step_begin` frame: `digest` is not 64 hexadecimal digits";
                Broken::new("AX1201", message, "send the BLAKE3 or SHA-256 hash of the request")
            })?,
        };
        Ok(Frame::StepBegin {
            step: self.key.into(),
            kind: match self.kind {
                Step::Model => StepKind::Model,
                Step::Tool => StepKind::Tool,
                Step::User => StepKind::User,
            },
            name: self.name,
            effect: match self.effect {
                Effect::Read => EffectClass::Read,
                Effect::Idempotent => EffectClass::Idempotent,
                Effect::Once => EffectClass::Once,
            },
            digest,
            request: body(self.request),
            prefix: None,
            limit_millis: self.limit_ms,
        })
    }
}

fn digest(text: &str) -> Option<Digest> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let digit =
            |at: usize| char::from(pair[at]).to_digit(16).and_then(|d| u8::try_from(d).ok());
        *byte = digit(0)? << 4 | digit(1)?;
    }
    Some(Digest(hash))
}

#[derive(Deserialize)]
struct Why {
    code: String,
    message: String,
}

impl From<Why> for Failure {
    fn from(why: Why) -> Self {
        Self { code: why.code, message: why.message }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Used {
    input_tokens: u64,
    cached_tokens: u64,
    output_tokens: u64,
    cost_micros: u64,
    model_calls: u64,
    tool_calls: u64,
}

impl From<Used> for Usage {
    fn from(used: Used) -> Self {
        Self {
            input_tokens: used.input_tokens,
            cached_tokens: used.cached_tokens,
            output_tokens: used.output_tokens,
            cost_micros: used.cost_micros,
            model_calls: used.model_calls,
            tool_calls: used.tool_calls,
        }
    }
}

#[derive(Deserialize)]
struct StepEnd<'a> {
    key: String,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    failure: Option<Why>,
    usage: Option<Used>,
}

impl StepEnd<'_> {
    fn frame(self) -> Result<Frame, Broken> {
        let result = match (body(self.result), self.failure) {
            (Some(result), None) => Ok(result),
            (None, Some(why)) => Err(why.into()),
            _ => {
                let message = "malformed `step_end` frame: it wants either `result` or `failure`";
                return Err(Broken::new("AX1201", message, "a step that returns nothing has null"));
            }
        };
        let usage = self.usage.map(Into::into).unwrap_or_default();
        Ok(Frame::StepEnd { step: self.key.into(), result, usage })
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wanted {
    Approval,
    Choice,
    Text,
}

#[derive(Deserialize)]
struct Ask<'a> {
    key: String,
    kind: Wanted,
    prompt: String,
    #[serde(default)]
    choices: Vec<String>,
    #[serde(borrow)]
    details: Option<&'a RawValue>,
    expires_ms: Option<u64>,
}

impl From<Ask<'_>> for Frame {
    fn from(ask: Ask<'_>) -> Self {
        Self::Ask {
            key: ask.key.into(),
            kind: match ask.kind {
                Wanted::Approval => AskKind::Approval,
                Wanted::Choice => AskKind::Choice,
                Wanted::Text => AskKind::Text,
            },
            prompt: ask.prompt,
            choices: ask.choices,
            details: body(ask.details),
            expires_millis: ask.expires_ms,
        }
    }
}

#[derive(Deserialize)]
struct Sleep {
    key: String,
    due_ms: u64,
}

impl From<Sleep> for Frame {
    fn from(sleep: Sleep) -> Self {
        Self::Sleep { key: sleep.key.into(), due_at: Timestamp::from_millis(sleep.due_ms) }
    }
}

#[derive(Deserialize)]
struct Signal {
    key: String,
    name: String,
}

impl From<Signal> for Frame {
    fn from(signal: Signal) -> Self {
        Self::AwaitSignal { key: signal.key.into(), name: signal.name }
    }
}

#[derive(Deserialize)]
struct Emit<'a> {
    key: Option<String>,
    name: String,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl From<Emit<'_>> for Frame {
    fn from(emit: Emit<'_>) -> Self {
        let data = Body::Text(emit.data.get().to_owned());
        Self::Note { key: emit.key.map(Into::into), name: emit.name, data }
    }
}

#[derive(Deserialize)]
struct Checkpoint {
    key: String,
    #[serde(default)]
    name: String,
}

impl From<Checkpoint> for Frame {
    fn from(checkpoint: Checkpoint) -> Self {
        Self::Checkpoint { key: checkpoint.key.into(), name: checkpoint.name }
    }
}

#[derive(Deserialize)]
struct Diverged {
    key: String,
    expected: String,
    found: String,
}

impl From<Diverged> for Frame {
    fn from(diverged: Diverged) -> Self {
        Self::Diverged {
            step: diverged.key.into(),
            expected: diverged.expected,
            found: diverged.found,
        }
    }
}

#[derive(Deserialize)]
struct End<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Fail {
    failure: Why,
    #[serde(default = "yes")]
    retry: bool,
}

const fn yes() -> bool {
    true
}

impl From<Fail> for Frame {
    fn from(fail: Fail) -> Self {
        Self::Fail { failure: fail.failure.into(), retry: fail.retry }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &Frame) {
        assert_eq!(line(text.as_bytes()), Ok(Some(expect.clone())), "{text}");
    }

    fn refuse(text: impl AsRef<[u8]>, code: &str, words: &str) {
        let broken = line(text.as_ref()).unwrap_err();
        assert_eq!(broken.code, code, "{broken}");
        let said = format!("{} / {}", broken.message, broken.hint);
        assert!(said.contains(words), "{said}");
    }

    #[test]
    fn frames_become_what_the_session_understands() {
        check(r#"{"type":"heartbeat","more":1}"#, &Frame::Heartbeat);
        check(
            r#"{"type":"step_end","key":"k","result": {"a": 1.0}}"#,
            &Frame::StepEnd {
                step: "k".into(),
                result: Ok(r#"{"a": 1.0}"#.into()),
                usage: Usage::default(),
            },
        );
        check(
            r#"{"type":"step_end","key":"k","result":null,"usage":{"model_calls":2}}"#,
            &Frame::StepEnd {
                step: "k".into(),
                result: Ok("null".into()),
                usage: Usage { model_calls: 2, ..Usage::default() },
            },
        );
        check(
            r#"{"type":"output","key":"k","text":"t"}"#,
            &Frame::Output { block: None, key: Some("k".into()), parts: vec![Part::text("t")] },
        );
        check(
            r#"{"type":"fail","failure":{"code":"c","message":"m"}}"#,
            &Frame::Fail {
                failure: Failure { code: "c".into(), message: "m".into() },
                retry: true,
            },
        );
    }

    #[test]
    fn a_digest_is_64_hexadecimal_digits() {
        assert_eq!(digest(&"0F".repeat(32)), Some(Digest([15; 32])));
        assert_eq!(digest(&"0".repeat(63)), None);
        assert_eq!(digest(&"ä".repeat(32)), None);
        assert_eq!(digest(&"+f".repeat(32)), None);
    }

    #[test]
    fn whatever_breaks_the_protocol_is_named() {
        refuse("Loading model...", "AX1201", "print everything else to standard error");
        refuse([0xff, 0xfe], "AX1201", "not UTF-8");
        refuse("[1]", "AX1201", "not a frame");
        refuse("{}", "AX1201", "missing field `type`");
        refuse(r#"{"type":"step_ends"}"#, "AX1204", "did you mean `step_end`?");
        refuse(r#"{"type":"step_end","key":"k"}"#, "AX1201", "either `result` or `failure`");
        refuse(r#"{"type":"sleep","key":"k","due_ms":-1}"#, "AX1201", "`sleep`");
        refuse(r#"{"type":"emit","name":"n"}"#, "AX1201", "missing field `data`");
        refuse(r#"{"type":"hello","protocol":2}"#, "AX1203", "speaks protocol 2");
    }

    #[test]
    fn deep_nesting_is_refused_not_followed() {
        let deep = format!(r#"{{"type":"heartbeat","x":{}"#, "[".repeat(1_000_000));
        assert!(line(deep.as_bytes()).is_err());
    }
}
