//! Writes a run from front to back, in constant memory.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::super::disk::{Disk, DiskFile, PAGE_BYTES, PageBuffer};
use super::super::format::{
    Key, Kind, RECORD_HEADER_BYTES, SessionRef, SessionState, VERSION, record_header, seeded_crc,
    u32_of, u64_of,
};
use super::{
    BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, BLOCK_MAGIC, FILE_MAGIC, FOOTER_BYTES, FOOTER_MAGIC,
    INDEX_ENTRY_BYTES, INDEX_PAGE_ENTRIES, Root, SECTION_COUNT, STORE_OFFSET, Section, block_crc,
};

/// How much of a run is handed to the disk at once, in bytes.
pub(in crate::embedded) const PIECE_BYTES: usize = 512 * 1024;
/// The room for a piece, the blocks that one record can finish, and the pages above them.
const BUFFER_BYTES: usize = PIECE_BYTES + 3 * BLOCK_BYTES_MAX;

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub(in crate::embedded) struct Covers {
    pub(in crate::embedded) segment_first: u64,
    pub(in crate::embedded) segment_last: u64,
    /// The number of the first block after those segments.
    pub(in crate::embedded) block_next: u64,
    /// The opening of the store that writes the run.
    pub(in crate::embedded) generation: u64,
}

/// A run that is being written. Records of a section come in the order of their keys.
#[derive(Debug)]
pub(in crate::embedded) struct RunWriter {
    file: Arc<dyn DiskFile>,
    store: u64,
    id: u64,
    block_bytes: usize,
    /// What is not handed to the disk yet, and where it belongs.
    buffer: PageBuffer,
    written: u64,
    sections: [SectionWriter; SECTION_COUNT],
    namespace_last: Option<u32>,
}

#[derive(Debug, Default)]
struct SectionWriter {
    block: Page,
    /// The unfinished index page of each level.
    levels: Vec<Page>,
    records: u64,
}

#[derive(Debug, Default)]
struct Page {
    first: Option<Key>,
    body: Vec<u8>,
    count: u32,
}

impl RunWriter {
    pub(in crate::embedded) fn create(
        disk: &dyn Disk,
        path: &Path,
        (store, id): (u64, u64),
        block_bytes: usize,
    ) -> io::Result<Self> {
        let mut buffer = PageBuffer::new(BUFFER_BYTES);
        buffer.reset(0);
        buffer.put(&FILE_MAGIC);
        Ok(Self {
            file: disk.create_large(path)?,
            store,
            id,
            block_bytes,
            buffer,
            written: 0,
            sections: Default::default(),
            namespace_last: None,
        })
    }

    /// Adds a session: its state; its snapshots and entries follow, and only then the next session.
    pub(in crate::embedded) fn state(&mut self, of: SessionRef, name: &str, state: &SessionState) {
        if self.namespace_last != Some(of.namespace) {
            self.namespace_last = Some(of.namespace);
            let of = SessionRef { namespace: of.namespace, session: 0 };
            self.put(Section::Namespaces, Kind::Namespace, Key { of, seq: 0 }, name.as_bytes());
        }
        // The position is left out of the key, so that a state is found without knowing it.
        self.put(Section::States, Kind::State, Key { of, seq: 0 }, &state.encode());
    }

    pub(in crate::embedded) fn snapshot(&mut self, key: Key, data: &[u8]) {
        self.put(Section::Snapshots, Kind::Snapshot, key, data);
    }

    pub(in crate::embedded) fn entry(&mut self, key: Key, payload: &[u8]) {
        self.put(Section::Entries, Kind::Entry, key, payload);
    }

    fn put(&mut self, section: Section, kind: Kind, key: Key, payload: &[u8]) {
        let bytes = RECORD_HEADER_BYTES + payload.len();
        let block = &self.sections[section as usize].block;
        if block.count > 0 && block.body.len() + bytes > self.block_bytes {
            self.finish_block(section);
        }
        let writer = &mut self.sections[section as usize];
        writer.records += 1;
        writer.block.first.get_or_insert(key);
        writer.block.count += 1;
        writer.block.body.extend(record_header(kind, key, payload.len()));
        writer.block.body.extend(payload);
    }

    /// Returns how much is waiting to be handed to the disk, in bytes.
    pub(in crate::embedded) const fn pending_bytes(&self) -> usize {
        self.buffer.used()
    }

    /// Hands what is waiting to the disk, as far as it fills pages. To be called before more than
    /// [`PIECE_BYTES`] are waiting.
    pub(in crate::embedded) fn write_out(&mut self) -> io::Result<()> {
        let pages = self.buffer.whole_pages();
        let bytes = pages.len();
        self.file.write_at(pages, self.written)?;
        self.written += u64_of(bytes);
        self.buffer.drop_whole_pages();
        Ok(())
    }

    /// Writes the rest; the content is durable then, the name not yet.
    ///
    /// The footer is written when everything else is durable: a repair that has lost the manifest
    /// takes a run that has one to be whole.
    pub(in crate::embedded) fn finish(mut self, covers: Covers) -> io::Result<()> {
        self.write_out()?;
        let mut roots = [Root::default(); SECTION_COUNT];
        for section in Section::ALL {
            roots[section as usize] = self.finish_section(section);
        }
        let footer = self.footer(covers, &roots);
        // The footer is at the very end, and the file is of whole pages.
        let end = (self.buffer.used() + FOOTER_BYTES).next_multiple_of(PAGE_BYTES);
        let gap = end - self.buffer.used();
        self.buffer.put(&[0; 2 * PAGE_BYTES][..gap]);
        let mut page = PageBuffer::new(PAGE_BYTES);
        page.reset(0);
        page.put(&self.buffer.whole_pages()[end - PAGE_BYTES..end - FOOTER_BYTES]);
        page.put(&footer);
        self.write_out()?;
        self.file.sync()?;
        self.file.write_at(page.whole_pages(), self.written - u64_of(PAGE_BYTES))?;
        self.file.sync()
    }

    fn footer(&self, covers: Covers, roots: &[Root]) -> Vec<u8> {
        let mut footer = Vec::with_capacity(FOOTER_BYTES);
        footer.extend(FOOTER_MAGIC);
        footer.extend(VERSION.to_le_bytes());
        footer.extend([0, 0]);
        let Covers { segment_first, segment_last, block_next, generation } = covers;
        for field in [self.id, segment_first, segment_last, generation, block_next] {
            footer.extend(field.to_le_bytes());
        }
        for root in roots {
            footer.extend(root.offset.to_le_bytes());
            footer.extend(root.bytes.to_le_bytes());
            footer.extend(root.height.to_le_bytes());
            footer.extend(root.records.to_le_bytes());
        }
        footer.resize(STORE_OFFSET, 0);
        footer.extend(self.store.to_le_bytes());
        footer.resize(FOOTER_BYTES - 4, 0);
        footer.extend(seeded_crc(self.store, &footer).to_le_bytes());
        footer
    }

    fn finish_block(&mut self, section: Section) {
        let mut block = std::mem::take(&mut self.sections[section as usize].block);
        if let Some(first) = block.first.take() {
            let (offset, bytes) = self.emit(section, 0, &block);
            self.index(section, 0, first, offset, bytes);
            block.body.clear();
            block.count = 0;
        }
        self.sections[section as usize].block = block;
    }

    /// Adds a child to the unfinished index page of a level, counted from 0 above the blocks.
    fn index(&mut self, section: Section, level: usize, first: Key, offset: u64, bytes: u32) {
        let levels = &mut self.sections[section as usize].levels;
        if levels.len() == level {
            levels.push(Page::default());
        }
        if levels[level].count == INDEX_PAGE_ENTRIES {
            let page = std::mem::take(&mut levels[level]);
            self.finish_page(section, level, &page);
        }
        let page = &mut self.sections[section as usize].levels[level];
        page.first.get_or_insert(first);
        page.count += 1;
        page.body.reserve(INDEX_ENTRY_BYTES);
        page.body.extend(first.of.namespace.to_le_bytes());
        page.body.extend(first.of.session.to_le_bytes());
        page.body.extend(first.seq.to_le_bytes());
        page.body.extend(offset.to_le_bytes());
        page.body.extend(bytes.to_le_bytes());
    }

    fn finish_page(&mut self, section: Section, level: usize, page: &Page) {
        let first = page.first.expect("a page is finished when it is full or the last");
        let (offset, bytes) = self.emit(section, level + 1, page);
        self.index(section, level + 1, first, offset, bytes);
    }

    fn finish_section(&mut self, section: Section) -> Root {
        self.finish_block(section);
        let records = self.sections[section as usize].records;
        let mut level = 0;
        loop {
            let levels = &mut self.sections[section as usize].levels;
            if levels.is_empty() {
                return Root::default();
            }
            let top = level + 1 == levels.len();
            let page = std::mem::take(&mut levels[level]);
            if top {
                let (offset, bytes) = self.emit(section, level + 1, &page);
                return Root { offset, bytes, height: u32_of(level + 1), records };
            }
            self.finish_page(section, level, &page);
            level += 1;
        }
    }

    fn emit(&mut self, section: Section, level: usize, page: &Page) -> (u64, u32) {
        let offset = self.written + u64_of(self.buffer.used());
        let mut header = [0; BLOCK_HEADER_BYTES];
        header[0..4].copy_from_slice(&BLOCK_MAGIC);
        header[8] = section as u8;
        header[9] = u8::try_from(level).expect("an index has a few levels");
        header[12..16].copy_from_slice(&page.count.to_le_bytes());
        header[16..20].copy_from_slice(&u32_of(page.body.len()).to_le_bytes());
        let at = self.buffer.used();
        self.buffer.put(&header);
        self.buffer.put(&page.body);
        let block = &mut self.buffer.content_mut()[at..];
        let crc = block_crc(self.store, self.id, offset, &block[8..]);
        block[4..8].copy_from_slice(&crc.to_le_bytes());
        (offset, u32_of(BLOCK_HEADER_BYTES + page.body.len()))
    }
}
