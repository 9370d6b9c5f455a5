//! The engine: drives sessions, and is the only thing that does.
//!
//! It owns one task a session that is awake, appends what the session machine of `ax-core` asks to
//! be kept, carries out what that rests on, wakes what is due and recovers what a crash cut short.
//! It is not a server: `ax-server` puts it on a wire. It is not a store: `ax-log` and `ax-store`
//! are.
//!
//! Start with [`Engine`].

pub mod agents;
mod api;
mod archive;
mod bodies;
mod branch;
pub mod codec;
mod engine;
mod error;
mod follow;
mod gc;
mod inner;
pub mod manifest;
mod observe;
mod records;
mod references;
mod registry;
mod seams;
mod session;
mod submit;
mod timers;
pub mod trace;
mod transcript;
mod turns;
mod view;

pub use api::{
    AgentSource, AgentView, BranchMade, BranchPlan, EventPage, FollowItem, FollowOptions, Info,
    ListSessions, NewRecord, RecordPage, Recorded, SessionPage, SessionRef, SessionView, Status,
    Stream, Submission, Submitted, Until, WaitState,
};
pub use engine::{Engine, Options};
pub use error::{Code, Error};
pub use observe::{Committed, HISTORY_EVENTS_MAX, Observer, Unobserved};
pub use seams::{Clock, Entropy, SystemClock, SystemEntropy};
