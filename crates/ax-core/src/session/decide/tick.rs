//! What time does.

use super::client::nudge;
use super::{Draft, Known, attempt, end_and_go_on, harness};
use crate::session::event::{Kind, LostReason, Outcome};
use crate::session::exec::{Exec, Item, Phase};
use crate::session::value::{Limits, StepKey};
use crate::time::Timestamp;

/// Something that is due at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Execution(u64),
    Asks,
    Timer(StepKey),
    Attempt,
    Step(StepKey, u64),
    Idle(u64),
    Park,
}

/// Returns when a tick would do something.
pub(in crate::session) fn deadline(known: Known<'_>) -> Option<Timestamp> {
    if known.state.exec.is_none() && !known.state.queue.is_empty() && !known.state.deleted {
        return Some(known.now);
    }
    next_due(known, true).map(|(at, _)| at)
}

/// Returns when a session that nobody is awake for would have to be woken: what only a running
/// attempt is watched for does not count.
pub(in crate::session) fn wake_at(known: Known<'_>) -> Option<Timestamp> {
    next_due(known, false).map(|(at, _)| at)
}

/// Does the first thing that is due. The driver asks for the deadline again afterwards.
pub(super) fn decide(known: Known<'_>, draft: &mut Draft) {
    let Some((at, due)) = next_due(known, true) else {
        return nudge(known, draft);
    };
    if at > known.now {
        return;
    }
    match due {
        Due::Execution(limit_millis) => {
            end_and_go_on(known, Outcome::TimedOut { limit_millis }, draft);
        }
        Due::Asks => {
            let overdue = |at: Option<Timestamp>| at.is_some_and(|at| at <= known.now);
            for (ask, open) in &known.state.asks {
                if overdue(open.expires_at) {
                    draft.push(Kind::AskExpired { ask: *ask });
                }
            }
            attempt::wake(known, draft);
        }
        Due::Timer(key) => {
            draft.push(Kind::TimerFired { key });
            attempt::wake(known, draft);
        }
        Due::Attempt => draft.start_attempt(false),
        Due::Step(step, limit_millis) => {
            attempt::lose(known, LostReason::Step { step, limit_millis }, true, draft);
        }
        Due::Idle(limit_millis) => {
            attempt::lose(known, LostReason::Idle { limit_millis }, true, draft);
        }
        Due::Park => draft.push(Kind::ActorSuspended),
    }
}

fn next_due(known: Known<'_>, watched: bool) -> Option<(Timestamp, Due)> {
    if known.state.deleted {
        return None;
    }
    let exec = known.state.exec.as_ref()?;
    let limits = known.state.limits();
    let mut dues = Vec::new();
    if limits.execution_millis_max > 0 {
        let limit = limits.execution_millis_max;
        dues.push((exec.started_at.plus_millis(limit), Due::Execution(limit)));
    }
    let expiries = known.state.asks.values().filter_map(|open| open.expires_at);
    dues.extend(expiries.min().map(|at| (at, Due::Asks)));
    dues.extend(next_timer(exec).map(|(at, key)| (at, Due::Timer(key.clone()))));
    dues.extend(attempt::due_at(exec.phase).map(|at| (at, Due::Attempt)));
    if watched && exec.phase == Phase::Running {
        running_dues(known, exec, &limits, &mut dues);
    }
    dues.into_iter().min()
}

fn next_timer(exec: &Exec) -> Option<(Timestamp, &StepKey)> {
    let pending = exec.items.pending().filter_map(|(key, item)| match item {
        Item::Sleep(due_at, None) => Some((*due_at, key)),
        _ => None,
    });
    pending.min()
}

fn running_dues(known: Known<'_>, exec: &Exec, limits: &Limits, dues: &mut Vec<(Timestamp, Due)>) {
    let overdue = harness::overdue(exec);
    dues.extend(overdue.map(|(at, key, limit)| (at, Due::Step(key.clone(), limit))));
    let Some(active_at) = known.live.active_at else { return };
    if exec.has_open_step() {
        return;
    }
    if exec.is_waiting() {
        dues.push((active_at.plus_millis(limits.park_millis), Due::Park));
    } else if limits.idle_millis_max > 0 {
        let limit = limits.idle_millis_max;
        dues.push((active_at.plus_millis(limit), Due::Idle(limit)));
    }
}
