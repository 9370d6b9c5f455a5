//! Makes new inputs out of old ones.

/// The longest input, in bytes.
const INPUT_BYTES_MAX: usize = 32 * 1024;
/// Numbers at which arithmetic goes wrong.
const EDGES: [u64; 10] =
    [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX];

/// Numbers that look random and follow from a seed (SplitMix64, public domain).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a bound that is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % bound as u64).unwrap_or(0)
    }

    pub(crate) fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn range(&mut self, bytes: &[u8]) -> (usize, usize) {
        let from = self.below(bytes.len() + 1);
        let most =
            (bytes.len() - from).min(if self.number().is_multiple_of(4) { 4_096 } else { 16 });
        (from, from + self.below(most + 1))
    }
}

/// Changes an input in one to eight ways.
pub(crate) fn mutate(
    dice: &mut Dice,
    mut bytes: Vec<u8>,
    others: &[Vec<u8>],
    words: &[&str],
) -> Vec<u8> {
    let times = 1 + dice.below(3) * dice.below(4);
    for _ in 0..times.max(1) {
        change(dice, &mut bytes, others, words);
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

fn change(dice: &mut Dice, bytes: &mut Vec<u8>, others: &[Vec<u8>], words: &[&str]) {
    let at = dice.below(bytes.len() + 1);
    let (from, to) = dice.range(bytes);
    match dice.below(11) {
        0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
        1 if at < bytes.len() => bytes[at] = dice.number().to_le_bytes()[0],
        2 => drop(bytes.drain(from..to)),
        3 => {
            let part = bytes[from..to].to_vec();
            insert(bytes, at, &part);
        }
        4 => {
            let part = bytes[from..to].to_vec();
            let times = 1 + dice.below(64);
            insert(bytes, at, &part.repeat(times));
        }
        5 => {
            let edge = dice.one(&EDGES).to_le_bytes();
            let width = *dice.one(&[1, 2, 4, 8]);
            let mut edge = edge[..width].to_vec();
            if dice.number().is_multiple_of(2) {
                edge.reverse();
            }
            overwrite(bytes, at, &edge);
        }
        6 => {
            let other = dice.one(others).clone();
            let (from, to) = dice.range(&other);
            insert(bytes, at, &other[from..to]);
        }
        7 => bytes.truncate(at),
        8 | 9 if !words.is_empty() => {
            let word = dice.one(words).as_bytes();
            if dice.number().is_multiple_of(2) {
                insert(bytes, at, word);
            } else {
                overwrite(bytes, at, word);
            }
        }
        _ => {
            let count = 1 + dice.below(8);
            let noise: Vec<u8> = (0..count).map(|_| dice.number().to_le_bytes()[0]).collect();
            insert(bytes, at, &noise);
        }
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    let tail = bytes.split_off(at.min(bytes.len()));
    bytes.extend_from_slice(part);
    bytes.extend_from_slice(&tail);
}

fn overwrite(bytes: &mut [u8], at: usize, part: &[u8]) {
    let end = (at + part.len()).min(bytes.len());
    if at < end {
        bytes[at..end].copy_from_slice(&part[..end - at]);
    }
}
