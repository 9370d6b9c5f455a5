//! Walks through a section of a run, or of many runs as if they were one.

use std::sync::Arc;

use bytes::Bytes;

use super::super::format::{Key, Record, damaged, record_at};
use super::{Child, INDEX_ENTRY_BYTES, Run, Section, index_entry, index_find};
use crate::types::LogFault;

/// A place in a section, between two records.
#[derive(Debug)]
pub(in crate::embedded) struct Cursor {
    run: Arc<Run>,
    section: Section,
    /// The index pages above the block, and which of their entries leads to it. The root is first.
    pages: Vec<(Bytes, usize)>,
    block: Bytes,
    block_at: u64,
    at: usize,
}

impl Cursor {
    /// Stands before the first record whose key is `key` or greater.
    pub(in crate::embedded) fn seek(
        run: &Arc<Run>,
        section: Section,
        key: Key,
    ) -> Result<Self, LogFault> {
        let mut cursor = Self::descend(run, section, key)?;
        while let Some((record, at)) = cursor.peek()? {
            if record.key >= key {
                break;
            }
            cursor.at = at;
        }
        Ok(cursor)
    }

    /// Returns the last record whose key is `key` or less.
    pub(in crate::embedded) fn floor(
        run: &Arc<Run>,
        section: Section,
        key: Key,
    ) -> Result<Option<Record>, LogFault> {
        let mut cursor = Self::descend(run, section, key)?;
        let mut found = None;
        while let Some((record, at)) = cursor.peek()? {
            if record.key > key {
                break;
            }
            found = Some(record);
            cursor.at = at;
        }
        Ok(found)
    }

    /// Returns the next record and moves behind it.
    pub(in crate::embedded) fn next(&mut self) -> Result<Option<Record>, LogFault> {
        loop {
            if let Some((record, at)) = self.peek()? {
                self.at = at;
                return Ok(Some(record));
            }
            if !self.advance()? {
                return Ok(None);
            }
        }
    }

    /// Stands at the start of the block that has `key`, if any has.
    fn descend(run: &Arc<Run>, section: Section, key: Key) -> Result<Self, LogFault> {
        let root = run.roots[section as usize];
        let mut cursor = Self {
            run: Arc::clone(run),
            section,
            pages: Vec::new(),
            block: Bytes::new(),
            block_at: 0,
            at: 0,
        };
        let mut child = Child { offset: root.offset, bytes: root.bytes };
        for level in (1..=root.height).rev() {
            let page = run.block(child, section, level_of(level))?;
            let index = index_find(&page, key);
            child = cursor.child(&page, index, child)?;
            cursor.pages.push((page, index));
        }
        if root.height > 0 {
            cursor.block_at = child.offset;
            cursor.block = run.block(child, section, 0)?;
        }
        Ok(cursor)
    }

    fn child(&self, page: &Bytes, index: usize, at: Child) -> Result<Child, LogFault> {
        let entry = index_entry(page, index).map(|(_, child)| child);
        entry.ok_or_else(|| damaged(&self.run.name, at.offset, "an index page is malformed"))
    }

    fn peek(&self) -> Result<Option<(Record, usize)>, LogFault> {
        if self.at == self.block.len() {
            return Ok(None);
        }
        let mut at = self.at;
        let record = record_at(&self.block, &mut at);
        let record = record.ok_or_else(|| {
            damaged(&self.run.name, self.block_at, "a record in a block is malformed")
        })?;
        Ok(Some((record, at)))
    }

    /// Moves to the start of the next block. Returns whether there is one.
    fn advance(&mut self) -> Result<bool, LogFault> {
        let height = self.pages.len();
        let more = |(page, index): &(Bytes, usize)| (index + 1) * INDEX_ENTRY_BYTES < page.len();
        let Some(depth) = self.pages.iter().rposition(more) else { return Ok(false) };
        self.pages.truncate(depth + 1);
        self.pages[depth].1 += 1;
        while self.pages.len() < height {
            let (page, index) = &self.pages[self.pages.len() - 1];
            let child = self.child(page, *index, Child { offset: self.block_at, bytes: 0 })?;
            let level = level_of(u32::try_from(height - self.pages.len()).unwrap_or(0));
            let page = self.run.block(child, self.section, level)?;
            self.pages.push((page, 0));
        }
        let (page, index) = &self.pages[height - 1];
        let child = self.child(page, *index, Child { offset: self.block_at, bytes: 0 })?;
        self.block_at = child.offset;
        self.at = 0;
        self.block = self.run.block(child, self.section, 0)?;
        Ok(true)
    }
}

fn level_of(level: u32) -> u8 {
    u8::try_from(level).unwrap_or(u8::MAX)
}

/// A section of many runs as if they were one: of records with the same key the newest run's.
#[derive(Debug)]
pub(in crate::embedded) struct Merged {
    /// The runs, oldest first, each with its next record.
    sources: Vec<(Cursor, Option<Record>)>,
}

impl Merged {
    /// Stands before the first record of the runs, given oldest first, at or after `key`.
    pub(in crate::embedded) fn seek(
        runs: &[Arc<Run>],
        section: Section,
        key: Key,
    ) -> Result<Self, LogFault> {
        let mut sources = Vec::new();
        for run in runs {
            let mut cursor = Cursor::seek(run, section, key)?;
            let next = cursor.next()?;
            sources.push((cursor, next));
        }
        Ok(Self { sources })
    }

    /// Returns the key of the next record.
    pub(in crate::embedded) fn key(&self) -> Option<Key> {
        self.sources.iter().filter_map(|(_, next)| next.as_ref()).map(|record| record.key).min()
    }

    /// Returns the next record and moves behind it.
    pub(in crate::embedded) fn next(&mut self) -> Result<Option<Record>, LogFault> {
        let Some(key) = self.key() else { return Ok(None) };
        let mut found = None;
        for (cursor, next) in &mut self.sources {
            if next.as_ref().is_some_and(|record| record.key == key) {
                found = next.take();
                *next = cursor.next()?;
            }
        }
        Ok(found)
    }
}
