//! Who makes a request, and what it is about: the one place that says so, for every protocol.
//!
//! How authentication plugs in: a connection puts a [`Peer`] into the extensions of each of its
//! requests. A layer that [`Guard`](crate::Guard) puts around the whole router authenticates the
//! request and adds an [`Identity`] to the extensions, or answers with a refusal. Every handler,
//! gRPC and HTTP alike, then makes an [`Asker`] of the extensions, and can learn the namespace and
//! the session of its request only from [`Asker::namespace`] and [`Asker::session`], which ask the
//! identity's [`Grant`] first. Without an identity, a user of the local socket may do everything,
//! and so may anybody at an address that was opened on purpose; others are refused.

use ax_core::id::Namespace;
use ax_core::session::Caller;
use ax_engine::{Code, Error, SessionRef};
use http::{Extensions, HeaderMap};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

/// The longest request id or trace that is kept, in bytes.
const ID_BYTES_MAX: usize = 128;
/// What an unknown caller at an open address is called.
const ANYBODY: &str = "anybody";

/// The other end of a connection; in the extensions of every request.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A process on this machine, at the local socket.
    User {
        /// The user that the kernel names.
        uid: u32,
    },
    /// Somebody at an address of this machine.
    Remote {
        /// Where the connection comes from.
        address: SocketAddr,
        /// The certificate that the client has shown and that was found good, in DER.
        certificate: Option<Arc<[u8]>>,
        /// Whether the address is open to anybody, on purpose.
        open: bool,
    },
}

/// What a request does, as far as rights are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// Reads: events, sessions, agents, contents.
    Read,
    /// Changes sessions or adds contents.
    Write,
    /// Changes what holds for others: agents, the server itself.
    Administer,
}

/// What somebody may do. Authentication makes it; it is asked before every request is carried out.
pub trait Grant: Debug + Send + Sync {
    /// The namespace that is meant if a request names none.
    fn home(&self) -> Namespace {
        Namespace::default()
    }

    /// Allows to do something in a namespace, or with one of its sessions.
    ///
    /// # Errors
    ///
    /// Returns the refusal. What is not to be known of is refused as if it were not there.
    fn allow(
        &self,
        act: Act,
        namespace: &Namespace,
        session: Option<&SessionRef>,
    ) -> Result<(), Error>;

    /// Allows to do something with the server as a whole.
    ///
    /// # Errors
    ///
    /// Returns the refusal.
    fn allow_server(&self, act: Act) -> Result<(), Error>;

    /// Allows to name a content, by its hash.
    ///
    /// # Errors
    ///
    /// Refuses a content that the asker has not come by through what it may read.
    fn allow_content(&self, _hash: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    /// Hears that the asker is shown a content, or has written it.
    ///
    /// # Errors
    ///
    /// Refuses to show more than it can know of.
    fn shows_content(&self, _hash: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    /// Allows a message of this many bytes over a stream, whose length nobody knew when it began.
    ///
    /// # Errors
    ///
    /// Returns the refusal.
    fn allow_bytes(&self, _bytes: usize) -> Result<(), Error> {
        Ok(())
    }
}

/// Somebody who is known, and what they may do.
#[derive(Clone, Debug)]
pub struct Identity {
    /// What events and logs call them.
    pub principal: Arc<str>,
    /// What they may do.
    pub grant: Arc<dyn Grant>,
}

/// May do everything.
#[derive(Clone, Copy, Debug)]
pub struct Everything;

impl Grant for Everything {
    fn allow(&self, _: Act, _: &Namespace, _: Option<&SessionRef>) -> Result<(), Error> {
        Ok(())
    }

    fn allow_server(&self, _: Act) -> Result<(), Error> {
        Ok(())
    }
}

/// Who makes this request.
#[derive(Clone, Debug)]
pub struct Asker {
    identity: Identity,
    request: Arc<str>,
    trace: Arc<str>,
}

impl Asker {
    /// Says who makes a request with these extensions and headers.
    ///
    /// # Errors
    ///
    /// Refuses a request that nobody vouches for.
    pub fn of(extensions: &Extensions, headers: &HeaderMap) -> Result<Self, Error> {
        let identity = match (extensions.get::<Identity>(), extensions.get::<Peer>()) {
            (Some(identity), _) => identity.clone(),
            (None, Some(Peer::User { uid })) => everything(user(*uid)),
            (None, Some(Peer::Remote { open: true, .. })) => everything(ANYBODY.into()),
            (None, _) => {
                let message = "the request does not say who makes it";
                return Err(Error::new(Code::Unauthenticated, message));
            }
        };
        let request = text(headers, "ax-request-id");
        Ok(Self { identity, request, trace: text(headers, "traceparent") })
    }

    /// The namespace that a request names; its home if it names none.
    ///
    /// # Errors
    ///
    /// Refuses what is no namespace, and what the asker must not do there.
    pub fn namespace(&self, act: Act, name: &str) -> Result<Namespace, Error> {
        let namespace = self.named(name)?;
        self.identity.grant.allow(act, &namespace, None)?;
        Ok(namespace)
    }

    /// Checks that a message of a stream may have this many bytes.
    ///
    /// # Errors
    ///
    /// Refuses what is larger than a request may be.
    pub(crate) fn message(&self, bytes: usize) -> Result<(), Error> {
        self.identity.grant.allow_bytes(bytes)
    }

    /// The namespace and the session that a request names.
    ///
    /// # Errors
    ///
    /// Refuses what names no session, and what the asker must not do with it.
    pub fn session(
        &self,
        act: Act,
        namespace: &str,
        session: &str,
    ) -> Result<(Namespace, SessionRef), Error> {
        let namespace = self.named(namespace)?;
        let session = SessionRef::parse(&namespace, session)?;
        let allowed = self.identity.grant.allow(act, &namespace, Some(&session));
        allowed.map_err(|error| about(&session, error))?;
        Ok((namespace, session))
    }

    /// Checks that the asker may do something with the server as a whole.
    ///
    /// # Errors
    ///
    /// Returns the refusal.
    pub fn server(&self, act: Act) -> Result<(), Error> {
        self.identity.grant.allow_server(act)
    }

    /// Checks that the asker may name a content, by its hash.
    ///
    /// # Errors
    ///
    /// Returns the refusal.
    pub(crate) fn content(&self, hash: &[u8]) -> Result<(), Error> {
        self.identity.grant.allow_content(hash)
    }

    /// Shows the asker that there is a content.
    ///
    /// # Errors
    ///
    /// Returns the refusal.
    pub(crate) fn shown(&self, hash: &[u8]) -> Result<(), Error> {
        self.identity.grant.shows_content(hash)
    }

    /// What is written into events.
    pub fn caller(&self) -> Caller {
        let principal = Arc::clone(&self.identity.principal);
        Caller { principal, request: Arc::clone(&self.request), trace: Arc::clone(&self.trace) }
    }

    fn named(&self, name: &str) -> Result<Namespace, Error> {
        if name.is_empty() {
            return Ok(self.identity.grant.home());
        }
        Namespace::new(name).map_err(|error| Error::invalid(error.to_string()))
    }
}

/// A session that is not there is called as the caller called it.
pub(crate) fn about(session: &SessionRef, error: Error) -> Error {
    if error.code == Code::NoSession && !session.name.is_empty() {
        return Error { message: format!("there is no session {:?}", session.name), ..error };
    }
    error
}

fn everything(principal: Arc<str>) -> Identity {
    Identity { principal, grant: Arc::new(Everything) }
}

pub(crate) fn text(headers: &HeaderMap, name: &str) -> Arc<str> {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.filter(|value| value.len() <= ID_BYTES_MAX).unwrap_or_default().into()
}

/// The name of a user; `uid:1000` if it has none.
pub(crate) fn user(uid: u32) -> Arc<str> {
    static USERS: OnceLock<BTreeMap<u32, Arc<str>>> = OnceLock::new();
    let users = USERS.get_or_init(|| {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        parse(&passwd)
    });
    users.get(&uid).cloned().unwrap_or_else(|| format!("uid:{uid}").into())
}

/// Reads the format of passwd(5).
fn parse(passwd: &str) -> BTreeMap<u32, Arc<str>> {
    let mut users = BTreeMap::new();
    for line in passwd.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(uid))) = (fields.next(), fields.nth(1).map(str::parse)) {
            users.entry(uid).or_insert_with(|| name.into());
        }
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_and_nonsense_is_passed_over() {
        let users = parse("root:x:0:0::/:/bin/sh\nnonsense\na:b:c\ntoor:x:0:0::/:\nme:x:1000:1000");
        assert_eq!(users.len(), 2);
        assert_eq!(&*users[&0], "root");
        assert_eq!(&*users[&1000], "me");
    }

    #[test]
    fn nobody_is_let_in_from_afar_without_an_identity() {
        let asker = |peer: Option<Peer>| {
            let mut extensions = Extensions::new();
            if let Some(peer) = peer {
                extensions.insert(peer);
            }
            Asker::of(&extensions, &HeaderMap::new())
        };
        let address = ([127, 0, 0, 1], 1).into();
        let far = |open| Peer::Remote { address, certificate: None, open };
        assert_eq!(asker(None).unwrap_err().code, Code::Unauthenticated);
        assert_eq!(asker(Some(far(false))).unwrap_err().code, Code::Unauthenticated);
        assert_eq!(&*asker(Some(far(true))).unwrap().caller().principal, ANYBODY);
        let local = asker(Some(Peer::User { uid: 0 })).unwrap();
        assert_eq!(&*local.caller().principal, "root");
        assert_eq!(local.namespace(Act::Write, "").unwrap(), Namespace::default());
        let refused = local.namespace(Act::Write, "A b").unwrap_err();
        assert!(refused.message.contains("A b"), "{refused:?}");
    }
}
