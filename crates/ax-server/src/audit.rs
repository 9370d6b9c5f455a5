//! The audit log: what administrators did, and what was refused, in `audit/` of the data directory.
//!
//! Two files of JSON lines, which `docs/formats/audit.md` describes: `acts.jsonl` and
//! `denials.jsonl`. Each is moved aside when it is full and the oldest is removed, so that a flood
//! of refused requests costs a bounded space and pushes no act out. An act is on the disk before
//! it is carried out; one that cannot be recorded is refused.
//!
//! No line has a secret: neither headers nor queries nor bodies are ever handed in.

use crate::auth::file;
use crate::caller::user;
use ax_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How large a file gets, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// How many full files of each kind are kept.
const FULL_FILE_COUNT_MAX: u32 = 4;
/// How many denials are recorded a second; the rest is counted.
const DENIALS_PER_SECOND: u32 = 50;
/// The longest text in a line, in bytes; longer ones are cut.
const TEXT_BYTES_MAX: usize = 256;

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An administrator asks for something, and it is about to be done.
    Asked,
    /// It is done, or failed.
    Done,
    /// A request was refused.
    Denied,
}

/// A line of the audit log. Texts that are not known are empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When, in milliseconds since 1970.
    pub at_millis: u64,
    /// What the line is about.
    pub kind: Kind,
    /// Who: the principal as events have it.
    pub who: String,
    /// From where: an address, or `local` for the own socket and commands.
    pub from: String,
    /// What: the method of the API, or the command.
    pub what: String,
    /// What it was done to: a session, an agent, a key.
    #[serde(default)]
    pub about: String,
    /// Where.
    #[serde(default)]
    pub namespace: String,
    /// What came of it: `ok`, or a code and why.
    #[serde(default)]
    pub result: String,
    /// The request, as the client calls it.
    #[serde(default)]
    pub request: String,
    /// How many denials before this one were not recorded.
    #[serde(default)]
    pub left_out: u64,
}

impl Line {
    /// A line about something that happens now.
    pub fn new(kind: Kind, now: Timestamp) -> Self {
        let empty = String::new;
        Self {
            at_millis: now.millis,
            kind,
            who: empty(),
            from: empty(),
            what: empty(),
            about: empty(),
            namespace: empty(),
            result: empty(),
            request: empty(),
            left_out: 0,
        }
    }

    /// A line about a command of the user that this process runs as.
    pub fn of_command(kind: Kind, now: Timestamp, what: &str) -> Self {
        let who = user(rustix::process::geteuid().as_raw());
        let line = Self::new(kind, now);
        Self { who: who.to_string(), from: "local".into(), what: what.into(), ..line }
    }

    fn shorten(mut self) -> Self {
        let texts = [&mut self.who, &mut self.from, &mut self.what, &mut self.about];
        let more = [&mut self.namespace, &mut self.result, &mut self.request];
        for text in texts.into_iter().chain(more) {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        }
        self
    }
}

/// The audit log of a data directory.
#[derive(Debug)]
pub struct Audit {
    dir: PathBuf,
    denials: Mutex<Denials>,
}

#[derive(Debug)]
struct Denials {
    since: Instant,
    count: u32,
    left_out: u64,
}

impl Audit {
    /// The audit log of a data directory; nothing is read or made yet.
    pub fn of(data_dir: &Path) -> Self {
        let denials = Denials { since: Instant::now(), count: 0, left_out: 0 };
        Self { dir: data_dir.join("audit"), denials: Mutex::new(denials) }
    }

    /// Records an act; when this returns it is on the disk.
    ///
    /// # Errors
    ///
    /// Returns what the system said. The act must not be carried out then.
    pub fn act(&self, line: Line) -> io::Result<()> {
        self.append("acts", line, true)
    }

    /// Records that a request was refused, unless there are too many.
    pub fn denied(&self, mut line: Line) {
        {
            let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
            if denials.since.elapsed() >= Duration::from_secs(1) {
                (denials.since, denials.count) = (Instant::now(), 0);
            }
            if denials.count >= DENIALS_PER_SECOND {
                denials.left_out += 1;
                return;
            }
            denials.count += 1;
            line.left_out = std::mem::take(&mut denials.left_out);
        }
        if let Err(error) = self.append("denials", line, false) {
            tracing::error!(%error, "a refused request could not be recorded");
        }
    }

    /// Reads all lines that are kept, oldest first. What is no line of ours is left out.
    ///
    /// # Errors
    ///
    /// Returns what the system said.
    pub fn read(&self) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        for name in ["acts", "denials"] {
            let full = (1..=FULL_FILE_COUNT_MAX).rev().map(|number| self.full(name, number));
            for path in full.chain([self.path(name)]) {
                match File::open(path) {
                    Ok(file) => read(file, &mut lines)?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        lines.sort_by_key(|line| line.at_millis);
        Ok(lines)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.jsonl"))
    }

    fn full(&self, name: &str, number: u32) -> PathBuf {
        self.dir.join(format!("{name}.{number}.jsonl"))
    }

    fn append(&self, name: &str, line: Line, durable: bool) -> io::Result<()> {
        let mut text = serde_json::to_vec(&line.shorten()).expect("a line is plain texts");
        text.push(b'\n');
        file::make_dir(&self.dir)?;
        // Commands write here, too.
        let _lock = file::lock(&self.dir)?;
        let path = self.path(name);
        let bytes = match fs::metadata(&path) {
            Ok(about) => about.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        if bytes >= FILE_BYTES_MAX {
            self.move_aside(name)?;
        }
        let mut options = OpenOptions::new();
        let mut file = options.create(true).append(true).mode(0o600).open(&path)?;
        // A line that a crash cut short must not swallow this one.
        if bytes > 0 && bytes < FILE_BYTES_MAX && !ends_with_newline(&path)? {
            text.insert(0, b'\n');
        }
        file.write_all(&text)?;
        if durable {
            file.sync_data()?;
            if bytes == 0 || bytes >= FILE_BYTES_MAX {
                file::sync_dir(&self.dir)?;
            }
        }
        Ok(())
    }

    fn move_aside(&self, name: &str) -> io::Result<()> {
        for number in (1..FULL_FILE_COUNT_MAX).rev() {
            match fs::rename(self.full(name, number), self.full(name, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(self.path(name), self.full(name, 1))
    }
}

fn ends_with_newline(path: &Path) -> io::Result<bool> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

fn read(file: File, lines: &mut Vec<Line>) -> io::Result<()> {
    for line in BufReader::new(file).split(b'\n') {
        lines.extend(serde_json::from_slice::<Line>(&line?).ok());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: Kind, millis: u64, what: &str) -> Line {
        Line { what: what.into(), ..Line::new(kind, Timestamp { millis }) }
    }

    #[test]
    fn lines_are_read_in_the_order_of_their_time() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::of(dir.path());
        assert_eq!(audit.read().unwrap(), []);
        let (first, second) = (line(Kind::Asked, 1, "a"), line(Kind::Done, 3, "a\n\"b\""));
        let between = line(Kind::Denied, 2, "c");
        audit.act(first.clone()).unwrap();
        audit.act(second.clone()).unwrap();
        audit.denied(between.clone());
        assert_eq!(audit.read().unwrap(), [first, between, second]);
    }

    #[test]
    fn a_line_that_was_cut_short_costs_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::of(dir.path());
        audit.act(line(Kind::Done, 1, "a")).unwrap();
        let path = audit.path("acts");
        let text = fs::read(&path).unwrap();
        fs::write(&path, [&text[..], &text[..10]].concat()).unwrap();
        audit.act(line(Kind::Done, 2, "b")).unwrap();
        let whats: Vec<_> = audit.read().unwrap().into_iter().map(|line| line.what).collect();
        assert_eq!(whats, ["a", "b"]);
    }

    #[test]
    fn a_flood_of_denials_is_counted_and_pushes_no_act_out() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::of(dir.path());
        audit.act(line(Kind::Done, 1, "act")).unwrap();
        for _ in 0..10 * DENIALS_PER_SECOND {
            audit.denied(line(Kind::Denied, 2, &"x".repeat(10_000)));
        }
        let lines = audit.read().unwrap();
        assert_eq!(lines[0].what, "act");
        assert!(lines.iter().all(|line| line.what.len() <= TEXT_BYTES_MAX));
        assert!(lines.len() < 10 * DENIALS_PER_SECOND as usize, "{}", lines.len());
    }

    #[test]
    fn files_that_are_full_are_moved_aside_and_the_oldest_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::of(dir.path());
        for number in 0..FULL_FILE_COUNT_MAX + 3 {
            audit.act(line(Kind::Done, number.into(), &number.to_string())).unwrap();
            let file = OpenOptions::new().append(true).open(audit.path("acts")).unwrap();
            // Blank, and as long as a full one.
            file.set_len(FILE_BYTES_MAX).unwrap();
        }
        let whats: Vec<_> = audit.read().unwrap().into_iter().map(|line| line.what).collect();
        assert_eq!(whats, ["2", "3", "4", "5", "6"]);
    }
}
