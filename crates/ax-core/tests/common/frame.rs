//! What a harness says, as a line gives it.

use super::{Words, digest};
use ax_core::session::{
    AskKind, BlockId, Body, EffectClass, Failure, Frame, Part, PartKind, Prefix, StepKey, StepKind,
    Usage,
};
use ax_core::time::Timestamp;

pub(super) fn parse(line: &str, now: Timestamp) -> Frame {
    let words = Words::of(line);
    let text = |at| words.get(at).unwrap_or_default().to_owned();
    let key = || StepKey::from(text(1));
    let named_key = words.named("key").map(StepKey::from);
    match words.get(0).unwrap() {
        "heartbeat" => Frame::Heartbeat,
        "delta" => {
            Frame::Delta { block: BlockId::from(text(1)), part: PartKind::Text, text: text(2) }
        }
        "output" => Frame::Output {
            block: words.named("block").map(BlockId::from),
            key: named_key,
            parts: words.get(1).map(Part::text).into_iter().collect(),
        },
        "begin" => begin(&words),
        "done" => Frame::StepEnd {
            step: key(),
            result: Ok(Body::Text(words.get(2).unwrap_or("null").into())),
            usage: usage(&words),
        },
        "failed" => Frame::StepEnd {
            step: key(),
            result: Err(failure(words.get(2).unwrap_or("tool_error"))),
            usage: usage(&words),
        },
        "ask" => Frame::Ask {
            key: key(),
            kind: match words.get(2).unwrap() {
                "approval" => AskKind::Approval,
                "choice" => AskKind::Choice,
                "text" => AskKind::Text,
                other => panic!("unknown kind of question: {other}"),
            },
            prompt: "why?".into(),
            choices: words
                .named("of")
                .into_iter()
                .flat_map(|of| of.split(','))
                .map(Into::into)
                .collect(),
            details: None,
            expires_millis: words.number("expires"),
        },
        "sleep" => Frame::Sleep {
            key: key(),
            due_at: now.plus_millis(words.get(2).unwrap().parse().unwrap()),
        },
        "await" => Frame::AwaitSignal { key: key(), name: text(2) },
        "note" => Frame::Note { key: named_key, name: text(1), data: "{}".into() },
        "mark" => Frame::Checkpoint { key: key(), name: text(2) },
        "diverged" => {
            Frame::Diverged { step: key(), expected: "a tool".into(), found: "a model".into() }
        }
        "end" => Frame::End { result: words.get(1).map(Body::from) },
        "fail" => Frame::Fail { failure: failure(&text(1)), retry: words.get(2) != Some("final") },
        other => panic!("unknown frame: {other}"),
    }
}

fn begin(words: &Words<'_>) -> Frame {
    let kind = match words.get(3) {
        Some("model") => StepKind::Model,
        Some("user") => StepKind::User,
        _ => StepKind::Tool,
    };
    let digest = digest(words.named("digest").unwrap_or_default());
    let is_model = kind == StepKind::Model;
    let prefix = Prefix { parent: super::digest(""), parts: vec![digest], chain: digest };
    Frame::StepBegin {
        step: words.get(1).unwrap_or_default().into(),
        kind,
        name: words.named("name").unwrap_or("t").into(),
        effect: match words.get(2).unwrap() {
            "read" => EffectClass::Read,
            "idempotent" => EffectClass::Idempotent,
            "once" => EffectClass::Once,
            "probed" => EffectClass::Probed,
            other => panic!("unknown class: {other}"),
        },
        digest,
        request: (!is_model).then(|| Body::from("{}")),
        prefix: is_model.then_some(prefix),
        limit_millis: words.number("limit"),
    }
}

fn failure(code: &str) -> Failure {
    Failure { code: code.into(), message: "it broke".into() }
}

fn usage(words: &Words<'_>) -> Usage {
    let number = |name| words.number(name).unwrap_or(0);
    Usage {
        input_tokens: number("tokens"),
        cost_micros: number("cost"),
        tool_calls: number("calls"),
        ..Usage::default()
    }
}
