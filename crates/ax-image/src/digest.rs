//! Names of contents: their hash.

use crate::error::Error;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::Cell;
use std::fmt;
use std::io::{self, Read};
use std::rc::Rc;

/// How a digest begins. There is no other algorithm that images are named by in practice.
const PREFIX: &str = "sha256:";

/// The SHA-256 hash of a content, by which it is named.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Returns the digest of a content.
    pub fn of(content: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(content);
        Self::finish(context)
    }

    /// Reads a digest as it is written: `sha256:` and 64 digits.
    ///
    /// # Errors
    ///
    /// If it is written in another way, which includes every other algorithm.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let malformed =
            || Error::malformed("digest", format!("{text:?} is not sha256:<64 digits>"));
        let digits = text.strip_prefix(PREFIX).ok_or_else(malformed)?.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return Err(malformed());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let value = |digit: u8| match digit {
                b'0'..=b'9' => Ok(digit - b'0'),
                b'a'..=b'f' => Ok(digit - b'a' + 10),
                _ => Err(malformed()),
            };
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Ok(Self(bytes))
    }

    /// Returns its digits, without the algorithm.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn finish(context: Context) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Hashes what is handed to it.
pub(crate) struct Hasher(Context);

impl Default for Hasher {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        Digest::finish(self.0)
    }
}

/// A reader that hashes and counts what goes through it.
pub(crate) struct Hashing<R> {
    inner: R,
    context: Context,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Hashing<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, context: Context::new(&SHA256), count: Rc::default() }
    }

    /// Returns where it counts bytes: it goes up while others read.
    pub(crate) fn count(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.count)
    }

    /// Returns the digest of what went through.
    pub(crate) fn finish(self) -> Digest {
        Digest::finish(self.context)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.context.update(&buffer[..got]);
        self.count.set(self.count.get() + got as u64);
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_is_written_and_in_no_other_way() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(Digest::parse(empty).unwrap(), Digest::of(b""));
        let upper = empty.to_uppercase();
        for wrong in ["", "sha256:", "sha512:00", &empty[..70], &upper, "sha256:../../etc/passwd"] {
            assert!(Digest::parse(wrong).is_err(), "{wrong}");
        }
    }
}
