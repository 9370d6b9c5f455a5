//! The attempts of a session: at most one acts at a time.

use super::Task;
use crate::inner::Inner;
use crate::trace;
use crate::transcript::{Before, Reader};
use crate::{Code, Error};
use ax_core::id::{AttemptId, ExecId, SessionKey};
use ax_core::session::{BlockId, Failure, Frame, Kind, PartKind, Refusal, Reply, Stop};
use ax_harness::{AskResult, Exit, Io, Launch, MayAct, Told, Used};
use ax_log::Fence;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Pieces of output are put together for this long.
const DELTA_MILLIS: u64 = 20;
/// Or until there is this much of it, in bytes.
const DELTA_BYTES: usize = 4 * 1024;
/// How many frames a harness can be ahead.
const FRAMES_AHEAD: usize = 64;
/// How many things a harness can be told that it has not read.
const TOLD_AHEAD: usize = 4_096;
/// How long a harness has to go when it is asked to, in milliseconds.
const GRACE_MILLIS: u64 = 10_000;
/// How long a harness has to go once it has said that it is done, in milliseconds.
const END_MILLIS: u64 = 30_000;

/// What was heard of an attempt.
#[derive(Debug)]
pub(super) enum Heard {
    /// It said something.
    Frame(ExecId, AttemptId, Frame),
    /// It is gone and had not said why.
    Gone(ExecId, AttemptId, Failure),
    /// Something changed that only matters to the attempts themselves.
    Nothing,
}

/// An attempt whose harness may be alive.
struct Attempt {
    exec: ExecId,
    attempt: AttemptId,
    frames: mpsc::Receiver<Frame>,
    told: mpsc::Sender<Told>,
    kill: CancellationToken,
    exit: oneshot::Receiver<Exit>,
    /// When it is killed, if it has been told to go.
    kill_at: Option<Instant>,
    /// A piece of output that waits for more.
    delta: Option<(BlockId, PartKind, String, Instant)>,
    /// A frame that waits for the piece before it.
    held: Option<Frame>,
    _place: OwnedSemaphorePermit,
}

/// The attempts of a session: one that is alive, and perhaps one that is due.
pub(super) struct Attempts {
    inner: Arc<Inner>,
    key: SessionKey,
    alive: Option<Attempt>,
    due: Option<(ExecId, AttemptId)>,
    place: Option<BoxFuture<'static, OwnedSemaphorePermit>>,
    free: Option<OwnedSemaphorePermit>,
}

impl Attempts {
    pub(super) const fn new(inner: Arc<Inner>, key: SessionKey) -> Self {
        Self { inner, key, alive: None, due: None, place: None, free: None }
    }

    /// Whether nothing is alive and nothing is due.
    pub(super) const fn is_idle(&self) -> bool {
        self.alive.is_none() && self.due.is_none()
    }

    /// Whether an attempt that is due does not wait for a place.
    pub(super) const fn has_place(&self) -> bool {
        self.due.is_none() || self.alive.is_some()
    }

    pub(super) fn start(&mut self, exec: ExecId, attempt: AttemptId) {
        self.due = Some((exec, attempt));
    }

    pub(super) async fn stop(&mut self, exec: ExecId, attempt: AttemptId, stop: Stop) {
        if self.due == Some((exec, attempt)) {
            self.due = None;
            (self.place, self.free) = (None, None);
        }
        let Some(alive) = &mut self.alive else { return };
        if (alive.exec, alive.attempt) != (exec, attempt) {
            return;
        }
        let told = match stop {
            Stop::Park => Told::Park { grace_millis: GRACE_MILLIS },
            Stop::Cancel => Told::Cancel { grace_millis: GRACE_MILLIS, reason: String::new() },
            Stop::Kill => return alive.kill.cancel(),
        };
        alive.tell(told);
        alive.kill_at = Some(Instant::now() + Duration::from_millis(2 * GRACE_MILLIS));
    }

    /// Tells what is alive to stop, since the engine does.
    pub(super) async fn stop_all(&mut self) {
        self.due = None;
        (self.place, self.free) = (None, None);
        if let Some(alive) = &self.alive {
            alive.kill.cancel();
        }
    }

    /// Kills what is alive, and waits until it is gone.
    pub(super) async fn kill_all(&mut self) {
        self.stop_all().await;
        if let Some(mut alive) = self.alive.take() {
            while alive.frames.recv().await.is_some() {}
            drop(alive.exit.await);
        }
    }

    pub(super) fn tell(&mut self, exec: ExecId, attempt: AttemptId, told: Told) {
        if let Some(alive) = &mut self.alive
            && (alive.exec, alive.attempt) == (exec, attempt)
        {
            alive.tell(told);
        }
    }

    /// Waits until something is heard.
    pub(super) async fn hear(&mut self) -> Heard {
        if let Some(alive) = &mut self.alive {
            let heard = alive.hear().await;
            if let Some(exit) = heard.1 {
                let gone = self.alive.take().expect("it was alive just now");
                // The session machine knows whether it had said why.
                let failure = match exit {
                    Exit::Gone(failure) => failure,
                    Exit::Said => Failure {
                        code: "adapter".into(),
                        message: "the harness ended without a word".into(),
                    },
                };
                return Heard::Gone(gone.exec, gone.attempt, failure);
            }
            return heard.0;
        }
        let Some(place) = &mut self.place else { return std::future::pending().await };
        self.free = Some(place.await);
        self.place = None;
        Heard::Nothing
    }

    /// Returns what can be heard without waiting.
    pub(super) fn try_hear(&mut self) -> Option<Heard> {
        let alive = self.alive.as_mut()?;
        if alive.held.is_some() {
            return None;
        }
        let frame = alive.frames.try_recv().ok()?;
        Some(alive.sort(frame))
    }

    /// Returns the attempt that can be launched now: one is due, the last is gone, and there is a
    /// place for it.
    fn launchable(&mut self) -> Option<(ExecId, AttemptId, OwnedSemaphorePermit)> {
        let (exec, attempt) = self.due?;
        if self.alive.is_some() {
            return None;
        }
        if let Some(place) = self.free.take() {
            self.due = None;
            return Some((exec, attempt, place));
        }
        if self.place.is_none() {
            let slots = Arc::clone(&self.inner.slots);
            if let Ok(place) = Arc::clone(&slots).try_acquire_owned() {
                self.due = None;
                return Some((exec, attempt, place));
            }
            let queued = self.inner.waiting.enter(&self.key);
            self.place = Some(Box::pin(async move {
                let _queued = queued;
                slots.acquire_owned().await.expect("the places are never closed")
            }));
        }
        None
    }

    fn launch(&mut self, launch: Launch, place: OwnedSemaphorePermit, fence: &Fence) {
        let (frame_sender, frames) = mpsc::channel(FRAMES_AHEAD);
        let (told, told_receiver) = mpsc::channel(TOLD_AHEAD);
        let (exit_sender, exit) = oneshot::channel();
        let kill = CancellationToken::new();
        let (exec, attempt) = (launch.exec, launch.attempt);
        let (falls, dies) = (fence.clone(), kill.clone());
        let fence = fence.clone();
        let may_act = MayAct::when(move || fence.holds());
        let io = Io { frames: frame_sender, told: told_receiver, kill: kill.clone(), may_act };
        let running = self.inner.launcher.launch(launch, io);
        drop(self.inner.tasks.spawn(async move {
            tokio::pin!(running);
            let exit = tokio::select! {
                biased;
                exit = &mut running => exit,
                // Whatever the session's task is waiting for: what may not act is ended.
                () = falls.fallen_down() => {
                    dies.cancel();
                    running.await
                }
            };
            drop(exit_sender.send(exit));
        }));
        tracing::info!(%exec, attempt = attempt.0, "launched");
        self.alive = Some(Attempt {
            exec,
            attempt,
            frames,
            told,
            kill,
            exit,
            kill_at: None,
            delta: None,
            held: None,
            _place: place,
        });
    }

    pub(super) fn dead_on_arrival(&self, exec: ExecId, attempt: AttemptId, error: &Error) -> Heard {
        let causes = error.causes.join(": ");
        tracing::warn!(session = %self.key, %error, "an attempt cannot be launched");
        let message = if causes.is_empty() {
            error.message.clone()
        } else {
            format!("{}: {causes}", error.message)
        };
        Heard::Gone(exec, attempt, Failure { code: error.code.to_string(), message })
    }
}

impl Attempt {
    fn tell(&mut self, told: Told) {
        if self.told.try_send(told).is_err() && !self.told.is_closed() {
            // A harness that does not read what it is told cannot be helped.
            self.kill.cancel();
        }
    }

    /// Waits for a frame, for a piece of output that has waited long enough, or for the end.
    async fn hear(&mut self) -> (Heard, Option<Exit>) {
        // Asked for first: one that goes on talking is killed all the same.
        if self.kill_at.is_some_and(|kill_at| kill_at <= Instant::now()) {
            self.kill_at = None;
            self.kill.cancel();
        }
        if let Some(frame) = self.held.take() {
            return (self.sort(frame), None);
        }
        let flush_at =
            self.delta.as_ref().map(|(.., since)| *since + Duration::from_millis(DELTA_MILLIS));
        let far = Instant::now() + Duration::from_secs(86_400);
        let (flush_due, kill_due) = (flush_at.is_some(), self.kill_at.is_some());
        tokio::select! {
            biased;
            frame = self.frames.recv() => match frame {
                Some(frame) => (self.sort(frame), None),
                None if self.delta.is_some() => (self.flush(), None),
                None => {
                    let exit = (&mut self.exit).await;
                    let exit = exit.unwrap_or_else(|_| Exit::Gone(Failure {
                        code: "adapter".into(),
                        message: "the adapter of the harness broke down".into(),
                    }));
                    (Heard::Nothing, Some(exit))
                }
            },
            () = tokio::time::sleep_until(flush_at.unwrap_or(far)), if flush_due => {
                (self.flush(), None)
            }
            () = tokio::time::sleep_until(self.kill_at.unwrap_or(far)), if kill_due => {
                self.kill_at = None;
                self.kill.cancel();
                (Heard::Nothing, None)
            }
        }
    }

    /// Puts pieces of output together; anything else is heard after the piece before it.
    fn sort(&mut self, frame: Frame) -> Heard {
        match frame {
            Frame::Delta { block, part, text } => match &mut self.delta {
                Some((to, kind, so_far, _)) if *to == block && *kind == part => {
                    so_far.push_str(&text);
                    if so_far.len() >= DELTA_BYTES { self.flush() } else { Heard::Nothing }
                }
                Some(_) => {
                    let heard = self.flush();
                    self.delta = Some((block, part, text, Instant::now()));
                    heard
                }
                None => {
                    self.delta = Some((block, part, text, Instant::now()));
                    Heard::Nothing
                }
            },
            frame if self.delta.is_some() => {
                self.held = Some(frame);
                self.flush()
            }
            frame => {
                if matches!(frame, Frame::End { .. } | Frame::Fail { .. }) {
                    self.kill_at = Some(Instant::now() + Duration::from_millis(END_MILLIS));
                }
                Heard::Frame(self.exec, self.attempt, frame)
            }
        }
    }

    /// Hands over what was put together; what is over the limit of a piece waits again.
    fn flush(&mut self) -> Heard {
        let Some((block, part, mut text, since)) = self.delta.take() else {
            return Heard::Nothing;
        };
        const PIECE_BYTES_MAX: usize = 8 * DELTA_BYTES;
        if text.len() > PIECE_BYTES_MAX {
            let piece = crate::bodies::short(text.clone(), PIECE_BYTES_MAX);
            let rest = text.split_off(piece.len());
            self.delta = Some((block.clone(), part, rest, since));
        }
        Heard::Frame(self.exec, self.attempt, Frame::Delta { block, part, text })
    }
}

impl Task {
    /// Launches the attempt that is due, if it can be; says whether it did.
    pub(super) async fn launch(&mut self) -> Result<bool, Error> {
        if self.keeping.is_busy() {
            return Ok(false);
        }
        let Some((exec, attempt, place)) = self.attempts.launchable() else { return Ok(false) };
        let heard = match self.prepare(exec, attempt).await {
            Ok(launch) => {
                self.check_fence()?;
                self.attempts.launch(launch, place, &self.fence);
                // From here on its silence counts.
                Heard::Frame(exec, attempt, Frame::Heartbeat)
            }
            Err(error) if error.code == Code::Poisoned => return Err(error),
            Err(error) => self.attempts.dead_on_arrival(exec, attempt, &error),
        };
        self.hear(heard).await?;
        Ok(true)
    }

    async fn prepare(&mut self, exec: ExecId, attempt: AttemptId) -> Result<Launch, Error> {
        let workspace = self.files().await?;
        let state = self.session.state();
        let under_way = state.exec.as_ref().filter(|under_way| under_way.id == exec);
        let under_way = under_way.expect("only the execution under way is launched");
        let identity = state.identity.as_ref().expect("a session that runs was created");
        let agent = &identity.agent;
        let agent = self.inner.agent_of(&self.key.namespace, agent).await?;
        let reader = Reader { log: self.inner.log.as_ref(), bodies: &self.bodies, key: &self.key };
        let durable = self.session.durable();
        let Before { history, kept, mut sent } = reader.history(under_way, &workspace).await?;
        let (journal, sent_now) = reader.journal(under_way, durable).await?;
        sent.extend(sent_now);
        let mut used = Used { execution: under_way.usage, session: state.usage };
        used.session.add(&under_way.usage);
        let (input, sent_within) = reader.input(under_way.input, &workspace).await?;
        let makes_spans = self.inner.observer.makes_spans();
        let within = trace::of_attempt(makes_spans, &sent_within, &self.key, exec, attempt);
        Ok(Launch {
            key: self.key.clone(),
            agent,
            exec,
            attempt,
            history,
            kept,
            input_seq: under_way.input,
            input,
            journal,
            doubts: under_way.in_doubt().cloned().collect(),
            sent,
            env: within.map(|within| ("TRACEPARENT".to_owned(), within)).into_iter().collect(),
            used,
            workspace,
        })
    }

    /// Tells the harness something that is durable now.
    pub(super) async fn tell(
        &mut self,
        exec: ExecId,
        attempt: AttemptId,
        reply: Reply,
    ) -> Result<(), Error> {
        let reader = Reader { log: self.inner.log.as_ref(), bodies: &self.bodies, key: &self.key };
        let told = match reply {
            Reply::Granted { step } => Told::Granted { step },
            Reply::Recorded { key, seq, before: false } => {
                Told::Recorded { key, seq, before: None }
            }
            Reply::Recorded { key, seq, before: true } => {
                let Some(under_way) = &self.session.state().exec else { return Ok(()) };
                let (journal, _) = reader.journal(under_way, self.session.durable()).await?;
                let before = journal.into_iter().find(|entry| entry.key == key);
                Told::Recorded { key, seq, before }
            }
            Reply::Answered { key, answer } => {
                Told::Answered { key, result: AskResult::Answered(answer) }
            }
            Reply::AskExpired { key } => Told::Answered { key, result: AskResult::Expired },
            Reply::TimerFired { key } => Told::Fired { key },
            Reply::Signaled { key, signal } => match reader.event(signal).await?.kind {
                Kind::SignalReceived { name, payload, .. } => {
                    let payload = self.bodies.text(&self.key, &payload).await?;
                    Told::Signaled { key, name, payload }
                }
                other => {
                    let what = format!("event {signal} is {}, not a signal", other.name());
                    return Err(Error::new(Code::Damaged, what));
                }
            },
        };
        self.attempts.tell(exec, attempt, told);
        Ok(())
    }

    /// A harness said what it may not say: it is told, and if it cannot go on its attempt ends.
    pub(super) fn refused(
        &mut self,
        exec: ExecId,
        attempt: AttemptId,
        frame: &Frame,
        refusal: &Refusal,
    ) {
        if matches!(refusal, Refusal::NotRunning(..)) {
            return;
        }
        let key = frame.key().cloned();
        let (code, message) = (Code::Frame.to_string(), refusal.to_string());
        let told = Told::Refused { key: key.clone(), code: code.clone(), message: message.clone() };
        self.attempts.tell(exec, attempt, told);
        if key.is_none() {
            let failure = Failure { code, message };
            let gone = ax_core::session::Input::HarnessGone(exec, attempt, failure);
            let now = self.now();
            drop(self.feed(now, &gone));
        }
    }
}
