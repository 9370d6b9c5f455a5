//! Damage to the files of a store, wherever it is: never read as an entry, found, and repaired.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use ax_core::id::Seq;
use ax_log::embedded::Limits;
use ax_log::embedded::fake::FakeDisk;
use ax_log::fsck::{self, Harm};
use ax_log::{EventLog, MemoryLog, ReadError};
use support::{Dice, copy, files, key, open, options, path, payload, read, store};

/// What a store in which something is wrong gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// All that the model has.
    Whole,
    /// Not all, and the opening or the call that missed it said so.
    Refused,
    /// Not all, and nothing said so.
    Silent,
}

/// Opens a store in which something is wrong, and asserts that nothing wrong is ever read from it:
/// each session reads as in the model, or up to a gap, or says that it is damaged.
async fn look(disk: &FakeDisk, model: &MemoryLog) -> Seen {
    let Ok(log) = open(disk) else { return Seen::Refused };
    let (mut refused, mut silent) = (false, false);
    for session in 1..=1200 {
        let key = key(session);
        let expect = model.head(&key).await.unwrap();
        match log.head(&key).await {
            Ok(head) => silent |= head != expect,
            Err(_) => refused = true,
        }
        let Some(expect) = expect else { continue };
        let entries = read(model, &key, expect.first.0 - 1, 1000).await;
        let mut after = expect.first.prev();
        loop {
            match log.read(&key, after, ax_log::ReadLimit::default()).await {
                Ok(more) if more.is_empty() => {
                    silent |= after != expect.last;
                    break;
                }
                Ok(more) => {
                    for entry in more {
                        let at = usize::try_from(entry.seq.0 - expect.first.0).unwrap();
                        assert_eq!(entry, entries[at], "{key}");
                        after = entry.seq;
                    }
                }
                Err(ReadError::Fault(_)) => {
                    refused = true;
                    break;
                }
                Err(ReadError::NotFound | ReadError::Cut { .. }) => {
                    silent = true;
                    break;
                }
            }
        }
    }
    log.close().await.unwrap();
    match (refused, silent) {
        (_, true) => Seen::Silent,
        (true, false) => Seen::Refused,
        (false, false) => Seen::Whole,
    }
}

/// Repairs a store and asserts that it opens, that the report names all that is not there any more,
/// and that everything else is.
async fn assert_repairs(disk: &FakeDisk, model: &MemoryLog, what: &str) {
    let report = fsck::check(&options(disk, Limits::tiny())).unwrap();
    assert!(!report.is_sound(), "{what} is found");
    let repaired = fsck::repair(&options(disk, Limits::tiny())).unwrap();
    assert_eq!(repaired.report, report, "{what}");
    assert!(repaired.quarantine.is_some(), "{what}");
    let log = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    let names_lost = report.findings.iter().any(|finding| finding.harm == Harm::Damage);
    for session in 1..=1200 {
        let key = key(session);
        let Some(expect) = model.head(&key).await.unwrap() else { continue };
        let lost = report.lost.iter().find(|lost| lost.session == key);
        let Some(head) = log.head(&key).await.unwrap() else {
            assert!(names_lost, "{what}: {key} is gone");
            continue;
        };
        if let Some(lost) = lost {
            let none = head.last < head.first;
            assert!(head.last < lost.first || none, "{what}: {key} {head:?} {lost:?}");
        }
        let expected = read(model, &key, expect.first.0 - 1, 1000).await;
        for entry in read(&log, &key, head.first.0 - 1, 1000).await {
            assert_eq!(entry.payload, payload_of(&expected, entry.seq, &key), "{what}: {key}");
        }
    }
    log.close().await.unwrap();
    let after = fsck::check(&options(disk, Limits::tiny())).unwrap();
    assert!(after.is_sound(), "{what}: {after:?}");
}

fn payload_of(entries: &[ax_log::Entry], seq: Seq, key: &ax_core::id::SessionKey) -> bytes::Bytes {
    let found = entries.iter().find(|entry| entry.seq == seq);
    found.map_or_else(|| payload(key.session.0, seq.0), |entry| entry.payload.clone())
}

/// The newest segment, whose last blocks look the same as writes that were cut short when they are
/// damaged.
struct Newest {
    /// The name of its file.
    name: String,
    number: u64,
    /// Where its blocks begin.
    starts: Vec<u64>,
}

fn field(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl Newest {
    fn of(disk: &FakeDisk) -> Self {
        let mut newest = Self { name: String::new(), number: 0, starts: Vec::new() };
        for name in files(disk).into_iter().filter(|name| name.starts_with("wal-")) {
            let bytes = disk.content(&path(&name)).unwrap();
            if bytes[..4] == *b"AXBK" && field(&bytes, 8) > newest.number {
                let (number, block) = (field(&bytes, 8), field(&bytes, 16));
                let (mut starts, mut at) = (Vec::new(), 0);
                while let Some(header) = bytes.get(at..at + 64)
                    && header[..4] == *b"AXBK"
                    && (field(header, 8), field(header, 16))
                        == (number, block + starts.len() as u64)
                {
                    starts.push(at as u64);
                    let body = u32::from_le_bytes(header[32..36].try_into().unwrap());
                    at = (at + 64 + usize::try_from(body).unwrap()).next_multiple_of(4096);
                }
                newest = Self { name, number, starts };
            }
        }
        assert!(!newest.starts.is_empty(), "there is a segment");
        newest
    }

    /// Returns where the last two blocks begin, which may have been under way.
    fn tail(&self) -> u64 {
        self.starts[self.starts.len().saturating_sub(2)]
    }
}

/// Opens a store that was damaged, checks it, and repairs it if something is missing. Returns
/// whether something was; only where that is `excused` it need not be found.
async fn try_out(damaged: &FakeDisk, model: &MemoryLog, what: &str, excused: bool) -> bool {
    let before = copy(damaged);
    let seen = look(damaged, model).await;
    if seen == Seen::Whole {
        return false;
    }
    let report = fsck::check(&options(&before, Limits::tiny())).unwrap();
    if excused && report.is_sound() {
        assert_eq!(seen, Seen::Silent, "{what}: {report:?}");
        return false;
    }
    assert_eq!(seen, Seen::Refused, "{what}: {report:?}");
    assert_repairs(&before, model, what).await;
    true
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_anywhere_is_never_read_and_can_be_repaired() {
    for seed in support::seeds(1) {
        let (disk, model) = store(seed).await;
        let mut dice = Dice(seed);
        let sound = fsck::check(&options(&disk, Limits::tiny())).unwrap();
        assert!(sound.is_sound() && sound.lost.is_empty(), "{sound:?}");
        assert!(files(&disk).iter().any(|name| name.starts_with("run-")));
        let newest = Newest::of(&disk);
        let mut harmful = 0;
        for name in files(&disk).into_iter().filter(|name| name != "LOCK") {
            let bytes = disk.content(&path(&name)).unwrap();
            let mut places: Vec<_> = (0..14).map(|_| dice.below(bytes.len() as u64)).collect();
            // The beginning and the end have the fields that everything else hangs on.
            places.extend([0, 5, 40, bytes.len() as u64 - 1, bytes.len() as u64 - 60]);
            if name == newest.name {
                places.extend(newest.starts.iter().map(|start| start + dice.below(104)));
            }
            for place in places {
                let damaged = copy(&disk);
                let mut bytes = bytes.clone();
                bytes[usize::try_from(place).unwrap()] ^= 1 << dice.below(8);
                damaged.set_content(&path(&name), &bytes);
                let excused = name == newest.name && place >= newest.tail();
                let what = format!("{name} at {place}");
                harmful += u64::from(try_out(&damaged, &model, &what, excused).await);
            }
        }
        assert!(harmful > 20, "most places matter: {harmful}");
    }
}

/// Tries out what is left of a store when a file of it is cut off or gone.
async fn cut_off(disk: &FakeDisk, model: &MemoryLog) {
    let newest = Newest::of(disk);
    let manifest = disk.content(&path("MANIFEST")).unwrap();
    // Where the manifest says which segment was begun last.
    let is_known = field(&manifest, 40) >= newest.number;
    for name in files(disk).into_iter().filter(|name| name != "LOCK") {
        let bytes = disk.content(&path(&name)).unwrap();
        let (is_newest, length) = (name == newest.name, bytes.len() as u64);
        let mut keeps = vec![0, length / 2, length - 1];
        if is_newest {
            // Between two blocks, and in the middle of one.
            keeps.extend(newest.starts.iter().flat_map(|start| [*start, start + 70]));
        }
        for keep in keeps {
            let damaged = copy(disk);
            damaged.set_content(&path(&name), &bytes[..usize::try_from(keep).unwrap()]);
            // Nothing says that there were blocks, once all of them are gone from one on.
            let clean = newest.starts.contains(&keep) && (keep > 0 || !is_known);
            let excused = is_newest && (clean || keep >= newest.tail());
            try_out(&damaged, model, &format!("{name} cut to {keep}"), excused).await;
        }
        let damaged = copy(disk);
        ax_log::embedded::Disk::remove(&damaged, &path(&name)).unwrap();
        let what = format!("{name} gone");
        let harmful = try_out(&damaged, model, &what, is_newest && !is_known).await;
        let needed = name == "MANIFEST" || name.starts_with("run-") || is_newest && is_known;
        assert!(harmful || !needed, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_cut_off_or_gone_is_found_and_repaired() {
    for seed in support::seeds(1) {
        let (disk, model) = store(seed).await;
        cut_off(&disk, &model).await;
        // Now the manifest knows of the newest segment.
        open(&disk).unwrap().close().await.unwrap();
        cut_off(&disk, &model).await;
    }
}
