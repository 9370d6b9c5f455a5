//! Signals that end a command.

use crate::failure::Failure;
use ax_engine::Code;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// By a person at the keyboard.
    Interrupt,
    /// To end.
    Terminate,
    /// That its terminal is gone; or, if it has none, to read its configuration again.
    Hangup,
}

/// SIGINT, SIGTERM and SIGHUP.
#[derive(Debug)]
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Interrupts {
    /// Takes the signals over from the system.
    pub(crate) fn new() -> Result<Self, Failure> {
        let take = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Code::Internal, "signals cannot be taken").because(&error)
            })
        };
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hangup: take(SignalKind::hangup())?,
        })
    }

    /// Waits for one, and says which it is.
    pub(crate) async fn which(&mut self) -> Told {
        tokio::select! {
            _ = self.interrupt.recv() => Told::Interrupt,
            _ = self.terminate.recv() => Told::Terminate,
            _ = self.hangup.recv() => Told::Hangup,
        }
    }

    /// Waits for one; returns whether it is one that does not come from a person at the keyboard.
    pub(crate) async fn next(&mut self) -> bool {
        self.which().await != Told::Interrupt
    }
}
