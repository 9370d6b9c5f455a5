//! What the disk does, and what the log in the library does, without a server.

use crate::stats::part;
use ax_core::id::{Namespace, SessionId, SessionKey};
use ax_log::{Append, EmbeddedLog, EventLog as _};
use bytes::Bytes;
use futures::future::join_all;
use std::fs::OpenOptions;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// How much is written at a time, in bytes.
pub(crate) const PAYLOAD_BYTES: usize = 1 << 10;

/// Writes and syncs a preallocated file at a pace; returns p50 and p99 in microseconds.
pub(crate) fn sync(dir: &Path, count: u32, pause: Duration) -> (f64, f64) {
    let path = dir.join("raw");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&path).unwrap();
    file.write_all(&vec![0; PAYLOAD_BYTES * count as usize]).unwrap();
    file.sync_all().unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut spent: Vec<_> = (0..count)
        .map(|_| {
            std::thread::sleep(pause);
            let began = Instant::now();
            file.write_all(&[7; PAYLOAD_BYTES]).unwrap();
            file.sync_data().unwrap();
            began.elapsed()
        })
        .collect();
    std::fs::remove_file(path).unwrap();
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
