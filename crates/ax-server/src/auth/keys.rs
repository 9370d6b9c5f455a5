//! The API keys of a data directory: `auth/keys.json`, which `docs/formats/keys.md` describes.
//!
//! Whoever owns the directory changes the file by replacing it, under a lock; a server looks at
//! its stamp before it believes a key, so that a key that was revoked is refused at once.

use super::error::KeepError;
use super::file::{self, Stamp};
use super::key::{self, Secret};
use super::role::Role;
use ax_core::id::Namespace;
use ax_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The longest name of a key, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// The most keys of a data directory; those that were revoked or expired count until removed.
pub const KEY_COUNT_MAX: usize = 10_000;
/// How long the old secret of a rotated key holds at most, in milliseconds: thirty days.
pub const GRACE_MILLIS_MAX: u64 = 30 * 24 * 3_600_000;
/// How long a key that no longer holds is remembered, in milliseconds: ninety days.
const REMEMBERED_MILLIS: u64 = 90 * 24 * 3_600_000;
const VERSION: u32 = 1;

/// What is known of a key. There is no secret in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// What it is called in the key itself: 12 characters.
    pub id: String,
    /// What people call it; unique among the keys that hold.
    pub name: String,
    /// What its owner may do.
    pub role: Role,
    /// Where; everywhere if absent.
    pub namespace: Option<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_at_millis: u64,
    /// From when on it no longer holds; never if absent.
    pub expires_at_millis: Option<u64>,
    /// When it was revoked.
    pub revoked_at_millis: Option<u64>,
    /// When it got the secret that it has.
    pub rotated_at_millis: Option<u64>,
    /// The hash of its secret, in hexadecimal digits.
    hash: String,
    /// The hash of the secret before, and until when that holds.
    before: Option<Before>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Before {
    hash: String,
    until_millis: u64,
}

impl Key {
    /// Whether it can be used at a time.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.revoked_at_millis.is_none() && !self.expired(now)
    }

    /// Until when the secret before holds, if it does.
    pub fn grace_until_millis(&self) -> Option<u64> {
        self.before.as_ref().map(|before| before.until_millis)
    }

    fn expired(&self, now: Timestamp) -> bool {
        self.expires_at_millis.is_some_and(|at| at <= now.millis)
    }

    fn forgotten(&self, now: Timestamp) -> bool {
        let over = self.revoked_at_millis.or(self.expires_at_millis);
        over.is_some_and(|at| at.saturating_add(REMEMBERED_MILLIS) <= now.millis)
    }

    /// Compares with all that may hold; each comparison takes the same time.
    fn knows(&self, hash: &blake3::Hash, now: Timestamp) -> bool {
        let same = |kept: &str| blake3::Hash::from_hex(kept).is_ok_and(|kept| kept == *hash);
        let before = self.before.as_ref().filter(|before| now.millis < before.until_millis);
        let (this, that) = (same(&self.hash), before.is_some_and(|before| same(&before.hash)));
        this | that
    }
}

/// What a new key shall be.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// What people call it.
    pub name: String,
    /// What its owner may do.
    pub role: Role,
    /// Where; everywhere if `None`.
    pub namespace: Option<Namespace>,
    /// From when on it no longer holds.
    pub expires_at: Option<Timestamp>,
}

/// A key and its text, which is shown once.
#[derive(Debug)]
pub struct Made {
    /// What is known of it.
    pub key: Key,
    /// What its owner sends.
    pub text: String,
}

/// Why a key is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is no key of ours, or no longer.
    Unknown,
    /// It was one.
    Expired,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    keys: Vec<Key>,
}

/// The keys of a data directory.
#[derive(Debug)]
pub struct Keys {
    dir: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    stamp: Stamp,
    keys: Arc<[Key]>,
}

impl Keys {
    /// The keys of a data directory; nothing is read or made yet.
    pub fn of(data_dir: &Path) -> Self {
        Self { dir: file::dir_in(data_dir), seen: Mutex::default() }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("keys.json")
    }

    /// Makes a key.
    ///
    /// # Errors
    ///
    /// Returns a [`KeepError`] if the name is taken or the file cannot be written.
    pub fn create(&self, new: NewKey, now: Timestamp) -> Result<Made, KeepError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if new.name.is_empty() || new.name.len() > NAME_BYTES_MAX || !new.name.bytes().all(plain) {
            return Err(KeepError::Name);
        }
        self.change(now, |keys| {
            if keys.iter().any(|key| key.name == new.name && key.holds(now)) {
                return Err(KeepError::Taken { name: new.name });
            }
            if keys.len() >= KEY_COUNT_MAX {
                return Err(KeepError::TooMany);
            }
            let id = key::fresh_id().map_err(KeepError::Random)?;
            let secret = Secret::fresh(id.clone()).map_err(KeepError::Random)?;
            let key = Key {
                id,
                name: new.name,
                role: new.role,
                namespace: new.namespace.map(|namespace| namespace.to_string()),
                created_at_millis: now.millis,
                expires_at_millis: new.expires_at.map(|at| at.millis),
                revoked_at_millis: None,
                rotated_at_millis: None,
                hash: secret.hash().to_hex().to_string(),
                before: None,
            };
            keys.push(key.clone());
            Ok(Made { key, text: secret.text() })
        })
    }

    /// Lists the keys, also those that no longer hold, in the order they were made.
    ///
    /// # Errors
    ///
    /// Returns a [`KeepError`] if they cannot be read.
    pub fn list(&self) -> Result<Vec<Key>, KeepError> {
        Ok(self.read()?.1)
    }

    /// Revokes a key, by its id or name. It is refused from now on.
    ///
    /// # Errors
    ///
    /// Returns a [`KeepError`] if there is none or the file cannot be written.
    pub fn revoke(&self, name: &str, now: Timestamp) -> Result<Key, KeepError> {
        self.change(now, |keys| {
            let key = find(keys, name, now)?;
            key.revoked_at_millis = Some(now.millis);
            key.before = None;
            Ok(key.clone())
        })
    }

    /// Gives a key another secret. The one before holds for a while.
    ///
    /// # Errors
    ///
    /// Returns a [`KeepError`] if there is none or the file cannot be written.
    pub fn rotate(&self, name: &str, grace_millis: u64, now: Timestamp) -> Result<Made, KeepError> {
        self.change(now, |keys| {
            let key = find(keys, name, now)?;
            let secret = Secret::fresh(key.id.clone()).map_err(KeepError::Random)?;
            let grace = grace_millis.min(GRACE_MILLIS_MAX);
            let hash = std::mem::replace(&mut key.hash, secret.hash().to_hex().to_string());
            let until_millis = now.millis.saturating_add(grace);
            key.before = (grace > 0).then_some(Before { hash, until_millis });
            key.rotated_at_millis = Some(now.millis);
            Ok(Made { key: key.clone(), text: secret.text() })
        })
    }

    /// Finds the key that somebody has sent.
    pub(super) fn check(&self, text: &str, now: Timestamp) -> Result<Key, Refused> {
        let secret = Secret::parse(text).ok_or(Refused::Unknown)?;
        let keys = self.seen().map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, cause, "no key is believed");
            Refused::Unknown
        })?;
        let hash = secret.hash();
        let named = keys.iter().find(|key| key.id == secret.id);
        match named.filter(|key| key.knows(&hash, now)) {
            Some(key) if key.revoked_at_millis.is_some() => Err(Refused::Unknown),
            Some(key) if key.expired(now) => Err(Refused::Expired),
            Some(key) => Ok(key.clone()),
            None => Err(Refused::Unknown),
        }
    }

    /// The keys as the file has them now; it is read only if it has changed.
    fn seen(&self) -> Result<Arc<[Key]>, KeepError> {
        let path = self.path();
        let stamp = Stamp::of(&path).map_err(KeepError::io(&path))?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.stamp != stamp {
            let (stamp, keys) = self.read()?;
            *seen = Seen { stamp, keys: keys.into() };
        }
        Ok(Arc::clone(&seen.keys))
    }

    fn read(&self) -> Result<(Stamp, Vec<Key>), KeepError> {
        let path = self.path();
        let (stamp, content) = file::read(&path).map_err(KeepError::io(&path))?;
        let Some(content) = content else { return Ok((stamp, Vec::new())) };
        let damaged = |what: String| KeepError::Damaged { path: path.clone(), what };
        let stored: Stored = serde_json::from_slice(&content).map_err(|error| {
            // The message of the parser may repeat what it found.
            damaged(format!("line {}, column {}", error.line(), error.column()))
        })?;
        if stored.version != VERSION {
            return Err(damaged(format!("its version is {}", stored.version)));
        }
        Ok((stamp, stored.keys))
    }

    fn change<T>(
        &self,
        now: Timestamp,
        change: impl FnOnce(&mut Vec<Key>) -> Result<T, KeepError>,
    ) -> Result<T, KeepError> {
        file::make_dir(&self.dir).map_err(KeepError::io(&self.dir))?;
        let _lock = file::lock(&self.dir).map_err(KeepError::io(&self.dir))?;
        let (_, mut keys) = self.read()?;
        keys.retain(|key| !key.forgotten(now));
        let done = change(&mut keys)?;
        let stored = Stored { version: VERSION, keys };
        let text = serde_json::to_vec_pretty(&stored).expect("keys are plain texts and numbers");
        let path = self.path();
        file::replace(&path, &text).map_err(KeepError::io(&path))?;
        Ok(done)
    }
}

/// Finds a key that holds by its id or name.
fn find<'a>(keys: &'a mut [Key], name: &str, now: Timestamp) -> Result<&'a mut Key, KeepError> {
    let id = name.strip_prefix(key::PREFIX).unwrap_or(name);
    let at = keys.iter().position(|key| (key.id == id || key.name == name) && key.holds(now));
    match at {
        Some(at) => Ok(&mut keys[at]),
        None if keys.iter().any(|key| key.id == id || key.name == name) => {
            Err(KeepError::Revoked { name: name.into() })
        }
        None => Err(KeepError::NoKey { name: name.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Timestamp {
        Timestamp { millis }
    }

    fn new(name: &str) -> NewKey {
        NewKey { name: name.into(), role: Role::Viewer, namespace: None, expires_at: None }
    }

    #[test]
    fn a_key_holds_until_it_is_revoked_in_a_running_server_too() {
        let dir = tempfile::tempdir().unwrap();
        let (keys, server) = (Keys::of(dir.path()), Keys::of(dir.path()));
        let made = keys.create(new("ci"), at(1)).unwrap();
        assert_eq!(server.check(&made.text, at(2)).unwrap(), made.key);
        assert!(matches!(keys.create(new("ci"), at(2)), Err(KeepError::Taken { .. })));
        keys.revoke("ci", at(3)).unwrap();
        assert_eq!(server.check(&made.text, at(4)), Err(Refused::Unknown));
        assert!(matches!(keys.revoke("ci", at(5)), Err(KeepError::Revoked { .. })));
        let again = keys.create(new("ci"), at(6)).unwrap();
        assert_eq!(server.check(&again.text, at(7)).unwrap().name, "ci");
        assert_eq!(keys.list().unwrap().len(), 2);
    }

    #[test]
    fn the_secret_before_holds_for_the_time_of_grace() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::of(dir.path());
        let old = keys.create(new("ci"), at(1)).unwrap().text;
        let made = keys.rotate("ci", 100, at(10)).unwrap();
        assert!(keys.check(&old, at(109)).is_ok());
        assert_eq!(keys.check(&old, at(110)), Err(Refused::Unknown));
        assert!(keys.check(&made.text, at(110)).is_ok());
        let newest = keys.rotate(&made.key.id, 0, at(120)).unwrap();
        assert_eq!(keys.check(&made.text, at(120)), Err(Refused::Unknown));
        assert!(keys.check(&newest.text, at(120)).is_ok());
    }

    #[test]
    fn an_expired_key_says_so_only_to_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::of(dir.path());
        let made = keys.create(NewKey { expires_at: Some(at(50)), ..new("ci") }, at(1)).unwrap();
        assert!(keys.check(&made.text, at(49)).is_ok());
        assert_eq!(keys.check(&made.text, at(50)), Err(Refused::Expired));
        let guess = Secret::fresh(made.key.id).unwrap().text();
        assert_eq!(keys.check(&guess, at(50)), Err(Refused::Unknown));
    }

    #[test]
    fn no_secret_is_stored_and_damage_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::of(dir.path());
        let made = keys.create(new("ci"), at(1)).unwrap();
        let path = keys.path();
        let stored = std::fs::read_to_string(&path).unwrap();
        let (_, secret) = made.text.rsplit_once('_').unwrap();
        assert!(!stored.contains(secret) && !stored.contains(&secret[..20]));
        std::fs::write(&path, &stored[..stored.len() / 2]).unwrap();
        assert_eq!(keys.check(&made.text, at(2)), Err(Refused::Unknown));
        assert!(matches!(keys.create(new("x"), at(2)), Err(KeepError::Damaged { .. })));
        std::fs::write(&path, stored).unwrap();
        assert!(keys.check(&made.text, at(2)).is_ok());
    }

    #[test]
    fn names_are_plain_and_old_keys_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::of(dir.path());
        for wrong in ["", "a b", "ä", "a\nb", &"x".repeat(65)] {
            assert!(matches!(keys.create(new(wrong), at(1)), Err(KeepError::Name)), "{wrong:?}");
        }
        keys.create(new("old"), at(1)).unwrap();
        keys.revoke("old", at(2)).unwrap();
        keys.create(new("new"), at(3 + REMEMBERED_MILLIS)).unwrap();
        assert_eq!(keys.list().unwrap().len(), 1);
    }
}
