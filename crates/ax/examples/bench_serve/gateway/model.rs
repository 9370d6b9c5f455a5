//! A model that answers at once, costs next to nothing, and says when it did what.

use serde_json::{Value, json};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// How long the model thinks: longer than a sync takes, as every model does.
const THINK: Duration = Duration::from_millis(5);
/// How many pieces of text a stream has.
pub(super) const PIECE_COUNT: usize = 50;
/// How long the model speaks between two of them.
const BETWEEN: Duration = Duration::from_millis(2);
/// What stands before a time.
pub(super) const MARK: &str = "@ns ";
/// The digits of a time.
pub(super) const DIGITS: usize = 20;
/// How long an answer is that comes at once, in bytes, roughly.
const ANSWER_BYTES: usize = 1 << 10;

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since this process began to measure.
pub(super) fn now() -> u64 {
    u64::try_from(BEGAN.elapsed().as_nanos()).unwrap()
}

/// The model, and where it is.
#[derive(Debug)]
pub(super) struct Model {
    /// Host and port.
    pub(super) address: String,
    task: JoinHandle<()>,
}

impl Model {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                drop(tokio::spawn(serve(stream)));
            }
        });
        Self { address, task }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    while let Some(body) = request(&mut stream).await {
        let heard = now();
        sleep(THINK).await;
        let streams = body.windows(13).any(|some| some == b"\"stream\":true");
        let written = if streams {
            speak(stream.get_mut(), heard).await
        } else {
            stream.get_mut().write_all(&answer(heard)).await
        };
        if written.is_err() {
            return;
        }
    }
}

/// Reads a request and returns its body; nothing if the connection is closed.
async fn request(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.ok()?;
            return Some(body);
        }
        if let Some(said) = line.strip_prefix("content-length:") {
            length = said.trim().parse().unwrap();
        }
    }
}

/// A time, as it stands in an answer.
fn mark(nanos: u64) -> String {
    format!("{MARK}{nanos:020}")
}

/// An answer that comes at once, with the times at which the question was heard and answered.
fn answer(heard: u64) -> Vec<u8> {
    let text = format!("{}{} {}", mark(heard), mark(now()), "word ".repeat(ANSWER_BYTES / 5));
    let body = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "model",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {"input_tokens": 250, "output_tokens": 200},
    })
    .to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nrequest-id: req_1\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Sends an answer in pieces. The first says when the question was heard; each says when it was
/// sent.
async fn speak(stream: &mut TcpStream, heard: u64) -> std::io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nrequest-id: req_1\r\n\
        transfer-encoding: chunked\r\n\r\n";
    let times = format!("{}{}", mark(heard), mark(now()));
    let message = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "model", "content": [],
        "stop_reason": null, "usage": {"input_tokens": 250, "output_tokens": 1}, "note": times,
    });
    let first = [
        event(&json!({"type": "message_start", "message": message})),
        event(&json!({
            "type": "content_block_start", "index": 0,
            "content_block": {"type": "text", "text": ""},
        })),
    ];
    stream.write_all(&[head.as_bytes(), &chunk(&first.concat())].concat()).await?;
    for _ in 0..PIECE_COUNT {
        sleep(BETWEEN).await;
        let delta = json!({"type": "text_delta", "text": mark(now())});
        let delta = json!({"type": "content_block_delta", "index": 0, "delta": delta});
        stream.write_all(&chunk(&event(&delta))).await?;
    }
    let delta = json!({"stop_reason": "end_turn", "note": mark(now())});
    let end = [
        event(&json!({"type": "content_block_stop", "index": 0})),
        event(&json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 200}})),
        event(&json!({"type": "message_stop"})),
    ];
    stream.write_all(&[chunk(&end.concat()), b"0\r\n\r\n".to_vec()].concat()).await
}

fn event(data: &Value) -> Vec<u8> {
    let name = data["type"].as_str().unwrap();
    format!("event: {name}\ndata: {data}\n\n").into_bytes()
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}
