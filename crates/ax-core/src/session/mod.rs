//! One session: its executions, its single writer and its log positions.
//!
//! A [`Session`] is fed with [`Input`] and answers with [`Ready`]. The driver's whole duty:
//!
//! 1. append `ready.persist` to the log, in order and as one atomic batch;
//! 2. once the append is durable, feed [`Input::Persisted`];
//! 3. carry out `ready.effects`, which are only ever released after what they rest on is durable.
//!
//! After a crash the driver hands the events found in the log to [`Session::replay`], or a stored
//! [`State`] and the events after it to [`Session::restore`]. Neither has effects. Then it feeds
//! [`Input::Recover`], which says what a crash cut short.

mod decide;
mod event;
mod exec;
mod input;
mod state;
mod value;

pub use event::{AgentRef, Event, Kind, LostReason, Outcome};
pub use exec::{Exec, Item, Items, Phase, Step, StepPhase};
pub use input::{Accepted, Caller, Effect, Frame, Input, Refusal, Reply, Request, Stop};
pub use state::{Answered, Collection, Ended, Identity, KnownKeys, OpenAsk, State, Workspace};
pub use value::{
    Actor, Answer, AskKind, BlobRef, BlockId, Body, Budget, Digest, EffectClass, Failure,
    IdempotencyKey, Limits, Part, PartKind, Prefix, Retry, Saved, StepKey, StepKind, SubmitPolicy,
    Usage,
};

use crate::id::{AttemptId, ExecId, Seq};
use crate::time::Timestamp;
use decide::Known;
use std::collections::VecDeque;

/// What the driver has to do next, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Events to append to the log, as one atomic batch.
    pub persist: Vec<Event>,
    /// Effects that rest on durable events only.
    pub effects: Vec<Effect>,
}

/// What is known of the running attempt and not kept: it is gone when the driver is.
#[derive(Clone, Debug, Default)]
struct Live {
    /// When the running attempt was last heard of; `None` before its first sign of life.
    active_at: Option<Timestamp>,
}

/// The state machine of one session.
#[derive(Clone, Debug)]
pub struct Session {
    state: State,
    live: Live,
    ready: Ready,
    /// Effects waiting for an event to be durable, by its position.
    waiting: VecDeque<(Seq, Effect)>,
    durable: Seq,
}

impl Session {
    /// Rebuilds a session from its log.
    pub fn replay<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        Self::restore(State::default(), events)
    }

    /// Rebuilds a session from a stored state and the events after it.
    ///
    /// # Panics
    ///
    /// Panics on events that no correct writer can have written.
    pub fn restore<'a>(mut state: State, events: impl IntoIterator<Item = &'a Event>) -> Self {
        for event in events {
            state.apply(event);
        }
        let durable = state.last;
        let (live, ready) = (Live::default(), Ready::default());
        Self { state, live, ready, waiting: VecDeque::new(), durable }
    }

    /// Feeds one input. Says where it was recorded; a client is told once that is durable.
    ///
    /// # Errors
    ///
    /// Returns a [`Refusal`] if the input does not fit the state; nothing has changed then.
    pub fn handle(&mut self, now: Timestamp, input: &Input) -> Result<Accepted, Refusal> {
        if let Input::Persisted(seq) = *input {
            self.release(seq);
            return Ok(Accepted::Nothing);
        }
        let known = Known { state: &self.state, live: &self.live, now };
        let draft = decide::decide(known, input)?;
        if matches!(input, Input::Frame(..)) {
            self.live.active_at = Some(now);
        }
        for event in draft.events {
            self.record(event);
        }
        if let Some((seq, effect)) = draft.tell {
            self.after(seq, effect);
        }
        Ok(draft.accepted)
    }

    /// The events that the next [`Session::take_ready`] gives, in their order: more may follow.
    pub fn pending(&self) -> &[Event] {
        &self.ready.persist
    }

    /// Takes what the driver has to do.
    pub fn take_ready(&mut self) -> Ready {
        std::mem::take(&mut self.ready)
    }

    /// When to feed [`Input::Tick`] next, if ever; may be in the past.
    pub fn deadline(&self, now: Timestamp) -> Option<Timestamp> {
        decide::deadline(Known { state: &self.state, live: &self.live, now })
    }

    /// When the session has to be woken if it sleeps now; leaves out what only a running attempt
    /// is watched for.
    pub fn wake_at(&self, now: Timestamp) -> Option<Timestamp> {
        decide::wake_at(Known { state: &self.state, live: &self.live, now })
    }

    /// What the events so far amount to, the ones that are not durable yet included.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The position of the last durable event.
    pub const fn durable(&self) -> Seq {
        self.durable
    }

    fn record(&mut self, event: Event) {
        let running = self.state.running();
        let seq = self.state.next();
        let effect = effect_of(&self.state, running, seq, &event);
        self.state.apply(&event);
        if self.state.running() != running {
            self.live.active_at = None;
            self.hush(running);
        } else if let (Some(Effect::Tell(..)), Some(_)) = (&effect, self.live.active_at) {
            // It waited for this: its silence counts from here.
            self.live.active_at = Some(event.at);
        }
        if let Some(effect) = effect {
            self.waiting.push_back((seq, effect));
        }
        self.ready.persist.push(event);
    }

    /// Nothing more is said to an attempt that is over: it would act on it.
    fn hush(&mut self, attempt: Option<(ExecId, AttemptId)>) {
        self.waiting.retain(|(_, effect)| match effect {
            Effect::Tell(exec, told, _) => Some((*exec, *told)) != attempt,
            Effect::Start(..) | Effect::Stop(..) => true,
        });
    }

    /// Carries an effect out after an event is durable.
    fn after(&mut self, seq: Seq, effect: Effect) {
        if seq <= self.durable {
            self.ready.effects.push(effect);
        } else {
            let later = self.waiting.iter().position(|(other, _)| *other > seq);
            self.waiting.insert(later.unwrap_or(self.waiting.len()), (seq, effect));
        }
    }

    /// Releases the effects of every event up to and with `seq`.
    fn release(&mut self, seq: Seq) {
        assert!(seq >= self.durable, "what is durable stays durable");
        assert!(seq <= self.state.last, "only what was handed out can be durable");
        self.durable = seq;
        while let Some((_, effect)) = self.waiting.pop_front_if(|(after, _)| *after <= seq) {
            self.ready.effects.push(effect);
        }
    }
}

/// What an event asks for once it is durable. `state` and `running` are those before the event.
fn effect_of(
    state: &State,
    running: Option<(ExecId, AttemptId)>,
    seq: Seq,
    event: &Event,
) -> Option<Effect> {
    if let Kind::AttemptStarted { .. } = event.kind {
        return Some(Effect::Start(event.exec?, event.attempt?));
    }
    let (exec, attempt) = running?;
    match &event.kind {
        Kind::AttemptLost { reason, .. } => match reason {
            LostReason::Runtime => None,
            _ => Some(Effect::Stop(exec, attempt, Stop::Kill)),
        },
        Kind::ActorSuspended => Some(Effect::Stop(exec, attempt, Stop::Park)),
        Kind::ExecutionEnded { outcome, .. } => match outcome {
            Outcome::Completed { .. } => None,
            Outcome::Canceled { .. } => Some(Effect::Stop(exec, attempt, Stop::Cancel)),
            Outcome::Failed { .. } | Outcome::TimedOut { .. } => {
                Some(Effect::Stop(exec, attempt, Stop::Kill))
            }
        },
        kind => {
            let reply = decide::reply_to(kind, seq, state)?;
            Some(Effect::Tell(exec, attempt, reply))
        }
    }
}
