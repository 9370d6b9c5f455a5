//! Exit codes: the same for every command, and a part of the interface.

use std::process::ExitCode;

/// How a command ended, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked for is done; of `run`: the execution completed.
    Done = 0,
    /// The agent failed; or a check of `doctor`, `fsck` or `demo` did.
    Failed = 1,
    /// The command line is wrong, or names what is not there.
    Usage = 2,
    /// A manifest or the data directory is wrong.
    Configuration = 3,
    /// No server answers, or it cannot do it now.
    Unavailable = 4,
    /// The session waits for a person.
    Waiting = 5,
    /// The execution was canceled.
    Canceled = 6,
    /// The execution took too long.
    TimedOut = 7,
    /// Interrupted; the work goes on when a server runs it.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
