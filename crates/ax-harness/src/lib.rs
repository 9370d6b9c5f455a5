//! The ways to run a harness: one trait, [`Launcher`], and an adapter for each kind of harness.
//!
//! An adapter translates between a harness and the frames of `ax-core`. It decides nothing: what a
//! frame means is decided by the session machine, what is durable by the engine. It is not a
//! sandbox either.
//!
//! Start with [`Launcher`].

mod launch;

pub use launch::{
    AgentInfo, AskResult, Content, Exit, Io, JournalEntry, JournalKind, Launch, Launcher, Role,
    Told, Turn,
};
