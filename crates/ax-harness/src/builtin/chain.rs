//! The chain of everything that is sent to the model: each part is hashed once, and a request is
//! named by what it adds to the one before.

use ax_core::session::{Digest, Prefix};

/// The chain of a conversation. The hash of a chain with one more part is the BLAKE3 hash of its
/// hash and the part's; the hash of the empty chain is zero.
#[derive(Debug, Default)]
pub(super) struct Chain {
    head: Digest,
    /// The head when the model last knew everything up to there.
    known: Digest,
    /// What was added since.
    new: Vec<Digest>,
}

impl Chain {
    /// Adds a part that the model does not know.
    pub(super) fn add(&mut self, part: Digest) {
        self.fold(part);
        self.new.push(part);
    }

    /// Adds a part that came from the model itself.
    pub(super) fn received(&mut self, part: Digest) {
        assert!(self.new.is_empty(), "an answer follows its request");
        self.fold(part);
        self.known = self.head;
    }

    /// Everything so far was sent in an earlier execution.
    pub(super) fn sent_before(&mut self) {
        self.known = self.head;
        self.new.clear();
    }

    /// Returns the request that sends everything so far.
    pub(super) fn request(&mut self) -> Prefix {
        let prefix =
            Prefix { parent: self.known, parts: std::mem::take(&mut self.new), chain: self.head };
        self.known = self.head;
        prefix
    }

    fn fold(&mut self, part: Digest) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.head.0);
        hasher.update(&part.0);
        self.head = Digest(*hasher.finalize().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_only_what_is_new() {
        let part = |byte| Digest([byte; 32]);
        let mut chain = Chain::default();
        chain.add(part(1));
        chain.add(part(2));
        let first = chain.request();
        assert_eq!((first.parent, first.parts), (Digest::default(), vec![part(1), part(2)]));
        chain.received(part(3));
        chain.add(part(4));
        let second = chain.request();
        assert_eq!(second.parts, [part(4)]);
        assert_ne!(second.parent, first.chain);

        // Whoever replays the same conversation gets the same names.
        let mut again = Chain::default();
        again.add(part(1));
        again.add(part(2));
        assert_eq!(again.request().chain, first.chain);
        again.received(part(3));
        again.add(part(4));
        assert_eq!(again.request(), second);
    }

    #[test]
    fn what_an_earlier_execution_sent_is_not_named_again() {
        let mut chain = Chain::default();
        chain.add(Digest([1; 32]));
        let first = chain.request();
        let mut next = Chain::default();
        next.add(Digest([1; 32]));
        next.sent_before();
        next.add(Digest([2; 32]));
        let request = next.request();
        assert_eq!((request.parent, request.parts.len()), (first.chain, 1));
    }
}
