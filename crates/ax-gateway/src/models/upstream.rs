//! Asking a provider, again if that may help, and reading what it says.

use super::events::{self, Events};
use super::exchange::{End, Exchange};
use super::recorded::{Answer, Head};
use super::wire::{Canon, Reading, Wire};
use crate::config::{Kind, Provider};
use crate::provider::{causes, hidden, pause};
use crate::session::Session;
use ax_core::session::{StepKey, Usage};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use regex_lite::Regex;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// How long a model may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// How long the connection may stay open after the last event.
const LINGER_MAX: Duration = Duration::from_millis(250);
/// The pause before the second try; it doubles with each.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
/// The longest pause that the provider did not ask for.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Makes the connections of all gateways.
///
/// # Errors
///
/// Fails if the system's certificates cannot be read.
pub fn connections() -> Result<reqwest::Client, reqwest::Error> {
    // Somebody else in the process may have chosen one already.
    let _chosen_already = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .connect_timeout(CONNECT_MAX)
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true)
        .build()
}

/// A provider, and its key.
pub(crate) struct Upstream {
    pub(crate) provider: Provider,
    pub(crate) key: Option<HeaderValue>,
    /// What is as if it were not there.
    pub(crate) ignored: Arc<[Regex]>,
    pub(crate) http: reqwest::Client,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("provider", &self.provider).finish_non_exhaustive()
    }
}

/// What a harness wants of a provider.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) wire: Wire,
    pub(crate) method: Method,
    /// Path and query, below the provider.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Its place among the requests of the attempt.
    pub(crate) _place: Arc<OwnedSemaphorePermit>,
    pub(crate) model: String,
}

/// How a try ended.
enum Tried {
    /// The whole answer: the exchange has all but what must be durable first.
    Whole(Answer, Reading, Vec<Bytes>),
    /// It came to nothing that was shown.
    Failed(Problem),
    /// It was cut after some of it was shown.
    Cut,
}

/// Why a try came to nothing.
#[derive(Debug)]
struct Problem {
    /// What the provider said, if it did.
    said: Option<Answer>,
    message: String,
    /// Whether asking again at once may help.
    again: bool,
    /// Whether the same would be said tomorrow.
    lasts: bool,
    /// How long the provider wants us to wait.
    pause: Option<Duration>,
}

impl Upstream {
    /// When two parts of requests to it are the same.
    pub(crate) fn canon(&self, wire: Wire) -> Canon {
        Canon::new(wire, Arc::clone(&self.ignored))
    }

    /// Sends something on that is not journaled.
    pub(crate) async fn pass(
        &self,
        wanted: &Wanted,
    ) -> Result<(Head, BoxStream<'static, io::Result<Bytes>>), String> {
        let response = self.send(wanted, wanted.body.clone(), &wanted.path).await?;
        let head = Head::new(response.status(), response.headers());
        if !head.status.is_success() {
            let body = self.without_key(whole(response).await?);
            return Ok((head, stream::iter([Ok(body)]).boxed()));
        }
        let pieces = stream::try_unfold(response, |mut response| async {
            match timeout(SILENCE_MAX, response.chunk()).await {
                Ok(Ok(piece)) => Ok(piece.map(|piece| (piece, response))),
                Ok(Err(error)) => Err(io::Error::other(causes(&error.without_url()))),
                Err(_) => Err(io::Error::other(silence())),
            }
        });
        Ok((head, pieces.boxed()))
    }

    /// Takes the key out of an error in which a provider repeats it.
    fn without_key(&self, body: Bytes) -> Bytes {
        let key = self.key.as_ref().and_then(|key| key.to_str().ok()).unwrap_or_default();
        hidden(key.strip_prefix("Bearer ").unwrap_or(key), body)
    }

    /// Carries a call out, until its answer is whole and recorded, or cannot be had. Returns what
    /// it consumed.
    pub(crate) async fn call(
        &self,
        wanted: Wanted,
        step: StepKey,
        session: &Session,
        exchange: &Exchange,
        said: impl FnOnce(&Reading) + Send,
    ) -> Option<Usage> {
        let mut problem = None;
        let models = std::iter::once(None).chain(self.provider.fallback.iter().map(Some));
        for model in models {
            let Some((path, body)) = wanted.with_model(model.map(String::as_str)) else { continue };
            match self.model(&wanted, &path, &body, session, exchange).await {
                Tried::Whole(answer, reading, held) => {
                    let name = model.map_or(&wanted.model, |model| model);
                    let mut usage = reading.usage();
                    usage.cost_micros = self.provider.cost_micros(name, &usage);
                    said(&reading);
                    match session.record(&step, answer.store(reading.stop()), usage).await {
                        Ok(()) => {
                            held.into_iter()
                                .for_each(|piece| exchange.show(&answer.head, Some(piece)));
                            exchange.show(&answer.head, None);
                            exchange.end(End::Whole);
                        }
                        // What is not durable is not shown.
                        Err(_) => exchange.end(End::Cut),
                    }
                    return Some(usage);
                }
                Tried::Cut => {
                    exchange.end(End::Cut);
                    return None;
                }
                Tried::Failed(failed) => {
                    let final_answer = failed.said.as_ref().filter(|_| failed.lasts);
                    if let Some(answer) = final_answer {
                        // It would say the same again.
                        let usage = Usage::default();
                        let kept = session.record(&step, answer.store(None), usage).await.is_ok();
                        if kept {
                            show(exchange, answer);
                        }
                        exchange.end(if kept { End::Whole } else { End::Cut });
                        return None;
                    }
                    problem = Some(failed);
                }
            }
        }
        // Not recorded: whoever asks again may have more luck.
        let problem = problem.expect("there is a first model");
        let answer = problem.said.unwrap_or_else(|| {
            let message = format!("the gateway could not reach the model: {}", problem.message);
            super::own_error(wanted.wire, StatusCode::BAD_GATEWAY, &message)
        });
        show(exchange, &answer);
        exchange.end(End::Refused);
        None
    }

    /// Asks one model until it answers.
    async fn model(
        &self,
        wanted: &Wanted,
        path: &str,
        body: &Bytes,
        session: &Session,
        exchange: &Exchange,
    ) -> Tried {
        for tried in 1.. {
            if !session.may_act() {
                return Tried::Cut;
            }
            let problem = match self.try_once(wanted, path, body.clone(), exchange).await {
                Tried::Failed(problem) => problem,
                ended => return ended,
            };
            if !problem.again || tried >= self.provider.tries {
                return Tried::Failed(problem);
            }
            let pause = problem.pause.unwrap_or_else(|| backoff(tried));
            tracing::info!(tried, ?pause, message = problem.message, "a model is asked again");
            tokio::time::sleep(pause).await;
        }
        unreachable!("the last try returns")
    }

    async fn try_once(
        &self,
        wanted: &Wanted,
        path: &str,
        body: Bytes,
        exchange: &Exchange,
    ) -> Tried {
        let again =
            |message| Problem { said: None, message, again: true, lasts: false, pause: None };
        let response = match self.send(wanted, body, path).await {
            Ok(response) => response,
            Err(message) => return Tried::Failed(again(message)),
        };
        let head = Head::new(response.status(), response.headers());
        if head.status.is_success() && head.is_stream() {
            return read_stream(response, head, wanted.wire, exchange).await;
        }
        let body = match whole(response).await {
            Ok(body) => body,
            Err(message) => return Tried::Failed(again(message)),
        };
        if !head.status.is_success() {
            return Tried::Failed(refused(Answer { head, chunks: vec![self.without_key(body)] }));
        }
        let answer = Answer { head, chunks: vec![body] };
        let mut reading = Reading::new(wanted.wire);
        reading.body(&answer.chunks[0]);
        if !reading.is_whole() {
            return Tried::Failed(again("the answer is not JSON".into()));
        }
        let held = answer.chunks.clone();
        Tried::Whole(answer, reading, held)
    }

    fn send(
        &self,
        wanted: &Wanted,
        body: Bytes,
        path: &str,
    ) -> BoxFuture<'_, Result<reqwest::Response, String>> {
        let url = format!("{}{path}", self.provider.base_url());
        let mut headers = wanted.headers.clone();
        if let Some(key) = &self.key {
            let name = match self.provider.provider {
                Kind::Anthropic => HeaderName::from_static("x-api-key"),
                Kind::Openai => AUTHORIZATION,
                Kind::Gemini => HeaderName::from_static("x-goog-api-key"),
            };
            headers.insert(name, key.clone());
        }
        let sent = self.http.request(wanted.method.clone(), url).headers(headers).body(body).send();
        Box::pin(async move {
            match timeout(SILENCE_MAX, sent).await {
                Ok(sent) => sent.map_err(|error| causes(&error.without_url())),
                Err(_) => Err(silence()),
            }
        })
    }
}

impl Wanted {
    /// Returns path and body with another model, if one is named.
    fn with_model(&self, model: Option<&str>) -> Option<(String, Bytes)> {
        let Some(model) = model else { return Some((self.path.clone(), self.body.clone())) };
        if self.wire == Wire::Gemini {
            let (before, last) = self.path.rsplit_once('/')?;
            let (_, way) = last.split_once(':')?;
            return Some((format!("{before}/{model}:{way}"), self.body.clone()));
        }
        let mut body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        body["model"] = model.into();
        Some((self.path.clone(), body.to_string().into()))
    }
}

/// Reads a stream; shows each event when it is whole, but not the one that ends it.
async fn read_stream(
    response: reqwest::Response,
    head: Head,
    wire: Wire,
    exchange: &Exchange,
) -> Tried {
    let mut bytes = response.bytes_stream();
    let (mut events, mut reading) = (Events::default(), Reading::new(wire));
    let (mut chunks, mut held) = (Vec::new(), Vec::new());
    let mut size = 0;
    let cut = |shown: bool, message: &str| {
        if shown {
            return Tried::Cut;
        }
        let message = message.to_owned();
        Tried::Failed(Problem { said: None, message, again: true, lasts: false, pause: None })
    };
    loop {
        let patience = if reading.is_whole() { LINGER_MAX } else { SILENCE_MAX };
        let piece = match timeout(patience, bytes.next()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(None) => break,
            // What is whole stays whole.
            Ok(Some(Err(_))) | Err(_) if reading.is_whole() => break,
            Ok(Some(Err(error))) => {
                return cut(!chunks.is_empty(), &causes(&error.without_url()));
            }
            Err(_) => return cut(!chunks.is_empty(), &silence()),
        };
        size += piece.len();
        if events.feed(&piece).is_err() || size > ANSWER_BYTES_MAX {
            return cut(!chunks.is_empty(), "the answer has no end");
        }
        // Events that came together go on together.
        let mut shown: Vec<Bytes> = Vec::new();
        while let Some(event) = events.next() {
            let closes = reading.event(&events::data(&event));
            if closes || !held.is_empty() {
                held.push(event);
            } else {
                shown.push(event);
            }
        }
        if !shown.is_empty() {
            let piece = if shown.len() == 1 { shown.remove(0) } else { shown.concat().into() };
            chunks.push(piece.clone());
            exchange.show(&head, Some(piece));
        }
    }
    let rest = events.rest();
    if !rest.is_empty() {
        // The last event may lack its empty line.
        let _closes = reading.event(&events::data(&rest));
        held.push(rest);
    }
    if !reading.is_whole() {
        return cut(!chunks.is_empty(), "the answer was cut");
    }
    let held: Vec<Bytes> = if held.is_empty() { held } else { vec![held.concat().into()] };
    chunks.extend(held.iter().cloned());
    Tried::Whole(Answer { head, chunks }, reading, held)
}

/// Reads an answer that is no stream.
async fn whole(response: reqwest::Response) -> Result<Bytes, String> {
    let mut bytes = response.bytes_stream();
    let mut body = Vec::new();
    loop {
        match timeout(SILENCE_MAX, bytes.next()).await {
            Ok(Some(Ok(piece))) if body.len() + piece.len() <= ANSWER_BYTES_MAX => {
                body.extend_from_slice(&piece);
            }
            Ok(Some(Ok(_))) => return Err("the answer has no end".into()),
            Ok(Some(Err(error))) => return Err(causes(&error.without_url())),
            Ok(None) => return Ok(body.into()),
            Err(_) => return Err(silence()),
        }
    }
}

/// Sorts what a provider refuses.
fn refused(answer: Answer) -> Problem {
    let status = answer.head.status;
    let body = String::from_utf8_lossy(&answer.chunks[0]).into_owned();
    let quota = body.contains("insufficient_quota") || body.contains("exceeded your current quota");
    let passes = matches!(status.as_u16(), 408 | 409 | 425 | 429 | 500..=599);
    let (again, lasts) = (passes && !quota, !passes);
    let pause = pause(&answer.head.headers);
    let message = format!("the provider answers {status}");
    Problem { said: Some(answer), message, again, lasts, pause }
}

fn backoff(tried: u32) -> Duration {
    let pause = BACKOFF_MIN.saturating_mul(1 << (tried - 1).min(16)).min(BACKOFF_MAX);
    // Spreads those who were refused at the same moment.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    pause + Duration::from_millis(u64::from(now.subsec_nanos() % 250))
}

fn show(exchange: &Exchange, answer: &Answer) {
    exchange.show(&answer.head, None);
    answer.chunks.iter().for_each(|chunk| exchange.show(&answer.head, Some(chunk.clone())));
}

fn silence() -> String {
    format!("the model was silent for {} s", SILENCE_MAX.as_secs())
}
