//! The values that events and inputs are made of.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Content that is kept in the blob store, by its BLAKE3 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobRef {
    /// The BLAKE3 hash of the content.
    pub hash: [u8; 32],
    /// The size of the content, in bytes.
    pub bytes: u64,
}

/// A snapshot of a session's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The blob that the snapshot is read through.
    pub snapshot: BlobRef,
    /// The blobs that came with it: the others it needs came with snapshots before it.
    pub blobs: Vec<BlobRef>,
    /// How many files there are.
    pub files: u64,
    /// The sum of their lengths, in bytes.
    pub bytes: u64,
}

impl fmt::Display for BlobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("blob_")?;
        self.hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}({} bytes)", self.bytes)
    }
}

/// The BLAKE3 hash of a request, by which a replayed step is recognised.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Text, here or in the blob store. Where a value is meant (a result, an answer), it is JSON.
#[derive(Clone, PartialEq, Eq)]
pub enum Body {
    /// At most [`Body::INLINE_BYTES_MAX`] bytes.
    Text(String),
    /// Larger or binary content.
    Blob(BlobRef),
}

impl Body {
    /// The largest text that an event holds itself; larger ones go to the blob store first.
    pub const INLINE_BYTES_MAX: usize = 64 * 1024;

    /// Returns the blob, if it is one.
    pub const fn blob(&self) -> Option<BlobRef> {
        match self {
            Self::Text(_) => None,
            Self::Blob(blob) => Some(*blob),
        }
    }

    /// Returns the size of the content, in bytes.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Blob(blob) => blob.bytes,
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => fmt::Debug::fmt(text, f),
            Self::Blob(blob) => fmt::Debug::fmt(blob, f),
        }
    }
}

impl From<&str> for Body {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

/// What a part of a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// Text to read.
    Text,
    /// What a model thought on its way.
    Thought,
    /// A picture.
    Image,
    /// Sound.
    Audio,
    /// A document, such as a PDF.
    Document,
    /// Moving pictures.
    Video,
    /// A model asks for a tool; the body is JSON.
    ToolCall,
    /// What a tool returned.
    ToolResult,
    /// Structured data; the body is JSON.
    Data,
}

/// A part of a message.
#[derive(Clone, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub kind: PartKind,
    /// The media type (RFC 6838), such as `text/plain`.
    pub media_type: String,
    /// A file name or tool name; empty if there is none.
    pub name: String,
    /// The content.
    pub body: Body,
}

impl Part {
    /// Returns a part of plain text.
    pub fn text(text: impl Into<String>) -> Self {
        let body = Body::Text(text.into());
        Self { kind: PartKind::Text, media_type: "text/plain".into(), name: String::new(), body }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({:?})", self.kind, self.body)
    }
}

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest key, in bytes.
            pub const BYTES_MAX: usize = 256;

            /// Returns the text of the key.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

key!(
    /// Names a thing that a harness does within an execution: a step, an ask, a sleep, an output.
    /// A harness that is run again gives the same thing the same key.
    StepKey
);
key!(
    /// Names a block of output within an attempt.
    BlockId
);
key!(
    /// A client's name for a request, so that sending it again does nothing more.
    IdempotencyKey
);

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Calls a model.
    Model,
    /// Calls a tool.
    Tool,
    /// Runs a piece of the agent's own code.
    User,
}

/// What it means to carry out a step a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectClass {
    /// It changes nothing.
    Read,
    /// A second time changes nothing more.
    Idempotent,
    /// It must not happen twice.
    Once,
    /// It must not happen twice, and whoever carries it out can find out whether it has happened.
    Probed,
}

impl EffectClass {
    /// Whether it must not happen twice.
    pub const fn is_once(self) -> bool {
        matches!(self, Self::Once | Self::Probed)
    }
}

/// Where the request of a model call stands in the chain of what was sent before: the parts of its
/// parent, then its own. Each part is stored once in a session, however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The chain hash of the request that this one continues; zero if it continues none.
    pub parent: Digest,
    /// The hashes of the parts that were added to it.
    pub parts: Vec<Digest>,
    /// The chain hash of the whole request.
    pub chain: Digest,
}

/// What was consumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens sent to models, those read from a provider's cache included.
    pub input_tokens: u64,
    /// Of these, tokens that a provider read from its cache.
    pub cached_tokens: u64,
    /// Tokens received from models.
    pub output_tokens: u64,
    /// Cost in millionths of a US dollar.
    pub cost_micros: u64,
    /// Model calls that were paid.
    pub model_calls: u64,
    /// Tool calls that were carried out.
    pub tool_calls: u64,
}

impl Usage {
    /// Adds another usage to this one; saturates.
    pub fn add(&mut self, other: &Self) {
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.cached_tokens = self.cached_tokens.saturating_add(other.cached_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.cost_micros = self.cost_micros.saturating_add(other.cost_micros);
        self.model_calls = self.model_calls.saturating_add(other.model_calls);
        self.tool_calls = self.tool_calls.saturating_add(other.tool_calls);
    }
}

/// Why something failed, in words for a person and a code for a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A short code, such as `exit_status` or the name of an exception.
    pub code: String,
    /// What happened.
    pub message: String,
}

/// What kind of answer a question wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskKind {
    /// Yes or no.
    Approval,
    /// One of the choices.
    Choice,
    /// Free text.
    Text,
}

/// An answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Approve,
    /// No, and perhaps why.
    Deny(String),
    /// One of the choices, and a text that belongs to it.
    Choice(String, String),
    /// Free text.
    Text(String),
}

/// What becomes of an input while an execution is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubmitPolicy {
    /// It waits for its turn in a bounded, durable queue.
    #[default]
    Enqueue,
    /// It is refused.
    Reject,
    /// The execution is canceled; the input is next.
    Interrupt,
    /// It goes to a new branch from before the execution.
    Branch,
}

/// How failed attempts are tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How many attempts in a row may fail, with nothing new recorded, before the execution does.
    pub attempts_max: u32,
    /// The pause before the second attempt, in milliseconds; it doubles with every failure.
    pub backoff_millis_min: u64,
    /// The longest pause, in milliseconds.
    pub backoff_millis_max: u64,
    /// How many attempts in a row may be lost with the runtime, with nothing new recorded, before
    /// the execution fails: an input that takes the runtime down with it must not do so for ever.
    pub restarts_max: u32,
}

/// What an execution may consume; 0 means without a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Input and output tokens together.
    pub tokens: u64,
    /// Cost in millionths of a US dollar.
    pub cost_micros: u64,
    /// Tool calls.
    pub tool_calls: u64,
}

/// What holds for the executions of a session. Times are in milliseconds; 0 means without a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What becomes of an input while an execution is under way, unless the request says.
    pub submit: SubmitPolicy,
    /// How many inputs may wait.
    pub queue_max: u32,
    /// How failed attempts are tried again.
    pub retry: Retry,
    /// From the start of an execution to its end, waiting included.
    pub execution_millis_max: u64,
    /// How long a running attempt may be silent.
    pub idle_millis_max: u64,
    /// How long a step may take, unless it says itself.
    pub step_millis_max: u64,
    /// How long a harness that only waits is kept before its process is let go; 0 means not at all.
    pub park_millis: u64,
    /// What an execution may consume.
    pub budget: Budget,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            submit: SubmitPolicy::Enqueue,
            queue_max: 64,
            retry: Retry {
                attempts_max: 4,
                backoff_millis_min: 500,
                backoff_millis_max: 60_000,
                restarts_max: 100,
            },
            execution_millis_max: 0,
            idle_millis_max: 600_000,
            step_millis_max: 3_600_000,
            park_millis: 2_000,
            budget: Budget::default(),
        }
    }
}

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A person or program at a client.
    User,
    /// The harness.
    Harness,
    /// Agent Executor itself.
    Runtime,
    /// Another agent.
    Peer,
}
