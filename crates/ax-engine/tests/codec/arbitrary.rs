//! Any event that a writer may write.

use ax_core::id::{AskId, AttemptId, ExecId, Seq, SessionId};
use ax_core::session::{
    Actor, AgentRef, Answer, AskKind, BlobRef, BlockId, Body, Budget, Digest, EffectClass, Event,
    Failure, IdempotencyKey, Kind, Limits, LostReason, Outcome, Part, PartKind, Prefix, Retry,
    Saved, StepKey, StepKind, SubmitPolicy, Usage,
};
use ax_core::time::Timestamp;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn text() -> impl Strategy<Value = String> {
    ".{0,12}"
}

fn step() -> impl Strategy<Value = StepKey> {
    ".{1,8}".prop_map(StepKey::from)
}

fn block() -> impl Strategy<Value = BlockId> {
    ".{1,8}".prop_map(BlockId::from)
}

fn key() -> impl Strategy<Value = Option<IdempotencyKey>> {
    option::of(".{1,8}".prop_map(IdempotencyKey::from))
}

fn seq() -> impl Strategy<Value = Seq> {
    (1..u64::MAX / 4).prop_map(Seq)
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp::from_millis)
}

/// A time that may be absent is never the epoch itself.
fn time_option() -> impl Strategy<Value = Option<Timestamp>> {
    option::of((1..=u64::MAX).prop_map(Timestamp::from_millis))
}

fn ask() -> impl Strategy<Value = AskId> {
    (1..u32::MAX).prop_map(AskId)
}

fn exec() -> impl Strategy<Value = Option<ExecId>> {
    option::of((1..u32::MAX).prop_map(ExecId))
}

fn digest() -> impl Strategy<Value = Digest> {
    prop_oneof![any::<[u8; 32]>().prop_map(Digest), Just(Digest::default())]
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![text().prop_map(Body::Text), blob_ref().prop_map(Body::Blob),]
}

fn blob_ref() -> impl Strategy<Value = BlobRef> {
    (any::<[u8; 32]>(), any::<u64>()).prop_map(|(hash, bytes)| BlobRef { hash, bytes })
}

fn part_kind() -> impl Strategy<Value = PartKind> {
    use PartKind::{Audio, Data, Document, Image, Text, Thought, ToolCall, ToolResult, Video};
    select(vec![Text, Thought, Image, Audio, Document, Video, ToolCall, ToolResult, Data])
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let part = (part_kind(), text(), text(), body());
    vec(part.prop_map(|(kind, media_type, name, body)| Part { kind, media_type, name, body }), 0..4)
}

fn usage() -> impl Strategy<Value = Usage> {
    let numbers = prop_oneof![any::<[u64; 6]>(), Just([0; 6])];
    numbers.prop_map(|[input_tokens, cached_tokens, output_tokens, cost, model, tool]| Usage {
        input_tokens,
        cached_tokens,
        output_tokens,
        cost_micros: cost,
        model_calls: model,
        tool_calls: tool,
    })
}

fn failure() -> impl Strategy<Value = Failure> {
    (text(), text()).prop_map(|(code, message)| Failure { code, message })
}

fn policy() -> impl Strategy<Value = SubmitPolicy> {
    use SubmitPolicy::{Branch, Enqueue, Interrupt, Reject};
    select(vec![Enqueue, Reject, Interrupt, Branch])
}

fn limits() -> impl Strategy<Value = Limits> {
    (policy(), any::<[u32; 3]>(), any::<[u64; 9]>()).prop_map(|(submit, counts, numbers)| Limits {
        submit,
        queue_max: counts[0],
        retry: Retry {
            attempts_max: counts[1],
            backoff_millis_min: numbers[0],
            backoff_millis_max: numbers[1],
            restarts_max: counts[2],
        },
        execution_millis_max: numbers[2],
        idle_millis_max: numbers[3],
        step_millis_max: numbers[4],
        park_millis: numbers[5],
        budget: Budget { tokens: numbers[6], cost_micros: numbers[7], tool_calls: numbers[8] },
    })
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        Just(Answer::Approve),
        text().prop_map(Answer::Deny),
        (text(), text()).prop_map(|(choice, text)| Answer::Choice(choice, text)),
        text().prop_map(Answer::Text),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        option::of(body()).prop_map(|result| Outcome::Completed { result }),
        failure().prop_map(|failure| Outcome::Failed { failure }),
        text().prop_map(|reason| Outcome::Canceled { reason }),
        any::<u64>().prop_map(|limit_millis| Outcome::TimedOut { limit_millis }),
    ]
}

fn lost() -> impl Strategy<Value = LostReason> {
    prop_oneof![
        Just(LostReason::Runtime),
        failure().prop_map(LostReason::Harness),
        any::<u64>().prop_map(|limit_millis| LostReason::Idle { limit_millis }),
        (step(), any::<u64>())
            .prop_map(|(step, limit_millis)| LostReason::Step { step, limit_millis }),
    ]
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (digest(), vec(digest(), 0..4), digest()).prop_map(|(parent, parts, chain)| Prefix {
        parent,
        parts,
        chain,
    })
}

fn session_kind() -> impl Strategy<Value = Kind> {
    let agent = (text(), any::<u32>()).prop_map(|(name, version)| AgentRef { name, version });
    prop_oneof![
        (text(), agent, limits(), text(), any::<u64>()).prop_map(
            |(name, agent, limits, sandbox, seed)| Kind::SessionCreated {
                name,
                agent,
                limits,
                sandbox,
                seed
            }
        ),
        (any::<u128>(), 0..u64::MAX / 4, any::<bool>(), any::<u64>()).prop_map(
            |(parent, at, carry_on, seed)| Kind::SessionBranched {
                parent: SessionId(parent),
                at: Seq(at),
                carry_on,
                seed
            }
        ),
        text().prop_map(|title| Kind::SessionRenamed { title }),
        Just(Kind::SessionDeleted),
        (key(), digest(), parts(), policy()).prop_map(|(key, digest, parts, policy)| {
            Kind::InputReceived { key, digest, parts, policy }
        }),
        seq().prop_map(|input| Kind::InputCanceled { input }),
        (text(), key(), digest(), parts(), any::<bool>()).prop_map(
            |(collection, key, digest, parts, replaces)| Kind::RecordWritten {
                collection,
                key,
                digest,
                parts,
                replaces
            }
        ),
    ]
}

fn execution_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (seq(), exec()).prop_map(|(input, continues)| Kind::ExecutionStarted { input, continues }),
        (outcome(), usage()).prop_map(|(outcome, usage)| Kind::ExecutionEnded { outcome, usage }),
        any::<bool>().prop_map(|resumed| Kind::AttemptStarted { resumed }),
        (lost(), vec(block(), 0..3), time_option()).prop_map(|(reason, superseded, retry_at)| {
            Kind::AttemptLost { reason, superseded, retry_at }
        }),
        Just(Kind::ActorSuspended),
        (text(), any::<u64>(), any::<u64>())
            .prop_map(|(budget, limit, used)| Kind::BudgetExceeded { budget, limit, used }),
    ]
}

fn step_kind() -> impl Strategy<Value = Kind> {
    let kind = select(vec![StepKind::Model, StepKind::Tool, StepKind::User]);
    let effect = select(vec![
        EffectClass::Read,
        EffectClass::Idempotent,
        EffectClass::Once,
        EffectClass::Probed,
    ]);
    let what = (kind, text(), effect, digest());
    let request = (option::of(body()), option::of(prefix()), any::<bool>(), any::<u64>());
    prop_oneof![
        (step(), what, request).prop_map(
            |(step, (kind, name, effect, digest), (request, prefix, again, limit_millis))| {
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
                }
            }
        ),
        (step(), body(), usage()).prop_map(|(step, result, usage)| Kind::StepCompleted {
            step,
            result,
            usage
        }),
        (step(), failure(), usage()).prop_map(|(step, failure, usage)| Kind::StepFailed {
            step,
            failure,
            usage
        }),
        step().prop_map(|step| Kind::StepUnknown { step }),
        (step(), text(), text()).prop_map(|(step, expected, found)| Kind::StepDiverged {
            step,
            expected,
            found
        }),
    ]
}

fn output_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (block(), part_kind(), text()).prop_map(|(block, part, text)| Kind::OutputDelta {
            block,
            part,
            text
        }),
        (block(), option::of(step()), any::<u32>(), parts()).prop_map(
            |(block, key, deltas, parts)| Kind::OutputMessage { block, key, deltas, parts }
        ),
        (text(), option::of(step())).prop_map(|(name, key)| Kind::CheckpointCreated { name, key }),
        (blob_ref(), vec(blob_ref(), 0..3), any::<u64>(), any::<u64>(), option::of(seq()))
            .prop_map(|(snapshot, blobs, files, bytes, rewound_to)| {
                let saved = Saved { snapshot, blobs, files, bytes };
                Kind::WorkspaceSaved { saved, rewound_to }
            }),
        failure().prop_map(|failure| Kind::WorkspaceUnsaved { failure }),
        (text(), option::of(step()), body()).prop_map(|(name, key, data)| Kind::Note {
            name,
            key,
            data
        }),
    ]
}

fn wait_kind() -> impl Strategy<Value = Kind> {
    let kind = select(vec![AskKind::Approval, AskKind::Choice, AskKind::Text]);
    let about = (option::of(step()), option::of(step()), kind);
    let question = (text(), vec(text(), 0..3), option::of(body()), time_option());
    prop_oneof![
        (ask(), about, question).prop_map(
            |(ask, (key, about, kind), (prompt, choices, details, expires_at))| {
                Kind::AskRaised { ask, key, about, kind, prompt, choices, details, expires_at }
            }
        ),
        (ask(), answer(), text()).prop_map(|(ask, answer, via)| Kind::AskAnswered {
            ask,
            answer,
            via
        }),
        ask().prop_map(|ask| Kind::AskExpired { ask }),
        (step(), time()).prop_map(|(key, due_at)| Kind::TimerSet { key, due_at }),
        step().prop_map(|key| Kind::TimerFired { key }),
        step().prop_map(|key| Kind::TimerCanceled { key }),
        (text(), key(), digest(), body()).prop_map(|(name, key, digest, payload)| {
            Kind::SignalReceived { name, key, digest, payload }
        }),
        (step(), text()).prop_map(|(key, name)| Kind::SignalAwaited { key, name }),
        (step(), seq()).prop_map(|(key, signal)| Kind::SignalDelivered { key, signal }),
    ]
}

/// Any event.
pub(crate) fn event() -> impl Strategy<Value = Event> {
    let kind =
        prop_oneof![session_kind(), execution_kind(), step_kind(), output_kind(), wait_kind()];
    let actor = select(vec![Actor::User, Actor::Harness, Actor::Runtime, Actor::Peer]);
    let attempt = option::of((1..u32::MAX).prop_map(AttemptId));
    (time(), actor, [text(), text(), text()], exec(), attempt, kind).prop_map(
        |(at, actor, [principal, request, trace], exec, attempt, kind)| Event {
            at,
            actor,
            principal: principal.into(),
            request: request.into(),
            trace: trace.into(),
            exec,
            attempt,
            kind,
        },
    )
}
