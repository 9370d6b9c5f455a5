//! Following over server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! What is sent cannot be broken out of: a field is either one of our own words, a number, or
//! JSON, in which every line break is escaped.

use super::{Call, message};
use crate::api::{Followed, Stream};
use crate::kinds;
use crate::status::body;
use ax_engine::{Code, Error};
use ax_proto::v1;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{HeaderValue, header};
use serde::Serialize;
use serde_json::{Map, Value};
use std::convert::Infallible;

/// How long a browser waits before it connects again, in milliseconds.
const RETRY_MILLIS: u64 = 1_000;
const LAST_EVENT_ID: &str = "last-event-id";

pub(super) async fn follow(call: Call) -> Result<Response, Error> {
    let Call { api, asker, route, parts, params, .. } = call;
    let mut request: v1::FollowRequest = message(route, &parts, params, Map::new())?;
    if let Some(last) = parts.headers.get(LAST_EVENT_ID).filter(|last| !last.is_empty()) {
        request.after = last_event_id(last)?;
    }
    let items = api.follow(asker, request).await?;
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(frames(items))).into_response())
}

/// Reads the id of the last event that a browser has seen.
pub(crate) fn last_event_id(value: &HeaderValue) -> Result<u64, Error> {
    let seq = value.to_str().ok().and_then(|last| last.parse().ok());
    seq.ok_or_else(|| {
        Error::invalid("Last-Event-ID is not the id of an event")
            .with_hint("send the id of the last event that came, or leave the header out")
    })
}

/// Writes items as they come, those that are there already together.
fn frames(items: Stream<Followed>) -> impl futures::Stream<Item = Result<Bytes, Infallible>> {
    let first = Bytes::from(format!("retry: {RETRY_MILLIS}\n\n"));
    let rest = items.map(|item| Ok(Bytes::from(item.map_or_else(|e| failure(&e), |i| frame(&i)))));
    stream::iter([Ok(first)]).chain(rest)
}

fn frame(item: &Followed) -> String {
    match item {
        Followed::Event(event) => block(kinds::name(event), event.seq, event),
        Followed::CaughtUp(caught_up) => block("caught-up", caught_up.last, caught_up),
        Followed::End(end) => block("end", end.last, end),
        // Without data nothing is dispatched, but the id is kept.
        Followed::KeepAlive(alive) => format!(": still here\nid: {}\n\n", alive.last),
    }
}

fn block(name: &str, id: u64, data: &impl Serialize) -> String {
    match serde_json::to_string(data) {
        Ok(data) => {
            assert!(!data.contains(['\n', '\r']), "JSON on one line");
            format!("event: {name}\nid: {id}\ndata: {data}\n\n")
        }
        Err(error) => {
            let message = "the event cannot be written as JSON";
            failure(&Error::new(Code::Internal, message).caused_by(&error))
        }
    }
}

/// The last of a stream that goes no further.
pub(crate) fn broken_off(error: &Error) -> Bytes {
    failure(error).into()
}

/// Tells why the stream breaks off.
fn failure(error: &Error) -> String {
    let data: Value = body(error);
    format!("event: failure\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ax_proto::v1::event::Kind;

    #[test]
    fn nothing_breaks_out_of_its_field() {
        let evil = "a\r\nevent: end\rid: 9\n\ndata: {}\u{2028}\u{0}".to_owned();
        let note = v1::Note {
            name: evil.clone(),
            key: evil.clone(),
            data: Some(v1::Body { body: Some(v1::body::Body::Text(evil.clone())) }),
        };
        let (principal, trace) = (evil.clone(), evil.clone());
        let event = v1::Event {
            seq: 3,
            principal,
            trace,
            kind: Some(Kind::Note(note)),
            ..Default::default()
        };
        let framed = frame(&Followed::Event(event));
        assert_eq!(framed.matches(['\n', '\r']).count(), 4, "{framed}");
        assert!(framed.starts_with("event: note\nid: 3\ndata: {"), "{framed}");
        let framed = failure(&Error::invalid(evil));
        assert_eq!(framed.matches(['\n', '\r']).count(), 3, "{framed}");
    }

    #[test]
    fn a_sign_of_life_moves_the_cursor_and_dispatches_nothing() {
        let framed = frame(&Followed::KeepAlive(v1::KeepAlive { last: 7 }));
        assert_eq!(framed, ": still here\nid: 7\n\n");
    }
}
