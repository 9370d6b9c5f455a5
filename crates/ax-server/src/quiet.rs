//! Connections from afar that nobody has shown a right to, and calls that are sent too slowly.

use crate::auth::role::{self, Need};
use crate::rest::too_slow;
use crate::status::status;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tower_http::timeout::{TimeoutBody, TimeoutError};

/// What is known of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Quiet(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// A request was let in: whoever sent it may have the connection for as long as it likes.
    let_in: bool,
    under_way: usize,
    /// Since when nothing is under way.
    since: Instant,
}

/// A request whose answer is on its way, of a connection that is not known yet.
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

    /// When to look again, if nothing may be under way for so long; `None` if it may for ever. A
    /// time that is over means that the connection is to be closed.
    pub(crate) fn until(&self, most: Duration) -> Option<Instant> {
        let state = self.lock();
        let since = if state.under_way > 0 { Instant::now() } else { state.since };
        (!state.let_in).then(|| since + most)
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
    /// Sees what came of the request, and stays until that is sent.
    pub(crate) fn answered(self, response: Response) -> Response {
        if self.guarded && !is_refused(&response) {
            self.quiet.lock().let_in = true;
        }
        response.map(|body| Body::new(Sent { body, _under_way: self }))
    }
}

/// Whether somebody was not let in.
fn is_refused(response: &Response) -> bool {
    let refused = [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS];
    // Unauthenticated, and exhausted by others who were not let in either.
    let status = response.headers().get("grpc-status").map(|status| status.as_bytes());
    refused.contains(&response.status()) || matches!(status, Some(b"16" | b"8"))
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.quiet.lock();
        state.under_way -= 1;
        state.since = Instant::now();
    }
}

/// A body on its way.
struct Sent {
    body: Body,
    _under_way: UnderWay,
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
