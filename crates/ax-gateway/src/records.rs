//! The way of a harness to the runtime's own interface, as far as frameworks need it that keep
//! their state in sessions: records, and the contents that these name.
//!
//! Nothing of it goes over a network: the runtime opens a [`Desk`], and each gateway hands on what
//! its harness asks, with who asks. That is known by the door that it came through: no header and
//! no word of the request says it.

use crate::policy::fits;
use crate::session::Session;
use ax_core::id::{Namespace, SessionId, SessionKey};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long it may take until the runtime serves.
const OPEN_MAX: Duration = Duration::from_secs(30);
/// How many contents an attempt may be shown, and write.
const CONTENTS_MAX: usize = 1 << 18;

/// What a harness is answered.
pub type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// The interface of the runtime, as harnesses see it.
pub trait Runtime: Send + Sync {
    /// Answers a request of a harness: what is neither a record nor a content of what it holds is
    /// refused.
    fn answer(&self, holder: Arc<Holder>, request: Request<Incoming>)
    -> BoxFuture<'static, Answer>;
}

/// Where gateways find the interface of the runtime. Clones are the same.
#[derive(Clone, Default)]
pub struct Desk(Arc<watch::Sender<Option<Arc<dyn Runtime>>>>);

/// The runtime serves as long as there is this.
#[derive(Debug)]
pub struct Opened(Desk);

impl Desk {
    /// Serves from now on, those too who wait already.
    pub fn open(&self, runtime: Arc<dyn Runtime>) -> Opened {
        self.0.send_replace(Some(runtime));
        Opened(self.clone())
    }

    /// Waits until the runtime serves.
    async fn runtime(&self) -> Option<Arc<dyn Runtime>> {
        let mut serving = self.0.subscribe();
        let found = timeout(OPEN_MAX, serving.wait_for(Option::is_some)).await.ok()?;
        found.ok()?.clone()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.0.send_replace(None);
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

/// What the harness of one attempt holds.
#[derive(Debug)]
pub struct Holder {
    session: SessionKey,
    /// The names of other sessions, with `*` for any text.
    names: Vec<String>,
    /// The contents that it was shown or has written, by their hashes: to name another one that it
    /// guesses does not help.
    contents: Mutex<HashSet<[u8; 32]>>,
}

impl Holder {
    /// Holds its own session, and those of its namespace whose names fit. `{session}` in a name is
    /// the id of its own one.
    pub fn new(session: SessionKey, names: &[String]) -> Self {
        let own = session.session.to_string();
        let names = names.iter().map(|name| name.replace("{session}", &own)).collect();
        Self { session, names, contents: Mutex::default() }
    }

    /// The namespace.
    pub const fn namespace(&self) -> &Namespace {
        &self.session.namespace
    }

    /// Whether it holds a session, which is called by a name or, if that is empty, by its id.
    pub fn holds(&self, namespace: &Namespace, session: SessionId, name: &str) -> bool {
        let named = || !name.is_empty() && self.names.iter().any(|known| fits(known, name));
        *namespace == self.session.namespace && (session == self.session.session || named())
    }

    /// Whether it knows a content, by its hash.
    pub fn knows(&self, content: &[u8]) -> bool {
        let contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        contents.contains(content)
    }

    /// Is shown a content, or has written it. Returns whether that can be remembered.
    pub fn learns(&self, content: &[u8]) -> bool {
        let Ok(content) = content.try_into() else { return false };
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        contents.contains(&content) || (contents.len() < CONTENTS_MAX && contents.insert(content))
    }
}

/// The way of one attempt to the interface.
pub(crate) struct Records {
    pub(crate) desk: Desk,
    pub(crate) holder: Arc<Holder>,
    pub(crate) session: Arc<Session>,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("holder", &self.holder).finish_non_exhaustive()
    }
}

impl Records {
    /// Answers a request; `None` if nobody does at this moment.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Option<Answer> {
        let runtime = self.desk.runtime().await?;
        // Whoever has lost the session does nothing more in its name.
        if !self.session.may_act() || self.session.is_closing() {
            return None;
        }
        Some(runtime.answer(Arc::clone(&self.holder), request).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_holds_its_own_session_and_those_that_are_named() {
        let (own, other) = (SessionId(1), SessionId(2));
        let home = Namespace::default();
        let away = Namespace::new("away").unwrap();
        let names = ["adk/shop/*".to_owned(), "claude/{session}/*".into()];
        let holder = Holder::new(SessionKey::new(home.clone(), own), &names);
        assert!(holder.holds(&home, own, "") && holder.holds(&home, own, "its name"));
        assert!(!holder.holds(&away, own, "") && !holder.holds(&home, other, ""));
        assert!(holder.holds(&home, other, "adk/shop/ada"));
        assert!(!holder.holds(&away, other, "adk/shop/ada"));
        assert!(!holder.holds(&home, other, "adk/shopping"));
        assert!(holder.holds(&home, other, &format!("claude/{own}/main")));
        assert!(!holder.holds(&home, other, &format!("claude/{other}/main")));
        let nothing = Holder::new(SessionKey::new(home.clone(), own), &[]);
        assert!(nothing.holds(&home, own, "") && !nothing.holds(&home, other, "adk/shop/ada"));
    }

    #[test]
    fn contents_are_known_once_they_were_shown() {
        let holder = Holder::new(SessionKey::new(Namespace::default(), SessionId(1)), &[]);
        assert!(!holder.knows(&[7; 32]));
        assert!(holder.learns(&[7; 32]) && holder.learns(&[7; 32]));
        assert!(holder.knows(&[7; 32]) && !holder.knows(&[8; 32]));
        assert!(!holder.learns(&[7; 31]) && !holder.knows(&[7; 31]));
    }
}
