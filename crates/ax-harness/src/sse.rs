//! Server-sent events (the WHATWG HTML standard, §9.2), as far as model servers use them.

/// The longest event, in bytes.
const EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Its data; the lines of it joined.
    pub(super) data: String,
}

/// Splits a stream of bytes into events.
#[derive(Debug, Default)]
pub(super) struct Parser {
    buffer: Vec<u8>,
    data: Option<String>,
}

impl Parser {
    /// Takes in some bytes; adds the events that they complete. Returns whether they fit.
    pub(super) fn feed(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> bool {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|&byte| byte == b'\n') {
            self.buffer.extend_from_slice(&rest[..at]);
            rest = &rest[at + 1..];
            let line = std::mem::take(&mut self.buffer);
            self.line(line.strip_suffix(b"\r").unwrap_or(&line), events);
        }
        self.buffer.extend_from_slice(rest);
        self.buffer.len() + self.data.as_ref().map_or(0, String::len) <= EVENT_BYTES_MAX
    }

    /// There is nothing more: completes the event that no empty line followed.
    pub(super) fn end(&mut self, events: &mut Vec<Event>) {
        let line = std::mem::take(&mut self.buffer);
        self.line(&line, events);
        self.line(b"", events);
    }

    fn line(&mut self, line: &[u8], events: &mut Vec<Event>) {
        if line.is_empty() {
            events.extend(self.data.take().map(|data| Event { data }));
        } else if let Some(value) = line.strip_prefix(b"data:") {
            let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
            match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(&value);
                }
                None => self.data = Some(value.into_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_the_bytes_are_cut() {
        let text = "event: a\ndata: one\n\n: comment\r\ndata:two\r\ndata: 2ä\r\n\r\n\ndata: end";
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let mut events = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                assert!(parser.feed(piece, &mut events));
            }
            parser.end(&mut events);
            let data: Vec<_> = events.iter().map(|event| &*event.data).collect();
            assert_eq!(data, ["one", "two\n2ä", "end"]);
        }
    }
}
