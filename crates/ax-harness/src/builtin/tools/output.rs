//! The beginning and the end of something long.

/// Keeps the first and the last of a stream of bytes.
#[derive(Debug)]
pub(super) struct HeadAndTail {
    head: Vec<u8>,
    tail: Vec<u8>,
    half_bytes: usize,
    bytes: u64,
}

impl HeadAndTail {
    /// Keeps at most `bytes_max`, half of it from each end.
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self { head: Vec::new(), tail: Vec::new(), half_bytes: bytes_max / 2, bytes: 0 }
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        let room = self.half_bytes - self.head.len();
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(first);
        self.tail.extend_from_slice(rest);
        if self.tail.len() > 2 * self.half_bytes {
            self.tail.drain(..self.tail.len() - self.half_bytes);
        }
    }

    /// Returns what was kept, and between its parts how much was left out.
    pub(super) fn text(mut self) -> String {
        let excess = self.tail.len().saturating_sub(self.half_bytes);
        self.tail.drain(..excess);
        let kept = (self.head.len() + self.tail.len()) as u64;
        if self.bytes == kept {
            self.head.append(&mut self.tail);
            return String::from_utf8_lossy(&self.head).into_owned();
        }
        let (head, tail) =
            (String::from_utf8_lossy(&self.head), String::from_utf8_lossy(&self.tail));
        format!("{head}\n[… {} bytes are left out here …]\n{tail}", self.bytes - kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&str], expect: &str) {
        let mut kept = HeadAndTail::new(8);
        pieces.iter().for_each(|piece| kept.add(piece.as_bytes()));
        assert_eq!(kept.text(), expect);
    }

    #[test]
    fn the_middle_of_something_long_is_left_out() {
        check(&["ab", "cdefgh"], "abcdefgh");
        check(&["abcdefghi"], "abcd\n[… 1 bytes are left out here …]\nfghi");
        let long = "x".repeat(1_000);
        check(&["abc", &long, "def", "gh"], "abcx\n[… 1000 bytes are left out here …]\nefgh");
    }
}
