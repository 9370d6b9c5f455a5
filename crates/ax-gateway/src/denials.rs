//! What was refused at the door, for the log: each once, and not without end.

use crate::session::{KEY_PREFIX, Session};
use ax_core::session::{Body, Frame};
use serde_json::json;
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// How many refusals an attempt records.
const DENIED_MAX: usize = 64;
/// How much of a route is recorded, in characters.
const ROUTE_CHARS: usize = 200;

/// Marks an answer that refuses what no harness should ask: it is noted, with these words.
#[derive(Clone, Debug)]
pub(crate) struct Noted(pub(crate) Box<str>);

/// Notes what was refused.
pub(crate) struct Denials {
    session: Arc<Session>,
    seen: Mutex<HashSet<String>>,
}

impl fmt::Debug for Denials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Denials").finish_non_exhaustive()
    }
}

impl Denials {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self { session, seen: Mutex::default() }
    }

    /// Notes that a request was refused, and why. `route` is what it wanted, without its query.
    pub(crate) async fn note(&self, route: &str, reason: &str) {
        let route: String = route.chars().take(ROUTE_CHARS).collect();
        let hash = blake3::hash(format!("{route}\n{reason}").as_bytes()).to_hex();
        let key = format!("{KEY_PREFIX}denied:{}", &hash[..32]);
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.len() >= DENIED_MAX || !seen.insert(key.clone()) {
                return;
            }
        }
        let data = json!({"route": route, "reason": reason});
        let (name, data) = ("gateway.denied".to_owned(), Body::Text(data.to_string()));
        // It is refused whether the session listens or not.
        let _gone = self.session.say(Frame::Note { key: Some(key.into()), name, data }).await;
    }
}
