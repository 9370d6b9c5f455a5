//! What the runtime says, as lines: `docs/formats/harness-stdio.md`, *Runtime to harness*.

use super::line::Line;
use super::{FRAME_BYTES_MAX, PROTOCOL};
use crate::launch::{AskResult, Content, JournalEntry, JournalKind, Launch, Role, Told};
use ax_core::session::{Answer, EffectClass, PartKind, StepKind};

/// Returns what an attempt begins with, line by line.
pub(super) fn opening(launch: Launch, config: &str) -> impl Iterator<Item = Vec<u8>> + use<> {
    let start = start(&launch, config);
    let input = Line::new("input")
        .number("seq", launch.input_seq.0)
        .json("parts", &parts(&launch.input))
        .end();
    let history = launch.history.into_iter().map(|turn| {
        let role = match turn.role {
            Role::User => "user",
            Role::Agent => "agent",
        };
        Line::new("history").text("role", role).json("parts", &parts(&turn.parts)).end()
    });
    let ready = Line::new("ready").number("journal", launch.journal.len() as u64).end();
    let journal =
        launch.journal.into_iter().map(|recorded| entry(Line::new("journal"), &recorded).end());
    std::iter::once(start).chain(history).chain([input]).chain(journal).chain([ready])
}

fn start(launch: &Launch, config: &str) -> Vec<u8> {
    let agent = Line::object()
        .text("name", &launch.agent.name)
        .number("version", u64::from(launch.agent.version))
        .close();
    Line::new("start")
        .number("protocol", PROTOCOL)
        .text("namespace", launch.key.namespace.as_str())
        .text("session", &launch.key.session.to_string())
        .json("agent", &agent)
        .text("execution", &launch.exec.to_string())
        .number("attempt", u64::from(launch.attempt.0))
        .text("workspace", &launch.workspace.to_string_lossy())
        .value("config", config)
        .number("frame_bytes_max", FRAME_BYTES_MAX as u64)
        .end()
}

fn parts(parts: &[Content]) -> String {
    let parts: Vec<String> = parts.iter().map(part).collect();
    format!("[{}]", parts.join(","))
}

fn part(part: &Content) -> String {
    let line = Line::object()
        .text("kind", part_kind(part.kind))
        .text("media_type", &part.media_type)
        .text("name", &part.name);
    match &part.file {
        None => line.text("text", &part.text).close(),
        Some((path, id, bytes)) => {
            let blob = Line::object()
                .text("id", id)
                .number("bytes", *bytes)
                .text("path", &path.to_string_lossy())
                .close();
            line.json("blob", &blob).close()
        }
    }
}

/// Adds the fields of a journal entry.
fn entry(line: Line, entry: &JournalEntry) -> Line {
    let kind = match &entry.kind {
        JournalKind::Step { .. } => "step",
        JournalKind::Output(_) => "output",
        JournalKind::Ask(_) => "ask",
        JournalKind::Sleep { .. } => "sleep",
        JournalKind::Signal { .. } => "signal",
        JournalKind::Note { .. } => "emit",
        JournalKind::Checkpoint => "checkpoint",
    };
    let line = line.text("entry", kind).text("key", entry.key.as_str()).number("seq", entry.seq.0);
    match &entry.kind {
        JournalKind::Step { kind, name, effect, digest, result, .. } => {
            let line = line
                .text("kind", step_kind(*kind))
                .text("name", name)
                .text("effect", effect_class(*effect))
                .text("digest", &digest.to_string());
            match result {
                Ok(value) => line.value("result", value),
                Err(failure) => {
                    let failure = Line::object()
                        .text("code", &failure.code)
                        .text("message", &failure.message)
                        .close();
                    line.json("failure", &failure)
                }
            }
        }
        JournalKind::Output(text) => line.text("text", text),
        JournalKind::Ask(None) | JournalKind::Checkpoint => line,
        JournalKind::Ask(Some(AskResult::Expired)) => line.truth("expired", true),
        JournalKind::Ask(Some(AskResult::Answered(given))) => line.json("answer", &answer(given)),
        JournalKind::Sleep { due_at, fired } => {
            line.number("due_ms", due_at.millis).truth("fired", *fired)
        }
        JournalKind::Signal { name, payload } => {
            let line = line.text("name", name);
            match payload {
                Some(payload) => line.value("payload", payload),
                None => line,
            }
        }
        JournalKind::Note { name } => line.text("name", name),
    }
}

/// Returns the line for something that the harness is told.
pub(super) fn told(told: &Told) -> Vec<u8> {
    let line = match told {
        Told::Granted { step } => Line::new("granted").text("key", step.as_str()),
        Told::Recorded { key, seq, before } => {
            let line = Line::new("recorded").text("key", key.as_str()).number("seq", seq.0);
            match before {
                Some(before) => line.json("before", &entry(Line::object(), before).close()),
                None => line.json("before", "null"),
            }
        }
        Told::Answered { key, result: AskResult::Answered(given) } => {
            Line::new("answered").text("key", key.as_str()).json("answer", &answer(given))
        }
        Told::Answered { key, result: AskResult::Expired } => {
            Line::new("expired").text("key", key.as_str())
        }
        Told::Fired { key } => Line::new("fired").text("key", key.as_str()),
        Told::Signaled { key, name, payload } => Line::new("signaled")
            .text("key", key.as_str())
            .text("name", name)
            .value("payload", payload),
        Told::Park { grace_millis } => Line::new("park").number("grace_ms", *grace_millis),
        Told::Cancel { grace_millis, reason } => {
            Line::new("cancel").number("grace_ms", *grace_millis).text("reason", reason)
        }
        Told::Refused { key, code, message } => {
            return refused(key.as_ref().map(|key| key.as_str()), code, message, "");
        }
    };
    line.end()
}

/// Returns the line for a frame that was refused.
pub(super) fn refused(key: Option<&str>, code: &str, message: &str, hint: &str) -> Vec<u8> {
    Line::new("error")
        .text("code", code)
        .text("message", message)
        .text("hint", hint)
        .text_or_null("key", key)
        .end()
}

fn answer(answer: &Answer) -> String {
    let (kind, choice, text) = match answer {
        Answer::Approve => ("approve", "", ""),
        Answer::Deny(why) => ("deny", "", why.as_str()),
        Answer::Choice(choice, text) => ("choice", choice.as_str(), text.as_str()),
        Answer::Text(text) => ("text", "", text.as_str()),
    };
    Line::object().text("kind", kind).text("choice", choice).text("text", text).close()
}

const fn part_kind(kind: PartKind) -> &'static str {
    match kind {
        PartKind::Text => "text",
        PartKind::Thought => "thought",
        PartKind::Image => "image",
        PartKind::Audio => "audio",
        PartKind::Document => "document",
        PartKind::Video => "video",
        PartKind::ToolCall => "tool_call",
        PartKind::ToolResult => "tool_result",
        PartKind::Data => "data",
    }
}

const fn step_kind(kind: StepKind) -> &'static str {
    match kind {
        StepKind::Model => "model",
        StepKind::Tool => "tool",
        StepKind::User => "user",
    }
}

const fn effect_class(effect: EffectClass) -> &'static str {
    match effect {
        EffectClass::Read => "read",
        EffectClass::Idempotent => "idempotent",
        EffectClass::Once => "once",
        EffectClass::Probed => "probed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ax_core::id::Seq;
    use ax_core::session::{Digest, Failure};
    use ax_core::time::Timestamp;

    fn check(line: &[u8], expect: &str) {
        let text = std::str::from_utf8(line).unwrap();
        assert_eq!(text, format!("{expect}\n"));
        assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
    }

    #[test]
    fn what_was_recorded_before_comes_as_a_journal_entry() {
        let kind = JournalKind::Step {
            kind: StepKind::Tool,
            name: "shell".into(),
            effect: EffectClass::Once,
            digest: Digest([0xab; 32]),
            asked: None,
            result: Err(Failure { code: "c".into(), message: "m\n".into() }),
        };
        let before = JournalEntry { key: "k".into(), seq: Seq(7), kind };
        let digest = "ab".repeat(32);
        check(
            &told(&Told::Recorded { key: "k".into(), seq: Seq(7), before: Some(before) }),
            &[
                r#"{"type":"recorded","key":"k","seq":7,"before":"#,
                r#"{"entry":"step","key":"k","seq":7,"kind":"tool","name":"shell","#,
                r#""effect":"once","digest":""#,
                &digest,
                r#"","failure":{"code":"c","message":"m\n"}}}"#,
            ]
            .concat(),
        );
    }

    #[test]
    fn answers_and_expiries_are_two_frames() {
        let result = AskResult::Answered(Answer::Deny("no".into()));
        check(
            &told(&Told::Answered { key: "a".into(), result }),
            r#"{"type":"answered","key":"a","answer":{"kind":"deny","choice":"","text":"no"}}"#,
        );
        check(
            &told(&Told::Answered { key: "a".into(), result: AskResult::Expired }),
            r#"{"type":"expired","key":"a"}"#,
        );
    }

    #[test]
    fn open_waits_have_no_outcome() {
        let at = |kind| {
            entry(Line::object(), &JournalEntry { key: "k".into(), seq: Seq(1), kind }).end()
        };
        check(&at(JournalKind::Ask(None)), r#"{"entry":"ask","key":"k","seq":1}"#);
        check(
            &at(JournalKind::Sleep { due_at: Timestamp::from_millis(5), fired: false }),
            r#"{"entry":"sleep","key":"k","seq":1,"due_ms":5,"fired":false}"#,
        );
        check(
            &at(JournalKind::Signal { name: "s".into(), payload: None }),
            r#"{"entry":"signal","key":"k","seq":1,"name":"s"}"#,
        );
    }
}
