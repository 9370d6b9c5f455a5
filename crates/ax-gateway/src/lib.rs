//! The door of a harness to the outside: it lets model calls through, and journals them.
//!
//! A harness is given base URLs that lead here and a placeholder instead of keys. What it asks is a
//! step of its session before it is sent on, and what comes back is recorded before the harness can
//! act on it. A new attempt of the same execution is answered from that journal, with the same
//! bytes, until it asks something new: a program that knows nothing of the runtime goes on where it
//! was, and nothing is paid twice.
//!
//! Start with [`Gateway::open`]. `models/` is the way of a call; the forms are described in
//! `docs/formats/gateway.md`, the reasons in `docs/adr/0016-gateway.md`.

pub mod canonical;
mod config;
mod denials;
mod door;
mod egress;
mod expression;
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod models;
mod policy;
mod probe;
mod proof;
pub mod provider;
mod records;
mod session;
mod sockets;
mod tools;

pub use config::{Config, ConfigError};
pub use door::Users;
pub use gateway::{Gateway, Listen, OpenError, Port, Setup};
pub use models::{Period, Quota, Quotas, QuotasError, Rates, Used, connections};
pub use records::{Answer, Desk, Holder, Opened, Runtime};
pub use session::{KEY_PREFIX, Recorded, Told};
pub use sockets::{Socket, Sockets};
pub use tools::{Offered, Said, Spawn, Spawned, ToolCommand, Toolbox};
