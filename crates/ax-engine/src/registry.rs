//! Which sessions are awake, and how to reach them.

use crate::inner::Inner;
use crate::session::{self, Command};
use crate::{Code, Error};
use ax_core::id::{Epoch, SessionKey};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, mpsc};

/// How many requests may wait for one session.
const COMMANDS_MAX: usize = 1_024;

/// The sessions that have a task.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    awake: Mutex<Awake>,
    /// Told when a session has fallen asleep.
    slept: Notify,
}

#[derive(Debug, Default)]
struct Awake {
    handles: BTreeMap<SessionKey, mpsc::UnboundedSender<Command>>,
    closed: bool,
}

impl Registry {
    fn lock(&self) -> std::sync::MutexGuard<'_, Awake> {
        self.awake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a command to a session, and wakes it if it sleeps.
    pub(crate) fn send(
        &self,
        inner: &Arc<Inner>,
        key: &SessionKey,
        command: Command,
    ) -> Result<(), Error> {
        let mut awake = self.lock();
        if awake.closed {
            return Err(Error::new(Code::Stopping, "the engine is stopping"));
        }
        let command = match awake.handles.get(key) {
            None => command,
            Some(handle) => match handle.send(command) {
                Ok(()) => return Ok(()),
                Err(unsent) => unsent.0,
            },
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(command).expect("the receiver is at hand");
        awake.handles.insert(key.clone(), sender);
        session::spawn(inner, key.clone(), receiver);
        Ok(())
    }

    /// Hands a command to a session that is awake; gives it back if it sleeps.
    pub(crate) fn send_if_awake(&self, key: &SessionKey, command: Command) -> Result<(), Command> {
        match self.lock().handles.get(key) {
            None => Err(command),
            Some(handle) => handle.send(command).map_err(|unsent| unsent.0),
        }
    }

    /// Lets a session fall asleep, unless a command is waiting for it.
    pub(crate) fn sleep(
        &self,
        inner: &Inner,
        key: &SessionKey,
        epoch: Epoch,
        commands: &mpsc::UnboundedReceiver<Command>,
    ) -> bool {
        let mut awake = self.lock();
        if !commands.is_empty() {
            return false;
        }
        inner.log.release(key, epoch);
        awake.handles.remove(key);
        drop(awake);
        self.slept.notify_waiters();
        true
    }

    /// Takes a session that cannot go on out of the registry. What waits for it is refused.
    pub(crate) fn fail(
        &self,
        key: &SessionKey,
        commands: &mut mpsc::UnboundedReceiver<Command>,
        error: &Error,
    ) {
        let mut awake = self.lock();
        commands.close();
        awake.handles.remove(key);
        drop(awake);
        while let Ok(command) = commands.try_recv() {
            command.refuse(error.clone());
        }
        self.slept.notify_waiters();
    }

    /// Waits until fewer than `count` sessions are awake.
    pub(crate) async fn fewer_than(&self, count: usize) {
        loop {
            let slept = self.slept.notified();
            if self.awake_count() < count {
                return;
            }
            slept.await;
        }
    }

    /// Whether a session has a task.
    pub(crate) fn is_awake(&self, key: &SessionKey) -> bool {
        self.lock().handles.contains_key(key)
    }

    /// Returns how many sessions are awake.
    pub(crate) fn awake_count(&self) -> usize {
        self.lock().handles.len()
    }

    /// Takes no more commands, and tells every session to stop.
    pub(crate) fn close(&self) {
        let mut awake = self.lock();
        awake.closed = true;
        for handle in awake.handles.values() {
            drop(handle.send(Command::Stop));
        }
    }

    /// Refuses a command if too many wait.
    pub(crate) fn admit(&self, waiting: usize) -> Result<(), Error> {
        if waiting < COMMANDS_MAX {
            return Ok(());
        }
        Err(Error::new(Code::Busy, format!("{waiting} requests wait for this session")))
    }
}
