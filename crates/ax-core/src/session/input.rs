//! What can happen to a session, and what comes of it.

use super::event::AgentRef;
use super::value::{
    Answer, AskKind, BlockId, Body, Digest, EffectClass, Failure, IdempotencyKey, Limits, Part,
    PartKind, Prefix, Saved, StepKey, StepKind, SubmitPolicy, Usage,
};
use crate::id::{AskId, AttemptId, ExecId, Seq, SessionId};
use crate::time::Timestamp;
use std::sync::Arc;

/// Who wants something, and how it is traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// On whose behalf; empty for the runtime itself.
    pub principal: Arc<str>,
    /// The id of the request; empty if there is none.
    pub request: Arc<str>,
    /// The W3C `traceparent`; empty if there is none.
    pub trace: Arc<str>,
}

impl Default for Caller {
    fn default() -> Self {
        let empty: Arc<str> = "".into();
        Self { principal: Arc::clone(&empty), request: Arc::clone(&empty), trace: empty }
    }
}

/// What can happen to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A client wants something.
    Client(Caller, Request),
    /// The harness of an attempt says something.
    Frame(ExecId, AttemptId, Frame),
    /// The harness of an attempt is gone, and did not say why.
    HarnessGone(ExecId, AttemptId, Failure),
    /// A new writer has taken over: what ran under the old one is lost.
    Recover,
    /// The driver is about to stop: an attempt that only waits is let go, as if it were time.
    Suspend,
    /// The files of the session were kept, or could not be.
    Saved(Result<Saved, Failure>),
    /// Time has passed; feed this when [`super::Session::deadline`] is reached.
    Tick,
    /// Everything up to and with this position is durable.
    Persisted(Seq),
}

/// What a client can want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Begin the session. Does nothing if it has begun with the same agent.
    Create {
        /// The name its id is derived from; empty if it has none.
        name: String,
        /// The agent.
        agent: AgentRef,
        /// What holds for its executions.
        limits: Limits,
        /// Where harness and tools run.
        sandbox: String,
        /// A random number.
        seed: u64,
    },
    /// Begin the session as a branch; the first thing that happens to it.
    Branch {
        /// The session it branched from.
        parent: SessionId,
        /// The last position the two share.
        at: Seq,
        /// Whether the execution that was under way there is carried on.
        carry_on: bool,
        /// A random number.
        seed: u64,
    },
    /// An input for the agent.
    Submit {
        /// The client's key for it.
        key: Option<IdempotencyKey>,
        /// The hash of the content.
        digest: Digest,
        /// The content.
        parts: Vec<Part>,
        /// What becomes of it while an execution is under way; the session's limits say if absent.
        policy: Option<SubmitPolicy>,
    },
    /// An answer to a question.
    Answer {
        /// The question; may be left out if only one is open.
        ask: Option<AskId>,
        /// The answer.
        answer: Answer,
        /// Through what.
        via: String,
    },
    /// Something outside happened.
    Signal {
        /// Its name.
        name: String,
        /// The client's key for it.
        key: Option<IdempotencyKey>,
        /// The hash of the content; zero if it has no key.
        digest: Digest,
        /// What came with it, as JSON.
        payload: Body,
    },
    /// Stop the execution that is under way.
    Cancel {
        /// Only if it is this one.
        exec: Option<ExecId>,
        /// Take back the inputs that wait, too.
        queued: bool,
        /// Why; may be empty.
        reason: String,
    },
    /// A new title.
    Rename {
        /// The title.
        title: String,
    },
    /// Remember this position.
    Checkpoint {
        /// Its name; may be empty.
        name: String,
    },
    /// Keep something for a framework that runs elsewhere.
    Record {
        /// What it belongs to.
        collection: String,
        /// The client's key for it.
        key: Option<IdempotencyKey>,
        /// The hash of the content.
        digest: Digest,
        /// The content.
        parts: Vec<Part>,
        /// It stands for all earlier records of the collection.
        replaces: bool,
        /// Only if this is the collection's newest record; zero if it must have none yet.
        after: Option<Seq>,
    },
    /// The files were changed at somebody's wish, and kept.
    Save {
        /// What was kept.
        saved: Saved,
        /// They were made what they were at this position.
        rewound_to: Option<Seq>,
    },
    /// Stop everything and take nothing more.
    Delete,
}

/// What a harness can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// It lives.
    Heartbeat,
    /// A piece of a block of output.
    Delta {
        /// The block.
        block: BlockId,
        /// What it is a piece of.
        part: PartKind,
        /// The piece.
        text: String,
    },
    /// An output, or the end of a streamed block.
    Output {
        /// The block; the session makes one up if it is left out.
        block: Option<BlockId>,
        /// The key for it; with a key it is recorded once, however often it is said.
        key: Option<StepKey>,
        /// What was not streamed.
        parts: Vec<Part>,
    },
    /// It wants to carry out a step. A `once` step waits for [`Reply::Granted`].
    StepBegin {
        /// The step.
        step: StepKey,
        /// What it does.
        kind: StepKind,
        /// The model, tool or function.
        name: String,
        /// What it means to carry it out again.
        effect: EffectClass,
        /// The hash of the request.
        digest: Digest,
        /// The request, as JSON, unless it is a model call.
        request: Option<Body>,
        /// The request of a model call.
        prefix: Option<Prefix>,
        /// How long it may take, in milliseconds; the session's limits say if absent.
        limit_millis: Option<u64>,
    },
    /// It has carried out a step.
    StepEnd {
        /// The step.
        step: StepKey,
        /// What it returned, as JSON, or why it failed.
        result: Result<Body, Failure>,
        /// What it consumed.
        usage: Usage,
    },
    /// It asks a person and waits for [`Reply::Answered`].
    Ask {
        /// The key for it.
        key: StepKey,
        /// What kind of answer is wanted.
        kind: AskKind,
        /// The question.
        prompt: String,
        /// What can be chosen.
        choices: Vec<String>,
        /// More to decide by, as JSON.
        details: Option<Body>,
        /// When it expires, in milliseconds from now.
        expires_millis: Option<u64>,
    },
    /// It sleeps and waits for [`Reply::TimerFired`].
    Sleep {
        /// The key for it.
        key: StepKey,
        /// Until when.
        due_at: Timestamp,
    },
    /// It waits for a signal, and for [`Reply::Signaled`].
    AwaitSignal {
        /// The key for it.
        key: StepKey,
        /// The signal's name.
        name: String,
    },
    /// Something that only the harness understands.
    Note {
        /// The key for it; with a key it is recorded once.
        key: Option<StepKey>,
        /// Its name.
        name: String,
        /// What it says, as JSON.
        data: Body,
    },
    /// Remember this position.
    Checkpoint {
        /// The key for it.
        key: StepKey,
        /// Its name; may be empty.
        name: String,
    },
    /// It did something else than what is recorded under this key.
    Diverged {
        /// The key.
        step: StepKey,
        /// What is recorded.
        expected: String,
        /// What it did.
        found: String,
    },
    /// It is done.
    End {
        /// What it returned, as JSON.
        result: Option<Body>,
    },
    /// It failed.
    Fail {
        /// Why.
        failure: Failure,
        /// Whether another attempt may help.
        retry: bool,
    },
}

impl Frame {
    /// Returns the key that it is said under, if there is one.
    pub const fn key(&self) -> Option<&StepKey> {
        match self {
            Self::Output { key, .. } | Self::Note { key, .. } => key.as_ref(),
            Self::StepBegin { step: key, .. }
            | Self::StepEnd { step: key, .. }
            | Self::Ask { key, .. }
            | Self::Sleep { key, .. }
            | Self::AwaitSignal { key, .. }
            | Self::Checkpoint { key, .. } => Some(key),
            Self::Heartbeat
            | Self::Delta { .. }
            | Self::Diverged { .. }
            | Self::End { .. }
            | Self::Fail { .. } => None,
        }
    }
}

/// What a harness is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The step may be carried out: its intent is durable.
    Granted {
        /// The step.
        step: StepKey,
    },
    /// What was said under this key is durable, or was before.
    Recorded {
        /// The key.
        key: StepKey,
        /// The event that records it.
        seq: Seq,
        /// It had been recorded before: the event at `seq` says what was returned then.
        before: bool,
    },
    /// The question was answered.
    Answered {
        /// The key.
        key: StepKey,
        /// The answer.
        answer: Answer,
    },
    /// The question expired.
    AskExpired {
        /// The key.
        key: StepKey,
    },
    /// The time has come.
    TimerFired {
        /// The key.
        key: StepKey,
    },
    /// The signal came.
    Signaled {
        /// The key.
        key: StepKey,
        /// The [`super::Kind::SignalReceived`].
        signal: Seq,
    },
}

/// How an attempt is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It only waits: it is told to go, and starts again when what it waits for has come.
    Park,
    /// It is told to stop, and killed if it does not in time.
    Cancel,
    /// It is killed.
    Kill,
}

/// Something for the driver to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start the harness for an attempt, after the one before is gone.
    Start(ExecId, AttemptId),
    /// Stop the harness of an attempt.
    Stop(ExecId, AttemptId, Stop),
    /// Tell the harness of an attempt something.
    Tell(ExecId, AttemptId, Reply),
}

/// What a client is told once it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is recorded at this position.
    At(Seq),
    /// It was recorded before, at this position: nothing more was done.
    Before(Seq),
    /// It belongs into a new branch of this session that shares everything up to this position.
    Branch(Seq),
    /// There was nothing to do.
    Nothing,
}

/// Why an input was refused. A refusal changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The session has not begun.
    #[error("the session does not exist")]
    NotCreated,
    /// The session has begun with something else.
    #[error("the session exists already, with agent {agent}")]
    Exists {
        /// Its agent.
        agent: String,
    },
    /// The session is deleted.
    #[error("the session is deleted")]
    Deleted,
    /// An execution is under way and the policy is to reject.
    #[error("{0} is under way")]
    Busy(ExecId),
    /// Too many inputs wait.
    #[error("{waiting} inputs wait already")]
    QueueFull {
        /// How many wait.
        waiting: u32,
    },
    /// The same key came with other content.
    #[error("the key {key} was used before, with other content, at {seq}")]
    KeyReused {
        /// The key.
        key: IdempotencyKey,
        /// Where it was used.
        seq: Seq,
    },
    /// The named attempt is not the running one.
    #[error("{1} of {0} is not running")]
    NotRunning(ExecId, AttemptId),
    /// Nothing is under way that could be stopped.
    #[error("nothing is under way")]
    Idle,
    /// No such question is open.
    #[error("{} open", .0.map_or_else(|| "no question is".into(), |ask| format!("{ask} is not")))]
    NotOpen(Option<AskId>),
    /// More than one question is open.
    #[error("{0} questions are open: say which")]
    Ambiguous(usize),
    /// Somebody else has written to the collection.
    #[error("the newest record of {collection} is at {last}")]
    Stale {
        /// The collection.
        collection: String,
        /// Its newest record; zero if it has none.
        last: Seq,
    },
    /// The answer does not fit the question.
    #[error("the question wants {wanted}")]
    WrongAnswer {
        /// What it wants.
        wanted: String,
    },
    /// A key is empty or too long, or a name is.
    #[error("{what} has {bytes} bytes, it must have 1 to {limit}")]
    Length {
        /// Which.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The greatest length.
        limit: usize,
    },
    /// The harness said something that it may not say now.
    #[error("{0}")]
    Protocol(String),
    /// Too much of something.
    #[error("{what} are limited to {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}
