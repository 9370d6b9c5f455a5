//! Where the events of a stream end (WHATWG HTML §9.2.6, server-sent events).

use bytes::{Bytes, BytesMut};

/// The longest event, in bytes.
const EVENT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Cuts a stream of bytes into whole events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    bytes: BytesMut,
    /// Up to here no event ends.
    searched: usize,
}

/// The stream has an event without an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endless;

impl Events {
    /// Takes in what came.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), Endless> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > EVENT_BYTES_MAX { Err(Endless) } else { Ok(()) }
    }

    /// Returns the next whole event, with the empty line that ends it.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let from = self.searched.saturating_sub(3);
        let end = end(&self.bytes[from..]).map(|end| from + end);
        match end {
            Some(end) => {
                self.searched = 0;
                Some(self.bytes.split_to(end).freeze())
            }
            None => {
                self.searched = self.bytes.len();
                None
            }
        }
    }

    /// Returns what is left: the stream has ended.
    pub(crate) fn rest(&mut self) -> Bytes {
        self.searched = 0;
        std::mem::take(&mut self.bytes).freeze()
    }
}

/// Returns where the first event ends. A line ends with CR, LF or both.
fn end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < bytes.len() {
        at += match line_end(&bytes[at..]) {
            0 => 1,
            first => match line_end(&bytes[at + first..]) {
                0 => first,
                second => return Some(at + first + second),
            },
        };
    }
    None
}

/// Returns how long the line end is that the bytes begin with. A CR at the end may be half of one,
/// and is taken as a whole one: what follows is then an empty line of the next event.
fn line_end(bytes: &[u8]) -> usize {
    match bytes {
        [b'\r', b'\n', ..] => 2,
        [b'\r' | b'\n', ..] => 1,
        _ => 0,
    }
}

/// Returns the data of an event: its `data` fields, joined by line feeds.
pub(crate) fn data(event: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    for line in event.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let Some(value) = line.strip_prefix(b"data:") else { continue };
        if !data.is_empty() {
            data.push(b'\n');
        }
        data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stream: &str, expect: &[&str], rest: &str) {
        for size in 1..=stream.len() {
            let mut events = Events::default();
            let mut found = Vec::new();
            for piece in stream.as_bytes().chunks(size) {
                events.feed(piece).unwrap();
                found.extend(std::iter::from_fn(|| events.next()));
            }
            let whole: Vec<u8> = found.concat();
            let data = found.iter().map(|event| String::from_utf8(data(event)).unwrap());
            let data: Vec<_> = data.filter(|data| !data.is_empty()).collect();
            assert_eq!(data, expect, "{stream:?} in pieces of {size}");
            let left = events.rest();
            assert_eq!([&whole[..], &left[..]].concat(), stream.as_bytes());
            assert_eq!(left.strip_prefix(b"\n").unwrap_or(&left), rest.as_bytes());
        }
    }

    #[test]
    fn an_event_ends_with_an_empty_line_however_it_is_cut() {
        check("data: a\n\ndata: b\n\n", &["a", "b"], "");
        check("event: x\r\ndata: a\r\ndata: b\r\n\r\n", &["a\nb"], "");
        check(": note\n\ndata: a\n\ndata: half", &["a"], "data: half");
        check("data:a\r\r", &["a"], "");
    }
}
