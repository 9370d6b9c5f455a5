//! The task of a session that is awake: its only writer.
//!
//! It waits for a request, a word of the harness or a point in time, feeds the session machine,
//! appends what the machine wants kept, and only then answers and acts.

mod attempt;
mod commit;
mod load;
mod workspace;

use crate::api::{SessionView, WaitState};
use crate::bodies::Bodies;
use crate::inner::Inner;
use crate::references::Held;
use crate::view::{self, RowKey};
use crate::{Code, Error};
use attempt::{Attempts, Heard};
use ax_core::id::{AttemptId, Epoch, ExecId, Seq, SessionId, SessionKey};
use ax_core::session::{
    Accepted, Caller, Collection, Effect, Failure, Input, Refusal, Request, Session,
};
use ax_core::time::Timestamp;
use ax_log::Fence;
use ax_log::types::APPEND_BYTES_MAX;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;
use workspace::Keeping;

pub(crate) use load::read_only;

/// How many things are taken up before they are made durable together.
const BATCH_MAX: usize = 128;
/// How many bytes of events, before what was taken up last: together they fit into an append.
const BATCH_BYTES_MAX: usize = APPEND_BYTES_MAX / 4;
/// A session that is due this soon does not fall asleep.
const NAP_MILLIS_MIN: u64 = 200;

/// What a session's task can be told.
#[derive(Debug)]
pub(crate) enum Command {
    /// A client wants these things, in one batch: the first says whether it is new.
    Ask(Caller, Vec<Request>, Asked),
    /// Somebody wants to know what it is doing.
    Show(oneshot::Sender<Result<SessionView, Error>>),
    /// Somebody wants to know where the records of a collection are.
    Collection(String, oneshot::Sender<Result<Collection, Error>>),
    /// Something may be due.
    Nudge,
    /// The engine stops.
    Stop,
}

impl Command {
    /// Tells whoever waits that it will not be done.
    pub(crate) fn refuse(self, error: Error) {
        match self {
            Self::Ask(_, _, asked) => asked.answer(Err(error)),
            Self::Show(reply) => drop(reply.send(Err(error))),
            Self::Collection(_, reply) => drop(reply.send(Err(error))),
            Self::Nudge | Self::Stop => {}
        }
    }
}

/// Somebody who asked, and the blobs that are held for it, whether it still waits or not.
#[derive(Debug)]
pub(crate) struct Asked {
    reply: oneshot::Sender<Result<Vec<Accepted>, Error>>,
    _held: Option<Arc<Held>>,
}

impl Asked {
    pub(crate) const fn new(
        reply: oneshot::Sender<Result<Vec<Accepted>, Error>>,
        held: Option<Arc<Held>>,
    ) -> Self {
        Self { reply, _held: held }
    }

    fn answer(self, answer: Result<Vec<Accepted>, Error>) {
        drop(self.reply.send(answer));
    }
}

/// The task of a session.
struct Task {
    inner: Arc<Inner>,
    key: SessionKey,
    bodies: Bodies,
    session: Session,
    epoch: Epoch,
    /// Whether what is done may rest on the right to write.
    fence: Fence,
    parent: Option<(SessionId, Seq)>,
    /// Its import is not finished.
    is_half: bool,
    attempts: Attempts,
    /// What waits until the files are kept.
    keeping: Keeping,
    commands: mpsc::UnboundedReceiver<Command>,
    /// What is to be appended, as far as it was encoded.
    encoded: Vec<Bytes>,
    encoded_bytes: usize,
    /// Who is told once what was decided is durable.
    waiting: Vec<(Asked, Vec<Accepted>)>,
    row: Option<RowKey>,
    row_at: Timestamp,
    snapshot_at: Seq,
    /// Time does not go back within a session, whatever the clock does.
    floor: Timestamp,
    stopping: bool,
}

/// Starts the task of a session.
pub(crate) fn spawn(
    inner: &Arc<Inner>,
    key: SessionKey,
    commands: mpsc::UnboundedReceiver<Command>,
) {
    let span = tracing::info_span!("session", session = %key);
    let task = start(Arc::clone(inner), key, commands);
    drop(inner.tasks.spawn(task.instrument(span)));
}

async fn start(inner: Arc<Inner>, key: SessionKey, mut commands: mpsc::UnboundedReceiver<Command>) {
    let loaded = load::load(&inner, &key).await;
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            if error.code == Code::Deleted {
                tracing::debug!(%error, "a deleted session was asked for");
            } else {
                tracing::warn!(%error, "the session cannot be loaded");
            }
            inner.registry.fail(&key, &mut commands, &error);
            return inner.retry_later(&key, &error);
        }
    };
    let mut task = Task::new(Arc::clone(&inner), key.clone(), loaded, commands);
    task.observe().await;
    let _asleep = Asleep(Arc::clone(&inner), key.clone());
    if let Err(error) = task.run().await {
        tracing::warn!(%error, "the session cannot go on");
        task.attempts.kill_all().await;
        for (asked, _) in task.waiting.drain(..) {
            asked.answer(Err(error.clone()));
        }
        inner.log.release(&key, task.epoch);
        inner.registry.fail(&key, &mut task.commands, &error);
        inner.retry_later(&key, &error);
        if error.code == Code::Poisoned {
            inner.failed.cancel();
        }
    }
}

/// Tells the observer when the task is over, however it ends.
struct Asleep(Arc<Inner>, SessionKey);

impl Drop for Asleep {
    fn drop(&mut self) {
        self.0.observer.slept(&self.1);
    }
}

impl Task {
    fn new(
        inner: Arc<Inner>,
        key: SessionKey,
        loaded: load::Loaded,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        let bodies = Bodies::new(inner.blobs.clone());
        let attempts = Attempts::new(Arc::clone(&inner), key.clone());
        let floor = loaded.floor;
        Self {
            inner,
            key,
            bodies,
            snapshot_at: loaded.snapshot_at,
            session: loaded.session,
            epoch: loaded.epoch,
            fence: loaded.fence,
            parent: loaded.parent,
            is_half: loaded.is_half,
            attempts,
            keeping: Keeping::default(),
            commands,
            encoded: Vec::new(),
            encoded_bytes: 0,
            waiting: Vec::new(),
            row: None,
            row_at: floor,
            floor,
            stopping: false,
        }
    }

    fn now(&mut self) -> Timestamp {
        self.floor = self.floor.max(self.inner.clock.now());
        self.floor
    }

    /// Runs until the session falls asleep, is deleted, or the engine stops.
    async fn run(&mut self) -> Result<(), Error> {
        self.begin();
        loop {
            self.commit().await?;
            if self.session.state().deleted {
                return self.delete().await;
            }
            if self.may_sleep() {
                let (key, epoch) = (self.key.clone(), self.epoch);
                if self.inner.registry.sleep(&self.inner, &key, epoch, &self.commands) {
                    self.inner.timers.slept(&key, self.session.wake_at(self.floor));
                    return Ok(());
                }
            }
            self.wait().await?;
        }
    }

    /// What was cut short by a crash is taken up.
    fn begin(&mut self) {
        // Half an import is not taken up, and an engine that only records takes nothing up.
        if !self.is_unborn() && !self.is_half && self.inner.runs_anything() {
            let now = self.now();
            drop(self.feed(now, &Input::Recover));
        }
    }

    /// Whether this is a branch to which nothing has happened yet, so that its state is still its
    /// parent's.
    fn is_unborn(&self) -> bool {
        self.parent.is_some_and(|(_, at)| at == self.session.state().last)
    }

    /// Lets go of what the parent of a branch had promised, if that has not been done yet.
    fn be_born(&mut self) {
        if let Some((parent, at)) = self.parent.filter(|_| self.is_unborn()) {
            let (now, seed) = (self.now(), self.inner.entropy.number());
            let request = Request::Branch { parent, at, carry_on: false, seed };
            drop(self.feed(now, &Input::Client(Caller::default(), request)));
        }
    }

    /// Waits for something to happen, and takes it up with all that has happened meanwhile.
    async fn wait(&mut self) -> Result<(), Error> {
        let pause = self.pause();
        if pause.is_some_and(|pause| pause.is_zero()) {
            // A harness that always has something to say does not keep time from passing. What was
            // asked for comes first: it may be what a new branch begins with.
            if let Ok(command) = self.commands.try_recv() {
                self.take(command).await?;
            }
            self.tick();
        } else {
            tokio::select! {
                biased;
                () = self.fence.fallen_down() => self.check_fence()?,
                command = self.commands.recv() => match command {
                    Some(command) => self.take(command).await?,
                    None => self.stopping = true,
                },
                kept = self.keeping.done() => self.kept(kept).await?,
                heard = self.attempts.hear(), if !self.keeping.is_busy() => {
                    self.keep_and_hear(heard).await?;
                }
                () = tokio::time::sleep(pause.unwrap_or(Duration::MAX)), if pause.is_some() => {
                    self.tick();
                }
            }
        }
        for _ in 0..BATCH_MAX {
            if self.encode() >= BATCH_BYTES_MAX {
                break;
            }
            if let Ok(command) = self.commands.try_recv() {
                self.take(command).await?;
            } else if self.keeping.is_busy() {
                break;
            } else if let Some(heard) = self.attempts.try_hear() {
                self.keep_and_hear(heard).await?;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// How long there is nothing to do, if that is known.
    fn pause(&mut self) -> Option<Duration> {
        // An attempt that waits for its files to be kept is not silent.
        if !self.inner.runs_anything() || self.keeping.is_busy() {
            return None;
        }
        let now = self.now();
        let deadline = self.session.deadline(now)?;
        Some(Duration::from_millis(deadline.millis_since(now)))
    }

    fn tick(&mut self) {
        self.be_born();
        if !self.inner.runs_anything() {
            return;
        }
        let now = self.now();
        if self.session.deadline(now).is_some_and(|deadline| deadline <= now) {
            drop(self.feed(now, &Input::Tick));
        }
    }

    fn feed(&mut self, now: Timestamp, input: &Input) -> Result<Accepted, Refusal> {
        let fed = self.session.handle(now, input);
        if let Err(refusal) = &fed {
            tracing::debug!(%refusal, "refused");
        }
        fed
    }

    async fn take(&mut self, command: Command) -> Result<(), Error> {
        match command {
            Command::Ask(caller, requests, asked) => {
                self.keep_and_ask(caller, requests, asked).await;
            }
            Command::Show(reply) => {
                // What is shown must be durable.
                self.be_born();
                self.commit().await?;
                drop(reply.send(self.view()));
            }
            Command::Collection(name, reply) => {
                self.be_born();
                self.commit().await?;
                let found = self.session.state().collections.get(&name).copied();
                drop(reply.send(Ok(found.unwrap_or_default())));
            }
            Command::Nudge => self.tick(),
            Command::Stop => {
                let now = self.now();
                drop(self.feed(now, &Input::Suspend));
                self.stopping = true;
            }
        }
        if self.stopping {
            self.attempts.stop_all().await;
        }
        Ok(())
    }

    fn ask(&mut self, caller: &Caller, requests: Vec<Request>, asked: Asked) {
        if self.stopping {
            return asked.answer(Err(Error::new(Code::Stopping, "the engine is stopping")));
        }
        if let Err(error) = self.inner.registry.admit(self.commands.len()) {
            return asked.answer(Err(error));
        }
        if !matches!(requests.first(), Some(Request::Branch { .. })) {
            self.be_born();
        } else if !self.is_unborn() {
            let what = format!("the session {} exists already", self.key.session);
            return asked.answer(Err(Error::new(Code::Exists, what)));
        }
        let now = self.now();
        // Several at once begin a session: all of them are accepted, or nothing has happened.
        let unbegun = self.session.state().identity.is_none().then(|| self.session.clone());
        let mut accepted = Vec::with_capacity(requests.len());
        for request in requests {
            // The title of a new session is not given to one that was there before.
            if matches!(accepted.first(), Some(Accepted::Before(_)))
                && matches!(request, Request::Rename { .. })
            {
                continue;
            }
            match self.feed(now, &Input::Client(caller.clone(), request)) {
                Ok(one) => accepted.push(one),
                Err(refusal) => {
                    if let Some(unbegun) = unbegun {
                        self.session = unbegun;
                    }
                    return asked.answer(Err(refusal.into()));
                }
            }
        }
        self.waiting.push((asked, accepted));
    }

    fn view(&mut self) -> Result<SessionView, Error> {
        let now = self.now();
        let status = view::status(&self.session, now, self.attempts.has_place());
        let key = RowKey::of(&status, self.session.state());
        if self.row.as_ref() != Some(&key) {
            self.row_at = now;
        }
        let id = self.key.session;
        let view = view::session_view(id, &self.session, self.parent, status, self.row_at);
        view.ok_or_else(|| Error::new(Code::NoSession, format!("there is no session {id}")))
    }

    async fn hear(&mut self, heard: Heard) -> Result<(), Error> {
        let now = self.now();
        match heard {
            Heard::Frame(exec, attempt, frame) => {
                let frame = match self.bodies.spill_frame(&self.key, frame).await {
                    Ok(frame) => frame,
                    Err(error) => return self.break_off(exec, attempt, error),
                };
                let input = Input::Frame(exec, attempt, frame);
                if let (Err(refusal), Input::Frame(_, _, frame)) = (self.feed(now, &input), &input)
                {
                    self.refused(exec, attempt, frame, &refusal);
                }
            }
            // What is stopped with the engine has not failed.
            Heard::Gone(..) if self.stopping => {}
            Heard::Gone(exec, attempt, failure) => {
                drop(self.feed(now, &Input::HarnessGone(exec, attempt, failure)));
            }
            Heard::Nothing => {}
        }
        Ok(())
    }

    /// What a harness said or is to be told cannot be handled: its attempt fails, the session does
    /// not.
    fn break_off(&mut self, exec: ExecId, attempt: AttemptId, error: Error) -> Result<(), Error> {
        if matches!(error.code, Code::Poisoned | Code::Stopping) {
            return Err(error);
        }
        let message = [vec![error.message], error.causes].concat().join(": ");
        let failure = Failure { code: error.code.to_string(), message };
        let now = self.now();
        drop(self.feed(now, &Input::HarnessGone(exec, attempt, failure)));
        Ok(())
    }

    fn may_sleep(&self) -> bool {
        if !self.attempts.is_idle() || self.keeping.is_busy() {
            return false;
        }
        let due = self.session.deadline(self.floor);
        let soon = self.floor.plus_millis(NAP_MILLIS_MIN);
        let idles = self.stopping || !self.inner.runs_anything();
        idles || due.is_none_or(|due| due > soon)
    }

    /// Refuses to act once the right to write may be another's: whoever has it acts now.
    pub(super) fn check_fence(&self) -> Result<(), Error> {
        if self.fence.holds() {
            return Ok(());
        }
        Err(Error::new(Code::Stopping, "the right to write the session has lapsed"))
    }

    /// Carries out what rests on durable events.
    async fn act(&mut self, effects: Vec<Effect>) -> Result<(), Error> {
        for effect in effects {
            self.check_fence()?;
            match effect {
                Effect::Start(exec, attempt) if !self.stopping && self.inner.runs_anything() => {
                    self.attempts.start(exec, attempt);
                }
                Effect::Start(..) => {}
                Effect::Stop(exec, attempt, stop) => self.attempts.stop(exec, attempt, stop).await,
                Effect::Tell(exec, attempt, reply) => {
                    if let Err(error) = self.tell(exec, attempt, reply).await {
                        self.break_off(exec, attempt, error)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The session is deleted: the log lets go of it.
    async fn delete(&mut self) -> Result<(), Error> {
        self.attempts.kill_all().await;
        self.stop_keeping().await;
        self.inner.forget(&self.key).await?;
        let gone = Error::new(Code::Deleted, "the session is deleted");
        self.inner.registry.fail(&self.key, &mut self.commands, &gone);
        Ok(())
    }

    /// Whether the row of this session is shown in lists.
    fn row_state(&self, state: WaitState) -> u8 {
        if self.session.state().deleted { crate::inner::ROW_DELETING } else { state as u8 }
    }
}
