//! The one cache of what is known about runs: pages of their indexes and blocks of rows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use bytes::Bytes;

/// What a cached block costs beside its content, in bytes: the two maps and the allocation.
const BLOCK_COST_BYTES: usize = 160;

/// A place in a run: its id and an offset.
type Place = (u64, u64);

/// Blocks of runs, the least recently used forgotten first.
#[derive(Debug)]
pub(super) struct BlockCache {
    bytes_max: usize,
    blocks: Mutex<Blocks>,
}

#[derive(Debug, Default)]
struct Blocks {
    bytes: usize,
    tick: u64,
    found: HashMap<Place, (u64, Bytes)>,
    used: BTreeMap<u64, Place>,
}

impl BlockCache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, blocks: Mutex::default() }
    }

    pub(super) fn get(&self, place: Place) -> Option<Bytes> {
        let mut blocks = self.blocks.lock().expect("no holder of the lock panics");
        let blocks = &mut *blocks;
        let (tick, block) = blocks.found.get_mut(&place)?;
        blocks.tick += 1;
        blocks.used.remove(tick);
        blocks.used.insert(blocks.tick, place);
        *tick = blocks.tick;
        Some(block.clone())
    }

    pub(super) fn put(&self, place: Place, block: Bytes) {
        let mut blocks = self.blocks.lock().expect("no holder of the lock panics");
        blocks.tick += 1;
        let tick = blocks.tick;
        blocks.bytes += block.len() + BLOCK_COST_BYTES;
        if let Some((before, old)) = blocks.found.insert(place, (tick, block)) {
            blocks.bytes -= old.len() + BLOCK_COST_BYTES;
            blocks.used.remove(&before);
        }
        blocks.used.insert(tick, place);
        while blocks.bytes > self.bytes_max {
            let Some((_, place)) = blocks.used.pop_first() else { break };
            if let Some((_, old)) = blocks.found.remove(&place) {
                blocks.bytes -= old.len() + BLOCK_COST_BYTES;
            }
        }
    }

    /// Forgets what is cached of a run that no longer belongs to the store.
    pub(super) fn forget(&self, run: u64) {
        let mut blocks = self.blocks.lock().expect("no holder of the lock panics");
        let places: Vec<_> = blocks.used.iter().filter(|(_, place)| place.0 == run).collect();
        let places: Vec<_> = places.into_iter().map(|(tick, place)| (*tick, *place)).collect();
        for (tick, place) in places {
            blocks.used.remove(&tick);
            if let Some((_, old)) = blocks.found.remove(&place) {
                blocks.bytes -= old.len() + BLOCK_COST_BYTES;
            }
        }
    }

    /// Returns how much is cached, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.lock().expect("no holder of the lock panics").bytes
    }
}
