//! The five wire formats. Each module reads requests of its format and writes answers in it.

mod anthropic;
mod chat;
mod gemini;
mod interactions;
mod responses;

use crate::answer::Answer;
use crate::ask::{Ask, Item, str_of};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Anthropic Messages.
    Anthropic,
    /// OpenAI Chat Completions.
    Chat,
    /// OpenAI Responses.
    Responses,
    /// Gemini `generateContent` and its stream.
    Gemini,
    /// Gemini Interactions.
    Interactions,
}

/// What a path and a method ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// An answer of the model. In Gemini's format the path names model and stream.
    Generate { format: Format, model: Option<String>, stream: Option<bool> },
    /// A count of tokens.
    Count { format: Format, model: Option<String> },
    /// A stored answer.
    Fetch { format: Format, id: String },
    /// The end of a stored answer under way.
    Cancel { format: Format, id: String },
    /// A stored answer to be forgotten.
    Delete { format: Format, id: String },
    /// The models, or one of them.
    Models { id: Option<String> },
}

/// Where an answer under way or at its end stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    InProgress,
    Done,
    Canceled,
}

/// Finds out what a request wants. Whatever stands before the known end of the path is ignored, as
/// clients differ in what they take for the base.
pub(crate) fn route(method: &Method, path: &str) -> Option<Route> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let parts = parts.as_slice();
    let (post, get) = (method == Method::POST, method == Method::GET);
    let generate = |format| Route::Generate { format, model: None, stream: None };
    let count = |format| Route::Count { format, model: None };
    if let [.., "models" | "tunedModels", last] = parts
        && let Some((model, verb)) = last.rsplit_once(':')
        && post
    {
        let (format, model) = (Format::Gemini, Some(model.to_owned()));
        return match verb {
            "generateContent" => Some(Route::Generate { format, model, stream: Some(false) }),
            "streamGenerateContent" => Some(Route::Generate { format, model, stream: Some(true) }),
            "countTokens" => Some(Route::Count { format, model }),
            _ => None,
        };
    }
    let stored = |name: &str| match name {
        "responses" => Some(Format::Responses),
        "interactions" => Some(Format::Interactions),
        _ => None,
    };
    match parts {
        [.., "messages", "count_tokens"] if post => Some(count(Format::Anthropic)),
        [.., "responses", "input_tokens"] if post => Some(count(Format::Responses)),
        [.., "messages"] if post => Some(generate(Format::Anthropic)),
        [.., "chat", "completions"] if post => Some(generate(Format::Chat)),
        [.., "responses"] if post => Some(generate(Format::Responses)),
        [.., "interactions"] if post => Some(generate(Format::Interactions)),
        [.., kind, id, "cancel"] if post => {
            stored(kind).map(|format| Route::Cancel { format, id: (*id).to_owned() })
        }
        [.., "models"] if get => Some(Route::Models { id: None }),
        [.., "models", id] if get => Some(Route::Models { id: Some((*id).to_owned()) }),
        [.., kind, id] if get => {
            stored(kind).map(|format| Route::Fetch { format, id: (*id).to_owned() })
        }
        [.., kind, id] if method == Method::DELETE => {
            stored(kind).map(|format| Route::Delete { format, id: (*id).to_owned() })
        }
        _ => None,
    }
}

/// An event of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// The event as it is sent.
    pub(crate) bytes: Bytes,
}

impl Frame {
    /// A server-sent event with a name.
    fn named(name: &str, data: &Value) -> Self {
        Self { bytes: format!("event: {name}\ndata: {data}\n\n").into() }
    }

    /// A server-sent event with nothing but data.
    fn data(data: &str) -> Self {
        Self { bytes: format!("data: {data}\n\n").into() }
    }
}

impl Format {
    /// The name in the ledger and in scripts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Gemini => "gemini",
            Self::Interactions => "interactions",
        }
    }

    /// The header by which this vendor names a request: the same for the same answer.
    pub(crate) fn request_id(self, seed: &str) -> Option<(HeaderName, HeaderValue)> {
        let name = match self {
            Self::Anthropic => "request-id",
            Self::Chat | Self::Responses => "x-request-id",
            Self::Gemini | Self::Interactions => return None,
        };
        let hash = blake3::hash(format!("{seed} request").as_bytes()).to_hex();
        let value = HeaderValue::try_from(format!("req_{}", &hash[..24])).ok()?;
        Some((HeaderName::from_static(name), value))
    }

    /// Reads the conversation of a request.
    fn items(self, body: &Value) -> Vec<Item> {
        match self {
            Self::Anthropic => anthropic::items(body),
            Self::Chat => chat::items(body),
            Self::Responses => responses::items(body),
            Self::Gemini => gemini::items(body),
            Self::Interactions => interactions::items(body),
        }
    }

    /// Reads a request. `before` is the conversation that it goes on with.
    pub(crate) fn ask(
        self,
        body: &Value,
        before: Vec<Item>,
        model: Option<String>,
        stream: Option<bool>,
    ) -> Ask {
        let named = ["model", "agent"].map(|key| str_of(body, key));
        let named = named.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        let model = model.unwrap_or_else(|| named.trim_start_matches("models/").to_owned());
        let asked = body.get("stream").and_then(Value::as_bool).unwrap_or(false);
        let items = before.into_iter().chain(self.items(body)).collect();
        Ask { format: self, model, stream: stream.unwrap_or(asked), items }
    }

    /// Writes a whole answer, or what can be seen of it before its end.
    pub(crate) fn whole(self, answer: &Answer, stage: Stage) -> Value {
        match self {
            Self::Anthropic => anthropic::whole(answer),
            Self::Chat => chat::whole(answer),
            Self::Responses => responses::whole(answer, stage),
            Self::Gemini => gemini::whole(answer),
            Self::Interactions => interactions::whole(answer, stage),
        }
    }

    /// Writes an answer as the events of a stream.
    pub(crate) fn frames(self, answer: &Answer) -> Vec<Frame> {
        match self {
            Self::Anthropic => anthropic::frames(answer),
            Self::Chat => chat::frames(answer),
            Self::Responses => responses::frames(answer),
            Self::Gemini => gemini::frames(answer),
            Self::Interactions => interactions::frames(answer),
        }
    }

    /// Writes the last event of a stream of which `sent` events came before it was canceled.
    pub(crate) fn canceled(self, answer: &Answer, sent: usize) -> Frame {
        match self {
            Self::Responses => responses::canceled(answer, sent),
            _ => interactions::canceled(answer, sent),
        }
    }

    /// The identifier of a stored answer; `None` where answers are not stored.
    pub(crate) fn stored_id(self, answer: &Answer) -> Option<String> {
        match self {
            Self::Responses => Some(answer.id("resp_", 0)),
            Self::Interactions => Some(answer.id("int_", 0)),
            Self::Anthropic | Self::Chat | Self::Gemini => None,
        }
    }

    /// The field that names the stored answer that a request goes on with.
    pub(crate) const fn previous_key(self) -> &'static str {
        match self {
            Self::Interactions => "previous_interaction_id",
            _ => "previous_response_id",
        }
    }

    /// The query parameter that names the last event that a client has.
    pub(crate) const fn cursor_key(self) -> &'static str {
        match self {
            Self::Interactions => "last_event_id",
            _ => "starting_after",
        }
    }

    /// Writes an error.
    pub(crate) fn error(self, status: u16, message: &str) -> Value {
        match self {
            Self::Anthropic => anthropic::error(status, message),
            Self::Chat | Self::Responses => chat::error(status, message),
            Self::Gemini | Self::Interactions => gemini::error(status, message),
        }
    }

    /// Writes a count of tokens.
    pub(crate) fn count(self, tokens: u64) -> Value {
        match self {
            Self::Anthropic => json!({"input_tokens": tokens}),
            Self::Responses => json!({"object": "response.input_tokens", "input_tokens": tokens}),
            _ => json!({"totalTokens": tokens}),
        }
    }
}

/// Writes the list of models, or one of them, for the vendor whose client asks.
pub(crate) fn models(path: &str, headers: &HeaderMap, id: Option<&str>) -> Value {
    const MODEL: &str = "fake-model";
    let id_or = id.unwrap_or(MODEL);
    if headers.contains_key("anthropic-version") {
        let model = json!({"type": "model", "id": id_or, "display_name": id_or,
            "created_at": crate::answer::CREATED_AT});
        return match id {
            Some(_) => model,
            None => {
                json!({"data": [model], "has_more": false, "first_id": id_or, "last_id": id_or})
            }
        };
    }
    if headers.contains_key("x-goog-api-key") || path.contains("/v1beta") {
        let methods = ["generateContent", "streamGenerateContent", "countTokens"];
        let model = json!({"name": format!("models/{id_or}"), "version": "1",
            "displayName": id_or, "inputTokenLimit": 1_000_000, "outputTokenLimit": 65_536,
            "supportedGenerationMethods": methods});
        return match id {
            Some(_) => model,
            None => json!({"models": [model]}),
        };
    }
    let created = crate::answer::CREATED_AT_SECONDS;
    let model = json!({"id": id_or, "object": "model", "created": created, "owned_by": "fake"});
    match id {
        Some(_) => model,
        None => json!({"object": "list", "data": [model]}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_known_by_the_end_of_its_path() {
        let generate = |format| Some(Route::Generate { format, model: None, stream: None });
        let post = |path| route(&Method::POST, path);
        assert_eq!(post("/v1/messages"), generate(Format::Anthropic));
        assert_eq!(post("/any/base/v1/chat/completions"), generate(Format::Chat));
        assert_eq!(post("/responses"), generate(Format::Responses));
        assert_eq!(post("/v1beta/interactions"), generate(Format::Interactions));
        let (format, model) = (Format::Gemini, Some("m".to_owned()));
        let gemini = Route::Generate { format, model: model.clone(), stream: Some(true) };
        assert_eq!(post("/v1beta/models/m:streamGenerateContent"), Some(gemini));
        let count = Route::Count { format, model };
        assert_eq!(post("/v1beta/models/m:countTokens"), Some(count));
        let (format, id) = (Format::Interactions, "int_1".to_owned());
        let cancel = Route::Cancel { format, id: id.clone() };
        assert_eq!(post("/v1beta/interactions/int_1/cancel"), Some(cancel));
        let fetch = Route::Fetch { format, id: id.clone() };
        assert_eq!(route(&Method::GET, "/v1beta/interactions/int_1"), Some(fetch));
        let delete = Route::Delete { format, id };
        assert_eq!(route(&Method::DELETE, "/v1/interactions/int_1"), Some(delete));
        assert_eq!(route(&Method::GET, "/v1/models"), Some(Route::Models { id: None }));
        assert_eq!(post("/v1/embeddings"), None);
        assert_eq!(route(&Method::GET, "/v1/messages"), None);
    }
}
