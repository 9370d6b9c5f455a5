//! What the log of one session must be.

use super::Book;
use crate::life::World;
use ax_core::session::{Actor, Kind, Session};
use std::collections::BTreeSet;

/// Checks the log of a session by itself.
pub(super) fn check(world: &World, book: &Book) {
    // It panics on a log that no correct writer can have written, which is noticed.
    let session = Session::replay(&book.events);
    if session.state().exec.is_some() || !session.state().asks.is_empty() {
        world.outside.fail(format!("E4 ended: {} has not ended in its log", book.key));
    }
    alone(world, book);
    once(world, book);
    in_time(world, book);
}

/// E5 alone: one attempt at a time, and nobody else speaks for the harness.
fn alone(world: &World, book: &Book) {
    let mut running = None;
    for (seq, event) in book.iter() {
        let who = event.exec.zip(event.attempt);
        let right = match &event.kind {
            Kind::AttemptStarted { .. } => {
                let free = running.is_none();
                running = who;
                free
            }
            Kind::AttemptLost { .. } | Kind::ActorSuspended => {
                let was = running.take();
                was.is_some() && was == who
            }
            Kind::SessionBranched { .. } => {
                running = None;
                true
            }
            Kind::ExecutionEnded { .. } => {
                running = None;
                true
            }
            _ => event.actor != Actor::Harness || (running.is_some() && running == who),
        };
        if !right {
            world.outside.fail(format!("E5 alone: {seq} of {} is {event:?}", book.key));
        }
    }
}

/// E8 idempotent: a key is recorded once, and so is the title that an input gave.
fn once(world: &World, book: &Book) {
    let mut known = BTreeSet::new();
    for (seq, event) in book.iter() {
        let key = match &event.kind {
            Kind::InputReceived { key: Some(key), .. }
            | Kind::SignalReceived { key: Some(key), .. } => key.to_string(),
            Kind::SessionRenamed { title } if title.starts_with("title ") => title.clone(),
            _ => continue,
        };
        if !known.insert(key.clone()) {
            world.outside.fail(format!("E8 idempotent: {key} is again at {seq} of {}", book.key));
        }
    }
}

/// E12 in-time: time does not go back within a session, whatever the clock does.
fn in_time(world: &World, book: &Book) {
    let pairs = book.events.iter().zip(book.events.iter().skip(1));
    for (before, after) in pairs {
        if after.at < before.at {
            let what = format!("E12 in-time: {} has {after:?} after {before:?}", book.key);
            world.outside.fail(what);
        }
    }
}
