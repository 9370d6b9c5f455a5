//! Images: file trees that others made, kept so that sandboxes can have them as their root.
//!
//! ```text
//! OCI layout, archive, registry ──▶ Source ──▶ unpack ──▶ layers/DIGEST ──▶ images.json
//!                                   verified   policy     each once         what counts
//! ```
//!
//! A [`Store`] is a directory. What [`Store::import`] takes in is verified against the digests by
//! which it is named, and unpacked by a policy of its own ([`unpack()`]): nothing of an archive
//! gets out of the directory that is made for it, whatever its names and links say.
//!
//! It is not a container engine: images are not built, changed, pushed or run here. It does not
//! check signatures: who names an image by its digest gets exactly that one.
//!
//! Start reading at [`store`]; the policy is [`mod@unpack`].

mod blob;
mod digest;
mod error;
mod flat;
mod manifest;
mod pull;
mod reference;
mod source;
pub mod store;
#[doc(hidden)]
pub mod test_support;
pub mod unpack;

pub use blob::unpack_archive;
pub use digest::Digest;
pub use error::Error;
pub use manifest::Platform;
pub use pull::Pull;
pub use reference::Reference;
pub use store::{Form, Image, Import, Layer, Progress, Root, Store};
pub use unpack::{Limits, Unpacked, unpack};
