//! The files of a session: kept at checkpoints and ends, and made again from what was kept.
//!
//! What is kept comes before what it is kept for: the event that says where the files are is in the
//! same append as the end or checkpoint, and stands before it. So whoever branches there has them.

use super::attempt::Heard;
use super::{Asked, Task};
use crate::inner::Inner;
use crate::manifest::Snapshots;
use crate::{Code, Error};
use ax_core::id::SessionKey;
use ax_core::session::{
    BlobRef, Caller, Failure, Frame, Input, Item, Request, Saved, Step, StepKind,
};
use ax_store::{Blob, BlobId};
use ax_workspace::{Options, Place, SnapshotError};
use futures::future::BoxFuture;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Directories of the runtime's own: contents of inputs, which the log has.
const SKIP: &[u8] = b".ax/blobs";
/// The most blobs that an event names.
const BLOBS_MAX: usize = 5_000;

type Kept = Result<Saved, Failure>;

/// What waits until the files are kept.
#[derive(Debug)]
pub(super) enum Then {
    /// Something that was heard of an attempt.
    Heard(Heard),
    /// A client's wishes, one of them a checkpoint.
    Ask(Caller, Vec<Request>, Asked),
}

/// Keeps the files of a session, once at a time.
#[derive(Default)]
pub(super) struct Keeping {
    under_way: Option<BoxFuture<'static, Kept>>,
    then: VecDeque<Then>,
    /// When files are kept, once that is known.
    when: Option<Snapshots>,
    /// The attempt that runs has said its last word, and the files were kept for it.
    is_done: bool,
}

impl Keeping {
    /// Whether something waits.
    pub(super) fn is_busy(&self) -> bool {
        !self.then.is_empty()
    }

    /// Waits until the files are kept; for ever if they are not being.
    pub(super) async fn done(&mut self) -> Kept {
        let Some(under_way) = &mut self.under_way else { return std::future::pending().await };
        let kept = under_way.await;
        self.under_way = None;
        kept
    }
}

impl Inner {
    /// Where the files of a session are.
    pub(crate) fn place(&self, key: &SessionKey) -> Place {
        let beside = self.data_dir.join("snapshots").join(key.namespace.as_str());
        Place { dir: self.workspace_path(key), beside: beside.join(key.session.to_string()) }
    }
}

impl Task {
    /// Takes up what was heard once the files are kept, if they have to be.
    pub(super) async fn keep_and_hear(&mut self, heard: Heard) -> Result<(), Error> {
        if !self.is_kept_for(&heard).await || !self.has_files() {
            return self.hear(heard).await;
        }
        self.keep(Then::Heard(heard));
        Ok(())
    }

    /// Takes up what a client wants once the files are kept, if they have to be.
    pub(super) async fn keep_and_ask(
        &mut self,
        caller: Caller,
        requests: Vec<Request>,
        asked: Asked,
    ) {
        let is_checkpoint = |request: &Request| matches!(request, Request::Checkpoint { .. });
        if !requests.iter().any(is_checkpoint)
            || self.snapshots().await == Snapshots::Never
            || !self.has_files()
        {
            return self.ask(&caller, requests, asked);
        }
        self.keep(Then::Ask(caller, requests, asked));
    }

    /// Whether files are kept before this is taken up.
    async fn is_kept_for(&mut self, heard: &Heard) -> bool {
        let (is_wanted, is_last) = match heard {
            Heard::Frame(exec, attempt, frame) => {
                let runs = self.session.state().running() == Some((*exec, *attempt));
                let is_last = matches!(frame, Frame::End { .. } | Frame::Fail { .. });
                let is_point = is_last || matches!(frame, Frame::Checkpoint { .. });
                let is_step = !is_point && self.ends_work(frame);
                let by_steps = is_step && self.snapshots().await == Snapshots::Step;
                (runs && (is_point || by_steps), is_last)
            }
            // What it did before it was cut short.
            Heard::Gone(..) => {
                (!self.stopping && !std::mem::take(&mut self.keeping.is_done), false)
            }
            Heard::Nothing => (false, false),
        };
        let is_wanted = is_wanted && self.snapshots().await != Snapshots::Never;
        self.keeping.is_done |= is_wanted && is_last;
        is_wanted
    }

    /// Whether a frame says that something was done that may have changed files.
    fn ends_work(&self, frame: &Frame) -> bool {
        let Frame::StepEnd { step, .. } = frame else { return false };
        let exec = self.session.state().exec.as_ref();
        match exec.and_then(|exec| exec.items.get(step)) {
            Some(Item::Step(Step { kind, .. })) => *kind != StepKind::Model,
            _ => false,
        }
    }

    /// When the agent's manifest wants files to be kept.
    async fn snapshots(&mut self) -> Snapshots {
        if let Some(when) = self.keeping.when {
            return when;
        }
        let Some(identity) = &self.session.state().identity else { return Snapshots::default() };
        let agent = format!("{}@{}", identity.agent.name, identity.agent.version);
        let Ok(found) = self.inner.agents.find(&self.key.namespace, &agent).await else {
            return Snapshots::default();
        };
        *self.keeping.when.insert(found.manifest.workspace.snapshots)
    }

    /// Whether there is anything to keep: files, or that there are none any more. A directory that
    /// is not there says nothing, nor does one that is half restored.
    fn has_files(&self) -> bool {
        if self.keeping.is_busy() {
            return true;
        }
        let place = self.inner.place(&self.key);
        // Small calls, which another thread would only make longer.
        let Some(is_empty) = is_empty(&place.dir) else { return false };
        let is_half = || ax_workspace::unfinished(&place).is_ok_and(|half| half.is_some());
        (self.session.state().workspace.is_some() || !is_empty) && !is_half()
    }

    fn keep(&mut self, then: Then) {
        self.keeping.then.push_back(then);
        if self.keeping.under_way.is_none() {
            self.begin_to_keep();
        }
    }

    fn begin_to_keep(&mut self) {
        let previous = self.session.state().workspace.map(|last| blob(last.snapshot));
        let options = options(!self.attempts.is_idle());
        let kept = keep(Arc::clone(&self.inner), self.key.clone(), previous, options);
        self.keeping.under_way = Some(Box::pin(kept));
    }

    /// The files are kept, or could not be: what waited for it is taken up.
    pub(super) async fn kept(&mut self, kept: Kept) -> Result<(), Error> {
        let then = self.keeping.then.pop_front().expect("they were kept for something");
        let now = self.now();
        match (then, kept) {
            (Then::Heard(heard), kept) => {
                if let Err(failure) = &kept {
                    tracing::warn!(
                        code = failure.code,
                        why = failure.message,
                        "files are not kept"
                    );
                }
                drop(self.feed(now, &Input::Saved(kept)));
                self.hear(heard).await?;
            }
            (Then::Ask(caller, requests, asked), Ok(saved)) => {
                drop(self.feed(now, &Input::Saved(Ok(saved))));
                self.ask(&caller, requests, asked);
            }
            (Then::Ask(_, _, asked), Err(failure)) => {
                let what = format!("the files cannot be kept: {}", failure.message);
                asked.answer(Err(Error::new(Code::Workspace, what)));
            }
        }
        if self.keeping.is_busy() {
            self.begin_to_keep();
        }
        Ok(())
    }

    /// Waits until nothing reads the files any more.
    pub(super) async fn stop_keeping(&mut self) {
        if self.keeping.under_way.is_some() {
            drop(self.keeping.done().await);
        }
        self.keeping.then.clear();
    }

    /// Returns the session's directory, with its files in it.
    pub(super) async fn files(&mut self) -> Result<PathBuf, Error> {
        let place = self.inner.place(&self.key);
        let unfinished = ax_workspace::unfinished(&place);
        let unfinished = unfinished.map_err(|error| unusable(&place.beside, &error))?;
        let last = self.session.state().workspace.map(|last| BlobId(last.snapshot.hash));
        let wanted = match unfinished {
            Some(half) => Some(half),
            None if is_there(&place.dir)? => None,
            None => last,
        };
        let Some(snapshot) = wanted else {
            // A small call, which another thread would only make longer.
            std::fs::create_dir_all(&place.dir).map_err(|error| unusable(&place.dir, &error))?;
            return Ok(place.dir);
        };
        let (blobs, namespace) = (&self.inner.blobs, &self.key.namespace);
        let done =
            ax_workspace::restore(blobs, namespace, &place, &snapshot, &options(false)).await;
        let done = done.map_err(|error| {
            Error::new(Code::Workspace, "the files cannot be made again").caused_by(&error)
        })?;
        tracing::info!(files = done.files_written, bytes = done.bytes_written, "files are back");
        Ok(place.dir)
    }
}

async fn keep(
    inner: Arc<Inner>,
    key: SessionKey,
    previous: Option<Blob>,
    options: Options,
) -> Kept {
    let _turn = inner.keepers.acquire().await;
    let place = inner.place(&key);
    let taken =
        ax_workspace::snapshot(&inner.blobs, &key.namespace, &place, previous, &options).await;
    let taken = taken.map_err(|error| failure(&error))?;
    if taken.written.len() > BLOBS_MAX {
        let message = format!("what is new takes more than {BLOBS_MAX} blobs");
        return Err(Failure { code: Code::TooLarge.to_string(), message });
    }
    Ok(Saved {
        snapshot: blob_ref(&taken.root),
        blobs: taken.written.iter().map(blob_ref).collect(),
        files: taken.totals.files,
        bytes: taken.totals.bytes,
    })
}

fn options(busy: bool) -> Options {
    Options { skip: vec![SKIP.to_vec()], busy, ..Options::default() }
}

const fn blob(blob: BlobRef) -> Blob {
    Blob { id: BlobId(blob.hash), bytes: blob.bytes }
}

const fn blob_ref(blob: &Blob) -> BlobRef {
    BlobRef { hash: blob.id.0, bytes: blob.bytes }
}

fn failure(error: &SnapshotError) -> Failure {
    let code = match error {
        SnapshotError::Limit { .. } => Code::TooLarge,
        _ => Code::Workspace,
    };
    let causes = Error::new(code, "").caused_by(error).causes;
    Failure { code: code.to_string(), message: causes.join(": ") }
}

/// Whether there is nothing in a workspace but contents of inputs; `None` if it is not there.
fn is_empty(dir: &Path) -> Option<bool> {
    let names = |dir: &Path| {
        let entries = std::fs::read_dir(dir).ok()?;
        Some(entries.filter_map(Result::ok).map(|entry| entry.file_name()))
    };
    let own = |dir: &Path| names(dir).is_none_or(|mut names| names.all(|name| name == "blobs"));
    Some(names(dir)?.all(|name| name == ".ax" && own(&dir.join(name))))
}

fn is_there(dir: &Path) -> Result<bool, Error> {
    dir.try_exists().map_err(|error| unusable(dir, &error))
}

fn unusable(path: &Path, error: &io::Error) -> Error {
    Error::new(Code::Directory, format!("{} cannot be used", path.display())).caused_by(error)
}
