//! What the log is measured against: one batched durable write of the same bytes at a time, with
//! the same framing, and nothing else.

use std::path::Path;
use std::sync::Arc;

use ax_log::embedded::{Disk as _, DiskFile, OsDisk, PAGE_BYTES};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

const FILE_BYTES: usize = 64 * 1024 * 1024;
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
const BATCH_COUNT_MAX: usize = 4096;

/// A write that waits to be durable.
type Write = (u128, u64, Bytes, oneshot::Sender<()>);

/// A committer without an index: what the disk can do at best.
#[derive(Clone, Debug)]
pub(crate) struct Raw(mpsc::UnboundedSender<Write>);

impl Raw {
    pub(crate) fn start(dir: &Path, direct: bool) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let file = OsDisk.preallocate(&dir.join("raw"), FILE_BYTES as u64).unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(commit(receiver, file, direct));
        });
        Self(sender)
    }

    pub(crate) async fn append(&self, session: u128, seq: u64, payload: Bytes) {
        let (done, wait) = oneshot::channel();
        self.0.send((session, seq, payload, done)).unwrap();
        wait.await.unwrap();
    }
}

async fn commit(mut writes: mpsc::UnboundedReceiver<Write>, file: Arc<dyn DiskFile>, direct: bool) {
    let mut memory = vec![0; BATCH_BYTES_MAX + BATCH_COUNT_MAX * 64 + 2 * PAGE_BYTES];
    let start = memory.as_ptr().align_offset(PAGE_BYTES);
    let buffer = &mut memory[start..];
    let mut batch = Vec::new();
    let mut offset = 0;
    while writes.recv_many(&mut batch, BATCH_COUNT_MAX).await > 0 {
        let mut waiting = Vec::new();
        let mut used = 64;
        for (session, seq, payload, done) in batch.drain(..) {
            if used + payload.len() + 40 > BATCH_BYTES_MAX {
                offset = write(&*file, buffer, used, offset, direct);
                tell(&mut waiting);
                used = 64;
            }
            let record = &mut buffer[used..used + 40 + payload.len()];
            record[8..24].copy_from_slice(&session.to_le_bytes());
            record[24..32].copy_from_slice(&seq.to_le_bytes());
            record[36..40].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
            record[40..].copy_from_slice(&payload);
            used += record.len();
            waiting.push(done);
        }
        offset = write(&*file, buffer, used, offset, direct);
        tell(&mut waiting);
    }
}

fn tell(waiting: &mut Vec<oneshot::Sender<()>>) {
    for done in waiting.drain(..) {
        done.send(()).unwrap();
    }
}

fn write(file: &dyn DiskFile, buffer: &mut [u8], used: usize, at: usize, direct: bool) -> usize {
    let crc = crc32c::crc32c(&buffer[64..used]);
    buffer[40..44].copy_from_slice(&crc.to_le_bytes());
    let padded = used.next_multiple_of(PAGE_BYTES);
    buffer[used..padded].fill(0);
    let at = if at + padded > FILE_BYTES { 0 } else { at };
    if direct {
        file.write_durable(&buffer[..padded], at as u64).unwrap();
        return at + padded;
    }
    file.write_at(&buffer[..used], at as u64).unwrap();
    file.sync().unwrap();
    at + used
}
