//! What is said to the session of where a harness goes.

use super::{DENIED_MAX, Denied, PLACES_MAX, Place, REQUESTS_MAX};
use crate::session::{KEY_PREFIX, Session};
use ax_core::session::{Body as Content, Frame, StepKey};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::task::TaskTracker;

/// The longest text of a harness that is noted, in bytes.
const TEXT_BYTES_MAX: usize = 512;

/// The notes of an attempt.
pub(super) struct Notes {
    session: Arc<Session>,
    seen: Mutex<Seen>,
    /// What is being said.
    saying: TaskTracker,
}

/// What is noted of an attempt.
#[derive(Debug, Default)]
struct Seen {
    denied: BTreeSet<String>,
    denied_count: u64,
    requests: u64,
    places: BTreeMap<String, Arc<Traffic>>,
    others: Arc<Traffic>,
    /// It was noted.
    summed_up: bool,
}

/// What went to and came from a place.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    connections: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

/// A request that the gateway could read and sent on. Noted when it is dropped, which is when the
/// answer is over.
pub(super) struct Exchange {
    notes: Arc<Notes>,
    method: String,
    place: Place,
    /// Without its query.
    path: String,
    injected: bool,
    status: Option<StatusCode>,
    /// Whether it is noted, and not only counted.
    listed: bool,
    /// Bytes of its body.
    pub(super) sent: Arc<AtomicU64>,
    /// Bytes of the answer's body.
    pub(super) received: Arc<AtomicU64>,
}

impl Notes {
    pub(super) fn new(session: Arc<Session>) -> Self {
        Self { session, seen: Mutex::default(), saying: TaskTracker::new() }
    }

    /// Records that a place is reached, once.
    pub(super) async fn reached(&self, place: &Place, opened: bool) -> Arc<Traffic> {
        let name = place.to_string();
        let (is_new, traffic) = {
            let mut seen = self.seen();
            let is_new = !seen.places.contains_key(&name) && seen.places.len() < PLACES_MAX;
            if is_new {
                drop(seen.places.insert(name.clone(), Arc::default()));
            }
            // What is more than can be listed is counted together.
            let listed = seen.places.get(&name).unwrap_or(&seen.others);
            (is_new, Arc::clone(listed))
        };
        traffic.connected();
        if is_new {
            let mut data = json!({"host": place.host, "port": place.port});
            if opened {
                data["opened"] = true.into();
            }
            self.keyed("egress", &name, &data).await;
        }
        traffic
    }

    /// Records what was refused, once for each place and method.
    pub(super) async fn denied(&self, method: &Method, place: &Place, denied: &Denied) {
        let method = cut(method.as_str());
        let name = format!("{method} {place}");
        let is_new = {
            let mut seen = self.seen();
            seen.denied_count += 1;
            seen.denied.len() < DENIED_MAX && seen.denied.insert(name.clone())
        };
        if is_new {
            let why = denied.to_string();
            let why = cut(&why);
            let data =
                json!({"method": method, "host": place.host, "port": place.port, "why": why});
            self.keyed("egress_denied", &name, &data).await;
        }
    }

    async fn keyed(&self, what: &str, name: &str, data: &Value) {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        let key = StepKey::from(format!("{KEY_PREFIX}{what}:{}", &hash[..32]));
        let (name, data) = (format!("gateway.{what}"), Content::Text(data.to_string()));
        // That nobody listens any more ends the attempt elsewhere.
        let _gone = self.session.say(Frame::Note { key: Some(key), name, data }).await;
    }

    /// Begins a request; counts it.
    pub(super) fn exchange(
        self: &Arc<Self>,
        method: &Method,
        place: &Place,
        path: &str,
        injected: bool,
    ) -> Exchange {
        let listed = {
            let mut seen = self.seen();
            seen.requests += 1;
            seen.requests <= REQUESTS_MAX
        };
        let path = path.split(['?', '#']).next().unwrap_or_default();
        Exchange {
            notes: Arc::clone(self),
            method: cut(method.as_str()).to_owned(),
            place: place.clone(),
            path: cut(path).to_owned(),
            injected,
            status: None,
            listed,
            sent: Arc::default(),
            received: Arc::default(),
        }
    }

    /// Notes how much went where until now. Called when the attempt is over.
    pub(super) async fn sum_up(&self) {
        self.saying.close();
        self.saying.wait().await;
        let data = {
            let seen = self.seen();
            if seen.summed_up || (seen.places.is_empty() && seen.denied_count == 0) {
                return;
            }
            let places = seen.places.iter().map(|(place, traffic)| traffic.json(place));
            let others = Some(&seen.others).filter(|others| others.any());
            let others = others.map(|others| others.json("others"));
            let places: Vec<_> = places.chain(others).collect();
            json!({"places": places, "requests": seen.requests, "denied": seen.denied_count})
        };
        let (name, data) = ("gateway.traffic".to_owned(), Content::Text(data.to_string()));
        let said = self.session.say(Frame::Note { key: None, name, data }).await;
        // Who waits for this may be called away before it is said.
        self.seen().summed_up = said.is_ok();
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exchange {
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.listed {
            return;
        }
        let [sent, received] =
            [&self.sent, &self.received].map(|count| count.load(Ordering::Relaxed));
        let data = json!({
            "method": self.method,
            "host": self.place.host,
            "port": self.place.port,
            "path": self.path,
            "status": self.status.map(|status| status.as_u16()),
            "sent": sent,
            "received": received,
            "injected": self.injected,
        });
        let session = Arc::clone(&self.notes.session);
        let say = async move {
            let (name, data) = ("gateway.request".to_owned(), Content::Text(data.to_string()));
            // That nobody listens any more ends the attempt elsewhere.
            let _gone = session.say(Frame::Note { key: None, name, data }).await;
        };
        // Without a runtime everything is over.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(self.notes.saying.spawn_on(say, &runtime));
        }
    }
}

impl Traffic {
    /// Counts a connection.
    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    fn any(&self) -> bool {
        self.connections.load(Ordering::Relaxed) > 0
    }

    fn json(&self, place: &str) -> Value {
        let [connections, sent, received] = [&self.connections, &self.sent, &self.received]
            .map(|count| count.load(Ordering::Relaxed));
        json!({"place": place, "connections": connections, "sent": sent, "received": received})
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}
