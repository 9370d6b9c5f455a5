//! E6: what happened outside is what the log says.

use super::Book;
use crate::life::World;
use crate::outside::Act;
use ax_core::id::{ExecId, Seq};
use ax_core::session::{Answer, EffectClass, Kind};
use std::collections::BTreeMap;

/// E6 effects: no step that must not happen twice has more effects than were granted, none is
/// unaccounted for, and none is carried out that was done before.
pub(super) fn check(world: &World, book: &Book) {
    let acts: Vec<Act> = {
        let state = world.outside.lock();
        state.acts.iter().filter(|act| act.session == book.key).cloned().collect()
    };
    let mut counts: BTreeMap<(ExecId, &str), u64> = BTreeMap::new();
    for act in &acts {
        let lineage = lineage(book, act.exec);
        if act.class.is_once() {
            *counts.entry((act.exec, &act.step)).or_default() += 1;
            granted(world, book, act, &lineage);
        }
        done_once(world, book, act, &lineage);
    }
    for ((exec, step), count) in counts {
        let lineage = lineage(book, exec);
        let allowed = 1 + retries(book, step, &lineage);
        let allowed = allowed.saturating_sub(used(book, step, &lineage));
        if count > allowed {
            let key = &book.key;
            let what = format!("E6 effects: {step} of {exec} of {key}: {count}, not {allowed}");
            world.outside.fail(what);
        }
    }
}

/// The execution, and those of the parents that it carries on.
fn lineage(book: &Book, exec: ExecId) -> Vec<ExecId> {
    let mut lineage = vec![exec];
    for (_, event) in book.iter().collect::<Vec<_>>().into_iter().rev() {
        if let Kind::ExecutionStarted { continues: Some(before), .. } = event.kind
            && event.exec == lineage.last().copied()
        {
            lineage.push(before);
        }
    }
    lineage
}

/// Where a step was started in these executions, and in which of them.
fn started<'a>(
    book: &'a Book,
    step: &'a str,
    lineage: &'a [ExecId],
) -> impl Iterator<Item = (Seq, &'a ax_core::session::Event)> {
    book.iter().filter(move |(_, event)| {
        matches!(&event.kind, Kind::StepStarted { step: found, .. } if found.as_str() == step)
            && event.exec.is_some_and(|exec| lineage.contains(&exec))
    })
}

/// How many permissions its parents have used up: each beginning uses one, the first, or a person's
/// word, unless it is to find out what became of the one before.
fn used(book: &Book, step: &str, lineage: &[ExecId]) -> u64 {
    let (mut used, mut in_doubt) = (0, false);
    let shared = book.iter().filter(|(seq, _)| *seq <= book.shared());
    for (_, event) in shared.filter(|(_, e)| e.exec.is_some_and(|exec| lineage.contains(&exec))) {
        match &event.kind {
            Kind::StepStarted { step: found, effect, .. } if found.as_str() == step => {
                used += u64::from(!in_doubt);
                in_doubt = *effect == EffectClass::Probed;
            }
            Kind::StepUnknown { step: found } if found.as_str() == step => in_doubt = false,
            _ => {}
        }
    }
    used
}

/// How often a person said that the step may be carried out again.
fn retries(book: &Book, step: &str, lineage: &[ExecId]) -> u64 {
    let about = |event: &&ax_core::session::Event| {
        matches!(&event.kind, Kind::AskRaised { about: Some(about), .. } if about.as_str() == step)
            && event.exec.is_some_and(|exec| lineage.contains(&exec))
    };
    let asks: Vec<_> = book.events.iter().filter(about).collect();
    let answers = book.events.iter().filter(|event| match &event.kind {
        Kind::AskAnswered { ask, answer: Answer::Choice(choice, _), .. } => {
            let ours = |raised: &&ax_core::session::Event| {
                matches!(raised.kind, Kind::AskRaised { ask: other, .. } if other == *ask)
            };
            choice == Kind::RETRY && asks.iter().any(ours)
        }
        _ => false,
    });
    answers.count() as u64
}

/// A `once` step acts on durable intent only, and what came of it is said.
fn granted(world: &World, book: &Book, act: &Act, lineage: &[ExecId]) {
    let mut intents = started(book, &act.step, lineage);
    let intent =
        intents.find(|(_, event)| event.exec.zip(event.attempt) == Some((act.exec, act.attempt)));
    let Some((seq, _)) = intent else {
        world.outside.fail(format!("E6 effects: {act:?} rests on nothing durable"));
        return;
    };
    let told = book.iter().any(|(at, event)| {
        at > seq
            && match &event.kind {
                Kind::StepCompleted { step, .. }
                | Kind::StepFailed { step, .. }
                | Kind::StepUnknown { step } => step.as_str() == act.step,
                _ => false,
            }
    });
    if !told {
        world.outside.fail(format!("E6 effects: nothing is said of what came of {act:?}"));
    }
}

/// What was carried out is not carried out by a later attempt.
fn done_once(world: &World, book: &Book, act: &Act, lineage: &[ExecId]) {
    let begun = book.iter().find(|(_, event)| {
        matches!(event.kind, Kind::AttemptStarted { .. })
            && event.exec.zip(event.attempt) == Some((act.exec, act.attempt))
    });
    let Some((begun, _)) = begun else {
        world.outside.fail(format!("E6 effects: {act:?} is of an attempt that never was"));
        return;
    };
    let done = book.iter().find(|(seq, event)| {
        *seq < begun
            && event.exec.is_some_and(|exec| lineage.contains(&exec))
            && match &event.kind {
                Kind::StepCompleted { step, .. } | Kind::StepFailed { step, .. } => {
                    step.as_str() == act.step
                }
                _ => false,
            }
    });
    if let Some((seq, _)) = done {
        world.outside.fail(format!("E6 effects: {act:?} was done at {seq}"));
    }
}
