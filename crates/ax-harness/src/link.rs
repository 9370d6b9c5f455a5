//! The end of the conversation with the engine, for harnesses that are a part of the runtime.

use crate::launch::{AskResult, Exit, Io, JournalEntry, JournalKind, MayAct, Told};
use ax_core::session::{Failure, Frame, StepKey};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long the harness is silent at most.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(20);

/// Why the harness stops before it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It was told to, or killed; nobody waits for a word.
    Told(Failure),
    /// It failed.
    Failed {
        /// Why.
        failure: Failure,
        /// Whether another attempt may help.
        retry: bool,
    },
    /// It would do something else than what is recorded.
    Diverged {
        /// Under which key.
        step: StepKey,
        /// What is recorded.
        expected: String,
        /// What it would do.
        found: String,
    },
}

impl Stop {
    /// Returns a failure that another attempt would only repeat.
    pub(super) fn final_failure(code: &str, message: impl Into<String>) -> Self {
        let failure = Failure { code: code.into(), message: message.into() };
        Self::Failed { failure, retry: false }
    }

    fn told(code: &str, message: impl Into<String>) -> Self {
        Self::Told(Failure { code: code.into(), message: message.into() })
    }
}

/// The two channels and the token, and what came over them that nobody has waited for yet.
#[derive(Debug)]
pub(super) struct Link {
    frames: mpsc::Sender<Frame>,
    told: mpsc::Receiver<Told>,
    kill: CancellationToken,
    may_act: MayAct,
    told_open: bool,
    granted: BTreeSet<StepKey>,
    recorded: BTreeSet<StepKey>,
    answers: BTreeMap<StepKey, AskResult>,
    /// Whether it only waits for a person, and shows no life meanwhile.
    waits: bool,
    canceled: Option<Duration>,
    heartbeat_due: Instant,
}

impl Link {
    pub(super) fn new(io: Io) -> Self {
        Self {
            frames: io.frames,
            told: io.told,
            kill: io.kill,
            may_act: io.may_act,
            told_open: true,
            granted: BTreeSet::new(),
            recorded: BTreeSet::new(),
            answers: BTreeMap::new(),
            waits: false,
            canceled: None,
            heartbeat_due: Instant::now() + HEARTBEAT_EVERY,
        }
    }

    /// Says something.
    pub(super) async fn say(&mut self, frame: Frame) -> Result<(), Stop> {
        let frames = self.frames.clone();
        let permit = self.during(frames.reserve()).await?;
        self.heartbeat_due = Instant::now() + HEARTBEAT_EVERY;
        match permit {
            Ok(permit) => {
                permit.send(frame);
                Ok(())
            }
            Err(_) => Err(Stop::told("killed", "nobody listens to the harness")),
        }
    }

    /// Asks whether something may be done outside, at this moment.
    pub(super) fn may_act(&self) -> Result<(), Stop> {
        self.may_act.check().map_err(Stop::Told)
    }

    /// Waits until a `once` step may be carried out.
    pub(super) async fn granted(&mut self, step: &StepKey) -> Result<(), Stop> {
        while !self.granted.remove(step) {
            self.listen().await?;
        }
        Ok(())
    }

    /// Waits until what was said under a key is durable.
    pub(super) async fn recorded(&mut self, key: &StepKey) -> Result<(), Stop> {
        while !self.recorded.remove(key) {
            self.listen().await?;
        }
        Ok(())
    }

    /// Waits for what comes of a question.
    pub(super) async fn answer(&mut self, key: &StepKey) -> Result<AskResult, Stop> {
        loop {
            if let Some(result) = self.answers.remove(key) {
                return Ok(result);
            }
            self.waits = true;
            let heard = self.listen().await;
            self.waits = false;
            heard?;
        }
    }

    /// Returns how long it has to stop, if it was told to because somebody canceled.
    pub(super) const fn canceled(&self) -> Option<Duration> {
        self.canceled
    }

    /// Says why the harness stops, if anybody wants to know.
    pub(super) async fn last_word(&mut self, stop: Stop) -> Exit {
        let frame = match stop {
            Stop::Told(failure) => return Exit::Gone(failure),
            Stop::Failed { failure, retry } => Frame::Fail { failure, retry },
            Stop::Diverged { step, expected, found } => Frame::Diverged { step, expected, found },
        };
        let diverged = match &frame {
            Frame::Diverged { step, .. } => Some(format!("at {step} something else was recorded")),
            _ => None,
        };
        match (self.say(frame).await, diverged) {
            (Ok(()), None) => Exit::Said,
            (Ok(()), Some(message)) => Exit::Gone(Failure { code: "divergence".into(), message }),
            (Err(Stop::Told(failure)), _) => Exit::Gone(failure),
            (Err(_), _) => unreachable!("saying something only fails when told to stop"),
        }
    }

    /// Does something that takes its time; drops it if the harness has to stop.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                heard = self.listen() => heard?,
                done = &mut work => return Ok(done),
            }
        }
    }

    /// Takes in the next thing that the harness is told. May be dropped and called again.
    async fn listen(&mut self) -> Result<(), Stop> {
        tokio::select! {
            () = self.kill.cancelled() => Err(Stop::told("killed", "the attempt was killed")),
            () = self.frames.closed() => Err(Stop::told("killed", "nobody listens any more")),
            told = self.told.recv(), if self.told_open => self.hear(told),
            () = sleep_until(self.heartbeat_due), if !self.waits => {
                self.heartbeat_due = Instant::now() + HEARTBEAT_EVERY;
                // A full channel shows as much life as a heartbeat.
                let _full = self.frames.try_send(Frame::Heartbeat);
                Ok(())
            }
        }
    }

    fn hear(&mut self, told: Option<Told>) -> Result<(), Stop> {
        match told {
            None => self.told_open = false,
            Some(Told::Granted { step }) => {
                self.granted.insert(step);
            }
            Some(Told::Recorded { key, before, .. }) => {
                // It was answered before it was asked again.
                if let Some(JournalEntry { kind: JournalKind::Ask(Some(result)), .. }) = before {
                    self.answers.insert(key.clone(), result);
                }
                self.recorded.insert(key);
            }
            Some(Told::Answered { key, result }) => {
                self.answers.insert(key, result);
            }
            Some(Told::Cancel { grace_millis, reason }) => {
                self.canceled = Some(Duration::from_millis(grace_millis));
                return Err(Stop::told("canceled", reason));
            }
            Some(Told::Park { .. }) => return Err(Stop::told("parked", "the harness was parked")),
            Some(Told::Refused { code, message, .. }) => {
                return Err(Stop::told("refused", format!("{message} ({code})")));
            }
            // It never sleeps or waits for a signal.
            Some(Told::Fired { .. } | Told::Signaled { .. }) => {}
        }
        Ok(())
    }
}
