//! Answers on their way: what is under way counts, and what stays open ends with its credential.

use super::grant::Rights;
use super::limits::Permit;
use crate::rest::broken_off;
use crate::status::trailers;
use ax_engine::Error;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, header};
use http_body::Frame;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// How often a stream looks whether the credential that opened it still holds.
const LOOK_PAUSE: Duration = Duration::from_secs(2);

/// Holds a permit for as long as an answer is on its way, and ends one that stays open when the
/// credential no longer holds.
pub(super) fn held(
    response: Response,
    permit: Option<Permit>,
    stays: Option<Arc<Rights>>,
) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let form = match kind {
        Some(kind) if kind.starts_with(b"application/grpc") => Form::Call,
        Some(b"text/event-stream") => Form::Events,
        _ => Form::Other,
    };
    let watched = stays.filter(|rights| rights.credential.is_some());
    let watched = watched.map(|rights| Watched { rights, form, due: Box::pin(sleep(LOOK_PAUSE)) });
    response.map(|body| Body::new(Held { body, watched, _permit: permit }))
}

/// How a stream says why it ends.
#[derive(Clone, Copy, Debug)]
enum Form {
    Call,
    Events,
    Other,
}

impl Form {
    fn end(self, error: Error) -> Option<Frame<Bytes>> {
        match self {
            Self::Call => Some(Frame::trailers(trailers(error))),
            Self::Events => Some(Frame::data(broken_off(&error))),
            Self::Other => None,
        }
    }
}

/// A stream that is looked at.
struct Watched {
    rights: Arc<Rights>,
    form: Form,
    due: Pin<Box<Sleep>>,
}

impl Watched {
    /// Looks if it is time to, and comes back when it is.
    fn look(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        while self.due.as_mut().poll(cx).is_ready() {
            self.rights.still()?;
            self.due.as_mut().reset(Instant::now() + LOOK_PAUSE);
        }
        Ok(())
    }
}

/// A body, and the right to have it under way.
struct Held {
    body: Body,
    watched: Option<Watched>,
    _permit: Option<Permit>,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let looked = self.watched.as_mut().map_or(Ok(()), |watched| watched.look(cx));
        if let Err(error) = looked {
            self.body = Body::empty();
            let form = self.watched.take().map_or(Form::Other, |watched| watched.form);
            return Poll::Ready(form.end(error).map(Ok));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
