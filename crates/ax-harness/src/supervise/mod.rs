//! One small process above every command that we run, so that nothing of it outlives us.
//!
//! ```text
//! runtime ──control socket──▶ supervisor (child subreaper, own session)
//!    ▲                            └─ command (own process group)
//!    └──── stdout, stderr ────────────┘   └─ whatever it starts, also what it detaches
//! ```
//!
//! The supervisor is our own binary, started again with a hidden subcommand that calls [`main`].
//! When the command has ended, when it is asked to, or when its control socket reaches its end
//! (the runtime died, however suddenly), it kills every descendant, waits until none is left, and
//! ends. Descendants that called `setsid` or forked twice are found too: as their subreaper it
//! inherits them.
//!
//! It is no sandbox: a command that kills its supervisor gets away from it. What it started is then
//! found by the token in its environment, unless it cleared that too.

mod child;
mod parent;
mod registry;
mod tree;

pub use child::main;
pub(crate) use parent::{Ended, Spec, Status, Supervised};
pub(crate) use registry::Registry;

use std::ffi::OsString;
use std::path::PathBuf;

/// The environment variable that marks everything that belongs to one supervisor.
pub(crate) const TOKEN_VARIABLE: &str = "AX_RUN";

/// Asks the supervisor to send SIGTERM to the command's process group.
const ASK_TERMINATE: u8 = b'T';
/// Asks the supervisor to kill everything at once.
const ASK_KILL: u8 = b'K';
/// Comes with the command's standard input.
const ASK_START: u8 = b'S';

/// How programs are started and where they are registered.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program and its first arguments; the command follows them. What it runs has to call
    /// [`main`] with the rest of its arguments before it starts a thread.
    pub supervisor: Vec<OsString>,
    /// The directory in which running supervisors are registered, so that a later life of the
    /// runtime finds them. Created when needed; no other program writes to it.
    pub run_dir: PathBuf,
    /// The program that makes sandboxes and its arguments: what it runs has to call
    /// [`ax_sandbox::launcher::main`] before it starts a thread.
    pub sandbox: Vec<OsString>,
    /// Directories of the runtime that no sandbox may show, nor anything above or in them.
    pub private: Vec<PathBuf>,
    /// The store of images that sandboxes can have as their root.
    pub images: PathBuf,
    /// Whether programs may run without a sandbox, where a manifest says so.
    pub unsandboxed: bool,
}

impl Options {
    /// The directory, beside that of the supervisors, in which gateways put files for harnesses.
    /// What is in it belongs to one life of the runtime.
    pub(crate) fn gateways(&self) -> PathBuf {
        self.run_dir.with_file_name("gateways")
    }

    /// How sandboxes are made: registered beside the supervisors.
    pub fn sandboxes(&self) -> ax_sandbox::Options {
        let run_dir = self.run_dir.with_file_name("sandboxes");
        ax_sandbox::Options {
            launcher: self.sandbox.clone(),
            ids: ax_sandbox::ids_of(&run_dir),
            run_dir,
            private: self.private.clone(),
        }
    }
}
