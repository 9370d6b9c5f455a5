//! What clients of the engine give and get.

use super::{Code, Error};
use crate::agents::SYSTEM_SESSION;
use ax_core::id::{AskId, AttemptId, ExecId, Namespace, Seq, SessionId};
use ax_core::session::{AgentRef, Collection, IdempotencyKey, OpenAsk, Part, SubmitPolicy, Usage};
use ax_core::time::Timestamp;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::path::PathBuf;

/// How a client names a session: by id, or by the name it gave.
///
/// A name is as good as an id: the id is the first half of the BLAKE3 hash (derive-key mode,
/// context `agentexecutor session name v1`) of namespace, a zero byte and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRef {
    /// The session.
    pub id: SessionId,
    /// The name; empty if it was named by its id.
    pub name: String,
}

impl SessionRef {
    /// The longest name, in bytes.
    pub const NAME_BYTES_MAX: usize = 256;

    /// Reads an id (`ses_…`) or a name.
    ///
    /// # Errors
    ///
    /// Refuses what is empty, too long, begins with `ses_` and is no id, or has control characters.
    /// What keeps the agents is no session of anybody, and not there.
    pub fn parse(namespace: &Namespace, text: &str) -> Result<Self, Error> {
        let refuse =
            |why: &str| Err(Error::invalid(format!("{text:?} does not name a session: {why}")));
        if text.starts_with("ses_") {
            return match text.parse() {
                Ok(SYSTEM_SESSION) => {
                    Err(Error::new(Code::NoSession, format!("there is no session {text}")))
                }
                Ok(id) => Ok(Self { id, name: String::new() }),
                Err(_) => refuse("ses_ must be followed by 32 hexadecimal digits"),
            };
        }
        if text.is_empty() || text.len() > Self::NAME_BYTES_MAX {
            return refuse("a name has 1 to 256 bytes");
        }
        if text.chars().any(char::is_control) {
            return refuse("a name has no control characters");
        }
        let mut hasher = blake3::Hasher::new_derive_key("agentexecutor session name v1");
        hasher.update(namespace.as_str().as_bytes()).update(&[0]).update(text.as_bytes());
        let hash = hasher.finalize();
        let mut half = [0; 16];
        half.copy_from_slice(&hash.as_bytes()[..16]);
        Ok(Self { id: SessionId(u128::from_be_bytes(half)), name: text.into() })
    }
}

/// An input.
#[derive(Clone, Debug, Default)]
pub struct Submission {
    /// The session; `None` makes a new one.
    pub session: Option<SessionRef>,
    /// The agent of a new session: `NAME` or `NAME@VERSION`.
    pub agent: Option<String>,
    /// The client's key for the input.
    pub key: Option<IdempotencyKey>,
    /// The content. Texts over 64 KiB are moved to the blob store.
    pub parts: Vec<Part>,
    /// What becomes of it while an execution is under way; the agent says if absent.
    pub policy: Option<SubmitPolicy>,
    /// The title of a new session.
    pub title: Option<String>,
}

/// Something to keep for a framework that runs elsewhere.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// The agent of a new session: `NAME` or `NAME@VERSION`.
    pub agent: Option<String>,
    /// What it belongs to.
    pub collection: String,
    /// The client's key for it.
    pub key: Option<IdempotencyKey>,
    /// The content. Texts over 64 KiB are moved to the blob store.
    pub parts: Vec<Part>,
    /// It stands for all earlier records of the collection.
    pub replaces: bool,
    /// Only if this is the collection's newest record; zero if it must have none yet.
    pub after: Option<Seq>,
}

/// Records of a collection.
#[derive(Clone, Debug)]
pub struct RecordPage {
    /// Encoded events, each with its position, in their order.
    pub events: Vec<(Seq, Bytes)>,
    /// Where the records of the collection are.
    pub collection: Collection,
}

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The session it went to.
    pub session: SessionId,
    /// Its position.
    pub seq: Seq,
    /// It was recorded before.
    pub duplicate: bool,
    /// The session was created for it.
    pub created: bool,
    /// It went to a new branch.
    pub branched: bool,
}

/// Where something was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The position.
    pub seq: Seq,
    /// It was recorded before.
    pub duplicate: bool,
}

/// When a follower has seen enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Until {
    /// Never.
    #[default]
    Forever,
    /// When nothing runs and nothing is due at once.
    Idle,
    /// When the execution of this input is over, or waits for a person.
    Input(Seq),
}

/// How to follow a session.
#[derive(Clone, Copy, Debug, Default)]
pub struct FollowOptions {
    /// The last position already seen.
    pub after: Seq,
    /// When to stop.
    pub until: Until,
    /// Leave out `output.delta` events.
    pub no_deltas: bool,
}

/// What a follower gets.
#[derive(Clone, Debug)]
pub enum FollowItem {
    /// An event: its position, and an encoded `agentexecutor.v1.Event` without it.
    Event(Seq, Bytes),
    /// Everything up to this position was recorded before the request; what follows is live.
    CaughtUp(Seq),
    /// What was waited for has come. The last item.
    Reached(Seq, Box<Status>),
    /// The session was deleted. The last item.
    Deleted(Seq),
    /// The engine stops: go on after this position later. The last item.
    Shutdown(Seq),
}

/// A stream of items or of one error.
pub type Stream<T> = BoxStream<'static, Result<T, Error>>;

/// A page of events.
#[derive(Clone, Debug)]
pub struct EventPage {
    /// Positions, and encoded `agentexecutor.v1.Event`s without them.
    pub events: Vec<(Seq, Bytes)>,
    /// The position of the session's last event.
    pub last: Seq,
}

/// What a session is doing. The numbers are those of `agentexecutor.v1.State`, and are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum WaitState {
    /// Nothing was submitted yet.
    #[default]
    Ready = 1,
    /// An attempt runs.
    Running = 2,
    /// Between two attempts.
    Retrying = 3,
    /// Waits for a person.
    WaitingAsk = 4,
    /// Sleeps until a time.
    WaitingTimer = 5,
    /// Waits for a signal.
    WaitingSignal = 6,
    /// An attempt is due but has no place yet.
    WaitingCapacity = 7,
    /// The last execution completed.
    Completed = 8,
    /// The last execution failed.
    Failed = 9,
    /// The last execution was canceled.
    Canceled = 10,
    /// The last execution timed out.
    TimedOut = 11,
}

impl WaitState {
    /// Every state.
    pub const ALL: [Self; 11] = [
        Self::Ready,
        Self::Running,
        Self::Retrying,
        Self::WaitingAsk,
        Self::WaitingTimer,
        Self::WaitingSignal,
        Self::WaitingCapacity,
        Self::Completed,
        Self::Failed,
        Self::Canceled,
        Self::TimedOut,
    ];

    /// Returns the state of a number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u8 == number)
    }

    /// Returns the word for it, such as `waiting-ask`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::WaitingAsk => "waiting-ask",
            Self::WaitingTimer => "waiting-timer",
            Self::WaitingSignal => "waiting-signal",
            Self::WaitingCapacity => "waiting-capacity",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::TimedOut => "timed-out",
        }
    }
}

/// What a session is doing, and why.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// In a word.
    pub state: WaitState,
    /// What it waits for, for a person.
    pub waiting: Vec<String>,
    /// When it wants to be woken.
    pub due_at: Option<Timestamp>,
    /// The execution under way, or the last one.
    pub exec: Option<ExecId>,
    /// Its newest attempt.
    pub attempt: Option<AttemptId>,
    /// Open questions; left out in lists.
    pub asks: Vec<(AskId, OpenAsk)>,
    /// How many inputs wait.
    pub queued: u32,
    /// How the last execution ended, such as `execution.failed`; empty while one is under way.
    pub outcome: String,
    /// Why it ended so.
    pub reason: String,
}

/// A session as clients see it.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// The session.
    pub id: SessionId,
    /// The name its id is derived from; empty if it has none.
    pub name: String,
    /// What people call it.
    pub title: String,
    /// Its agent.
    pub agent: AgentRef,
    /// Where harness and tools run.
    pub sandbox: String,
    /// What it is doing.
    pub status: Status,
    /// The position of its last event.
    pub last: Seq,
    /// The session it is a branch of, and the last position the two share.
    pub parent: Option<(SessionId, Seq)>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its status last changed.
    pub updated_at: Timestamp,
    /// What its ended executions consumed.
    pub usage: Usage,
}

/// Which sessions to list.
#[derive(Clone, Debug, Default)]
pub struct ListSessions {
    /// From the page before.
    pub cursor: Option<SessionId>,
    /// The most sessions to return; 0 means 100.
    pub limit: usize,
    /// Only these states; empty for all.
    pub states: Vec<WaitState>,
    /// Only this agent.
    pub agent: Option<String>,
}

/// A page of sessions, in the order of their ids.
#[derive(Clone, Debug)]
pub struct SessionPage {
    /// The sessions.
    pub sessions: Vec<SessionView>,
    /// Where the next page begins; `None` if this is the last.
    pub cursor: Option<SessionId>,
}

/// What to branch.
#[derive(Clone, Debug, Default)]
pub struct BranchPlan {
    /// The last position to share; `None` for the last of all.
    pub at: Option<Seq>,
    /// The checkpoint to branch at, instead of a position.
    pub checkpoint: Option<String>,
    /// How many branches.
    pub count: u32,
    /// Whether the execution that was under way there is carried on.
    pub carry_on: bool,
    /// Names of the branches; may be fewer than `count`.
    pub names: Vec<String>,
}

/// The branches that were made.
#[derive(Clone, Debug)]
pub struct BranchMade {
    /// The branches.
    pub sessions: Vec<SessionId>,
    /// The last position they share.
    pub at: Seq,
}

/// A manifest to apply.
#[derive(Clone, Debug, Default)]
pub struct AgentSource {
    /// The manifest, in YAML.
    pub manifest: String,
    /// The directory that its relative paths begin at.
    pub dir: Option<PathBuf>,
}

/// A stored agent.
#[derive(Clone, Debug)]
pub struct AgentView {
    /// Its name.
    pub name: String,
    /// The version, counted from 1.
    pub version: u32,
    /// The manifest as it was applied.
    pub manifest: String,
    /// The directory that its relative paths begin at.
    pub dir: Option<PathBuf>,
    /// When it was applied.
    pub applied_at: Timestamp,
}

/// What the engine is doing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Info {
    /// Sessions with a task.
    pub awake_sessions: u64,
    /// Attempts that run.
    pub running_attempts: u64,
    /// Attempts that wait for a free place.
    pub waiting_attempts: u64,
    /// Followers.
    pub followers: u64,
    /// What the blob store has done.
    pub blobs: ax_store::Counters,
    /// It is stopping: it takes nothing new.
    pub is_stopping: bool,
    /// Its log takes nothing more.
    pub has_failed: bool,
}
