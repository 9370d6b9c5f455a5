//! Reading, writing and editing a file.

use super::OUTPUT_BYTES_MAX;
use super::workspace::Workspace;
use serde::Deserialize;
use std::io::{BufRead, BufReader, Read as _};
use std::sync::atomic::{AtomicBool, Ordering};

/// The largest file that is edited, in bytes.
const EDIT_BYTES_MAX: u64 = 8 * 1024 * 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Read {
    path: String,
    offset: Option<u64>,
    limit: Option<u64>,
}

pub(super) fn read(at: &Workspace, input: &Read, stop: &AtomicBool) -> Result<String, String> {
    let path = at.relative(&input.path)?;
    let mut from = BufReader::new(at.file(&path)?);
    let first = input.offset.unwrap_or(1).max(1);
    let last = first.saturating_add(input.limit.unwrap_or(u64::MAX));
    let mut text = String::new();
    let mut number = 1;
    while !stop.load(Ordering::Relaxed) {
        let mut line = Vec::new();
        let room = (OUTPUT_BYTES_MAX + 1) as u64;
        let got = from.by_ref().take(room).read_until(b'\n', &mut line);
        if got.map_err(|error| format!("{}: {error}", input.path))? == 0 {
            break;
        }
        if line.contains(&0) {
            return Err(format!("{} is not a text file", input.path));
        }
        if number >= first {
            if number >= last || text.len() + line.len() > OUTPUT_BYTES_MAX {
                let cut =
                    if text.is_empty() { &line[..OUTPUT_BYTES_MAX.min(line.len())] } else { &[] };
                text.push_str(&String::from_utf8_lossy(cut));
                text.push_str(&format!("\n[there is more; go on with offset {number}]"));
                break;
            }
            text.push_str(&String::from_utf8_lossy(&line));
        }
        // A line longer than the room for it comes in pieces; only its end has a line feed.
        number += u64::from(line.ends_with(b"\n"));
    }
    Ok(text)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Write {
    path: String,
    content: String,
}

pub(super) fn write(at: &Workspace, input: &Write, _stop: &AtomicBool) -> Result<String, String> {
    let path = at.relative(&input.path)?;
    at.replace(&path, input.content.as_bytes())?;
    Ok(format!("{} has {} bytes now", path.display(), input.content.len()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edit {
    path: String,
    old: String,
    new: String,
    #[serde(default)]
    all: bool,
}

pub(super) fn edit(at: &Workspace, input: &Edit, _stop: &AtomicBool) -> Result<String, String> {
    apply(at, input, false)
}

/// As [`edit`], when an attempt that was lost may have done it already.
pub(super) fn edit_again(
    at: &Workspace,
    input: &Edit,
    _stop: &AtomicBool,
) -> Result<String, String> {
    apply(at, input, true)
}

fn apply(at: &Workspace, input: &Edit, again: bool) -> Result<String, String> {
    let path = at.relative(&input.path)?;
    if input.old.is_empty() {
        return Err("the old text is empty; use write to make a file".into());
    }
    let file = at.file(&path)?;
    let mut text = String::new();
    let got = file.take(EDIT_BYTES_MAX + 1).read_to_string(&mut text);
    got.map_err(|error| format!("{}: {error}", input.path))?;
    if text.len() as u64 > EDIT_BYTES_MAX {
        return Err(format!("{} is too large to be edited", input.path));
    }
    if again && is_done(&text, &input.old, &input.new) {
        return Ok(format!("{} reads so already", path.display()));
    }
    let count = text.matches(&input.old).count();
    match (count, input.all) {
        (0, _) => return Err(format!("the old text does not occur in {}", path.display())),
        (1, _) | (_, true) => {}
        (_, false) => {
            return Err(format!(
                "the old text occurs {count} times in {}; say more of what is around it",
                path.display()
            ));
        }
    }
    at.replace(&path, text.replace(&input.old, &input.new).as_bytes())?;
    let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
    Ok(format!("replaced {times} in {}", path.display()))
}

/// Returns whether every old text that is there is part of a new one.
fn is_done(text: &str, old: &str, new: &str) -> bool {
    !new.is_empty() && text.contains(new) && !text.replace(new, "").contains(old)
}
