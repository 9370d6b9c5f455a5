//! An event in one line, for people.

use super::table::short;
use crate::time::{rfc3339, span};
use ax_proto::v1;
use ax_proto::v1::event::Kind;

/// How much of a text is shown, in characters.
const TEXT_CHARS_MAX: usize = 100;

/// What an event says, beside its type.
pub(crate) fn describe(event: &v1::Event) -> String {
    let Some(kind) = &event.kind else { return String::new() };
    let text = match kind {
        Kind::SessionCreated(_)
        | Kind::SessionBranched(_)
        | Kind::SessionRenamed(_)
        | Kind::SessionDeleted(_)
        | Kind::InputReceived(_)
        | Kind::InputCanceled(_)
        | Kind::ExecutionStarted(_)
        | Kind::ExecutionCompleted(_)
        | Kind::ExecutionFailed(_)
        | Kind::ExecutionCanceled(_)
        | Kind::ExecutionTimedOut(_)
        | Kind::AttemptStarted(_)
        | Kind::AttemptLost(_)
        | Kind::ActorSuspended(_)
        | Kind::BudgetExceeded(_) => of_session(event, kind),
        _ => of_harness(kind),
    };
    short(&text, TEXT_CHARS_MAX)
}

fn of_session(event: &v1::Event, kind: &Kind) -> String {
    let exec = format!("exec_{}", event.execution);
    match kind {
        Kind::SessionCreated(created) => {
            let of = format!("agent {}@{}", created.agent, created.agent_version);
            format!("{of}, sandbox {}", created.sandbox)
        }
        Kind::SessionBranched(branched) => format!("{} at {}", branched.parent, branched.at),
        Kind::SessionRenamed(renamed) => renamed.title.clone(),
        Kind::InputReceived(input) => parts(&input.parts),
        Kind::InputCanceled(canceled) => format!("input {}", canceled.input),
        Kind::ExecutionStarted(started) => format!("{exec}, input {}", started.input),
        Kind::ExecutionCompleted(completed) => {
            format!("{exec} {}", completed.result.as_ref().map(body).unwrap_or_default())
        }
        Kind::ExecutionFailed(failed) => format!("{exec} {}", failure(failed.failure.as_ref())),
        Kind::ExecutionCanceled(canceled) => format!("{exec} {}", canceled.reason),
        Kind::ExecutionTimedOut(timed_out) => {
            format!("{exec} after {}", span(timed_out.limit_millis))
        }
        Kind::AttemptStarted(started) => {
            let again = if started.resumed { ", resumed" } else { "" };
            format!("{exec} attempt_{}{again}", event.attempt)
        }
        Kind::AttemptLost(lost) => format!("attempt_{}: {}", event.attempt, why_lost(lost)),
        Kind::BudgetExceeded(budget) => {
            format!("{}: {} of {}", budget.budget, budget.used, budget.limit)
        }
        _ => String::new(),
    }
}

fn of_harness(kind: &Kind) -> String {
    match kind {
        Kind::OutputDelta(delta) => format!("{:?}", delta.text),
        Kind::OutputMessage(message) => match message.deltas {
            0 => parts(&message.parts),
            count => format!("{} of {count} deltas", message.block),
        },
        Kind::StepStarted(step) => {
            let again = if step.again { ", again" } else { "" };
            let (kind, effect) = (step_kind(step), effect(step));
            format!("{} {kind} {} ({effect}{again})", step.step, step.name)
        }
        Kind::StepCompleted(step) => {
            format!("{} {}", step.step, step.result.as_ref().map(body).unwrap_or_default())
        }
        Kind::StepFailed(step) => format!("{} {}", step.step, failure(step.failure.as_ref())),
        Kind::StepUnknown(step) => format!("{}: nobody knows whether it was done", step.step),
        Kind::StepDiverged(step) => {
            format!("{}: expected {}, found {}", step.step, step.expected, step.found)
        }
        Kind::AskRaised(ask) => format!("ask_{}: {}", ask.ask, ask.prompt),
        Kind::AskAnswered(answered) => {
            format!("ask_{}: {}", answered.ask, answer(answered.answer.as_ref()))
        }
        Kind::AskExpired(ask) => format!("ask_{}", ask.ask),
        Kind::TimerSet(timer) => format!("{} until {}", timer.key, rfc3339(timer.due_at_millis)),
        Kind::TimerFired(timer) => timer.key.clone(),
        Kind::TimerCanceled(timer) => timer.key.clone(),
        Kind::SignalReceived(signal) => {
            let payload = signal.payload.as_ref().map(body).unwrap_or_default();
            format!("{} {payload}", signal.name)
        }
        Kind::SignalAwaited(signal) => signal.name.clone(),
        Kind::SignalDelivered(signal) => format!("{} of {}", signal.key, signal.signal),
        Kind::CheckpointCreated(checkpoint) => checkpoint.name.clone(),
        Kind::WorkspaceSaved(saved) => files(saved),
        Kind::WorkspaceUnsaved(unsaved) => failure(unsaved.failure.as_ref()),
        Kind::RecordWritten(record) => format!("{} {}", record.collection, parts(&record.parts)),
        Kind::Note(note) => {
            format!("{} {}", note.name, note.data.as_ref().map(body).unwrap_or_default())
        }
        _ => String::new(),
    }
}

/// A snapshot in words: how much there is, and what was new.
fn files(saved: &v1::WorkspaceSaved) -> String {
    let new = bytes(saved.blobs.iter().map(|blob| blob.bytes).sum());
    let what = match saved.files {
        1 => format!("1 file, {}, {new} new", bytes(saved.bytes)),
        count => format!("{count} files, {}, {new} new", bytes(saved.bytes)),
    };
    match saved.rewound_to {
        0 => what,
        at => format!("{what}, as at {at}"),
    }
}

/// A body in words: its text, or the blob it is in.
pub(crate) fn body(body: &v1::Body) -> String {
    match &body.body {
        Some(v1::body::Body::Text(text)) => text.clone(),
        Some(v1::body::Body::Blob(blob)) => format!("[{} in {}]", bytes(blob.bytes), blob_id(blob)),
        None => String::new(),
    }
}

/// The id of a blob.
pub(crate) fn blob_id(blob: &v1::BlobRef) -> String {
    let digits = blob.hash.iter().map(|byte| format!("{byte:02x}"));
    format!("blob_{}", digits.collect::<String>())
}

/// Parts in words.
pub(crate) fn parts(parts: &[v1::Part]) -> String {
    let words = |part: &v1::Part| {
        let text = part.body.as_ref().map(body).unwrap_or_default();
        match part.kind() {
            v1::PartKind::Text => text,
            _ => format!("[{} {}] {text}", part.media_type, part.name),
        }
    };
    parts.iter().map(words).collect::<Vec<_>>().join(" ")
}

/// An answer in words.
pub(crate) fn answer(answer: Option<&v1::Answer>) -> String {
    use v1::answer::Answer;
    match answer.and_then(|answer| answer.answer.as_ref()) {
        Some(Answer::Approve(_)) => "approved".into(),
        Some(Answer::Deny(deny)) if deny.reason.is_empty() => "denied".into(),
        Some(Answer::Deny(deny)) => format!("denied: {}", deny.reason),
        Some(Answer::Choice(choice)) => format!("{} {}", choice.choice, choice.text),
        Some(Answer::Text(text)) => text.clone(),
        None => String::new(),
    }
}

/// A failure in words.
pub(crate) fn failure(failure: Option<&v1::Failure>) -> String {
    match failure {
        Some(failure) if failure.message.is_empty() => failure.code.clone(),
        Some(failure) => format!("{} ({})", failure.message, failure.code),
        None => String::new(),
    }
}

/// Why an attempt was lost, and when the next one begins.
pub(crate) fn why_lost(lost: &v1::AttemptLost) -> String {
    use v1::attempt_lost::Reason;
    match &lost.reason {
        Some(Reason::Runtime(_)) => "the runtime stopped or died".into(),
        Some(Reason::Harness(harness)) => failure(Some(harness)),
        Some(Reason::Idle(idle)) => format!("nothing was heard for {}", span(idle.limit_millis)),
        Some(Reason::Step(step)) => {
            format!("step {} took longer than {}", step.step, span(step.limit_millis))
        }
        None => String::new(),
    }
}

/// The kind of a step, in a word.
pub(crate) fn step_kind(step: &v1::StepStarted) -> &'static str {
    match step.kind() {
        v1::StepKind::Model => "model",
        v1::StepKind::Tool => "tool",
        v1::StepKind::User => "code",
        v1::StepKind::Unspecified => "step",
    }
}

fn effect(step: &v1::StepStarted) -> &'static str {
    match step.effect() {
        v1::EffectClass::Read => "read",
        v1::EffectClass::Idempotent => "idempotent",
        v1::EffectClass::Once => "once",
        v1::EffectClass::Probed => "probed",
        v1::EffectClass::Unspecified => "unknown",
    }
}

/// A number of bytes, in words.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{} KiB", count >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", count >> 20),
        _ => format!("{}.{} GiB", count >> 30, ((count & 0x3fff_ffff) * 10) >> 30),
    }
}
