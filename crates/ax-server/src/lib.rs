//! The engine on a wire: `agentexecutor.v1` over gRPC.
//!
//! Wire types become domain types here and nowhere else. Nothing is decided here: every request is
//! one call of the engine. So far it listens on the data directory's own socket only, for the user
//! that it belongs to; callers are told apart by the user id that the kernel names.
//!
//! Start with [`Listener`].

mod admin;
mod agents;
mod caller;
mod connections;
mod convert;
mod listen;
mod sessions;
mod status;
mod transfer;

pub use connections::Connections;
pub use listen::{BindError, Listener, ServeError, Server};

/// The longest that the server waits for open requests when it stops.
const DRAIN_MILLIS_MAX: u64 = 5_000;
/// The largest request message, in bytes. What is larger is streamed as a blob.
const REQUEST_BYTES_MAX: usize = 8 << 20;
/// The largest blob that is taken, in bytes.
const BLOB_BYTES_MAX: u64 = 1 << 30;
/// The most bytes of events in one page, unless a single event is larger.
const PAGE_BYTES_MAX: usize = 3 << 20;
/// The most events in one page.
const PAGE_EVENTS_MAX: usize = 1_000;
/// The most sessions in one page.
const PAGE_SESSIONS_MAX: usize = 1_000;
/// How much of a blob or archive is sent at a time, in bytes.
const CHUNK_BYTES_MAX: usize = 256 << 10;
