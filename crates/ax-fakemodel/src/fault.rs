//! What goes wrong on demand.

use serde::{Deserialize, Serialize};

/// What goes wrong with one answer. Each field adds one thing; none is set by default.
///
/// It is read from a script, or from the request header `x-fake-fault` or the query parameter
/// `fake_fault`, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// The answer begins this much later, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_millis: Option<u64>,
    /// The request is refused with this HTTP status, 400 to 599; nothing is paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// With `status`: the `Retry-After` header, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
    /// With `status`: the message of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The connection breaks after so many chunks: events of a stream, or 1 for a whole answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_after_chunks: Option<u64>,
    /// The connection breaks after so many bytes of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_after_bytes: Option<u64>,
    /// Nothing more comes after so many chunks, and the connection stays open; 0 holds back the
    /// head of the response too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hang_after_chunks: Option<u64>,
    /// After so many chunks comes one that is not of the format. 0 for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub garbage_after_chunks: Option<u64>,
    /// The body comes byte by byte, this many milliseconds apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte_delay_millis: Option<u64>,
}

impl Fault {
    /// Says what contradicts itself, if anything does.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.status {
            Some(400..=599) => {}
            Some(status) => return Err(format!("status {status} is not 400 to 599")),
            None if self.retry_after_seconds.is_some() || self.message.is_some() => {
                return Err("retry_after_seconds and message need a status".to_owned());
            }
            None => {}
        }
        let body = [self.cut_after_chunks, self.cut_after_bytes, self.hang_after_chunks];
        let body = body.iter().any(Option::is_some) || self.garbage_after_chunks.is_some();
        if self.status.is_some() && body {
            return Err("a refused request has no body to cut".to_owned());
        }
        Ok(())
    }

    /// Reads a fault of its own, as in a header.
    pub(crate) fn from_json(text: &str) -> Result<Self, String> {
        let fault: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        fault.check().map(|()| fault)
    }
}
