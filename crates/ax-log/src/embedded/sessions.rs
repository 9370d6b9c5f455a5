//! The sessions that the committer has in hand: those that someone may write, and those that have
//! changes which are not durable yet. Every other session needs no memory.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use ax_core::id::{Epoch, Seq, SessionKey};

use super::format::{SessionRef, SessionState};

/// A session that someone may write, or that has changes which are not durable yet.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) key: SessionKey,
    pub(super) of: SessionRef,
    /// The state with all changes so far, durable or not; `None` if the session does not exist.
    pub(super) state: Option<SessionState>,
    /// The right to write that was given last, unless it was released.
    pub(super) epoch: Option<Epoch>,
    /// Where it was found last in a memtable: the segment and the place.
    pub(super) place: Option<(u64, usize)>,
    /// Whether the block that is being made has changes of it.
    pub(super) touched: bool,
    /// Whether that block changes more of the state than the last position.
    pub(super) changed: bool,
    /// How many blocks that are being written have changes of it.
    pub(super) in_flight: usize,
}

impl Tracked {
    pub(super) fn next(&self) -> Seq {
        Seq(self.state.as_ref().map_or(1, |state| state.last + 1))
    }
}

/// The place of a session among those in hand. It holds until the session is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(usize);

/// The sessions in hand.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slots: HashMap<SessionKey, usize, BuildHasherDefault<Mixer>>,
    tracked: Vec<Option<Tracked>>,
    free: Vec<usize>,
}

impl Sessions {
    pub(super) fn find(&self, key: &SessionKey) -> Option<Slot> {
        self.slots.get(key).copied().map(Slot)
    }

    pub(super) fn count(&self) -> usize {
        self.slots.len()
    }

    /// Takes a session in hand that is not yet.
    pub(super) fn insert(&mut self, tracked: Tracked) -> Slot {
        let slot = self.free.pop().unwrap_or(self.tracked.len());
        if slot == self.tracked.len() {
            self.tracked.push(None);
        }
        let twin = self.slots.insert(tracked.key.clone(), slot);
        assert!(twin.is_none(), "a session is in hand once");
        self.tracked[slot] = Some(tracked);
        Slot(slot)
    }

    pub(super) fn at(&mut self, slot: Slot) -> &mut Tracked {
        self.tracked[slot.0].as_mut().expect("a slot holds until its session is settled")
    }

    /// Lets a session go, if nobody may write it and it has no changes that are not durable.
    pub(super) fn settle(&mut self, slot: Slot) {
        let entry = &mut self.tracked[slot.0];
        let idle = |tracked: &Tracked| {
            tracked.epoch.is_none() && !tracked.touched && tracked.in_flight == 0
        };
        if entry.as_ref().is_some_and(idle)
            && let Some(tracked) = entry.take()
        {
            self.slots.remove(&tracked.key);
            self.free.push(slot.0);
        }
        if self.slots.is_empty() {
            // After a peak nothing is kept of it.
            *self = Self::default();
        }
    }
}

/// A quick hash for ids, which are random already. It is the same in every run.
#[derive(Debug, Default)]
pub(super) struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u128(&mut self, word: u128) {
        self.write(&word.to_le_bytes());
    }

    fn finish(&self) -> u64 {
        // The upper bits are the best mixed ones, and the table looks at both ends.
        self.0 ^ (self.0 >> 32)
    }
}
