//! The HTTP side: beginning an interaction, following it, looking at it, ending it.

use super::config::{Config, VENDOR_URL};
use super::failure;
use super::wire::{Event, Standing};
use crate::builtin::error_message;
use crate::sse::Parser;
use ax_core::session::Failure;
use ax_gateway::provider::{causes, pause};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode, Url};
use serde_json::Value;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;
use tokio::time::timeout;

/// How long the provider may be silent before we ask again where the interaction stands.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// How long a short answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// The largest answer that is no stream, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How much of an error's body is read, in bytes.
const ERROR_BYTES_MAX: usize = 64 * 1024;
/// The environment variable that the vendor's own clients read the key from.
const KEY_VARIABLE: &str = "GEMINI_API_KEY";

/// Why a request was in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) failure: Failure,
    /// Whether the same request may succeed later.
    pub(super) again: bool,
    /// Whether the provider may have done what was asked.
    pub(super) unknown: bool,
    /// Whether what it speaks of is not there.
    pub(super) missing: bool,
    /// The status of the answer; 0 if there is none.
    pub(super) status: u16,
    /// How long the provider wants us to wait.
    pub(super) pause: Option<Duration>,
}

impl Refused {
    fn last(code: &str, message: impl ToString) -> Self {
        let failure = failure(code, message);
        Self { failure, again: false, unknown: false, missing: false, status: 0, pause: None }
    }

    fn again(code: &str, message: impl ToString) -> Self {
        Self { again: true, ..Self::last(code, message) }
    }

    /// The request was sent, and nobody knows what became of it.
    fn unknown(code: &str, message: impl ToString) -> Self {
        Self { unknown: true, ..Self::again(code, message) }
    }
}

/// A key, which is never shown.
#[derive(Clone)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The way to the provider.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    key: Option<Secret>,
    key_variable: String,
}

impl Client {
    pub(super) fn new(http: reqwest::Client, config: &Config) -> Result<Self, Failure> {
        let base = Url::parse(&config.base_url).map_err(|error| failure("config", error))?;
        let named = config.api_key_env.clone();
        let must = named.is_some() || config.base_url == VENDOR_URL;
        let key_variable = named.unwrap_or_else(|| KEY_VARIABLE.into());
        let key = std::env::var(&key_variable).ok().filter(|key| !key.is_empty()).map(Secret);
        if key.is_none() && must {
            let message = format!(
                "the environment variable {key_variable} is not set where the runtime runs; \
                 set it to the provider's API key, or name another variable in \
                 harness.api_key_env"
            );
            return Err(failure("model_key", message));
        }
        Ok(Self { http, base, key, key_variable })
    }

    /// Begins an interaction; returns what the provider says of it.
    pub(super) async fn create(&self, body: &Value) -> Result<Begun, Refused> {
        let request = self.http.post(self.url(&[])?).body(body.to_string());
        let request = request.headers(self.headers()?);
        let response = match timeout(SILENCE_MAX, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_connect() => return Err(self.unreachable(error)),
            Ok(Err(error)) => {
                let message = self.without_key(&causes(&error.without_url()));
                return Err(Refused::unknown("interaction_unknown", message));
            }
            Err(_) => return Err(Refused::unknown("interaction_unknown", silence(SILENCE_MAX))),
        };
        if response.status() != StatusCode::OK {
            let unknown = may_have_begun(response.status());
            return Err(Refused { unknown, ..self.refused(response).await });
        }
        if is_stream(&response) {
            return Ok(Begun::Stream(Stream::new(response)));
        }
        let read = self.standing(response).await;
        read.map(Begun::Standing).map_err(|refused| Refused { unknown: true, ..refused })
    }

    /// Follows an interaction from behind an event on, or from its beginning.
    pub(super) async fn follow(&self, id: &str, after: Option<&str>) -> Result<Begun, Refused> {
        let mut url = self.url(&[id])?;
        url.query_pairs_mut().append_pair("stream", "true");
        if let Some(after) = after {
            url.query_pairs_mut().append_pair("last_event_id", after);
        }
        let response = self.send(self.http.get(url)).await?;
        if is_stream(&response) {
            return Ok(Begun::Stream(Stream::new(response)));
        }
        self.standing(response).await.map(Begun::Standing)
    }

    /// Looks where an interaction stands.
    pub(super) async fn look(&self, id: &str) -> Result<Standing, Refused> {
        let response = self.send(self.http.get(self.url(&[id])?)).await?;
        let standing = self.standing(response).await?;
        if standing.status.is_empty() {
            let message = "the provider does not say where the interaction stands";
            return Err(Refused::again("protocol", message));
        }
        Ok(standing)
    }

    /// Ends an interaction.
    pub(super) async fn cancel(&self, id: &str) -> Result<(), Refused> {
        let request = self.http.post(self.url(&[id, "cancel"])?).body("{}");
        self.send(request).await.map(drop)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, Refused> {
        let request = request.headers(self.headers()?);
        match timeout(ANSWER_MAX, request.send()).await {
            Ok(Ok(response)) if response.status() == StatusCode::OK => Ok(response),
            Ok(Ok(response)) => Err(self.refused(response).await),
            Ok(Err(error)) => Err(self.unreachable(error)),
            Err(_) => Err(Refused::again("model_silent", silence(ANSWER_MAX))),
        }
    }

    /// The address of the interactions, or of what is below them. Names are encoded.
    fn url(&self, below: &[&str]) -> Result<Url, Refused> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut path) => {
                path.pop_if_empty().push("interactions").extend(below);
            }
            Err(()) => return Err(Refused::last("config", "harness.base_url has no path")),
        }
        Ok(url)
    }

    fn headers(&self) -> Result<HeaderMap, Refused> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let Some(key) = &self.key else { return Ok(headers) };
        let mut value = HeaderValue::from_str(&key.0).map_err(|_| {
            Refused::last("model_key", format!("what {} holds is not a key", self.key_variable))
        })?;
        value.set_sensitive(true);
        headers.insert("x-goog-api-key", value);
        Ok(headers)
    }

    async fn standing(&self, response: Response) -> Result<Standing, Refused> {
        let body = match timeout(ANSWER_MAX, read(response, ANSWER_BYTES_MAX)).await {
            Ok(Ok(body)) => body,
            Ok(Err(message)) => {
                return Err(Refused::again("model_cut", self.without_key(&message)));
            }
            Err(_) => return Err(Refused::again("model_silent", silence(ANSWER_MAX))),
        };
        match serde_json::from_slice::<Value>(&body) {
            Ok(interaction @ Value::Object(_)) => Ok(Standing::of(&interaction)),
            _ => Err(Refused::last("protocol", "the provider's answer is no interaction")),
        }
    }

    fn unreachable(&self, error: reqwest::Error) -> Refused {
        let said = self.without_key(&causes(&error.without_url()));
        Refused::again("model_unreachable", format!("{} cannot be reached: {said}", self.base))
    }

    async fn refused(&self, response: Response) -> Refused {
        let status = response.status();
        let pause = pause(response.headers());
        let body = timeout(ANSWER_MAX, read(response, ERROR_BYTES_MAX)).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        let said = self.without_key(&error_message(&body));
        let message = |hint: &str| {
            let said = if said.is_empty() { String::new() } else { format!(": {said}") };
            format!("the provider answers {status}{said}{hint}")
        };
        let refused = match status.as_u16() {
            429 => Refused { pause, ..Refused::again("model_limit", message("")) },
            408 | 425 | 500..=599 => {
                Refused { pause, ..Refused::again("model_unavailable", message("")) }
            }
            401 | 403 => {
                let variable = &self.key_variable;
                let hint = format!("; check the key in the environment variable {variable}");
                Refused::last("model_auth", message(&hint))
            }
            404 | 410 => {
                let hint = "; check harness.agent or harness.model, and harness.base_url";
                Refused { missing: true, ..Refused::last("model_not_found", message(hint)) }
            }
            _ => Refused::last("model_request", message("")),
        };
        Refused { status: status.as_u16(), ..refused }
    }

    /// Some providers repeat the key in what they say about it.
    fn without_key(&self, text: &str) -> String {
        match &self.key {
            Some(key) => text.replace(&key.0, "***"),
            None => text.to_owned(),
        }
    }
}

/// Whether what was asked for may have begun although the answer is an error.
fn may_have_begun(status: StatusCode) -> bool {
    let broke = status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE;
    broke || status == StatusCode::REQUEST_TIMEOUT
}

fn is_stream(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
}

fn silence(limit: Duration) -> String {
    format!("the provider was silent for {} s", limit.as_secs())
}

/// Reads a body; of one that is too long, as much as may be.
async fn read(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while body.len() < bytes_max {
        match response.chunk().await {
            Ok(Some(bytes)) => body.extend_from_slice(&bytes),
            Ok(None) => break,
            Err(error) => return Err(causes(&error.without_url())),
        }
    }
    Ok(body)
}

/// What comes of a request for an interaction.
#[derive(Debug)]
pub(super) enum Begun {
    /// Its events.
    Stream(Stream),
    /// Where it stands.
    Standing(Standing),
}

/// Why nothing more comes of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// It is over.
    Ended,
    /// It broke.
    Broken(Failure),
}

/// Events under way.
#[derive(Debug)]
pub(super) struct Stream {
    response: Response,
    parser: Parser,
    events: VecDeque<String>,
    ended: bool,
}

impl Stream {
    fn new(response: Response) -> Self {
        Self { response, parser: Parser::default(), events: VecDeque::new(), ended: false }
    }

    /// Waits for the next event. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Event, Cut> {
        loop {
            if let Some(data) = self.events.pop_front() {
                return Event::read(&data).map_err(|why| Cut::Broken(failure("protocol", why)));
            }
            if self.ended {
                return Err(Cut::Ended);
            }
            let mut events = Vec::new();
            match timeout(SILENCE_MAX, self.response.chunk()).await {
                Ok(Ok(Some(bytes))) => {
                    if !self.parser.feed(&bytes, &mut events) {
                        let message = "an event is longer than it may be";
                        return Err(Cut::Broken(failure("protocol", message)));
                    }
                }
                Ok(Ok(None)) => {
                    self.parser.end(&mut events);
                    self.ended = true;
                }
                Ok(Err(error)) => {
                    let message = format!("the stream was cut: {}", causes(&error.without_url()));
                    return Err(Cut::Broken(failure("model_cut", message)));
                }
                Err(_) => {
                    return Err(Cut::Broken(failure("model_silent", silence(SILENCE_MAX))));
                }
            }
            self.events.extend(events.into_iter().map(|event| event.data));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_server_leaves_open_whether_it_has_begun() {
        let may = |status: u16| may_have_begun(StatusCode::from_u16(status).unwrap());
        for status in [408, 500, 501, 502, 504, 529] {
            assert!(may(status), "{status}");
        }
        for status in [400, 401, 403, 404, 425, 429, 503] {
            assert!(!may(status), "{status}");
        }
    }
}
