//! The files of the log: a store with some bytes changed is checked, and opened.
//!
//! Checksums refuse nearly everything, and that is what is tried here: whatever the bytes are, a
//! check says something, and an opening succeeds or says why not.

use super::answer;
use crate::driver::{Answer, Target};
use ax_log::embedded::Limits;
use ax_log::{EmbeddedLog, Options, fsck};
use std::fs;
use std::path::Path;

/// The store that inputs are changes of.
const STORE: &str = "crates/ax-log/tests/fixtures/v1";

pub(super) fn target() -> Target {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(STORE);
    let entries = fs::read_dir(root).expect("the fixture is there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    files.sort();
    let count = u8::try_from(files.len()).expect("some files");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    Target {
        name: "log",
        // Which file, where in it, and what to write there.
        examples: (0..count).flat_map(|file| [vec![file], vec![file, 0, 9, 1, 2, 3]]).collect(),
        words: &[],
        // A segment has its size, whatever is changed in it.
        memory_factor: 1 << 20,
        decode: Box::new(move |input| {
            let place = tempfile::tempdir().expect("a directory");
            for file in &files {
                let name = file.file_name().expect("a name");
                fs::copy(file, place.path().join(name)).expect("a copy");
            }
            if let [file, high, low, part @ ..] = input {
                let file = &files[usize::from(*file) % files.len()];
                let path = place.path().join(file.file_name().expect("a name"));
                change(&path, u16::from_be_bytes([*high, *low]), part);
            }
            let options =
                Options { limits: Limits::tiny(), store: Some(1), ..Options::new(place.path()) };
            let checked = fsck::check(&options);
            let opened = EmbeddedLog::open(&options);
            if let Ok(log) = &opened {
                let closed = runtime.block_on(ax_log::EventLog::close(log));
                if let Err(fault) = closed {
                    return Answer::Refused(format!("closed: {fault}"));
                }
            }
            match (checked, opened) {
                (Ok(report), Ok(_)) if report.is_sound() => Answer::Accepted,
                (Ok(report), _) => {
                    Answer::Refused(report.findings.first().map_or_else(
                        || "opened with findings".into(),
                        |finding| finding.what.clone(),
                    ))
                }
                (Err(error), _) => answer(Err::<(), _>(error)),
            }
        }),
    }
}

/// Writes over a part of a file. What is empty cuts it off.
fn change(path: &Path, at: u16, part: &[u8]) {
    let mut bytes = fs::read(path).expect("it was copied");
    // The interesting bytes are at the beginning of a file and of its blocks.
    let at = usize::from(at) % bytes.len().max(1);
    if part.is_empty() {
        bytes.truncate(at);
    }
    let end = (at + part.len()).min(bytes.len());
    bytes[at..end].copy_from_slice(&part[..end - at]);
    fs::write(path, bytes).expect("it is written");
}
