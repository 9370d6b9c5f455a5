//! Wakes sleeping sessions when they are due, and at the start what a crash cut short.
//!
//! Nothing is kept in memory of a session that is due later than the horizon: the rows in the log
//! say when, and are read again before the horizon is reached.

use crate::api::WaitState;
use crate::inner::{Inner, ROW_DELETING, ROW_IMPORTING};
use crate::session::Command;
use ax_core::id::SessionKey;
use ax_core::time::Timestamp;
use ax_log::{Filter, ListQuery, LogFault, StateMask};
use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::mpsc;

/// How far ahead sleeping sessions are kept in memory, in milliseconds.
const HORIZON_MILLIS: u64 = 600_000;
/// How many of them, at most.
const COUNT_MAX: usize = 100_000;
/// How many rows are read at a time.
const PAGE_ROWS: usize = 1_000;
/// How many sessions are awake at once, for want of anything else to do, beyond the places there
/// are to run.
const AWAKE_SPARE: usize = 256;
/// How long a session that could not be loaded or written rests, in milliseconds.
const RETRY_MILLIS: u64 = 2_000;

/// Tells the timer task what sleeps.
#[derive(Debug)]
pub(crate) struct Timers {
    sender: mpsc::UnboundedSender<(SessionKey, Timestamp)>,
}

impl Timers {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<(SessionKey, Timestamp)>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender }, receiver)
    }

    /// A session has fallen asleep and wants to be woken at a time, or never.
    pub(crate) fn slept(&self, key: &SessionKey, due_at: Option<Timestamp>) {
        if let Some(due_at) = due_at {
            drop(self.sender.send((key.clone(), due_at)));
        }
    }
}

impl Inner {
    /// A session could not go on: it is tried again after a rest.
    pub(crate) fn retry_later(&self, key: &SessionKey, error: &crate::Error) {
        let here = !matches!(error.code, crate::Code::Poisoned | crate::Code::Elsewhere);
        if error.code.retryable() && here {
            self.timers.slept(key, Some(self.clock.now().plus_millis(RETRY_MILLIS)));
        }
    }
}

/// What is due before the horizon, earliest first.
#[derive(Debug, Default)]
struct Schedule {
    due: BTreeSet<(Timestamp, SessionKey)>,
    horizon: Timestamp,
}

impl Schedule {
    fn add(&mut self, due_at: Timestamp, key: SessionKey) {
        if due_at > self.horizon {
            return;
        }
        self.due.insert((due_at, key));
        if self.due.len() > COUNT_MAX {
            let farthest = self.due.pop_last().expect("there are many");
            self.horizon = farthest.0;
        }
    }
}

/// Runs until the engine stops.
pub(crate) async fn run(
    inner: Weak<Inner>,
    mut slept: mpsc::UnboundedReceiver<(SessionKey, Timestamp)>,
) {
    let mut schedule = Schedule::default();
    let mut grants = match inner.upgrade() {
        Some(engine) => engine.log.grants(),
        None => return,
    };
    loop {
        let Some(engine) = inner.upgrade() else { return };
        let now = engine.clock.now();
        if schedule.horizon <= now || (schedule.due.is_empty() && schedule.horizon < ahead(now)) {
            scan(&engine, &mut schedule, now).await;
        }
        let mut woken = 0;
        while let Some((due_at, key)) = schedule.due.first() {
            if *due_at > now || woken == COUNT_MAX {
                break;
            }
            // Not all at once, if very many came due while nothing ran.
            tokio::select! {
                biased;
                () = engine.stopping.cancelled() => return,
                () = engine.registry.fewer_than(engine.runs_max + AWAKE_SPARE) => {}
            }
            // What another server has is that server's to wake.
            if engine.log.owns(key) {
                drop(engine.registry.send(&engine, key, Command::Nudge));
            }
            schedule.due.pop_first();
            woken += 1;
        }
        let next = schedule.due.first().map_or(schedule.horizon, |(due_at, _)| *due_at);
        let pause = Duration::from_millis(next.millis_since(engine.clock.now()).max(1));
        let stopping = engine.stopping.clone();
        drop(engine);
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            told = slept.recv() => match told {
                Some((key, due_at)) => schedule.add(due_at, key),
                None => return,
            },
            () = grants.more() => schedule.horizon = Timestamp::default(),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

const fn ahead(now: Timestamp) -> Timestamp {
    now.plus_millis(HORIZON_MILLIS / 2)
}

/// Reads from the log what is due before the next horizon.
async fn scan(engine: &Inner, schedule: &mut Schedule, now: Timestamp) {
    schedule.horizon = now.plus_millis(HORIZON_MILLIS);
    let filter =
        Filter { states: StateMask::ALL, due_before_millis: Some(schedule.horizon.millis) };
    let read = each_row(engine, filter, |key, row| {
        if let Some(due) = row.due_millis {
            schedule.add(Timestamp::from_millis(due), key);
        }
    });
    if let Err(error) = read.await {
        tracing::error!(%error, "the sessions that are due cannot be read");
        schedule.horizon = now.plus_millis(RETRY_MILLIS);
    }
}

async fn each_row(
    engine: &Inner,
    filter: Filter,
    mut each: impl FnMut(SessionKey, ax_log::Row),
) -> Result<(), LogFault> {
    for namespace in engine.log.namespaces().await? {
        let mut after = None;
        loop {
            let query = ListQuery { namespace: namespace.clone(), after, limit: PAGE_ROWS, filter };
            let page = engine.log.list(query).await?;
            for entry in page.rows {
                each(SessionKey::new(namespace.clone(), entry.session), entry.head.row);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(())
}

/// Recovers at the start, and again whenever sessions come to this process that another had.
pub(crate) async fn recover(inner: Weak<Inner>) {
    let (mut grants, stopping) = match inner.upgrade() {
        Some(engine) => (engine.log.grants(), engine.stopping.clone()),
        None => return,
    };
    loop {
        let Some(engine) = inner.upgrade() else { return };
        recover_once(&engine).await;
        drop(engine);
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            () = grants.more() => {}
        }
    }
}

/// Wakes every session whose execution a crash cut short, the oldest first and not all at once.
async fn recover_once(inner: &Arc<Inner>) {
    let states = StateMask::of(WaitState::Running as u8)
        .and(WaitState::Retrying as u8)
        .and(WaitState::WaitingCapacity as u8)
        .and(ROW_IMPORTING)
        .and(ROW_DELETING);
    let mut cut_short = Vec::new();
    let filter = Filter { states, due_before_millis: None };
    let mut half = Vec::new();
    let read = each_row(inner, filter, |key, row| match row.state {
        _ if !inner.log.owns(&key) => {}
        ROW_IMPORTING => half.push(key),
        _ => cut_short.push((row.updated_millis, key)),
    });
    if let Err(error) = read.await {
        tracing::error!(%error, "the sessions to recover cannot be read");
    }
    for key in half {
        if let Err(error) = clean_up(inner, &key).await {
            tracing::error!(%error, session = %key, "half an import stays behind");
        }
    }
    cut_short.sort();
    if !cut_short.is_empty() {
        tracing::info!(count = cut_short.len(), "recovering");
    }
    for (_, key) in cut_short {
        tokio::select! {
            biased;
            () = inner.stopping.cancelled() => return,
            () = inner.registry.fewer_than(inner.runs_max + AWAKE_SPARE) => {}
        }
        drop(inner.registry.send(inner, &key, Command::Nudge));
    }
}

/// Lets go of half an import, unless it is under way or was finished meanwhile.
async fn clean_up(inner: &Inner, key: &SessionKey) -> Result<(), crate::Error> {
    if inner.is_importing(key) {
        return Ok(());
    }
    let head = inner.log.head(key).await?;
    if head.is_some_and(|head| head.row.state == ROW_IMPORTING) {
        inner.forget(key).await?;
    }
    Ok(())
}
