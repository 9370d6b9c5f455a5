//! The engine as its clients see it.

use crate::agents::AgentStore;
use crate::api::{
    AgentSource, AgentView, BranchMade, BranchPlan, EventPage, FollowItem, FollowOptions, Info,
    ListSessions, NewRecord, RecordPage, Recorded, SessionPage, SessionRef, SessionView, Stream,
    Submission, Submitted, WaitState,
};
use crate::inner::Inner;
use crate::observe::{Observer, Unobserved};
use crate::registry::Registry;
use crate::seams::{Clock, Entropy};
use crate::timers::{self, Timers};
use crate::{Code, Error, codec, follow, gc, records};
use ax_core::id::{AskId, ExecId, Namespace, Seq, SessionId, SessionKey};
use ax_core::session::{Accepted, Answer, Body, Caller, Digest, IdempotencyKey, Request};
use ax_harness::Launcher;
use ax_log::{EventLog, Filter, ListQuery, LogFault, ReadLimit, StateMask};
use ax_store::Blobs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How many events a page has at most.
const EVENTS_MAX: usize = 1_000;
/// How many sessions a page has at most.
const SESSIONS_MAX: usize = 1_000;
/// How many workspaces are read at once.
const KEEPERS_MAX: usize = 8;

/// What an engine works with.
#[derive(Debug)]
pub struct Options {
    /// Where workspaces are.
    pub data_dir: PathBuf,
    /// How many attempts may run at once. With 0 the engine only records: it starts, wakes and
    /// recovers nothing.
    pub runs_max: usize,
    /// Where events are kept.
    pub log: Arc<dyn EventLog>,
    /// Where large contents are kept.
    pub blobs: Blobs,
    /// What runs attempts.
    pub launcher: Arc<dyn Launcher>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Gives random numbers.
    pub entropy: Arc<dyn Entropy>,
}

/// Drives sessions. Clones share one engine.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

impl Engine {
    /// Opens an engine, ends what an earlier life left running, and begins to recover what that
    /// cut short; that goes on in the background.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if the log cannot be read.
    pub async fn open(options: Options) -> Result<Self, Error> {
        Self::open_observed(options, Arc::new(Unobserved)).await
    }

    /// Opens an engine that somebody watches.
    ///
    /// # Errors
    ///
    /// As [`Engine::open`].
    pub async fn open_observed(
        options: Options,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, Error> {
        options.launcher.reap_orphans().await;
        let (timers, slept) = Timers::new();
        let clock = Arc::clone(&options.clock);
        let agents = AgentStore::new(Arc::clone(&options.log), move || clock.now());
        let inner = Arc::new(Inner {
            data_dir: options.data_dir,
            runs_max: options.runs_max,
            log: options.log,
            blobs: options.blobs,
            launcher: options.launcher,
            clock: options.clock,
            entropy: options.entropy,
            observer,
            followers: Arc::default(),
            waiting: Arc::default(),
            agents,
            registry: Registry::default(),
            timers,
            slots: Arc::new(Semaphore::new(options.runs_max)),
            keepers: Semaphore::new(KEEPERS_MAX),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            failed: CancellationToken::new(),
            references: Arc::default(),
            collections: crate::turns::Turns::default(),
            keyed: crate::turns::Turns::default(),
            importing: Mutex::default(),
        });
        if inner.runs_anything() {
            drop(inner.tasks.spawn(timers::run(Arc::downgrade(&inner), slept)));
            drop(inner.tasks.spawn(timers::recover(Arc::downgrade(&inner))));
            drop(inner.tasks.spawn(gc::run(Arc::downgrade(&inner))));
        }
        Ok(Self { inner })
    }

    /// Records an input; creates its session if that is new. Returns once the input is durable.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if the input is refused or cannot be kept; nothing has happened then,
    /// unless the code is retryable: then the same key tells whether it has.
    pub async fn submit(
        &self,
        caller: Caller,
        namespace: &Namespace,
        submission: Submission,
    ) -> Result<Submitted, Error> {
        crate::submit::submit(&self.inner, caller, namespace, submission, None).await
    }

    /// Records an input like [`Engine::submit`], and drops `next` once the input has its place
    /// among those of its session: one that is submitted after that comes after it. Whoever has
    /// many inputs for a session need not wait until each of them is durable.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] as [`Engine::submit`] does.
    pub async fn submit_before(
        &self,
        caller: Caller,
        namespace: &Namespace,
        submission: Submission,
        next: oneshot::Sender<()>,
    ) -> Result<Submitted, Error> {
        crate::submit::submit(&self.inner, caller, namespace, submission, Some(next)).await
    }

    /// Follows a session: what is recorded after a position, then what comes.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if there is no such session or position.
    pub async fn follow(
        &self,
        namespace: &Namespace,
        session: &SessionRef,
        options: FollowOptions,
    ) -> Result<Stream<FollowItem>, Error> {
        let key = SessionKey::new(namespace.clone(), session.id);
        follow::follow(Arc::clone(&self.inner), key, options).await
    }

    /// Reads a page of events after a position; `limit` 0 means as many as a page has.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if there is no such session, or the position is no longer kept.
    pub async fn events(
        &self,
        namespace: &Namespace,
        session: &SessionRef,
        after: Seq,
        limit: usize,
    ) -> Result<EventPage, Error> {
        let key = SessionKey::new(namespace.clone(), session.id);
        let head = self.inner.log.head(&key).await?;
        let head = head.ok_or_else(|| no_session(session))?;
        let entries = if limit == 0 { EVENTS_MAX } else { limit.min(EVENTS_MAX) };
        let limit = ReadLimit { entries, ..ReadLimit::default() };
        let entries = self.inner.log.read(&key, after, limit).await?;
        let events = entries.into_iter().map(|entry| (entry.seq, entry.payload)).collect();
        Ok(EventPage { events, last: head.last })
    }

    /// Keeps something for a framework that runs elsewhere, in a new session or an existing one.
    /// Returns once it is durable.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if there is no such session or agent, a blob is missing, a limit is
    /// exceeded, or somebody else has written to the collection ([`Code::Stale`]).
    pub async fn record(
        &self,
        caller: Caller,
        namespace: &Namespace,
        session: &SessionRef,
        record: NewRecord,
    ) -> Result<Submitted, Error> {
        records::write(&self.inner, caller, namespace, session, record).await
    }

    /// Reads records of a collection after a position, from the newest one that stands for all
    /// before it; `limit` 0 means as many as a page has.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if there is no such session.
    pub async fn records(
        &self,
        namespace: &Namespace,
        session: &SessionRef,
        collection: &str,
        after: Seq,
        limit: usize,
    ) -> Result<RecordPage, Error> {
        let limit = if limit == 0 { EVENTS_MAX } else { limit.min(EVENTS_MAX) };
        records::read(&self.inner, namespace, session, collection, after, limit).await
    }

    /// Shows a session.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if there is no such session.
    pub async fn session(
        &self,
        namespace: &Namespace,
        session: &SessionRef,
    ) -> Result<SessionView, Error> {
        let key = SessionKey::new(namespace.clone(), session.id);
        let view = self.inner.show(&key).await?;
        view.ok_or_else(|| no_session(session))
    }

    /// Lists sessions, in the order of their ids.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if the log cannot be read.
    pub async fn sessions(
        &self,
        namespace: &Namespace,
        list: ListSessions,
    ) -> Result<SessionPage, Error> {
        let limit = if list.limit == 0 { 100 } else { list.limit.min(SESSIONS_MAX) };
        let states = if list.states.is_empty() { &WaitState::ALL[..] } else { &list.states };
        let mask = states.iter().fold(StateMask(0), |mask, state| {
            // No row says that a session has no place to run: that changes without an event.
            let kept =
                if *state == WaitState::WaitingCapacity { WaitState::Running } else { *state };
            mask.and(kept as u8)
        });
        let filter = Filter { states: mask, due_before_millis: None };
        let mut page = SessionPage { sessions: Vec::new(), cursor: None };
        let mut after = list.cursor;
        loop {
            let query = ListQuery { namespace: namespace.clone(), after, limit, filter };
            let read = self.inner.log.list(query.clone()).await?;
            for entry in read.rows {
                let mut view = codec::decode_row(entry.session, &entry.head).map_err(|error| {
                    Error::new(Code::Damaged, format!("the row of {} is unreadable", entry.session))
                        .caused_by(&error)
                })?;
                let key = SessionKey::new(query.namespace.clone(), entry.session);
                if view.status.state == WaitState::Running && self.inner.lacks_place(&key) {
                    view.status.waits_for_place();
                }
                if !states.contains(&view.status.state) {
                    continue;
                }
                if list.agent.as_ref().is_some_and(|agent| *agent != view.agent.name) {
                    continue;
                }
                page.sessions.push(view);
                if page.sessions.len() == limit {
                    page.cursor = Some(entry.session);
                    return Ok(page);
                }
            }
            after = read.next;
            if after.is_none() {
                return Ok(page);
            }
        }
    }

    /// Deletes a session: cancels what is under way, and lets go of its events and files. Branches
    /// keep what they share.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if there is no such session.
    pub async fn delete(
        &self,
        caller: Caller,
        namespace: &Namespace,
        session: &SessionRef,
    ) -> Result<(), Error> {
        self.request(caller, namespace, session, Request::Delete).await?;
        let key = SessionKey::new(namespace.clone(), session.id);
        // Gone for whoever asks next: the task is in between, or a crash was.
        self.inner.forget(&key).await
    }

    /// Gives a session a new title.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if there is no such session, or the title is empty or too long.
    pub async fn rename(
        &self,
        caller: Caller,
        namespace: &Namespace,
        session: &SessionRef,
        title: String,
    ) -> Result<Recorded, Error> {
        self.request(caller, namespace, session, Request::Rename { title }).await
    }

    /// Answers a question; which may be left out if only one is open.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if the question is not open, or the answer does not fit.
    pub async fn answer(
        &self,
        caller: Caller,
        namespace: &Namespace,
        session: &SessionRef,
        ask: Option<AskId>,
        answer: Answer,
        via: String,
    ) -> Result<Recorded, Error> {
        let answer = match answer {
            Answer::Choice(choice, text) if choice == "completed" => {
                Answer::Choice(choice, as_json(text))
            }
            answer => answer,
        };
        self.request(caller, namespace, session, Request::Answer { ask, answer, via }).await
    }

    /// Tells a session that something outside has happened. `payload` is JSON.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if there is no such session, the payload is not JSON, or too many
    /// signals wait.
    pub async fn signal(
        &self,
        caller: Caller,
        namespace: &Namespace,
        session: &SessionRef,
        name: String,
        key: Option<IdempotencyKey>,
        payload: String,
    ) -> Result<Recorded, Error> {
        if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&payload) {
            return Err(Error::invalid("the payload of a signal is not JSON").caused_by(&error));
        }
        let to = SessionKey::new(namespace.clone(), session.id);
        let bodies = crate::bodies::Bodies::new(self.inner.blobs.clone());
        let mut hasher = blake3::Hasher::new();
        hasher.update(name.as_bytes()).update(&[0]).update(payload.as_bytes());
        let digest = key.as_ref().map(|_| Digest(*hasher.finalize().as_bytes()));
        let digest = digest.unwrap_or_default();
        let payload = bodies.spill(&to, Body::Text(payload)).await?;
        let request = Request::Signal { name, key, digest, payload };
        self.request(caller, namespace, session, request).await
    }

    /// Stops the execution that is under way, and takes the inputs that wait back if `queued`.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if nothing is under way, or something else than `exec`.
    pub async fn cancel(
        &self,
        caller: Caller,
        namespace: &Namespace,
        session: &SessionRef,
        exec: Option<ExecId>,
        queued: bool,
        reason: String,
    ) -> Result<Recorded, Error> {
        self.request(caller, namespace, session, Request::Cancel { exec, queued, reason }).await
    }

    /// Remembers the position of a session.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if there is no such session, or the name is too long.
    pub async fn checkpoint(
        &self,
        caller: Caller,
        namespace: &Namespace,
        session: &SessionRef,
        name: String,
    ) -> Result<Recorded, Error> {
        self.request(caller, namespace, session, Request::Checkpoint { name }).await
    }

    /// Makes branches of a session.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if there is no such session or position, or a name is taken.
    pub async fn branch(
        &self,
        caller: Caller,
        namespace: &Namespace,
        session: &SessionRef,
        plan: BranchPlan,
    ) -> Result<BranchMade, Error> {
        crate::branch::branch(&self.inner, caller, namespace, session, plan).await
    }

    /// Streams a session as a portable archive (see `docs/formats/archive.md`).
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if there is no such session; the stream if it cannot be read.
    pub async fn export(
        &self,
        namespace: &Namespace,
        session: &SessionRef,
    ) -> Result<Stream<bytes::Bytes>, Error> {
        let key = SessionKey::new(namespace.clone(), session.id);
        crate::archive::export(Arc::clone(&self.inner), key).await
    }

    /// Makes a session from an archive: nothing of it is under way, and all of it can be read.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if the archive is damaged, or the name is taken; nothing is kept then.
    pub async fn import(
        &self,
        caller: Caller,
        namespace: &Namespace,
        name: Option<String>,
        archive: Stream<bytes::Bytes>,
    ) -> Result<(SessionId, Seq), Error> {
        crate::archive::import(&self.inner, caller, namespace, name, archive).await
    }

    /// Stores a manifest as the newest version of its agent; says whether it was that already.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] that lists what is wrong with the manifest.
    pub async fn apply_agent(
        &self,
        namespace: &Namespace,
        source: AgentSource,
    ) -> Result<(AgentView, bool), Error> {
        if let Some(failure) = crate::manifest::parse(&source.manifest)
            .ok()
            .and_then(|manifest| self.inner.launcher.refuses(&manifest.sandbox))
        {
            return Err(Error::new(Code::Unsandboxed, failure.message));
        }
        self.inner.agents.apply(namespace, source).await
    }

    /// Returns an agent: `NAME`, or `NAME@VERSION`.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if there is none.
    pub async fn agent(&self, namespace: &Namespace, agent: &str) -> Result<AgentView, Error> {
        self.inner.agents.get(namespace, agent).await
    }

    /// Returns the newest version of every agent.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if they cannot be read.
    pub async fn agents(&self, namespace: &Namespace) -> Result<Vec<AgentView>, Error> {
        self.inner.agents.list(namespace).await
    }

    /// Deletes an agent. Sessions that have it keep the version they began with.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if there is none.
    pub async fn delete_agent(&self, namespace: &Namespace, agent: &str) -> Result<(), Error> {
        self.inner.agents.delete(namespace, agent).await
    }

    /// Returns the directory of a session, which may not exist yet.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if there is no such session.
    pub async fn workspace(
        &self,
        namespace: &Namespace,
        session: &SessionRef,
    ) -> Result<PathBuf, Error> {
        let key = SessionKey::new(namespace.clone(), session.id);
        self.inner.must_exist(&key).await?;
        Ok(self.inner.workspace_path(&key))
    }

    /// Returns the blob store.
    pub fn blobs(&self) -> &Blobs {
        &self.inner.blobs
    }

    /// Removes the blobs of a namespace that no event refers to and that were put longer than
    /// `grace_millis` ago. The engine does so by itself every hour.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if events or blobs cannot be read.
    pub async fn collect_blobs(
        &self,
        namespace: &Namespace,
        grace_millis: u64,
    ) -> Result<ax_store::Collection, Error> {
        self.inner.collect(namespace, grace_millis).await
    }

    /// Returns what the engine is doing.
    pub fn info(&self) -> Info {
        let free = self.inner.slots.available_permits();
        Info {
            awake_sessions: self.inner.registry.awake_count() as u64,
            running_attempts: self.inner.runs_max.saturating_sub(free) as u64,
            waiting_attempts: self.inner.waiting.count() as u64,
            blobs: self.inner.blobs.counters(),
            followers: self.inner.followers.load(Ordering::Relaxed) as u64,
            is_stopping: self.inner.stopping.is_cancelled(),
            has_failed: self.inner.failed.is_cancelled()
                || matches!(self.inner.log.fault(), Some(LogFault::Poisoned { .. })),
        }
    }

    /// Waits until the engine cannot go on since its log takes nothing more: stop the process then
    /// and open the store anew.
    pub async fn failed(&self) {
        self.inner.failed.cancelled().await;
    }

    /// Stops: what runs is stopped and goes on when the engine is opened again, followers are told
    /// where to resume, and the log is closed.
    pub async fn shutdown(&self) {
        self.inner.stopping.cancel();
        self.inner.registry.close();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        if let Err(error) = self.inner.log.close().await {
            tracing::warn!(%error, "the log was not closed");
        }
    }

    async fn request(
        &self,
        caller: Caller,
        namespace: &Namespace,
        session: &SessionRef,
        request: Request,
    ) -> Result<Recorded, Error> {
        let key = SessionKey::new(namespace.clone(), session.id);
        self.inner.must_exist(&key).await?;
        let accepted = self.inner.ask(&key, caller, vec![request]).await?;
        Ok(match accepted.last() {
            Some(Accepted::At(seq)) => Recorded { seq: *seq, duplicate: false },
            Some(Accepted::Before(seq)) => Recorded { seq: *seq, duplicate: true },
            _ => Recorded { seq: Seq::ZERO, duplicate: true },
        })
    }
}

fn no_session(session: &SessionRef) -> Error {
    let name = if session.name.is_empty() { session.id.to_string() } else { session.name.clone() };
    Error::new(Code::NoSession, format!("there is no session {name}"))
}

/// What a person says a step returned: JSON as it is, anything else as a JSON string.
fn as_json(text: String) -> String {
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
    if text.is_empty() || is_json { text } else { serde_json::Value::String(text).to_string() }
}
