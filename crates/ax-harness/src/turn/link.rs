//! Our end of the conversation with the engine.

use super::{Over, failure};
use crate::launch::{AskResult, Io, JournalEntry, JournalKind, MayAct, Told};
use ax_core::session::Frame;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// How often the engine hears that a tool is at work.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(20);

/// The two channels, and what came over them that nobody has waited for yet.
#[derive(Debug)]
pub(crate) struct Link {
    frames: mpsc::Sender<Frame>,
    told: mpsc::Receiver<Told>,
    may_act: MayAct,
    told_open: bool,
    recorded: BTreeSet<String>,
    answers: BTreeMap<String, AskResult>,
    /// Whether a tool is at work, which may say nothing for long.
    pub(crate) works: bool,
    heartbeat_due: Instant,
}

impl Link {
    pub(crate) fn new(io: Io) -> Self {
        Self {
            frames: io.frames,
            told: io.told,
            may_act: io.may_act,
            told_open: true,
            recorded: BTreeSet::new(),
            answers: BTreeMap::new(),
            works: false,
            heartbeat_due: Instant::now() + HEARTBEAT_EVERY,
        }
    }

    /// Asks whether something may be done outside, at this moment.
    pub(crate) fn may_act(&self) -> Result<(), Over> {
        self.may_act.check().map_err(Over::Told)
    }

    /// Says something.
    pub(crate) async fn say(&mut self, frame: Frame) -> Result<(), Over> {
        let frames = self.frames.clone();
        let permit = self.during(frames.reserve()).await?;
        self.heartbeat_due = Instant::now() + HEARTBEAT_EVERY;
        match permit {
            Ok(permit) => {
                permit.send(frame);
                Ok(())
            }
            Err(_) => Err(Over::Told(failure("killed", "nobody listens any more"))),
        }
    }

    /// Waits until what was said under a key is durable.
    pub(crate) async fn recorded(&mut self, key: &str) -> Result<(), Over> {
        while !self.recorded.remove(key) {
            self.listen().await?;
        }
        Ok(())
    }

    /// Does something that takes its time; drops it if we are told to stop.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Over> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                heard = self.listen() => heard?,
                done = &mut work => return Ok(done),
            }
        }
    }

    /// Takes in the next thing that we are told. May be dropped and called again.
    pub(crate) async fn listen(&mut self) -> Result<(), Over> {
        tokio::select! {
            told = self.told.recv(), if self.told_open => self.hear(told),
            () = sleep_until(self.heartbeat_due), if self.works => {
                self.heartbeat_due = Instant::now() + HEARTBEAT_EVERY;
                // A full channel shows as much life as a heartbeat.
                let _full = self.frames.try_send(Frame::Heartbeat);
                Ok(())
            }
            // Nothing more is heard; whoever waits for something else goes on.
            () = std::future::pending() => Ok(()),
        }
    }

    fn hear(&mut self, told: Option<Told>) -> Result<(), Over> {
        match told {
            None => self.told_open = false,
            Some(Told::Cancel { grace_millis, .. }) => {
                return Err(Over::Canceled(Duration::from_millis(grace_millis)));
            }
            Some(Told::Park { .. }) => {
                return Err(Over::Told(failure("parked", "the agent was parked")));
            }
            Some(Told::Refused { code, message, .. }) => {
                return Err(Over::Broken(failure("refused", format!("{message} ({code})"))));
            }
            Some(Told::Recorded { key, before, .. }) => {
                // It was answered before it was asked again.
                if let Some(JournalEntry { kind: JournalKind::Ask(Some(result)), .. }) = before {
                    drop(self.answers.insert(key.as_str().to_owned(), result));
                }
                self.recorded.insert(key.as_str().to_owned());
            }
            Some(Told::Answered { key, result }) => {
                drop(self.answers.insert(key.as_str().to_owned(), result));
            }
            // It begins no steps, sleeps and waits for no signal.
            Some(Told::Granted { .. } | Told::Fired { .. } | Told::Signaled { .. }) => {}
        }
        Ok(())
    }

    /// Takes an answer that has come.
    pub(crate) fn answer(&mut self) -> Option<(String, AskResult)> {
        self.answers.pop_first()
    }
}
