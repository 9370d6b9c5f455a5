//! The end of what a process wrote to standard error.

use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is kept, in bytes.
pub(crate) const TAIL_BYTES_MAX: usize = 64 * 1024;

/// The longest message of a failure, in bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Keeps the last [`TAIL_BYTES_MAX`] bytes of a stream.
#[derive(Debug)]
pub(crate) struct Tail<R> {
    from: Option<R>,
    kept: Vec<u8>,
    dropped: u64,
}

impl<R: AsyncRead + Unpin> Tail<R> {
    pub(crate) const fn new(from: Option<R>) -> Self {
        Self { from, kept: Vec::new(), dropped: 0 }
    }

    /// Reads a little more. May be dropped and called again.
    pub(crate) async fn read(&mut self) {
        let Some(from) = &mut self.from else { return };
        self.kept.reserve(TAIL_BYTES_MAX);
        // A stream that cannot be read has ended as far as we are concerned.
        if from.read_buf(&mut self.kept).await.unwrap_or(0) == 0 {
            self.close();
        }
        if self.kept.len() >= 2 * TAIL_BYTES_MAX {
            self.trim();
        }
    }

    fn trim(&mut self) {
        let excess = self.kept.len().saturating_sub(TAIL_BYTES_MAX);
        self.kept.drain(..excess);
        self.dropped += excess as u64;
    }

    /// Reads no more.
    pub(crate) fn close(&mut self) {
        self.from = None;
    }

    /// Returns whether everything was read.
    pub(crate) const fn is_done(&self) -> bool {
        self.from.is_none()
    }

    /// Adds what was kept to a message, as far as there is room in it.
    pub(crate) fn after(&mut self, message: &str) -> String {
        self.trim();
        let text = String::from_utf8_lossy(&self.kept);
        let text = text.trim();
        if text.is_empty() {
            return message.to_owned();
        }
        let room = MESSAGE_BYTES_MAX
            .saturating_sub(message.len() + "; the end of standard error:\n".len());
        let cut =
            (text.len().saturating_sub(room)..=text.len()).find(|&at| text.is_char_boundary(at));
        let end = &text[cut.unwrap_or(text.len())..];
        if self.dropped == 0 && end.len() == text.len() {
            format!("{message}; standard error:\n{text}")
        } else {
            format!("{message}; the end of standard error:\n{end}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_end_is_kept() {
        let mut bytes = vec![b'a'; 3 * TAIL_BYTES_MAX];
        bytes.extend_from_slice(b"the end\n");
        let mut tail = Tail::new(Some(&bytes[..]));
        while !tail.is_done() {
            tail.read().await;
        }
        let message = tail.after("it failed");
        assert!(message.starts_with("it failed; the end of standard error:\naaa"), "{message}");
        assert!(message.ends_with("the end"));
        assert!(message.len() <= MESSAGE_BYTES_MAX);
    }
}
