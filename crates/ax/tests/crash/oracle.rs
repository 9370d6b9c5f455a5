//! What must hold of a session once everything has come to its end.

use super::clients::{Report, is_end, is_ours, signal_keys, text_of};
use super::effects::Line;
use super::program::{Effect, Input, Op};
use ax_core::session::State;
use ax_engine::codec;
use ax_fakemodel::Entry;
use ax_proto::v1;
use ax_proto::v1::event::Kind;
use prost::Message;
use std::collections::BTreeSet;

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) events: usize,
    pub(crate) attempts: usize,
    pub(crate) attempts_lost: usize,
    pub(crate) effects: usize,
    /// Steps of which a person was asked what became of them.
    pub(crate) unknown: usize,
    /// Model calls that were paid.
    pub(crate) paid: usize,
    /// Those that were paid again, and are marked so in the log.
    pub(crate) paid_again: usize,
    /// Those that were paid again although the log does not know of the first time.
    pub(crate) paid_unmarked: usize,
    pub(crate) interrupted: usize,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.attempts += other.attempts;
        self.attempts_lost += other.attempts_lost;
        self.effects += other.effects;
        self.unknown += other.unknown;
        self.paid += other.paid;
        self.paid_again += other.paid_again;
        self.paid_unmarked += other.paid_unmarked;
        self.interrupted += other.interrupted;
    }
}

/// Everything that is known of a session.
struct Evidence<'a> {
    report: &'a Report,
    log: &'a [v1::Event],
    lines: &'a [Line],
    ledger: &'a [Entry],
}

/// An execution: its input, and its events.
struct Execution<'a> {
    input: &'a Input,
    events: Vec<&'a v1::Event>,
    completed: bool,
}

macro_rules! must {
    ($holds:expr, $($message:tt)*) => {
        if !$holds { return Err(format!($($message)*)); }
    };
}

/// Checks a session.
pub(crate) fn check(
    report: &Report,
    log: &[v1::Event],
    lines: &[Line],
    ledger: &[Entry],
) -> Result<Counts, String> {
    let evidence = Evidence { report, log, lines, ledger };
    let mut counts = Counts { events: log.len(), effects: lines.len(), ..Counts::default() };
    evidence.nothing_is_lost()?;
    evidence.the_log_is_one()?;
    for (at, input) in report.session.inputs.iter().enumerate() {
        let seq = report.acknowledged[at];
        if evidence.taken_back(input, seq)? {
            counts.interrupted += 1;
            continue;
        }
        let execution = evidence.execution(input, seq)?;
        evidence.ended_well(&execution)?;
        counts.interrupted += usize::from(!execution.completed);
        for op in &input.ops {
            evidence.recorded(&execution, op)?;
            match op {
                Op::Step { key, effect } => evidence.carried_out(&execution, key, effect)?,
                Op::Model { key } => evidence.paid(&execution, key, &mut counts)?,
                _ => {}
            }
        }
    }
    for event in log {
        match &event.kind {
            Some(Kind::AttemptStarted(_)) => counts.attempts += 1,
            Some(Kind::AttemptLost(_)) => counts.attempts_lost += 1,
            Some(Kind::StepUnknown(_)) => counts.unknown += 1,
            _ => {}
        }
    }
    let known: BTreeSet<_> = report.session.inputs.iter().map(|input| input.tag.as_str()).collect();
    for line in lines {
        must!(known.contains(line.tag.as_str()), "{line:?} was told by nobody");
    }
    Ok(counts)
}

impl<'a> Evidence<'a> {
    /// What was acknowledged or shown is in the log, at its place and as it was.
    fn nothing_is_lost(&self) -> Result<(), String> {
        for (number, followed) in self.report.followed.iter().enumerate() {
            must!(
                followed.len() <= self.log.len(),
                "follower {number} saw {} events, the log has {}",
                followed.len(),
                self.log.len()
            );
            for (shown, kept) in followed.iter().zip(self.log) {
                must!(shown == kept, "follower {number} was shown {shown:?}, kept is {kept:?}");
            }
        }
        for (printed, kept) in self.report.printed.iter().zip(self.log) {
            let mut printed = printed.clone();
            printed.as_object_mut().unwrap().remove("type");
            let kept = serde_json::to_value(kept).unwrap();
            must!(printed == kept, "printed was {printed}, kept is {kept}");
        }
        for (input, seq) in self.report.session.inputs.iter().zip(&self.report.acknowledged) {
            let kept = self.at(*seq);
            let is_it = matches!(
                kept.and_then(|event| event.kind.as_ref()),
                Some(Kind::InputReceived(received))
                    if received.key == input.key && text_of(&received.parts) == input.text
            );
            must!(is_it, "{} was acknowledged at {seq}, where there is {kept:?}", input.tag);
        }
        for (key, seq) in &self.report.signals {
            let kept = self.at(*seq);
            let is_it = matches!(
                kept.and_then(|event| event.kind.as_ref()),
                Some(Kind::SignalReceived(received)) if received.key == *key
            );
            must!(is_it, "{key} was acknowledged at {seq}, where there is {kept:?}");
        }
        Ok(())
    }

    fn at(&self, seq: u64) -> Option<&'a v1::Event> {
        self.log.get(usize::try_from(seq).unwrap().checked_sub(1)?)
    }

    /// Positions have no gaps, keys come once, and the session machine takes every event.
    fn the_log_is_one(&self) -> Result<(), String> {
        let mut state = State::default();
        let mut keys = BTreeSet::new();
        for (at, event) in self.log.iter().enumerate() {
            must!(event.seq == at as u64 + 1, "event {} is at place {}", event.seq, at + 1);
            let key = match &event.kind {
                Some(Kind::InputReceived(input)) => Some(&input.key),
                Some(Kind::SignalReceived(signal)) => Some(&signal.key),
                _ => None,
            };
            must!(key.is_none_or(|key| keys.insert(key)), "{key:?} is recorded twice");
            let bytes = v1::Event { seq: 0, ..event.clone() }.encode_to_vec();
            let decoded = codec::decode_event(&bytes);
            state.apply(&decoded.map_err(|error| format!("event {}: {error}", event.seq))?);
        }
        must!(state.exec.is_none() && state.queue.is_empty(), "the session has not ended");
        let wanted = self.report.session.inputs.iter().flat_map(signal_keys);
        for key in keys {
            let input = self.report.session.inputs.iter().any(|input| input.key == *key);
            let signal = wanted.clone().any(|signal| signal == *key);
            must!(input || signal, "nobody sent {key}");
        }
        Ok(())
    }

    /// Whether an input was taken back by one that interrupts; nothing was done for it then.
    fn taken_back(&self, input: &Input, seq: u64) -> Result<bool, String> {
        let canceled = self.log.iter().filter(|event| {
            matches!(&event.kind, Some(Kind::InputCanceled(canceled)) if canceled.input == seq)
        });
        let count = canceled.count();
        if count == 0 {
            return Ok(false);
        }
        let tag = &input.tag;
        let interrupted = self.report.session.inputs.iter().any(|input| input.interrupts);
        must!(count == 1 && interrupted, "{tag} was taken back {count} times");
        let begun = self.log.iter().any(|event| {
            matches!(&event.kind, Some(Kind::ExecutionStarted(started)) if started.input == seq)
        });
        let done = self.lines.iter().any(|line| line.tag == *tag);
        must!(!begun && !done, "{tag} was begun although it was taken back");
        Ok(true)
    }

    /// Finds the one execution of an input.
    fn execution(&self, input: &'a Input, seq: u64) -> Result<Execution<'a>, String> {
        let started = self.log.iter().filter(|event| {
            matches!(&event.kind, Some(Kind::ExecutionStarted(started)) if started.input == seq)
        });
        let started: Vec<_> = started.collect();
        must!(started.len() == 1, "{} was begun {} times", input.tag, started.len());
        let number = started[0].execution;
        let events: Vec<_> = self.log.iter().filter(|event| event.execution == number).collect();
        let ends: Vec<_> = events.iter().filter(|event| is_end(event)).collect();
        must!(ends.len() == 1, "{} has {} ends", input.tag, ends.len());
        let completed = matches!(ends[0].kind, Some(Kind::ExecutionCompleted(_)));
        Ok(Execution { input, events, completed })
    }

    /// It completed, or a later input interrupted it.
    fn ended_well(&self, execution: &Execution<'_>) -> Result<(), String> {
        let interrupted = self.report.session.inputs.iter().any(|input| input.interrupts);
        let end = execution.events.iter().find(|event| is_end(event));
        let canceled =
            matches!(end.and_then(|event| event.kind.as_ref()), Some(Kind::ExecutionCanceled(_)));
        let tag = &execution.input.tag;
        must!(execution.completed || interrupted && canceled, "{tag} ended with {end:?}");
        Ok(())
    }

    /// What an operation was to record is there once; in an interrupted execution at most once.
    fn recorded(&self, execution: &Execution<'_>, op: &Op) -> Result<(), String> {
        let count = |is_it: &dyn Fn(&Kind) -> bool| {
            let kinds = execution.events.iter().filter_map(|event| event.kind.as_ref());
            kinds.filter(|kind| is_it(kind)).count()
        };
        let found = match op {
            Op::Step { key, .. } | Op::Model { key } => count(&|kind| match kind {
                Kind::StepCompleted(step) => step.step == *key,
                Kind::StepFailed(step) => step.step == *key,
                _ => false,
            }),
            Op::Say { key, text } => {
                said(execution, key, text)?;
                count(&|kind| matches!(kind, Kind::OutputMessage(said) if said.key == *key))
            }
            Op::Sleep { key } => {
                slept(execution, key)?;
                count(&|kind| matches!(kind, Kind::TimerFired(timer) if timer.key == *key))
            }
            Op::Signal { key, .. } => {
                count(&|kind| matches!(kind, Kind::SignalDelivered(signal) if signal.key == *key))
            }
            Op::Ask { key } => {
                count(&|kind| matches!(kind, Kind::AskRaised(ask) if ask.key == *key))
            }
            Op::Emit { key } => count(&|kind| matches!(kind, Kind::Note(note) if note.key == *key)),
            Op::Checkpoint { key } => {
                count(&|kind| matches!(kind, Kind::CheckpointCreated(made) if made.key == *key))
            }
        };
        let tag = &execution.input.tag;
        must!(found <= 1, "{op:?} of {tag} is recorded {found} times");
        must!(found == 1 || !execution.completed, "{op:?} of {tag} is not recorded");
        Ok(())
    }

    /// The effect of a step was carried out as often as its class and the log say.
    fn carried_out(
        &self,
        execution: &Execution<'_>,
        key: &str,
        effect: Effect,
    ) -> Result<(), String> {
        let tag = &execution.input.tag;
        let mine = |line: &&Line| line.tag == *tag && line.key == key;
        let attempts: Vec<u32> = self.lines.iter().filter(mine).map(|line| line.attempt).collect();
        let step = Course::of(execution, key);
        let what = format!("{effect} step {key} of {tag}: lines {attempts:?}, log {step:?}");
        match effect {
            "read" => must!(attempts.is_empty(), "something was written by the {what}"),
            "once" => {
                must!(attempts.len() <= 1, "carried out twice: {what}");
                must!(attempts.is_empty() || step.started > 0, "not granted: {what}");
                match step.end {
                    Some(End::Completed) => must!(attempts.len() == 1, "not carried out: {what}"),
                    Some(End::Failed) => must!(attempts.is_empty(), "carried out: {what}"),
                    None => must!(attempts.is_empty() || step.unknown > 0, "unsaid: {what}"),
                }
            }
            _ => {
                let mut distinct = attempts.clone();
                distinct.dedup();
                must!(distinct.len() == attempts.len(), "twice in an attempt: {what}");
                if step.end.is_some() {
                    must!(attempts.last() == Some(&step.ended_by), "not by that attempt: {what}");
                    must!(attempts.iter().all(|at| *at <= step.ended_by), "done again: {what}");
                }
            }
        }
        Ok(())
    }

    /// A model call was paid once, and again only for an attempt that was lost within it.
    fn paid(
        &self,
        execution: &Execution<'_>,
        key: &str,
        counts: &mut Counts,
    ) -> Result<(), String> {
        let tag = &execution.input.tag;
        let ours = is_ours(self.report.session.carrier);
        let word = |entry: &Entry, at| entry.prompt.split(' ').nth(at).map(str::to_owned);
        let of_input = self.ledger.iter().filter(|entry| word(entry, 0).as_ref() == Some(tag));
        // The built-in harness says the same in every turn, and counts turns over all inputs.
        let first = of_input.clone().map(|entry| entry.turn).min();
        let is_it = |entry: &&Entry| match ours {
            true => word(entry, 1).as_deref() == Some(key),
            false => (Some(entry.turn) == first) == (key == "model:1"),
        };
        let paid: Vec<_> = of_input.filter(is_it).filter(|entry| entry.is_paid()).collect();
        let step = Course::of(execution, key);
        let prompts: BTreeSet<_> = paid.iter().map(|entry| &entry.prompt).collect();
        let what = format!("model step {key} of {tag}: paid {} times, log {step:?}", paid.len());
        if ours {
            must!(prompts.len() == paid.len(), "twice in an attempt: {what}");
        }
        let lost = usize::try_from(step.lost_before_end).unwrap();
        must!(paid.len() <= 1 + lost, "paid too often: {what}");
        must!(step.again + 1 == step.started || step.started == 0, "not marked: {what}");
        must!(step.end.is_none() || !paid.is_empty(), "not paid: {what}");
        counts.paid += paid.len();
        counts.paid_again += step.again;
        counts.paid_unmarked += paid.len().saturating_sub(step.started);
        Ok(())
    }
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Completed,
    Failed,
}

/// What the log says of a step.
#[derive(Clone, Copy, Debug, Default)]
struct Course {
    started: usize,
    again: usize,
    unknown: usize,
    end: Option<End>,
    /// The attempt that the end belongs to.
    ended_by: u32,
    /// How many attempts were lost before the end.
    lost_before_end: u32,
}

impl Course {
    fn of(execution: &Execution<'_>, key: &str) -> Self {
        let mut course = Self::default();
        for event in &execution.events {
            match event.kind.as_ref() {
                Some(Kind::StepStarted(step)) if step.step == key => {
                    course.started += 1;
                    course.again += usize::from(step.again);
                }
                Some(Kind::StepUnknown(step)) if step.step == key => course.unknown += 1,
                Some(Kind::StepCompleted(step)) if step.step == key => {
                    (course.end, course.ended_by) = (Some(End::Completed), event.attempt);
                }
                Some(Kind::StepFailed(step)) if step.step == key => {
                    (course.end, course.ended_by) = (Some(End::Failed), event.attempt);
                }
                Some(Kind::AttemptLost(_)) if course.end.is_none() => course.lost_before_end += 1,
                _ => {}
            }
        }
        course
    }
}

/// What followers put together of the pieces of an output is what was said.
fn said(execution: &Execution<'_>, key: &str, text: &str) -> Result<(), String> {
    for (at, event) in execution.events.iter().enumerate() {
        let Some(Kind::OutputMessage(message)) = &event.kind else { continue };
        if message.key != key {
            continue;
        }
        let pieces = execution.events[..at].iter().filter_map(|before| match &before.kind {
            Some(Kind::OutputDelta(delta))
                if delta.block == message.block && before.attempt == event.attempt =>
            {
                Some(delta.text.as_str())
            }
            _ => None,
        });
        let pieces: Vec<_> = pieces.collect();
        let counted = usize::try_from(message.deltas).unwrap();
        must!(counted == pieces.len(), "{key} says it has {counted} pieces of {}", pieces.len());
        let shown = pieces.concat() + &text_of(&message.parts);
        must!(shown == text, "{key} was to say {text:?}, and followers were shown {shown:?}");
    }
    Ok(())
}

/// A sleep did not end too early.
fn slept(execution: &Execution<'_>, key: &str) -> Result<(), String> {
    let mut due = None;
    for event in &execution.events {
        match &event.kind {
            Some(Kind::TimerSet(set)) if set.key == key => {
                must!(due.is_none(), "{key} was set twice");
                due = Some(set.due_at_millis);
            }
            Some(Kind::TimerFired(fired)) if fired.key == key => {
                let early = due.is_none_or(|due| event.at_millis < due);
                must!(!early, "{key} was due at {due:?} and fired at {}", event.at_millis);
            }
            _ => {}
        }
    }
    Ok(())
}
