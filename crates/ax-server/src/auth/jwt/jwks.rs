//! The keys of an issuer (RFC 7517), fetched when they are needed.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How long keys are used before they are fetched again.
const FRESH_MAX: Duration = Duration::from_secs(10 * 60);
/// How long keys are used when they cannot be fetched again.
const STALE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long to wait at least from one fetch to the next, whatever tokens say.
const FETCH_PAUSE: Duration = Duration::from_secs(30);
/// How long a fetch takes at most.
const FETCH_MAX: Duration = Duration::from_secs(10);
/// The largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 512 << 10;
/// The most keys that are looked at.
const KEY_COUNT_MAX: usize = 100;

/// Why keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// The address is not safe, or none.
    #[error("{0:?} is neither a path nor an address with https://")]
    Address(String),
    /// There is no client.
    #[error("keys cannot be fetched")]
    Client(#[source] reqwest::Error),
    /// The request failed.
    #[error("the keys cannot be fetched")]
    Fetch(#[source] reqwest::Error),
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The answer is too long.
    #[error("the keys are longer than {ANSWER_BYTES_MAX} bytes")]
    Large,
    /// The answer is no set of keys.
    #[error("what was found are no keys: line {line}, column {column}")]
    Form {
        /// Where the form is wrong.
        line: usize,
        /// Where in that line.
        column: usize,
    },
    /// The configuration at the issuer's address is of another issuer.
    #[error("the configuration of the issuer names another one")]
    Issuer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Keys(reqwest::Url),
    Configuration { address: reqwest::Url, issuer: String },
}

#[derive(Debug)]
pub(super) struct Jwks {
    source: Source,
    client: reqwest::Client,
    seen: Mutex<Seen>,
    /// Who has it fetches. What is known can be read meanwhile.
    turn: Semaphore,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    keys: Arc<Vec<Jwk>>,
    /// When they were fetched.
    fetched_at: Option<Instant>,
    /// When it was tried the last time.
    tried_at: Option<Instant>,
    /// They may have changed, whenever they were fetched.
    doubtful: bool,
}

impl Seen {
    /// Whether keys are to be fetched for a token with this key id, and may be.
    fn needs_more(&self, id: Option<&str>) -> bool {
        let may_try = age(self.tried_at).is_none_or(|age| age >= FETCH_PAUSE);
        let old = self.doubtful || age(self.fetched_at).is_none_or(|age| age >= FRESH_MAX);
        may_try && (old || self.find(id).is_none())
    }

    /// Finds a key that may still be used.
    fn find(&self, id: Option<&str>) -> Option<&Jwk> {
        let usable = age(self.fetched_at).is_some_and(|age| age < STALE_MAX);
        find(&self.keys, id).filter(|_| usable)
    }
}

fn age(since: Option<Instant>) -> Option<Duration> {
    since.map(|since| since.elapsed())
}

#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

/// A set as it is published: keys of kinds that we do not know are passed over.
#[derive(Deserialize)]
struct Published {
    keys: Vec<serde_json::Value>,
}

impl Jwks {
    pub(super) fn new(issuer: &str, jwks: Option<&str>) -> Result<Self, JwksError> {
        let source = match jwks {
            Some(path) if !path.contains("://") => Source::File(path.into()),
            Some(url) => Source::Keys(address(url)?),
            None => {
                let end = "/.well-known/openid-configuration";
                let address = address(&format!("{}{end}", issuer.trim_end_matches('/')))?;
                Source::Configuration { address, issuer: issuer.into() }
            }
        };
        // If there is one already, it is as good.
        let _there = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(FETCH_MAX)
            .build()
            .map_err(JwksError::Client)?;
        Ok(Self { source, client, seen: Mutex::default(), turn: Semaphore::new(1) })
    }

    /// Whether the keys come from the same place.
    pub(super) fn has_source_of(&self, other: &Self) -> bool {
        self.source == other.source
    }

    /// Fetches before the keys are used the next time. If that fails, they are still known.
    pub(super) fn doubt(&self) {
        let mut seen = self.lock();
        (seen.doubtful, seen.tried_at) = (true, None);
    }

    /// The key with this id that is good for this algorithm. A token without an id does if there
    /// is only one key.
    pub(super) async fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let mut seen = self.lock().clone();
        if seen.needs_more(id) {
            // One fetch at a time. Who has a key that will do does not wait for that of another.
            let turn = match seen.find(id) {
                Some(_) => self.turn.try_acquire().ok(),
                None => self.turn.acquire().await.ok(),
            };
            if turn.is_some() {
                self.renew(id).await;
            }
            seen = self.lock().clone();
        }
        let jwk = seen.find(id).filter(|jwk| fits(jwk, algorithm))?;
        DecodingKey::from_jwk(jwk).ok()
    }

    /// Fetches, unless somebody has done so meanwhile.
    async fn renew(&self, id: Option<&str>) {
        {
            let mut seen = self.lock();
            if !seen.needs_more(id) {
                return;
            }
            seen.tried_at = Some(Instant::now());
        }
        match self.fetch().await {
            Ok(keys) => {
                tracing::debug!(count = keys.len(), "the issuer's keys were fetched");
                let mut seen = self.lock();
                (seen.keys, seen.fetched_at) = (Arc::new(keys), Some(Instant::now()));
                seen.doubtful = false;
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "the issuer's keys are the old ones");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self) -> Result<Vec<Jwk>, JwksError> {
        let text = match &self.source {
            Source::File(path) => tokio::fs::read(path)
                .await
                .map_err(|source| JwksError::Read { path: path.clone(), source })?,
            Source::Keys(url) => self.get(url.clone()).await?,
            Source::Configuration { address: at, issuer } => {
                let text = self.get(at.clone()).await?;
                let said: Configuration = serde_json::from_slice(&text).map_err(form)?;
                if said.issuer != *issuer {
                    return Err(JwksError::Issuer);
                }
                self.get(address(&said.jwks_uri)?).await?
            }
        };
        read(&text)
    }

    async fn get(&self, url: reqwest::Url) -> Result<Vec<u8>, JwksError> {
        let failed = |error: reqwest::Error| JwksError::Fetch(error.without_url());
        let answer = self.client.get(url).send().await.map_err(failed)?;
        let mut answer = answer.error_for_status().map_err(failed)?;
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            text.extend_from_slice(&chunk);
            if text.len() > ANSWER_BYTES_MAX {
                return Err(JwksError::Large);
            }
        }
        Ok(text)
    }
}

fn form(error: serde_json::Error) -> JwksError {
    JwksError::Form { line: error.line(), column: error.column() }
}

fn read(text: &[u8]) -> Result<Vec<Jwk>, JwksError> {
    let published: Published = serde_json::from_slice(text).map_err(form)?;
    let keys = published.keys.into_iter().take(KEY_COUNT_MAX);
    let keys = keys.filter_map(|key| serde_json::from_value(key).ok()).collect();
    Ok(keys)
}

/// An address that nobody on the way can change: `https`, or the own machine.
fn address(text: &str) -> Result<reqwest::Url, JwksError> {
    let wrong = || JwksError::Address(text.into());
    let url: reqwest::Url = text.parse().map_err(|_| wrong())?;
    let host = url.host_str().unwrap_or_default();
    let local = ["127.0.0.1", "[::1]", "localhost"].contains(&host);
    let safe = url.scheme() == "https" || url.scheme() == "http" && local;
    if safe && url.username().is_empty() && url.password().is_none() {
        Ok(url)
    } else {
        Err(wrong())
    }
}

fn find<'a>(keys: &'a [Jwk], id: Option<&str>) -> Option<&'a Jwk> {
    match id {
        Some(id) => keys.iter().find(|key| key.common.key_id.as_deref() == Some(id)),
        None => keys.first().filter(|_| keys.len() == 1),
    }
}

/// Whether a key is for verifying with this algorithm. A key that is not secret is never one for
/// algorithms with a shared secret.
fn fits(jwk: &Jwk, algorithm: Algorithm) -> bool {
    let family = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa,
        AlgorithmParameters::EllipticCurve(ec) => {
            let right = matches!(
                (&ec.curve, algorithm),
                (EllipticCurve::P256, Algorithm::ES256) | (EllipticCurve::P384, Algorithm::ES384)
            );
            if !right {
                return false;
            }
            AlgorithmFamily::Ec
        }
        AlgorithmParameters::OctetKeyPair(_) => AlgorithmFamily::Ed,
        AlgorithmParameters::OctetKey(_) => return false,
    };
    let common = &jwk.common;
    let same = common.key_algorithm.is_none_or(|named| {
        serde_json::to_value(named).ok() == serde_json::to_value(algorithm).ok()
    });
    let signs =
        common.public_key_use.as_ref().is_none_or(|known| matches!(known, PublicKeyUse::Signature));
    family == algorithm.family() && same && signs
}

/// When the keys were fetched, for tests that move the time.
#[cfg(test)]
pub(super) const PAUSE: Duration = FETCH_PAUSE;
