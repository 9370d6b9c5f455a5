//! Connections from afar that nobody has shown a right to, and calls that are sent too slowly.

use crate::auth::role::{self, Need};
use crate::rest::too_slow;
use crate::status::status;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Request, header};
use http_body_util::BodyExt as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;
use tower_http::timeout::{TimeoutBody, TimeoutError};

/// How much longer a connection lasts, in all, of which requests are under way and none is let in.
const LAST: u32 = 10;

/// What is known of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Quiet(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// A request was let in: whoever sent it may have the connection for as long as it likes.
    let_in: bool,
    under_way: u32,
    since: Instant,
}

/// A request that is not answered yet, of a connection that is not known yet.
#[derive(Debug)]
pub(crate) struct UnderWay {
    quiet: Quiet,
    /// Whether it needs a right.
    guarded: bool,
}

impl Quiet {
    pub(crate) fn new() -> Self {
        let state = State { let_in: false, under_way: 0, since: Instant::now() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// When to look again; `None` if never. A time that is over means that the connection is to be
    /// closed: after `most`, or somewhat later if a request is under way.
    pub(crate) fn until(&self, most: Duration) -> Option<Instant> {
        let state = self.lock();
        let (soon, at_last) = (state.since + most, state.since + LAST * most);
        let waits = state.under_way > 0 && soon <= Instant::now();
        let next = if waits { at_last.min(Instant::now() + most) } else { soon };
        (!state.let_in).then_some(next)
    }

    /// Notes a request; `None` if nothing need be known any more.
    pub(crate) fn begin<B>(&self, request: &Request<B>) -> Option<UnderWay> {
        let mut state = self.lock();
        if state.let_in {
            return None;
        }
        state.under_way += 1;
        let rule = role::rule(request.method(), request.uri().path());
        let guarded = rule.is_some_and(|rule| rule.need != Need::Nothing);
        Some(UnderWay { quiet: self.clone(), guarded })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

impl UnderWay {
    /// Sees what came of the request.
    pub(crate) fn answered(self, response: &Response) {
        if self.guarded && is_success(response) {
            self.quiet.lock().let_in = true;
        }
    }
}

/// Whether a request came to what it was meant for. Many refusals come before anybody has asked who
/// sent it.
fn is_success(response: &Response) -> bool {
    let status = response.headers().get("grpc-status");
    response.status().is_success() && status.is_none_or(|status| status == "0")
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.quiet.lock().under_way -= 1;
    }
}

/// Lets the body of a call end with an error if its next piece does not come in time. Routes of
/// HTTP see to that by themselves.
pub(crate) fn paced(request: Request<Body>, pause_max: Duration) -> Request<Body> {
    if !is_call(request.headers())
        || role::rule(request.method(), request.uri().path()).is_none_or(role::Rule::goes_on)
    {
        return request;
    }
    request.map(|body| {
        let paced = TimeoutBody::new(pause_max, body).map_err(|error| {
            if error.is::<TimeoutError>() {
                axum::Error::new(status(too_slow()))
            } else {
                axum::Error::new(error)
            }
        });
        Body::new(paced)
    })
}

fn is_call(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
