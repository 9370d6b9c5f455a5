//! Lines of JSON, written piece by piece, and lines of bounded length, read piece by piece.

use serde_json::value::RawValue;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// A JSON object on one line.
#[derive(Debug)]
pub(crate) struct Line {
    text: String,
}

impl Line {
    /// Begins a frame of this type.
    pub(crate) fn new(kind: &str) -> Self {
        Self::object().text("type", kind)
    }

    /// Begins an object.
    pub(crate) fn object() -> Self {
        Self { text: String::from("{") }
    }

    fn name(&mut self, name: &str) {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        self.text.push('"');
        self.text.push_str(name);
        self.text.push_str("\":");
    }

    /// Adds a text.
    pub(crate) fn text(mut self, name: &str, text: &str) -> Self {
        self.name(name);
        self.text.push_str(&quoted(text));
        self
    }

    /// Adds a text or null.
    pub(crate) fn text_or_null(self, name: &str, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self.json(name, "null"),
        }
    }

    /// Adds a number.
    pub(crate) fn number(mut self, name: &str, number: u64) -> Self {
        self.name(name);
        self.text.push_str(&number.to_string());
        self
    }

    /// Adds a truth value.
    pub(crate) fn truth(self, name: &str, truth: bool) -> Self {
        self.json(name, if truth { "true" } else { "false" })
    }

    /// Adds a value that is JSON already, made by us.
    pub(crate) fn json(mut self, name: &str, json: &str) -> Self {
        self.name(name);
        self.text.push_str(json);
        self
    }

    /// Adds a value that somebody else says is JSON; it becomes a text if it is none.
    pub(crate) fn value(mut self, name: &str, json: &str) -> Self {
        self.name(name);
        if serde_json::from_str::<&RawValue>(json).is_ok() {
            // Between tokens a line feed is as good as a space, and within them there is none.
            self.text.push_str(&json.replace(['\n', '\r'], " "));
        } else {
            self.text.push_str(&quoted(json));
        }
        self
    }

    /// Returns the object.
    pub(crate) fn close(mut self) -> String {
        self.text.push('}');
        self.text
    }

    /// Returns the object and a line feed.
    pub(crate) fn end(self) -> Vec<u8> {
        let mut line = self.close().into_bytes();
        line.push(b'\n');
        line
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text can always be written")
}

/// What comes next in a stream of lines.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// A line, without its line feed.
    Line(Vec<u8>),
    /// So much of a line that is longer than the limit; the rest follows as if it were another.
    Long(Vec<u8>),
    /// There is nothing more.
    End,
}

/// Splits a stream into lines of bounded length.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    from: R,
    /// What was read and not yet returned.
    buffer: Vec<u8>,
    /// How much of the buffer is known to have no line feed.
    searched: usize,
    line_bytes_max: usize,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Reads from this stream. A line has at most `line_bytes_max` bytes.
    pub(crate) const fn new(from: R, line_bytes_max: usize) -> Self {
        Self { from, buffer: Vec::new(), searched: 0, line_bytes_max, ended: false }
    }

    /// Reads the next line. May be dropped and called again without loss.
    pub(crate) async fn next(&mut self) -> io::Result<Read> {
        loop {
            let window = &self.buffer[self.searched..];
            if let Some(at) = window.iter().position(|&byte| byte == b'\n') {
                let end = self.searched + at;
                let cut = end.min(self.line_bytes_max);
                return Ok(self.cut(cut, end <= self.line_bytes_max));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > self.line_bytes_max {
                return Ok(self.cut(self.line_bytes_max, false));
            }
            if self.ended {
                let rest = std::mem::take(&mut self.buffer);
                self.searched = 0;
                return Ok(if rest.is_empty() { Read::End } else { Read::Line(rest) });
            }
            self.buffer.reserve(READ_BYTES);
            self.ended = self.from.read_buf(&mut self.buffer).await? == 0;
        }
    }

    fn cut(&mut self, at: usize, whole: bool) -> Read {
        let rest = self.buffer.split_off(if whole { at + 1 } else { at });
        let mut line = std::mem::replace(&mut self.buffer, rest);
        self.searched = 0;
        line.truncate(at);
        if whole { Read::Line(line) } else { Read::Long(line) }
    }

    /// Reads and forgets everything that still comes; returns whether anything did.
    pub(crate) async fn discard(&mut self) -> io::Result<bool> {
        let mut any = self.buffer.iter().any(|byte| !byte.is_ascii_whitespace());
        self.buffer.clear();
        self.searched = 0;
        if !self.ended {
            self.buffer.reserve(READ_BYTES);
            self.ended = self.from.read_buf(&mut self.buffer).await? == 0;
            any |= self.buffer.iter().any(|byte| !byte.is_ascii_whitespace());
            self.buffer.clear();
        }
        Ok(any)
    }

    /// Returns whether everything was read.
    pub(crate) fn is_done(&self) -> bool {
        self.ended && self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(bytes: &[u8], line_bytes_max: usize) -> Vec<Read> {
        let mut lines = Lines::new(bytes, line_bytes_max);
        let mut reads = Vec::new();
        loop {
            match lines.next().await.unwrap() {
                Read::End => return reads,
                read => reads.push(read),
            }
        }
    }

    #[tokio::test]
    async fn lines_are_split_at_line_feeds() {
        let line = |text: &str| Read::Line(text.into());
        assert_eq!(all(b"a\n\nbc\nd", 9).await, [line("a"), line(""), line("bc"), line("d")]);
        assert_eq!(all(b"", 9).await, []);
    }

    #[tokio::test]
    async fn a_line_longer_than_the_limit_comes_in_pieces() {
        let long = |text: &str| Read::Long(text.into());
        let line = |text: &str| Read::Line(text.into());
        assert_eq!(all(b"abcdef\ng\n", 4).await, [long("abcd"), line("ef"), line("g")]);
        assert_eq!(all(b"abcd\ne", 4).await, [line("abcd"), line("e")]);
        assert_eq!(all(b"abcdefghij", 4).await, [long("abcd"), long("efgh"), line("ij")]);
    }

    #[test]
    fn a_value_stays_on_one_line() {
        let line = Line::object().value("a", "{\n\"b\":\r\n1}").value("c", "not JSON");
        assert_eq!(line.close(), "{\"a\":{ \"b\":  1},\"c\":\"not JSON\"}");
    }
}
