//! A model of four vendors that says what a test wrote down.
#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]

use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

pub const PROVIDERS: [&str; 4] = ["anthropic", "openai", "openai-chat", "gemini"];

/// What the model says when it is its turn: text, and calls of tools.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    pub text: String,
    pub calls: Vec<(String, Value)>,
}

pub fn say(text: &str) -> Turn {
    Turn { text: text.into(), calls: Vec::new() }
}

pub fn call(text: &str, name: &str, input: Value) -> Turn {
    Turn { text: text.into(), calls: vec![(name.into(), input)] }
}

impl Turn {
    pub fn and(mut self, name: &str, input: Value) -> Self {
        self.calls.push((name.into(), input));
        self
    }
}

/// What happens to the next request instead of an answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A status, headers and a body.
    Status(u16, &'static str, String),
    /// The stream ends after so many of its bytes.
    Cut(usize),
    /// The stream has something in it that nobody understands.
    Garbage,
    /// The model says nothing, for ever.
    Silence,
}

#[derive(Debug, Default)]
struct State {
    turns: Vec<Turn>,
    faults: VecDeque<Fault>,
    requests: Vec<Value>,
    /// Response bytes sent.
    sent_bytes: usize,
}

#[derive(Clone, Debug)]
pub struct Model {
    state: Arc<Mutex<State>>,
    pub url: String,
}

impl Model {
    pub async fn start(turns: Vec<Turn>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { turns, ..State::default() }));
        let model = Self { state, url };
        let server = model.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move { server.serve(stream).await });
            }
        });
        model
    }

    pub fn fault(&self, fault: Fault) {
        self.state.lock().unwrap().faults.push_back(fault);
    }

    /// The requests that were answered, whole or not.
    pub fn requests(&self) -> Vec<Value> {
        self.state.lock().unwrap().requests.clone()
    }

    pub fn sent_bytes(&self) -> usize {
        self.state.lock().unwrap().sent_bytes
    }

    /// The harness section that uses this model.
    pub fn harness(&self, provider: &str, tools: Value) -> Value {
        json!({
            "type": "builtin", "system": "You help.", "tools": tools,
            "model": {
                "provider": provider, "name": "test-model", "base_url": self.url,
                // Any variable that is set while tests run will do.
                "api_key_env": "CARGO_MANIFEST_DIR",
            },
        })
    }

    async fn serve(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        while let Some((path, body)) = request(&mut stream).await {
            let fault = {
                let mut state = self.state.lock().unwrap();
                state.requests.push(body.clone());
                state.faults.pop_front()
            };
            if let Some(Fault::Silence) = fault {
                std::future::pending::<()>().await;
            }
            if let Some(Fault::Status(status, headers, body)) = &fault {
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status} No\r\n{headers}content-length: {length}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.ok();
                stream.write_all(body.as_bytes()).await.ok();
                continue;
            }
            let mut answer = self.answer(&path, &body);
            match fault {
                Some(Fault::Cut(at)) => answer.truncate(at),
                Some(Fault::Garbage) => answer.insert_str(0, "data: {nonsense\n\n"),
                _ => {}
            }
            self.state.lock().unwrap().sent_bytes += answer.len();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                        connection: close\r\n\r\n";
            stream.write_all(head.as_bytes()).await.ok();
            stream.write_all(answer.as_bytes()).await.ok();
            stream.shutdown().await.ok();
            return;
        }
    }

    fn answer(&self, path: &str, body: &Value) -> String {
        let turns = self.state.lock().unwrap().turns.clone();
        // Which turn it is follows from how many calls were made before.
        let before = count(body);
        let mut made = 0;
        let at = turns.iter().position(|turn| {
            let here = made == before && (made > 0 || before == 0);
            made += turn.calls.len();
            here
        });
        let turn = at.map_or_else(|| say("I have nothing more to say."), |at| turns[at].clone());
        let at = at.unwrap_or(turns.len());
        match path {
            "/v1/messages" => anthropic(&turn, at),
            "/responses" => responses(&turn, at),
            "/chat/completions" => chat(&turn, at),
            "/v1beta/models/test-model:streamGenerateContent?alt=sse" => gemini(&turn),
            _ => panic!("nobody asks for {path}"),
        }
    }
}

async fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await.ok()?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((path, serde_json::from_slice(&body).unwrap()))
}

/// Counts the calls in a request of any vendor.
fn count(value: &Value) -> usize {
    match value {
        Value::Object(fields) => {
            let kind = fields.get("type").and_then(Value::as_str).unwrap_or_default();
            let here = matches!(kind, "tool_use" | "function_call")
                || (kind == "function" && fields.contains_key("id"))
                || fields.contains_key("functionCall");
            usize::from(here) + fields.values().map(count).sum::<usize>()
        }
        Value::Array(items) => items.iter().map(count).sum(),
        _ => 0,
    }
}

/// Cuts a text in two, as a stream would.
fn halves(text: &str) -> [&str; 2] {
    let at = (text.len() / 2..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap();
    let (one, two) = text.split_at(at);
    [one, two]
}

fn events(events: &[Value]) -> String {
    events
        .iter()
        .map(|data| match data["type"].as_str() {
            Some(name) => format!("event: {name}\ndata: {data}\n\n"),
            None => format!("data: {data}\n\n"),
        })
        .collect()
}

fn anthropic(turn: &Turn, at: usize) -> String {
    let usage = json!({"input_tokens": 7, "cache_read_input_tokens": 3, "output_tokens": 1});
    let mut all = vec![json!({"type": "message_start", "message": {"usage": usage}})];
    let mut index = 0;
    if !turn.text.is_empty() {
        let block = json!({"type": "text", "text": ""});
        all.push(json!({"type": "content_block_start", "index": 0, "content_block": block}));
        for text in halves(&turn.text) {
            let delta = json!({"type": "text_delta", "text": text});
            all.push(json!({"type": "content_block_delta", "index": 0, "delta": delta}));
        }
        all.push(json!({"type": "content_block_stop", "index": 0}));
        index = 1;
    }
    for (n, (name, input)) in turn.calls.iter().enumerate() {
        let index = index + n;
        let block =
            json!({"type": "tool_use", "id": format!("toolu_{at}_{n}"), "name": name, "input": {}});
        all.push(json!({"type": "content_block_start", "index": index, "content_block": block}));
        for text in halves(&input.to_string()) {
            let delta = json!({"type": "input_json_delta", "partial_json": text});
            all.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        }
        all.push(json!({"type": "content_block_stop", "index": index}));
    }
    let reason = if turn.calls.is_empty() { "end_turn" } else { "tool_use" };
    let delta = json!({"stop_reason": reason});
    let usage = json!({"output_tokens": 5});
    all.push(json!({"type": "message_delta", "delta": delta, "usage": usage}));
    all.push(json!({"type": "message_stop"}));
    events(&all)
}

fn responses(turn: &Turn, at: usize) -> String {
    let mut all = vec![json!({"type": "response.created", "response": {}})];
    if !turn.text.is_empty() {
        for text in halves(&turn.text) {
            all.push(json!({"type": "response.output_text.delta", "delta": text}));
        }
        let content = json!([{"type": "output_text", "text": turn.text}]);
        let item = json!({"type": "message", "role": "assistant", "content": content});
        all.push(json!({"type": "response.output_item.done", "item": item}));
    }
    for (n, (name, input)) in turn.calls.iter().enumerate() {
        let item = json!({
            "type": "function_call", "call_id": format!("call_{at}_{n}"), "name": name,
            "arguments": input.to_string(),
        });
        all.push(json!({"type": "response.output_item.done", "item": item}));
    }
    let usage = json!({
        "input_tokens": 10, "input_tokens_details": {"cached_tokens": 3}, "output_tokens": 5,
    });
    all.push(json!({"type": "response.completed", "response": {"usage": usage}}));
    events(&all)
}

fn chat(turn: &Turn, at: usize) -> String {
    let choice = |delta: Value, reason: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": reason});
        json!({"choices": [choice], "usage": null})
    };
    let mut all = Vec::new();
    for text in halves(&turn.text) {
        all.push(choice(json!({"content": text}), Value::Null));
    }
    for (n, (name, input)) in turn.calls.iter().enumerate() {
        let function = json!({"name": name, "arguments": ""});
        let id = format!("call_{at}_{n}");
        let first = json!({"index": n, "id": id, "type": "function", "function": function});
        all.push(choice(json!({"tool_calls": [first]}), Value::Null));
        for text in halves(&input.to_string()) {
            let more = json!({"index": n, "function": {"arguments": text}});
            all.push(choice(json!({"tool_calls": [more]}), Value::Null));
        }
    }
    let reason = if turn.calls.is_empty() { "stop" } else { "tool_calls" };
    all.push(choice(json!({}), json!(reason)));
    let details = json!({"cached_tokens": 3});
    let usage =
        json!({"prompt_tokens": 10, "prompt_tokens_details": details, "completion_tokens": 5});
    all.push(json!({"choices": [], "usage": usage}));
    events(&all) + "data: [DONE]\n\n"
}

fn gemini(turn: &Turn) -> String {
    let chunk =
        |parts: Value| json!({"candidates": [{"content": {"role": "model", "parts": parts}}]});
    let mut all = Vec::new();
    if !turn.text.is_empty() {
        for text in halves(&turn.text) {
            all.push(chunk(json!([{"text": text}])));
        }
    }
    for (name, input) in &turn.calls {
        let part =
            json!({"functionCall": {"name": name, "args": input}, "thoughtSignature": "sig"});
        all.push(chunk(json!([part])));
    }
    let usage = json!({
        "promptTokenCount": 10, "cachedContentTokenCount": 3, "candidatesTokenCount": 4,
        "thoughtsTokenCount": 1,
    });
    let parts = json!({"role": "model", "parts": []});
    let last = json!({"content": parts, "finishReason": "STOP"});
    all.push(json!({"candidates": [last], "usageMetadata": usage}));
    events(&all)
}
