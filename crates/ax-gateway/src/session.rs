//! The gateway's side of the conversation with its session.

use ax_core::session::{Answer, Body, Digest, Failure, Frame, Prefix, StepKey, Usage};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// What every key of the gateway begins with; no harness may use one that does.
pub const KEY_PREFIX: &str = "gw:";

/// How soon somebody who waits notices that the attempt is over.
const WAKE_EVERY: Duration = Duration::from_millis(100);
/// The longest name of a step, in bytes.
const NAME_BYTES_MAX: usize = 200;

/// Something that an earlier attempt of the execution recorded under a key of the gateway.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The key.
    pub key: StepKey,
    /// What the step did: a model or a tool.
    pub name: String,
    /// The hash of its request.
    pub digest: Digest,
    /// The request, as JSON, as far as it was new then; empty if it is not known.
    pub request: String,
    /// Its place in the chain of requests, if it was a model call.
    pub prefix: Option<Prefix>,
    /// What it returned, or why it failed.
    pub result: Result<String, Failure>,
}

/// What a session tells its gateway.
#[derive(Clone, Debug)]
pub enum Told {
    /// A step may be carried out: its intent is durable.
    Granted,
    /// What was said is durable.
    Recorded,
    /// A person answered; `None` if nobody did in time.
    Answered(Option<Answer>),
    /// What was said was refused.
    Refused(String),
}

/// The session takes nothing more, or refuses what it was told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Closed(pub(crate) String);

impl Closed {
    fn over() -> Self {
        Self("the attempt is over".into())
    }
}

/// What waits for the session's word, by key.
type Waiting = HashMap<StepKey, oneshot::Sender<Told>>;

/// The way to the session.
pub(crate) struct Session {
    frames: mpsc::Sender<Frame>,
    waiting: Mutex<Waiting>,
    may_act: Box<dyn Fn() -> bool + Send + Sync>,
    closing: AtomicBool,
    /// Why the attempt cannot go on.
    failed: watch::Sender<Option<Failure>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(
        frames: mpsc::Sender<Frame>,
        may_act: Box<dyn Fn() -> bool + Send + Sync>,
    ) -> Self {
        Self {
            frames,
            waiting: Mutex::default(),
            may_act,
            closing: AtomicBool::new(false),
            failed: watch::Sender::default(),
        }
    }

    /// Nothing new begins from now on, and nobody waits for people any more.
    pub(crate) fn closing(&self) {
        self.closing.store(true, Ordering::Release);
        self.waiting().retain(|key, _| !is_ask(key));
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Waits for a time; says whether something may still begin then.
    pub(crate) async fn wait(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while !self.is_closing() && Instant::now() < until {
            let left = until.duration_since(Instant::now());
            tokio::time::sleep(left.min(WAKE_EVERY)).await;
        }
        !self.is_closing()
    }

    /// How many questions to people are open.
    pub(crate) fn asks(&self) -> usize {
        self.waiting().keys().filter(|key| is_ask(key)).count()
    }

    /// Whether something may be done outside, at this moment.
    pub(crate) fn may_act(&self) -> bool {
        (self.may_act)()
    }

    /// The attempt cannot go on; the first reason counts.
    pub(crate) fn fail(&self, failure: Failure) {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert(failure);
            first
        });
    }

    /// Waits until the attempt cannot go on.
    pub(crate) async fn failed(&self) -> Failure {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await.ok().and_then(|failed| failed.clone()) {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }

    /// Takes in what the session says about a key.
    pub(crate) fn tell(&self, key: &StepKey, told: Told) {
        if let Some(waits) = self.waiting().remove(key) {
            // Whoever waited may have gone.
            let _gone = waits.send(told);
        }
    }

    /// Says something that is not answered.
    pub(crate) async fn say(&self, frame: Frame) -> Result<(), Closed> {
        self.frames.send(frame).await.map_err(|_| Closed::over())
    }

    /// Says something about a key and waits for the answer.
    pub(crate) async fn ask(&self, key: &StepKey, frame: Frame) -> Result<Told, Closed> {
        let (sender, answer) = oneshot::channel();
        drop(self.waiting().insert(key.clone(), sender));
        self.say(frame).await?;
        match answer.await {
            Ok(Told::Refused(why)) => Err(Closed(why)),
            Ok(told) => Ok(told),
            Err(_) => Err(Closed::over()),
        }
    }

    /// Begins a step whose beginning is not answered, unless it is refused.
    pub(crate) async fn begin(
        &self,
        key: &StepKey,
        frame: Frame,
    ) -> Result<oneshot::Receiver<Told>, Closed> {
        let (sender, refused) = oneshot::channel();
        drop(self.waiting().insert(key.clone(), sender));
        self.say(frame).await?;
        Ok(refused)
    }

    /// Records what came of a step; returns once it is durable.
    pub(crate) async fn record(
        &self,
        step: &StepKey,
        result: String,
        usage: Usage,
    ) -> Result<(), Closed> {
        let frame = Frame::StepEnd { step: step.clone(), result: Ok(Body::Text(result)), usage };
        self.ask(step, frame).await.map(drop)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // Each change of the map is one call.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_ask(key: &StepKey) -> bool {
    key.as_str().strip_prefix(KEY_PREFIX).is_some_and(|key| key.starts_with("ask:"))
}

/// Waits until the beginning of a step is refused, which it seldom is.
pub(crate) async fn refusal(refused: Option<oneshot::Receiver<Told>>) -> String {
    if let Some(refused) = refused
        && let Ok(Told::Refused(why)) = refused.await
    {
        return why;
    }
    std::future::pending().await
}

/// Returns a name that a step can have.
pub(crate) fn name(text: &str) -> String {
    match text.char_indices().find(|(at, one)| at + one.len_utf8() > NAME_BYTES_MAX) {
        _ if text.is_empty() => "?".to_owned(),
        Some((end, _)) => text[..end].to_owned(),
        None => text.to_owned(),
    }
}
