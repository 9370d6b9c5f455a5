//! The agent's side of the wire: JSON-RPC 2.0, a message a line.

use super::failure;
use crate::process::line::{Lines, Read};
use ax_core::session::Failure;
use serde_json::{Value, json};
use std::io;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// The longest message of an agent, in bytes.
pub(super) const LINE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How much may wait for an agent that does not read, in bytes.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How much of a broken message is shown, in characters.
const SHOWN_CHARS: usize = 120;

/// One thing that an agent says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Heard {
    /// It answers a request of ours.
    Answer(u64, Result<Value, Refused>),
    /// It wants an answer.
    Request(Value, String, Value),
    /// It lets us know.
    Notice(String, Value),
}

/// Why an agent does not do what it was asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refused {
    /// The error code of the protocol.
    pub(super) code: i64,
    /// What it says.
    pub(super) message: String,
}

impl Refused {
    const AUTH_REQUIRED: i64 = -32_000;

    /// Whether asking again may help.
    pub(super) const fn may_pass(&self) -> bool {
        !matches!(self.code, Self::AUTH_REQUIRED | -32_700 | -32_602..=-32_600)
    }

    /// Returns it as a failure.
    pub(super) fn failure(&self, method: &str) -> Failure {
        let code = if self.code == Self::AUTH_REQUIRED { "auth_required" } else { "agent" };
        failure(code, format!("{method}: {} ({})", self.message, self.code))
    }
}

/// Both directions. What is said waits here until the agent reads it.
#[derive(Debug)]
pub(super) struct Wire<R, W> {
    lines: Lines<R>,
    input: Option<W>,
    queue: Vec<u8>,
    written: usize,
    next_id: u64,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Wire<R, W> {
    pub(super) const fn new(output: R, input: W) -> Self {
        let lines = Lines::new(output, LINE_BYTES_MAX);
        Self { lines, input: Some(input), queue: Vec::new(), written: 0, next_id: 1 }
    }

    fn send(&mut self, message: &Value) {
        if self.input.is_some() {
            self.queue.extend_from_slice(message.to_string().as_bytes());
            self.queue.push(b'\n');
        }
    }

    /// Asks for something; returns the number that the answer will have.
    pub(super) fn request(&mut self, method: &str, params: &Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    /// Lets the agent know something.
    pub(super) fn notify(&mut self, method: &str, params: &Value) {
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    /// Answers a request of the agent.
    pub(super) fn answer(&mut self, id: &Value, result: &Value) {
        self.send(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
    }

    /// Refuses a request of the agent.
    pub(super) fn refuse(&mut self, id: &Value, code: i64, message: &str) {
        let error = json!({"code": code, "message": message});
        self.send(&json!({"jsonrpc": "2.0", "id": id, "error": error}));
    }

    /// Says nothing more.
    pub(super) fn hang_up(&mut self) {
        self.input = None;
    }

    /// Waits for what the agent says next, and writes meanwhile. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Heard, Failure> {
        loop {
            let Self { lines, input, queue, written, .. } = self;
            if queue.len() - *written > QUEUE_BYTES_MAX {
                let message = format!("the agent leaves {QUEUE_BYTES_MAX} bytes unread");
                return Err(failure("input_unread", message));
            }
            let writes = input.is_some() && *written < queue.len();
            tokio::select! {
                read = lines.next() => if let Some(heard) = self.heard(read)? {
                    return Ok(heard);
                },
                wrote = write(input, &queue[*written..]), if writes => match wrote {
                    Ok(bytes) => self.wrote(bytes),
                    // That it reads no more may be its end, which it is asked about elsewhere.
                    Err(_) => self.input = None,
                },
            }
        }
    }

    fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written == self.queue.len() {
            self.queue.clear();
            self.written = 0;
        }
    }

    fn heard(&self, read: io::Result<Read>) -> Result<Option<Heard>, Failure> {
        let line = match read {
            Ok(Read::Line(line)) => line,
            Ok(Read::Long(_)) => {
                let message = format!("a message of the agent is over {LINE_BYTES_MAX} bytes");
                return Err(failure("protocol", message));
            }
            Ok(Read::End) | Err(_) => {
                return Err(failure("output_closed", "the agent closed its output"));
            }
        };
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        match serde_json::from_slice(&line) {
            Ok(message) => self.message(message).map(Some),
            Err(error) => Err(failure(
                "protocol",
                format!("the agent says what is no message, {:?}: {error}", shown(&line)),
            )),
        }
    }

    fn message(&self, message: Value) -> Result<Heard, Failure> {
        let broken = |message: &Value| {
            let shown = shown(message.to_string().as_bytes());
            failure("protocol", format!("the agent says what is no message: {shown}"))
        };
        let Value::Object(mut fields) = message else { return Err(broken(&message)) };
        let mut take = |name: &str| fields.remove(name);
        let (id, method) = (take("id"), take("method"));
        match (id, method) {
            (id, Some(Value::String(method))) => {
                let params = take("params").unwrap_or_default();
                Ok(match id {
                    Some(id) => Heard::Request(id, method, params),
                    None => Heard::Notice(method, params),
                })
            }
            (Some(id), None) => {
                // An answer is to one of our numbers; any other is to nothing that was asked.
                let known = id.as_u64().filter(|id| *id < self.next_id);
                let (Some(id), error) = (known, take("error")) else {
                    return Err(broken(&json!({"id": id})));
                };
                let answer = match error {
                    Some(error) if !error.is_null() => Err(refused(&error)),
                    _ => Ok(take("result").unwrap_or_default()),
                };
                Ok(Heard::Answer(id, answer))
            }
            (None, _) => Err(broken(&Value::Object(fields))),
            (Some(_), Some(method)) => Err(broken(&method)),
        }
    }
}

fn refused(error: &Value) -> Refused {
    let code = error.get("code").and_then(Value::as_i64).unwrap_or_default();
    let message = error.get("message").and_then(Value::as_str).unwrap_or("no reason is given");
    let details = error.get("data").filter(|data| !data.is_null());
    let message = details.map_or_else(|| message.to_owned(), |data| format!("{message}: {data}"));
    Refused { code, message }
}

fn shown(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().take(SHOWN_CHARS).collect()
}

async fn write<W: AsyncWrite + Unpin>(input: &mut Option<W>, bytes: &[u8]) -> io::Result<usize> {
    match input {
        Some(input) => input.write(bytes).await,
        None => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(output: &str) -> (Vec<Heard>, Failure) {
        let mut wire = Wire::new(output.as_bytes(), Vec::new());
        wire.request("initialize", &json!({}));
        let mut heard = Vec::new();
        loop {
            match wire.next().await {
                Ok(one) => heard.push(one),
                Err(failure) => return (heard, failure),
            }
        }
    }

    #[tokio::test]
    async fn answers_requests_and_notices_are_told_apart() {
        let (heard, end) = all(concat!(
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"a\":1}}\n\n",
            "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"m\",\"params\":[1]}\n",
            "{\"jsonrpc\":\"2.0\",\"method\":\"n\"}\n",
            "{\"id\":1,\"error\":{\"code\":-32000,\"message\":\"log in\",\"data\":{\"d\":2}}}",
        ))
        .await;
        let refused = Refused { code: -32_000, message: "log in: {\"d\":2}".into() };
        assert_eq!(
            heard,
            [
                Heard::Answer(1, Ok(json!({"a": 1}))),
                Heard::Request(json!("x"), "m".into(), json!([1])),
                Heard::Notice("n".into(), Value::Null),
                Heard::Answer(1, Err(refused.clone())),
            ]
        );
        assert_eq!(end.code, "output_closed");
        assert_eq!(refused.failure("m").code, "auth_required");
        assert!(!refused.may_pass());
    }

    #[tokio::test]
    async fn what_is_no_message_is_named() {
        for line in ["Loading…", "[1]", "{}", "{\"id\":9,\"result\":1}", "{\"method\":1}"] {
            let (heard, end) = all(line).await;
            assert!(heard.is_empty());
            assert_eq!(end.code, "protocol", "{line}");
        }
    }
}
