//! The bytes of segments and runs; `docs/formats/log.md` draws them. All integers little-endian.

use bytes::Bytes;
use std::sync::Arc;

use crate::types::{LogFault, Row};
use ax_core::id::{Seq, SessionId};

/// The version that is written, and the only one that is known.
pub(super) const VERSION: u16 = 1;
/// The length of the header of a block in a segment, in bytes.
pub(super) const BLOCK_HEADER_BYTES: usize = 64;
/// The length of the header of a record, in segments and runs, in bytes.
pub(super) const RECORD_HEADER_BYTES: usize = 40;

const BLOCK_MAGIC: [u8; 4] = *b"AXBK";
const STATE_BYTES: usize = 76;
const FLAG_PARENT: u8 = 1;
const FLAG_DELETED: u8 = 2;
const FLAG_DUE: u8 = 4;

/// A session as it is named on disk: the namespace by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SessionRef {
    pub(super) namespace: u32,
    pub(super) session: u128,
}

/// The key of a record; runs are sorted by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) of: SessionRef,
    pub(super) seq: u64,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One entry of a session, at `seq`.
    Entry = 1,
    /// A snapshot that covers everything up to `seq`.
    Snapshot = 2,
    /// The state of a session; the newest is the one that counts.
    State = 3,
    /// The name of a namespace, which the number stands for from here on.
    Namespace = 4,
}

/// One record. The payload is part of the block it was read from.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) key: Key,
    pub(super) payload: Bytes,
}

/// What is kept of a session beside its entries and snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionState {
    pub(super) row: Row,
    /// The last entry; of a branch without own entries, the last that is shared.
    pub(super) last: u64,
    /// The lowest position that can be read.
    pub(super) first: u64,
    pub(super) parent: Option<(u128, u64)>,
    pub(super) deleted: bool,
    /// How many branches share a prefix with this session.
    pub(super) pin_count: u32,
    /// The highest position that any of them shares.
    pub(super) pin_last: u64,
}

impl SessionState {
    /// Returns the state of a session that is about to get its first entry.
    pub(super) fn unborn() -> Self {
        Self {
            row: Row::default(),
            last: 0,
            first: 1,
            parent: None,
            deleted: false,
            pin_count: 0,
            pin_last: 0,
        }
    }

    /// Whether anyone can still read the entry at a position of this session's own.
    pub(super) const fn keeps_entry(&self, seq: u64) -> bool {
        (!self.deleted && seq >= self.first) || (self.pin_count > 0 && seq <= self.pin_last)
    }

    /// Whether anyone can still find a snapshot of this session's own.
    pub(super) const fn keeps_snapshot(&self, at: u64) -> bool {
        (!self.deleted && at + 1 >= self.first) || (self.pin_count > 0 && at <= self.pin_last)
    }

    pub(super) fn head(&self) -> crate::Head {
        crate::Head {
            last: Seq(self.last),
            first: Seq(self.first),
            row: self.row.clone(),
            parent: self.parent.map(|(parent, at)| (SessionId(parent), Seq(at))),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(STATE_BYTES + self.row.data.len());
        let mut flags = 0;
        if self.parent.is_some() {
            flags |= FLAG_PARENT;
        }
        if self.deleted {
            flags |= FLAG_DELETED;
        }
        if self.row.due_millis.is_some() {
            flags |= FLAG_DUE;
        }
        let (parent, at) = self.parent.unwrap_or_default();
        bytes.extend([flags, self.row.state, 0, 0]);
        bytes.extend(self.pin_count.to_le_bytes());
        bytes.extend(self.first.to_le_bytes());
        bytes.extend(self.last.to_le_bytes());
        bytes.extend(parent.to_le_bytes());
        bytes.extend(at.to_le_bytes());
        bytes.extend(self.pin_last.to_le_bytes());
        bytes.extend(self.row.due_millis.unwrap_or(0).to_le_bytes());
        bytes.extend(self.row.updated_millis.to_le_bytes());
        bytes.extend(u32_of(self.row.data.len()).to_le_bytes());
        bytes.extend(&self.row.data);
        bytes
    }

    pub(super) fn decode(bytes: &Bytes) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let [flags, state, _, _] = reader.array()?;
        let pin_count = reader.u32()?;
        let first = reader.u64()?;
        let last = reader.u64()?;
        let parent = (u128::from_le_bytes(reader.array()?), reader.u64()?);
        let pin_last = reader.u64()?;
        let due = reader.u64()?;
        let updated_millis = reader.u64()?;
        let length = reader.u32()? as usize;
        // A copy, because a slice would keep the whole block in memory for as long as the row.
        let data = Bytes::copy_from_slice(reader.take(length)?);
        let row =
            Row { state, due_millis: (flags & FLAG_DUE != 0).then_some(due), updated_millis, data };
        Some(Self {
            row,
            last,
            first,
            parent: (flags & FLAG_PARENT != 0).then_some(parent),
            deleted: flags & FLAG_DELETED != 0,
            pin_count,
            pin_last,
        })
    }
}

/// Encodes the header of a record; its payload follows.
pub(super) fn record_header(kind: Kind, key: Key, bytes: usize) -> [u8; RECORD_HEADER_BYTES] {
    let mut header = [0; RECORD_HEADER_BYTES];
    header[0] = kind as u8;
    header[4..8].copy_from_slice(&key.of.namespace.to_le_bytes());
    header[8..24].copy_from_slice(&key.of.session.to_le_bytes());
    header[24..32].copy_from_slice(&key.seq.to_le_bytes());
    // 32..36 is the number of the data key that the payload is encrypted with; 0 for none.
    header[36..40].copy_from_slice(&u32_of(bytes).to_le_bytes());
    header
}

/// Takes one record from `block` at `at` and moves `at` behind it; `None` if it is malformed.
pub(super) fn record_at(block: &Bytes, at: &mut usize) -> Option<Record> {
    let mut reader = Reader::new(block.get(*at..)?);
    let [kind, flags, _, _] = reader.array()?;
    let kind = match kind {
        1 => Kind::Entry,
        2 => Kind::Snapshot,
        3 => Kind::State,
        4 => Kind::Namespace,
        _ => return None,
    };
    let namespace = reader.u32()?;
    let session = u128::from_le_bytes(reader.array()?);
    let seq = reader.u64()?;
    let data_key = reader.u32()?;
    let length = reader.u32()? as usize;
    if flags != 0 || data_key != 0 || reader.rest.len() < length {
        return None;
    }
    let from = *at + RECORD_HEADER_BYTES;
    *at = from + length;
    let key = Key { of: SessionRef { namespace, session }, seq };
    Some(Record { kind, key, payload: block.slice(from..*at) })
}

/// The header of a block in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHeader {
    pub(super) segment: u64,
    /// Counted over all segments of the store.
    pub(super) block: u64,
    /// How often the store had been opened when the block was written.
    pub(super) generation: u64,
    pub(super) body_bytes: u32,
    pub(super) records: u32,
    pub(super) body_crc: u32,
    /// The newest block that was durable and shown when this one was made.
    pub(super) settled: u64,
}

/// What stands where a block may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The header of a block.
    Block(BlockHeader),
    /// The header of a block in a version that is not known.
    Version(u16),
    /// Nothing, or what is left of something.
    Nothing,
}

impl BlockHeader {
    /// Returns the checksum of a body, which binds it to its place and store.
    pub(super) fn crc_of(store: u64, segment: u64, block: u64, body: &[u8]) -> u32 {
        let place = [store.to_le_bytes(), segment.to_le_bytes(), block.to_le_bytes()];
        crc32c::crc32c_append(crc32c::crc32c(place.as_flattened()), body)
    }

    pub(super) fn encode(&self, store: u64) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&BLOCK_MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.segment.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.block.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.generation.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.records.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.body_crc.to_le_bytes());
        bytes[44..52].copy_from_slice(&store.to_le_bytes());
        bytes[52..60].copy_from_slice(&self.settled.to_le_bytes());
        let crc = seeded_crc(store, &bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(store: u64, bytes: &[u8]) -> Found {
        Self::fields(store, bytes).unwrap_or(Found::Nothing)
    }

    /// Returns the store that a header says it belongs to, where the manifest is lost.
    pub(super) fn store_of(bytes: &[u8]) -> Option<u64> {
        let store = u64::from_le_bytes(bytes.get(44..52)?.try_into().ok()?);
        Self::fields(store, bytes).map(|_| store)
    }

    fn fields(store: u64, bytes: &[u8]) -> Option<Found> {
        let bytes = bytes.get(..BLOCK_HEADER_BYTES)?;
        let mut reader = Reader::new(bytes);
        let sealed = seeded_crc(store, &bytes[..60]).to_le_bytes() == bytes[60..64];
        if reader.array()? != BLOCK_MAGIC || !sealed {
            return None;
        }
        let [low, high, _, _] = reader.array()?;
        let version = u16::from_le_bytes([low, high]);
        if version != VERSION {
            return Some(Found::Version(version));
        }
        let mut header = Self {
            segment: reader.u64()?,
            block: reader.u64()?,
            generation: reader.u64()?,
            body_bytes: reader.u32()?,
            records: reader.u32()?,
            body_crc: reader.u32()?,
            settled: 0,
        };
        let _store = reader.u64()?;
        header.settled = reader.u64()?;
        Some(Found::Block(header))
    }
}

/// Returns a checksum that only files of this store have.
pub(super) fn seeded_crc(store: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&store.to_le_bytes()), bytes)
}

/// Takes fields from bytes; `None` where they end too early.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(super) fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// Narrows a length that a limit of the log keeps far below 4 GiB.
pub(super) fn u32_of(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("the limits of the log keep lengths below 4 GiB")
}

/// Widens a length of something in memory.
pub(super) const fn u64_of(bytes: usize) -> u64 {
    bytes as u64
}

/// Narrows a length of something that was found to fit into memory.
pub(super) fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a 64-bit machine")
}

pub(super) fn damaged(path: &Arc<str>, offset: u64, what: impl Into<Arc<str>>) -> LogFault {
    LogFault::Damaged { path: Arc::clone(path), offset, what: what.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decoders_take_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _found = BlockHeader::decode(7, &bytes);
            let bytes = Bytes::from(bytes);
            let _state = SessionState::decode(&bytes);
            let mut at = 0;
            while let Some(record) = record_at(&bytes, &mut at) {
                prop_assert!(record.payload.len() <= bytes.len());
            }
        }

        #[test]
        fn a_state_decodes_to_what_was_encoded(
            numbers in any::<(u8, u64, u64, u64, u32, u64)>(),
            parent in any::<Option<(u128, u64)>>(),
            due_millis in any::<Option<u64>>(),
            deleted in any::<bool>(),
            data in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let (state, updated_millis, last, first, pin_count, pin_last) = numbers;
            let row = Row { state, due_millis, updated_millis, data: data.into() };
            let state = SessionState { row, last, first, parent, deleted, pin_count, pin_last };
            prop_assert_eq!(SessionState::decode(&state.encode().into()), Some(state));
        }
    }

    #[test]
    fn a_block_header_is_of_its_store_only() {
        let header = BlockHeader {
            segment: 3,
            block: 9,
            generation: 2,
            body_bytes: 100,
            records: 4,
            body_crc: 5,
            settled: 7,
        };
        let bytes = header.encode(7);
        assert_eq!(BlockHeader::decode(7, &bytes), Found::Block(header));
        assert_eq!(BlockHeader::decode(8, &bytes), Found::Nothing);
        assert_eq!(BlockHeader::store_of(&bytes), Some(7));
        for at in 0..bytes.len() {
            let mut bytes = bytes;
            bytes[at] ^= 1;
            assert_eq!(BlockHeader::decode(7, &bytes), Found::Nothing, "byte {at}");
        }
    }
}
