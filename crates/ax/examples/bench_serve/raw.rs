//! What the disk does, and what the log in the library does, without a server.

use crate::stats::{part, round1};
use ax_core::id::{Namespace, SessionId, SessionKey};
use ax_log::{Append, EmbeddedLog, EventLog as _};
use bytes::Bytes;
use futures::future::join_all;
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How much is written at a time, in bytes.
pub(crate) const PAYLOAD_BYTES: usize = 1 << 10;

/// A preallocated file that is written and synced.
#[derive(Debug)]
pub(crate) struct Disk {
    file: File,
    path: PathBuf,
    /// How often it can be written before it begins again.
    places: u32,
    at: u32,
}

impl Disk {
    pub(crate) fn new(dir: &Path) -> Self {
        Self::of(dir, 1 << 10)
    }

    fn of(dir: &Path, places: u32) -> Self {
        let path = dir.join("raw");
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).open(&path).unwrap();
        file.write_all(&vec![0; PAYLOAD_BYTES * places as usize]).unwrap();
        file.sync_all().unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        Self { file, path, places, at: 0 }
    }

    /// Writes the next place and syncs it; returns how long that took.
    pub(crate) fn sync(&mut self) -> Duration {
        if self.at == self.places {
            self.file.seek(SeekFrom::Start(0)).unwrap();
            self.at = 0;
        }
        self.at += 1;
        let began = Instant::now();
        self.file.write_all(&[7; PAYLOAD_BYTES]).unwrap();
        self.file.sync_data().unwrap();
        began.elapsed()
    }

    /// How long the system computes for a write and its sync, in microseconds.
    pub(crate) fn cpu_micros(&mut self) -> f64 {
        let before = computed_nanos();
        for _ in 0..self.places {
            let _spent = self.sync();
        }
        let spent = computed_nanos() - before;
        round1(spent as f64 / 1e3 / f64::from(self.places))
    }
}

/// How long this thread has computed, in nanoseconds.
fn computed_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}

/// Writes and syncs a preallocated file at a pace; returns p50 and p99 in microseconds.
pub(crate) fn sync(dir: &Path, count: u32, pause: Duration) -> (f64, f64) {
    let mut disk = Disk::of(dir, count);
    let write = |_| {
        std::thread::sleep(pause);
        disk.sync()
    };
    let mut spent: Vec<_> = (0..count).map(write).collect();
    (part(&mut spent, 0.5), part(&mut spent, 0.99))
}

/// Appends to a log in this process, each of so many writers one after the other; returns the
/// appends a second.
pub(crate) async fn log(dir: &Path, writers: usize, span: Duration) -> f64 {
    let dir = dir.join("log");
    let log = EmbeddedLog::open(&ax_log::Options::new(&dir)).unwrap();
    let payload = Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    let began = Instant::now();
    let writing = (0..writers).map(|number| {
        let (log, payload) = (&log, payload.clone());
        async move {
            let key = SessionKey::new(Namespace::default(), SessionId(number as u128 + 1));
            let mut lease = log.acquire(&key).await.unwrap();
            let mut count = 0_u32;
            while began.elapsed() < span {
                let append = Append {
                    key: key.clone(),
                    epoch: lease.epoch,
                    expected: lease.next,
                    entries: vec![payload.clone()],
                    row: None,
                    snapshot: None,
                };
                log.append(append).await.unwrap();
                lease.next = lease.next.next();
                count += 1;
            }
            count
        }
    });
    let count: u32 = join_all(writing).await.into_iter().sum();
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    log.close().await.unwrap();
    drop(log);
    std::fs::remove_dir_all(dir).unwrap();
    rate
}
