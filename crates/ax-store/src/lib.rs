//! Blobs: contents of any size, kept once under their BLAKE3 hash, per namespace.
//!
//! What does not fit into an event goes here first, and the event holds the [`BlobId`]. A blob is
//! durable before [`Blobs::put`] returns, is verified whenever it is read, and is removed by
//! [`Blobs::collect`] once no log refers to it any more.
//!
//! This is not a file store: a blob has no name but its hash, no owner but its namespace and never
//! changes. It does not count references either: the logs are the references, and a collection
//! asks them.
//!
//! Start with [`Blobs`]. The layout is described in `docs/formats/blobs.md`, the reasons in
//! `docs/adr/0004-blobs.md`; [`conformance`] is the suite that every backend runs.
//!
//! ```
//! use ax_core::id::Namespace;
//! use ax_store::Blobs;
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let blobs = Blobs::memory();
//! let namespace = Namespace::default();
//! let blob = blobs.put_bytes(&namespace, "hello".into()).await.unwrap();
//! let content = blobs.get_bytes(&namespace, &blob.id, 1024).await.unwrap();
//! assert_eq!(content, "hello");
//! # });
//! ```

mod blobs;
mod collect;
pub mod conformance;
mod error;
mod id;
mod layout;
mod local;
mod put;
mod read;

pub use blobs::{Blobs, Counters, Stat, Usage};
pub use collect::{Collection, GRACE_MILLIS_DEFAULT};
pub use error::{GetError, OpenError, PutError, StoreError};
pub use id::{Blob, BlobId, ParseError};
pub use put::PART_BYTES;
pub use read::{BlobStream, Verification};
