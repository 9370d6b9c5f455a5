//! What is still to be written to a harness.

use std::collections::VecDeque;

/// How much may wait to be written, in bytes, beyond what an attempt begins with.
pub(super) const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Lines that wait to be written. What an attempt begins with is made line by line, when the
/// harness has read what was before it.
pub(super) struct Outbox {
    opening: Box<dyn Iterator<Item = Vec<u8>> + Send>,
    queue: VecDeque<Vec<u8>>,
    queue_bytes: usize,
    current: Vec<u8>,
    written: usize,
    closed: bool,
}

impl Outbox {
    pub(super) fn new(opening: Box<dyn Iterator<Item = Vec<u8>> + Send>) -> Self {
        let queue = VecDeque::new();
        Self { opening, queue, queue_bytes: 0, current: Vec::new(), written: 0, closed: false }
    }

    /// Adds a line; returns whether there was room for it.
    pub(super) fn push(&mut self, line: Vec<u8>) -> bool {
        if self.closed {
            return true;
        }
        self.queue_bytes += line.len();
        self.queue.push_back(line);
        self.queue_bytes <= QUEUE_BYTES_MAX
    }

    /// Nothing more is added; what is there is still written.
    pub(super) const fn close(&mut self) {
        self.closed = true;
    }

    /// Moves on to what is to be written next; returns whether there is anything.
    pub(super) fn fill(&mut self) -> bool {
        while self.written == self.current.len() {
            self.written = 0;
            if let Some(next) = self.opening.next() {
                self.current = next;
            } else if let Some(next) = self.queue.pop_front() {
                self.queue_bytes -= next.len();
                self.current = next;
            } else {
                self.current = Vec::new();
                return false;
            }
        }
        true
    }

    /// Returns what is to be written next.
    pub(super) fn chunk(&self) -> &[u8] {
        &self.current[self.written..]
    }

    /// So much of it was written.
    pub(super) const fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
    }

    /// Returns whether everything was written and nothing will be added.
    pub(super) fn is_done(&mut self) -> bool {
        self.closed && !self.fill()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_opening_comes_first_and_the_rest_in_order() {
        let mut outbox = Outbox::new(Box::new([b"ab".to_vec(), b"c".to_vec()].into_iter()));
        assert!(outbox.push(b"d".to_vec()));
        outbox.close();
        assert!(outbox.push(b"never written".to_vec()));
        let mut written = Vec::new();
        while outbox.fill() {
            written.push(outbox.chunk()[0]);
            outbox.wrote(1);
        }
        assert_eq!(written, b"abcd");
        assert!(outbox.is_done());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut outbox = Outbox::new(Box::new(std::iter::empty()));
        let line = vec![0; QUEUE_BYTES_MAX / 2];
        assert!(outbox.push(line.clone()));
        assert!(outbox.push(line.clone()));
        assert!(!outbox.push(vec![0]));
    }
}
