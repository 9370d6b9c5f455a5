//! Share tokens: the right to read one session, for a while, in a link.
//!
//! A token is not stored anywhere. It says what it is for, and a keyed hash of that shows that it
//! was made with the key in `auth/share.key`. Replacing the key revokes every token at once.

use super::base32;
use super::error::KeepError;
use super::file::{self, Stamp};
use ax_core::id::{Namespace, SessionId};
use ax_core::time::Timestamp;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What every share token begins with.
pub(super) const PREFIX: &str = "axs_";
/// How long a token holds at most, in milliseconds: a year.
pub const SHARE_MILLIS_MAX: u64 = 365 * 24 * 3_600_000;
/// What the first byte of a token is.
const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const MAC_BYTES: usize = 32;
/// Version, expiry, session.
const HEAD_BYTES: usize = 1 + 8 + 16;

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Where the session is.
    pub namespace: Namespace,
    /// The session.
    pub session: SessionId,
    /// From when on the token no longer holds.
    pub expires_at: Timestamp,
}

/// Why a token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is none of ours, or no longer.
    Unknown,
    /// It was one.
    Expired,
}

/// Makes and checks share tokens.
pub struct Shares {
    dir: PathBuf,
    seen: Mutex<(Stamp, Option<[u8; KEY_BYTES]>)>,
}

impl fmt::Debug for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shares({})", self.dir.display())
    }
}

impl Shares {
    /// The share tokens of a data directory; nothing is read or made yet.
    pub fn of(data_dir: &Path) -> Self {
        Self { dir: file::dir_in(data_dir), seen: Mutex::default() }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("share.key")
    }

    /// Makes a token.
    ///
    /// # Errors
    ///
    /// Returns a [`KeepError`] if there is no key and none can be made.
    pub fn make(&self, shared: &Shared) -> Result<String, KeepError> {
        let key = match self.key()? {
            Some(key) => key,
            None => self.first_key()?,
        };
        let mut bytes = body(shared);
        bytes.extend(blake3::keyed_hash(&key, &bytes).as_bytes());
        Ok(format!("{PREFIX}{}", base32::encode(&bytes)))
    }

    /// Replaces the key: no token that was made before holds any more.
    ///
    /// # Errors
    ///
    /// Returns a [`KeepError`] if it cannot be written.
    pub fn rotate(&self) -> Result<(), KeepError> {
        let _lock = self.lock()?;
        self.write_key().map(drop)
    }

    /// Says what a token is for.
    pub(crate) fn check(&self, text: &str, now: Timestamp) -> Result<Shared, Refused> {
        let bytes = text.strip_prefix(PREFIX).and_then(base32::decode).ok_or(Refused::Unknown)?;
        let at = bytes.len().checked_sub(MAC_BYTES).filter(|at| *at > HEAD_BYTES);
        let (body, mac) = bytes.split_at(at.ok_or(Refused::Unknown)?);
        let key = self.key().map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, cause, "no share token is believed");
            Refused::Unknown
        })?;
        let mac = mac.try_into().map(blake3::Hash::from_bytes).map_err(|_| Refused::Unknown)?;
        // Takes the same time wherever the two differ.
        if blake3::keyed_hash(&key.ok_or(Refused::Unknown)?, body) != mac {
            return Err(Refused::Unknown);
        }
        let shared = read(body).ok_or(Refused::Unknown)?;
        if shared.expires_at.millis <= now.millis { Err(Refused::Expired) } else { Ok(shared) }
    }

    fn key(&self) -> Result<Option<[u8; KEY_BYTES]>, KeepError> {
        let path = self.path();
        let stamp = Stamp::of(&path).map_err(KeepError::io(&path))?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != stamp {
            let (stamp, content) = file::read(&path).map_err(KeepError::io(&path))?;
            let key = content.map(<[u8; KEY_BYTES]>::try_from).transpose();
            let what = format!("it has not {KEY_BYTES} bytes");
            *seen = (stamp, key.map_err(|_| KeepError::Damaged { path, what })?);
        }
        Ok(seen.1)
    }

    fn first_key(&self) -> Result<[u8; KEY_BYTES], KeepError> {
        let _lock = self.lock()?;
        // Somebody else may have been faster.
        match self.key()? {
            Some(key) => Ok(key),
            None => self.write_key(),
        }
    }

    fn lock(&self) -> Result<std::fs::File, KeepError> {
        file::make_dir(&self.dir).map_err(KeepError::io(&self.dir))?;
        file::lock(&self.dir).map_err(KeepError::io(&self.dir))
    }

    fn write_key(&self) -> Result<[u8; KEY_BYTES], KeepError> {
        let mut key = [0; KEY_BYTES];
        getrandom::fill(&mut key).map_err(KeepError::Random)?;
        let path = self.path();
        file::replace(&path, &key).map_err(KeepError::io(&path))?;
        Ok(key)
    }
}

fn body(shared: &Shared) -> Vec<u8> {
    let namespace = shared.namespace.as_str().as_bytes();
    let mut bytes = Vec::with_capacity(HEAD_BYTES + namespace.len() + MAC_BYTES);
    bytes.push(VERSION);
    bytes.extend(shared.expires_at.millis.to_be_bytes());
    bytes.extend(shared.session.0.to_be_bytes());
    bytes.extend(namespace);
    bytes
}

fn read(body: &[u8]) -> Option<Shared> {
    let (version, rest) = body.split_first()?;
    let (millis, rest) = rest.split_first_chunk::<8>()?;
    let (session, namespace) = rest.split_first_chunk::<16>()?;
    (*version == VERSION).then_some(Shared {
        namespace: Namespace::new(std::str::from_utf8(namespace).ok()?).ok()?,
        session: SessionId(u128::from_be_bytes(*session)),
        expires_at: Timestamp { millis: u64::from_be_bytes(*millis) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp { millis: 1_000 };

    fn shared() -> Shared {
        let namespace = Namespace::new("acme").unwrap();
        let expires_at = Timestamp { millis: 2_000 };
        Shared { namespace, session: SessionId(77), expires_at }
    }

    #[test]
    fn a_token_holds_until_it_expires_or_the_key_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (shares, server) = (Shares::of(dir.path()), Shares::of(dir.path()));
        let token = shares.make(&shared()).unwrap();
        assert_eq!(server.check(&token, NOW).unwrap(), shared());
        assert_eq!(server.check(&token, Timestamp { millis: 2_000 }), Err(Refused::Expired));
        shares.rotate().unwrap();
        assert_eq!(server.check(&token, NOW), Err(Refused::Unknown));
        let again = shares.make(&shared()).unwrap();
        assert_eq!(server.check(&again, NOW).unwrap(), shared());
    }

    #[test]
    fn no_byte_of_a_token_can_be_changed() {
        let dir = tempfile::tempdir().unwrap();
        let shares = Shares::of(dir.path());
        let token = shares.make(&shared()).unwrap();
        for (at, old) in token.char_indices() {
            let new = if old == '7' { "8" } else { "7" };
            let mut forged = token.clone();
            forged.replace_range(at..=at, new);
            assert_eq!(shares.check(&forged, NOW), Err(Refused::Unknown), "{at}");
            assert_eq!(shares.check(&token[..at], NOW), Err(Refused::Unknown));
        }
    }

    #[test]
    fn without_a_key_nothing_is_believed() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let token = Shares::of(other.path()).make(&shared()).unwrap();
        assert_eq!(Shares::of(dir.path()).check(&token, NOW), Err(Refused::Unknown));
    }
}
