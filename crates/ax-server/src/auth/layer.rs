//! What every request goes through before anything else looks at it.

use super::grant::{About, Known, Rights, Scope, too_large};
use super::held::held;
use super::limits::{Over, Permit, Use};
use super::role::{self, Need, Role, Rule, Shape};
use super::{Auth, Credential, address_bucket};
use crate::audit::{Kind, Line};
use crate::caller::{Grant, Identity, Peer, user};
use crate::status::refuse;
use ax_engine::{Code, Error};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Uri, header};
use http_body_util::Limited;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The parameter of an address that may have a share token, and nothing else.
const SHARE_PARAMETER: &str = "share=";
/// The name of anybody at an address that is open on purpose.
const ANYBODY: &str = "anybody";

/// Why a request goes no further.
#[derive(Debug)]
struct Refusal {
    error: Error,
    /// Who it was, as far as is known.
    who: Arc<str>,
    retry_after: Option<u64>,
    /// Whether it is worth a line of the audit log.
    recorded: bool,
}

impl Refusal {
    fn new(error: Error, who: &Arc<str>) -> Self {
        Self { error, who: Arc::clone(who), retry_after: None, recorded: true }
    }

    fn over(over: Over, who: &Arc<str>) -> Self {
        let retry_after = Some(over.retry_after());
        Self { retry_after, recorded: false, ..Self::new(over.error(), who) }
    }
}

/// What is known of a request before it is carried out.
struct Facts {
    rule: Option<&'static Rule>,
    /// What it is called in the audit log: never what a client made up.
    what: String,
    from: String,
    request: String,
}

impl Facts {
    fn of(request: &Request) -> Self {
        let rule = role::rule(request.method(), request.uri().path());
        let path = rule.map_or("(no such route)", |rule| rule.path);
        let from = match request.extensions().get::<Peer>() {
            Some(Peer::Remote { address, .. }) => address.to_string(),
            Some(Peer::User { .. }) => "local".into(),
            None => String::new(),
        };
        Self {
            rule,
            what: path.trim_start_matches('/').to_owned(),
            from,
            request: crate::caller::text(request.headers(), "ax-request-id").to_string(),
        }
    }

    fn line(&self, auth: &Auth, kind: Kind, who: &str, about: &About, result: String) -> Line {
        let text = |known: Option<String>| known.unwrap_or_default();
        Line {
            who: who.into(),
            from: self.from.clone(),
            what: self.what.clone(),
            about: text(about.session.map(|session| session.to_string())),
            namespace: text(about.namespace.as_ref().map(ToString::to_string)),
            result,
            request: self.request.clone(),
            ..Line::new(kind, auth.now())
        }
    }
}

/// Authenticates, authorises, limits and records.
pub(super) async fn guard(
    State(auth): State<Arc<Auth>>,
    mut request: Request,
    next: Next,
) -> Response {
    let facts = Facts::of(&request);
    if facts.rule.is_some_and(|rule| rule.need == Need::Nothing) {
        return next.run(request).await;
    }
    let headers = request.headers().clone();
    let (known, credential, permit) = match admit(&auth, &mut request, &facts).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refused(&auth, &facts, &headers, refusal),
    };
    let who = Arc::clone(&known.principal);
    let about = Arc::new(Mutex::new(About::default()));
    let (of, about_it) = (Arc::clone(&auth), Arc::clone(&about));
    let rights = Arc::new(Rights { auth: of, known, credential, about: about_it });
    let grant: Arc<dyn Grant> = Arc::<Rights>::clone(&rights);
    request.extensions_mut().insert(Identity { principal: Arc::clone(&who), grant });
    let administrative = facts.rule.is_none_or(Rule::administrative);
    if administrative {
        let line = facts.line(&auth, Kind::Asked, &who, &About::default(), String::new());
        if let Err(refusal) = record(&auth, line, &who).await {
            return refused(&auth, &facts, &headers, refusal);
        }
    }
    let response = next.run(bounded(&auth, facts.rule, request)).await;
    let about = about.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if administrative {
        let line = facts.line(&auth, Kind::Done, &who, &about, result(&response));
        // It is done, whether this is recorded or not; that it was asked for is.
        drop(record(&auth, line, &who).await);
    } else if let Some(code) = about.refused.filter(|code| *code != Code::RateLimited) {
        let line = facts.line(&auth, Kind::Denied, &who, &about, code.to_string());
        auth.audit.denied(line);
    }
    let stays = facts.rule.is_some_and(|rule| rule.shape == Shape::Follow);
    held(response, permit, stays.then_some(rights))
}

/// Says who makes a request, and whether it may be made now.
async fn admit(
    auth: &Arc<Auth>,
    request: &mut Request,
    facts: &Facts,
) -> Result<(Known, Option<Credential>, Option<Permit>), Refusal> {
    let (known, credential) = authenticate(auth, request, facts).await?;
    let who = &known.principal;
    let Some(rule) = facts.rule else {
        // What is not in the table is closed to all but those who may do everything.
        if known.scope == Scope::Everywhere && known.role == Role::Admin {
            return Ok((known, credential, None));
        }
        let error = Error::new(Code::NoRoute, "there is no such route");
        return Err(Refusal { recorded: false, ..Refusal::new(error, who) });
    };
    known.has(rule.need, rule.shared).map_err(|error| Refusal::new(error, who))?;
    if rule.shape == Shape::Call && length(request) > auth.limits_now().request_bytes {
        let most = auth.limits_now().request_bytes;
        return Err(Refusal { recorded: false, ..Refusal::new(too_large(most), who) });
    }
    let kind = if rule.shape == Shape::Follow { Use::Stream } else { Use::Call };
    let buckets = known.buckets(auth);
    if buckets.is_empty() {
        return Ok((known, credential, None));
    }
    match auth.limits.enter(&buckets, kind, Instant::now()) {
        Ok(permit) => Ok((known, credential, Some(permit))),
        Err(over) => Err(Refusal::over(over, who)),
    }
}

/// Says who makes a request, and by what that is known.
async fn authenticate(
    auth: &Arc<Auth>,
    request: &mut Request,
    facts: &Facts,
) -> Result<(Known, Option<Credential>), Refusal> {
    let peer = request.extensions().get::<Peer>().cloned();
    let nobody: Arc<str> = "".into();
    let sent = match credential(request, facts.rule) {
        Ok(sent) => sent,
        Err(error) => return Err(failed(auth, peer.as_ref(), error)),
    };
    let credential = match (sent, &peer) {
        // Also at the local socket: whoever sends a credential for others wants it to count.
        (Some(sent), _) => sent,
        (None, Some(Peer::User { uid })) => return Ok((everything(user(*uid)), None)),
        (None, Some(Peer::Remote { certificate: Some(certificate), open: false, .. })) => {
            Credential::Certificate(Arc::clone(certificate))
        }
        (None, Some(Peer::Remote { open: true, .. })) => {
            return Ok((everything(ANYBODY.into()), None));
        }
        (None, Some(Peer::Remote { .. })) => {
            let message = "the request does not say who makes it";
            let error = Error::new(Code::Unauthenticated, message);
            return Err(failed(auth, peer.as_ref(), error));
        }
        (None, None) => {
            let error = Error::new(Code::Unauthenticated, "the connection has no other end");
            return Err(Refusal::new(error, &nobody));
        }
    };
    let known = auth.check(&credential).await;
    let known = known.map_err(|error| failed(auth, peer.as_ref(), error))?;
    Ok((known, Some(credential)))
}

fn everything(principal: Arc<str>) -> Known {
    Known { principal, bucket: None, role: Role::Admin, scope: Scope::Everywhere, until: None }
}

/// An attempt to get in that failed. Many from one address are not even recorded; a credential
/// that is good is never refused for what others at its address do.
fn failed(auth: &Auth, peer: Option<&Peer>, error: Error) -> Refusal {
    let nobody: Arc<str> = "".into();
    if let Some(Peer::Remote { address, .. }) = peer {
        let bucket = address_bucket(address.ip(), auth.limits_now());
        if let Err(over) = auth.limits.take(&[bucket], Instant::now()) {
            return Refusal::over(over, &nobody);
        }
    }
    Refusal::new(error, &nobody)
}

/// Takes the credential out of a request: of its headers or, if it is a share token, of its
/// address, which nobody after this sees with it.
fn credential(request: &mut Request, rule: Option<&Rule>) -> Result<Option<Credential>, Error> {
    let malformed = |message: &str| Err(Error::new(Code::Unauthenticated, message));
    let mut sent = request.headers().get_all(header::AUTHORIZATION).iter();
    let (first, second) = (sent.next(), sent.next());
    if second.is_some() {
        return malformed("there is more than one Authorization header");
    }
    let from_header = match first {
        Some(value) => {
            let text = value.to_str().ok().and_then(|text| text.split_once(' '));
            match text {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                    Some(Credential::of(token.trim()))
                }
                _ => return malformed("the Authorization header is not `Bearer` and a token"),
            }
        }
        None => None,
    };
    request.headers_mut().remove(header::AUTHORIZATION);
    let query = request.uri().query().unwrap_or_default();
    if query.contains(super::key::PREFIX) {
        let error = Error::new(Code::Unauthenticated, "a key does not belong into an address");
        let hint =
            "send it as `Authorization: Bearer …`, and rotate this one: addresses are logged";
        return Err(error.with_hint(hint));
    }
    if query.split('&').any(|pair| pair.starts_with("access_token=")) {
        let error = Error::new(Code::Unauthenticated, "an address has no access_token");
        let hint = "send it as `Authorization: Bearer …`; only a share token may be in an address, \
            as ?share=…";
        return Err(error.with_hint(hint));
    }
    if !query.split('&').any(|pair| pair.starts_with(SHARE_PARAMETER)) {
        return Ok(from_header);
    }
    let (shares, rest): (Vec<&str>, Vec<&str>) =
        query.split('&').partition(|pair| pair.starts_with(SHARE_PARAMETER));
    let share = Credential::of(&shares[0][SHARE_PARAMETER.len()..]);
    let rest = rest.join("&");
    let one = shares.len() == 1 && from_header.is_none();
    *request.uri_mut() = without(request.uri(), &rest)?;
    if !one || !matches!(share, Credential::Share(_)) || rule.is_none_or(|rule| !rule.shared) {
        return malformed("an address may have one share token, to read its session");
    }
    Ok(Some(share))
}

/// An address with another query.
fn without(uri: &Uri, query: &str) -> Result<Uri, Error> {
    let path = uri.path();
    let path = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let mut parts = uri.clone().into_parts();
    let wrong = |_| Error::invalid("the address is malformed");
    parts.path_and_query = Some(path.parse().map_err(wrong)?);
    Uri::from_parts(parts).map_err(|_| Error::invalid("the address is malformed"))
}

/// How long a body says it is.
fn length(request: &Request) -> u64 {
    let length = request.headers().get(header::CONTENT_LENGTH);
    length.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// Cuts a body off that is longer than it may be.
fn bounded(auth: &Auth, rule: Option<&Rule>, request: Request) -> Request {
    if rule.is_none_or(|rule| rule.shape != Shape::Call) {
        return request;
    }
    let most = usize::try_from(auth.limits_now().request_bytes).unwrap_or(usize::MAX);
    request.map(|body| Body::new(Limited::new(body, most)))
}

/// Puts a line into the audit log, where it must be before anything is done.
async fn record(auth: &Arc<Auth>, line: Line, who: &Arc<str>) -> Result<(), Refusal> {
    let auth = Arc::clone(auth);
    let written = tokio::task::spawn_blocking(move || auth.audit.act(line)).await;
    let error = match written {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(error) => std::io::Error::other(error),
    };
    tracing::error!(%error, "an act cannot be recorded");
    let message = "the act cannot be put into the audit log, and is not carried out";
    let error = Error::new(Code::Unrecorded, message).caused_by(&error);
    Err(Refusal { recorded: false, ..Refusal::new(error, who) })
}

fn refused(auth: &Auth, facts: &Facts, headers: &HeaderMap, refusal: Refusal) -> Response {
    if refusal.recorded {
        let code = refusal.error.code.to_string();
        let line = facts.line(auth, Kind::Denied, &refusal.who, &About::default(), code);
        auth.audit.denied(line);
    }
    let mut response = refuse(headers, refusal.error);
    if let Some(seconds) = refusal.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// What came of a request, as far as its answer says so at once.
fn result(response: &Response) -> String {
    let status = response.headers().get("grpc-status").and_then(|value| value.to_str().ok());
    match status {
        Some(number) if number != "0" => format!("grpc-status {number}"),
        _ if response.status().is_success() => "ok".into(),
        _ => format!("status {}", response.status().as_u16()),
    }
}
