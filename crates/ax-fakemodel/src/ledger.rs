//! The ledger: what was asked, and what became of it, so that tests can count what was paid.
//!
//! In a file it is one JSON object a line. An entry is written when its request is understood,
//! with status `open`, and again when it is decided; the last line of a `seq` counts. The file is
//! not synced: it survives the death of the process, not the loss of power.

use crate::wire::Format;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The most entries that are kept in memory; older ones are forgotten, but not in the file.
pub const ENTRIES_MAX: usize = 100_000;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not decided yet; in a file, also: the process died first. An answer was owed, and is paid.
    Open,
    /// The whole answer was handed to the connection.
    Answered,
    /// The connection broke first, by a fault or by the client. The answer is paid nevertheless.
    Cut,
    /// The request was refused with an error status, and nothing is paid.
    Refused,
}

/// What a request wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An answer of the model: the only thing that costs.
    Generate,
    /// A count of tokens.
    Count,
    /// An answer that was asked for before, or its stream.
    Fetch,
    /// The end of an answer under way.
    Cancel,
    /// An answer to be forgotten.
    Delete,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number, counted from 1.
    pub seq: u64,
    /// What it wanted.
    pub kind: Kind,
    /// The format it came in.
    pub format: Format,
    /// The model it named; empty where it names none.
    pub model: String,
    /// Whether it wanted a stream.
    pub stream: bool,
    /// The hash of its body in canonical form: BLAKE3, 64 hexadecimal digits. Of the path, where
    /// there is no body.
    pub request_hash: String,
    /// How many requests had this hash so far, this one included.
    pub occurrence: u64,
    /// How often the assistant had spoken in it.
    pub turn: u64,
    /// The beginning of the last text of the user.
    pub prompt: String,
    /// The turn of the script that answered it, counted from 0.
    pub script_turn: Option<usize>,
    /// The turns that fitted it, the one that answered it last.
    pub script_fitted: Vec<usize>,
    /// What became of it.
    pub status: Status,
    /// The HTTP status of the response.
    pub http_status: u16,
    /// Tokens of the request; 0 if nothing is paid.
    pub input_tokens: u64,
    /// Tokens of the answer; 0 if nothing is paid.
    pub output_tokens: u64,
}

impl Entry {
    /// Whether this request costs: an answer of the model was owed.
    pub fn is_paid(&self) -> bool {
        self.kind == Kind::Generate && self.status != Status::Refused
    }
}

/// What all requests come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Requests of any kind.
    pub request_count: u64,
    /// Requests that cost.
    pub paid_count: u64,
    /// Requests whose whole answer was handed to the connection.
    pub answered_count: u64,
    /// Requests whose connection broke first.
    pub cut_count: u64,
    /// Requests that were refused.
    pub refused_count: u64,
    /// Tokens of the requests that cost.
    pub input_tokens: u64,
    /// Tokens of their answers.
    pub output_tokens: u64,
}

/// Adds entries up.
pub fn totals<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Totals {
    let mut totals = Totals::default();
    for entry in entries {
        totals.request_count += 1;
        totals.paid_count += u64::from(entry.is_paid());
        totals.answered_count += u64::from(entry.status == Status::Answered);
        totals.cut_count += u64::from(entry.status == Status::Cut);
        totals.refused_count += u64::from(entry.status == Status::Refused);
        totals.input_tokens += entry.input_tokens;
        totals.output_tokens += entry.output_tokens;
    }
    totals
}

/// Reads a ledger file: one entry for each `seq`, in order. A last line that was not written to
/// its end is left out, and so is anything that is not a line of a ledger.
///
/// # Errors
///
/// Returns the error of the file system; a file that does not exist is an empty ledger.
pub fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let lines = text.split(|byte| *byte == b'\n');
    let entries = lines.filter_map(|line| serde_json::from_slice::<Entry>(line).ok());
    let by_seq: BTreeMap<u64, Entry> = entries.map(|entry| (entry.seq, entry)).collect();
    Ok(by_seq.into_values().collect())
}

/// The ledger of a running server.
#[derive(Debug)]
pub(crate) struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<u64, Entry>,
    occurrences: BTreeMap<String, u64>,
    /// How many requests each turn of the script fitted.
    fitted: BTreeMap<usize, u64>,
    seq_last: u64,
    file: Option<File>,
}

impl Ledger {
    /// Opens a ledger; what is in the file already goes on counting.
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Self> {
        let mut inner = Inner::default();
        if let Some(path) = path {
            for entry in read(path)? {
                inner.count(&entry);
                inner.insert(entry);
            }
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            // Ends a line that a dead process did not.
            file.write_all(b"\n")?;
            inner.file = Some(file);
        }
        Ok(Self { inner: Mutex::new(inner) })
    }

    /// Takes a request in. `complete` gets the number of the request among those of its hash and
    /// the counts of the turns, and fills in the rest of the entry.
    pub(crate) fn begin<T>(
        &self,
        request_hash: &str,
        complete: impl FnOnce(u64, &BTreeMap<usize, u64>) -> (Entry, T),
    ) -> (u64, T) {
        let mut inner = self.lock();
        let occurrence = inner.occurrences.get(request_hash).map_or(1, |before| before + 1);
        let (entry, result) = complete(occurrence, &inner.fitted);
        let entry = Entry { seq: inner.seq_last + 1, occurrence, ..entry };
        inner.count(&entry);
        inner.write(&entry);
        let seq = entry.seq;
        inner.insert(entry);
        (seq, result)
    }

    /// Decides a request that is open; later decisions change nothing.
    pub(crate) fn decide(&self, seq: u64, status: Status) {
        let mut inner = self.lock();
        let Some(entry) = inner.entries.get_mut(&seq) else { return };
        if entry.status == Status::Open {
            entry.status = status;
            let entry = entry.clone();
            inner.write(&entry);
        }
    }

    /// Returns the entries after `after`, in order.
    pub(crate) fn entries(&self, after: u64) -> Vec<Entry> {
        self.lock()
            .entries
            .range(after.saturating_add(1)..)
            .map(|(_, entry)| entry.clone())
            .collect()
    }

    /// Forgets everything but what is in the file; numbers go on.
    pub(crate) fn reset(&self) {
        let mut inner = self.lock();
        inner.entries.clear();
        inner.occurrences.clear();
        inner.fitted.clear();
    }

    /// Forgets how many requests the turns fitted, as there is a new script.
    pub(crate) fn reset_turns(&self) {
        self.lock().fitted.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn count(&mut self, entry: &Entry) {
        self.seq_last = self.seq_last.max(entry.seq);
        *self.occurrences.entry(entry.request_hash.clone()).or_insert(0) += 1;
        for turn in &entry.script_fitted {
            *self.fitted.entry(*turn).or_insert(0) += 1;
        }
    }

    fn insert(&mut self, entry: Entry) {
        self.entries.insert(entry.seq, entry);
        while self.entries.len() > ENTRIES_MAX {
            self.entries.pop_first();
        }
    }

    fn write(&mut self, entry: &Entry) {
        if let Some(file) = &mut self.file {
            let line = serde_json::to_string(entry).expect("an entry is plain data") + "\n";
            // One write: lines of several processes do not mix. A ledger that cannot be written
            // would make tests count too little, so nothing goes on without it.
            file.write_all(line.as_bytes()).expect("the ledger file takes its lines");
        }
    }
}

/// Decides its request when it is dropped: as cut, unless it was told otherwise.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) ledger: std::sync::Arc<Ledger>,
    pub(crate) seq: u64,
    pub(crate) becomes: Status,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.ledger.decide(self.seq, self.becomes);
    }
}
