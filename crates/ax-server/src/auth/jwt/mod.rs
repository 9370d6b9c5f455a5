//! Tokens of an identity provider (OpenID Connect): who somebody is, as somebody else says.
//!
//! A token is believed if the issuer and the audience are ours, the time is right, and one of the
//! issuer's published keys has signed it with an algorithm that the settings name. What the header
//! of a token says chooses among those; it never widens the choice.

mod jwks;
mod verify;

pub use jwks::JwksError;

use super::role::Role;
use ax_core::id::Namespace;
use ax_core::time::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use jwks::Jwks;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// The longest name of a subject, in bytes.
const SUBJECT_BYTES_MAX: usize = 200;

/// How tokens of an identity provider are believed, and what they are good for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The issuer, exactly as the claim `iss` has it.
    pub issuer: String,
    /// The claim `aud` must be, or have, one of these.
    pub audience: Vec<String>,
    /// Where the issuer's keys are: an address with `https://`, or a path. An address with
    /// `http://` does on the own machine only. If absent, the issuer's own configuration says,
    /// at `/.well-known/openid-configuration`.
    #[serde(default)]
    pub jwks: Option<String>,
    /// The algorithms that are believed: `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`,
    /// `ES256`, `ES384`, `EdDSA`. None with a shared secret is among them.
    #[serde(default = "usual_algorithms")]
    pub algorithms: Vec<Alg>,
    /// How far clocks may differ, in seconds.
    #[serde(default = "usual_leeway")]
    pub leeway_seconds: u64,
    /// The claim that names the caller.
    #[serde(default = "usual_subject")]
    pub subject_claim: String,
    /// The claim that names the namespace; a path such as `org.tenant`.
    #[serde(default)]
    pub namespace_claim: Option<String>,
    /// The namespace if no claim names it. With neither, a token is good for nothing.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The claim that has the role: a text or a list of texts; a path such as `realm.roles`.
    #[serde(default = "usual_role")]
    pub role_claim: String,
    /// What a text of that claim makes of its owner; the highest role counts. Empty if the claim
    /// says viewer, operator or admin itself.
    #[serde(default)]
    pub roles: BTreeMap<String, Role>,
}

/// An algorithm that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names of RFC 7518 §3.1 and RFC 8037")]
pub enum Alg {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Alg {
    const fn algorithm(self) -> Algorithm {
        match self {
            Self::RS256 => Algorithm::RS256,
            Self::RS384 => Algorithm::RS384,
            Self::RS512 => Algorithm::RS512,
            Self::PS256 => Algorithm::PS256,
            Self::PS384 => Algorithm::PS384,
            Self::PS512 => Algorithm::PS512,
            Self::ES256 => Algorithm::ES256,
            Self::ES384 => Algorithm::ES384,
            Self::EdDSA => Algorithm::EdDSA,
        }
    }
}

fn usual_algorithms() -> Vec<Alg> {
    vec![Alg::RS256, Alg::ES256, Alg::EdDSA]
}

const fn usual_leeway() -> u64 {
    60
}

fn usual_subject() -> String {
    "sub".into()
}

fn usual_role() -> String {
    "role".into()
}

/// Why the settings do not do.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A field is empty.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// The namespace is none.
    #[error(transparent)]
    Namespace(#[from] ax_core::id::ParseError),
    /// The keys cannot be had from there.
    #[error(transparent)]
    Jwks(#[from] JwksError),
}

/// Who a token says somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(super) name: String,
    pub(super) namespace: Namespace,
    pub(super) role: Role,
    /// From when on the token no longer holds.
    pub(super) until: Timestamp,
}

/// Why a token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is no token, nobody we know has signed it, or it is for others.
    Unknown,
    /// It is no longer good.
    Expired,
    /// It is good, and says nothing that gives a right.
    Nothing,
}

/// Believes tokens, or not.
#[derive(Debug)]
pub(crate) struct Tokens {
    settings: Settings,
    jwks: Arc<Jwks>,
}

impl Tokens {
    pub(crate) fn new(settings: Settings) -> Result<Self, SettingsError> {
        if settings.issuer.is_empty() {
            return Err(SettingsError::Empty("issuer"));
        }
        if settings.audience.iter().all(String::is_empty) {
            return Err(SettingsError::Empty("audience"));
        }
        if settings.algorithms.is_empty() {
            return Err(SettingsError::Empty("algorithms"));
        }
        if let Some(namespace) = &settings.namespace {
            Namespace::new(namespace)?;
        }
        verify::install();
        let jwks = Arc::new(Jwks::new(&settings.issuer, settings.jwks.as_deref())?);
        Ok(Self { settings, jwks })
    }

    /// Goes on with the keys that were known before, if they come from the same place. They are
    /// fetched before they are used, and used if they cannot be.
    pub(super) fn after(mut self, before: &Self) -> Self {
        if self.jwks.has_source_of(&before.jwks) {
            self.jwks = Arc::clone(&before.jwks);
            self.jwks.doubt();
        }
        self
    }

    /// Says who a token is of.
    pub(crate) async fn check(&self, token: &str, now: Timestamp) -> Result<Subject, Refused> {
        let header = looks_like_token(token).then(|| jsonwebtoken::decode_header(token));
        let header = header.and_then(Result::ok).ok_or(Refused::Unknown)?;
        // An extension that must be understood is not (RFC 7515 §4.1.11).
        if header.crit.is_some() || header.enc.is_some() || header.zip.is_some() {
            return Err(Refused::Unknown);
        }
        let known = self.settings.algorithms.iter().any(|alg| alg.algorithm() == header.alg);
        if !known {
            return Err(Refused::Unknown);
        }
        let key = self.jwks.key(header.kid.as_deref(), header.alg).await;
        let key = key.ok_or(Refused::Unknown)?;
        let (claims, until) = self.claims(token, &header, &key, now)?;
        self.subject(&claims, until).ok_or(Refused::Nothing)
    }

    fn claims(
        &self,
        token: &str,
        header: &Header,
        key: &DecodingKey,
        now: Timestamp,
    ) -> Result<(Value, Timestamp), Refused> {
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&self.settings.audience);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        // The times are compared below, with our clock.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let decoded = jsonwebtoken::decode::<Value>(token, key, &validation);
        let claims = decoded.map_err(|_| Refused::Unknown)?.claims;
        // A list of issuers is none.
        if claims.get("iss").and_then(Value::as_str) != Some(&self.settings.issuer) {
            return Err(Refused::Unknown);
        }
        let leeway = self.settings.leeway_seconds;
        let now = now.millis / 1000;
        let seconds = |claim: &str| match claims.get(claim) {
            None => Ok(None),
            Some(value) => time(value).map(Some).ok_or(Refused::Unknown),
        };
        let until = seconds("exp")?.ok_or(Refused::Unknown)?.saturating_add(leeway);
        if until <= now {
            return Err(Refused::Expired);
        }
        let early = |from: Option<u64>| from.is_some_and(|from| from > now.saturating_add(leeway));
        if early(seconds("nbf")?) || early(seconds("iat")?) {
            return Err(Refused::Unknown);
        }
        Ok((claims, Timestamp { millis: until.saturating_mul(1_000) }))
    }

    fn subject(&self, claims: &Value, until: Timestamp) -> Option<Subject> {
        let settings = &self.settings;
        let name = at(claims, &settings.subject_claim)?.as_str()?;
        let plain = !name.is_empty() && name.len() <= SUBJECT_BYTES_MAX;
        if !plain || name.chars().any(char::is_control) {
            return None;
        }
        let named = match &settings.namespace_claim {
            Some(claim) => at(claims, claim).map(Value::as_str),
            None => None,
        };
        // A claim that is there and no text is no reason to fall back.
        let namespace = match named {
            Some(named) => named?,
            None => settings.namespace.as_deref()?,
        };
        let role = at(claims, &settings.role_claim)?;
        let texts = match role {
            Value::Array(texts) => texts.iter().filter_map(Value::as_str).collect(),
            role => vec![role.as_str()?],
        };
        let role = texts.into_iter().filter_map(|text| self.role(text)).max()?;
        let namespace = Namespace::new(namespace).ok()?;
        Some(Subject { name: name.into(), namespace, role, until })
    }

    fn role(&self, text: &str) -> Option<Role> {
        if self.settings.roles.is_empty() {
            return text.parse().ok();
        }
        self.settings.roles.get(text).copied()
    }
}

/// Whether a text has the form of a token: three parts.
pub(crate) fn looks_like_token(text: &str) -> bool {
    text.len() <= TOKEN_BYTES_MAX && text.split('.').count() == 3
}

/// A point in time as claims have it: seconds since 1970, perhaps with a fraction.
fn time(value: &Value) -> Option<u64> {
    let whole = value.as_u64();
    let fraction = || value.as_f64().filter(|seconds| (0.0..9.0e15).contains(seconds));
    #[expect(clippy::cast_possible_truncation, reason = "the bounds are checked")]
    #[expect(clippy::cast_sign_loss, reason = "the bounds are checked")]
    whole.or_else(|| fraction().map(|seconds| seconds as u64))
}

/// Finds a claim: by its whole name, else by its path.
fn at<'a>(claims: &'a Value, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    path.split('.').try_fold(claims, |value, name| value.get(name))
}

#[cfg(test)]
mod tests;
