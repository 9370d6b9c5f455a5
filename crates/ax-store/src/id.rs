//! The name of a blob: the hash of its content.

use ax_core::session::BlobRef;
use std::fmt;
use std::str::FromStr;

/// The BLAKE3 hash of a blob's content (32 bytes, unkeyed). Prints as `blob_` and 64 hexadecimal
/// digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(pub [u8; 32]);

/// A blob that is in the store: what an event needs to refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob {
    /// Its name.
    pub id: BlobId,
    /// The length of its content, in bytes.
    pub bytes: u64,
}

/// Why a text is not the name of a blob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a blob id: blob_ and 64 hexadecimal digits in lower case")]
pub struct ParseError {
    /// What was given, at most its first 80 characters.
    pub text: String,
}

impl BlobId {
    /// Returns the name of this content.
    pub fn of(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }

    /// Returns the 64 digits without the prefix.
    pub(crate) fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// The inverse of [`BlobId::hex`]; only lower case is accepted, so that a name has one form.
    pub(crate) fn from_hex(digits: &str) -> Option<Self> {
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() != 64 || !digits.bytes().all(lower) {
            return None;
        }
        blake3::Hash::from_hex(digits).ok().map(|hash| Self(*hash.as_bytes()))
    }
}

impl From<[u8; 32]> for BlobId {
    fn from(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl From<BlobId> for [u8; 32] {
    fn from(id: BlobId) -> Self {
        id.0
    }
}

impl From<BlobRef> for Blob {
    fn from(reference: BlobRef) -> Self {
        Self { id: BlobId(reference.hash), bytes: reference.bytes }
    }
}

impl From<Blob> for BlobRef {
    fn from(blob: Blob) -> Self {
        Self { hash: blob.id.0, bytes: blob.bytes }
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blob_{}", self.hex())
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlobId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let id = text.strip_prefix("blob_").and_then(Self::from_hex);
        id.ok_or_else(|| ParseError { text: text.chars().take(80).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_parses_back_from_what_it_prints() {
        let id = BlobId::of(b"content");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().len(), 69);
    }

    #[test]
    fn nothing_else_is_an_id() {
        let upper = BlobId::of(b"content").to_string().to_uppercase();
        let short = format!("blob_{}", "0".repeat(63));
        let path = format!("blob_{}", "../".repeat(21) + "0");
        for text in ["", "blob_", &upper, &short, &path, &"0".repeat(64)] {
            assert!(text.parse::<BlobId>().is_err(), "{text}");
        }
    }
}
