//! Measures snapshots and restores of workspaces of which one file in a hundred changes.
//!
//! `bench_workspace [DIR]` prints one JSON object per measurement. DIR is where the files go
//! (default: the directory for temporary files). Times are the medians of five rounds.

#![expect(clippy::unwrap_used, reason = "a measurement has nothing better to do than to stop")]
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use ax_core::id::Namespace;
use ax_store::{Blob, Blobs};
use ax_workspace::{Options, Place, Snapshot, restore, snapshot};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const FILE_COUNTS: [u64; 3] = [10, 1_000, 20_000];
const FILE_BYTES: usize = 4_000;
const ROUNDS: u64 = 5;

fn main() {
    let dir = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for files in FILE_COUNTS {
        let dir = dir.join(format!("bench-workspace-{files}"));
        drop(fs::remove_dir_all(&dir));
        fs::create_dir_all(&dir).unwrap();
        runtime.block_on(measure(&dir, files));
        fs::remove_dir_all(&dir).unwrap();
    }
}

async fn measure(dir: &Path, files: u64) {
    let blobs = Blobs::local(&dir.join("blobs")).unwrap();
    let (work, copy) = (place(dir, "work"), place(dir, "copy"));
    for n in 0..files {
        write(&work.dir, n, 0);
    }
    let (first, cold) = take(&blobs, &work, None).await;
    say(files, "first snapshot", cold, &first);
    let mut last = first.clone();
    let (mut same, mut changed, mut back) = (Vec::new(), Vec::new(), Vec::new());
    let whole = put_back(&blobs, &copy, &first).await;
    for round in 1..=ROUNDS {
        let (unchanged, took) = take(&blobs, &work, Some(last.root)).await;
        same.push((took, unchanged.clone()));
        for n in (0..files).step_by(100) {
            write(&work.dir, n, round);
        }
        let (after, took) = take(&blobs, &work, Some(unchanged.root)).await;
        changed.push((took, after.clone()));
        put_back(&blobs, &copy, &after).await;
        back.push((put_back(&blobs, &copy, &unchanged).await, after.clone()));
        last = after;
    }
    for (what, mut all) in
        [("nothing changed", same), ("1 % changed", changed), ("rewind of 1 %", back)]
    {
        all.sort_by_key(|(took, _)| *took);
        let (took, snapshot) = &all[all.len() / 2];
        say(files, what, *took, snapshot);
    }
    say(files, "whole restore", whole, &first);
}

fn place(dir: &Path, name: &str) -> Place {
    fs::create_dir_all(dir.join(name)).unwrap();
    Place { dir: dir.join(name), beside: dir.join(format!("{name}.state")) }
}

/// Writes a file that is text, in a way.
fn write(dir: &Path, n: u64, round: u64) {
    let dir = dir.join(format!("d{}", n / 50));
    fs::create_dir_all(&dir).unwrap();
    let mut noise = vec![0; FILE_BYTES];
    blake3::Hasher::new()
        .update(&n.to_le_bytes())
        .update(&round.to_le_bytes())
        .finalize_xof()
        .fill(&mut noise);
    noise.iter_mut().for_each(|byte| *byte = b'a' + *byte % 16);
    fs::write(dir.join(format!("f{n}")), noise).unwrap();
}

async fn take(blobs: &Blobs, place: &Place, previous: Option<Blob>) -> (Snapshot, Duration) {
    let began = Instant::now();
    let namespace = Namespace::default();
    let taken = snapshot(blobs, &namespace, place, previous, &Options::default()).await.unwrap();
    (taken, began.elapsed())
}

async fn put_back(blobs: &Blobs, place: &Place, wanted: &Snapshot) -> Duration {
    let began = Instant::now();
    let (namespace, id) = (Namespace::default(), wanted.root.id);
    restore(blobs, &namespace, place, &id, &Options::default()).await.unwrap();
    began.elapsed()
}

fn say(files: u64, what: &str, took: Duration, snapshot: &Snapshot) {
    let stats = &snapshot.stats;
    println!(
        "{{\"files\":{files},\"what\":\"{what}\",\"millis\":{:.1},\"files_read\":{},\
         \"blobs_written\":{},\"bytes_written\":{}}}",
        took.as_secs_f64() * 1e3,
        stats.files_read,
        stats.blobs_written,
        stats.bytes_written,
    );
}
