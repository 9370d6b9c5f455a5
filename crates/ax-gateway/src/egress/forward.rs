//! What a request and its answer become on their way through the proxy.

use super::inject::Credential;
use super::notes::Exchange;
use super::{Body, OF_CONNECTION, Place};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, Uri, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

/// A body that is counted as it goes by.
pub(super) struct Counted {
    body: Incoming,
    count: Arc<AtomicU64>,
    /// Over when this is.
    _exchange: Option<Exchange>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.count.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Writes a request as its server wants it: the path alone, the host as it was checked, and what
/// is added to it.
pub(super) fn sent_on(
    request: Request<Incoming>,
    place: &Place,
    port_of_scheme: u16,
    credential: Option<&Credential>,
    exchange: &Exchange,
) -> Request<Counted> {
    let (mut head, body) = request.into_parts();
    without_connection(&mut head.headers);
    // What a rule says of methods holds for the one that the request has.
    for name in ["x-http-method", "x-http-method-override", "x-method-override"] {
        head.headers.remove(name);
    }
    let host = if place.port == port_of_scheme { place.bracketed() } else { place.to_string() };
    if let Ok(host) = host.parse() {
        drop(head.headers.insert(header::HOST, host));
    }
    // A length that is not known is said anew, so that both ends mean the same.
    if body.size_hint().exact().is_none() {
        head.headers.remove(header::CONTENT_LENGTH);
        let chunked = HeaderValue::from_static("chunked");
        drop(head.headers.insert(header::TRANSFER_ENCODING, chunked));
    }
    if let Some(credential) = credential {
        credential.add_to(&mut head.headers);
    }
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
    head.version = Version::HTTP_11;
    let count = Arc::clone(&exchange.sent);
    Request::from_parts(head, Counted { body, count, _exchange: None })
}

/// Writes an answer as the harness may see it.
pub(super) fn answered(
    answer: Response<Incoming>,
    credential: Option<&Credential>,
    mut exchange: Exchange,
) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    without_connection(&mut head.headers);
    if body.size_hint().exact().is_none() {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    if let Some(credential) = credential {
        credential.hide(&mut head.headers);
    }
    exchange.answered(head.status);
    let count = Arc::clone(&exchange.received);
    let body = Counted { body, count, _exchange: Some(exchange) };
    let mut answer = Response::new(UnsyncBoxBody::new(body));
    // The words beside the status are not passed on.
    *answer.status_mut() = head.status;
    *answer.headers_mut() = head.headers;
    answer
}

/// Removes what belongs to a connection, and what a message says belongs to it.
fn without_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in OF_CONNECTION.iter().chain(&named) {
        headers.remove(name);
    }
}
