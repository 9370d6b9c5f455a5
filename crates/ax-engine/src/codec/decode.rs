//! From a message to its event.

use super::DecodeError;
use super::value::{
    actor, answer, ask, ask_kind, blob_ref, block, body, body_option, counted_option, digest,
    digest_or_zero, effect, failure, idempotency_option, limits, part_kind, parts, policy, prefix,
    required, seq, seq_option, seq_or_zero, step_key, step_key_option, step_kind, time_option,
    usage,
};
use ax_core::id::{AttemptId, ExecId};
use ax_core::session::{AgentRef, Event, Kind, LostReason, Outcome, Saved};
use ax_core::time::Timestamp;
use ax_proto::v1::{self, attempt_lost, event::Kind as Message};

/// Converts a message to its event. The position is not a part of it and not looked at.
///
/// # Errors
///
/// Says which field is not what [`super::to_proto`] makes.
pub fn from_proto(message: v1::Event) -> Result<Event, DecodeError> {
    if message.key_id != 0 {
        let number = message.key_id.into();
        return Err(DecodeError::Range { field: "event.key_id", number });
    }
    Ok(Event {
        at: Timestamp::from_millis(message.at_millis),
        actor: actor("event.actor", message.actor)?,
        principal: message.principal.into(),
        request: message.request.into(),
        trace: message.trace.into(),
        exec: counted_option("event.execution", message.execution)?.map(ExecId),
        attempt: counted_option("event.attempt", message.attempt)?.map(AttemptId),
        kind: kind(required("event.kind", message.kind)?)?,
    })
}

fn kind(message: Message) -> Result<Kind, DecodeError> {
    match message {
        Message::SessionCreated(_)
        | Message::SessionBranched(_)
        | Message::SessionRenamed(_)
        | Message::SessionDeleted(_)
        | Message::InputReceived(_)
        | Message::InputCanceled(_)
        | Message::RecordWritten(_)
        | Message::WorkspaceSaved(_)
        | Message::WorkspaceUnsaved(_) => session(message),
        Message::ExecutionStarted(_)
        | Message::ExecutionCompleted(_)
        | Message::ExecutionFailed(_)
        | Message::ExecutionCanceled(_)
        | Message::ExecutionTimedOut(_)
        | Message::AttemptStarted(_)
        | Message::AttemptLost(_)
        | Message::ActorSuspended(_)
        | Message::BudgetExceeded(_) => execution(message),
        Message::StepStarted(_)
        | Message::StepCompleted(_)
        | Message::StepFailed(_)
        | Message::StepUnknown(_)
        | Message::StepDiverged(_) => step(message),
        Message::OutputDelta(_)
        | Message::OutputMessage(_)
        | Message::CheckpointCreated(_)
        | Message::Note(_) => output(message),
        Message::AskRaised(_) | Message::AskAnswered(_) | Message::AskExpired(_) => {
            question(message)
        }
        Message::TimerSet(_)
        | Message::TimerFired(_)
        | Message::TimerCanceled(_)
        | Message::SignalReceived(_)
        | Message::SignalAwaited(_)
        | Message::SignalDelivered(_) => wait(message),
    }
}

fn session(message: Message) -> Result<Kind, DecodeError> {
    Ok(match message {
        Message::SessionCreated(created) => Kind::SessionCreated {
            name: created.name,
            agent: AgentRef { name: created.agent, version: created.agent_version },
            limits: limits("session_created.limits", created.limits)?,
            sandbox: created.sandbox,
            seed: created.seed,
        },
        Message::SessionBranched(branched) => Kind::SessionBranched {
            parent: branched.parent.parse().map_err(|cause: ax_core::id::ParseError| {
                DecodeError::Id { field: "session_branched.parent", cause: cause.to_string() }
            })?,
            at: seq_or_zero("session_branched.at", branched.at)?,
            carry_on: branched.carry_on,
            seed: branched.seed,
        },
        Message::SessionRenamed(renamed) => Kind::SessionRenamed { title: renamed.title },
        Message::SessionDeleted(_) => Kind::SessionDeleted,
        Message::InputReceived(received) => Kind::InputReceived {
            key: idempotency_option(received.key),
            digest: digest("input_received.digest", &received.digest)?,
            parts: parts("input_received.parts", received.parts)?,
            policy: policy("input_received.policy", received.policy)?,
        },
        Message::InputCanceled(canceled) => {
            Kind::InputCanceled { input: seq("input_canceled.input", canceled.input)? }
        }
        Message::RecordWritten(written) => Kind::RecordWritten {
            collection: written.collection,
            key: idempotency_option(written.key),
            digest: digest("record_written.digest", &written.digest)?,
            parts: parts("record_written.parts", written.parts)?,
            replaces: written.replaces,
        },
        Message::WorkspaceSaved(kept) => {
            const FIELD: &str = "workspace_saved.blobs";
            let blobs = kept.blobs.into_iter().map(|blob| blob_ref(FIELD, Some(blob)));
            let saved = Saved {
                snapshot: blob_ref("workspace_saved.snapshot", kept.snapshot)?,
                blobs: blobs.collect::<Result<_, DecodeError>>()?,
                files: kept.files,
                bytes: kept.bytes,
            };
            let rewound_to = seq_option("workspace_saved.rewound_to", kept.rewound_to)?;
            Kind::WorkspaceSaved { saved, rewound_to }
        }
        Message::WorkspaceUnsaved(unsaved) => Kind::WorkspaceUnsaved {
            failure: failure("workspace_unsaved.failure", unsaved.failure)?,
        },
        other => elsewhere(&other),
    })
}

fn execution(message: Message) -> Result<Kind, DecodeError> {
    let (outcome, consumed) = match message {
        Message::ExecutionStarted(started) => {
            let continues = counted_option("execution_started.continues", started.continues)?;
            return Ok(Kind::ExecutionStarted {
                input: seq("execution_started.input", started.input)?,
                continues: continues.map(ExecId),
            });
        }
        Message::AttemptStarted(started) => {
            return Ok(Kind::AttemptStarted { resumed: started.resumed });
        }
        Message::AttemptLost(message) => return lost(message),
        Message::ActorSuspended(_) => return Ok(Kind::ActorSuspended),
        Message::BudgetExceeded(exceeded) => {
            let v1::BudgetExceeded { budget, limit, used } = exceeded;
            return Ok(Kind::BudgetExceeded { budget, limit, used });
        }
        Message::ExecutionCompleted(ended) => {
            let result = body_option("execution_completed.result", ended.result)?;
            (Outcome::Completed { result }, ended.usage)
        }
        Message::ExecutionFailed(ended) => {
            let failure = failure("execution_failed.failure", ended.failure)?;
            (Outcome::Failed { failure }, ended.usage)
        }
        Message::ExecutionCanceled(ended) => {
            (Outcome::Canceled { reason: ended.reason }, ended.usage)
        }
        Message::ExecutionTimedOut(ended) => {
            (Outcome::TimedOut { limit_millis: ended.limit_millis }, ended.usage)
        }
        other => elsewhere(&other),
    };
    Ok(Kind::ExecutionEnded { outcome, usage: usage(consumed) })
}

fn lost(message: v1::AttemptLost) -> Result<Kind, DecodeError> {
    use attempt_lost::Reason;
    let reason = match required("attempt_lost.reason", message.reason)? {
        Reason::Runtime(_) => LostReason::Runtime,
        Reason::Harness(cause) => {
            LostReason::Harness(failure("attempt_lost.harness", Some(cause))?)
        }
        Reason::Idle(idle) => LostReason::Idle { limit_millis: idle.limit_millis },
        Reason::Step(over) => LostReason::Step {
            step: step_key("attempt_lost.step", over.step)?,
            limit_millis: over.limit_millis,
        },
    };
    let superseded = message.superseded.into_iter();
    let superseded: Result<_, _> =
        superseded.map(|text| block("attempt_lost.superseded", text)).collect();
    let retry_at = time_option(message.retry_at_millis);
    Ok(Kind::AttemptLost { reason, superseded: superseded?, retry_at })
}

fn step(message: Message) -> Result<Kind, DecodeError> {
    Ok(match message {
        Message::StepStarted(started) => {
            let chain = started.prefix.map(|message| prefix("step_started.prefix", message));
            Kind::StepStarted {
                step: step_key("step_started.step", started.step)?,
                kind: step_kind("step_started.kind", started.kind)?,
                name: started.name,
                effect: effect("step_started.effect", started.effect)?,
                digest: digest("step_started.digest", &started.digest)?,
                request: body_option("step_started.request", started.request)?,
                prefix: chain.transpose()?,
                again: started.again,
                limit_millis: started.limit_millis,
            }
        }
        Message::StepCompleted(completed) => Kind::StepCompleted {
            step: step_key("step_completed.step", completed.step)?,
            result: body("step_completed.result", completed.result)?,
            usage: usage(completed.usage),
        },
        Message::StepFailed(failed) => Kind::StepFailed {
            step: step_key("step_failed.step", failed.step)?,
            failure: failure("step_failed.failure", failed.failure)?,
            usage: usage(failed.usage),
        },
        Message::StepUnknown(unknown) => {
            Kind::StepUnknown { step: step_key("step_unknown.step", unknown.step)? }
        }
        Message::StepDiverged(diverged) => Kind::StepDiverged {
            step: step_key("step_diverged.step", diverged.step)?,
            expected: diverged.expected,
            found: diverged.found,
        },
        other => elsewhere(&other),
    })
}

fn output(message: Message) -> Result<Kind, DecodeError> {
    Ok(match message {
        Message::OutputDelta(delta) => Kind::OutputDelta {
            block: block("output_delta.block", delta.block)?,
            part: part_kind("output_delta.part", delta.part)?,
            text: delta.text,
        },
        Message::OutputMessage(output) => Kind::OutputMessage {
            block: block("output_message.block", output.block)?,
            key: step_key_option(output.key),
            deltas: output.deltas,
            parts: parts("output_message.parts", output.parts)?,
        },
        Message::CheckpointCreated(created) => {
            Kind::CheckpointCreated { name: created.name, key: step_key_option(created.key) }
        }
        Message::Note(note) => Kind::Note {
            name: note.name,
            key: step_key_option(note.key),
            data: body("note.data", note.data)?,
        },
        other => elsewhere(&other),
    })
}

fn question(message: Message) -> Result<Kind, DecodeError> {
    Ok(match message {
        Message::AskRaised(raised) => Kind::AskRaised {
            ask: ask("ask_raised.ask", raised.ask)?,
            key: step_key_option(raised.key),
            about: step_key_option(raised.about),
            kind: ask_kind("ask_raised.kind", raised.kind)?,
            prompt: raised.prompt,
            choices: raised.choices,
            details: body_option("ask_raised.details", raised.details)?,
            expires_at: time_option(raised.expires_at_millis),
        },
        Message::AskAnswered(answered) => Kind::AskAnswered {
            ask: ask("ask_answered.ask", answered.ask)?,
            answer: answer("ask_answered.answer", answered.answer)?,
            via: answered.via,
        },
        Message::AskExpired(expired) => {
            Kind::AskExpired { ask: ask("ask_expired.ask", expired.ask)? }
        }
        other => elsewhere(&other),
    })
}

fn wait(message: Message) -> Result<Kind, DecodeError> {
    Ok(match message {
        Message::TimerSet(timer) => Kind::TimerSet {
            key: step_key("timer_set.key", timer.key)?,
            due_at: Timestamp::from_millis(timer.due_at_millis),
        },
        Message::TimerFired(timer) => {
            Kind::TimerFired { key: step_key("timer_fired.key", timer.key)? }
        }
        Message::TimerCanceled(timer) => {
            Kind::TimerCanceled { key: step_key("timer_canceled.key", timer.key)? }
        }
        Message::SignalReceived(received) => Kind::SignalReceived {
            name: received.name,
            key: idempotency_option(received.key),
            digest: digest_or_zero("signal_received.digest", &received.digest)?,
            payload: body("signal_received.payload", received.payload)?,
        },
        Message::SignalAwaited(awaited) => Kind::SignalAwaited {
            key: step_key("signal_awaited.key", awaited.key)?,
            name: awaited.name,
        },
        Message::SignalDelivered(delivered) => Kind::SignalDelivered {
            key: step_key("signal_delivered.key", delivered.key)?,
            signal: seq("signal_delivered.signal", delivered.signal)?,
        },
        other => elsewhere(&other),
    })
}

fn elsewhere(message: &Message) -> ! {
    unreachable!("{message:?} is decoded elsewhere")
}
