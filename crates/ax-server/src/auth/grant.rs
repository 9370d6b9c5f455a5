//! What a known caller may do, asked by every handler before it does anything.

use super::limits::Quota;
use super::role::{Need, Role};
use super::{Auth, Credential};
use crate::caller::{Act, Grant};
use ax_core::id::{Namespace, SessionId};
use ax_core::time::Timestamp;
use ax_engine::{Code, Error, SessionRef};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Where somebody may do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// In every namespace, and with the server itself.
    Everywhere,
    /// In this namespace. Others are not to be known of.
    Namespace(Namespace),
    /// With this session only.
    Session(Namespace, SessionId),
}

/// Somebody whose credential was believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// What events call them.
    pub(super) principal: Arc<str>,
    /// What their requests are counted under; nothing is counted if `None`.
    pub(super) bucket: Option<Arc<str>>,
    pub(super) role: Role,
    pub(super) scope: Scope,
    /// From when on they are not known any more, if their credential says so itself.
    pub(super) until: Option<Timestamp>,
}

impl Known {
    /// Whether they have what a method needs.
    pub(super) fn has(&self, need: Need, shared: bool) -> Result<(), Error> {
        let (role, everywhere) = match need {
            Need::Nothing => return Ok(()),
            Need::Role(role) => (role, false),
            Need::Everywhere(role) => (role, true),
        };
        if matches!(self.scope, Scope::Session(..)) && !shared {
            let message = "a share token is good for reading its session and nothing else";
            return Err(Error::new(Code::Forbidden, message));
        }
        if self.role < role {
            let message = format!("this needs the role {role}; yours is {}", self.role);
            return Err(Error::new(Code::Forbidden, message));
        }
        if everywhere && self.scope != Scope::Everywhere {
            return Err(of_all());
        }
        Ok(())
    }

    /// Under what a request counts: the caller, and the namespace it is bound to.
    pub(super) fn buckets(&self, auth: &Auth) -> Vec<(Arc<str>, Quota)> {
        let Some(bucket) = &self.bucket else { return Vec::new() };
        let limits = auth.limits_now();
        let mut buckets = vec![(Arc::clone(bucket), limits.caller)];
        if let Scope::Namespace(namespace) | Scope::Session(namespace, _) = &self.scope {
            buckets.push((format!("namespace:{namespace}").into(), limits.namespace));
        }
        buckets
    }
}

fn of_all() -> Error {
    let message = "this concerns the whole server, and your credential is for one namespace";
    Error::new(Code::Forbidden, message)
}

/// What is known of a request in the end, for the audit log.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    pub(super) namespace: Option<Namespace>,
    pub(super) session: Option<SessionId>,
    /// What the handlers were told not to do.
    pub(super) refused: Option<Code>,
    asked: bool,
}

/// The rights of one request.
pub(super) struct Rights {
    pub(super) auth: Arc<Auth>,
    pub(super) known: Known,
    /// What they were known by; nothing for those who need none.
    pub(super) credential: Option<Credential>,
    pub(super) about: Arc<Mutex<About>>,
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rights({:?})", self.known)
    }
}

impl Rights {
    /// Checks that the credential still holds, which it may not while a stream is open.
    pub(super) fn still(&self) -> Result<(), Error> {
        match &self.credential {
            Some(credential) => self.auth.still(credential, &self.known),
            None => Ok(()),
        }
    }

    fn decide(
        &self,
        act: Act,
        namespace: &Namespace,
        session: Option<SessionId>,
    ) -> Result<(), Error> {
        let missing = |session: SessionId| {
            Err(Error::new(Code::NoSession, format!("there is no session {session}")))
        };
        match (&self.known.scope, session) {
            (Scope::Everywhere, _) => {}
            (Scope::Namespace(own), Some(session)) if own != namespace => return missing(session),
            (Scope::Namespace(own), None) if own != namespace => {
                // It is the same for namespaces that are there and for those that are not.
                let message = format!("your credential is for the namespace {own} only");
                return Err(Error::new(Code::Forbidden, message));
            }
            (Scope::Namespace(_), _) => {}
            (Scope::Session(own, only), Some(session)) => {
                if (own, *only) != (namespace, session) {
                    return missing(session);
                }
            }
            (Scope::Session(..), None) => {
                let message = "a share token is good for reading its session and nothing else";
                return Err(Error::new(Code::Forbidden, message));
            }
        }
        self.known.has(Need::Role(role_of(act)), true)
    }
}

const fn role_of(act: Act) -> Role {
    match act {
        Act::Read => Role::Viewer,
        Act::Write => Role::Operator,
        Act::Administer => Role::Admin,
    }
}

impl Grant for Rights {
    fn home(&self) -> Namespace {
        match &self.known.scope {
            Scope::Everywhere => Namespace::default(),
            Scope::Namespace(own) | Scope::Session(own, _) => own.clone(),
        }
    }

    fn allow(
        &self,
        act: Act,
        namespace: &Namespace,
        session: Option<&SessionRef>,
    ) -> Result<(), Error> {
        let session = session.map(|session| session.id);
        let again = {
            let mut about = self.about.lock().unwrap_or_else(PoisonError::into_inner);
            about.namespace = Some(namespace.clone());
            about.session = session.or(about.session);
            std::mem::replace(&mut about.asked, true)
        };
        let mut decided = self.decide(act, namespace, session);
        // The first was checked and counted when the request came in; more may come over a stream.
        if decided.is_ok() && again {
            decided = self.still().and_then(|()| {
                let buckets = self.known.buckets(&self.auth);
                let taken = self.auth.limits.take(&buckets, Instant::now());
                taken.map_err(|over| over.error())
            });
        }
        if let Err(error) = &decided {
            let mut about = self.about.lock().unwrap_or_else(PoisonError::into_inner);
            about.refused = Some(error.code);
        }
        decided
    }

    fn allow_server(&self, act: Act) -> Result<(), Error> {
        let decided = match self.known.scope {
            Scope::Everywhere => self.known.has(Need::Role(role_of(act)), false),
            _ => Err(of_all()),
        };
        if let Err(error) = &decided {
            let mut about = self.about.lock().unwrap_or_else(PoisonError::into_inner);
            about.refused = Some(error.code);
        }
        decided
    }

    fn allow_bytes(&self, bytes: usize) -> Result<(), Error> {
        let most = self.auth.limits_now().request_bytes;
        if bytes as u64 <= most {
            return Ok(());
        }
        Err(too_large(most))
    }
}

/// What is said to a request that is too large.
pub(super) fn too_large(most: u64) -> Error {
    Error::new(Code::TooLarge, format!("a request has at most {most} bytes"))
}
