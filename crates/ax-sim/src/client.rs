//! Clients: they submit, answer, signal, cancel, branch, delete and look, and they never forget
//! what they were told.

use crate::op::{Op, Target};
use crate::outside::Outside;
use crate::prng::Prng;
use ax_core::id::{Namespace, Seq, SessionId, SessionKey};
use ax_core::session::{Answer, AskKind, Caller, OpenAsk, Part};
use ax_engine::{
    BranchPlan, Code, Engine, Error, ListSessions, Recorded, SessionRef, SessionView, Submission,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::sleep;

/// What a client was told is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    /// An input with this text and key.
    Input { text: String, key: Option<String> },
    /// An answer.
    Answered,
    /// A signal of this name.
    Signaled(String),
    /// A title.
    Titled(String),
    /// A checkpoint.
    Checkpoint(String),
    /// A branch of this session at this position begins after it.
    Branched(SessionId),
}

/// What all clients together know.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Sessions that exist, as someone was told.
    pub(crate) sessions: Vec<SessionKey>,
    /// Sessions that someone wants to be deleted.
    pub(crate) doomed: BTreeSet<SessionKey>,
    /// Sessions that are deleted, as someone was told.
    pub(crate) deleted: BTreeSet<SessionKey>,
    /// What was acknowledged.
    pub(crate) facts: Vec<(SessionKey, Seq, Fact)>,
    /// Agents that are stored, as someone was told.
    pub(crate) agents: BTreeSet<(Namespace, &'static str)>,
    /// Acknowledged inputs with keys, to be sent again.
    pub(crate) keyed: Vec<(Op, SessionKey, Seq)>,
    /// How often each outcome was seen, by its name.
    pub(crate) tally: BTreeMap<String, u64>,
}

/// A client, whose memory survives everything.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) number: usize,
    pub(crate) memory: Arc<Mutex<Memory>>,
    pub(crate) known: Arc<Mutex<Known>>,
    pub(crate) outside: Outside,
    visit: u64,
}

/// What a client remembers.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) prng: Prng,
    /// What it still wants to do.
    pub(crate) left: u64,
    /// What it has asked for and was not told about.
    pub(crate) pending: Option<Op>,
    pub(crate) count: u64,
    /// Which connection is its last: what is told over an older one comes too late to act on.
    pub(crate) visit: u64,
    /// It was told that another process has its session.
    pub(crate) astray: bool,
}

impl Client {
    pub(crate) fn new(
        number: usize,
        prng: Prng,
        left: u64,
        known: &Arc<Mutex<Known>>,
        outside: &Outside,
    ) -> Self {
        let memory = Memory { prng, left, pending: None, count: 0, visit: 0, astray: false };
        let (known, outside) = (Arc::clone(known), outside.clone());
        Self { number, memory: Arc::new(Mutex::new(memory)), known, outside, visit: 0 }
    }

    /// Connects anew. Whatever it does over connections before comes to nothing.
    pub(crate) fn visit(&self) -> Self {
        let mut memory = self.memory();
        memory.visit += 1;
        memory.astray = false;
        Self { visit: memory.visit, ..self.clone() }
    }

    /// Whether it has never been anywhere.
    pub(crate) fn is_new(&self) -> bool {
        self.memory().visit == 0
    }

    /// Whether it was told to go elsewhere.
    pub(crate) fn is_astray(&self) -> bool {
        self.memory().astray
    }

    fn is_current(&self) -> bool {
        self.memory().visit == self.visit
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no holder of the lock panics")
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no holder of the lock panics")
    }

    /// Whether it has done all that it wanted to do.
    pub(crate) fn is_done(&self) -> bool {
        let memory = self.memory();
        memory.left == 0 && memory.pending.is_none()
    }

    fn namespace(&self) -> Namespace {
        if self.number % 3 == 2 {
            Namespace::new("other").expect("a name")
        } else {
            Namespace::default()
        }
    }

    /// Does what it wants to do, one thing after the other, as long as the engine lives.
    pub(crate) async fn run(self, engine: Engine) {
        loop {
            let (pause, op) = {
                let mut memory = self.memory();
                if memory.visit != self.visit || memory.astray {
                    return;
                }
                let pause = if memory.prng.chance(30) { 0 } else { memory.prng.below(3_000) };
                if memory.pending.is_none() {
                    if memory.left == 0 {
                        return;
                    }
                    memory.left -= 1;
                    memory.count += 1;
                    let name = format!("c{}-{}", self.number, memory.count);
                    memory.pending = Some(self.choose(&mut memory.prng, name));
                }
                (pause, memory.pending.clone().expect("it was chosen just now"))
            };
            sleep(Duration::from_millis(pause)).await;
            if !self.is_current() {
                return;
            }
            self.outside.count();
            let outcome = self.carry_out(&engine, &op).await;
            if !self.is_current() {
                return;
            }
            self.settle(&op, outcome).await;
        }
    }

    /// Chooses what to do. Everything about it is settled here, so that it can be sent again.
    fn choose(&self, prng: &mut Prng, name: String) -> Op {
        let namespace = self.namespace();
        let known = self.known();
        let mine: Vec<_> = known.sessions.iter().filter(|key| key.namespace == namespace).collect();
        if mine.is_empty() || prng.chance(12) {
            return Op::create(prng, namespace, name);
        }
        if prng.chance(12) && !known.keyed.is_empty() {
            return prng.pick(&known.keyed).0.clone();
        }
        let at = mine.len() - 1 - prng.index(mine.len().min(4));
        Op::on(prng, mine[at].clone(), name)
    }

    async fn settle(&self, op: &Op, outcome: Result<(), Error>) {
        let word = match &outcome {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.code.to_string(),
        };
        *self.known().tally.entry(format!("{} {word}", op.word())).or_default() += 1;
        let Err(error) = outcome else {
            self.memory().pending = None;
            return;
        };
        if error.code == Code::Elsewhere {
            self.memory().astray = true;
            return;
        }
        if is_passing(error.code) {
            let pause = self.memory().prng.between(20, 1_000);
            sleep(Duration::from_millis(pause)).await;
            return;
        }
        self.memory().pending = None;
        if !self.may_fail(op, error.code) {
            self.outside.fail(format!("E1 acknowledged: {op:?} was refused: {error:?}"));
        }
    }

    /// Whether a request can rightly be refused so.
    fn may_fail(&self, op: &Op, code: Code) -> bool {
        let known = self.known();
        let doomed = op.session().is_none_or(|key| known.doomed.contains(key));
        match code {
            Code::NoSession => doomed,
            // Or the branch that it went to.
            Code::Deleted => {
                let branches = matches!(op.target, Target::Submit { .. }) && op.key().is_some();
                doomed || (branches && !known.doomed.is_empty())
            }
            Code::NoAgent => match op.target {
                Target::Create { agent, .. } => {
                    !known.agents.contains(&(op.namespace.clone(), agent))
                }
                _ => false,
            },
            Code::Busy | Code::QueueFull | Code::Idle | Code::NotOpen => true,
            Code::WrongAnswer => matches!(op.target, Target::Answer { .. }),
            // A position that was named before the session was cut or known to be so short.
            Code::OutOfRange => matches!(op.target, Target::Branch { .. }),
            Code::Exists => matches!(op.target, Target::Branch { name: Some(_), .. }),
            _ => false,
        }
    }

    async fn carry_out(&self, engine: &Engine, op: &Op) -> Result<(), Error> {
        let caller = Caller { principal: format!("c{}", self.number).into(), ..Caller::default() };
        match &op.target {
            Target::Create { .. } | Target::Submit { .. } => self.submit(engine, caller, op).await,
            Target::Look(key) => self.look(engine, key).await,
            Target::List => self.list(engine, &op.namespace).await,
            Target::Branch { .. } => self.branch(engine, caller, op).await,
            Target::Delete(key) => {
                self.known().doomed.insert(key.clone());
                let deleted = engine.delete(caller, &op.namespace, &named(key)).await;
                if matches!(&deleted, Err(error) if error.code.retryable()) {
                    return deleted;
                }
                self.known().deleted.insert(key.clone());
                Ok(())
            }
            Target::Answer { key, fits } => {
                self.answer(engine, caller, key, *fits, op.number).await
            }
            Target::Signal { key, name, id } => {
                let (id, to) = (id.as_deref().map(Into::into), named(key));
                let signal =
                    engine.signal(caller, &op.namespace, &to, name.clone(), id, "1".into());
                let told = signal.await?;
                self.told(key, told, Fact::Signaled(name.clone()));
                Ok(())
            }
            Target::Cancel { key, queued } => {
                let why = "the client wants so".into();
                let to = named(key);
                engine.cancel(caller, &op.namespace, &to, None, *queued, why).await.map(drop)
            }
            Target::Rename { key, title } => {
                let told = engine.rename(caller, &op.namespace, &named(key), title.clone()).await?;
                self.told(key, told, Fact::Titled(title.clone()));
                Ok(())
            }
            Target::Checkpoint { key, name } => {
                let told =
                    engine.checkpoint(caller, &op.namespace, &named(key), name.clone()).await?;
                self.told(key, told, Fact::Checkpoint(name.clone()));
                Ok(())
            }
        }
    }

    fn told(&self, key: &SessionKey, recorded: Recorded, fact: Fact) {
        self.known().facts.push((key.clone(), recorded.seq, fact));
    }

    async fn submit(&self, engine: &Engine, caller: Caller, op: &Op) -> Result<(), Error> {
        let text = format!("program {}", op.number);
        let (session, agent, policy) = match &op.target {
            Target::Create { name, agent, .. } => {
                let named = name.as_ref().map(|name| SessionRef::parse(&op.namespace, name));
                (named.transpose()?, Some((*agent).to_owned()), None)
            }
            Target::Submit { key, policy, .. } => (Some(named(key)), None, *policy),
            other => unreachable!("{other:?} submits nothing"),
        };
        let submission = Submission {
            session,
            agent,
            key: op.key().map(Into::into),
            parts: vec![Part::text(text.clone())],
            policy,
            title: matches!(op.target, Target::Create { .. })
                .then(|| format!("title {}", op.number)),
        };
        let told = engine.submit(caller, &op.namespace, submission).await?;
        let key = SessionKey::new(op.namespace.clone(), told.session);
        let mut known = self.known();
        if !known.sessions.contains(&key) {
            known.sessions.push(key.clone());
        }
        let fact = Fact::Input { text, key: op.key().map(str::to_owned) };
        known.facts.push((key.clone(), told.seq, fact));
        if op.key().is_none() {
            return Ok(());
        }
        let before = known.keyed.iter().find(|(other, ..)| other == op).cloned();
        let Some((_, session, seq)) = before else {
            known.keyed.push((op.clone(), key, told.seq));
            return Ok(());
        };
        // What went to a branch that was deleted since is taken anew.
        let deleted = known.doomed.contains(&session);
        drop(known);
        if !deleted && (&session, seq) != (&key, told.seq) {
            let what = format!("E8 idempotent: {op:?} was {seq} of {session}, is now {told:?}");
            self.outside.fail(what);
        }
        Ok(())
    }

    async fn branch(&self, engine: &Engine, caller: Caller, op: &Op) -> Result<(), Error> {
        let Target::Branch { key, from_end, carry_on, name } = &op.target else {
            unreachable!("only a branch is branched");
        };
        let last = engine.session(&op.namespace, &named(key)).await?.last;
        let plan = BranchPlan {
            at: from_end.map(|back| Seq(last.0.saturating_sub(back).max(1))),
            checkpoint: None,
            count: 1,
            carry_on: *carry_on,
            names: name.clone().into_iter().collect(),
        };
        let made = engine.branch(caller, &op.namespace, &named(key), plan).await?;
        let mut known = self.known();
        for session in made.sessions {
            let child = SessionKey::new(op.namespace.clone(), session);
            known.facts.push((child.clone(), made.at.next(), Fact::Branched(key.session)));
            if !known.sessions.contains(&child) {
                known.sessions.push(child);
            }
        }
        Ok(())
    }

    async fn answer(
        &self,
        engine: &Engine,
        caller: Caller,
        key: &SessionKey,
        fits: bool,
        number: u64,
    ) -> Result<(), Error> {
        let view = engine.session(&key.namespace, &named(key)).await?;
        let mut prng = Prng::new(number);
        if view.status.asks.is_empty() {
            return Ok(());
        }
        let (ask, open) = prng.pick(&view.status.asks).clone();
        let answer = if fits {
            fitting(&mut prng, &open)
        } else {
            Answer::Choice("blue".into(), String::new())
        };
        let to = named(key);
        let via = "sim".into();
        let told = engine.answer(caller, &key.namespace, &to, Some(ask), answer, via).await?;
        self.told(key, told, Fact::Answered);
        Ok(())
    }

    /// Reads a page from anywhere: it is what everybody else saw.
    async fn look(&self, engine: &Engine, key: &SessionKey) -> Result<(), Error> {
        let view: SessionView = engine.session(&key.namespace, &named(key)).await?;
        let after = Seq(view.last.0.saturating_sub(12));
        let page = engine.events(&key.namespace, &named(key), after, 20).await?;
        for (seq, payload) in page.events {
            self.outside.shown(key, seq, &payload);
        }
        Ok(())
    }

    /// E10 listed: what is known is listed, whatever the pages.
    async fn list(&self, engine: &Engine, namespace: &Namespace) -> Result<(), Error> {
        let before = self.known().sessions.clone();
        let mut found = BTreeSet::new();
        let mut cursor = None;
        loop {
            let list = ListSessions { cursor, limit: 3, ..ListSessions::default() };
            let page = engine.sessions(namespace, list).await?;
            found.extend(page.sessions.into_iter().map(|view| view.id));
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        let known = self.known();
        let missing: Vec<_> = before
            .iter()
            .filter(|key| key.namespace == *namespace && !known.doomed.contains(key))
            .filter(|key| !found.contains(&key.session))
            .collect();
        if !missing.is_empty() {
            self.outside.fail(format!("E10 listed: {missing:?} is not listed"));
        }
        Ok(())
    }
}

/// Whether the same may succeed later.
pub(crate) const fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::Full
            | Code::Poisoned
            | Code::Stopping
            | Code::Read
            | Code::Unavailable
            | Code::Elsewhere
    )
}

/// Names a session by its id.
pub(crate) const fn named(key: &SessionKey) -> SessionRef {
    SessionRef { id: key.session, name: String::new() }
}

/// An answer that a question wants.
pub(crate) fn fitting(prng: &mut Prng, open: &OpenAsk) -> Answer {
    match open.kind {
        AskKind::Approval if prng.chance(50) => Answer::Approve,
        AskKind::Approval => Answer::Deny("no".into()),
        AskKind::Choice => Answer::Choice(prng.pick(&open.choices).clone(), "as said".into()),
        AskKind::Text => Answer::Text("so be it".into()),
    }
}
