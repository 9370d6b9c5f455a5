//! What was sent to models in a session: each part is stored once, and a request is named by what
//! it adds to one before (a Merkle chain).

use ax_core::session::{Digest, Prefix};
use std::collections::{HashMap, HashSet};

/// What the session's log holds of requests.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    /// Parts whose content is stored, or that a model said.
    stored: HashSet<Digest>,
    /// Chain hashes that a request may continue.
    heads: HashSet<Digest>,
    /// Of these, the ones that this attempt has reached, and how long their chains are.
    reached: HashMap<Digest, usize>,
}

/// A request, in its place.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    /// What is recorded.
    pub(crate) prefix: Prefix,
    /// Which parts are not stored yet, by position.
    pub(crate) new: Vec<usize>,
    /// The chain hash before each part, and of the whole.
    pub(crate) heads: Vec<Digest>,
}

impl Chains {
    /// Takes in a request that an earlier attempt or execution recorded.
    pub(crate) fn recorded(&mut self, prefix: &Prefix) {
        self.stored.extend(&prefix.parts);
        let mut head = prefix.parent;
        self.heads.insert(head);
        for part in &prefix.parts {
            head = link(head, *part);
            self.heads.insert(head);
        }
    }

    /// Finds the place of a request.
    pub(crate) fn place(&self, parts: &[Digest]) -> Placed {
        let mut head = Digest::default();
        let mut heads = vec![head];
        for part in parts {
            head = link(head, *part);
            heads.push(head);
        }
        let from = (0..parts.len()).rev().find(|at| self.heads.contains(&heads[*at])).unwrap_or(0);
        let mut seen = HashSet::new();
        let is_new = |at: &usize| !self.stored.contains(&parts[*at]) && seen.insert(parts[*at]);
        let new = (from..parts.len()).filter(is_new).collect();
        let chain = heads[parts.len()];
        let prefix = Prefix { parent: heads[from], parts: parts[from..].to_vec(), chain };
        Placed { prefix, new, heads }
    }

    /// The request was sent in this attempt, or answered from the journal.
    pub(crate) fn sent(&mut self, placed: &Placed) {
        self.stored.extend(&placed.prefix.parts);
        for (at, head) in placed.heads.iter().enumerate() {
            self.heads.insert(*head);
            self.reached.insert(*head, at);
        }
    }

    /// The model answered it with these parts.
    pub(crate) fn said(&mut self, chain: Digest, said: &[Digest]) {
        self.stored.extend(said);
        let mut head = chain;
        let mut at = self.reached.get(&chain).copied().unwrap_or(0);
        for part in said {
            head = link(head, *part);
            at += 1;
            self.heads.insert(head);
            self.reached.insert(head, at);
        }
    }

    /// How many of a request's parts continue something that this attempt has sent.
    pub(crate) fn reached(&self, placed: &Placed) -> usize {
        let reached =
            |head: &&Digest| **head != Digest::default() && self.reached.contains_key(head);
        placed.heads.iter().rposition(|head| reached(&head)).unwrap_or(0)
    }
}

/// Returns the hash of a chain with one more part: BLAKE3 of its hash and the part's.
fn link(head: Digest, part: Digest) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head.0);
    hasher.update(&part.0);
    Digest(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    #[test]
    fn a_request_names_and_stores_only_what_is_new() {
        let mut chains = Chains::default();
        let first = chains.place(&[part(1), part(2)]);
        assert_eq!((first.prefix.parts.len(), first.new.len()), (2, 2));
        chains.sent(&first);
        chains.said(first.prefix.chain, &[part(3)]);
        let second = chains.place(&[part(1), part(2), part(3), part(4)]);
        assert_eq!((&second.prefix.parts[..], &second.new[..]), (&[part(4)][..], &[3][..]));
        assert_eq!(chains.reached(&second), 3);

        // A conversation that begins alike, such as that of another agent in the same program.
        let other = chains.place(&[part(1), part(5)]);
        assert_eq!((other.prefix.parts.len(), &other.new[..]), (1, &[1][..]));
    }

    #[test]
    fn what_earlier_executions_sent_is_not_stored_again() {
        let mut before = Chains::default();
        let first = before.place(&[part(1), part(2)]);
        before.sent(&first);
        let mut chains = Chains::default();
        chains.recorded(&first.prefix);
        let next = chains.place(&[part(1), part(2), part(3)]);
        assert_eq!(next.prefix.parent, first.prefix.chain);
        assert_eq!(next.new, [2]);
        assert_eq!(chains.reached(&next), 0, "nothing was sent in this attempt");
    }
}
