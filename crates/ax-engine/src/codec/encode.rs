//! From an event to its message.

use super::value::{
    actor_number, answer_message, ask_kind_number, blob_message, body_message, digest_bytes,
    effect_number, failure_message, idempotency_text, limits_message, part_kind_number,
    part_messages, policy_number, prefix_message, step_key_text, step_kind_number,
    time_option_millis, usage_message,
};
use ax_core::session::{Event, Kind, LostReason, Outcome, Usage};
use ax_proto::v1::{self, attempt_lost, event::Kind as Message};

/// Converts an event to its message. The position is not a part of it and stays 0.
pub fn to_proto(event: &Event) -> v1::Event {
    v1::Event {
        seq: 0,
        at_millis: event.at.millis,
        actor: actor_number(event.actor),
        principal: event.principal.to_string(),
        request: event.request.to_string(),
        trace: event.trace.to_string(),
        execution: event.exec.map_or(0, |exec| exec.0),
        attempt: event.attempt.map_or(0, |attempt| attempt.0),
        key_id: 0,
        kind: Some(kind_message(&event.kind)),
    }
}

fn kind_message(kind: &Kind) -> Message {
    match kind {
        Kind::SessionCreated { .. }
        | Kind::SessionBranched { .. }
        | Kind::SessionRenamed { .. }
        | Kind::SessionDeleted
        | Kind::InputReceived { .. }
        | Kind::InputCanceled { .. }
        | Kind::RecordWritten { .. }
        | Kind::WorkspaceSaved { .. }
        | Kind::WorkspaceUnsaved { .. } => session(kind),
        Kind::ExecutionStarted { .. }
        | Kind::ExecutionEnded { .. }
        | Kind::AttemptStarted { .. }
        | Kind::AttemptLost { .. }
        | Kind::ActorSuspended
        | Kind::BudgetExceeded { .. } => execution(kind),
        Kind::StepStarted { .. }
        | Kind::StepCompleted { .. }
        | Kind::StepFailed { .. }
        | Kind::StepUnknown { .. }
        | Kind::StepDiverged { .. } => step(kind),
        Kind::OutputDelta { .. }
        | Kind::OutputMessage { .. }
        | Kind::CheckpointCreated { .. }
        | Kind::Note { .. } => output(kind),
        Kind::AskRaised { .. }
        | Kind::AskAnswered { .. }
        | Kind::AskExpired { .. }
        | Kind::TimerSet { .. }
        | Kind::TimerFired { .. }
        | Kind::TimerCanceled { .. }
        | Kind::SignalReceived { .. }
        | Kind::SignalAwaited { .. }
        | Kind::SignalDelivered { .. } => wait(kind),
    }
}

fn session(kind: &Kind) -> Message {
    match kind {
        Kind::SessionCreated { name, agent, limits, sandbox, seed } => {
            Message::SessionCreated(v1::SessionCreated {
                name: name.clone(),
                agent: agent.name.clone(),
                agent_version: agent.version,
                limits: Some(limits_message(limits)),
                sandbox: sandbox.clone(),
                seed: *seed,
            })
        }
        Kind::SessionBranched { parent, at, carry_on, seed } => {
            Message::SessionBranched(v1::SessionBranched {
                parent: parent.to_string(),
                at: at.0,
                carry_on: *carry_on,
                seed: *seed,
            })
        }
        Kind::SessionRenamed { title } => {
            Message::SessionRenamed(v1::SessionRenamed { title: title.clone() })
        }
        Kind::SessionDeleted => Message::SessionDeleted(v1::SessionDeleted {}),
        Kind::InputReceived { key, digest, parts, policy } => {
            Message::InputReceived(v1::InputReceived {
                key: idempotency_text(key.as_ref()),
                digest: digest_bytes(*digest),
                parts: part_messages(parts),
                policy: policy_number(*policy),
            })
        }
        Kind::InputCanceled { input } => {
            Message::InputCanceled(v1::InputCanceled { input: input.0 })
        }
        Kind::RecordWritten { collection, key, digest, parts, replaces } => {
            Message::RecordWritten(v1::RecordWritten {
                collection: collection.clone(),
                key: idempotency_text(key.as_ref()),
                digest: digest_bytes(*digest),
                parts: part_messages(parts),
                replaces: *replaces,
            })
        }
        Kind::WorkspaceSaved { saved, rewound_to } => Message::WorkspaceSaved(v1::WorkspaceSaved {
            snapshot: Some(blob_message(&saved.snapshot)),
            blobs: saved.blobs.iter().map(blob_message).collect(),
            files: saved.files,
            bytes: saved.bytes,
            rewound_to: rewound_to.map_or(0, |seq| seq.0),
        }),
        Kind::WorkspaceUnsaved { failure } => {
            let failure = Some(failure_message(failure));
            Message::WorkspaceUnsaved(v1::WorkspaceUnsaved { failure })
        }
        other => elsewhere(other),
    }
}

fn execution(kind: &Kind) -> Message {
    match kind {
        Kind::ExecutionStarted { input, continues } => {
            Message::ExecutionStarted(v1::ExecutionStarted {
                input: input.0,
                continues: continues.map_or(0, |exec| exec.0),
            })
        }
        Kind::ExecutionEnded { outcome, usage } => ended(outcome, usage),
        Kind::AttemptStarted { resumed } => {
            Message::AttemptStarted(v1::AttemptStarted { resumed: *resumed })
        }
        Kind::AttemptLost { reason, superseded, retry_at } => {
            Message::AttemptLost(v1::AttemptLost {
                superseded: superseded.iter().map(ToString::to_string).collect(),
                retry_at_millis: time_option_millis(*retry_at),
                reason: Some(lost(reason)),
            })
        }
        Kind::ActorSuspended => Message::ActorSuspended(v1::ActorSuspended {}),
        Kind::BudgetExceeded { budget, limit, used } => {
            Message::BudgetExceeded(v1::BudgetExceeded {
                budget: budget.clone(),
                limit: *limit,
                used: *used,
            })
        }
        other => elsewhere(other),
    }
}

fn ended(outcome: &Outcome, usage: &Usage) -> Message {
    let usage = usage_message(usage);
    match outcome {
        Outcome::Completed { result } => {
            let result = result.as_ref().map(body_message);
            Message::ExecutionCompleted(v1::ExecutionCompleted { result, usage })
        }
        Outcome::Failed { failure } => {
            let failure = Some(failure_message(failure));
            Message::ExecutionFailed(v1::ExecutionFailed { failure, usage })
        }
        Outcome::Canceled { reason } => {
            Message::ExecutionCanceled(v1::ExecutionCanceled { reason: reason.clone(), usage })
        }
        Outcome::TimedOut { limit_millis } => {
            Message::ExecutionTimedOut(v1::ExecutionTimedOut { limit_millis: *limit_millis, usage })
        }
    }
}

fn lost(reason: &LostReason) -> attempt_lost::Reason {
    use attempt_lost::{IdleLimit, Reason, RuntimeLost, StepLimit};
    match reason {
        LostReason::Runtime => Reason::Runtime(RuntimeLost {}),
        LostReason::Harness(failure) => Reason::Harness(failure_message(failure)),
        LostReason::Idle { limit_millis } => {
            Reason::Idle(IdleLimit { limit_millis: *limit_millis })
        }
        LostReason::Step { step, limit_millis } => {
            Reason::Step(StepLimit { step: step.to_string(), limit_millis: *limit_millis })
        }
    }
}

fn step(kind: &Kind) -> Message {
    match kind {
        Kind::StepStarted {
            step,
            kind,
            name,
            effect,
            digest,
            request,
            prefix,
            again,
            limit_millis,
        } => Message::StepStarted(v1::StepStarted {
            step: step.to_string(),
            kind: step_kind_number(*kind),
            name: name.clone(),
            effect: effect_number(*effect),
            digest: digest_bytes(*digest),
            request: request.as_ref().map(body_message),
            prefix: prefix.as_ref().map(prefix_message),
            again: *again,
            limit_millis: *limit_millis,
        }),
        Kind::StepCompleted { step, result, usage } => Message::StepCompleted(v1::StepCompleted {
            step: step.to_string(),
            result: Some(body_message(result)),
            usage: usage_message(usage),
        }),
        Kind::StepFailed { step, failure, usage } => Message::StepFailed(v1::StepFailed {
            step: step.to_string(),
            failure: Some(failure_message(failure)),
            usage: usage_message(usage),
        }),
        Kind::StepUnknown { step } => {
            Message::StepUnknown(v1::StepUnknown { step: step.to_string() })
        }
        Kind::StepDiverged { step, expected, found } => Message::StepDiverged(v1::StepDiverged {
            step: step.to_string(),
            expected: expected.clone(),
            found: found.clone(),
        }),
        other => elsewhere(other),
    }
}

fn output(kind: &Kind) -> Message {
    match kind {
        Kind::OutputDelta { block, part, text } => Message::OutputDelta(v1::OutputDelta {
            block: block.to_string(),
            part: part_kind_number(*part),
            text: text.clone(),
        }),
        Kind::OutputMessage { block, key, deltas, parts } => {
            Message::OutputMessage(v1::OutputMessage {
                block: block.to_string(),
                key: step_key_text(key.as_ref()),
                deltas: *deltas,
                parts: part_messages(parts),
            })
        }
        Kind::CheckpointCreated { name, key } => {
            let key = step_key_text(key.as_ref());
            Message::CheckpointCreated(v1::CheckpointCreated { name: name.clone(), key })
        }
        Kind::Note { name, key, data } => Message::Note(v1::Note {
            name: name.clone(),
            key: step_key_text(key.as_ref()),
            data: Some(body_message(data)),
        }),
        other => elsewhere(other),
    }
}

fn wait(kind: &Kind) -> Message {
    match kind {
        Kind::AskRaised { ask, key, about, kind, prompt, choices, details, expires_at } => {
            Message::AskRaised(v1::AskRaised {
                ask: ask.0,
                key: step_key_text(key.as_ref()),
                about: step_key_text(about.as_ref()),
                kind: ask_kind_number(*kind),
                prompt: prompt.clone(),
                choices: choices.clone(),
                details: details.as_ref().map(body_message),
                expires_at_millis: time_option_millis(*expires_at),
            })
        }
        Kind::AskAnswered { ask, answer, via } => Message::AskAnswered(v1::AskAnswered {
            ask: ask.0,
            answer: Some(answer_message(answer)),
            via: via.clone(),
        }),
        Kind::AskExpired { ask } => Message::AskExpired(v1::AskExpired { ask: ask.0 }),
        Kind::TimerSet { key, due_at } => {
            let (key, due_at_millis) = (key.to_string(), due_at.millis);
            Message::TimerSet(v1::TimerSet { key, due_at_millis })
        }
        Kind::TimerFired { key } => Message::TimerFired(v1::TimerFired { key: key.to_string() }),
        Kind::TimerCanceled { key } => {
            Message::TimerCanceled(v1::TimerCanceled { key: key.to_string() })
        }
        Kind::SignalReceived { name, key, digest, payload } => {
            let is_zero = *digest == ax_core::session::Digest::default();
            Message::SignalReceived(v1::SignalReceived {
                digest: if is_zero { Vec::new() } else { digest.0.to_vec() },
                name: name.clone(),
                key: idempotency_text(key.as_ref()),
                payload: Some(body_message(payload)),
            })
        }
        Kind::SignalAwaited { key, name } => {
            let (key, name) = (key.to_string(), name.clone());
            Message::SignalAwaited(v1::SignalAwaited { key, name })
        }
        Kind::SignalDelivered { key, signal } => {
            let (key, signal) = (key.to_string(), signal.0);
            Message::SignalDelivered(v1::SignalDelivered { key, signal })
        }
        other => elsewhere(other),
    }
}

fn elsewhere(kind: &Kind) -> ! {
    unreachable!("{} is encoded elsewhere", kind.name())
}
