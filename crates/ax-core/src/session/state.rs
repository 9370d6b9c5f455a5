//! What the events amount to.

use super::event::{AgentRef, Event, Kind, Outcome};
use super::exec::{Exec, Item, Phase, StepPhase};
use super::value::{Answer, AskKind, BlobRef, Digest, IdempotencyKey, Limits, StepKey, Usage};
use crate::id::{AskId, AttemptId, ExecId, Seq};
use crate::time::Timestamp;
use std::collections::{BTreeMap, VecDeque};

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
    /// The newest answers, oldest first, so that one that is sent again is known again.
    pub answered: VecDeque<Answered>,
    /// Signals that nobody has waited for yet, oldest first.
    pub signals: VecDeque<(Seq, String)>,
    /// What frameworks that run elsewhere keep here, by name.
    pub collections: BTreeMap<String, Collection>,
    /// The newest snapshot of its files; `None` if there were none yet.
    pub workspace: Option<Workspace>,
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

/// Where the records of a collection are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collection {
    /// The newest record that stands for all before it; zero if there is none.
    pub base: Seq,
    /// The newest record.
    pub last: Seq,
}

/// The newest snapshot of a session's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// The event that says so.
    pub seq: Seq,
    /// The snapshot.
    pub snapshot: BlobRef,
}

impl Collection {
    /// How many collections a session has at most.
    pub const COUNT_MAX: usize = 64;
}

/// An answer that was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The question.
    pub ask: AskId,
    /// Where it was recorded.
    pub seq: Seq,
    /// What was answered.
    pub answer: Answer,
}

impl Answered {
    /// How many answers a session knows. Older ones are forgotten.
    pub const COUNT_MAX: usize = 16;
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
            Kind::SignalReceived { name, key, digest, .. } => {
                self.know(key.as_ref(), seq, *digest);
                self.signals.push_back((seq, name.clone()));
            }
            Kind::RecordWritten { collection, key, digest, replaces, .. } => {
                self.know(key.as_ref(), seq, *digest);
                let known = self.collections.entry(collection.clone()).or_default();
                known.last = seq;
                if *replaces {
                    known.base = seq;
                }
            }
            Kind::ExecutionStarted { input, continues } => {
                self.start(event, seq, *input, *continues);
            }
            Kind::ExecutionEnded { outcome, usage } => self.end(event, outcome, usage),
            Kind::AskRaised { .. } | Kind::AskAnswered { .. } | Kind::AskExpired { .. } => {
                self.apply_ask(event, seq);
            }
            Kind::WorkspaceSaved { saved, .. } => {
                self.workspace = Some(Workspace { seq, snapshot: saved.snapshot });
            }
            Kind::WorkspaceUnsaved { .. }
            | Kind::CheckpointCreated { key: None, .. }
            | Kind::Note { key: None, .. } => {}
            // Of an execution that a branch has let go: said for whoever reads.
            Kind::StepUnknown { .. } if self.exec.is_none() => {
                assert!(event.exec <= Some(ExecId(self.exec_count)), "there was such an execution");
            }
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
        // What it is called is its parent's; a branch gets a title of its own, or none.
        identity.name = String::new();
        identity.title = String::new();
        identity.created_at = at;
        self.asks.clear();
        self.answered.clear();
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
                    exec.progressed();
                }
                if let Some(step) = open.about.filter(|_| event.kind.allows_again()) {
                    exec.set_phase(&step, StepPhase::Lost);
                }
                if let Kind::AskAnswered { answer, .. } = &event.kind {
                    if self.answered.len() == Answered::COUNT_MAX {
                        self.answered.pop_front();
                    }
                    self.answered.push_back(Answered { ask: *ask, seq, answer: answer.clone() });
                }
            }
            _ => unreachable!("`apply` hands over questions only"),
        }
    }
}
