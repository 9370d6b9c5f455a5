//! The engine on a wire: `agentexecutor.v1` over gRPC, and the same as HTTP with JSON and
//! server-sent events, on one port.
//!
//! Wire types become domain types here and nowhere else. Nothing is decided here: every request is
//! one call of the engine. Both protocols hand their requests to the same functions (`api/`), and
//! who asks is found out in one place (`caller.rs`). A server listens on the data directory's own
//! socket, for the user that it belongs to, and on addresses, for those whom a [`Guard`] knows.
//!
//! Start with [`Server`].

mod api;
pub mod audit;
pub mod auth;
mod ax1;
mod caller;
mod connections;
mod convert;
#[doc(hidden)]
pub mod fuzzing;
mod grpc;
mod harnesses;
mod kinds;
mod listen;
pub mod ops;
mod origins;
mod quiet;
mod rest;
mod router;
mod serve;
mod status;
pub mod tls;

pub use caller::{Act, Asker, Everything, Grant, Identity, Peer};
pub use connections::Connections;
pub use kinds::Kinds;
pub use listen::{BindError, Listener, Secure, Secured, Wire};
pub use rest::openapi;
pub use serve::{Guard, Options, ServeError, Server, check};
pub use status::refuse;

use std::time::Duration;

/// The longest that the server waits for open requests when it stops.
const DRAIN_MILLIS_MAX: u64 = 5_000;
/// The largest request message, in bytes. What is larger is streamed as a blob.
const REQUEST_BYTES_MAX: usize = 8 << 20;
/// The largest blob that is taken, in bytes.
const BLOB_BYTES_MAX: u64 = 1 << 30;
/// The largest archive that is taken, in bytes.
const ARCHIVE_BYTES_MAX: u64 = 16 << 30;
/// The most bytes of events in one page, unless a single event is larger.
const PAGE_BYTES_MAX: usize = 3 << 20;
/// The most events in one page.
const PAGE_EVENTS_MAX: usize = 1_000;
/// The most sessions in one page.
const PAGE_SESSIONS_MAX: usize = 1_000;
/// The most agents in one page.
const PAGE_AGENTS_MAX: usize = 1_000;
/// How much of a blob or archive is sent at a time, in bytes.
const CHUNK_BYTES_MAX: usize = 256 << 10;
/// How many inputs of one stream are under way at a time.
const SUBMITS_MAX: usize = 256;

/// The most open connections unless the owner says; the local socket is never refused.
const CONNECTION_COUNT_MAX: usize = 10_000;
/// The most requests at a time on one connection.
const STREAM_COUNT_MAX: u32 = 4_096;
/// The largest headers of a request, in bytes.
const HEADER_BYTES_MAX: u32 = 32 << 10;
/// The most headers of a request.
const HEADER_COUNT_MAX: usize = 100;
/// How long a request's headers, or a handshake, may take.
const HEADER_READ_MAX: Duration = Duration::from_secs(10);
/// How long it may take until a request of a connection from afar was let in.
const FIRST_REQUEST_MAX: Duration = Duration::from_secs(20);
/// How long the next piece of a request's body may take.
const BODY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long the body of a message may take.
const BODY_READ_MAX: Duration = Duration::from_secs(60);
/// How often a peer is asked whether it is still there.
const PING_PAUSE: Duration = Duration::from_secs(20);
/// How long its answer may take.
const PING_ANSWER_MAX: Duration = Duration::from_secs(20);
/// How much of a stream waits to be sent, in bytes: what a slow reader costs.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// How much a peer may send on a stream before it is read, in bytes.
const WINDOW_BYTES: u32 = 1 << 20;
/// How long a follower hears nothing at most.
const KEEP_ALIVE_PAUSE: Duration = Duration::from_secs(10);
