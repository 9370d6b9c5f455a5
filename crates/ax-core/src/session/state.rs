//! What the events amount to.

use super::event::{AgentRef, Event, Kind, LostReason, Outcome};
use super::value::{
    AskKind, BlockId, Digest, EffectClass, IdempotencyKey, Limits, StepKey, StepKind, Usage,
};
use crate::id::{AskId, AttemptId, ExecId, Seq};
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The state after a prefix of the log. Only [`State::apply`] changes it, and only by an event.
///
/// The fields are public to be stored in snapshots and shown to clients, not to be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The position of the last event.
    pub last: Seq,
    /// Who the session is; `None` until it is created.
    pub identity: Option<Identity>,
    /// The session takes nothing more.
    pub deleted: bool,
    /// Inputs that wait for their execution, by position, oldest first.
    pub queue: VecDeque<Seq>,
    /// The newest keys of inputs and signals.
    pub known: KnownKeys,
    /// How many executions there were.
    pub exec_count: u32,
    /// How many questions there were.
    pub ask_count: u32,
    /// The execution under way.
    pub exec: Option<Exec>,
    /// Open questions.
    pub asks: BTreeMap<AskId, OpenAsk>,
    /// Signals that nobody has waited for yet, oldest first.
    pub signals: VecDeque<(Seq, String)>,
    /// How the last execution ended.
    pub ended: Option<Ended>,
    /// What all ended executions consumed.
    pub usage: Usage,
}

/// Who a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name its id is derived from; empty if it has none.
    pub name: String,
    /// What people call it.
    pub title: String,
    /// Its agent.
    pub agent: AgentRef,
    /// What holds for its executions.
    pub limits: Limits,
    /// Where harness and tools run.
    pub sandbox: String,
    /// Makes its jitter its own.
    pub seed: u64,
    /// When it was created.
    pub created_at: Timestamp,
}

/// How an execution ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The execution.
    pub exec: ExecId,
    /// The name of the event, such as `execution.completed`.
    pub outcome: String,
    /// Why, in words; may be empty.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// An open question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenAsk {
    /// The harness' key for it.
    pub key: Option<StepKey>,
    /// The step of unknown outcome that it is about.
    pub about: Option<StepKey>,
    /// What kind of answer is wanted.
    pub kind: AskKind,
    /// The question.
    pub prompt: String,
    /// What can be chosen.
    pub choices: Vec<String>,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
}

/// The newest keys, so that a request that is sent again is known again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownKeys {
    by_key: BTreeMap<IdempotencyKey, (Seq, Digest)>,
    order: VecDeque<IdempotencyKey>,
}

impl KnownKeys {
    /// How many keys a session knows. Older ones are forgotten.
    pub const COUNT_MAX: usize = 4_096;

    /// Adds a key, and forgets the oldest if there are too many.
    pub fn insert(&mut self, key: &IdempotencyKey, seq: Seq, digest: Digest) {
        if self.order.len() == Self::COUNT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_key.remove(&oldest);
        }
        let before = self.by_key.insert(key.clone(), (seq, digest));
        assert!(before.is_none(), "a key is used once");
        self.order.push_back(key.clone());
    }

    /// Returns where a key was used, and the hash of the content.
    pub fn get(&self, key: &IdempotencyKey) -> Option<(Seq, Digest)> {
        self.by_key.get(key).copied()
    }

    /// Goes through the keys, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&IdempotencyKey, Seq, Digest)> {
        self.order.iter().filter_map(|key| {
            let (seq, digest) = self.by_key.get(key)?;
            Some((key, *seq, *digest))
        })
    }
}

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
    /// How many attempts have failed.
    pub failures: u32,
    /// How many attempts were lost with the runtime.
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

    /// Goes through the steps under way or of unknown outcome, and the waits that are not over.
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
    /// Whether it is not over: an open step or one of unknown outcome, or a wait.
    pub const fn is_pending(&self) -> bool {
        match self {
            Self::Step(step) => {
                matches!(step.phase, StepPhase::Open { .. } | StepPhase::Unknown)
            }
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
    /// It was carried out: the event that says what came of it.
    Done(Seq),
}

impl State {
    /// Applies the next event of the log.
    ///
    /// # Panics
    ///
    /// Panics on an event that no correct writer can have written: a log that lies is not replayed.
    pub fn apply(&mut self, event: &Event) {
        let seq = self.last.next();
        assert!(!self.deleted, "nothing follows a deletion");
        match &event.kind {
            Kind::SessionCreated { name, agent, limits, sandbox, seed } => {
                assert!(self.identity.is_none() && seq == Seq::FIRST, "a session begins once");
                self.identity = Some(Identity {
                    name: name.clone(),
                    title: name.clone(),
                    agent: agent.clone(),
                    limits: *limits,
                    sandbox: sandbox.clone(),
                    seed: *seed,
                    created_at: event.at,
                });
            }
            Kind::SessionBranched { carry_on, seed, .. } => {
                self.branch(*carry_on, *seed, event.at);
            }
            Kind::SessionRenamed { title } => self.identity_mut().title.clone_from(title),
            Kind::SessionDeleted => self.deleted = true,
            Kind::InputReceived { key, digest, .. } => {
                self.know(key.as_ref(), seq, *digest);
                self.queue.push_back(seq);
            }
            Kind::InputCanceled { input } => {
                let waiting = self.queue.iter().position(|waits| waits == input);
                self.queue.remove(waiting.expect("only an input that waits is taken back"));
            }
            Kind::SignalReceived { name, key, .. } => {
                self.know(key.as_ref(), seq, Digest::default());
                self.signals.push_back((seq, name.clone()));
            }
            Kind::ExecutionStarted { input, continues } => {
                self.start(event, seq, *input, *continues);
            }
            Kind::ExecutionEnded { outcome, usage } => self.end(event, outcome, usage),
            Kind::AskRaised { .. } | Kind::AskAnswered { .. } | Kind::AskExpired { .. } => {
                self.apply_ask(event, seq);
            }
            Kind::CheckpointCreated { key: None, .. } | Kind::Note { key: None, .. } => {}
            _ => {
                assert_eq!(self.exec_id(), event.exec, "only the execution under way goes on");
                let exec = self.exec.as_mut().expect("an execution is under way");
                exec.apply(event, seq);
                if let Kind::SignalDelivered { signal, .. } = &event.kind {
                    self.signals.retain(|(seq, _)| seq != signal);
                }
            }
        }
        self.last = seq;
    }

    /// Returns the position that the next event will have.
    pub const fn next(&self) -> Seq {
        self.last.next()
    }

    /// Returns the execution under way.
    pub fn exec_id(&self) -> Option<ExecId> {
        self.exec.as_ref().map(|exec| exec.id)
    }

    /// Returns the attempt that runs.
    pub fn running(&self) -> Option<(ExecId, AttemptId)> {
        let exec = self.exec.as_ref().filter(|exec| exec.phase == Phase::Running)?;
        Some((exec.id, exec.attempt))
    }

    /// Returns what holds for the executions of this session.
    pub fn limits(&self) -> Limits {
        self.identity.as_ref().map_or_else(Limits::default, |identity| identity.limits)
    }

    fn identity_mut(&mut self) -> &mut Identity {
        self.identity.as_mut().expect("the session was created")
    }

    fn know(&mut self, key: Option<&IdempotencyKey>, seq: Seq, digest: Digest) {
        if let Some(key) = key {
            self.known.insert(key, seq, digest);
        }
    }

    /// A branch begins: it has none of the obligations of its parent.
    fn branch(&mut self, carry_on: bool, seed: u64, at: Timestamp) {
        let identity = self.identity_mut();
        identity.seed = seed;
        identity.name = String::new();
        identity.created_at = at;
        self.asks.clear();
        self.ended = None;
        self.usage = Usage::default();
        if carry_on {
            if let Some(exec) = &mut self.exec {
                exec.drop_obligations();
            }
        } else {
            self.exec = None;
            self.queue.clear();
        }
    }

    fn start(&mut self, event: &Event, seq: Seq, input: Seq, continues: Option<ExecId>) {
        let id = ExecId(self.exec_count).next();
        assert_eq!(event.exec, Some(id), "executions are counted");
        let mut exec = Exec::new(id, input, seq, event.at);
        if let Some(before) = continues {
            let parent = self.exec.take().expect("there is an execution to carry on");
            assert_eq!(parent.id, before, "the execution under way is carried on");
            exec.carry_on(parent);
        } else {
            assert_eq!(self.exec, None, "one execution at a time");
            assert_eq!(self.queue.pop_front(), Some(input), "the oldest input is next");
        }
        self.exec = Some(exec);
        self.exec_count = id.0;
    }

    fn end(&mut self, event: &Event, outcome: &Outcome, usage: &Usage) {
        assert_eq!(self.exec_id(), event.exec, "only the execution under way ends");
        let exec = self.exec.take().expect("an execution is under way");
        assert!(self.asks.is_empty(), "no question outlives its execution");
        self.usage.add(usage);
        let reason = match outcome {
            Outcome::Completed { .. } => String::new(),
            Outcome::Failed { failure } => format!("{}: {}", failure.code, failure.message),
            Outcome::Canceled { reason } => reason.clone(),
            Outcome::TimedOut { limit_millis } => format!("after {limit_millis} ms"),
        };
        let outcome = event.kind.name().into();
        self.ended = Some(Ended { exec: exec.id, outcome, reason, at: event.at });
    }

    fn apply_ask(&mut self, event: &Event, seq: Seq) {
        assert_eq!(self.exec_id(), event.exec, "a question belongs to the execution under way");
        let exec = self.exec.as_mut().expect("an execution is under way");
        match &event.kind {
            Kind::AskRaised { ask, key, about, kind, prompt, choices, expires_at, .. } => {
                assert_eq!(*ask, AskId(self.ask_count).next(), "questions are counted");
                self.ask_count = ask.0;
                if let Some(key) = key {
                    exec.put(key, Item::Ask(*ask));
                } else {
                    exec.phase = Phase::Unresolved;
                }
                let open = OpenAsk {
                    key: key.clone(),
                    about: about.clone(),
                    kind: *kind,
                    prompt: prompt.clone(),
                    choices: choices.clone(),
                    expires_at: *expires_at,
                };
                self.asks.insert(*ask, open);
            }
            Kind::AskAnswered { ask, .. } | Kind::AskExpired { ask } => {
                let open = self.asks.remove(ask).expect("only an open question is closed");
                if let Some(key) = open.key {
                    let before = exec.items.insert(&key, Item::AskDone(*ask, seq));
                    assert_eq!(before, Some(Item::Ask(*ask)), "the question was open");
                }
                // An answer about a step that is followed by no result of it means: again.
                if let Some(step) = open.about {
                    exec.set_phase(&step, StepPhase::Lost);
                }
            }
            _ => unreachable!("`apply` hands over questions only"),
        }
    }
}

impl Exec {
    /// How many keys an execution can have.
    pub const ITEMS_MAX: usize = 100_000;
    /// How many blocks of output an attempt can have open.
    pub const BLOCKS_MAX: usize = 64;

    fn new(id: ExecId, input: Seq, seq: Seq, at: Timestamp) -> Self {
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
        self.items.pending().any(|(_, item)| matches!(item, Item::Step(_)))
    }

    /// Whether the harness waits for something.
    pub fn is_waiting(&self) -> bool {
        self.items.pending().any(|(_, item)| item.is_wait())
    }

    fn put(&mut self, key: &StepKey, item: Item) {
        let before = self.items.insert(key, item);
        assert_eq!(before, None, "a key is used once");
    }

    fn step(&self, key: &StepKey) -> &Step {
        match self.items.get(key) {
            Some(Item::Step(step)) => step,
            other => panic!("{key} is a step, not {other:?}"),
        }
    }

    fn set_phase(&mut self, key: &StepKey, phase: StepPhase) {
        let step = Step { phase, ..self.step(key).clone() };
        self.items.insert(key, Item::Step(step));
    }

    /// A branch does not inherit what was promised or under way.
    fn drop_obligations(&mut self) {
        self.items.settle(|item| match item {
            Item::Step(step) => Some(Item::Step(Step { phase: StepPhase::Lost, ..step.clone() })),
            _ => None,
        });
        self.blocks.clear();
        self.phase = Phase::Parked;
    }

    /// What was being carried out is not any more.
    fn lose_steps(&mut self) {
        self.items.settle(|item| match item {
            Item::Step(step) if matches!(step.phase, StepPhase::Open { .. }) => {
                Some(Item::Step(Step { phase: StepPhase::Lost, ..step.clone() }))
            }
            other => Some(other.clone()),
        });
    }

    /// Takes over what an execution of the parent has recorded.
    fn carry_on(&mut self, parent: Self) {
        self.journal_from = parent.journal_from;
        self.continues = parent.continues;
        self.continues.push(parent.id);
        self.items = parent.items;
        self.block_count = parent.block_count;
    }

    fn apply(&mut self, event: &Event, seq: Seq) {
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
                }
            }
            Kind::TimerSet { key, due_at } => self.put(key, Item::Sleep(*due_at, None)),
            Kind::TimerFired { key } | Kind::TimerCanceled { key } => {
                let Some(Item::Sleep(due_at, None)) = self.items.get(key) else {
                    panic!("{key} is a timer that has not fired");
                };
                let fired = Item::Sleep(*due_at, Some(seq));
                self.items.insert(key, fired);
            }
            Kind::SignalAwaited { key, name } => self.put(key, Item::Signal(name.clone(), None)),
            Kind::SignalDelivered { key, signal } => {
                let Some(Item::Signal(name, None)) = self.items.get(key) else {
                    panic!("{key} is a wait for a signal that has not come");
                };
                let delivered = Item::Signal(name.clone(), Some((seq, *signal)));
                self.items.insert(key, delivered);
            }
            Kind::CheckpointCreated { key: Some(key), .. } => {
                self.put(key, Item::Checkpoint(seq));
            }
            Kind::Note { key: Some(key), .. } => self.put(key, Item::Note(seq)),
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
                let lost = matches!(before, Some(Item::Step(Step { phase: StepPhase::Lost, .. })));
                assert_eq!(*again, lost, "only a lost step is started again");
                assert!(before.is_none() || lost, "a key is used once");
            }
            Kind::StepCompleted { step, usage, .. } | Kind::StepFailed { step, usage, .. } => {
                let done = matches!(self.step(step).phase, StepPhase::Done(_));
                assert!(!done, "a step is done once");
                self.set_phase(step, StepPhase::Done(seq));
                self.usage.add(usage);
            }
            Kind::StepUnknown { step } => {
                let Step { phase, effect, .. } = self.step(step);
                let cut = matches!(phase, StepPhase::Lost | StepPhase::Open { .. });
                assert!(cut, "its attempt was lost or stopped");
                assert_eq!(*effect, EffectClass::Once, "others are carried out again");
                self.set_phase(step, StepPhase::Unknown);
            }
            other => unreachable!("{} is applied elsewhere", other.name()),
        }
    }
}
