//! Reads the segments that no run covers, past what is damaged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::Harm;
use super::gather::{Contents, learn_name};
use crate::embedded::disk::PAGE_BYTES;
use crate::embedded::format::{BlockHeader, Found, Kind, SessionState, VERSION, record_at};
use crate::embedded::manifest::Manifest;
use crate::embedded::replay::shows_damage;
use crate::embedded::segment::{self, BlockAt, SegmentReader};
use crate::embedded::{OpenError, Options, io_error};

/// A file with blocks of a segment, and where the first of them stands.
struct Candidate {
    path: PathBuf,
    reader: SegmentReader,
    offset: u64,
    header: BlockHeader,
}

/// Reads the segments that no run covers, in their order.
pub(super) fn gather(
    options: &Options,
    contents: &mut Contents,
    manifest: &Manifest,
) -> Result<(), OpenError> {
    let candidates = candidates(options, contents, manifest)?;
    // A segment is complete if there is a later one, which has its first block.
    let whole = candidates.iter().filter(|(_, files)| files.iter().any(|file| file.offset == 0));
    let last = whole.map(|(segment, _)| *segment).max().unwrap_or(0);
    let mut expected = manifest.replay_segment;
    // The newest segment of which a block can be read, or a run has them.
    let mut begun = expected - 1;
    for (segment, mut files) in candidates {
        // The file that has the first block, or else what shows that there was one.
        files.sort_by_key(|file| file.offset);
        for mut file in files {
            let whole = file.offset == 0;
            let first = contents.block_next;
            if !whole && shows_damage(&mut file.reader, 0, segment, first)?.is_none() {
                continue;
            }
            let first = file.header.block;
            take_segment(contents, file, expected, segment >= last)?;
            if contents.block_next > first {
                begun = segment;
            }
            expected = segment + 1;
            break;
        }
    }
    if manifest.segment_begun > begun {
        let known = manifest.segment_begun;
        let what = format!("segment {known} has no block, though the manifest knows of one");
        contents.damage(&options.dir, 0, &what, "what was appended to it is lost");
    }
    contents.segment_next = expected;
    Ok(())
}

/// Returns the files that have blocks of a segment which no run covers.
fn candidates(
    options: &Options,
    contents: &Contents,
    manifest: &Manifest,
) -> Result<BTreeMap<u64, Vec<Candidate>>, OpenError> {
    let mut candidates = BTreeMap::<_, Vec<_>>::new();
    for name in &contents.files {
        let Some(number) = segment::number_of(name) else { continue };
        let path = segment::path(&options.dir, number);
        let file = options.disk.open(&path).map_err(|error| io_error("opening", &path, error))?;
        let mut reader = SegmentReader::new(manifest.store, &path, file)?;
        if let Found::Version(found) = reader.first_header()? {
            return Err(OpenError::Version { path, found, known: VERSION });
        }
        let wanted = |header: &BlockHeader| header.segment >= manifest.replay_segment;
        if let Some((offset, header)) = reader.find_block(0, u64::MAX, wanted)? {
            let candidate = Candidate { path, reader, offset, header };
            candidates.entry(header.segment).or_default().push(candidate);
        }
    }
    Ok(candidates)
}

fn take_segment(
    contents: &mut Contents,
    file: Candidate,
    expected: u64,
    is_last: bool,
) -> Result<(), OpenError> {
    let Candidate { path, mut reader, offset, header } = file;
    if header.segment != expected {
        let what = format!("segment {expected} before it is missing");
        contents.damage(&path, 0, &what, "what was appended to it is lost");
    }
    if offset > 0 || (header.block != contents.block_next && header.segment == expected) {
        let (from, to) = (contents.block_next, header.block.saturating_sub(1));
        let what = format!("blocks {from} to {to} are damaged");
        contents.damage(&path, 0, &what, "what was appended with them is lost");
    }
    contents.block_next = header.block;
    read_segment(contents, &path, &mut reader, (header.segment, offset), is_last)
}

/// Reads a segment from its first block on, past what is damaged.
fn read_segment(
    contents: &mut Contents,
    path: &Path,
    reader: &mut SegmentReader,
    (segment, mut offset): (u64, u64),
    is_last: bool,
) -> Result<(), OpenError> {
    loop {
        let expected = contents.block_next;
        let (mut torn, mut stale) = (false, false);
        match reader.block_at(offset)? {
            BlockAt::Block(header, body)
                if header.segment == segment
                    && header.block == expected
                    && header.generation >= contents.block_generation =>
            {
                contents.block_generation = header.generation;
                contents.generation = contents.generation.max(header.generation);
                if !take_block(contents, &header, &body) {
                    let consequence = "the store does not open";
                    contents.damage(path, offset, "a record is malformed", consequence);
                }
                offset = SegmentReader::after(offset, &header);
                contents.block_next += 1;
                continue;
            }
            BlockAt::Version(found) => {
                return Err(OpenError::Version { path: path.to_owned(), found, known: VERSION });
            }
            BlockAt::Torn(header) => torn = header.segment == segment,
            BlockAt::Block(header, _) => {
                stale = header.segment == segment && header.block == expected;
            }
            BlockAt::Nothing => {}
        }
        let newest = contents.block_generation;
        let later = |header: &BlockHeader| {
            let newer = header.block > expected && header.generation >= newest;
            header.segment == segment && newer
        };
        let was_durable = !is_last || shows_damage(reader, offset, segment, expected)?.is_some();
        let next = reader.find_block(offset + PAGE_BYTES as u64, u64::MAX, later)?;
        if was_durable && let Some((at, header)) = next {
            let what = format!("blocks {expected} to {} are damaged", header.block - 1);
            contents.damage(path, offset, &what, "what was appended with them is lost");
            (offset, contents.block_next) = (at, header.block);
            continue;
        }
        if was_durable && (stale || is_last) {
            let why = if stale { "older than the one before it" } else { "damaged" };
            let what = format!("block {expected} is {why}");
            contents.damage(path, offset, &what, "the store does not open");
        } else if is_last {
            cut_short(contents, path, reader, offset, next, torn)?;
        }
        return Ok(());
    }
}

/// Notes what was under way when the process ended.
fn cut_short(
    contents: &mut Contents,
    path: &Path,
    reader: &mut SegmentReader,
    offset: u64,
    next: Option<(u64, BlockHeader)>,
    torn: bool,
) -> Result<(), OpenError> {
    let expected = contents.block_next;
    if torn {
        let what = format!("block {expected} was cut short");
        let consequence = "nothing: it was never acknowledged, and the next block replaces it";
        contents.find(path, offset, &what, consequence, Harm::None);
    }
    if let Some((at, header)) = next
        && let BlockAt::Block(..) = reader.block_at(at)?
    {
        let what =
            format!("block {} is whole, but block {expected} before it is not", header.block);
        let consequence = "nothing: both were under way together, and neither was acknowledged";
        contents.find(path, at, &what, consequence, Harm::None);
    }
    Ok(())
}

/// Takes up the records of a block. Returns whether they are well-formed.
fn take_block(contents: &mut Contents, header: &BlockHeader, body: &Bytes) -> bool {
    let mut at = 0;
    for _ in 0..header.records {
        let Some(record) = record_at(body, &mut at) else { return false };
        let seq = record.key.seq;
        if record.kind == Kind::Namespace {
            learn_name(contents, &record);
            continue;
        }
        let tail = contents.tails.entry(record.key.of).or_default();
        match record.kind {
            Kind::Entry => drop(tail.entries.insert(seq, record.payload)),
            Kind::Snapshot => drop(tail.snapshots.insert(seq, record.payload)),
            Kind::State => match SessionState::decode(&record.payload) {
                Some(state) => tail.state = Some(state),
                None => return false,
            },
            Kind::Namespace => {}
        }
    }
    true
}
