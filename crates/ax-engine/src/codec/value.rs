//! The values that messages are made of, both ways.

use super::DecodeError;
use ax_core::id::{AskId, ExecId, Seq};
use ax_core::session::{
    Actor, Answer, AskKind, BlobRef, BlockId, Body, Budget, Digest, EffectClass, Failure,
    IdempotencyKey, Limits, Part, PartKind, Prefix, Retry, StepKey, StepKind, SubmitPolicy, Usage,
};
use ax_core::time::Timestamp;
use ax_proto::v1;

/// Positions are below this: there is always a next one.
const SEQ_MAX: u64 = i64::MAX as u64;

/// Requires a field that is always written.
pub(super) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Missing { field })
}

/// Defines the conversion of an enumeration.
macro_rules! numbers {
    ($to:ident, $from:ident, $ours:ident, $theirs:ident, [$($name:ident),*]) => {
        pub(super) const fn $to(value: $ours) -> i32 {
            match value {
                $($ours::$name => v1::$theirs::$name as i32,)*
            }
        }

        pub(super) fn $from(field: &'static str, number: i32) -> Result<$ours, DecodeError> {
            match v1::$theirs::try_from(number) {
                $(Ok(v1::$theirs::$name) => Ok($ours::$name),)*
                Ok(v1::$theirs::Unspecified) => Err(DecodeError::Missing { field }),
                Err(_) => Err(DecodeError::Unknown { field, number }),
            }
        }
    };
}

numbers!(actor_number, actor, Actor, Actor, [User, Harness, Runtime, Peer]);
numbers!(
    part_kind_number,
    part_kind,
    PartKind,
    PartKind,
    [Text, Thought, Image, Audio, Document, Video, ToolCall, ToolResult, Data]
);
numbers!(step_kind_number, step_kind, StepKind, StepKind, [Model, Tool, User]);
numbers!(effect_number, effect, EffectClass, EffectClass, [Read, Idempotent, Once, Probed]);
numbers!(ask_kind_number, ask_kind, AskKind, AskKind, [Approval, Choice, Text]);
numbers!(policy_number, policy, SubmitPolicy, SubmitPolicy, [Enqueue, Reject, Interrupt, Branch]);

/// Reads a position, which may be 0.
pub(super) fn seq_or_zero(field: &'static str, number: u64) -> Result<Seq, DecodeError> {
    if number >= SEQ_MAX {
        return Err(DecodeError::Range { field, number });
    }
    Ok(Seq(number))
}

/// Reads a position.
pub(super) fn seq(field: &'static str, number: u64) -> Result<Seq, DecodeError> {
    if number == 0 {
        return Err(DecodeError::Missing { field });
    }
    seq_or_zero(field, number)
}

/// Reads a position; 0 means that there is none.
pub(super) fn seq_option(field: &'static str, number: u64) -> Result<Option<Seq>, DecodeError> {
    if number == 0 { Ok(None) } else { seq(field, number).map(Some) }
}

/// Reads a number that counts from 1.
pub(super) fn counted(field: &'static str, number: u32) -> Result<u32, DecodeError> {
    match number {
        0 => Err(DecodeError::Missing { field }),
        u32::MAX => Err(DecodeError::Range { field, number: number.into() }),
        number => Ok(number),
    }
}

/// Reads an execution.
pub(super) fn exec(field: &'static str, number: u32) -> Result<ExecId, DecodeError> {
    counted(field, number).map(ExecId)
}

/// Reads a question.
pub(super) fn ask(field: &'static str, number: u32) -> Result<AskId, DecodeError> {
    counted(field, number).map(AskId)
}

/// Reads a number that counts from 1; 0 means that there is none.
pub(super) fn counted_option(field: &'static str, number: u32) -> Result<Option<u32>, DecodeError> {
    if number == 0 { Ok(None) } else { counted(field, number).map(Some) }
}

/// Writes a time that may be absent, where 0 means that it is. The epoch itself, which no clock
/// shows any more, is written as the millisecond after it.
pub(super) fn time_option_millis(time: Option<Timestamp>) -> u64 {
    time.map_or(0, |time| time.millis.max(1))
}

/// Reads a time; 0 means that there is none.
pub(super) fn time_option(millis: u64) -> Option<Timestamp> {
    (millis != 0).then(|| Timestamp::from_millis(millis))
}

/// Writes a key; an absent one as an empty text.
pub(super) fn step_key_text(key: Option<&StepKey>) -> String {
    key.map(ToString::to_string).unwrap_or_default()
}

/// Reads a key; an empty text means that there is none.
pub(super) fn step_key_option(text: String) -> Option<StepKey> {
    (!text.is_empty()).then(|| text.into())
}

/// Reads a key.
pub(super) fn step_key(field: &'static str, text: String) -> Result<StepKey, DecodeError> {
    required(field, step_key_option(text))
}

/// Reads a block.
pub(super) fn block(field: &'static str, text: String) -> Result<BlockId, DecodeError> {
    required(field, (!text.is_empty()).then(|| text.into()))
}

/// Writes a client's key; an absent one as an empty text.
pub(super) fn idempotency_text(key: Option<&IdempotencyKey>) -> String {
    key.map(ToString::to_string).unwrap_or_default()
}

/// Reads a client's key; an empty text means that there is none.
pub(super) fn idempotency_option(text: String) -> Option<IdempotencyKey> {
    (!text.is_empty()).then(|| text.into())
}

/// Writes a hash.
pub(super) fn digest_bytes(digest: Digest) -> Vec<u8> {
    digest.0.to_vec()
}

/// Writes a hash; the zero hash as nothing.
pub(super) fn digest_or_nothing(digest: Digest) -> Vec<u8> {
    if digest == Digest::default() { Vec::new() } else { digest_bytes(digest) }
}

fn hash(field: &'static str, bytes: &[u8]) -> Result<[u8; 32], DecodeError> {
    bytes.try_into().map_err(|_| DecodeError::Length { field, bytes: bytes.len() })
}

/// Reads a hash.
pub(super) fn digest(field: &'static str, bytes: &[u8]) -> Result<Digest, DecodeError> {
    hash(field, bytes).map(Digest)
}

/// Reads a hash; nothing means zero.
pub(super) fn digest_or_zero(field: &'static str, bytes: &[u8]) -> Result<Digest, DecodeError> {
    if bytes.is_empty() { Ok(Digest::default()) } else { digest(field, bytes) }
}

pub(super) fn body_message(body: &Body) -> v1::Body {
    let body = match body {
        Body::Text(text) => v1::body::Body::Text(text.clone()),
        Body::Blob(blob) => v1::body::Body::Blob(blob_message(blob)),
    };
    v1::Body { body: Some(body) }
}

pub(super) fn blob_message(blob: &BlobRef) -> v1::BlobRef {
    v1::BlobRef { hash: blob.hash.to_vec(), bytes: blob.bytes }
}

pub(super) fn blob_ref(
    field: &'static str,
    message: Option<v1::BlobRef>,
) -> Result<BlobRef, DecodeError> {
    let blob = required(field, message)?;
    Ok(BlobRef { hash: hash(field, &blob.hash)?, bytes: blob.bytes })
}

pub(super) fn body(field: &'static str, message: Option<v1::Body>) -> Result<Body, DecodeError> {
    match required(field, message.and_then(|message| message.body))? {
        v1::body::Body::Text(text) => Ok(Body::Text(text)),
        v1::body::Body::Blob(blob) => blob_ref(field, Some(blob)).map(Body::Blob),
    }
}

pub(super) fn body_option(
    field: &'static str,
    message: Option<v1::Body>,
) -> Result<Option<Body>, DecodeError> {
    message.map(|message| body(field, Some(message))).transpose()
}

pub(super) fn part_messages(parts: &[Part]) -> Vec<v1::Part> {
    let message = |part: &Part| v1::Part {
        kind: part_kind_number(part.kind),
        media_type: part.media_type.clone(),
        name: part.name.clone(),
        body: Some(body_message(&part.body)),
    };
    parts.iter().map(message).collect()
}

pub(super) fn parts(
    field: &'static str,
    messages: Vec<v1::Part>,
) -> Result<Vec<Part>, DecodeError> {
    let part = |message: v1::Part| {
        let v1::Part { kind, media_type, name, body: content } = message;
        Ok(Part { kind: part_kind(field, kind)?, media_type, name, body: body(field, content)? })
    };
    messages.into_iter().map(part).collect()
}

pub(super) fn prefix_message(prefix: &Prefix) -> v1::Prefix {
    v1::Prefix {
        parent: digest_or_nothing(prefix.parent),
        parts: prefix.parts.iter().copied().map(digest_bytes).collect(),
        chain: digest_bytes(prefix.chain),
    }
}

pub(super) fn prefix(field: &'static str, message: v1::Prefix) -> Result<Prefix, DecodeError> {
    let v1::Prefix { parent, parts, chain } = message;
    let parts: Result<_, _> = parts.iter().map(|part| digest(field, part)).collect();
    Ok(Prefix {
        parent: digest_or_zero(field, &parent)?,
        parts: parts?,
        chain: digest(field, &chain)?,
    })
}

/// Writes a usage; none at all as nothing.
pub(super) fn usage_message(usage: &Usage) -> Option<v1::Usage> {
    if *usage == Usage::default() {
        return None;
    }
    let Usage { input_tokens, cached_tokens, output_tokens, cost_micros, model_calls, tool_calls } =
        *usage;
    Some(v1::Usage {
        input_tokens,
        cached_tokens,
        output_tokens,
        cost_micros,
        model_calls,
        tool_calls,
    })
}

/// Reads a usage; nothing means none at all.
pub(super) fn usage(message: Option<v1::Usage>) -> Usage {
    let message = message.unwrap_or_default();
    let v1::Usage {
        input_tokens,
        cached_tokens,
        output_tokens,
        cost_micros,
        model_calls,
        tool_calls,
    } = message;
    Usage { input_tokens, cached_tokens, output_tokens, cost_micros, model_calls, tool_calls }
}

pub(super) fn failure_message(failure: &Failure) -> v1::Failure {
    v1::Failure { code: failure.code.clone(), message: failure.message.clone() }
}

pub(super) fn failure(
    field: &'static str,
    message: Option<v1::Failure>,
) -> Result<Failure, DecodeError> {
    let v1::Failure { code, message } = required(field, message)?;
    Ok(Failure { code, message })
}

pub(super) fn answer_message(answer: &Answer) -> v1::Answer {
    use v1::answer::{Answer as Message, Approve, Choice, Deny};
    let answer = match answer {
        Answer::Approve => Message::Approve(Approve {}),
        Answer::Deny(reason) => Message::Deny(Deny { reason: reason.clone() }),
        Answer::Choice(choice, text) => {
            Message::Choice(Choice { choice: choice.clone(), text: text.clone() })
        }
        Answer::Text(text) => Message::Text(text.clone()),
    };
    v1::Answer { answer: Some(answer) }
}

pub(super) fn answer(
    field: &'static str,
    message: Option<v1::Answer>,
) -> Result<Answer, DecodeError> {
    use v1::answer::{Answer as Message, Choice, Deny};
    Ok(match required(field, message.and_then(|message| message.answer))? {
        Message::Approve(_) => Answer::Approve,
        Message::Deny(Deny { reason }) => Answer::Deny(reason),
        Message::Choice(Choice { choice, text }) => Answer::Choice(choice, text),
        Message::Text(text) => Answer::Text(text),
    })
}

pub(super) const fn limits_message(limits: &Limits) -> v1::Limits {
    let Limits { submit, queue_max, retry, budget, .. } = *limits;
    v1::Limits {
        submit: policy_number(submit),
        queue_max,
        attempts_max: retry.attempts_max,
        backoff_millis_min: retry.backoff_millis_min,
        backoff_millis_max: retry.backoff_millis_max,
        restarts_max: retry.restarts_max,
        execution_millis_max: limits.execution_millis_max,
        idle_millis_max: limits.idle_millis_max,
        step_millis_max: limits.step_millis_max,
        park_millis: limits.park_millis,
        budget_tokens: budget.tokens,
        budget_cost_micros: budget.cost_micros,
        budget_tool_calls: budget.tool_calls,
    }
}

pub(super) fn limits(
    field: &'static str,
    message: Option<v1::Limits>,
) -> Result<Limits, DecodeError> {
    let message = required(field, message)?;
    Ok(Limits {
        submit: policy(field, message.submit)?,
        queue_max: message.queue_max,
        retry: Retry {
            attempts_max: message.attempts_max,
            backoff_millis_min: message.backoff_millis_min,
            backoff_millis_max: message.backoff_millis_max,
            restarts_max: message.restarts_max,
        },
        execution_millis_max: message.execution_millis_max,
        idle_millis_max: message.idle_millis_max,
        step_millis_max: message.step_millis_max,
        park_millis: message.park_millis,
        budget: Budget {
            tokens: message.budget_tokens,
            cost_micros: message.budget_cost_micros,
            tool_calls: message.budget_tool_calls,
        },
    })
}
