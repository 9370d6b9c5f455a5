//! What clients are shown of a session, from its state.

use crate::api::{SessionView, Status, WaitState};
use ax_core::id::{AttemptId, ExecId, Seq, SessionId};
use ax_core::session::{Exec, Identity, Item, Phase, Session, State};
use ax_core::time::Timestamp;

/// What a session is doing.
pub(crate) fn status(session: &Session, now: Timestamp, has_place: bool) -> Status {
    let state = session.state();
    let mut status = Status {
        due_at: session.wake_at(now),
        asks: state.asks.iter().map(|(id, ask)| (*id, ask.clone())).collect(),
        queued: u32::try_from(state.queue.len()).unwrap_or(u32::MAX),
        ..Status::default()
    };
    if let Some(exec) = &state.exec {
        status.exec = Some(exec.id);
        status.attempt = (exec.attempt.0 > 0).then_some(exec.attempt);
        status.state = doing(state, exec);
        status.waiting = waiting(state, exec);
        if status.state == WaitState::Running && !has_place {
            status.waits_for_place();
        }
    } else if let Some(ended) = &state.ended {
        status.exec = Some(ended.exec);
        status.outcome.clone_from(&ended.outcome);
        status.reason.clone_from(&ended.reason);
        status.state = match ended.outcome.as_str() {
            "execution.completed" => WaitState::Completed,
            "execution.failed" => WaitState::Failed,
            "execution.canceled" => WaitState::Canceled,
            _ => WaitState::TimedOut,
        };
    }
    status
}

impl Status {
    /// It would run if there were a place.
    pub(crate) fn waits_for_place(&mut self) {
        self.state = WaitState::WaitingCapacity;
        self.waiting.push("a free place to run".into());
    }
}

fn doing(state: &State, exec: &Exec) -> WaitState {
    match exec.phase {
        Phase::Backoff { .. } => WaitState::Retrying,
        Phase::Unresolved => WaitState::WaitingAsk,
        Phase::Running if exec.has_open_step() || !exec.is_waiting() => WaitState::Running,
        Phase::Running | Phase::Parked => {
            let waits = |wanted: fn(&Item) -> bool| exec.items.pending().any(|(_, i)| wanted(i));
            if !state.asks.is_empty() {
                WaitState::WaitingAsk
            } else if waits(|item| matches!(item, Item::Sleep(..))) {
                WaitState::WaitingTimer
            } else {
                WaitState::WaitingSignal
            }
        }
    }
}

/// Names everything that an execution waits for.
fn waiting(state: &State, exec: &Exec) -> Vec<String> {
    let asks = state.asks.iter().map(|(id, ask)| {
        let prompt: String = ask.prompt.chars().take(200).collect();
        format!("{id}: {prompt}")
    });
    let pending = exec.items.pending().filter_map(|(key, item)| match item {
        Item::Sleep(due_at, None) => Some(format!("timer {key} until {}", due_at.millis)),
        Item::Signal(name, None) => Some(format!("signal {name}")),
        _ => None,
    });
    let retry = match exec.phase {
        Phase::Backoff { until } if until != Timestamp::NEVER => {
            Some(format!("the next attempt at {}", until.millis))
        }
        _ => None,
    };
    asks.chain(pending).chain(retry).take(32).collect()
}

/// What is shown of a session that is awake.
pub(crate) fn session_view(
    id: SessionId,
    session: &Session,
    parent: Option<(SessionId, Seq)>,
    status: Status,
    now: Timestamp,
) -> Option<SessionView> {
    let state = session.state();
    let identity: &Identity = state.identity.as_ref()?;
    let mut usage = state.usage;
    if let Some(exec) = &state.exec {
        usage.add(&exec.usage);
    }
    Some(SessionView {
        id,
        name: identity.name.clone(),
        title: identity.title.clone(),
        agent: identity.agent.clone(),
        sandbox: identity.sandbox.clone(),
        status,
        last: session.durable(),
        parent,
        created_at: identity.created_at,
        updated_at: now,
        usage,
    })
}

/// What of a status decides whether a session's row is written anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowKey {
    state: WaitState,
    waiting: Vec<String>,
    due_at: Option<Timestamp>,
    exec: Option<ExecId>,
    attempt: Option<AttemptId>,
    queued: u32,
    title: String,
    deleted: bool,
}

impl RowKey {
    pub(crate) fn of(status: &Status, state: &State) -> Self {
        let title = state.identity.as_ref().map(|identity| identity.title.clone());
        Self {
            state: status.state,
            waiting: status.waiting.clone(),
            due_at: status.due_at,
            exec: status.exec,
            attempt: status.attempt,
            queued: status.queued,
            title: title.unwrap_or_default(),
            deleted: state.deleted,
        }
    }
}
