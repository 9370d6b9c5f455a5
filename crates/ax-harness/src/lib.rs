//! The ways to run a harness: one trait, [`Launcher`], and an adapter for each kind of harness.
//!
//! An adapter translates between a harness and the frames of `ax-core`. It decides nothing: what a
//! frame means is decided by the session machine, what is durable by the engine. It is not a
//! sandbox either.
//!
//! Start with [`Launcher`]. [`ProcessHarness`] runs any program, [`BuiltinHarness`] is a loop of
//! model and tools, [`Ax1Harness`] is a client of servers that speak the AX wire, [`AcpHarness`] a
//! client of agents that speak the Agent Client Protocol, [`AntigravityHarness`] drives the program
//! of Google Antigravity, [`InteractionsHarness`] is a client of agents behind the Gemini
//! Interactions API, [`Adapters`] is all of them; [`supervise`] sees to it that nothing of a
//! program outlives its attempt.

mod acp;
mod adapters;
mod antigravity;
pub mod ax1;
mod builtin;
mod config;
mod environment;
mod external;
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod interactions;
mod launch;
mod link;
mod outside;
mod own;
mod process;
mod programs;
mod reach;
mod sse;
pub mod supervise;
mod turn;

pub use acp::AcpHarness;
pub use adapters::Adapters;
pub use antigravity::AntigravityHarness;
pub use ax_gateway::{Answer, Desk, Holder, Opened, Period, Quota, Quotas, Runtime, Used};
pub use ax_sandbox::BackendKind;
pub use ax1::Ax1Harness;
pub use builtin::BuiltinHarness;
pub use config::ConfigError;
pub use interactions::InteractionsHarness;
pub use launch::{
    AgentInfo, AskResult, Asked, Content, Exit, Io, JournalEntry, JournalKind, KEEP_NOTE, Launch,
    Launcher, MayAct, Role, Told, Turn,
};
pub use own::own_dir;
pub use process::ProcessHarness;
