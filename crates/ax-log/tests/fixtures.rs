//! Stores that were written by every released version of the format keep opening.
//!
//! `AX_LOG_FIXTURE=DIR cargo test -p ax-log --test fixtures` writes a new one into DIR.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::path::Path;

use ax_log::embedded::Limits;
use ax_log::{EmbeddedLog, EventLog, MemoryLog, Options, fsck};
use support::{Change, assert_same, make};

/// What a fixture holds: enough for every kind of record, file and section.
fn history() -> Vec<Change> {
    let append = |session, count, snapshot| Change::Append { session, count, snapshot };
    let mut history = Vec::new();
    for round in 0..6 {
        history.extend((1..=4).map(|session| append(session, 8, round == 3)));
    }
    history.push(Change::Branch { parent: 1, child: 100 });
    history.push(Change::Branch { parent: 3, child: 300 });
    history.push(append(100, 5, true));
    history.push(Change::Cut { session: 2 });
    history.push(Change::Delete { session: 3 });
    history.extend((1..=2).map(|session| append(session, 8, false)));
    history
}

fn options(dir: &Path) -> Options {
    Options { limits: Limits::tiny(), store: Some(1), ..Options::new(dir) }
}

async fn fill(log: &dyn EventLog) {
    for change in history() {
        assert!(make(log, &change).await.unwrap(), "{change:?}");
    }
}

#[tokio::test]
async fn a_store_of_version_1_opens_and_holds_what_was_written() {
    if let Ok(dir) = std::env::var("AX_LOG_FIXTURE") {
        let log = EmbeddedLog::open(&options(Path::new(&dir))).unwrap();
        fill(&log).await;
        while log.run_count() == 0 {
            tokio::task::yield_now().await;
        }
        log.close().await.unwrap();
    }
    let model = MemoryLog::new();
    fill(&model).await;
    let place = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1");
    for file in std::fs::read_dir(fixture).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), place.path().join(file.file_name())).unwrap();
    }
    let report = fsck::check(&options(place.path())).unwrap();
    assert!(report.is_sound() && report.lost.is_empty(), "{report:?}");
    for _ in 0..2 {
        let log = EmbeddedLog::open(&options(place.path())).unwrap();
        assert_same(&log, &model).await;
        log.close().await.unwrap();
    }
}
