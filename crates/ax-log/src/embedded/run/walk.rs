//! Walks through all of a section in the order of the file, past what is damaged, without its
//! index.

use std::iter::Peekable;
use std::sync::Arc;

use bytes::Bytes;

use super::super::disk::PAGE_BYTES;
use super::super::format::{Key, Reader, Record, damaged, record_at, u64_of};
use super::{BLOCK_HEADER_BYTES, BLOCK_MAGIC, Child, FILE_MAGIC, FOOTER_BYTES, Run, Section};
use crate::types::LogFault;

/// How much is looked through at once for the next block, in bytes.
const SEARCH_BYTES: usize = 64 * 1024;

/// The records of a section in their order, and what could not be read of it.
#[derive(Debug)]
pub(in crate::embedded) struct Walk {
    run: Arc<Run>,
    section: Section,
    offset: u64,
    end: u64,
    block: Bytes,
    block_at: u64,
    at: usize,
}

impl Walk {
    pub(in crate::embedded) fn new(run: &Arc<Run>, section: Section) -> Self {
        Self {
            run: Arc::clone(run),
            section,
            offset: u64_of(FILE_MAGIC.len()),
            end: run.entry.bytes.saturating_sub(u64_of(FOOTER_BYTES)),
            block: Bytes::new(),
            block_at: 0,
            at: 0,
        }
    }

    /// Returns the section, level and place of the block whose header is at an offset.
    fn header(&self, offset: u64) -> Option<(u8, u8, Child)> {
        let mut header = [0; BLOCK_HEADER_BYTES];
        self.run.file.read_at(&mut header, offset).ok()?;
        let mut reader = Reader::new(&header);
        if reader.array() != Some(BLOCK_MAGIC) {
            return None;
        }
        let _crc = reader.u32()?;
        let [section, level] = reader.array()?;
        let _reserved = reader.u16()?;
        let _count = reader.u32()?;
        let bytes = reader.u32()?.checked_add(24)?;
        let fits = offset + u64::from(bytes) <= self.end;
        fits.then_some((section, level, Child { offset, bytes }))
    }

    /// Moves to the next block of the section. Returns whether there is one.
    fn advance(&mut self) -> Result<bool, LogFault> {
        while self.offset < self.end {
            let offset = self.offset;
            let Some((section, level, child)) = self.header(offset) else {
                if self.is_padding(offset) {
                    self.offset = self.end;
                    return Ok(false);
                }
                self.offset = self.search(offset + 1);
                return Err(damaged(&self.run.name, offset, "there is no block where one begins"));
            };
            self.offset = offset + u64::from(child.bytes);
            if section == self.section as u8 && level == 0 {
                let block = self.run.read_block(child, self.section, 0);
                if block.is_err() {
                    // Its length may be what is wrong.
                    self.offset = self.search(offset + 1);
                }
                (self.block, self.block_at, self.at) = (block?, offset, 0);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether only the zeros before the footer follow.
    fn is_padding(&self, offset: u64) -> bool {
        let mut rest =
            vec![0; usize::try_from(self.end - offset).unwrap_or(usize::MAX).min(PAGE_BYTES)];
        let short = u64_of(rest.len()) == self.end - offset;
        short && self.run.file.read_at(&mut rest, offset).is_ok() && rest.iter().all(|b| *b == 0)
    }

    /// Returns the offset of the first whole block at or after an offset, or the end.
    fn search(&self, mut offset: u64) -> u64 {
        while offset < self.end {
            let take = usize::try_from(self.end - offset).unwrap_or(usize::MAX).min(SEARCH_BYTES);
            let mut window = vec![0; take];
            if self.run.file.read_at(&mut window, offset).is_err() {
                return self.end;
            }
            for (at, four) in window.windows(4).enumerate() {
                let here = offset + u64_of(at);
                if *four == BLOCK_MAGIC && self.is_whole(here) {
                    return here;
                }
            }
            // The last three bytes may begin the next one.
            offset += u64_of(take.saturating_sub(3).max(1));
        }
        self.end
    }

    fn is_whole(&self, offset: u64) -> bool {
        let Some((section, level, child)) = self.header(offset) else { return false };
        let section = Section::ALL.into_iter().find(|known| *known as u8 == section);
        section.is_some_and(|section| self.run.read_block(child, section, level).is_ok())
    }
}

impl Iterator for Walk {
    type Item = Result<Record, LogFault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.at < self.block.len() {
                let record = record_at(&self.block, &mut self.at);
                return Some(record.ok_or_else(|| {
                    self.at = self.block.len();
                    damaged(&self.run.name, self.block_at, "a record in a block is malformed")
                }));
            }
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(fault) => return Some(Err(fault)),
            }
        }
    }
}

/// A section of many runs as if they were one, past what is damaged.
#[derive(Debug)]
pub(in crate::embedded) struct WalkMerged {
    /// The runs, oldest first.
    sources: Vec<Peekable<Walk>>,
    /// What could not be read so far.
    pub(in crate::embedded) faults: Vec<LogFault>,
}

impl WalkMerged {
    pub(in crate::embedded) fn new(runs: &[Arc<Run>], section: Section) -> Self {
        let sources = runs.iter().map(|run| Walk::new(run, section).peekable()).collect();
        Self { sources, faults: Vec::new() }
    }

    /// Returns the key of the next record.
    pub(in crate::embedded) fn key(&mut self) -> Option<Key> {
        let mut least = None;
        for source in &mut self.sources {
            while let Some(Err(fault)) = source.next_if(Result::is_err) {
                self.faults.push(fault);
            }
            if let Some(Ok(record)) = source.peek() {
                least = Some(least.map_or(record.key, |least: Key| least.min(record.key)));
            }
        }
        least
    }

    /// Returns the next record, of several with the same key the newest run's.
    pub(in crate::embedded) fn next(&mut self) -> Option<Record> {
        let key = self.key()?;
        let mut found = None;
        for source in &mut self.sources {
            let here = |record: &Result<Record, LogFault>| {
                record.as_ref().is_ok_and(|record| record.key == key)
            };
            if let Some(Ok(record)) = source.next_if(here) {
                found = Some(record);
            }
        }
        found
    }
}
