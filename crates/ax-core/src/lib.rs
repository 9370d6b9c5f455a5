//! The pure core of Agent Executor: what a session is and what may happen to it.
//!
//! It is not a runtime and not a store: it does no I/O, knows no clock, no randomness and no
//! threads. `ax-engine` drives these machines, `ax-log` keeps what they ask to be kept.

pub mod id;
pub mod session;

pub mod time;
