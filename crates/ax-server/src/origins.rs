//! What web pages may do.
//!
//! A browser sends requests for any page to any address, also to one that only its own machine
//! reaches, and says in `Origin` and `Sec-Fetch-Site` for whom. A page that is not of this server
//! and not of a named origin changes nothing here, whatever the browser would send along. Where
//! nobody is asked who they are, a page must not pass for one of this server either by having its
//! own name lead here (DNS rebinding): such an address answers to few names.

use crate::caller::Peer;
use crate::status::refuse;
use ax_engine::{Code, Error};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;

/// What a web page may send along with a request.
const HEADERS_ALLOWED: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, last-event-id, ax-request-id, traceparent",
);
const METHODS_ALLOWED: HeaderValue = HeaderValue::from_static("GET, POST, PATCH, DELETE");
/// How long a browser may remember what is allowed, in seconds.
const ALLOWED_SECONDS: HeaderValue = HeaderValue::from_static("600");
/// Where Linux says what the machine is called.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";
/// What helps a page that is refused.
const HINT: &str = "name the page's origin: `ax serve --allow-origin https://example.com`";

/// The origins whose pages may use the server, and the names that it goes by.
#[derive(Clone, Debug)]
pub(crate) struct Origins {
    named: Arc<[String]>,
    names: Arc<[String]>,
}

impl Origins {
    pub(crate) fn new(named: Vec<String>) -> Self {
        let host = fs::read_to_string(HOST_NAME).unwrap_or_default().trim().to_owned();
        let of_pages = named.iter().filter_map(|origin| {
            let authority = origin.split_once("://")?.1.parse::<Authority>().ok()?;
            Some(authority.host().to_owned())
        });
        let names = of_pages.chain(["localhost".to_owned(), host]);
        let names = names.filter(|name| !name.is_empty()).collect();
        Self { named: named.into(), names }
    }

    fn has_all(&self) -> bool {
        self.named.iter().any(|named| named == "*")
    }

    fn has(&self, origin: &HeaderValue) -> bool {
        self.has_all() || self.named.iter().any(|named| origin == named.as_str())
    }

    /// Whether no web page can have made up the name that a request goes to.
    fn goes_by(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host();
        name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
            || self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// Checks a request from afar.
    fn check(&self, open: bool, request: &Request) -> Result<(), Error> {
        let headers = request.headers();
        let host = host(request);
        if open
            && !self.has_all()
            && let Some(host) = host.filter(|host| !self.goes_by(host))
        {
            let message = format!("the server does not go by the name {host:?}");
            let hint = "use its address, or name an origin with this name: `--allow-origin`";
            return Err(Error::new(Code::Forbidden, message).with_hint(hint));
        }
        if [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method()) {
            return Ok(());
        }
        let origin = headers.get(header::ORIGIN);
        if origin.is_some_and(|origin| self.has(origin)) {
            return Ok(());
        }
        let own = origin.is_none_or(|origin| is_own(origin, host.unwrap_or_default()));
        let from_elsewhere = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
        if own && !from_elsewhere {
            return Ok(());
        }
        let message = "web pages of other servers must not do this";
        Err(Error::new(Code::Forbidden, message).with_hint(HINT))
    }
}

/// The name and port that a request goes to.
fn host(request: &Request) -> Option<&str> {
    match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        // What is no text is no name of ours.
        None => request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default()),
    }
}

/// Whether a page is of the server that the request goes to.
fn is_own(origin: &HeaderValue, host: &str) -> bool {
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let Some((scheme, page)) = origin else { return false };
    let port = if scheme == "https" { ":443" } else { ":80" };
    let without = |name: &str| name.strip_suffix(port).unwrap_or(name).to_ascii_lowercase();
    !host.is_empty() && without(page) == without(host)
}

/// Refuses what a web page must not do.
pub(crate) async fn refuse_strangers(
    State(origins): State<Origins>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(Peer::Remote { open, .. }) = request.extensions().get::<Peer>()
        && let Err(error) = origins.check(*open, &request)
    {
        tracing::debug!(%error, path = request.uri().path(), "a web page was refused");
        return refuse(request.headers(), error);
    }
    next.run(request).await
}

/// Lets web pages of named origins read the answers
/// (<https://fetch.spec.whatwg.org/#http-cors-protocol>).
pub(crate) async fn share_answers(
    State(origins): State<Origins>,
    request: Request,
    next: Next,
) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let Some(origin) = origin.filter(|origin| origins.has(origin)) else {
        return next.run(request).await;
    };
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight {
        let mut response = (StatusCode::NO_CONTENT, Body::empty()).into_response();
        let headers: &mut HeaderMap = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS_ALLOWED);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS_ALLOWED);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, ALLOWED_SECONDS);
        response
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_address_goes_by_names_that_nobody_else_can_have() {
        let origins = Origins::new(vec!["https://ax.example:8443".into(), "null".into()]);
        for own in
            ["127.0.0.1:7700", "[::1]:7700", "[::1]", "10.0.0.1", "LocalHost:1", "ax.example"]
        {
            assert!(origins.goes_by(own), "{own}");
        }
        let evil =
            ["evil.example:7700", "127.0.0.1.evil.example", "localhost.evil", "", "a b", "::"];
        for not in evil {
            assert!(!origins.goes_by(not), "{not}");
        }
    }

    #[test]
    fn a_page_is_of_the_server_that_it_came_from() {
        let own = |origin: &'static str, host| is_own(&HeaderValue::from_static(origin), host);
        assert!(own("http://127.0.0.1:7700", "127.0.0.1:7700"));
        assert!(own("https://AX.example", "ax.example:443"));
        assert!(own("http://ax.example:80", "ax.example"));
        for (origin, host) in [
            ("http://127.0.0.1:3000", "127.0.0.1:7700"),
            ("http://evil.example", "ax.example"),
            ("null", "ax.example"),
            ("null", ""),
            ("http://", ""),
            ("https://ax.example:80", "ax.example"),
        ] {
            assert!(!own(origin, host), "{origin} {host}");
        }
    }
}
