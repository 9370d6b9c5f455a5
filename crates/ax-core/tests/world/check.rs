//! The invariants, by their numbers.

use super::{Outcome, World};
use ax_core::id::{AskId, AttemptId, ExecId, SessionId};
use ax_core::session::{
    Accepted, Answer, Caller, Effect, EffectClass, Event, Input, Item, Kind, Phase, Reply, Request,
    Session, State, StepKey, StepPhase,
};
use std::collections::BTreeSet;

macro_rules! holds {
    ($world:expr, $what:expr, $name:literal) => {
        assert!($what, "{}: after\n{}", $name, $world.story());
    };
}

/// What holds when an input has been fed.
pub(super) fn transition(before: &World, after: &World, outcome: &Outcome) {
    let (was, is) = (before.session.state(), after.session.state());
    let Outcome { input, answer, ready } = outcome;
    if answer.is_err() {
        holds!(after, was == is, "I1 refusal-is-nothing");
        holds!(
            after,
            ready.persist.is_empty() && ready.effects.is_empty(),
            "I1 refusal-is-nothing"
        );
    }
    let mut applied = was.clone();
    for event in &ready.persist {
        applied.apply(event);
    }
    holds!(after, applied == *is, "I2 events-apply");
    for effect in &ready.effects {
        released(before, after, effect);
    }
    if was.deleted && !matches!(input, Input::Persisted(_)) {
        let silent = ready.persist.is_empty() && ready.effects.is_empty();
        let refused =
            answer.is_err() || matches!(input, Input::Recover | Input::Suspend | Input::Tick);
        holds!(after, silent && refused, "I10 deleted-is-final");
    }
    if let Input::Frame(exec, attempt, _) | Input::HarnessGone(exec, attempt, _) = input {
        let runs = was.running() == Some((*exec, *attempt));
        holds!(after, runs || answer.is_err(), "I12 late-is-refused");
    }
    if let Input::Client(_, Request::Submit { key: Some(key), .. }) = input
        && was.known.get(key).is_some()
    {
        let before = matches!(answer, Ok(Accepted::Before(_)) | Err(_));
        holds!(after, before && ready.persist.is_empty(), "I15 idempotent");
    }
    counted(after, was, is, &ready.persist);
}

/// What holds for an effect that is released.
fn released(before: &World, after: &World, effect: &Effect) {
    let durable = usize::try_from(after.session.durable().0).unwrap();
    let log = &after.log[..durable];
    match effect {
        Effect::Start(exec, attempt) => {
            let started = |e: &Event| {
                matches!(e.kind, Kind::AttemptStarted { .. }) && of(e) == Some((*exec, *attempt))
            };
            holds!(after, log.iter().any(started), "I5 durable-first");
        }
        Effect::Stop(exec, attempt, _) => {
            holds!(after, is_over(log, *exec, *attempt), "I5 durable-first");
        }
        Effect::Tell(exec, attempt, reply) => {
            holds!(after, log.iter().any(|e| rests(log, e, reply)), "I5 durable-first");
            // Nothing is over that is not durable: what is told now must still run now.
            holds!(after, !is_over(&after.log, *exec, *attempt), "I16 silence-after-end");
            if let Reply::Granted { step } = reply {
                granted(before, after, (*exec, *attempt), step);
            }
        }
    }
}

/// Whether a reply rests on an event.
fn rests(log: &[Event], event: &Event, reply: &Reply) -> bool {
    match (reply, &event.kind) {
        (Reply::Granted { step }, Kind::StepStarted { step: begun, .. }) => step == begun,
        (Reply::Recorded { seq, .. }, _) => seq.0 <= log.len() as u64,
        (Reply::Answered { .. }, Kind::AskAnswered { .. })
        | (Reply::AskExpired { .. }, Kind::AskExpired { .. }) => true,
        (Reply::TimerFired { key }, Kind::TimerFired { key: fired }) => key == fired,
        (Reply::Signaled { key, .. }, Kind::SignalDelivered { key: waits, .. }) => key == waits,
        _ => false,
    }
}

const fn of(event: &Event) -> Option<(ExecId, AttemptId)> {
    match (event.exec, event.attempt) {
        (Some(exec), Some(attempt)) => Some((exec, attempt)),
        _ => None,
    }
}

/// Whether an attempt that was started is over.
fn is_over(log: &[Event], exec: ExecId, attempt: AttemptId) -> bool {
    let of_it = |event: &&Event| of(event) == Some((exec, attempt));
    let started = log
        .iter()
        .position(|event| of_it(&event) && matches!(event.kind, Kind::AttemptStarted { .. }));
    log.iter().skip(started.unwrap_or(log.len())).any(|event| match &event.kind {
        Kind::AttemptLost { .. } | Kind::ActorSuspended => of_it(&event),
        Kind::ExecutionEnded { .. } => event.exec == Some(exec),
        Kind::SessionBranched { .. } => true,
        _ => false,
    })
}

/// I6: what was granted before, and what a person has said since.
fn granted(before: &World, after: &World, who: (ExecId, AttemptId), step: &StepKey) {
    let earlier = before.released.iter().filter(|(_, effect)| {
        matches!(effect, Effect::Tell(_, _, Reply::Granted { step: other }) if other == step)
    });
    for (at, effect) in earlier {
        let Effect::Tell(exec, attempt, _) = effect else { unreachable!("only these are left") };
        if lineage(after, *exec) != lineage(after, who.0) {
            continue;
        }
        holds!(after, (*exec, *attempt) != who, "I6 once");
        // Within one execution, whoever comes next can find out what became of it.
        if *exec == who.0 && begun_as(&after.log, (*exec, *attempt), step) == EffectClass::Probed {
            continue;
        }
        let asks = asked_about(&after.log, step);
        let allowed = after.log[*at..].iter().any(|event| {
            matches!(&event.kind, Kind::AskAnswered { ask, answer: Answer::Choice(choice, _), .. }
                if choice == Kind::RETRY && asks.contains(ask))
        });
        holds!(after, allowed, "I6 once");
    }
}

/// As what an attempt began a step.
fn begun_as(log: &[Event], who: (ExecId, AttemptId), step: &StepKey) -> EffectClass {
    let begun =
        log.iter().filter(|event| of(event) == Some(who)).find_map(|event| match &event.kind {
            Kind::StepStarted { step: begun, effect, .. } if begun == step => Some(*effect),
            _ => None,
        });
    begun.expect("what is granted was begun")
}

/// The questions about a step of unknown outcome.
fn asked_about(log: &[Event], step: &StepKey) -> BTreeSet<AskId> {
    let asks = log.iter().filter_map(|event| match &event.kind {
        Kind::AskRaised { ask, about, .. } => (about.as_ref() == Some(step)).then_some(*ask),
        _ => None,
    });
    asks.collect()
}

/// The first of the executions that this one carries on.
fn lineage(world: &World, exec: ExecId) -> ExecId {
    let carried = world.log.iter().find_map(|event| match event.kind {
        Kind::ExecutionStarted { continues, .. } if event.exec == Some(exec) => continues,
        _ => None,
    });
    carried.map_or(exec, |before| lineage(world, before))
}

/// I4, I7, I11.
fn counted(world: &World, was: &State, is: &State, events: &[Event]) {
    let grew = is.last.0 - was.last.0;
    holds!(world, grew == events.len() as u64, "I11 counted");
    let mut state = was.clone();
    for event in events {
        match &event.kind {
            Kind::AttemptStarted { .. } => {
                holds!(world, state.running().is_none(), "I4 one-attempt");
                let last = state.exec.as_ref().map(|exec| exec.attempt.next());
                holds!(world, last == event.attempt, "I11 counted");
            }
            Kind::ExecutionStarted { .. } => {
                holds!(world, event.exec == Some(ExecId(state.exec_count).next()), "I11 counted");
            }
            Kind::AskRaised { ask, .. } => {
                holds!(world, ask.0 == state.ask_count + 1, "I11 counted");
            }
            Kind::StepStarted { step, .. } => {
                let item = state.exec.as_ref().and_then(|exec| exec.items.get(step));
                let done = matches!(item, Some(Item::Step(s)) if is_done(s.phase));
                holds!(world, !done, "I7 done-is-done");
            }
            _ => {}
        }
        state.apply(event);
    }
}

const fn is_done(phase: StepPhase) -> bool {
    matches!(phase, StepPhase::Done(_))
}

/// What holds in a state that has not been seen before.
pub(super) fn state(world: &World) {
    let state = world.session.state();
    let mut states = vec![State::default()];
    for event in &world.log {
        let mut next = states[states.len() - 1].clone();
        next.apply(event);
        states.push(next);
    }
    holds!(world, states.last() == Some(state), "I3 replay");
    let middle = states.len() / 2;
    let restored = Session::restore(states[middle].clone(), &world.log[middle..]);
    holds!(world, restored.state() == state, "I3 replay");
    holds!(world, is_named(&world.session, world), "I8 named-wait");
    if state.exec.is_none() {
        holds!(world, state.asks.is_empty(), "I9 nothing-dangles");
        holds!(world, dangling(&world.log).is_empty(), "I9 nothing-dangles");
    }
    if state.deleted {
        holds!(world, world.session.deadline(world.now).is_none(), "I10 deleted-is-final");
        return;
    }
    let mut recovered = Session::replay(&world.log);
    drop(recovered.handle(world.now, &Input::Recover));
    holds!(world, is_named(&recovered, world), "I8 named-wait");
    for (kept, state) in states.iter().enumerate().rev().take(4) {
        if kept > 0 && !state.deleted {
            branch(world, state, true);
            branch(world, state, false);
        }
    }
}

/// I8: what makes it go on has a name.
fn is_named(session: &Session, world: &World) -> bool {
    let state = session.state();
    let Some(exec) = &state.exec else {
        return state.deleted || state.queue.is_empty() || session.deadline(world.now).is_some();
    };
    let waits = exec.items.pending().any(|(_, item)| matches!(item, Item::Signal(_, None)));
    let due = session.deadline(world.now).is_some();
    let asked = !state.asks.is_empty();
    match exec.phase {
        Phase::Running => true,
        Phase::Backoff { .. } => due,
        Phase::Unresolved => state.asks.values().any(|ask| ask.about.is_some()),
        Phase::Parked => due || asked || waits,
    }
}

/// Questions and sleeps that have begun and not ended, since the last branching.
fn dangling(log: &[Event]) -> BTreeSet<String> {
    let mut open = BTreeSet::new();
    for event in log {
        let (begins, what) = match &event.kind {
            Kind::SessionBranched { .. } => {
                open.clear();
                continue;
            }
            Kind::AskRaised { ask, .. } => (true, ask.to_string()),
            Kind::AskAnswered { ask, .. } | Kind::AskExpired { ask } => (false, ask.to_string()),
            Kind::TimerSet { key, .. } => (true, format!("timer {key}")),
            Kind::TimerFired { key } | Kind::TimerCanceled { key } => {
                (false, format!("timer {key}"))
            }
            _ => continue,
        };
        let changed = if begins { open.insert(what) } else { open.remove(&what) };
        assert!(changed, "what begins ends once");
    }
    open
}

/// I14: what a branch from here is.
fn branch(world: &World, from: &State, carry_on: bool) {
    let mut session = Session::restore(from.clone(), &[]);
    let request = Request::Branch { parent: SessionId(1), at: from.last, carry_on, seed: 3 };
    session.handle(world.now, &Input::Client(Caller::default(), request)).unwrap();
    let ready = session.take_ready();
    let state = session.state();
    let under_way = from
        .exec
        .iter()
        .flat_map(|exec| exec.items.pending())
        .filter(|(_, item)| matches!(item, Item::Step(step) if step.effect.is_once()));
    let asked: Vec<_> = state.asks.values().filter_map(|ask| ask.about.clone()).collect();
    holds!(world, state.asks.len() == asked.len(), "I14 branch-is-free");
    let Some(exec) = &state.exec else {
        holds!(world, asked.is_empty() && state.queue.is_empty(), "I14 branch-is-free");
        let open = under_way.filter(|(_, item)| {
            matches!(item, Item::Step(step)
                if matches!(step.phase, StepPhase::Open { .. } | StepPhase::Doubt))
        });
        let open: Vec<_> = open.map(|(key, _)| key).collect();
        let told = ready.persist.iter().filter_map(|event| match &event.kind {
            Kind::StepUnknown { step } => Some(step),
            _ => None,
        });
        holds!(world, told.eq(open), "I14 branch-is-free");
        return;
    };
    holds!(world, carry_on && !exec.is_waiting(), "I14 branch-is-free");
    let under_way: Vec<_> = under_way.map(|(key, _)| key.clone()).collect();
    holds!(world, asked == under_way, "I14 branch-is-free");
    let starts = ready.persist.iter().any(|e| matches!(e.kind, Kind::AttemptStarted { .. }));
    holds!(world, starts == asked.is_empty(), "I14 branch-is-free");
    holds!(world, is_named(&session, world), "I8 named-wait");
}
