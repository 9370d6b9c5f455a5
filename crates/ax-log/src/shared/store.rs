//! A store in memory that several processes share, as they would share a database.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use ax_core::id::Seq;
use tokio::sync::mpsc;

use super::wire::{Answer, Claim, Notice, Owner, ShardRow, Statement, Table, Write};
use crate::tables::{Session, Tables};
use crate::types::{BranchError, CutError, DeleteError};

/// What all processes share. Clones are the same store.
///
/// It has no clock of its own: whoever carries statements says what time it is.
#[derive(Clone, Debug)]
pub struct SharedStore {
    database: Arc<Mutex<Database>>,
}

#[derive(Debug)]
struct Database {
    tables: Tables,
    shards: Vec<Shard>,
    /// Until when each process is known to live, in milliseconds of the store's clock.
    owners: BTreeMap<u128, u64>,
    listeners: Vec<mpsc::UnboundedSender<Notice>>,
}

/// A row of the table of shards.
#[derive(Clone, Debug, Default)]
struct Shard {
    epoch: u64,
    /// The number of the last batch of this epoch.
    number: u64,
    owner: Option<Owner>,
    until_millis: u64,
}

impl Shard {
    fn is_held(&self, now_millis: u64) -> bool {
        self.owner.is_some() && now_millis < self.until_millis
    }
}

impl SharedStore {
    /// Makes an empty store with so many shards.
    ///
    /// # Panics
    ///
    /// Panics if there are none.
    pub fn new(shards: u32) -> Self {
        assert!(shards > 0, "a session has a shard");
        let database = Database {
            tables: Tables::default(),
            shards: (0..shards).map(|_| Shard::default()).collect(),
            owners: BTreeMap::new(),
            listeners: Vec::new(),
        };
        Self { database: Arc::new(Mutex::new(database)) }
    }

    fn lock(&self) -> MutexGuard<'_, Database> {
        self.database.lock().expect("no holder of the lock panics")
    }

    /// Carries out a statement at a time of the store's clock, in milliseconds.
    pub fn execute(&self, now_millis: u64, statement: Statement) -> Answer {
        self.lock().execute(now_millis, statement)
    }

    /// Tells what moves from now on.
    pub fn listen(&self) -> mpsc::UnboundedReceiver<Notice> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().listeners.push(sender);
        receiver
    }

    /// Breaks every connection that listens.
    pub fn break_listeners(&self) {
        self.lock().listeners.clear();
    }
}

impl Database {
    fn execute(&mut self, now_millis: u64, statement: Statement) -> Answer {
        match statement {
            Statement::Look => Answer::Table(self.table(now_millis)),
            Statement::Beat { owner, lease_millis, held } => {
                self.owners.insert(owner.id, now_millis + lease_millis);
                self.renew(now_millis, &owner, lease_millis, &held);
                Answer::Table(self.table(now_millis))
            }
            Statement::Take { owner, lease_millis, seen } => {
                self.owners.insert(owner.id, now_millis + lease_millis);
                self.take(now_millis, &owner, lease_millis, &seen);
                Answer::Table(self.table(now_millis))
            }
            Statement::Give { held } => {
                for claim in held {
                    if let Some(shard) = self.claimed(claim) {
                        shard.owner = None;
                    }
                }
                Answer::Given
            }
            Statement::Append { claim, number, writes } => self.append(claim, number, writes),
            Statement::Delete { claim, key } => {
                if self.claimed(claim).is_none() {
                    return Answer::Fenced;
                }
                if self.tables.live(&key).is_none() {
                    return Answer::Deleted(Err(DeleteError::NotFound));
                }
                self.tables.delete(&key);
                self.tell(Notice { key, last: Seq::ZERO, deleted: true });
                Answer::Deleted(Ok(()))
            }
            Statement::Cut { claim, key, below } => {
                if self.claimed(claim).is_none() {
                    return Answer::Fenced;
                }
                Answer::Cut(self.cut(&key, below))
            }
            Statement::Branch { parent, at, child, row } => {
                let made = self.tables.branch(&parent, at, child, row);
                Answer::Branched(self.branched(made, at))
            }
            Statement::Head { key } => {
                let deleted = self.tables.get(&key).is_some_and(|session| session.deleted);
                Answer::Head(self.tables.live(&key).map(Session::head), deleted)
            }
            Statement::Read { key, after, limit } => {
                Answer::Entries(self.tables.read(&key, after, limit))
            }
            Statement::Snapshot { key, at } => Answer::Snapshot(self.tables.snapshot(&key, at.0)),
            Statement::List(query) => Answer::Page(self.tables.list(&query)),
            Statement::Namespaces => Answer::Namespaces(self.tables.namespaces()),
        }
    }

    fn table(&self, now_millis: u64) -> Table {
        let shards = self.shards.iter().map(|shard| ShardRow {
            epoch: shard.epoch,
            owner: shard.owner.clone().filter(|_| shard.is_held(now_millis)),
        });
        let owners = self.owners.values().filter(|until| now_millis < **until).count();
        Table { shards: shards.collect(), owners }
    }

    /// Returns the shard, if this is its epoch.
    fn claimed(&mut self, claim: Claim) -> Option<&mut Shard> {
        let shard = self.shards.get_mut(claim.shard as usize)?;
        (shard.epoch == claim.epoch).then_some(shard)
    }

    /// A lease that has lapsed is not renewed, though nobody has taken the shard yet: its holder
    /// has let go of it by its own clock, and takes it anew.
    fn renew(&mut self, now_millis: u64, owner: &Owner, lease_millis: u64, held: &[Claim]) {
        for claim in held {
            if let Some(shard) = self.claimed(*claim)
                && shard.owner.as_ref() == Some(owner)
                && shard.is_held(now_millis)
            {
                shard.until_millis = shard.until_millis.max(now_millis + lease_millis);
            }
        }
    }

    fn take(&mut self, now_millis: u64, owner: &Owner, lease_millis: u64, seen: &[Claim]) {
        for claim in seen {
            let Some(shard) = self.claimed(*claim) else { continue };
            if shard.is_held(now_millis) && shard.owner.as_ref() != Some(owner) {
                continue;
            }
            *shard = Shard {
                epoch: claim.epoch + 1,
                number: 0,
                owner: Some(owner.clone()),
                until_millis: now_millis + lease_millis,
            };
        }
    }

    fn append(&mut self, claim: Claim, number: u64, writes: Vec<Write>) -> Answer {
        let Some(shard) = self.claimed(claim) else { return Answer::Fenced };
        if number <= shard.number {
            return Answer::Appended;
        }
        // Of several writes to a session the first decides where the next ones are.
        let mut next = BTreeMap::new();
        for (index, write) in writes.iter().enumerate() {
            let known = self.tables.get(&write.key);
            if known.is_some_and(|session| session.deleted) {
                return Answer::Refused { index, next: None };
            }
            let free = next
                .entry(&write.key)
                .or_insert_with(|| known.map_or(Seq::FIRST, |session| Seq(session.last() + 1)));
            if *free != write.expected {
                return Answer::Refused { index, next: Some(*free) };
            }
            free.0 += write.entries.len() as u64;
        }
        let shard = self.claimed(claim).expect("it was found above");
        shard.number = number;
        for write in writes {
            let Write { key, entries, row, snapshot, .. } = write;
            let last = Seq(self.tables.extend(&key, entries, row, snapshot));
            self.tell(Notice { key, last, deleted: false });
        }
        Answer::Appended
    }

    fn cut(&mut self, key: &ax_core::id::SessionKey, below: Seq) -> Result<(), CutError> {
        if self.tables.check_cut(key, below)? {
            self.tables.cut(key, below);
        }
        Ok(())
    }

    fn branched(
        &mut self,
        made: Result<(ax_core::id::SessionKey, Session), BranchError>,
        at: Seq,
    ) -> Result<(), BranchError> {
        let (key, session) = made?;
        self.tables.insert(key.clone(), session);
        self.tell(Notice { key, last: at, deleted: false });
        Ok(())
    }

    fn tell(&mut self, notice: Notice) {
        self.listeners.retain(|listener| listener.send(notice.clone()).is_ok());
    }
}
