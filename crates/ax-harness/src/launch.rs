//! What every adapter is given and what it owes.

use ax_core::id::{AttemptId, ExecId, Seq, SessionKey};
use ax_core::session::{
    Answer, Digest, EffectClass, Failure, Frame, PartKind, Prefix, StepKey, StepKind,
};
use ax_core::time::Timestamp;
use ax_gateway::Used;
use futures::future::BoxFuture;
use std::fmt::{self, Debug};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Runs attempts. The seam between the engine and whatever carries an agent.
///
/// # Law
///
/// 1. The future resolves when nothing of the attempt acts any more: its processes are dead and
///    reaped, its tasks have ended. The next attempt is started only then.
/// 2. After `io.kill` is triggered that is soon, whatever the harness does.
/// 3. Frames are sent in the order in which the harness said them.
/// 4. If the harness said [`Frame::End`] or [`Frame::Fail`], that frame was the last one and the
///    exit is [`Exit::Said`]; else the exit says what became of it.
/// 5. What an adapter does outside on behalf of the harness, such as a call of a tool, it does only
///    while `io.may_act` says so at that moment: a process that slept may have lost the session.
/// 6. Bad input from the harness never panics; it ends the attempt with a [`Failure`].
pub trait Launcher: Debug + Send + Sync + 'static {
    /// Runs one attempt to its end.
    fn launch(&self, launch: Launch, io: Io) -> BoxFuture<'static, Exit>;

    /// Says why programs of an agent whose `sandbox` section is this are never started, if so.
    fn refuses(&self, _sandbox: &serde_json::Value) -> Option<Failure> {
        None
    }

    /// Ends what earlier lives of this process have left running, and waits until it is gone.
    /// Called once, before the first attempt.
    fn reap_orphans(&self) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

/// Whether what an attempt does outside may still rest on its session's right to write.
#[derive(Clone, Default)]
pub struct MayAct(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl MayAct {
    /// Makes one that asks each time.
    pub fn when(holds: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(holds)))
    }

    /// Returns the answer of this moment.
    pub fn now(&self) -> bool {
        self.0.as_ref().is_none_or(|holds| holds())
    }

    /// Asks, and says what becomes of an attempt that may not.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.now() {
            return Ok(());
        }
        let message = "the session may be another's: nothing more is done for it".into();
        Err(Failure { code: "killed".into(), message })
    }
}

impl Debug for MayAct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MayAct").field(&self.now()).finish()
    }
}

/// The two ends of the conversation with the engine.
#[derive(Debug)]
pub struct Io {
    /// What the harness says.
    pub frames: mpsc::Sender<Frame>,
    /// What the harness is told.
    pub told: mpsc::Receiver<Told>,
    /// Triggered when the attempt must end at once.
    pub kill: CancellationToken,
    /// Asked before anything is done outside for the harness.
    pub may_act: MayAct,
}

/// How an attempt came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The harness said so itself.
    Said,
    /// It ended without a word, broke the protocol, or was killed.
    Gone(Failure),
}

/// The name of the note by which a harness keeps something for the executions to come.
pub const KEEP_NOTE: &str = "harness.keep";

/// Everything an attempt begins with.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The session.
    pub key: SessionKey,
    /// The agent.
    pub agent: AgentInfo,
    /// The execution.
    pub exec: ExecId,
    /// The attempt.
    pub attempt: AttemptId,
    /// The session's directory, which exists: the working directory of the harness.
    pub workspace: PathBuf,
    /// What was said in earlier executions, oldest first.
    pub history: Vec<Turn>,
    /// What was kept in earlier executions: the data of the newest note named [`KEEP_NOTE`], as
    /// JSON.
    pub kept: Option<String>,
    /// The position of the input.
    pub input_seq: Seq,
    /// The input.
    pub input: Vec<Content>,
    /// What earlier attempts recorded, in that order.
    pub journal: Vec<JournalEntry>,
    /// Steps that earlier attempts may have carried out, of those whose outcome can be found out.
    pub doubts: Vec<StepKey>,
    /// The places of the model requests whose parts the session's log holds.
    pub sent: Vec<Prefix>,
    /// Added to the environment of what is started.
    pub env: Vec<(String, String)>,
    /// What the execution and its session have consumed so far.
    pub used: Used,
}

/// The agent's manifest, as far as an adapter needs it.
#[derive(Clone, Debug)]
pub struct AgentInfo {
    /// The agent's name.
    pub name: String,
    /// The version of its manifest.
    pub version: u32,
    /// The `harness` section of its manifest, as JSON; each adapter knows its own form.
    pub harness: serde_json::Value,
    /// The `gateway` section, as JSON; null if there is none.
    pub gateway: serde_json::Value,
    /// The `sandbox` section, as JSON; null if there is none.
    pub sandbox: serde_json::Value,
}

/// A message of an earlier execution.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Who said it.
    pub role: Role,
    /// What.
    pub parts: Vec<Content>,
}

/// Who said a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A client.
    User,
    /// The agent.
    Agent,
}

/// A part of a message whose content is at hand.
#[derive(Clone, Debug)]
pub struct Content {
    /// What it is.
    pub kind: PartKind,
    /// The media type.
    pub media_type: String,
    /// A file or tool name; may be empty.
    pub name: String,
    /// The text; empty if the content is in a file.
    pub text: String,
    /// A file with the content, its blob id and its size in bytes, if it is large or binary.
    pub file: Option<(PathBuf, String, u64)>,
}

/// Something that an earlier attempt recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalEntry {
    /// The harness' key for it.
    pub key: StepKey,
    /// The event that recorded it.
    pub seq: Seq,
    /// What it is.
    pub kind: JournalKind,
}

/// What an earlier attempt recorded. Values are JSON texts.
#[derive(Clone, Debug, PartialEq)]
pub enum JournalKind {
    /// A step was carried out.
    Step {
        /// What it does.
        kind: StepKind,
        /// The model, tool or function.
        name: String,
        /// Its effect class.
        effect: EffectClass,
        /// The hash of its request.
        digest: Digest,
        /// What was asked, if it was a model call whose request the log holds.
        asked: Option<Box<Asked>>,
        /// What it returned, as JSON, or why it failed.
        result: Result<String, Failure>,
    },
    /// An output was given: its whole text, streamed or not.
    Output(String),
    /// A person was asked: the answer, `None` while it is open.
    Ask(Option<AskResult>),
    /// A sleep: when it ends, and whether it has.
    Sleep {
        /// When it ends.
        due_at: Timestamp,
        /// Whether it has ended.
        fired: bool,
    },
    /// A wait for a signal: its name and, once delivered, the payload as JSON.
    Signal {
        /// The name.
        name: String,
        /// The payload.
        payload: Option<String>,
    },
    /// A note.
    Note {
        /// The note's name.
        name: String,
    },
    /// A checkpoint.
    Checkpoint,
}

/// The request of a model call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What of it was new, as JSON.
    pub request: String,
    /// Its place in the chain of requests.
    pub prefix: Prefix,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskResult {
    /// It was answered.
    Answered(Answer),
    /// Nobody answered in time.
    Expired,
}

/// What a harness is told. Values are JSON texts.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// A `once` step may be carried out.
    Granted {
        /// The step.
        step: StepKey,
    },
    /// What was said under this key is durable.
    Recorded {
        /// The key.
        key: StepKey,
        /// The event that records it.
        seq: Seq,
        /// It had been recorded before: this.
        before: Option<JournalEntry>,
    },
    /// A question was answered or expired.
    Answered {
        /// The key.
        key: StepKey,
        /// What came of it.
        result: AskResult,
    },
    /// A sleep is over.
    Fired {
        /// The key.
        key: StepKey,
    },
    /// A signal came.
    Signaled {
        /// The key.
        key: StepKey,
        /// The signal's name.
        name: String,
        /// What came with it, as JSON.
        payload: String,
    },
    /// The harness only waits: it shall go.
    Park {
        /// How long it has, in milliseconds.
        grace_millis: u64,
    },
    /// The harness shall stop.
    Cancel {
        /// How long it has, in milliseconds.
        grace_millis: u64,
        /// Why; may be empty.
        reason: String,
    },
    /// A frame was refused; the attempt goes on only if it had a key.
    Refused {
        /// The key of the frame, if it had one.
        key: Option<StepKey>,
        /// The error code, `AX####`.
        code: String,
        /// What was wrong.
        message: String,
    },
}
