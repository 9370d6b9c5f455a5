//! What a client of the engine can be told, with a code that has a page in `docs/errors/`.

use ax_core::session::Refusal;
use ax_log::{AcquireError, AppendError, BranchError, CutError, DeleteError, LogFault, ReadError};
use std::fmt;
use thiserror::Error as ThisError;

macro_rules! codes {
    ($(
        $(#[$doc:meta])*
        $name:ident = $number:literal, retryable $retry:literal, $hint:literal;
    )*) => {
        /// The kinds of error, each with a page `docs/errors/AX####.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $($(#[$doc])* $name = $number,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What usually helps; may be empty.
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$name => $hint,)* }
            }

            /// Whether the same request may succeed later.
            pub const fn retryable(self) -> bool {
                match self { $(Self::$name => $retry,)* }
            }
        }
    };
}

codes! {
    /// A field or argument is malformed.
    Invalid = 1001, retryable false, "";
    /// There is no such session.
    NoSession = 1002, retryable false, "`ax session list` shows the sessions there are";
    /// There is no such agent.
    NoAgent = 1003, retryable false,
        "`ax agent list` shows the agents there are; `ax agent apply -f FILE` adds one";
    /// An idempotency key came again with other content.
    KeyReused = 1004, retryable false, "use a new key for a new request";
    /// The session exists with another agent.
    OtherAgent = 1005, retryable false, "leave out --agent, or choose another session name";
    /// An execution is under way and the policy is to reject.
    Busy = 1006, retryable true, "wait for the execution to end, or choose another policy";
    /// Too many inputs wait.
    QueueFull = 1007, retryable true, "wait until some are done, or raise spec.limits.queue";
    /// There is nothing to cancel.
    Idle = 1008, retryable false, "`ax session show` says what the session is doing";
    /// The question is not open, or it is not clear which is meant.
    NotOpen = 1009, retryable false, "`ax session show` lists the open questions";
    /// The answer does not fit the question.
    WrongAnswer = 1010, retryable false, "";
    /// The session is deleted.
    Deleted = 1011, retryable false, "a deleted session's id and name are not used again";
    /// A position or checkpoint does not exist in the session.
    OutOfRange = 1012, retryable false, "`ax events` shows the positions there are";
    /// Something is larger than allowed.
    TooLarge = 1013, retryable false, "";
    /// Old events are no longer kept.
    Cut = 1014, retryable false, "follow from a later position";
    /// There is no such blob.
    NoBlob = 1015, retryable false, "";
    /// The name or id is taken.
    Exists = 1016, retryable false, "choose another name";
    /// There is no such route.
    NoRoute = 1017, retryable false, "GET /v1/openapi.json describes the routes there are";
    /// The route does not have this method.
    NoMethod = 1018, retryable false, "GET /v1/openapi.json describes the routes there are";
    /// The content is of a type that the route does not take.
    MediaType = 1019, retryable false, "";
    /// There is no such file in the workspace.
    NoFile = 1020, retryable false, "a path begins at the workspace of the session";
    /// Somebody else has written to the collection of records.
    Stale = 1021, retryable false, "read the newer records, then decide again";
    /// There is no such image.
    NoImage = 1022, retryable false, "`ax image list` shows the images there are";
    /// An image is malformed, or wants what no image may.
    Image = 1023, retryable false, "docs/images.md says what is not unpacked, and why";
    /// A manifest is malformed.
    Manifest = 1101, retryable false, "`ax agent validate -f FILE` lists everything that is wrong";
    /// The configuration is malformed.
    Config = 1102, retryable false,
        "docs/configuration.md lists the settings; `ax doctor` shows where each value comes from";
    /// The agent wants to run without a sandbox, and this server does not allow it.
    Unsandboxed = 1103, retryable false,
        "leave `sandbox: process` out of the manifest, or start the server with \
         --allow-unsandboxed";
    /// A harness said something malformed.
    Frame = 1201, retryable false, "";
    /// The data directory is in use.
    Locked = 2001, retryable true,
        "stop the other process, or let this command use it through its socket";
    /// What is stored is damaged.
    Damaged = 2002, retryable false,
        "`ax fsck` says what is damaged, `ax fsck --repair` saves the rest";
    /// The disk is full.
    Full = 2003, retryable true, "free some space: nothing that was acknowledged is lost";
    /// A write failed: nothing more is taken until the store is opened again.
    Poisoned = 2004, retryable true, "look at the disk, then start the server again";
    /// The format of the store is not known.
    Version = 2005, retryable false, "the store was written by another version of ax";
    /// The data directory cannot be used.
    Directory = 2006, retryable false,
        "check its owner and permissions, or name another with --data";
    /// The files of a session cannot be kept, or made again.
    Workspace = 2008, retryable true,
        "docs/workspaces.md says what is kept; the session goes on without";
    /// A read failed.
    Read = 2007, retryable true, "look at the disk";
    /// The request does not say who makes it, or not credibly.
    Unauthenticated = 4001, retryable false, "send a valid key or token";
    /// Whoever makes the request must not do so.
    Forbidden = 4002, retryable false, "ask an administrator for the right to do so";
    /// The key or token was good once.
    Expired = 4003, retryable false,
        "get a new one: `ax auth key create`, or from the identity provider";
    /// Too many requests in a short time.
    RateLimited = 4004, retryable true, "wait as long as the answer says, or ask for less";
    /// Too many requests at the same time.
    Crowded = 4005, retryable true, "let some of the requests under way end first";
    /// What an administrator does cannot be put into the audit log.
    Unrecorded = 4006, retryable true, "look at the disk of the data directory";
    /// The server cannot show that it is the one that is meant.
    Untrusted = 4007, retryable false,
        "AX_CA names the file with the certificate of the authority that vouches for it";
    /// No server answers.
    Unavailable = 3001, retryable true, "";
    /// Another server has the session.
    Elsewhere = 3101, retryable true, "ask the server that has it";
    /// A registry of images does not answer, or refuses.
    Registry = 3003, retryable true,
        "check the reference, the network, and the credentials if it wants some";
    /// The engine is stopping.
    Stopping = 3002, retryable true, "try again when the server is up";
    /// The engine is wrong.
    Internal = 9001, retryable false,
        "this is a bug of ax: please report it with the session's export";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AX{:04}", *self as u16)
    }
}

/// Why a request was not carried out.
#[derive(Clone, Debug, ThisError)]
#[error("{message}")]
#[expect(clippy::error_impl_error, reason = "`ax_engine::Error` reads as what it is")]
pub struct Error {
    /// What kind of error it is.
    pub code: Code,
    /// What is wrong, in words.
    pub message: String,
    /// What may help; the code's own hint if empty.
    pub hint: String,
    /// What caused it, outermost first.
    pub causes: Vec<String>,
}

impl Error {
    /// Makes an error.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: String::new(), causes: Vec::new() }
    }

    /// Makes an error about a malformed field or argument.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    /// Adds a hint of its own.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Adds the chain of causes.
    #[must_use]
    pub fn caused_by(mut self, error: &dyn std::error::Error) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            self.causes.push(error.to_string());
            cause = error.source();
        }
        self
    }

    /// What may help.
    pub fn hint(&self) -> &str {
        if self.hint.is_empty() { self.code.hint() } else { &self.hint }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::NotCreated => Code::NoSession,
            Refusal::Exists { .. } => Code::OtherAgent,
            Refusal::Deleted => Code::Deleted,
            Refusal::Busy(_) => Code::Busy,
            Refusal::QueueFull { .. } => Code::QueueFull,
            Refusal::KeyReused { .. } => Code::KeyReused,
            Refusal::Stale { .. } => Code::Stale,
            Refusal::Idle | Refusal::NotRunning(..) => Code::Idle,
            Refusal::NotOpen(_) | Refusal::Ambiguous(_) => Code::NotOpen,
            Refusal::WrongAnswer { .. } => Code::WrongAnswer,
            Refusal::Length { .. } | Refusal::TooMany { .. } => Code::TooLarge,
            Refusal::Protocol(_) => Code::Frame,
        };
        Self::new(code, refusal.to_string())
    }
}

impl From<LogFault> for Error {
    fn from(fault: LogFault) -> Self {
        let code = match &fault {
            LogFault::Poisoned { .. } => Code::Poisoned,
            LogFault::Full { .. } => Code::Full,
            LogFault::Read { .. } => Code::Read,
            LogFault::Damaged { .. } => Code::Damaged,
            LogFault::Closed => Code::Stopping,
            LogFault::Unavailable { .. } => Code::Unavailable,
            LogFault::Elsewhere { .. } => Code::Elsewhere,
        };
        let error = Self::new(code, fault.to_string());
        match std::error::Error::source(&fault) {
            Some(source) => error.caused_by(source),
            None => error,
        }
    }
}

impl From<AcquireError> for Error {
    fn from(error: AcquireError) -> Self {
        match error {
            AcquireError::Deleted => Self::new(Code::Deleted, error.to_string()),
            AcquireError::Fault(fault) => fault.into(),
        }
    }
}

impl From<AppendError> for Error {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Fault(fault) => fault.into(),
            AppendError::Deleted => Self::new(Code::Deleted, error.to_string()),
            AppendError::TooLarge { .. } => Self::new(Code::TooLarge, error.to_string()),
            AppendError::WrongSeq { .. } | AppendError::Fenced { .. } => {
                Self::new(Code::Stopping, "another writer has taken over the session")
                    .caused_by(&error)
            }
        }
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound => Self::new(Code::NoSession, error.to_string()),
            ReadError::Cut { .. } => Self::new(Code::Cut, error.to_string()),
            ReadError::Fault(fault) => fault.into(),
        }
    }
}

impl From<BranchError> for Error {
    fn from(error: BranchError) -> Self {
        match error {
            BranchError::NotFound => Self::new(Code::NoSession, error.to_string()),
            BranchError::OutOfRange { .. } => Self::new(Code::OutOfRange, error.to_string()),
            BranchError::TooLarge { .. } => Self::new(Code::TooLarge, error.to_string()),
            BranchError::Exists { .. } => Self::new(Code::Exists, error.to_string()),
            BranchError::Fault(fault) => fault.into(),
        }
    }
}

impl From<CutError> for Error {
    fn from(error: CutError) -> Self {
        match error {
            CutError::NotFound => Self::new(Code::NoSession, error.to_string()),
            CutError::Uncovered { .. } => Self::new(Code::OutOfRange, error.to_string()),
            CutError::Fault(fault) => fault.into(),
        }
    }
}

impl From<DeleteError> for Error {
    fn from(error: DeleteError) -> Self {
        match error {
            DeleteError::NotFound => Self::new(Code::NoSession, error.to_string()),
            DeleteError::Fault(fault) => fault.into(),
        }
    }
}
