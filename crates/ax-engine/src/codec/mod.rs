//! What is stored, as bytes: events, snapshots of a session's state, and rows.
//!
//! Every stored message is a protobuf message of `ax-proto`, converted by hand from and to the
//! types of `ax-core`, so that neither side changes by accident. What the fields mean, and how the
//! format may change, is described in `docs/formats/events.md`.
//!
//! Encoding never fails. Decoding refuses everything that no encoder here can have written, and
//! names the field; it never panics.

mod decode;
mod encode;
mod error;
mod row;
mod state;
mod value;

pub use decode::from_proto;
pub use encode::to_proto;
pub use error::DecodeError;
pub use row::{decode_row, encode_row};
pub use state::{decode_state, encode_state};

use ax_core::id::Seq;
use ax_core::session::Event;
use ax_proto::v1;
use bytes::Bytes;
use prost::Message;

/// Encodes an event as it is stored: an `agentexecutor.v1.Event` without its position.
pub fn encode_event(event: &Event) -> Bytes {
    to_proto(event).encode_to_vec().into()
}

/// Decodes a stored event.
///
/// # Errors
///
/// Says which field is not what an encoder writes.
pub fn decode_event(bytes: &[u8]) -> Result<Event, DecodeError> {
    from_proto(v1::Event::decode(bytes)?)
}

/// Decodes a stored event as it is sent: with its position.
///
/// # Errors
///
/// Fails if the bytes are not a protobuf message. What its fields hold is not looked at.
pub fn wire_event(seq: Seq, bytes: &[u8]) -> Result<v1::Event, DecodeError> {
    let mut event = v1::Event::decode(bytes)?;
    event.seq = seq.0;
    Ok(event)
}
