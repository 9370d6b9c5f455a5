//! The wire formats: what of a request decides its answer, and what an answer says.

mod anthropic;
mod canon;
mod chat;
mod gemini;
mod interactions;
mod responses;

use crate::config::Kind;
use ax_core::session::{Digest, Usage};
pub(crate) use canon::Canon;
use http::Method;
use serde_json::{Map, Value};

/// A wire format of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Anthropic Messages.
    Anthropic,
    /// OpenAI Chat Completions.
    Chat,
    /// OpenAI Responses.
    Responses,
    /// Gemini `generateContent`.
    Gemini,
    /// Gemini Interactions.
    Interactions,
}

/// What a request is to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// It asks a model: it is journaled.
    Model(Wire),
    /// It costs nothing and changes nothing, such as a list of models or a stored answer.
    Free(Wire),
    /// It ends or forgets a stored answer, which costs nothing.
    Drop(Wire),
}

impl Call {
    /// Reads what a request to a provider is from its method and path, without the query.
    pub(crate) fn of(kind: Kind, method: &Method, path: &str) -> Option<Self> {
        let wire = match kind {
            Kind::Anthropic => Wire::Anthropic,
            Kind::Openai => Wire::Chat,
            Kind::Gemini => Wire::Gemini,
        };
        let stored = stored(kind, path);
        match *method {
            Method::GET | Method::HEAD => {
                let lists = path.ends_with("/models") || path.contains("/models/");
                let fetched = stored.filter(|(_, what)| matches!(*what, "" | "input_items"));
                let wire = fetched.map(|(wire, _)| wire).or_else(|| lists.then_some(wire));
                return wire.map(Self::Free);
            }
            Method::DELETE => {
                return stored
                    .filter(|(_, what)| what.is_empty())
                    .map(|(wire, _)| Self::Drop(wire));
            }
            Method::POST => {}
            _ => return None,
        }
        if let Some((wire, "cancel")) = stored {
            return Some(Self::Drop(wire));
        }
        let ends = |end: &str| path.ends_with(end);
        Some(match kind {
            Kind::Anthropic if ends("/v1/messages") => Self::Model(wire),
            Kind::Anthropic if ends("/v1/messages/count_tokens") => Self::Free(wire),
            Kind::Openai if ends("/chat/completions") => Self::Model(wire),
            Kind::Openai if ends("/responses") => Self::Model(Wire::Responses),
            Kind::Gemini if ends(":generateContent") || ends(":streamGenerateContent") => {
                Self::Model(wire)
            }
            Kind::Gemini if ends("/interactions") => Self::Model(Wire::Interactions),
            Kind::Gemini if ends(":countTokens") => Self::Free(wire),
            _ => return None,
        })
    }

    pub(crate) const fn wire(self) -> Wire {
        match self {
            Self::Model(wire) | Self::Free(wire) | Self::Drop(wire) => wire,
        }
    }
}

/// Reads the path of a stored answer, `…/KIND/ID` or `…/KIND/ID/WHAT`: its format and what of it.
fn stored(kind: Kind, path: &str) -> Option<(Wire, &str)> {
    let (wire, word) = match kind {
        Kind::Anthropic => return None,
        Kind::Openai => (Wire::Responses, "responses"),
        Kind::Gemini => (Wire::Interactions, "interactions"),
    };
    let mut last = path.rsplit('/');
    let (one, two, three) = (last.next()?, last.next()?, last.next()?);
    let (id, what) = if two == word { (one, "") } else { (two, one) };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_id = !id.is_empty() && id.bytes().all(plain);
    (is_id && (two == word || three == word)).then_some((wire, what))
}

/// What a request asks, in the parts that it is stored in.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The model's name.
    pub(crate) model: String,
    /// The parts in their order, each with the hash of its canonical form.
    pub(crate) parts: Vec<(Digest, Value)>,
}

impl Wire {
    /// The name that is stored.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Gemini => "gemini",
            Self::Interactions => "interactions",
        }
    }

    /// Takes a request apart. What cannot change the answer is left out: see
    /// `docs/formats/gateway.md`.
    pub(crate) fn asked(self, path: &str, body: Map<String, Value>, canon: &Canon) -> Asked {
        let named = body.get("model").or_else(|| body.get("agent")).and_then(Value::as_str);
        let named = named.map(str::to_owned);
        let mut parts = match self {
            Self::Anthropic => anthropic::parts(body),
            Self::Chat => chat::parts(body),
            Self::Responses => responses::parts(body),
            Self::Gemini => gemini::parts(body),
            Self::Interactions => interactions::parts(body),
        };
        let model = match (self, named) {
            (Self::Gemini, _) => {
                let last = path.rsplit('/').next().unwrap_or_default();
                // The model and the way it is asked are not in the body.
                parts[0]["path"] = last.into();
                last.split(':').next().unwrap_or_default().to_owned()
            }
            (_, Some(named)) => named,
            (_, None) => "?".to_owned(),
        };
        let hashed = |mut part| {
            canon::clean(&mut part);
            (canon.hash_clean(&part), part)
        };
        Asked { model, parts: parts.into_iter().map(hashed).collect() }
    }

    /// Whether an event ends its stream, so that a harness acts on it.
    fn closes(self, event: &Value) -> bool {
        match self {
            Self::Anthropic => anthropic::closes(event),
            // `[DONE]` is no event.
            Self::Chat => false,
            Self::Responses => responses::closes(event),
            Self::Gemini => gemini::closes(event),
            Self::Interactions => interactions::closes(event),
        }
    }

    /// Returns an error as this vendor would say it.
    pub(crate) fn error(self, status: u16, message: &str) -> Value {
        match self {
            Self::Anthropic => anthropic::error(status, message),
            Self::Chat | Self::Responses => chat::error(status, message),
            Self::Gemini | Self::Interactions => gemini::error(status, message),
        }
    }
    /// Returns status and error of this vendor for an account without means.
    pub(crate) fn over_budget(self, message: &str) -> (u16, Value) {
        match self {
            Self::Anthropic => (402, self.error(402, message)),
            Self::Chat | Self::Responses => (429, self.error(402, message)),
            Self::Gemini | Self::Interactions => (429, self.error(429, message)),
        }
    }
}

/// Token counts of one call.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    input: u64,
    cached: u64,
    output: u64,
}

/// What has been read of an answer.
#[derive(Debug)]
pub(crate) struct Reading {
    wire: Wire,
    usage: Turn,
    /// Why the model stopped, in the vendor's word.
    stop: Option<String>,
    /// What is under way.
    blocks: Vec<Value>,
    /// What the model said, as the harness will send it back.
    said: Vec<Value>,
    /// Whether the answer came to its end.
    whole: bool,
}

impl Reading {
    pub(crate) fn new(wire: Wire) -> Self {
        Self {
            wire,
            usage: Turn::default(),
            stop: None,
            blocks: Vec::new(),
            said: Vec::new(),
            whole: false,
        }
    }

    /// Reads the data of an event of the stream; returns whether it ends it.
    pub(crate) fn event(&mut self, data: &[u8]) -> bool {
        if data.trim_ascii() == b"[DONE]" {
            chat::done(self);
            self.whole = true;
            return true;
        }
        let Ok(event) = serde_json::from_slice::<Value>(data) else { return false };
        let closes = self.wire.closes(&event);
        self.read(&event);
        self.whole |= closes;
        closes
    }

    /// Reads an answer that was not streamed.
    pub(crate) fn body(&mut self, body: &[u8]) {
        if let Ok(whole) = serde_json::from_slice::<Value>(body) {
            self.read(&whole);
            self.whole = true;
        }
    }

    fn read(&mut self, event: &Value) {
        match self.wire {
            Wire::Anthropic => anthropic::read(self, event),
            Wire::Chat => chat::read(self, event),
            Wire::Responses => responses::read(self, event),
            Wire::Gemini => gemini::read(self, event),
            Wire::Interactions => interactions::read(self, event),
        }
    }

    /// Whether nothing of the answer is missing.
    pub(crate) const fn is_whole(&self) -> bool {
        self.whole
    }

    /// Why the model stopped, in the vendor's word.
    pub(crate) fn stop(&self) -> Option<&str> {
        self.stop.as_deref()
    }

    /// What the call consumed; its cost is not known here.
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            input_tokens: self.usage.input,
            cached_tokens: self.usage.cached,
            output_tokens: self.usage.output,
            model_calls: 1,
            ..Usage::default()
        }
    }

    /// The hashes of what the model said, in the form in which it is sent back to it.
    pub(crate) fn said(&self, canon: &Canon) -> Vec<Digest> {
        self.said.iter().map(|part| canon.hash(part)).collect()
    }

    /// Takes in token counts that are totals so far.
    fn at_least(&mut self, turn: Turn) {
        self.usage.input = self.usage.input.max(turn.input);
        self.usage.cached = self.usage.cached.max(turn.cached);
        self.usage.output = self.usage.output.max(turn.output);
    }

    fn say(&mut self, message: Value) {
        self.said.push(message);
    }

    fn open(&mut self, block: Value) {
        self.blocks.push(block);
    }

    /// Adds to a text of the last block.
    fn append(&mut self, field: &str, text: &str) {
        if let Some(last) = self.blocks.len().checked_sub(1) {
            self.append_to(last, field, text);
        }
    }

    fn append_to(&mut self, block: usize, field: &str, text: &str) {
        let Some(Value::Object(block)) = self.blocks.get_mut(block) else { return };
        match block.get_mut(field) {
            Some(Value::String(so_far)) => so_far.push_str(text),
            _ => drop(block.insert(field.to_owned(), text.into())),
        }
    }
}

/// Returns the fields of a request that are without the parts of their own, but those that have no
/// meaning.
fn params(mut body: Map<String, Value>, ignored: &[&str]) -> Value {
    body.retain(|name, _| !ignored.contains(&name.as_str()));
    tagged("params", Value::Object(body))
}

/// Takes a list out of a request.
fn take_list(body: &mut Map<String, Value>, name: &str) -> Vec<Value> {
    match body.remove(name) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// Takes the tools out of a request, each as a part.
fn take_tools(body: &mut Map<String, Value>) -> impl Iterator<Item = Value> + use<> {
    take_list(body, "tools").into_iter().map(|tool| tagged("tool", tool))
}

fn tagged(tag: &str, value: Value) -> Value {
    Value::Object(Map::from_iter([(tag.to_owned(), value)]))
}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    /// Checks the parts of a request.
    fn check_parts(wire: Wire, request: &Value, expect: &Value) {
        let Value::Object(body) = request.clone() else { panic!("{request}") };
        let canon = Canon::new(wire, Arc::default());
        let asked = wire.asked("/v1beta/models/g:generateContent", body, &canon);
        let parts: Vec<_> = asked.parts.iter().map(|(_, part)| part.clone()).collect();
        assert_eq!(Value::from(parts), *expect, "{wire:?}");
        for (digest, part) in &asked.parts {
            assert_eq!(*digest, canon.hash(part), "{part}");
        }
    }

    #[test]
    fn a_request_has_its_parts_and_nothing_that_does_not_count() {
        let request = json!({
            "model": "m", "top_k": null, "system": "be brief", "metadata": {"user_id": "u"},
            "tools": [{"name": "t", "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": "hi"}, {"role": "user", "content": [1]}],
        });
        check_parts(
            Wire::Anthropic,
            &request,
            &json!([
                {"params": {"model": "m"}}, {"system": [{"type": "text", "text": "be brief"}]},
                {"tool": {"name": "t"}},
                {"role": "user", "content": [{"type": "text", "text": "hi"}]},
                {"role": "user", "content": [1]},
            ]),
        );
        let request = json!({
            "model": "m", "user": "u", "tools": [{"name": "t"}], "messages": [{"role": "user"}],
        });
        let expect = json!([{"params": {"model": "m"}}, {"tool": {"name": "t"}}, {"role": "user"}]);
        check_parts(Wire::Chat, &request, &expect);
    }

    #[test]
    fn instructions_and_inputs_are_parts_of_their_own() {
        let mut request = json!({"model": "m", "instructions": "be brief", "input": "hi"});
        let mut expect = json!([
            {"params": {"model": "m"}}, {"instructions": "be brief"},
            {"role": "user", "content": "hi"},
        ]);
        check_parts(Wire::Responses, &request, &expect);
        request["instructions"] = Value::Null;
        request["input"] = json!([{"id": "1"}, 2]);
        expect = json!([{"params": {"model": "m"}}, {"id": "1"}, 2]);
        check_parts(Wire::Responses, &request, &expect);

        let request = json!({
            "systemInstruction": "a", "system_instruction": "b", "labels": {}, "tools": "none",
            "contents": [{"role": "user"}], "generationConfig": {"topK": null},
        });
        check_parts(
            Wire::Gemini,
            &request,
            &json!([
                {"params": {"generationConfig": {}}, "path": "g:generateContent"}, {"system": "a"},
                {"role": "user"},
            ]),
        );
        let request = json!({"agent": "a", "system_instruction": "b", "input": "hi"});
        let expect = json!([{"params": {"agent": "a"}}, {"system": "b"}, {"input": "hi"}]);
        check_parts(Wire::Interactions, &request, &expect);
    }

    #[test]
    fn a_stored_answer_is_read_and_dropped_for_nothing_and_no_more() {
        let check = |kind, method: Method, path: &str, expect: Option<Call>| {
            assert_eq!(Call::of(kind, &method, path), expect, "{method} {path}");
        };
        let (responses, interactions) = (Wire::Responses, Wire::Interactions);
        check(Kind::Openai, Method::GET, "/v1/responses/resp_1", Some(Call::Free(responses)));
        let items = "/v1/responses/resp_1/input_items";
        check(Kind::Openai, Method::GET, items, Some(Call::Free(responses)));
        check(Kind::Openai, Method::DELETE, "/v1/responses/resp_1", Some(Call::Drop(responses)));
        let cancel = "/v1/responses/resp_1/cancel";
        check(Kind::Openai, Method::POST, cancel, Some(Call::Drop(responses)));
        check(Kind::Openai, Method::POST, "/v1/responses", Some(Call::Model(responses)));
        let one = "/v1beta/interactions/int-1";
        check(Kind::Gemini, Method::GET, one, Some(Call::Free(interactions)));
        check(Kind::Gemini, Method::DELETE, one, Some(Call::Drop(interactions)));
        for (kind, method, path) in [
            (Kind::Openai, Method::GET, "/v1/responses"),
            (Kind::Openai, Method::GET, "/v1/responses/"),
            (Kind::Openai, Method::GET, "/v1/responses/a.b"),
            (Kind::Openai, Method::GET, "/v1/responses/a/files"),
            (Kind::Openai, Method::GET, "/v1/interactions/a"),
            (Kind::Openai, Method::POST, "/v1/responses/a"),
            (Kind::Openai, Method::DELETE, "/v1/responses/a/cancel"),
            (Kind::Openai, Method::DELETE, "/v1/models/m"),
            (Kind::Openai, Method::PUT, "/v1/responses/a"),
            (Kind::Anthropic, Method::GET, "/v1/responses/a"),
            (Kind::Gemini, Method::DELETE, "/v1beta/files/a"),
        ] {
            check(kind, method, path, None);
        }
    }
}
