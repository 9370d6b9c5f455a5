//! Listing directories and searching files.

use super::OUTPUT_BYTES_MAX;
use super::workspace::{Entry, Workspace, entries, open_entry};
use regex_lite::Regex;
use serde::Deserialize;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long listing or searching may take.
pub(super) const TIME_MAX: Duration = Duration::from_secs(60);
/// How deep directories are followed.
const DEPTH_MAX: u32 = 32;
/// The largest file that is searched, in bytes.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// How much of a line is shown, in characters.
const LINE_CHARS_MAX: usize = 240;
/// Directories that nobody wants to search.
const SKIPPED: [&str; 2] = [".git", "node_modules"];

/// What is found, as long as there is room and time for it.
struct Found<'a> {
    text: String,
    ends_at: Instant,
    stop: &'a AtomicBool,
    full: bool,
}

impl<'a> Found<'a> {
    fn new(stop: &'a AtomicBool) -> Self {
        Self { text: String::new(), ends_at: Instant::now() + TIME_MAX, stop, full: false }
    }

    fn add(&mut self, line: &str) {
        if self.text.len() + line.len() > OUTPUT_BYTES_MAX {
            self.full = true;
        } else {
            self.text.push_str(line);
            self.text.push('\n');
        }
    }

    fn is_over(&self) -> bool {
        self.full || self.stop.load(Ordering::Relaxed) || Instant::now() > self.ends_at
    }

    fn returned(mut self, nothing: &str) -> String {
        if self.is_over() {
            self.text.push_str("[there is more; narrow it down]");
        } else if self.text.is_empty() {
            self.text.push_str(nothing);
        }
        self.text
    }
}

fn here() -> String {
    ".".into()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    #[serde(default = "here")]
    path: String,
    depth: Option<u32>,
}

pub(super) fn list(at: &Workspace, input: &List, stop: &AtomicBool) -> Result<String, String> {
    let dir = at.dir(&at.relative(&input.path)?)?;
    let depth = input.depth.unwrap_or(1).clamp(1, DEPTH_MAX);
    let mut found = Found::new(stop);
    walk(&dir, Path::new(""), depth, &mut found, &mut |path, entry, _, found| {
        let slash = if entry.is_dir { "/" } else { "" };
        found.add(&format!("{}{slash}", path.display()));
    })?;
    Ok(found.returned("[it is empty]"))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Search {
    pattern: String,
    #[serde(default = "here")]
    path: String,
}

pub(super) fn search(at: &Workspace, input: &Search, stop: &AtomicBool) -> Result<String, String> {
    let pattern = Regex::new(&input.pattern)
        .map_err(|error| format!("the pattern is not a regular expression: {error}"))?;
    let path = at.relative(&input.path)?;
    let mut found = Found::new(stop);
    match at.dir(&path) {
        Ok(dir) => {
            let within = if path == Path::new(".") { PathBuf::new() } else { path };
            walk(&dir, &within, DEPTH_MAX, &mut found, &mut |path, entry, dir, found| {
                if entry.is_file
                    && let Some(file) = open_entry(dir, entry)
                {
                    search_file(path, File::from(file), &pattern, found);
                }
            })?;
        }
        Err(not_a_dir) => {
            let file = at.file(&path).map_err(|_| not_a_dir)?;
            search_file(&path, file, &pattern, &mut found);
        }
    }
    Ok(found.returned("[nothing matches]"))
}

fn search_file(path: &Path, file: File, pattern: &Regex, found: &mut Found<'_>) {
    let mut text = Vec::new();
    let got = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text);
    if got.is_err() || text.len() as u64 > FILE_BYTES_MAX || text.contains(&0) {
        return;
    }
    for (at, line) in String::from_utf8_lossy(&text).lines().enumerate() {
        if found.is_over() {
            return;
        }
        if pattern.is_match(line) {
            let shown: String = line.chars().take(LINE_CHARS_MAX).collect();
            found.add(&format!("{}:{}:{shown}", path.display(), at + 1));
        }
    }
}

/// Calls `each` with every entry below a directory, in the order of their names. Follows no link.
fn walk(
    dir: &OwnedFd,
    within: &Path,
    depth: u32,
    found: &mut Found<'_>,
    each: &mut dyn FnMut(&Path, &Entry, &OwnedFd, &mut Found<'_>),
) -> Result<(), String> {
    for entry in entries(dir.as_fd())? {
        if found.is_over() {
            break;
        }
        let path = within.join(&entry.name);
        each(&path, &entry, dir, found);
        if entry.is_dir
            && depth > 1
            && !SKIPPED.contains(&entry.name.as_str())
            && let Some(below) = open_entry(dir, &entry)
        {
            walk(&below, &path, depth - 1, found, each)?;
        }
    }
    Ok(())
}
