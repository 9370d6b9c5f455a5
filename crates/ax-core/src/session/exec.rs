//! What the events of one execution amount to.

use super::event::{Event, Kind, LostReason};
use super::value::{BlockId, Digest, EffectClass, StepKey, StepKind, Usage};
use crate::id::{AskId, AttemptId, ExecId, Seq};
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// The execution under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Its id.
    pub id: ExecId,
    /// The input it is for.
    pub input: Seq,
    /// When it began.
    pub started_at: Timestamp,
    /// The newest attempt; 0 before the first.
    pub attempt: AttemptId,
    /// Where its journal begins.
    pub journal_from: Seq,
    /// Executions of the parents that it carries on; their events are in its journal, too.
    pub continues: Vec<ExecId>,
    /// How many attempts have failed since something new was recorded under a key.
    pub failures: u32,
    /// How many attempts were lost with the runtime since then.
    pub losses: u32,
    /// What it consumed.
    pub usage: Usage,
    /// Where it stands.
    pub phase: Phase,
    /// What is recorded, by key.
    pub items: Items,
    /// Blocks of output that the attempt has begun and not finished, with their deltas.
    pub blocks: BTreeMap<BlockId, u32>,
    /// How many blocks without a name there were.
    pub block_count: u32,
}

/// Where an execution stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// An attempt runs.
    Running,
    /// The next attempt is due at a time.
    Backoff {
        /// The time.
        until: Timestamp,
    },
    /// It only waits, and no process does so.
    Parked,
    /// A person is asked what became of a step.
    Unresolved,
}

/// What is recorded under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A step.
    Step(Step),
    /// An output, by the event that recorded it.
    Output(Seq),
    /// An open question.
    Ask(AskId),
    /// A question that was answered or has expired, by the event that says so.
    AskDone(AskId, Seq),
    /// A sleep: until when, and the event that ended it.
    Sleep(Timestamp, Option<Seq>),
    /// A wait for a signal: its name, and the delivery and the signal.
    Signal(String, Option<(Seq, Seq)>),
    /// A note, by its event.
    Note(Seq),
    /// A checkpoint, by its event.
    Checkpoint(Seq),
}

/// What an execution has recorded, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Items {
    by_key: BTreeMap<StepKey, Item>,
    /// The keys of what is not over: the few among the many that time can do something to.
    pending: BTreeSet<StepKey>,
}

impl Items {
    /// Returns what is recorded under a key.
    pub fn get(&self, key: &StepKey) -> Option<&Item> {
        self.by_key.get(key)
    }

    /// Records something under a key, and returns what was there.
    pub fn insert(&mut self, key: &StepKey, item: Item) -> Option<Item> {
        if item.is_pending() {
            self.pending.insert(key.clone());
        } else {
            self.pending.remove(key);
        }
        self.by_key.insert(key.clone(), item)
    }

    /// Returns how many keys there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Goes through all of it, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&StepKey, &Item)> {
        self.by_key.iter()
    }

    /// Goes through the steps under way, in doubt or of unknown outcome, and the waits that are not
    /// over.
    pub fn pending(&self) -> impl Iterator<Item = (&StepKey, &Item)> {
        self.pending.iter().filter_map(|key| self.by_key.get_key_value(key))
    }

    fn remove(&mut self, key: &StepKey) {
        self.by_key.remove(key);
        self.pending.remove(key);
    }

    /// Changes what is recorded under each pending key; `None` removes it.
    fn settle(&mut self, change: impl Fn(&Item) -> Option<Item>) {
        let pending: Vec<_> = self.pending.iter().cloned().collect();
        for key in pending {
            let item = self.by_key.get(&key).expect("what is pending is recorded");
            match change(item) {
                Some(item) => drop(self.insert(&key, item)),
                None => self.remove(&key),
            }
        }
    }
}

impl Item {
    /// Whether it is not over: an open step, one in doubt or of unknown outcome, or a wait.
    pub const fn is_pending(&self) -> bool {
        match self {
            Self::Step(step) => !step.phase.is_over(),
            _ => self.is_wait(),
        }
    }

    /// Whether the harness waits for it.
    pub const fn is_wait(&self) -> bool {
        matches!(self, Self::Ask(_) | Self::Sleep(_, None) | Self::Signal(_, None))
    }

    /// Returns what it is, in a word.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Step(_) => "step",
            Self::Output(_) => "output",
            Self::Ask(_) | Self::AskDone(..) => "ask",
            Self::Sleep(..) => "sleep",
            Self::Signal(..) => "signal",
            Self::Note(_) => "note",
            Self::Checkpoint(_) => "checkpoint",
        }
    }
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it does.
    pub kind: StepKind,
    /// The model, tool or function.
    pub name: String,
    /// What it means to carry it out again.
    pub effect: EffectClass,
    /// The hash of its request.
    pub digest: Digest,
    /// Where it stands.
    pub phase: StepPhase,
}

impl Step {
    /// What becomes of it when its attempt is lost. What must not happen twice is of unknown
    /// outcome from that event on, so that no prefix of the log says that it may be tried again;
    /// unless the next attempt can find out.
    fn lost(&self) -> Self {
        let phase = match self.effect {
            EffectClass::Once => StepPhase::Unknown,
            EffectClass::Probed => StepPhase::Doubt,
            EffectClass::Read | EffectClass::Idempotent => StepPhase::Lost,
        };
        Self { phase, ..self.clone() }
    }

    /// What becomes of it in a branch, which has nothing to find out by: what its parent does goes
    /// on under the parent's name.
    fn left_behind(&self) -> Self {
        let phase = if self.effect.is_once() { StepPhase::Unknown } else { StepPhase::Lost };
        Self { phase, ..self.clone() }
    }
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepPhase {
    /// It is being carried out.
    Open {
        /// Since when, as a position.
        since: Seq,
        /// When it is overdue; [`Timestamp::NEVER`] if never.
        due_at: Timestamp,
        /// How long it may take, in milliseconds; 0 means without a bound.
        limit_millis: u64,
    },
    /// Its attempt was lost; it may be carried out again.
    Lost,
    /// Its attempt was lost, and it must not be carried out again.
    Unknown,
    /// Its attempt was lost; it may be carried out again by whoever has found out that it was not.
    Doubt,
    /// It was carried out: the event that says what came of it.
    Done(Seq),
}

impl StepPhase {
    /// Whether nothing is owed any more.
    const fn is_over(self) -> bool {
        matches!(self, Self::Lost | Self::Done(_))
    }

    /// Whether a harness may begin it again.
    const fn may_begin_again(self) -> bool {
        matches!(self, Self::Lost | Self::Doubt)
    }
}

impl Exec {
    /// How many keys an execution can have.
    pub const ITEMS_MAX: usize = 100_000;
    /// How many blocks of output an attempt can have open.
    pub const BLOCKS_MAX: usize = 64;

    pub(super) fn new(id: ExecId, input: Seq, seq: Seq, at: Timestamp) -> Self {
        Self {
            id,
            input,
            started_at: at,
            attempt: AttemptId(0),
            journal_from: seq,
            continues: Vec::new(),
            failures: 0,
            losses: 0,
            usage: Usage::default(),
            phase: Phase::Backoff { until: at },
            items: Items::default(),
            blocks: BTreeMap::new(),
            block_count: 0,
        }
    }

    /// Whether a step is being carried out.
    pub fn has_open_step(&self) -> bool {
        let open = |item: &Item| match item {
            Item::Step(step) => step.phase != StepPhase::Doubt,
            _ => false,
        };
        self.items.pending().any(|(_, item)| open(item))
    }

    /// Goes through the steps that may have been carried out, of which the next attempt finds out.
    pub fn in_doubt(&self) -> impl Iterator<Item = &StepKey> {
        let doubt =
            |item: &Item| matches!(item, Item::Step(step) if step.phase == StepPhase::Doubt);
        self.items.pending().filter(move |(_, item)| doubt(item)).map(|(key, _)| key)
    }

    /// Whether the harness waits for something.
    pub fn is_waiting(&self) -> bool {
        self.items.pending().any(|(_, item)| item.is_wait())
    }

    pub(super) fn put(&mut self, key: &StepKey, item: Item) {
        let before = self.items.insert(key, item);
        assert_eq!(before, None, "a key is used once");
    }

    /// What is recorded is not done again: the attempts so far were not in vain.
    pub(super) fn progressed(&mut self) {
        (self.failures, self.losses) = (0, 0);
    }

    fn step(&self, key: &StepKey) -> &Step {
        match self.items.get(key) {
            Some(Item::Step(step)) => step,
            other => panic!("{key} is a step, not {other:?}"),
        }
    }

    pub(super) fn set_phase(&mut self, key: &StepKey, phase: StepPhase) {
        let step = Step { phase, ..self.step(key).clone() };
        self.items.insert(key, Item::Step(step));
    }

    /// A branch does not inherit what was promised or under way.
    pub(super) fn drop_obligations(&mut self) {
        self.items.settle(|item| match item {
            Item::Step(step) => Some(Item::Step(step.left_behind())),
            _ => None,
        });
        self.blocks.clear();
        self.phase = Phase::Parked;
    }

    /// What was being carried out is not any more.
    fn lose_steps(&mut self) {
        self.items.settle(|item| match item {
            Item::Step(step) if matches!(step.phase, StepPhase::Open { .. }) => {
                Some(Item::Step(step.lost()))
            }
            other => Some(other.clone()),
        });
    }

    /// Takes over what an execution of the parent has recorded.
    pub(super) fn carry_on(&mut self, parent: Self) {
        self.journal_from = parent.journal_from;
        self.continues = parent.continues;
        self.continues.push(parent.id);
        self.items = parent.items;
        self.block_count = parent.block_count;
    }

    /// Applies an event that belongs to the execution and not to a question.
    pub(super) fn apply(&mut self, event: &Event, seq: Seq) {
        match &event.kind {
            Kind::AttemptStarted { .. } => {
                assert_ne!(self.phase, Phase::Running, "one attempt at a time");
                self.attempt = self.attempt.next();
                assert_eq!(event.attempt, Some(self.attempt), "attempts are counted");
                self.phase = Phase::Running;
            }
            Kind::AttemptLost { reason, retry_at, .. } => {
                assert_eq!(self.phase, Phase::Running, "only a running attempt is lost");
                match reason {
                    LostReason::Runtime => self.losses += 1,
                    _ => self.failures += 1,
                }
                self.lose_steps();
                self.blocks.clear();
                let until = retry_at.unwrap_or(Timestamp::NEVER);
                self.phase = Phase::Backoff { until };
            }
            Kind::ActorSuspended => {
                assert_eq!(self.phase, Phase::Running, "only a running attempt is suspended");
                self.blocks.clear();
                self.phase = Phase::Parked;
            }
            Kind::OutputDelta { block, .. } => {
                *self.blocks.entry(block.clone()).or_default() += 1;
            }
            Kind::OutputMessage { block, key, .. } => {
                self.blocks.remove(block);
                self.block_count += 1;
                if let Some(key) = key {
                    self.put(key, Item::Output(seq));
                    self.progressed();
                }
            }
            Kind::TimerSet { key, due_at } => self.put(key, Item::Sleep(*due_at, None)),
            Kind::TimerFired { key } | Kind::TimerCanceled { key } => {
                let Some(Item::Sleep(due_at, None)) = self.items.get(key) else {
                    panic!("{key} is a timer that has not fired");
                };
                let fired = Item::Sleep(*due_at, Some(seq));
                self.items.insert(key, fired);
                self.progressed();
            }
            Kind::SignalAwaited { key, name } => self.put(key, Item::Signal(name.clone(), None)),
            Kind::SignalDelivered { key, signal } => {
                let Some(Item::Signal(name, None)) = self.items.get(key) else {
                    panic!("{key} is a wait for a signal that has not come");
                };
                let delivered = Item::Signal(name.clone(), Some((seq, *signal)));
                self.items.insert(key, delivered);
                self.progressed();
            }
            Kind::CheckpointCreated { key: Some(key), .. } => {
                self.put(key, Item::Checkpoint(seq));
                self.progressed();
            }
            Kind::Note { key: Some(key), .. } => {
                self.put(key, Item::Note(seq));
                self.progressed();
            }
            Kind::StepDiverged { .. } | Kind::BudgetExceeded { .. } => {}
            _ => self.apply_step(event, seq),
        }
    }

    fn apply_step(&mut self, event: &Event, seq: Seq) {
        match &event.kind {
            Kind::StepStarted { step, kind, name, effect, digest, again, limit_millis, .. } => {
                let due_at = match limit_millis {
                    0 => Timestamp::NEVER,
                    limit => event.at.plus_millis(*limit),
                };
                let phase = StepPhase::Open { since: seq, due_at, limit_millis: *limit_millis };
                let (name, digest) = (name.clone(), *digest);
                let new = Step { kind: *kind, name, effect: *effect, digest, phase };
                let before = self.items.insert(step, Item::Step(new));
                let lost = matches!(&before,
                    Some(Item::Step(Step { phase, .. })) if phase.may_begin_again());
                assert_eq!(*again, lost, "only a lost step is started again");
                assert!(before.is_none() || lost, "a key is used once");
            }
            Kind::StepCompleted { step, usage, .. } | Kind::StepFailed { step, usage, .. } => {
                let done = matches!(self.step(step).phase, StepPhase::Done(_));
                assert!(!done, "a step is done once");
                self.set_phase(step, StepPhase::Done(seq));
                self.usage.add(usage);
                self.progressed();
            }
            Kind::StepUnknown { step } => {
                let Step { phase, effect, .. } = self.step(step);
                assert!(!phase.is_over(), "its attempt was lost or stopped");
                assert!(effect.is_once(), "others are carried out again");
                self.set_phase(step, StepPhase::Unknown);
            }
            other => unreachable!("{} is applied elsewhere", other.name()),
        }
    }
}
