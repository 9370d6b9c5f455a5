//! The HTTP side: one request, its status, its stream.

use super::{Decoder, Reply, StreamError, Streamed};
use crate::builtin::config::Model;
use crate::builtin::talk::Talk;
use crate::sse::{Event, Parser};
use ax_core::session::Failure;
use ax_gateway::provider::{causes, pause};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, StatusCode};
use serde_json::Value;
use std::fmt;
use std::time::Duration;
use tokio::time::timeout;

/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// How long a model may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// How much of an error's body is read, in bytes.
const ERROR_BYTES_MAX: usize = 64 * 1024;
/// How much of what a provider says about an error is passed on, in characters.
const MESSAGE_CHARS_MAX: usize = 2_000;

/// Why a call did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::builtin) struct CallError {
    pub(in crate::builtin) failure: Failure,
    /// Whether asking again may help.
    pub(in crate::builtin) again: bool,
    /// How long the provider wants us to wait.
    pub(in crate::builtin) pause: Option<Duration>,
}

impl CallError {
    fn again(code: &str, message: impl Into<String>) -> Self {
        Self { again: true, ..Self::last(code, message) }
    }

    fn last(code: &str, message: impl Into<String>) -> Self {
        let failure = Failure { code: code.into(), message: message.into() };
        Self { failure, again: false, pause: None }
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

/// Makes the connections of all executions.
pub(crate) fn connections() -> Result<reqwest::Client, Failure> {
    // Somebody else in the process may have chosen one already.
    let _chosen_already = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .connect_timeout(CONNECT_MAX)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("agent-executor/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Failure { code: "tls".into(), message: causes(&error) })
}

/// A model, and the way to it.
#[derive(Debug)]
pub(in crate::builtin) struct Client {
    http: reqwest::Client,
    model: Model,
    key: Option<Secret>,
    key_variable: String,
}

impl Client {
    pub(in crate::builtin) fn new(http: reqwest::Client, model: Model) -> Result<Self, Failure> {
        let named = model.api_key_env.clone();
        let must = named.is_some() || model.base_url.is_none();
        let key_variable = named.unwrap_or_else(|| model.provider.default_key_variable().into());
        let key = std::env::var(&key_variable).ok().filter(|key| !key.is_empty()).map(Secret);
        if key.is_none() && must {
            let message = format!(
                "the environment variable {key_variable} is not set where the runtime runs; \
                 set it to the provider's API key, or name another variable in \
                 harness.model.api_key_env"
            );
            return Err(Failure { code: "model_key".into(), message });
        }
        Ok(Self { http, model, key, key_variable })
    }

    /// Sends a request; returns its answer when it begins.
    pub(in crate::builtin) async fn ask(&self, talk: &Talk) -> Result<Answer, CallError> {
        let provider = self.model.provider;
        let request = provider.request(&self.model, talk).map_err(|error| {
            CallError::last("input", format!("a file of the conversation cannot be read: {error}"))
        })?;
        let base = self.model.base_url.as_deref().unwrap_or_else(|| provider.default_url());
        let url = format!("{}{}", base.trim_end_matches('/'), request.path);
        let body = Value::Object(request.body).to_string();
        let sent = self.http.post(&url).headers(self.headers()?).body(body).send();
        let response = match timeout(SILENCE_MAX, sent).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let message = format!("{url} cannot be reached: {}", causes(&error.without_url()));
                return Err(CallError::again("model_unreachable", self.without_key(&message)));
            }
            Err(_) => return Err(CallError::again("model_silent", silence())),
        };
        if response.status() != StatusCode::OK {
            return Err(self.refused(response, &url).await);
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if kind.is_some_and(|kind| kind.starts_with("text/html")) {
            let message = format!("{url} answers with a web page; check harness.model.base_url");
            return Err(CallError::last("model_request", message));
        }
        let decoder = provider.decoder();
        Ok(Answer { response, parser: Parser::default(), decoder, over: false })
    }

    fn headers(&self) -> Result<HeaderMap, CallError> {
        use crate::builtin::config::Provider;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.model.provider == Provider::Anthropic {
            let name = HeaderName::from_static("anthropic-version");
            headers.insert(name, HeaderValue::from_static("2023-06-01"));
        }
        let Some(key) = &self.key else { return Ok(headers) };
        let (name, value) = match self.model.provider {
            Provider::Anthropic => ("x-api-key", key.0.clone()),
            Provider::Openai | Provider::OpenaiChat => {
                ("authorization", format!("Bearer {}", key.0))
            }
            Provider::Gemini => ("x-goog-api-key", key.0.clone()),
        };
        let mut value = HeaderValue::from_str(&value).map_err(|_| {
            let message = format!("what {} holds is not a key", self.key_variable);
            CallError::last("model_key", message)
        })?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(name), value);
        Ok(headers)
    }

    async fn refused(&self, mut response: Response, url: &str) -> CallError {
        let status = response.status();
        let pause = pause(response.headers());
        let mut body = Vec::new();
        while body.len() < ERROR_BYTES_MAX {
            match timeout(CONNECT_MAX, response.chunk()).await {
                Ok(Ok(Some(bytes))) => body.extend_from_slice(&bytes),
                _ => break,
            }
        }
        let said = self.without_key(&error_message(&body));
        let message = |hint: &str| {
            let said = if said.is_empty() { String::new() } else { format!(": {said}") };
            let hint = if hint.is_empty() { String::new() } else { format!("; {hint}") };
            format!("the provider answers {status}{said}{hint}")
        };
        let quota =
            said.contains("insufficient_quota") || said.contains("exceeded your current quota");
        match status.as_u16() {
            429 if quota => {
                CallError::last("model_quota", message("the account has no credit left"))
            }
            408 | 409 | 425 | 429 | 500..=599 => {
                let code = if status == StatusCode::TOO_MANY_REQUESTS {
                    "model_limit"
                } else {
                    "model_unavailable"
                };
                CallError { pause, ..CallError::again(code, message("")) }
            }
            401 | 403 => {
                let hint =
                    format!("check the key in the environment variable {}", self.key_variable);
                CallError::last("model_auth", message(&hint))
            }
            404 | 405 => {
                let hint = format!("check harness.model.name and base_url ({url} was asked)");
                CallError::last("model_not_found", message(&hint))
            }
            413 => CallError::last("model_request", message("the conversation is too long")),
            _ => CallError::last("model_request", message("")),
        }
    }

    /// Some providers repeat the key in what they say about it.
    fn without_key(&self, text: &str) -> String {
        match &self.key {
            Some(key) => text.replace(&key.0, "***"),
            None => text.to_owned(),
        }
    }
}

/// An answer under way.
pub(in crate::builtin) struct Answer {
    response: Response,
    parser: Parser,
    decoder: Box<dyn Decoder>,
    over: bool,
}

impl Answer {
    /// Waits for more of it; `None` when it is whole. May be dropped and called again.
    pub(in crate::builtin) async fn next(&mut self) -> Result<Option<Vec<Streamed>>, CallError> {
        if self.over {
            return Ok(None);
        }
        let mut events = Vec::new();
        match timeout(SILENCE_MAX, self.response.chunk()).await {
            Ok(Ok(Some(bytes))) => {
                if !self.parser.feed(&bytes, &mut events) {
                    return Err(CallError::again("model_garbage", "the answer has no end"));
                }
            }
            Ok(Ok(None)) => {
                self.parser.end(&mut events);
                self.over = true;
            }
            // What is whole stays whole.
            Ok(Err(_)) if self.decoder.is_whole() => self.over = true,
            Ok(Err(error)) => {
                let message = format!("the answer was cut: {}", causes(&error.without_url()));
                return Err(CallError::again("model_cut", message));
            }
            Err(_) => return Err(CallError::again("model_silent", silence())),
        }
        let mut streamed = Vec::new();
        for event in events {
            self.event(&event, &mut streamed)?;
        }
        if self.over && !self.decoder.is_whole() {
            return Err(CallError::again("model_cut", "the answer was cut"));
        }
        Ok(Some(joined(streamed)))
    }

    fn event(&mut self, event: &Event, streamed: &mut Vec<Streamed>) -> Result<(), CallError> {
        if event.data.trim() == "[DONE]" {
            self.over = true;
            return Ok(());
        }
        let data: Value = serde_json::from_str(&event.data).map_err(|error| {
            CallError::again("model_garbage", format!("the answer is not JSON: {error}"))
        })?;
        self.decoder.event(&data, streamed).map_err(|error| match error {
            StreamError::Said(message, true) => CallError::again("model_unavailable", message),
            StreamError::Said(message, false) => CallError::last("model_request", message),
            StreamError::Malformed(message) => CallError::again("model_garbage", message),
        })?;
        self.over |= self.decoder.is_over();
        Ok(())
    }

    /// Returns the whole answer.
    pub(in crate::builtin) fn reply(self) -> Reply {
        self.decoder.reply()
    }
}

/// Joins neighbours of the same kind.
fn joined(streamed: Vec<Streamed>) -> Vec<Streamed> {
    let mut joined: Vec<Streamed> = Vec::new();
    for piece in streamed {
        match (joined.last_mut(), &piece) {
            (Some(Streamed::Text(before)), Streamed::Text(text))
            | (Some(Streamed::Thought(before)), Streamed::Thought(text)) => before.push_str(text),
            _ => joined.push(piece),
        }
    }
    joined
}

fn silence() -> String {
    format!("the model was silent for {} s", SILENCE_MAX.as_secs())
}

/// Returns what an error's body says: its code and message, or its text.
pub(crate) fn error_message(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let parsed: Option<Value> = serde_json::from_str(&text).ok();
    // Gemini puts the object into a list when it streams.
    let parsed = parsed.map(|value| value.get(0).cloned().unwrap_or(value));
    let error = parsed.as_ref().and_then(|value| value.get("error"));
    let said = error.map(|error| {
        let part = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
        let message = error.as_str().unwrap_or_else(|| part("message"));
        let kind = [part("code"), part("status"), part("type")];
        let kind = kind.into_iter().find(|kind| !kind.is_empty()).unwrap_or_default();
        if kind.is_empty() { message.to_owned() } else { format!("{message} ({kind})") }
    });
    let text = said.unwrap_or_else(|| text.trim().to_owned());
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}
