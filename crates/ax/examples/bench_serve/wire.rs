//! The least client of HTTP/1.1 that will do: it computes little beside the server.

use std::time::Instant;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
    line: String,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let host = address.to_owned();
        Self { stream: BufReader::new(stream), host, line: String::new() }
    }

    /// Sends a request and reads the answer; returns its status and its body.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> (u16, Vec<u8>) {
        self.send(method, path, kind, body).await;
        let (status, length) = self.head().await;
        let mut body = vec![0; length.unwrap_or(0)];
        self.stream.read_exact(&mut body).await.unwrap();
        (status, body)
    }

    async fn send(&mut self, method: &str, path: &str, kind: &str, body: &[u8]) {
        let host = &self.host;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: {kind}\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        self.stream.get_mut().write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    }

    /// Reads the head of an answer; returns its status and the length of its body.
    async fn head(&mut self) -> (u16, Option<usize>) {
        let status = self.line().await;
        let status = status.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap();
        let mut length = None;
        loop {
            let line = self.line().await.to_ascii_lowercase();
            if line.is_empty() {
                return (status, length);
            }
            if let Some(said) = line.strip_prefix("content-length:") {
                length = Some(said.trim().parse().unwrap());
            }
        }
    }

    async fn line(&mut self) -> &str {
        self.line.clear();
        let read = self.stream.read_line(&mut self.line).await.unwrap();
        assert!(read > 0, "the server has hung up");
        self.line.trim_end()
    }

    /// Begins to read a stream of server-sent events.
    pub(crate) async fn follow(mut self, path: &str) -> Self {
        self.send("GET", path, "text/plain", b"").await;
        assert_eq!(self.head().await.0, 200, "{path}");
        self
    }

    /// Reads up to the next line of a stream that begins so; returns the rest of it, and when it
    /// came. The sizes of chunks between are passed over.
    pub(crate) async fn next(&mut self, begin: &str) -> (String, Instant) {
        loop {
            if let Some(rest) = self.line().await.strip_prefix(begin) {
                return (rest.trim().to_owned(), Instant::now());
            }
        }
    }
}
