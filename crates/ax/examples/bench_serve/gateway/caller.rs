//! Whoever asks: the least client that will do.

use super::model::{DIGITS, MARK, now};
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// One connection.
#[derive(Debug)]
pub(super) struct Caller {
    stream: BufReader<TcpStream>,
    /// What every request has in its head.
    head: String,
    line: String,
}

/// How long the way of a question and its answer was.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// There and back; of a stream, until it was over.
    pub(super) whole: Duration,
    /// There and back, until the first piece of a stream.
    pub(super) first: Option<Duration>,
    /// Of each piece after it, but the last.
    pub(super) pieces: Vec<Duration>,
}

impl Caller {
    /// Connects to `HOST:PORT/PATH`.
    pub(super) async fn open(address: &str, key: &str) -> Self {
        let (host, path) = address.split_once('/').unwrap_or((address, ""));
        let stream = TcpStream::connect(host).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let slash = if path.is_empty() { "" } else { "/" };
        let head = format!(
            "POST {slash}{path}/v1/messages HTTP/1.1\r\nhost: {host}\r\nx-api-key: {key}\r\n\
             content-type: application/json\r\naccept: application/json\r\n\
             anthropic-version: 2023-06-01\r\nuser-agent: bench\r\n"
        );
        Self { stream: BufReader::new(stream), head, line: String::new() }
    }

    /// Asks a question that nobody has asked before, and reads the answer to its end.
    pub(super) async fn ask(&mut self, number: u64, bytes: usize, streams: bool) -> Heard {
        let fill = "word ".repeat(bytes / 5);
        let content = format!("{number} {fill}");
        let body = json!({
            "model": "model", "max_tokens": 1000, "stream": streams,
            "messages": [{"role": "user", "content": content}],
        });
        let body = body.to_string();
        let request = format!("{}content-length: {}\r\n\r\n{body}", self.head, body.len());
        let asked = now();
        self.stream.get_mut().write_all(request.as_bytes()).await.unwrap();
        let length = self.answer().await;
        let mut heard = Heard::default();
        if let (Some(length), false) = (length, streams) {
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await.unwrap();
            let came = now();
            heard.whole = beyond(asked, came, &times(&body));
            return heard;
        }
        let mut there = 0;
        let (mut whole, mut pieces) = (Vec::new(), Vec::new());
        while let Some(piece) = self.piece().await {
            let (came, times) = (now(), times(&piece));
            if streams {
                match times[..] {
                    [at, said] if heard.first.is_none() => {
                        there = at - asked;
                        heard.first = Some(Duration::from_nanos(there + came - said));
                    }
                    // Several may come at once.
                    ref said => pieces.extend(said.iter().map(|said| (*said, came))),
                }
            } else {
                whole.extend(piece);
            }
        }
        let came = now();
        if streams {
            let (said, _) = pieces.pop().unwrap();
            heard.whole = Duration::from_nanos(there + came - said);
            heard.pieces =
                pieces.iter().map(|(said, came)| Duration::from_nanos(came - said)).collect();
        } else {
            heard.whole = beyond(asked, came, &times(&whole));
        }
        heard
    }

    /// Reads the head of an answer; returns the length of its body, unless it comes in pieces.
    async fn answer(&mut self) -> Option<usize> {
        let status = self.line().await;
        assert!(status.contains(" 200 "), "{status}");
        let mut length = None;
        loop {
            let line = self.line().await.to_ascii_lowercase();
            if line.is_empty() {
                return length;
            }
            if let Some(said) = line.strip_prefix("content-length:") {
                length = Some(said.trim().parse().unwrap());
            }
        }
    }

    /// Reads the next piece of a body; nothing at its end.
    async fn piece(&mut self) -> Option<Vec<u8>> {
        let size = usize::from_str_radix(self.line().await, 16).unwrap();
        let mut piece = vec![0; size];
        self.stream.read_exact(&mut piece).await.unwrap();
        assert!(self.line().await.is_empty(), "a piece ends with its line");
        (size > 0).then_some(piece)
    }

    async fn line(&mut self) -> &str {
        self.line.clear();
        let read = self.stream.read_line(&mut self.line).await.unwrap();
        assert!(read > 0, "nobody answers");
        self.line.trim_end()
    }
}

/// What a call took beyond what the model took.
fn beyond(asked: u64, came: u64, times: &[u64]) -> Duration {
    let [heard, said] = times[..] else { panic!("the answer has its two times: {times:?}") };
    Duration::from_nanos((came - asked) - (said - heard))
}

/// Finds the times in what the model said.
fn times(bytes: &[u8]) -> Vec<u64> {
    let text = std::str::from_utf8(bytes).unwrap();
    let times = text.split(MARK).skip(1);
    times.map(|rest| rest[..DIGITS].parse().unwrap()).collect()
}
