//! What is kept of a session, for ever.

use super::value::{
    Actor, Answer, AskKind, BlockId, Body, Digest, EffectClass, Failure, IdempotencyKey, Limits,
    Part, PartKind, Prefix, Saved, StepKey, StepKind, SubmitPolicy, Usage,
};
use crate::id::{AskId, AttemptId, ExecId, Seq, SessionId};
use crate::time::Timestamp;
use std::sync::Arc;

/// One entry of a session's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it was decided, by the clock of the writer.
    pub at: Timestamp,
    /// Who did it.
    pub actor: Actor,
    /// On whose behalf; empty for the runtime itself.
    pub principal: Arc<str>,
    /// The client's request that led to it; empty if there is none.
    pub request: Arc<str>,
    /// The W3C `traceparent` of that request; empty if there is none.
    pub trace: Arc<str>,
    /// The execution it belongs to.
    pub exec: Option<ExecId>,
    /// The attempt it belongs to.
    pub attempt: Option<AttemptId>,
    /// What happened.
    pub kind: Kind,
}

/// How an execution ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The harness said that it is done.
    Completed {
        /// What it returned, as JSON.
        result: Option<Body>,
    },
    /// It cannot be done, or was tried often enough.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// Somebody asked for it to stop.
    Canceled {
        /// Why; may be empty.
        reason: String,
    },
    /// It took too long.
    TimedOut {
        /// The limit, in milliseconds.
        limit_millis: u64,
    },
}

/// Why an attempt is over although its execution is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LostReason {
    /// The runtime died or was stopped while the attempt ran.
    Runtime,
    /// The harness ended, or said that it failed.
    Harness(Failure),
    /// The harness was silent for too long.
    Idle {
        /// The limit, in milliseconds.
        limit_millis: u64,
    },
    /// A step took too long.
    Step {
        /// The step.
        step: StepKey,
        /// The limit, in milliseconds.
        limit_millis: u64,
    },
}

/// What happened. Closed and append-only: a variant is never changed, only added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The session begins.
    SessionCreated {
        /// The name that a client gave it; its id is derived from it. Empty if it has none.
        name: String,
        /// The agent and the version of its manifest.
        agent: AgentRef,
        /// What holds for its executions.
        limits: Limits,
        /// Where harness and tools run, such as `process`.
        sandbox: String,
        /// Makes the session's jitter its own.
        seed: u64,
    },
    /// The session begins as a branch: everything before is its parent's.
    SessionBranched {
        /// The session it branched from.
        parent: SessionId,
        /// The last position the two share.
        at: Seq,
        /// Whether the execution that was under way at that position is carried on.
        carry_on: bool,
        /// A new seed.
        seed: u64,
    },
    /// The session has a new title.
    SessionRenamed {
        /// The title.
        title: String,
    },
    /// The session takes nothing more.
    SessionDeleted,
    /// An input was accepted and waits for its execution.
    InputReceived {
        /// The client's key for it.
        key: Option<IdempotencyKey>,
        /// The hash of its content, so that the same key with other content is noticed.
        digest: Digest,
        /// The content.
        parts: Vec<Part>,
        /// What became of it if an execution was under way.
        policy: SubmitPolicy,
    },
    /// An input was taken back before its execution began.
    InputCanceled {
        /// The input.
        input: Seq,
    },
    /// An execution begins.
    ExecutionStarted {
        /// The input it is for.
        input: Seq,
        /// In a branch: the execution of the parent that it carries on.
        continues: Option<ExecId>,
    },
    /// The execution is over.
    ExecutionEnded {
        /// How.
        outcome: Outcome,
        /// What it consumed.
        usage: Usage,
    },
    /// A try of the execution begins.
    AttemptStarted {
        /// It goes on from a suspension, nothing was lost.
        resumed: bool,
    },
    /// The try is over, the execution is not.
    AttemptLost {
        /// Why.
        reason: LostReason,
        /// Blocks of output that this attempt left unfinished: what followers got of them is void,
        /// as is every message without a key that the attempt gave.
        superseded: Vec<BlockId>,
        /// When the next attempt is due; `None` if there is none, or if a person is asked first.
        retry_at: Option<Timestamp>,
    },
    /// A piece of a block of output.
    OutputDelta {
        /// The block.
        block: BlockId,
        /// What it is a piece of.
        part: PartKind,
        /// The piece.
        text: String,
    },
    /// A block of output is complete. Its streamed text is in its deltas and not repeated here.
    OutputMessage {
        /// The block.
        block: BlockId,
        /// The harness' key for it.
        key: Option<StepKey>,
        /// How many deltas of this attempt the block consists of.
        deltas: u32,
        /// What was not streamed.
        parts: Vec<Part>,
    },
    /// A step is about to be carried out.
    StepStarted {
        /// The step.
        step: StepKey,
        /// What it does.
        kind: StepKind,
        /// The model, tool or function.
        name: String,
        /// What it means to carry it out again.
        effect: EffectClass,
        /// The hash of its request.
        digest: Digest,
        /// The request, as JSON, unless it is a model call.
        request: Option<Body>,
        /// The request of a model call.
        prefix: Option<Prefix>,
        /// It was started before, in an attempt that was lost.
        again: bool,
        /// How long it may take, in milliseconds; 0 means without a bound.
        limit_millis: u64,
    },
    /// A step was carried out; it never is again.
    StepCompleted {
        /// The step.
        step: StepKey,
        /// What it returned, as JSON.
        result: Body,
        /// What it consumed.
        usage: Usage,
    },
    /// A step was carried out and failed; it is not tried again by itself.
    StepFailed {
        /// The step.
        step: StepKey,
        /// Why.
        failure: Failure,
        /// What it consumed.
        usage: Usage,
    },
    /// A step that must not happen twice was under way when its attempt was lost.
    StepUnknown {
        /// The step.
        step: StepKey,
    },
    /// A harness that was run again did something else than before.
    StepDiverged {
        /// The key at which it did.
        step: StepKey,
        /// What was recorded.
        expected: String,
        /// What it did.
        found: String,
    },
    /// A person is asked.
    AskRaised {
        /// The question.
        ask: AskId,
        /// The harness' key for it.
        key: Option<StepKey>,
        /// The step of unknown outcome that it is about.
        about: Option<StepKey>,
        /// What kind of answer is wanted.
        kind: AskKind,
        /// The question in words.
        prompt: String,
        /// What can be chosen.
        choices: Vec<String>,
        /// More to decide by, as JSON.
        details: Option<Body>,
        /// When it expires.
        expires_at: Option<Timestamp>,
    },
    /// The question was answered.
    AskAnswered {
        /// The question.
        ask: AskId,
        /// The answer.
        answer: Answer,
        /// Through what, such as `cli`.
        via: String,
    },
    /// Nobody answered in time, or the question is moot.
    AskExpired {
        /// The question.
        ask: AskId,
    },
    /// The harness sleeps until a time.
    TimerSet {
        /// The harness' key for it.
        key: StepKey,
        /// Until when.
        due_at: Timestamp,
    },
    /// The time has come.
    TimerFired {
        /// The key.
        key: StepKey,
    },
    /// The time does not matter any more.
    TimerCanceled {
        /// The key.
        key: StepKey,
    },
    /// Something outside happened.
    SignalReceived {
        /// Its name.
        name: String,
        /// The client's key for it.
        key: Option<IdempotencyKey>,
        /// The hash of its content, so that the same key with other content is noticed; zero if it
        /// has no key.
        digest: Digest,
        /// What came with it, as JSON.
        payload: Body,
    },
    /// The harness waits for a signal.
    SignalAwaited {
        /// The harness' key for it.
        key: StepKey,
        /// The signal's name.
        name: String,
    },
    /// A signal was handed to the harness.
    SignalDelivered {
        /// The harness' key for the wait.
        key: StepKey,
        /// The [`Kind::SignalReceived`].
        signal: Seq,
    },
    /// A position to come back to.
    CheckpointCreated {
        /// Its name; may be empty.
        name: String,
        /// The harness' key for it.
        key: Option<StepKey>,
    },
    /// The harness only waits: its process is let go. What it gave without a key and the blocks
    /// that it left unfinished are void, as in [`Kind::AttemptLost`]: it gives them again.
    ActorSuspended,
    /// A budget is used up.
    BudgetExceeded {
        /// Which: `tokens`, `cost_micros` or `tool_calls`.
        budget: String,
        /// What was allowed.
        limit: u64,
        /// What was used.
        used: u64,
    },
    /// Something that only the harness understands.
    Note {
        /// Its name.
        name: String,
        /// The harness' key for it.
        key: Option<StepKey>,
        /// What it says, as JSON.
        data: Body,
    },
    /// A framework that runs elsewhere keeps something here.
    RecordWritten {
        /// What it belongs to.
        collection: String,
        /// The client's key for it.
        key: Option<IdempotencyKey>,
        /// The hash of its content, so that the same key with other content is noticed.
        digest: Digest,
        /// The content.
        parts: Vec<Part>,
        /// It stands for all earlier records of the collection.
        replaces: bool,
    },
    /// The files of the session are kept as they are here.
    WorkspaceSaved {
        /// What is kept.
        saved: Saved,
        /// They were made what they were at this position.
        rewound_to: Option<Seq>,
    },
    /// The files of the session were to be kept here, and could not be.
    WorkspaceUnsaved {
        /// Why.
        failure: Failure,
    },
}

/// An agent's manifest, as it was when the session began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentRef {
    /// Its name.
    pub name: String,
    /// The version of its manifest, counted from 1.
    pub version: u32,
}

impl Kind {
    /// What a person says of a step of unknown outcome so that it is carried out again.
    pub const RETRY: &str = "retry";

    /// Whether it is a person's word that the step asked about may be carried out again.
    pub(super) fn allows_again(&self) -> bool {
        matches!(self, Self::AskAnswered { answer: Answer::Choice(choice, _), .. }
            if choice == Self::RETRY)
    }

    /// Returns the name of the event on the wire, such as `step.completed`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::SessionCreated { .. } => "session.created",
            Self::SessionBranched { .. } => "session.branched",
            Self::SessionRenamed { .. } => "session.renamed",
            Self::SessionDeleted => "session.deleted",
            Self::InputReceived { .. } => "input.received",
            Self::InputCanceled { .. } => "input.canceled",
            Self::ExecutionStarted { .. } => "execution.started",
            Self::ExecutionEnded { outcome, .. } => match outcome {
                Outcome::Completed { .. } => "execution.completed",
                Outcome::Failed { .. } => "execution.failed",
                Outcome::Canceled { .. } => "execution.canceled",
                Outcome::TimedOut { .. } => "execution.timed_out",
            },
            Self::AttemptStarted { .. } => "attempt.started",
            Self::AttemptLost { .. } => "attempt.lost",
            Self::OutputDelta { .. } => "output.delta",
            Self::OutputMessage { .. } => "output.message",
            Self::StepStarted { .. } => "step.started",
            Self::StepCompleted { .. } => "step.completed",
            Self::StepFailed { .. } => "step.failed",
            Self::StepUnknown { .. } => "step.unknown",
            Self::StepDiverged { .. } => "step.diverged",
            Self::AskRaised { .. } => "ask.raised",
            Self::AskAnswered { .. } => "ask.answered",
            Self::AskExpired { .. } => "ask.expired",
            Self::TimerSet { .. } => "timer.set",
            Self::TimerFired { .. } => "timer.fired",
            Self::TimerCanceled { .. } => "timer.canceled",
            Self::SignalReceived { .. } => "signal.received",
            Self::SignalAwaited { .. } => "signal.awaited",
            Self::SignalDelivered { .. } => "signal.delivered",
            Self::CheckpointCreated { .. } => "checkpoint.created",
            Self::ActorSuspended => "actor.suspended",
            Self::BudgetExceeded { .. } => "budget.exceeded",
            Self::Note { .. } => "note",
            Self::RecordWritten { .. } => "record.written",
            Self::WorkspaceSaved { .. } => "workspace.saved",
            Self::WorkspaceUnsaved { .. } => "workspace.unsaved",
        }
    }
}
