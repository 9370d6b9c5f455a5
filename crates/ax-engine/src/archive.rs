//! Sessions as portable archives; the format is in `docs/formats/archive.md`.
//!
//! An archive is a header, then frames (kind, length, content), then the hash of all of it.

use crate::api::{SessionRef, Stream};
use crate::inner::{Inner, ROW_IMPORTING};
use crate::references::{Held, blobs_of};
use crate::{Code, Error, codec};
use ax_core::id::{Namespace, Seq, SessionId, SessionKey};
use ax_core::session::{BlobRef, Caller, Event, Request, State};
use ax_log::types::{APPEND_BYTES_MAX, ENTRY_BYTES_MAX};
use ax_log::{Append, ReadLimit, Row};
use ax_store::{BlobId, BlobStream};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Stream as Streams, StreamExt, TryStreamExt, stream};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard, PoisonError};

/// The first bytes of an archive: what it is, and the version of the format.
const HEADER: &[u8; 8] = b"AXSESS\x00\x01";
/// An event, as it is stored.
const EVENT: u8 = 1;
/// A blob that events refer to.
const BLOB: u8 = 2;
/// The end: the BLAKE3 hash of everything before this frame.
const END: u8 = 255;
/// The kind and the length of a frame, in bytes.
const HEAD_BYTES: usize = 5;
/// The largest blob, in bytes.
const FRAME_BYTES_MAX: usize = 1 << 30;
/// How many events are imported at a time.
const BATCH: usize = 256;
/// How many bytes of them; one more fits into an append.
const BATCH_BYTES: usize = APPEND_BYTES_MAX / 2;

/// Streams a session.
pub(crate) async fn export(inner: Arc<Inner>, key: SessionKey) -> Result<Stream<Bytes>, Error> {
    let head = inner.log.head(&key).await?;
    let head = head.ok_or_else(|| {
        Error::new(Code::NoSession, format!("there is no session {}", key.session))
    })?;
    let export = Export {
        inner,
        key,
        at: Seq::ZERO,
        last: head.last,
        hasher: blake3::Hasher::new(),
        sent: BTreeSet::new(),
        stage: Stage::Header,
        parts: VecDeque::new(),
        blob: None,
    };
    let pieces = stream::try_unfold(export, |mut export| async move {
        let piece = export.next().await?;
        Ok(piece.map(|piece| (piece, export)))
    });
    Ok(pieces.boxed())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Header,
    Events,
    Done,
}

/// What is to be sent next.
enum Part {
    Frames(Bytes),
    Blob(BlobId),
}

struct Export {
    inner: Arc<Inner>,
    key: SessionKey,
    at: Seq,
    last: Seq,
    hasher: blake3::Hasher,
    sent: BTreeSet<[u8; 32]>,
    stage: Stage,
    parts: VecDeque<Part>,
    /// The blob that is on its way, piece by piece: it may be larger than memory should be.
    blob: Option<(BlobId, BlobStream)>,
}

impl Export {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let piece = match self.stage {
                Stage::Header => {
                    self.stage = Stage::Events;
                    Some(Bytes::from_static(HEADER))
                }
                Stage::Done => return Ok(None),
                Stage::Events => self.part().await?,
            };
            if let Some(piece) = piece {
                self.hasher.update(&piece);
                return Ok(Some(piece));
            }
            if self.at == self.last {
                self.stage = Stage::Done;
                let hash = *self.hasher.finalize().as_bytes();
                return Ok(Some(frame(END, &hash).freeze()));
            }
            self.events().await?;
        }
    }

    /// Takes the next piece of what was read.
    async fn part(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some((id, content)) = &mut self.blob {
            if let Some(piece) = content.try_next().await.map_err(unread(*id))? {
                return Ok(Some(piece));
            }
            self.blob = None;
        }
        match self.parts.pop_front() {
            None => Ok(None),
            Some(Part::Frames(frames)) => Ok(Some(frames)),
            Some(Part::Blob(id)) => {
                let content = self.inner.blobs.get(&self.key.namespace, &id).await;
                let content = content.map_err(unread(id))?;
                let bytes = usize::try_from(content.bytes()).unwrap_or(usize::MAX);
                if bytes > FRAME_BYTES_MAX {
                    return Err(Error::new(Code::TooLarge, format!("{id} has {bytes} bytes")));
                }
                self.blob = Some((id, content));
                Ok(Some(head(BLOB, bytes).freeze()))
            }
        }
    }

    /// Reads the next events, each after the blobs that it refers to.
    async fn events(&mut self) -> Result<(), Error> {
        let entries = self.inner.log.read(&self.key, self.at, ReadLimit::default()).await?;
        let (mut frames, last) = (BytesMut::new(), self.last);
        for entry in entries.into_iter().filter(|entry| entry.seq <= last) {
            let event = codec::decode_event(&entry.payload).map_err(|error| {
                Error::new(Code::Damaged, format!("event {} cannot be read", entry.seq))
                    .caused_by(&error)
            })?;
            for blob in blobs_of(&event) {
                if self.sent.insert(blob.hash) {
                    self.frames(&mut frames);
                    self.parts.push_back(Part::Blob(BlobId(blob.hash)));
                }
            }
            frames.extend_from_slice(&frame(EVENT, &entry.payload));
            self.at = entry.seq;
        }
        self.frames(&mut frames);
        Ok(())
    }

    fn frames(&mut self, frames: &mut BytesMut) {
        if !frames.is_empty() {
            self.parts.push_back(Part::Frames(frames.split().freeze()));
        }
    }
}

fn unread<E: std::error::Error>(id: BlobId) -> impl FnOnce(E) -> Error {
    move |error| Error::new(Code::Read, format!("{id} cannot be read")).caused_by(&error)
}

/// The beginning of a frame.
fn head(kind: u8, bytes: usize) -> BytesMut {
    let mut head = BytesMut::with_capacity(HEAD_BYTES);
    head.put_u8(kind);
    head.put_u32(u32::try_from(bytes).expect("frames are small"));
    head
}

fn frame(kind: u8, content: &[u8]) -> BytesMut {
    let mut frame = head(kind, content.len());
    frame.extend_from_slice(content);
    frame
}

/// Makes a session from an archive.
pub(crate) async fn import(
    inner: &Arc<Inner>,
    caller: Caller,
    namespace: &Namespace,
    name: Option<String>,
    archive: Stream<Bytes>,
) -> Result<(SessionId, Seq), Error> {
    let id = match &name {
        Some(name) => SessionRef::parse(namespace, name)?.id,
        None => SessionId(inner.entropy.id()),
    };
    let key = SessionKey::new(namespace.clone(), id);
    let importing = Importing::begin(Arc::clone(inner), key.clone())?;
    // In a task of its own: when nobody waits for it any more the archive ends, and half of it is
    // tidied up.
    let given_up = inner.stopping.child_token();
    let archive = archive.take_until(given_up.clone().cancelled_owned()).boxed();
    let _given_up = given_up.drop_guard();
    let task = Arc::clone(inner);
    let taking = inner.tasks.spawn(async move {
        let _importing = importing;
        take_in(&task, caller, key, archive).await
    });
    let taken = taking
        .await
        .map_err(|error| Error::new(Code::Internal, "an import broke down").caused_by(&error))?;
    taken.map(|last| (id, last))
}

async fn take_in(
    inner: &Arc<Inner>,
    caller: Caller,
    key: SessionKey,
    archive: Stream<Bytes>,
) -> Result<Seq, Error> {
    let id = key.session;
    let lease = inner.log.acquire(&key).await?;
    if lease.row.is_some() || lease.next != Seq::FIRST {
        inner.log.release(&key, lease.epoch);
        return Err(Error::new(Code::Exists, format!("session {id} exists already")));
    }
    let mut intake = Intake {
        inner,
        key: &key,
        epoch: lease.epoch,
        next: Seq::FIRST,
        batch: vec![],
        batch_bytes: 0,
        state: State::default(),
        held: BTreeMap::new(),
    };
    let taken = intake.take(archive).await;
    let last = intake.next.prev();
    inner.log.release(&key, lease.epoch);
    if let Err(error) = taken {
        if last > Seq::ZERO {
            inner.forget(&key).await?;
        }
        if inner.stopping.is_cancelled() {
            return Err(Error::new(Code::Stopping, "the engine is stopping"));
        }
        return Err(error);
    }
    // What was under way where it came from is not under way here; this also writes its row.
    let reason = "imported".to_owned();
    let request = Request::Cancel { exec: None, queued: true, reason: reason.clone() };
    match inner.ask(&key, caller.clone(), vec![request]).await {
        Err(error) if error.code == Code::Idle => {
            let request = Request::Checkpoint { name: reason };
            inner.ask(&key, caller, vec![request]).await?;
        }
        asked => drop(asked?),
    }
    let head = inner.log.head(&key).await?;
    Ok(head.map_or(last, |head| head.last))
}

/// Says that a session is being imported, for as long as it lives.
struct Importing {
    inner: Arc<Inner>,
    key: SessionKey,
}

impl Importing {
    fn begin(inner: Arc<Inner>, key: SessionKey) -> Result<Self, Error> {
        if !inner.importing().insert(key.clone()) {
            return Err(Error::new(Code::Exists, format!("{} is being imported", key.session)));
        }
        Ok(Self { inner, key })
    }
}

impl Drop for Importing {
    fn drop(&mut self) {
        self.inner.importing().remove(&self.key);
    }
}

impl Inner {
    fn importing(&self) -> MutexGuard<'_, BTreeSet<SessionKey>> {
        self.importing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a session is being imported just now.
    pub(crate) fn is_importing(&self, key: &SessionKey) -> bool {
        self.importing().contains(key)
    }
}

/// Takes an archive in.
struct Intake<'a> {
    inner: &'a Inner,
    key: &'a SessionKey,
    epoch: ax_core::id::Epoch,
    next: Seq,
    batch: Vec<Bytes>,
    batch_bytes: usize,
    /// What the events so far amount to.
    state: State,
    /// The blobs so far, which stay until the events that name them are durable.
    held: BTreeMap<[u8; 32], Held>,
}

impl Intake<'_> {
    async fn take(&mut self, archive: Stream<Bytes>) -> Result<(), Error> {
        let mut source =
            Source { archive, buffer: BytesMut::new(), hasher: blake3::Hasher::new(), error: None };
        if !source.fill(HEADER.len()).await? || !source.buffer.starts_with(HEADER) {
            return Err(bad("it does not begin as one, or has another version"));
        }
        source.take(HEADER.len()).await?;
        loop {
            if !source.fill(HEAD_BYTES).await? {
                return Err(bad("it is cut off"));
            }
            let mut head = &source.buffer[..HEAD_BYTES];
            let (kind, bytes) = (head.get_u8(), head.get_u32() as usize);
            let hash = source.hasher.finalize();
            source.take(HEAD_BYTES).await?;
            match kind {
                END if bytes == hash.as_bytes().len() => {
                    if source.take(bytes).await? != hash.as_bytes()[..] {
                        return Err(bad("its hash does not match"));
                    }
                    break;
                }
                BLOB if bytes <= FRAME_BYTES_MAX => self.blob(&mut source, bytes).await?,
                EVENT if bytes <= ENTRY_BYTES_MAX => {
                    let content = source.take(bytes).await?;
                    self.event(content).await?;
                }
                END | BLOB | EVENT => return Err(bad("a frame is longer than it may be")),
                _ => return Err(bad("it has a frame of unknown kind")),
            }
        }
        if source.fill(1).await? {
            return Err(bad("something follows its end"));
        }
        self.flush().await?;
        if self.next == Seq::FIRST { Err(bad("it has no events")) } else { Ok(()) }
    }

    /// Keeps a blob, piece by piece as it comes.
    async fn blob(&mut self, source: &mut Source, bytes: usize) -> Result<(), Error> {
        let namespace = &self.key.namespace;
        let put = self.inner.blobs.put(namespace, source.pieces(bytes), bytes as u64).await;
        if let Some(error) = source.error.take() {
            return Err(error);
        }
        let put = put.map_err(|error| {
            Error::new(Code::Read, "a blob of the archive cannot be kept").caused_by(&error)
        })?;
        let blob = BlobRef { hash: put.id.0, bytes: put.bytes };
        let held = self.inner.references.hold(namespace, &[blob]);
        self.held.insert(blob.hash, held);
        Ok(())
    }

    async fn event(&mut self, content: Bytes) -> Result<(), Error> {
        let event = codec::decode_event(&content)
            .map_err(|error| bad("an event cannot be read").caused_by(&error))?;
        if blobs_of(&event).iter().any(|blob| !self.held.contains_key(&blob.hash)) {
            return Err(bad("an event names a blob that is not there before it"));
        }
        self.check(&event)?;
        self.batch_bytes += content.len();
        self.batch.push(content);
        let is_full = self.batch.len() >= BATCH || self.batch_bytes >= BATCH_BYTES;
        if is_full { self.flush().await } else { Ok(()) }
    }

    /// An archive comes from anywhere: events that contradict each other must not get into the log,
    /// where every reader takes them for true.
    fn check(&mut self, event: &Event) -> Result<(), Error> {
        let mut state = std::mem::take(&mut self.state);
        let applied = catch_unwind(AssertUnwindSafe(move || {
            state.apply(event);
            state
        }));
        self.state = applied.map_err(|_| bad("its events contradict each other"))?;
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Error> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let entries = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let updated_millis = self.inner.clock.now().millis;
        let row =
            Row { state: ROW_IMPORTING, due_millis: None, updated_millis, data: Bytes::new() };
        let (key, epoch, expected) = (self.key.clone(), self.epoch, self.next);
        let append = Append { key, epoch, expected, entries, row: Some(row), snapshot: None };
        self.next = self.inner.log.append(append).await?.next();
        Ok(())
    }
}

/// An archive while it is read.
struct Source {
    archive: Stream<Bytes>,
    /// What was read and not yet taken.
    buffer: BytesMut,
    /// Over what was taken.
    hasher: blake3::Hasher,
    /// Why a blob broke off.
    error: Option<Error>,
}

impl Source {
    /// Reads until the buffer has so many bytes; `false` if the archive ends before.
    async fn fill(&mut self, bytes: usize) -> Result<bool, Error> {
        while self.buffer.len() < bytes {
            match self.archive.try_next().await? {
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Takes so many bytes.
    async fn take(&mut self, bytes: usize) -> Result<Bytes, Error> {
        if !self.fill(bytes).await? {
            return Err(bad("a frame is cut off"));
        }
        let taken = self.buffer.split_to(bytes).freeze();
        self.hasher.update(&taken);
        Ok(taken)
    }

    /// Takes so many bytes as they come. Why it breaks off is in `error`.
    fn pieces(&mut self, bytes: usize) -> impl Streams<Item = io::Result<Bytes>> + Send {
        stream::try_unfold((self, bytes), |(source, left)| async move {
            if left == 0 {
                return Ok(None);
            }
            let taken = match source.fill(1).await {
                Ok(true) => source.take(left.min(source.buffer.len())).await,
                Ok(false) => Err(bad("a frame is cut off")),
                Err(error) => Err(error),
            };
            match taken {
                Ok(piece) => {
                    let left = left - piece.len();
                    Ok(Some((piece, (source, left))))
                }
                Err(error) => {
                    source.error = Some(error);
                    Err(io::Error::other("the archive broke off"))
                }
            }
        })
    }
}

fn bad(why: &str) -> Error {
    Error::invalid(format!("this is not an archive of a session: {why}"))
        .with_hint("`ax session export` makes one")
}
