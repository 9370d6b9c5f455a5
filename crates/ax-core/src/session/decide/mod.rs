//! What an input means: a pure function of state, time and input.
//!
//! One file for each kind of input. All of them write into a [`Draft`].

mod attempt;
mod client;
mod harness;
mod tick;

use super::Live;
use super::event::{Event, Kind, Outcome};
use super::exec::Exec;
use super::input::{Accepted, Caller, Effect, Input, Refusal};
use super::state::State;
use super::value::{Actor, Saved};
use crate::id::{AttemptId, ExecId, Seq};
use crate::time::Timestamp;

/// What is known when a decision is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) state: &'a State,
    pub(super) live: &'a Live,
    pub(super) now: Timestamp,
}

impl Known<'_> {
    /// The execution under way; whoever calls this has made sure that there is one.
    fn exec(&self) -> &Exec {
        self.state.exec.as_ref().expect("an execution is under way")
    }
}

/// A decision: one atomic batch of events, and what is told without an event.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) events: Vec<Event>,
    /// Told once the event at the position is durable, which was recorded before.
    pub(super) tell: Option<(Seq, Effect)>,
    pub(super) accepted: Accepted,
    now: Timestamp,
    actor: Actor,
    caller: Caller,
    exec: Option<ExecId>,
    attempt: Option<AttemptId>,
}

impl Draft {
    fn new(known: Known<'_>, actor: Actor, caller: Caller) -> Self {
        let exec = known.state.exec.as_ref();
        Self {
            events: Vec::new(),
            tell: None,
            accepted: Accepted::Nothing,
            now: known.now,
            actor,
            caller,
            exec: exec.map(|exec| exec.id),
            attempt: exec.map(|exec| exec.attempt).filter(|attempt| attempt.0 > 0),
        }
    }

    /// Adds an event that belongs to the execution under way, if there is one.
    fn push(&mut self, kind: Kind) {
        self.push_as(self.actor, self.exec, self.attempt, kind);
    }

    /// Adds an event of the runtime's own, which belongs to the execution under way.
    fn push_runtime(&mut self, kind: Kind) {
        self.push_as(Actor::Runtime, self.exec, self.attempt, kind);
    }

    /// Adds an event that belongs to the session, not to an execution.
    fn push_session(&mut self, kind: Kind) {
        self.push_as(self.actor, None, None, kind);
    }

    fn push_as(
        &mut self,
        actor: Actor,
        exec: Option<ExecId>,
        attempt: Option<AttemptId>,
        kind: Kind,
    ) {
        self.events.push(Event {
            at: self.now,
            actor,
            principal: self.caller.principal.clone(),
            request: self.caller.request.clone(),
            trace: self.caller.trace.clone(),
            exec,
            attempt,
            kind,
        });
    }

    /// Begins the next attempt of the execution of this draft.
    fn start_attempt(&mut self, resumed: bool) {
        let next = self.attempt.unwrap_or_default().next();
        self.attempt = Some(next);
        self.push_runtime(Kind::AttemptStarted { resumed });
    }

    /// Begins an execution and its first attempt.
    fn start_execution(&mut self, exec: ExecId, input: Seq, continues: Option<ExecId>) {
        self.exec = Some(exec);
        self.attempt = None;
        self.push_runtime(Kind::ExecutionStarted { input, continues });
    }
}

/// Decides what an input means, without changing anything.
pub(super) fn decide(known: Known<'_>, input: &Input) -> Result<Draft, Refusal> {
    match input {
        Input::Client(caller, request) => {
            let mut draft = Draft::new(known, Actor::User, caller.clone());
            client::decide(known, request, &mut draft)?;
            Ok(draft)
        }
        Input::Frame(exec, attempt, frame) => {
            must_run(known, *exec, *attempt)?;
            let mut draft = Draft::new(known, Actor::Harness, Caller::default());
            harness::decide(known, frame, &mut draft)?;
            Ok(draft)
        }
        Input::HarnessGone(exec, attempt, failure) => {
            must_run(known, *exec, *attempt)?;
            let mut draft = Draft::new(known, Actor::Runtime, Caller::default());
            attempt::fail(known, failure, true, &mut draft);
            Ok(draft)
        }
        Input::Recover => {
            let mut draft = Draft::new(known, Actor::Runtime, Caller::default());
            attempt::recover(known, &mut draft);
            Ok(draft)
        }
        Input::Suspend => {
            let mut draft = Draft::new(known, Actor::Runtime, Caller::default());
            attempt::suspend(known, &mut draft);
            Ok(draft)
        }
        Input::Saved(saved) => {
            let mut draft = Draft::new(known, Actor::Runtime, Caller::default());
            if known.state.deleted {
                return Err(Refusal::Deleted);
            }
            if known.state.identity.is_none() {
                return Err(Refusal::NotCreated);
            }
            match saved {
                Ok(saved) => save(known, saved, None, &mut draft),
                Err(failure) => draft.push(Kind::WorkspaceUnsaved { failure: failure.clone() }),
            }
            Ok(draft)
        }
        Input::Tick => {
            let mut draft = Draft::new(known, Actor::Runtime, Caller::default());
            tick::decide(known, &mut draft);
            Ok(draft)
        }
        Input::Persisted(_) => unreachable!("`handle` keeps this one for itself"),
    }
}

/// When a tick would do something.
pub(super) use harness::reply_to;
pub(super) use tick::{deadline, wake_at};

fn must_run(known: Known<'_>, exec: ExecId, attempt: AttemptId) -> Result<(), Refusal> {
    if known.state.running() == Some((exec, attempt)) && !known.state.deleted {
        Ok(())
    } else {
        Err(Refusal::NotRunning(exec, attempt))
    }
}

/// Ends the execution under way. The caller says whether what waits is begun next.
fn end(known: Known<'_>, outcome: Outcome, draft: &mut Draft) {
    attempt::cut_short(known, draft);
    let usage = known.exec().usage;
    let extra = draft.events.iter().filter_map(|event| match &event.kind {
        Kind::StepCompleted { usage, .. } | Kind::StepFailed { usage, .. } => Some(*usage),
        _ => None,
    });
    let total = extra.fold(usage, |mut total, usage| {
        total.add(&usage);
        total
    });
    draft.push(Kind::ExecutionEnded { outcome, usage: total });
}

/// Says where the files of the session are kept, unless they are as they were.
fn save(known: Known<'_>, saved: &Saved, rewound_to: Option<Seq>, draft: &mut Draft) {
    match known.state.workspace {
        Some(last) if last.snapshot == saved.snapshot => {
            draft.accepted = Accepted::Before(last.seq);
        }
        _ => draft.push(Kind::WorkspaceSaved { saved: saved.clone(), rewound_to }),
    }
}

/// Begins the execution of the oldest input that waits, if any.
fn start_next(known: Known<'_>, draft: &mut Draft) {
    if let Some(input) = known.state.queue.front() {
        draft.start_execution(ExecId(known.state.exec_count).next(), *input, None);
        draft.start_attempt(false);
    }
}

fn end_and_go_on(known: Known<'_>, outcome: Outcome, draft: &mut Draft) {
    end(known, outcome, draft);
    start_next(known, draft);
}
