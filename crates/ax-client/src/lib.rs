//! The client of a server that speaks `agentexecutor.v1`.
//!
//! It keeps the client's half of two promises. A follower sees every event once and in order,
//! however often the connection breaks ([`Follow`]). An input is recorded once, also when the
//! connection breaks before the answer ([`Client::submit`]). It knows nothing of what events mean
//! and nothing of the engine; requests and answers are the types of the wire.
//!
//! What a follower does is decided by a small machine without I/O (`machine.rs`); `follow.rs` only
//! carries it out. Start with [`Client::at`] or [`Client::unix`].
//!
//! ```no_run
//! # async fn example() -> Result<(), ax_client::Error> {
//! use ax_client::{Client, Item};
//! use ax_proto::v1::{FollowRequest, SubmitRequest};
//!
//! let client = Client::unix("/run/ax.sock", "default");
//! let request = SubmitRequest { agent: "greeter".into(), ..Default::default() };
//! let sent = client.submit(request).await?;
//! let mut follow = client.follow(FollowRequest {
//!     session: sent.session,
//!     until_input: sent.seq,
//!     ..Default::default()
//! });
//! while let Some(item) = follow.next().await? {
//!     if let Item::Event(event) = item {
//!         println!("{}", event.seq);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod address;
mod client;
mod connect;
mod error;
mod follow;
mod machine;
mod outage;
mod retry;
mod transfer;

pub use address::{Address, AddressError};
pub use client::Client;
pub use connect::{Connect, Connection, Credentials, boxed, connect, untrusted};
pub use error::{Error, UNAVAILABLE};
pub use follow::{Follow, Item};
pub use outage::Patience;
pub use transfer::CHUNK_BYTES;
