//! Every error code has a page, and every page a code.

#![expect(clippy::unwrap_used, reason = "a test")]

use ax_engine::Code;
use std::collections::BTreeSet;
use std::path::Path;

/// Codes that only a harness is told: `docs/formats/harness-stdio.md`.
const OF_HARNESSES: [&str; 4] = ["AX1202", "AX1203", "AX1204", "AX1205"];

fn pages() -> impl Iterator<Item = (String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
    std::fs::read_dir(dir).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read_to_string(path).unwrap())
    })
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let codes = Code::ALL.iter().map(ToString::to_string);
    let codes: BTreeSet<_> = codes.chain(OF_HARNESSES.map(str::to_owned)).collect();
    let pages: BTreeSet<_> = pages().map(|(name, _)| name).collect();
    assert_eq!(codes, pages);
}

#[test]
fn every_page_says_what_it_means_why_and_what_to_do() {
    for (name, text) in pages() {
        assert!(text.starts_with(&format!("# {name}: ")), "{name}");
        for part in ["\n## Causes\n- ", "\n## What to do\n- "] {
            assert!(text.contains(part), "{name} lacks {part:?}");
        }
        assert!(text.lines().nth(2).is_some_and(|line| line.len() > 40), "{name}");
    }
}
