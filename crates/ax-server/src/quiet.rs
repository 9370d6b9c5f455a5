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

/// How many times as long a connection lasts that always has a request under way, and none let in.
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
        || role::rule(request.method(), request.uri().path()).is_none_or(|rule| rule.goes_on)
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

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Method, StatusCode};
    use tokio::time::{advance, pause};

    const MOST: Duration = Duration::from_secs(20);

    fn request(path: &str) -> Request<()> {
        Request::builder().method(Method::GET).uri(path).body(()).unwrap()
    }

    fn response(status: StatusCode) -> Response {
        Response::builder().status(status).body(Body::empty()).unwrap()
    }

    /// Looks as a connection does; returns after how long it is closed.
    async fn closed_after(quiet: &Quiet) -> Option<Duration> {
        let began = Instant::now();
        loop {
            let until = quiet.until(MOST)?;
            if until <= Instant::now() {
                return Some(began.elapsed());
            }
            advance(until - Instant::now()).await;
        }
    }

    #[tokio::test]
    async fn a_connection_lasts_if_a_request_of_it_is_let_in() {
        pause();
        assert_eq!(closed_after(&Quiet::new()).await, Some(MOST), "it asks for nothing");
        let quiet = Quiet::new();
        let under_way = quiet.begin(&request("/v1/info")).unwrap();
        assert_eq!(closed_after(&quiet).await, Some(LAST * MOST), "it never ends to ask");
        drop(under_way);
        for (path, status) in [
            ("/v1/info", StatusCode::UNAUTHORIZED),
            ("/v1/info", StatusCode::FORBIDDEN),
            ("/v1/info", StatusCode::SERVICE_UNAVAILABLE),
            ("/healthz", StatusCode::OK),
            ("/nothing", StatusCode::OK),
        ] {
            let quiet = Quiet::new();
            advance(MOST / 2).await;
            quiet.begin(&request(path)).unwrap().answered(&response(status));
            assert_eq!(closed_after(&quiet).await, Some(MOST / 2), "{path} {status}");
        }
        let quiet = Quiet::new();
        quiet.begin(&request("/v1/info")).unwrap().answered(&response(StatusCode::OK));
        assert_eq!(closed_after(&quiet).await, None);
        assert!(quiet.begin(&request("/v1/info")).is_none(), "nothing need be known any more");
    }

    #[tokio::test]
    async fn a_call_that_was_refused_lets_nobody_in() {
        pause();
        for (status, lasts) in [("16", false), ("7", false), ("0", true)] {
            let quiet = Quiet::new();
            let mut response = response(StatusCode::OK);
            response.headers_mut().insert("grpc-status", status.parse().unwrap());
            quiet.begin(&request("/v1/info")).unwrap().answered(&response);
            assert_eq!(closed_after(&quiet).await.is_none(), lasts, "{status}");
        }
    }
}
