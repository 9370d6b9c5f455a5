//! Who may do what: keys, tokens, certificates, share tokens, roles, limits.
//!
//! [`Auth`] is made of a data directory and of [`Settings`]. Its [`Auth::guard`] goes around the
//! whole router: it says who makes a request (`layer.rs`), whether the table of methods lets them
//! (`role.rs`) and the limits do (`limits.rs`), and leaves a grant with the request that every
//! handler asks before it does something in a namespace or with a session (`grant.rs`).
//!
//! Nothing that was sent as a credential is stored, logged or repeated in an answer.
//! `docs/security.md` says what is promised and against whom.

mod base32;
pub mod certificate;
mod error;
pub(crate) mod file;
mod grant;
mod held;
pub mod jwt;
mod key;
pub mod keys;
mod layer;
pub mod limits;
pub mod role;
pub mod share;

pub use error::KeepError;
pub use keys::{Key, Keys, Made, NewKey};
pub use role::Role;
pub use share::{Shared, Shares};

use crate::audit::Audit;
use crate::serve::Guard;
use ax_core::id::Namespace;
use ax_core::time::Timestamp;
use ax_engine::{Code, Error};
use axum::middleware::from_fn_with_state;
use grant::{Known, Scope};
use limits::{Limits, Quota};
use serde::Deserialize;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// How callers are known, and how much they may ask for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Tokens of an identity provider; none are believed if absent.
    pub jwt: Option<jwt::Settings>,
    /// What the owners of client certificates may do. A certificate that no rule names is good
    /// for nothing.
    pub certificates: Vec<certificate::Rule>,
    /// How much anybody may ask for. It is no part of the file: it has settings of its own.
    #[serde(skip)]
    pub limits: limits::Settings,
}

/// What a caller sends to say who it is. It has no form in which it could be printed.
enum Credential {
    Key(String),
    Share(String),
    Token(String),
    /// A certificate that the connection was made with, in DER.
    Certificate(Arc<[u8]>),
    Other,
}

/// Reads an API key and writes it again; for `ax-fuzz`.
pub(crate) fn decodes_key(text: &str) -> Option<String> {
    key::Secret::parse(text).map(|secret| secret.text())
}

impl Credential {
    fn of(text: &str) -> Self {
        match text {
            text if text.starts_with(key::PREFIX) => Self::Key(text.into()),
            text if text.starts_with(share::PREFIX) => Self::Share(text.into()),
            text if jwt::looks_like_token(text) => Self::Token(text.into()),
            _ => Self::Other,
        }
    }
}

/// Says who callers are and what they may do.
#[derive(Debug)]
pub struct Auth {
    keys: Keys,
    shares: Shares,
    audit: Audit,
    limits: Arc<Limits>,
    loaded: RwLock<Arc<Loaded>>,
}

#[derive(Debug)]
struct Loaded {
    tokens: Option<jwt::Tokens>,
    certificates: Vec<certificate::Rule>,
    limits: limits::Settings,
}

impl Loaded {
    fn new(settings: Settings) -> Result<Self, jwt::SettingsError> {
        for rule in &settings.certificates {
            rule.namespace.as_deref().map(Namespace::new).transpose()?;
        }
        Ok(Self {
            tokens: settings.jwt.map(jwt::Tokens::new).transpose()?,
            certificates: settings.certificates,
            limits: settings.limits,
        })
    }
}

impl Auth {
    /// Makes it for a data directory. Keys may be made and revoked later, by other processes, too.
    ///
    /// # Errors
    ///
    /// Returns a [`jwt::SettingsError`] if the settings do not do.
    pub fn open(data_dir: &Path, settings: Settings) -> Result<Arc<Self>, jwt::SettingsError> {
        Ok(Arc::new(Self {
            keys: Keys::of(data_dir),
            shares: Shares::of(data_dir),
            audit: Audit::of(data_dir),
            limits: Arc::default(),
            loaded: RwLock::new(Arc::new(Loaded::new(settings)?)),
        }))
    }

    /// Takes other settings; what is under way goes on under the old ones.
    ///
    /// # Errors
    ///
    /// Returns a [`jwt::SettingsError`] if they do not do. The old ones stay then.
    pub fn reload(&self, settings: Settings) -> Result<(), jwt::SettingsError> {
        let mut loaded = Loaded::new(settings)?;
        let before = self.loaded();
        loaded.tokens = match (loaded.tokens, &before.tokens) {
            (Some(tokens), Some(before)) => Some(tokens.after(before)),
            (tokens, _) => tokens,
        };
        let loaded = Arc::new(loaded);
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// The audit log, for others who have something to record.
    pub const fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Whether there is anybody who could be let in from afar, as far as is known now.
    pub fn knows_anybody(&self) -> bool {
        let loaded = self.loaded();
        let keys = self.keys.list().unwrap_or_default();
        loaded.tokens.is_some()
            || !loaded.certificates.is_empty()
            || keys.iter().any(|key| key.holds(self.now()))
    }

    /// What goes around the whole router of a server.
    pub fn guard(self: &Arc<Self>) -> Guard {
        let auth = Arc::clone(self);
        Guard(Arc::new(move |router| {
            router.layer(from_fn_with_state(Arc::clone(&auth), layer::guard))
        }))
    }

    fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn limits_now(&self) -> limits::Settings {
        self.loaded().limits
    }

    #[expect(clippy::unused_self, reason = "whose clock it is, is nobody else's business")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp { millis: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    }

    /// Says whose credential it is.
    async fn check(&self, credential: &Credential) -> Result<Known, Error> {
        match credential {
            Credential::Key(text) => self.key(text),
            Credential::Share(text) => self.share(text),
            Credential::Token(text) => self.token(text).await,
            Credential::Certificate(der) => self.certificate(der),
            Credential::Other => Err(unknown()),
        }
    }

    /// Checks that a credential still makes its owner who it was.
    fn still(&self, credential: &Credential, known: &Known) -> Result<(), Error> {
        let now = match credential {
            Credential::Key(text) => self.key(text)?,
            Credential::Share(text) => self.share(text)?,
            Credential::Certificate(der) => self.certificate(der)?,
            // It says itself how long it holds, and its issuer need not be asked again.
            Credential::Token(_) if known.until.is_some_and(|until| until <= self.now()) => {
                return Err(expired("the token"));
            }
            Credential::Token(_) if self.loaded().tokens.is_none() => return Err(unknown()),
            Credential::Token(_) | Credential::Other => return Ok(()),
        };
        if now == *known { Ok(()) } else { Err(unknown()) }
    }

    fn key(&self, text: &str) -> Result<Known, Error> {
        let key = self.keys.check(text, self.now()).map_err(|refused| match refused {
            keys::Refused::Unknown => unknown(),
            keys::Refused::Expired => expired("the key"),
        })?;
        Ok(Known {
            principal: format!("key:{}", key.name).into(),
            bucket: Some(format!("key:{}", key.id).into()),
            role: key.role,
            scope: scope(key.namespace.as_deref())?,
            until: None,
        })
    }

    fn share(&self, text: &str) -> Result<Known, Error> {
        let shared = self.shares.check(text, self.now()).map_err(|refused| match refused {
            share::Refused::Unknown => unknown(),
            share::Refused::Expired => expired("the share token"),
        })?;
        Ok(Known {
            principal: format!("share:{}", shared.session).into(),
            bucket: Some(format!("share:{}/{}", shared.namespace, shared.session).into()),
            role: Role::Viewer,
            scope: Scope::Session(shared.namespace, shared.session),
            until: None,
        })
    }

    async fn token(&self, text: &str) -> Result<Known, Error> {
        let loaded = self.loaded();
        let Some(tokens) = &loaded.tokens else { return Err(unknown()) };
        let subject = tokens.check(text, self.now()).await.map_err(|refused| match refused {
            jwt::Refused::Unknown => unknown(),
            jwt::Refused::Expired => expired("the token"),
            jwt::Refused::Nothing => {
                Error::new(Code::Forbidden, "the token has no role, or no namespace, that is known")
            }
        })?;
        Ok(Known {
            principal: format!("jwt:{}", subject.name).into(),
            bucket: Some(format!("jwt:{}/{}", subject.namespace, subject.name).into()),
            role: subject.role,
            scope: Scope::Namespace(subject.namespace),
            until: Some(subject.until),
        })
    }

    fn certificate(&self, der: &[u8]) -> Result<Known, Error> {
        let names = certificate::names(der);
        let loaded = self.loaded();
        let rule = loaded.certificates.iter().find(|rule| names.contains(&rule.name));
        let Some(rule) = rule else {
            let message = "the client's certificate is good, but no rule says for what";
            return Err(Error::new(Code::Forbidden, message));
        };
        Ok(Known {
            principal: rule.name.as_str().into(),
            bucket: Some(format!("certificate:{}", rule.name).into()),
            role: rule.role,
            scope: scope(rule.namespace.as_deref())?,
            until: None,
        })
    }
}

fn scope(namespace: Option<&str>) -> Result<Scope, Error> {
    match namespace {
        None => Ok(Scope::Everywhere),
        Some(namespace) => match Namespace::new(namespace) {
            Ok(namespace) => Ok(Scope::Namespace(namespace)),
            Err(_) => Err(unknown()),
        },
    }
}

/// It is the same for what never was a credential, and for one that was revoked.
fn unknown() -> Error {
    Error::new(Code::Unauthenticated, "the credential is not valid")
}

fn expired(what: &str) -> Error {
    Error::new(Code::Expired, format!("{what} has expired"))
}

/// Under what failures of an address are counted.
fn address_bucket(address: IpAddr, limits: limits::Settings) -> (Arc<str>, Quota) {
    let network = match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => address.to_string(),
            None => format!("{:x}", address.to_bits() >> 64),
        },
    };
    let per_second = limits.failures_per_second;
    let quota = Quota { per_second, burst: per_second, calls: u32::MAX, streams: u32::MAX };
    (format!("address:{network}").into(), quota)
}
