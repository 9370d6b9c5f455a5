//! What lies between the processes and their store: statements that are late, come twice or are
//! lost, and the oracles that see all of them arrive.

use crate::outside::Outside;
use crate::prng::Prng;
use ax_core::id::{Seq, SessionKey};
use ax_log::SharedStore;
use ax_log::shared::{Answer, Broken, Claim, Notice, Statement, Table, Wire, Write, shard_of};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// How many shards the store has.
pub(super) const SHARDS: u32 = 4;

/// A statement on its way.
struct Sent {
    process: u32,
    statement: Statement,
    reply: Option<Reply>,
}

type Reply = oneshot::Sender<Result<Answer, Broken>>;

/// A handle to the network, and to the store behind it.
#[derive(Clone)]
pub(crate) struct Network {
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

struct State {
    store: SharedStore,
    outside: Outside,
    prng: Prng,
    /// The time of the store, in milliseconds.
    now_millis: u64,
    /// When nothing goes wrong any more, and since when by whose clock.
    calm: Option<(u64, Instant)>,
    /// What is under way, by the time at which it arrives.
    queue: BTreeMap<(u64, u64), Sent>,
    count: u64,
    book: Book,
}

/// What the store is known to have said and done.
#[derive(Debug, Default)]
struct Book {
    /// Which batch holds each position.
    events: BTreeMap<(SessionKey, Seq), (Claim, u64)>,
    batches: BTreeSet<(Claim, u64)>,
    leases: BTreeMap<u32, Leased>,
    /// How often leases went from one process to another.
    moves: u64,
    refused: u64,
}

/// A lease, as it follows from what was asked and answered.
#[derive(Clone, Copy, Debug, Default)]
struct Leased {
    epoch: u64,
    owner: Option<u128>,
    until_millis: u64,
}

impl Network {
    pub(super) fn new(seed: u64, outside: &Outside) -> Self {
        let state = State {
            store: SharedStore::new(SHARDS),
            outside: outside.clone(),
            prng: Prng::of(seed, "network"),
            now_millis: 1_000_000,
            calm: None,
            queue: BTreeMap::new(),
            count: 0,
            book: Book::default(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    /// Lets time pass, and what is under way arrive.
    pub(super) fn pass(&self, millis: u64) {
        let mut state = self.lock();
        let to = state.now_millis + millis;
        state.arrive(to);
        if state.prng.chance(1) {
            state.store.break_listeners();
        }
    }

    /// What a process has under way is held up, and arrives when nobody expects it any more.
    pub(super) fn hold_up(&self, process: u32, millis: u64) {
        let mut state = self.lock();
        let queue = std::mem::take(&mut state.queue);
        let later = queue.into_iter().map(|((at, number), sent)| {
            let by = if sent.process == process { millis } else { 0 };
            ((at + by, number), sent)
        });
        state.queue = later.collect();
    }

    /// From now on nothing goes wrong, and time goes with the runtime's. Only within a runtime.
    pub(super) fn calm_down(&self) {
        let mut state = self.lock();
        state.calm = Some((state.now_millis, Instant::now()));
    }

    /// How often a lease moved, and how many statements were refused by a newer epoch.
    pub(super) fn tally(&self) -> (u64, u64) {
        let state = self.lock();
        (state.book.moves, state.book.refused)
    }

    /// Something acts for a session, in a process that is this owner.
    pub(super) fn acts(&self, key: &SessionKey, owner: u128, what: &str) {
        let state = self.lock();
        if let Some(other) = state.book.holder(key, state.now_millis)
            && other != owner
        {
            let (outside, now) = (state.outside.clone(), state.now_millis);
            drop(state);
            let what = format!("S3 gated: {what} at {now}, while {other:x} has the lease");
            outside.fail(what);
        }
    }

    /// Whether this owner has the lease of a session, or nobody has.
    pub(super) fn is_free_for(&self, key: &SessionKey, owner: u128) -> bool {
        let state = self.lock();
        state.book.holder(key, state.now_millis).is_none_or(|other| other == owner)
    }
}

impl State {
    /// Draws what becomes of a statement, and answers it if it is lost.
    fn send(&mut self, process: u32, statement: Statement, reply: Reply) {
        if let Some((base, since)) = self.calm {
            let passed = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.arrive(base + passed);
            let answer = self.execute(statement);
            drop(reply.send(Ok(answer)));
            return;
        }
        let delay = match self.prng.below(20) {
            0 => self.prng.between(100, 1_500),
            _ => self.prng.below(12),
        };
        match self.prng.below(100) {
            // It never arrives.
            0..4 => drop(reply.send(Err(Broken::Lost))),
            // It arrives, and its answer does not, or only when nobody expects it any more.
            4..8 => {
                drop(reply.send(Err(Broken::Lost)));
                let late = if self.prng.chance(50) { delay } else { self.prng.below(9_000) };
                self.put(late, Sent { process, statement, reply: None });
            }
            // It arrives twice.
            8..12 => {
                let late = self.prng.below(9_000);
                self.put(late, Sent { process, statement: statement.clone(), reply: None });
                self.put(delay, Sent { process, statement, reply: Some(reply) });
            }
            _ => self.put(delay, Sent { process, statement, reply: Some(reply) }),
        }
    }

    fn put(&mut self, delay: u64, sent: Sent) {
        self.count += 1;
        self.queue.insert((self.now_millis + delay, self.count), sent);
    }

    fn arrive(&mut self, to_millis: u64) {
        while let Some(first) = self.queue.first_entry() {
            if first.key().0 > to_millis {
                break;
            }
            let (at, Sent { statement, reply, .. }) = (first.key().0, first.remove());
            self.now_millis = self.now_millis.max(at);
            let answer = self.execute(statement);
            if let Some(reply) = reply {
                drop(reply.send(Ok(answer)));
            }
        }
        self.now_millis = self.now_millis.max(to_millis);
    }

    /// Lets the store carry it out, and looks at what it did.
    fn execute(&mut self, statement: Statement) -> Answer {
        let now = self.now_millis;
        let answer = self.store.execute(now, statement.clone());
        let mut wrong = Vec::new();
        match (statement, &answer) {
            (Statement::Beat { owner, lease_millis, held }, Answer::Table(table)) => {
                self.book.renewed(now, owner.id, lease_millis, &held);
                self.book.table(now, table, &mut wrong);
            }
            (Statement::Take { owner, lease_millis, seen }, Answer::Table(table)) => {
                for claim in seen {
                    self.book.taken(now, owner.id, lease_millis, claim, table, &mut wrong);
                }
                self.book.table(now, table, &mut wrong);
            }
            (Statement::Give { held }, _) => self.book.given(&held),
            (Statement::Append { claim, number, writes }, Answer::Appended) => {
                self.book.appended(claim, number, &writes, &mut wrong);
            }
            (_, Answer::Fenced) => self.book.refused += 1,
            _ => {}
        }
        for what in wrong {
            self.outside.fail(format!("{what} (at {now})"));
        }
        answer
    }
}

impl Book {
    /// Who has the lease of a session.
    fn holder(&self, key: &SessionKey, now: u64) -> Option<u128> {
        let leased = self.leases.get(&shard_of(key, SHARDS))?;
        leased.owner.filter(|_| now < leased.until_millis)
    }

    fn renewed(&mut self, now: u64, owner: u128, lease: u64, held: &[Claim]) {
        for claim in held {
            let leased = self.leases.entry(claim.shard).or_default();
            let is_its = (leased.epoch, leased.owner) == (claim.epoch, Some(owner));
            if is_its && now < leased.until_millis {
                leased.until_millis = leased.until_millis.max(now + lease);
            }
        }
    }

    /// S2 leased: a lease is taken when it has lapsed, and not before.
    fn taken(
        &mut self,
        now: u64,
        owner: u128,
        lease: u64,
        seen: Claim,
        table: &Table,
        wrong: &mut Vec<String>,
    ) {
        let row = &table.shards[seen.shard as usize];
        let leased = self.leases.entry(seen.shard).or_default();
        let gets = row.epoch == seen.epoch + 1
            && leased.epoch == seen.epoch
            && row.owner.as_ref().is_some_and(|of| of.id == owner);
        if !gets {
            return;
        }
        if leased.owner.is_some_and(|other| other != owner && now < leased.until_millis) {
            wrong.push(format!("S2 leased: {owner:x} took {seen:?} from {leased:?}"));
        }
        self.moves += u64::from(leased.owner.is_some_and(|other| other != owner));
        let until_millis = now + lease;
        *leased = Leased { epoch: row.epoch, owner: Some(owner), until_millis };
    }

    fn given(&mut self, held: &[Claim]) {
        for claim in held {
            if let Some(leased) = self.leases.get_mut(&claim.shard)
                && leased.epoch == claim.epoch
            {
                leased.until_millis = 0;
            }
        }
    }

    /// S2 leased: what the store says of leases is what follows from what was asked of it.
    fn table(&self, now: u64, table: &Table, wrong: &mut Vec<String>) {
        for (shard, row) in (0..).zip(&table.shards) {
            let leased = self.leases.get(&shard).copied().unwrap_or_default();
            let holder = leased.owner.filter(|_| now < leased.until_millis);
            let said = row.owner.as_ref().map(|owner| owner.id);
            if (row.epoch, said) != (leased.epoch, holder) {
                wrong
                    .push(format!("S2 leased: shard {shard} is {leased:?}, is said to be {row:?}"));
            }
        }
    }

    /// S1 fenced: one event a position, none of an epoch after a newer one was granted.
    fn appended(&mut self, claim: Claim, number: u64, writes: &[Write], wrong: &mut Vec<String>) {
        if !self.batches.insert((claim, number)) {
            return;
        }
        let granted = self.leases.get(&claim.shard).map_or(0, |leased| leased.epoch);
        if claim.epoch != granted {
            wrong.push(format!("S1 fenced: {claim:?} was accepted after {granted} was granted"));
        }
        for write in writes {
            let seqs = (write.expected.0..).take(write.entries.len()).map(Seq);
            for seq in seqs {
                let by = (claim, number);
                if let Some(other) = self.events.insert((write.key.clone(), seq), by) {
                    let key = &write.key;
                    wrong.push(format!("S1 fenced: {seq} of {key} is of {other:?} and {by:?}"));
                }
            }
        }
    }
}

/// The connection of one process.
#[derive(Debug)]
pub(super) struct SimWire {
    pub(super) network: Network,
    pub(super) process: u32,
}

impl Wire for SimWire {
    fn send(&self, statement: Statement) -> BoxFuture<'_, Result<Answer, Broken>> {
        let (sender, receiver) = oneshot::channel();
        self.network.lock().send(self.process, statement, sender);
        async move { receiver.await.unwrap_or(Err(Broken::Lost)) }.boxed()
    }

    fn listen(&self) -> mpsc::UnboundedReceiver<Notice> {
        self.network.lock().store.listen()
    }
}
