//! Counts requests of both protocols, whatever answers them.

use super::metrics::Metrics;
use crate::auth::role;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Middleware that counts requests, for `axum::middleware::from_fn_with_state`.
///
/// The label of an HTTP request is its method and route, that of a call is its path; what is not
/// known is `other`, so that strangers do not make labels.
pub async fn measure(
    State(metrics): State<Arc<Metrics>>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let is_grpc = request
        .headers()
        .get("content-type")
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let name = if is_grpc { method(&request).to_owned() } else { route(&request) };
    let response = next.run(request).await;
    let took = began.elapsed();
    if !is_grpc {
        metrics.request(&name, response.status().as_str(), took);
        return response;
    }
    if let Some(code) = code_of(response.headers()) {
        // The answer is all head: a refusal, or a method that there is not.
        metrics.request(&name, &code, took);
        return response;
    }
    response.map(|body| Body::new(Measured { body, called: Some(Called { metrics, name, took }) }))
}

/// The path of a call, if there is such a method.
fn method(request: &Request) -> &'static str {
    let rule = role::rule(&Method::POST, request.uri().path());
    rule.map_or("other", |rule| rule.path.trim_start_matches('/'))
}

fn route(request: &Request) -> String {
    let method = match *request.method() {
        Method::GET | Method::HEAD => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => return "other".into(),
    };
    match request.extensions().get::<MatchedPath>() {
        Some(path) => format!("{method} {}", path.as_str()),
        None => "other".into(),
    }
}

/// The number in `grpc-status`, if it is one that gRPC has.
fn code_of(headers: &HeaderMap) -> Option<String> {
    let code = headers.get("grpc-status")?.to_str().ok()?;
    let known = code.parse::<u8>().is_ok_and(|code| code <= 16);
    Some(if known { code.to_owned() } else { "other".into() })
}

/// A call whose result is in the trailers of its answer.
#[derive(Debug)]
struct Called {
    metrics: Arc<Metrics>,
    name: String,
    took: Duration,
}

impl Called {
    fn ended(self, code: &str) {
        self.metrics.request(&self.name, code, self.took);
    }
}

/// A body that counts its call when it ends; one that is dropped before was canceled.
#[derive(Debug)]
pub struct Measured {
    body: Body,
    called: Option<Called>,
}

impl HttpBody for Measured {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let code = match &polled {
            Poll::Ready(Some(Ok(frame))) => frame
                .trailers_ref()
                .map(|trailers| code_of(trailers).unwrap_or_else(|| "other".into())),
            Poll::Ready(Some(Err(_))) => Some("other".into()),
            Poll::Ready(None) => Some("0".into()),
            Poll::Pending => None,
        };
        if let Some(code) = code
            && let Some(called) = self.called.take()
        {
            called.ended(&code);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if let Some(called) = self.called.take() {
            // 1: canceled.
            called.ended("1");
        }
    }
}
