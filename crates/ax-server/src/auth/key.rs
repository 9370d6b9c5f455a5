//! What an API key looks like, and what is kept of it.

use super::base32;
use std::fmt;

/// What every key begins with, so that tools that look for lost secrets find it.
pub(super) const PREFIX: &str = "axk_";
/// The length of a key's id, in bytes of randomness; 12 characters.
const ID_BYTES: usize = 7;
/// The length of the secret, in bytes: nobody guesses 256 bits.
const SECRET_BYTES: usize = 32;
/// What the hash of a secret is for, so that it is of no use elsewhere.
const CONTEXT: &str = "agent-executor 2026-11 hash of the secret of an API key";

/// A key as its owner has it. It is never stored and never printed but once.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret {
    /// Names the key; no secret.
    pub(super) id: String,
    bytes: [u8; SECRET_BYTES],
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}, …)", self.id)
    }
}

/// Makes the id of a key.
pub(super) fn fresh_id() -> Result<String, getrandom::Error> {
    let mut id = [0; ID_BYTES];
    getrandom::fill(&mut id)?;
    Ok(base32::encode(&id))
}

impl Secret {
    /// Makes a secret for the key with this id.
    pub(super) fn fresh(id: String) -> Result<Self, getrandom::Error> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self { id, bytes })
    }

    /// Reads a key; `None` if it is none, which includes one that was misspelt.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (id, rest) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let (secret, check) = rest.split_at_checked((SECRET_BYTES * 8).div_ceil(5))?;
        let bytes = base32::decode(secret)?.try_into().ok()?;
        let read = Self { id: id.to_owned(), bytes };
        (base32::decode(id)?.len() == ID_BYTES && read.check() == check).then_some(read)
    }

    /// Writes the key: `axk_`, the id, `_`, the secret, and a checksum of all that.
    pub(super) fn text(&self) -> String {
        format!("{}{}", self.unchecked(), self.check())
    }

    fn unchecked(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, base32::encode(&self.bytes))
    }

    fn check(&self) -> String {
        base32::encode(&crc32c::crc32c(self.unchecked().as_bytes()).to_be_bytes())
    }

    /// What is kept. A fast hash is right here: the secret is 256 random bits, so that there is
    /// nothing to try. Comparing two of them takes the same time wherever they differ.
    pub(super) fn hash(&self) -> blake3::Hash {
        let key = blake3::derive_key(CONTEXT, &self.bytes);
        blake3::Hash::from_bytes(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_a_misspelt_one_does_not() {
        let key = Secret::fresh(fresh_id().unwrap()).unwrap();
        let text = key.text();
        assert_eq!(text.len(), 4 + 12 + 1 + 52 + 7);
        assert_eq!(Secret::parse(&text).unwrap(), key);
        for (at, _) in text.char_indices() {
            let mut wrong = text.clone().into_bytes();
            wrong[at] = if wrong[at] == b'7' { b'8' } else { b'7' };
            assert_eq!(Secret::parse(&String::from_utf8(wrong).unwrap()), None, "{at}");
            assert_eq!(Secret::parse(&text[..at]), None);
        }
        assert_eq!(Secret::parse(&format!("{text}0")), None);
        assert!(!format!("{key:?}").contains(&text[20..]));
    }

    #[test]
    fn a_hash_says_nothing_of_its_secret() {
        let key = Secret::fresh(fresh_id().unwrap()).unwrap();
        let other = Secret::fresh(key.id.clone()).unwrap();
        assert_ne!(key.hash(), other.hash());
        assert_ne!(key.hash(), blake3::hash(&key.bytes));
    }
}
