//! The program's side of the wire: a greeting over its pipes, and JSON over a WebSocket after that.
//!
//! Only what we use of its messages is here. What we do not know is kept as it is, and noted.

use crate::reach::{Connection, Reach};
use crate::turn::failure;
use ax_core::session::Failure;
use futures::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::path::Path;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// The longest greeting of the program, in bytes.
const GREETING_BYTES_MAX: u32 = 64 * 1024;
/// The longest message of the program, in bytes.
const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How much may wait for a program that does not read, in bytes.
pub(super) const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How much of a broken message is shown, in characters.
const SHOWN_CHARS: usize = 120;
/// The header that carries the program's own key.
const KEY_HEADER: &str = "x-goog-api-key";

/// What the program is told over its standard input, once.
#[derive(Clone, PartialEq, prost::Message)]
struct InputConfig {
    #[prost(string, tag = "1")]
    storage_directory: String,
    #[prost(string, tag = "3")]
    bind_address: String,
}

/// What the program answers over its standard output.
#[derive(Clone, PartialEq, prost::Message)]
struct OutputConfig {
    #[prost(int32, tag = "1")]
    port: i32,
    #[prost(string, tag = "2")]
    api_key: String,
}

/// Where the program listens, and the key to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Door {
    port: u16,
    key: String,
}

/// Tells the program where its trajectories are; returns where it listens.
pub(super) async fn greet(
    output: &mut (impl AsyncRead + Unpin),
    input: &mut (impl AsyncWrite + Unpin),
    storage: &Path,
) -> Result<Door, Failure> {
    let gone = |error| failure("output_closed", format!("the program does not greet: {error}"));
    let storage_directory = storage.display().to_string();
    let bind_address = Ipv4Addr::LOCALHOST.to_string();
    let config = InputConfig { storage_directory, bind_address }.encode_to_vec();
    let length = u32::try_from(config.len()).expect("a path is short");
    let mut said = length.to_le_bytes().to_vec();
    said.extend_from_slice(&config);
    input.write_all(&said).await.map_err(gone)?;
    input.flush().await.map_err(gone)?;
    let length = output.read_u32_le().await.map_err(gone)?;
    if length > GREETING_BYTES_MAX {
        let message = format!("the program greets with {length} bytes: this is no localharness");
        return Err(failure("protocol", message));
    }
    let mut said = vec![0; length as usize];
    output.read_exact(&mut said).await.map_err(gone)?;
    let greeting = OutputConfig::decode(said.as_slice()).map_err(|error| {
        failure("protocol", format!("the program's greeting is not understood: {error}"))
    })?;
    let port = u16::try_from(greeting.port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| {
        failure("protocol", format!("the program listens at the port {}", greeting.port))
    })?;
    Ok(Door { port, key: greeting.api_key })
}

/// What the program says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Heard {
    /// Its session is ready.
    Opened,
    /// Something of a step.
    Step(Box<Step>),
    /// What a trajectory is about.
    State(State),
    /// It waits for our word at a point of its work.
    Hook(Box<Hook>),
    /// It wants a rule decided, of which it has none from us.
    Policy(String),
    /// It wants a tool of ours, of which it has none.
    Call(String, String),
    /// What has been used so far.
    Usage(Value),
    /// Something else.
    Other(Value),
}

/// An update of a step.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Step {
    pub(super) trajectory_id: String,
    pub(super) step_index: u32,
    pub(super) state: String,
    pub(super) source: String,
    pub(super) target: String,
    pub(super) error_message: String,
    pub(super) text: String,
    pub(super) text_delta: String,
    pub(super) thinking: String,
    pub(super) thinking_delta: String,
    pub(super) request_text: String,
    pub(super) tool_confirmation_request: Option<Value>,
    pub(super) questions_request: Option<Questions>,
    pub(super) error: Option<StepError>,
    /// All of it, as it was said.
    #[serde(skip)]
    pub(super) whole: Value,
}

/// What is wrong with a step.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct StepError {
    pub(super) http_code: u32,
}

/// Questions to a person.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Questions {
    pub(super) questions: Vec<Question>,
}

/// A question to a person.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Question {
    pub(super) multiple_choice: MultipleChoice,
}

/// A question with choices.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct MultipleChoice {
    pub(super) question: String,
    pub(super) choices: Vec<String>,
    pub(super) is_multi_select: bool,
}

/// What a trajectory is about.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct State {
    pub(super) trajectory_id: String,
    pub(super) state: String,
    pub(super) error: String,
    pub(super) error_code: String,
    pub(super) stop_reason: String,
}

/// A point of the program's work at which it waits.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Hook {
    pub(super) request_id: String,
    pub(super) pre_tool_args: Option<ToolArgs>,
    pub(super) post_tool_args: Option<ToolArgs>,
    pub(super) on_tool_error_args: Option<ToolArgs>,
    /// All of it, as it was said.
    #[serde(skip)]
    pub(super) whole: Value,
}

/// A tool, what it is given, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ToolArgs {
    pub(super) tool_name: String,
    pub(super) server_name: String,
    pub(super) call_id: String,
    pub(super) trajectory_id: String,
    pub(super) arguments_json: String,
    pub(super) result: String,
    pub(super) error: String,
    pub(super) error_message: String,
}

/// Both directions. What is said waits here until the program reads it.
#[derive(Debug)]
pub(super) struct Wire {
    socket: WebSocketStream<Connection>,
    queue: VecDeque<String>,
    queued: usize,
    flushed: bool,
}

impl Wire {
    /// Connects to the program.
    pub(super) async fn connect(reach: &Reach, door: &Door) -> Result<Self, Failure> {
        let refused = |error: String| {
            failure("output_closed", format!("the program does not let us in: {error}"))
        };
        let stream = reach.connect(door.port).await.map_err(|error| refused(error.to_string()))?;
        let mut request = format!("ws://127.0.0.1:{}/", door.port)
            .into_client_request()
            .map_err(|error| refused(error.to_string()))?;
        let key = HeaderValue::from_str(&door.key).map_err(|error| refused(error.to_string()))?;
        drop(request.headers_mut().insert(KEY_HEADER, key));
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let connected = client_async_with_config(request, stream, Some(config)).await;
        let (socket, _) = connected.map_err(|error| refused(error.to_string()))?;
        Ok(Self { socket, queue: VecDeque::new(), queued: 0, flushed: true })
    }

    /// Says something: an input event, or the configuration at first.
    pub(super) fn send(&mut self, name: &str, value: &Value) {
        let text = json!({name: value}).to_string();
        self.queued += text.len();
        self.queue.push_back(text);
    }

    /// Waits for what the program says next, and writes meanwhile. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Heard, Failure> {
        loop {
            // Writing is tried before: what waits then, the program does not read.
            let (message, queued) = poll_fn(|context| match (self.poll(context), self.queued) {
                (Poll::Pending, queued) if queued > QUEUE_BYTES_MAX => Poll::Ready((None, queued)),
                (heard, queued) => heard.map(|message| (message, queued)),
            })
            .await;
            let gone = matches!(message, Some(Ok(Message::Close(_)) | Err(_)));
            if queued > QUEUE_BYTES_MAX && !gone {
                let message = format!("the program leaves {QUEUE_BYTES_MAX} bytes unread");
                return Err(failure("input_unread", message));
            }
            let text = match message {
                Some(Ok(Message::Text(text))) => text.as_bytes().to_vec(),
                Some(Ok(Message::Binary(bytes))) => bytes.to_vec(),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Err(SocketError::Capacity(error))) => {
                    return Err(failure("protocol", format!("the program says too much: {error}")));
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => {
                    return Err(failure("output_closed", "the program closed the connection"));
                }
            };
            return heard(&text);
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Message, SocketError>>> {
        // An end of the connection shows when it is read.
        while !self.queue.is_empty() {
            match self.socket.poll_ready_unpin(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
            let Some(text) = self.queue.pop_front() else { break };
            self.queued -= text.len();
            self.flushed = self.socket.start_send_unpin(Message::text(text)).is_err();
        }
        if !self.flushed {
            self.flushed = self.socket.poll_flush_unpin(context).is_ready();
        }
        self.socket.poll_next_unpin(context)
    }
}

/// Reads a message of the program.
pub(super) fn heard(text: &[u8]) -> Result<Heard, Failure> {
    let broken = |error: serde_json::Error| {
        let shown: String = String::from_utf8_lossy(text).chars().take(SHOWN_CHARS).collect();
        failure("protocol", format!("the program says what is no message, {shown:?}: {error}"))
    };
    let mut fields: Map<String, Value> = serde_json::from_slice(text).map_err(broken)?;
    let mut take = |name: &str| fields.remove(name).filter(|value| !value.is_null());
    if take("initializeConversationResponse").is_some() {
        return Ok(Heard::Opened);
    }
    if let Some(whole) = take("stepUpdate") {
        let mut step = Step::deserialize(&whole).map_err(broken)?;
        step.whole = whole;
        return Ok(Heard::Step(Box::new(step)));
    }
    if let Some(state) = take("trajectoryStateUpdate") {
        return State::deserialize(state).map_err(broken).map(Heard::State);
    }
    if let Some(whole) = take("callHookRequest") {
        let mut hook = Hook::deserialize(&whole).map_err(broken)?;
        hook.whole = whole;
        return Ok(Heard::Hook(Box::new(hook)));
    }
    let text = |value: &Value, name: &str| {
        value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    if let Some(request) = take("policyDecisionRequest") {
        return Ok(Heard::Policy(text(&request, "requestId")));
    }
    if let Some(call) = take("toolCall") {
        return Ok(Heard::Call(text(&call, "id"), text(&call, "name")));
    }
    if let Some(usage) = take("usageUpdate") {
        return Ok(Heard::Usage(usage));
    }
    Ok(Heard::Other(Value::Object(fields)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_greeting_says_where_the_program_listens() {
        let answer = OutputConfig { port: 4711, api_key: "k".into() }.encode_to_vec();
        let mut output = u32::try_from(answer.len()).unwrap().to_le_bytes().to_vec();
        output.extend_from_slice(&answer);
        let mut input = Vec::new();
        let door = greet(&mut output.as_slice(), &mut input, Path::new("/s")).await.unwrap();
        assert_eq!(door, Door { port: 4711, key: "k".into() });
        assert_eq!(input[..4], 15_u32.to_le_bytes());
        assert_eq!(&input[4..], b"\x0a\x02/s\x1a\x09127.0.0.1");
    }

    #[tokio::test]
    async fn another_program_is_found_out() {
        for (said, code) in [
            (&b"Usage: cat"[..], "protocol"),
            (&b""[..], "output_closed"),
            (&b"\x02\0\0\0\x08\0"[..], "protocol"),
            (&b"\x02\0\0\0\xff\xff"[..], "protocol"),
        ] {
            let mut output = said;
            let door = greet(&mut output, &mut Vec::new(), Path::new("/s")).await;
            assert_eq!(door.unwrap_err().code, code, "{said:?}");
        }
    }

    #[test]
    fn messages_are_told_apart() {
        let read = |text: &str| heard(text.as_bytes()).unwrap();
        assert_eq!(read(r#"{"initializeConversationResponse":{},"seqNum":"1"}"#), Heard::Opened);
        let Heard::Step(step) = read(r#"{"stepUpdate":{"stepIndex":3,"x":1},"seqNum":"2"}"#) else {
            panic!("a step")
        };
        assert_eq!((step.step_index, &step.whole), (3, &json!({"stepIndex": 3, "x": 1})));
        let call = Heard::Call("c".into(), "t".into());
        assert_eq!(read(r#"{"toolCall":{"id":"c","name":"t"}}"#), call);
        let policy = Heard::Policy("r".into());
        assert_eq!(read(r#"{"policyDecisionRequest":{"requestId":"r"}}"#), policy);
        let other = json!({"ofTomorrow": 1, "seqNum": "3"});
        assert_eq!(read(r#"{"ofTomorrow":1,"seqNum":"3"}"#), Heard::Other(other));
        for wrong in ["", "[1]", r#"{"stepUpdate":1}"#, r#"{"callHookRequest":{"requestId":1}}"#] {
            assert_eq!(heard(wrong.as_bytes()).unwrap_err().code, "protocol", "{wrong}");
        }
    }
}
