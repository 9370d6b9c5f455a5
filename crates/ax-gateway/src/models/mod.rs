//! The way of a model call: who asks, which answer belongs to it, and if there is none yet, asking
//! the provider.

mod body;
mod book;
mod chain;
mod events;
mod exchange;
mod headers;
mod limits;
mod quotas;
mod recorded;
mod reply;
mod upstream;
mod wire;

use crate::config::{Kind, OnDivergence, Provider};
use crate::denials::Noted;
use crate::gateway::OpenError;
use crate::proof::{WRONG_KEY, without_key};
use crate::session::{self, KEY_PREFIX, Recorded, Session};
use ax_core::session::{
    Body, Digest, EffectClass, Failure, Frame, Prefix, StepKey, StepKind, Usage,
};
use body::{Room, Unread};
use book::{Book, Diverged, Found};
use chain::Placed;
pub(crate) use events::{Events, data};
use exchange::{End, Exchange};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use hyper::body::Incoming;
pub(crate) use limits::Meter;
use limits::Over;
pub use limits::{Rates, Used};
pub use quotas::{Period, Quota, Quotas, QuotasError};
pub(crate) use recorded::Answer;
use recorded::Head;
use reply::{Reply, Taken, deliver, reply};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
pub use upstream::connections;
use upstream::{Upstream, Wanted};
use wire::{Asked, Call};
pub(crate) use wire::{Canon, Reading, Wire};

/// How long a question that nobody has asked before waits for those that are due in its place:
/// a program that asks several at once asks them in any order.
const DUE_MAX: Duration = Duration::from_secs(1);
/// Everything between a harness and its models.
#[derive(Debug)]
pub(crate) struct Models {
    upstreams: HashMap<String, Arc<Upstream>>,
    on_divergence: OnDivergence,
    session: Arc<Session>,
    meter: Meter,
    /// What was answered from the journal and is not noted yet.
    replayed: Mutex<Usage>,
    book: Mutex<Book>,
    room: Room,
    /// A question was asked.
    asked: Notify,
    calls: TaskTracker,
    stop: CancellationToken,
    /// The trace that calls are part of.
    trace: Option<HeaderValue>,
}

impl Models {
    pub(crate) fn new(
        providers: Vec<Provider>,
        on_divergence: OnDivergence,
        http: reqwest::Client,
        journal: Vec<Recorded>,
        sent: &[Prefix],
        meter: Meter,
        session: Arc<Session>,
    ) -> Result<Self, OpenError> {
        let mut upstreams = HashMap::new();
        for provider in providers {
            let name = provider.name().to_owned();
            let variable = provider.key_variable();
            let key = std::env::var(variable).ok().filter(|key| !key.is_empty());
            let key = key.and_then(|key| secret(&provider, &key));
            if key.is_none() && (provider.is_vendor() || provider.api_key_env.is_some()) {
                let variable = variable.to_owned();
                return Err(OpenError::Key { provider: name, variable });
            }
            let ignored = provider.ignored();
            let upstream = Upstream { provider, key, ignored, http: http.clone() };
            drop(upstreams.insert(name, Arc::new(upstream)));
        }
        Ok(Self {
            upstreams,
            on_divergence,
            session,
            meter,
            replayed: Mutex::default(),
            book: Mutex::new(Book::new(journal, sent)),
            room: Room::new(),
            asked: Notify::new(),
            calls: TaskTracker::new(),
            stop: CancellationToken::new(),
            trace: None,
        })
    }

    /// Says who counts its calls, who ends them, and which trace they are part of.
    pub(crate) fn under(
        self,
        calls: TaskTracker,
        stop: CancellationToken,
        trace: Option<HeaderValue>,
    ) -> Self {
        Self { calls, stop, trace, ..self }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.upstreams.contains_key(name)
    }

    /// Answers a request whose first segment is the name of a provider. `holds` says whether it
    /// has shown whose it is.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        head: Parts,
        body: Incoming,
        holds: bool,
    ) -> Response<Reply> {
        let path_and_query = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let (name, _) = path_and_query[1..].split_once('/').unwrap_or_default();
        let Some(upstream) = self.upstreams.get(name) else {
            return refuse(Wire::Chat, StatusCode::NOT_FOUND, "there is no such provider");
        };
        let path = &path_and_query[1 + name.len()..];
        let plain_path = path.split('?').next().unwrap_or_default();
        let Some(call) = Call::of(upstream.provider.provider, &head.method, plain_path) else {
            let message = "the gateway lets no such request through; see docs/gateway.md";
            return deny(Wire::Chat, StatusCode::NOT_FOUND, message);
        };
        let wire = call.wire();
        if !holds {
            return deny(wire, StatusCode::UNAUTHORIZED, WRONG_KEY);
        }
        let body = match self.room.read(&head.headers, body).await {
            Ok(body) => body,
            Err(Unread::Broken) => {
                return refuse(wire, StatusCode::BAD_REQUEST, &Unread::Broken.to_string());
            }
            Err(unread) => return deny(wire, unread.status(), &unread.to_string()),
        };
        let mut wanted = Wanted {
            wire,
            method: head.method,
            path: without_key(path),
            headers: headers::sent_on(&head.headers, self.trace.as_ref()),
            body: body.bytes,
            _place: Arc::new(body.place),
            model: String::new(),
        };
        if !matches!(call, Call::Model(_)) {
            return self.pass(upstream, &wanted, call).await;
        }
        if body::has_too_many_values(&wanted.body) {
            return deny(wire, Unread::TooMany.status(), &Unread::TooMany.to_string());
        }
        let parsed: Map<String, Value> = match serde_json::from_slice(&wanted.body) {
            Ok(parsed) => parsed,
            Err(error) => {
                let message = format!("the request is not a JSON object: {error}");
                return refuse(wire, StatusCode::BAD_REQUEST, &message);
            }
        };
        let canon = upstream.canon(wire);
        let asked = wire.asked(plain_path, parsed, &canon);
        wanted.model.clone_from(&asked.model);
        match self.exchange(upstream, wanted, &asked).await {
            Ok(taken) => deliver(wire, taken).await,
            Err(Refused::Here(message)) => refuse(wire, StatusCode::CONFLICT, &message),
            Err(Refused::Over(over)) => refuse_over(wire, &over),
        }
    }

    /// Passes on what is not recorded.
    async fn pass(&self, upstream: &Upstream, wanted: &Wanted, call: Call) -> Response<Reply> {
        // Who lost the session to another changes nothing outside.
        if matches!(call, Call::Drop(_)) && (self.session.is_closing() || !self.session.may_act()) {
            return refuse(wanted.wire, StatusCode::CONFLICT, "the attempt is over");
        }
        match upstream.pass(wanted).await {
            Ok((head, pieces)) => reply(head, Reply::passed(pieces, self.stop.clone())),
            Err(message) => refuse(wanted.wire, StatusCode::BAD_GATEWAY, &message),
        }
    }

    /// Finds the exchange that answers a question, or begins it. Once it is found nothing is waited
    /// for: the connection may break at any moment.
    async fn exchange(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        wanted: Wanted,
        asked: &Asked,
    ) -> Result<Taken, Refused> {
        let deadline = Instant::now() + DUE_MAX;
        let canon = upstream.canon(wanted.wire);
        if self.session.is_closing() {
            return Err(Refused::Here("the attempt is over".into()));
        }
        let admit = || self.meter.admit(upstream.provider.name());
        loop {
            let others = self.asked.notified();
            let (found, placed) = {
                let mut book = self.book();
                let placed = book.place(asked);
                (
                    book.ask(asked, &placed, &canon, admit).map_err(|error| error.to_string())?,
                    placed,
                )
            };
            let (step, exchange, begin, wait) = match found {
                Found::Known(exchange) => {
                    self.asked.notify_waiters();
                    return Ok(Taken::new(exchange));
                }
                Found::Replayed(exchange) => {
                    self.hear(&exchange, &canon, &placed, (upstream, &asked.model));
                    self.asked.notify_waiters();
                    return Ok(Taken::new(exchange));
                }
                Found::Again(step, exchange, wait) => (step, exchange, None, wait),
                Found::New(step, exchange, wait) => {
                    self.asked.notify_waiters();
                    let begin = begin(&step, &wanted, asked, &placed);
                    (step, exchange, Some(begin), wait)
                }
                Found::Over(over) => {
                    self.over(&over).await?;
                    return Err(Refused::Over(over));
                }
                Found::Diverged(diverged) => {
                    if timeout_at(deadline, others).await.is_err() {
                        self.diverged(diverged).await?;
                    }
                    continue;
                }
            };
            let taken = Taken::new(Arc::clone(&exchange));
            let chain = placed.prefix.chain;
            let (models, upstream) = (Arc::clone(self), Arc::clone(upstream));
            drop(self.calls.spawn(async move {
                let call = async {
                    if !models.session.wait(wait).await {
                        return exchange.end(End::Cut);
                    }
                    models.call(&upstream, wanted, (step, begin), chain, &exchange).await;
                };
                tokio::select! {
                    () = models.stop.cancelled() => exchange.end(End::Cut),
                    () = call => {}
                }
            }));
            return Ok(taken);
        }
    }

    /// Asks the provider, whatever becomes of the harness.
    async fn call(
        &self,
        upstream: &Upstream,
        wanted: Wanted,
        (step, begin): (StepKey, Option<Frame>),
        chain: Digest,
        exchange: &Exchange,
    ) {
        let refused = match begin {
            Some(begin) => match self.session.begin(&step, begin).await {
                Ok(refused) => Some(refused),
                Err(_) => return exchange.end(End::Cut),
            },
            None => None,
        };
        let canon = upstream.canon(wanted.wire);
        let said = |reading: &Reading| self.book().said(chain, &reading.said(&canon));
        let call = upstream.call(wanted, step, &self.session, exchange, said);
        tokio::select! {
            spent = call => if let Some(usage) = spent {
                self.meter.spent(upstream.provider.name(), &usage);
            },
            // What cannot be recorded is not paid for, now or in the next attempt.
            why = session::refusal(refused) => {
                self.session.fail(Failure { code: "gateway".into(), message: why });
                exchange.end(End::Cut);
            }
        }
    }

    /// Notes, once in an attempt, that a budget is used up.
    async fn over(&self, over: &Over) -> Result<(), String> {
        let Over::Budget { what, limit, used } = over else { return Ok(()) };
        let key = StepKey::from(format!("{KEY_PREFIX}over:{what}"));
        let data = json!({"budget": what, "limit": limit, "used": used});
        let (name, data) = ("gateway.over_budget".to_owned(), Body::Text(data.to_string()));
        let frame = Frame::Note { key: Some(key), name, data };
        self.session.say(frame).await.map_err(|closed| closed.to_string())
    }

    /// What a model said in an earlier attempt, it will be told again, unpaid.
    fn hear(
        &self,
        exchange: &Exchange,
        canon: &Canon,
        placed: &Placed,
        (upstream, model): (&Upstream, &str),
    ) {
        let Some(reading) = exchange.reading(canon.wire()) else { return };
        self.book().said(placed.prefix.chain, &reading.said(canon));
        let mut usage = reading.usage();
        usage.cost_micros = upstream.provider.cost_micros(model, &usage);
        self.replayed().add(&usage);
    }

    /// Notes what was answered from the journal. Called when the attempt is over.
    pub(crate) async fn sum_up(&self) {
        let replayed = *self.replayed();
        if replayed.model_calls == 0 {
            return;
        }
        let tokens = replayed.input_tokens.saturating_add(replayed.output_tokens);
        let (calls, cost) = (replayed.model_calls, replayed.cost_micros);
        let data = json!({"calls": calls, "tokens": tokens, "cost_micros": cost});
        let (name, data) = ("gateway.replayed".to_owned(), Body::Text(data.to_string()));
        // Nothing rests on it.
        let said = self.session.say(Frame::Note { key: None, name, data }).await;
        // It is forgotten once it is said: who waits for this may be called away.
        if said.is_ok() {
            *self.replayed() = Usage::default();
        }
    }

    fn replayed(&self) -> std::sync::MutexGuard<'_, Usage> {
        self.replayed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what came instead of what was recorded, and goes on only if the manifest says so.
    async fn diverged(&self, diverged: Diverged) -> Result<(), String> {
        let Diverged { step, expected, found } = diverged;
        match self.on_divergence {
            OnDivergence::Stop => {
                let message = format!("at {step}: recorded was {expected}, found was {found}");
                let frame = Frame::Diverged { step, expected, found };
                self.session.say(frame).await.map_err(|closed| closed.to_string())?;
                let failure = Failure { code: "divergence".into(), message: message.clone() };
                self.session.fail(failure);
                Err(message)
            }
            OnDivergence::Continue => {
                self.book().leave(&step);
                let data = json!({"step": step.as_str(), "expected": expected, "found": found});
                let key = StepKey::from(format!("{KEY_PREFIX}diverged:{}", short(&step)));
                let name = "gateway.divergence".to_owned();
                let data = Body::Text(data.to_string());
                let frame = Frame::Note { key: Some(key), name, data };
                self.session.say(frame).await.map_err(|closed| closed.to_string())
            }
        }
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        // A question that panicked has answered nobody.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a question is not answered.
enum Refused {
    /// It cannot be, in words.
    Here(String),
    /// It would be over a limit.
    Over(Over),
}

impl From<String> for Refused {
    fn from(message: String) -> Self {
        Self::Here(message)
    }
}

/// A request as it is recorded, described in `docs/formats/gateway.md`.
#[derive(Serialize)]
struct Request<'a> {
    parts: Vec<&'a Value>,
    path: &'a str,
    wire: &'a str,
}

/// Returns the frame that begins the step of a call.
fn begin(step: &StepKey, wanted: &Wanted, asked: &Asked, placed: &Placed) -> Frame {
    let parts = placed.new.iter().map(|at| &asked.parts[*at].1).collect();
    let request = Request { parts, path: &wanted.path, wire: wanted.wire.name() };
    let request = serde_json::to_string(&request).expect("what is in memory can be written");
    Frame::StepBegin {
        step: step.clone(),
        kind: StepKind::Model,
        name: session::name(&asked.model),
        effect: EffectClass::Idempotent,
        digest: placed.prefix.chain,
        request: Some(Body::Text(request)),
        prefix: Some(placed.prefix.clone()),
        // The gateway has limits of its own; and what a provider refuses stays open to be asked
        // again.
        limit_millis: Some(0),
    }
}

fn short(step: &StepKey) -> &str {
    step.as_str().strip_prefix(KEY_PREFIX).unwrap_or_default()
}

/// Returns a key in the form in which the provider wants it.
fn secret(provider: &Provider, key: &str) -> Option<HeaderValue> {
    let value = match provider.provider {
        Kind::Openai => format!("Bearer {key}"),
        Kind::Anthropic | Kind::Gemini => key.to_owned(),
    };
    let mut value = HeaderValue::try_from(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Returns an answer of the gateway's own.
fn own_error(wire: Wire, status: StatusCode, message: &str) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = wire.error(status.as_u16(), message).to_string();
    Answer { head: Head { status, headers }, chunks: vec![body.into()] }
}

fn refuse(wire: Wire, status: StatusCode, message: &str) -> Response<Reply> {
    let answer = own_error(wire, status, message);
    reply(answer.head, Reply::whole(answer.chunks.concat().into()))
}

/// Says in the provider's words that a limit is reached.
fn refuse_over(wire: Wire, over: &Over) -> Response<Reply> {
    let (status, body) = match over {
        Over::Budget { .. } => wire.over_budget(&over.message()),
        Over::Rate { .. } => (429, wire.error(429, &over.message())),
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    match over {
        Over::Rate { after } => {
            drop(headers.insert(header::RETRY_AFTER, after.as_secs().max(1).into()));
        }
        // It does not help to ask again: clients that heed it do not.
        Over::Budget { .. } => {
            let name = HeaderName::from_static("x-should-retry");
            drop(headers.insert(name, HeaderValue::from_static("false")));
        }
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
    reply(Head { status, headers }, Reply::whole(body.to_string().into()))
}

/// Refuses what a harness should not do, so that it is noted.
fn deny(wire: Wire, status: StatusCode, message: &str) -> Response<Reply> {
    let mut response = refuse(wire, status, message);
    drop(response.extensions_mut().insert(Noted(message.into())));
    response
}
