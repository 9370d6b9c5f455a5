//! What harnesses reach of the interface, each through the gateway of its attempt: records of the
//! sessions that it holds, and the contents that these name. Everything else is refused, whether it
//! is there or not.

use crate::api::Api;
use crate::caller::{Act, Grant, Identity};
use crate::rest;
use crate::status::refuse;
use ax_core::id::Namespace;
use ax_engine::{Code, Error, SessionRef};
use ax_harness::{Answer, Holder, Runtime};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use std::fmt;
use std::io;
use std::sync::Arc;
use tower::ServiceExt as _;

/// The methods that there are for harnesses.
const METHODS: [&str; 5] = ["GetSession", "ListRecords", "ReadBlob", "Record", "WriteBlob"];
/// What events call them.
const PRINCIPAL: &str = "harness";
/// What may help who is refused.
const HINT: &str = "name other sessions of the namespace under gateway.records.sessions of the \
                    agent's manifest; whatever else is to be done, a client of the server does";

/// Answers harnesses.
pub(crate) struct Harnesses(Router);

impl Harnesses {
    pub(crate) fn new(api: Api) -> Self {
        let refused = rest::routes_of(api, &METHODS).fallback(no_method);
        Self(refused.method_not_allowed_fallback(no_method))
    }
}

impl fmt::Debug for Harnesses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harnesses").finish_non_exhaustive()
    }
}

impl Runtime for Harnesses {
    fn answer(
        &self,
        holder: Arc<Holder>,
        request: http::Request<Incoming>,
    ) -> BoxFuture<'static, Answer> {
        let mut request = request.map(Body::new);
        let identity = Identity { principal: PRINCIPAL.into(), grant: Arc::new(Rights(holder)) };
        request.extensions_mut().insert(identity);
        let answer = self.0.clone().oneshot(request);
        async move {
            let answer: Response = answer.await.unwrap_or_else(|never| match never {});
            answer.map(|body| UnsyncBoxBody::new(body.map_err(io::Error::other)))
        }
        .boxed()
    }
}

async fn no_method(request: Request) -> Response {
    let message = format!("a harness has no {} {}", request.method(), request.uri().path());
    refuse(request.headers(), Error::new(Code::Forbidden, message).with_hint(HINT))
}

/// The rights of a harness.
#[derive(Debug)]
struct Rights(Arc<Holder>);

fn forbidden(message: &str) -> Error {
    Error::new(Code::Forbidden, message).with_hint(HINT)
}

impl Grant for Rights {
    fn home(&self) -> Namespace {
        self.0.namespace().clone()
    }

    fn allow(
        &self,
        _: Act,
        namespace: &Namespace,
        session: Option<&SessionRef>,
    ) -> Result<(), Error> {
        let held = match session {
            Some(session) => self.0.holds(namespace, session.id, &session.name),
            // Contents: which ones, is asked apart.
            None => namespace == self.0.namespace(),
        };
        let refused = || forbidden("a harness reaches its own session only");
        if held { Ok(()) } else { Err(refused()) }
    }

    fn allow_server(&self, _: Act) -> Result<(), Error> {
        Err(forbidden("a harness does nothing to the server"))
    }

    fn allow_content(&self, hash: &[u8]) -> Result<(), Error> {
        let refused = || forbidden("a harness reaches contents that it has read of, or written");
        if self.0.knows(hash) { Ok(()) } else { Err(refused()) }
    }

    fn shows_content(&self, hash: &[u8]) -> Result<(), Error> {
        let refused = || Error::new(Code::TooLarge, "an attempt knows of too many contents");
        if self.0.learns(hash) { Ok(()) } else { Err(refused()) }
    }
}
