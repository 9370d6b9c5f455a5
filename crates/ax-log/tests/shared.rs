//! A store that several processes share keeps the law, also over a connection that breaks.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ax_core::id::{Namespace, Seq, SessionId, SessionKey};
use ax_log::conformance::{self, Store};
use ax_log::shared::{
    Answer, Broken, Claim, Direct, Notice, Options, Owner, SharedStore, Statement, Wire, Write,
};
use ax_log::types::Ticker;
use ax_log::{Append, AppendError, EventLog, LogFault, ReadLimit, SharedLog};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, LocalBoxFuture};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

const LEASE: Duration = Duration::from_secs(10);

/// A clock that goes with the runtime's, and can be set forward.
#[derive(Clone)]
struct Clock {
    start: Instant,
    ahead_millis: Arc<AtomicU64>,
}

impl Clock {
    fn new() -> Self {
        Self { start: Instant::now(), ahead_millis: Arc::default() }
    }

    fn set_forward(&self, by: Duration) {
        self.ahead_millis.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }

    fn ticker(&self) -> Ticker {
        let clock = self.clone();
        Arc::new(move || {
            let ahead = Duration::from_millis(clock.ahead_millis.load(Ordering::Relaxed));
            clock.start.elapsed() + ahead
        })
    }
}

/// A connection that loses, delays and repeats statements and answers, under a seed.
#[derive(Debug)]
struct Rough {
    direct: Direct,
    chance: Mutex<u64>,
    late: Mutex<Vec<Statement>>,
}

impl Rough {
    fn draw(&self, below: u64) -> u64 {
        let mut state = self.chance.lock().unwrap();
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (*state >> 33) % below
    }
}

impl Wire for Rough {
    fn send(&self, statement: Statement) -> BoxFuture<'_, Result<Answer, Broken>> {
        async move {
            sleep(Duration::from_millis(self.draw(40))).await;
            let late = {
                let mut late = self.late.lock().unwrap();
                let comes = !late.is_empty() && self.draw(4) == 0;
                comes.then(|| late.remove(0))
            };
            if let Some(late) = late {
                drop(self.direct.send(late).await);
            }
            // What has no number is carried out again when it comes again.
            let has_no_number = matches!(
                &statement,
                Statement::Cut { .. } | Statement::Delete { .. } | Statement::Branch { .. }
            );
            if self.draw(8) == 0 && !has_no_number {
                self.late.lock().unwrap().push(statement.clone());
            }
            match self.draw(12) {
                0 => Err(Broken::Lost),
                1 => {
                    drop(self.direct.send(statement).await);
                    Err(Broken::Lost)
                }
                _ => self.direct.send(statement).await,
            }
        }
        .boxed()
    }

    fn listen(&self) -> mpsc::UnboundedReceiver<Notice> {
        self.direct.listen()
    }
}

struct Shared {
    store: SharedStore,
    clock: Clock,
    opened: AtomicU64,
    seed: Option<u64>,
}

impl Shared {
    fn new(seed: Option<u64>) -> Self {
        let (store, clock) = (SharedStore::new(3), Clock::new());
        Self { store, clock, opened: AtomicU64::new(1), seed }
    }

    fn owner(&self) -> Owner {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        Owner { id: number.into(), address: format!("process-{number}").into() }
    }

    fn direct(&self) -> Direct {
        Direct::new(self.store.clone(), self.clock.ticker())
    }

    fn log_over(&self, wire: Arc<dyn Wire>) -> SharedLog {
        let mut options = Options::new(self.owner());
        (options.lease, options.now) = (LEASE, self.clock.ticker());
        SharedLog::open(wire, options)
    }

    fn log(&self) -> SharedLog {
        let direct = self.direct();
        match self.seed {
            None => self.log_over(Arc::new(direct)),
            Some(seed) => {
                let chance = Mutex::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                self.log_over(Arc::new(Rough { direct, chance, late: Mutex::default() }))
            }
        }
    }
}

impl Store for Shared {
    fn open(&self) -> LocalBoxFuture<'_, Arc<dyn EventLog>> {
        async { Arc::new(self.log()) as Arc<dyn EventLog> }.boxed_local()
    }

    fn crash(&self, log: Arc<dyn EventLog>) -> LocalBoxFuture<'_, ()> {
        drop(log);
        async { sleep(2 * LEASE).await }.boxed_local()
    }

    fn join(&self) -> Option<LocalBoxFuture<'_, Arc<dyn EventLog>>> {
        // Over a connection that breaks nobody can say who is faster when a lease has lapsed.
        self.seed.is_none().then(|| self.open())
    }

    fn lapse(&self) {
        self.clock.set_forward(LEASE);
    }
}

#[tokio::test(start_paused = true)]
async fn processes_that_share_a_store_keep_the_law() {
    conformance::all(|| Shared::new(None)).await;
}

#[tokio::test(start_paused = true)]
async fn the_law_is_kept_over_connections_that_break() {
    for seed in support::seeds(12) {
        conformance::all(|| Shared::new(Some(seed))).await;
    }
}

fn key() -> SessionKey {
    SessionKey::new(Namespace::default(), SessionId(7))
}

fn append(lease: &ax_log::Lease, text: &'static str) -> Append {
    Append {
        key: key(),
        epoch: lease.epoch,
        expected: lease.next,
        entries: vec![Bytes::from_static(text.as_bytes())],
        row: None,
        snapshot: None,
    }
}

async fn texts(log: &SharedLog) -> Vec<Bytes> {
    let read = log.read(&key(), Seq::ZERO, ReadLimit::default()).await.unwrap();
    read.into_iter().map(|entry| entry.payload).collect()
}

/// A connection that carries what it is given, or keeps it to itself.
#[derive(Debug)]
struct Mute {
    direct: Direct,
    keeps: Mutex<Option<Vec<Statement>>>,
}

impl Wire for Mute {
    fn send(&self, statement: Statement) -> BoxFuture<'_, Result<Answer, Broken>> {
        if let Some(kept) = &mut *self.keeps.lock().unwrap() {
            kept.push(statement);
            return std::future::pending().boxed();
        }
        self.direct.send(statement)
    }

    fn listen(&self) -> mpsc::UnboundedReceiver<Notice> {
        self.direct.listen()
    }
}

#[tokio::test(start_paused = true)]
async fn law_15_what_never_got_an_answer_appears_before_the_next_writer_or_never() {
    for arrives in [true, false] {
        let world = Shared::new(None);
        let mute = Arc::new(Mute { direct: world.direct(), keeps: Mutex::new(None) });
        let one = world.log_over(Arc::clone(&mute) as Arc<dyn Wire>);
        let two = world.log();
        let mut lease = one.acquire(&key()).await.unwrap();
        lease.next = one.append(append(&lease, "first")).await.unwrap().next();
        *mute.keeps.lock().unwrap() = Some(Vec::new());
        let fence = one.fence(&key(), lease.epoch);
        let failed = one.append(append(&lease, "unknown")).await.unwrap_err();
        let unavailable = matches!(&failed, AppendError::Fault(LogFault::Unavailable { .. }));
        assert!(unavailable, "{failed:?}");
        assert!(!fence.holds(), "it was tried for as long as the lease lasted");
        drop(one);
        let kept = mute.keeps.lock().unwrap().take().unwrap();
        if arrives {
            for statement in kept.clone() {
                drop(mute.direct.send(statement).await);
            }
        }
        sleep(LEASE).await;
        let mut next = two.acquire(&key()).await.unwrap();
        assert_eq!(next.next, if arrives { Seq(3) } else { Seq(2) });
        next.next = two.append(append(&next, "second")).await.unwrap().next();
        // Now it comes, once more or for the first time, and changes nothing.
        for statement in kept {
            drop(mute.direct.send(statement).await);
        }
        let with = ["first", "unknown", "second"].map(Bytes::from);
        let without = ["first", "second"].map(Bytes::from);
        assert_eq!(texts(&two).await, if arrives { &with[..] } else { &without[..] });
        assert_eq!(two.append(append(&next, "third")).await.unwrap(), next.next);
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_whose_clock_stands_still_is_refused_by_the_store() {
    let world = Shared::new(None);
    let mut options = Options::new(world.owner());
    options.lease = LEASE;
    options.now = Arc::new(Duration::default);
    // Only it believes that no time has passed.
    let one = SharedLog::open(Arc::new(world.direct()), options);
    let two = world.log();
    let mut stale = one.acquire(&key()).await.unwrap();
    stale.next = one.append(append(&stale, "first")).await.unwrap().next();
    world.clock.set_forward(LEASE);
    let lease = two.acquire(&key()).await.unwrap();
    assert!(one.fence(&key(), stale.epoch).holds(), "it has not noticed");
    let refused = one.append(append(&stale, "stale")).await;
    assert!(matches!(refused, Err(AppendError::Fenced { .. })), "{refused:?}");
    assert!(!one.fence(&key(), stale.epoch).holds(), "it has now");
    two.append(append(&lease, "second")).await.unwrap();
    assert_eq!(texts(&one).await, ["first", "second"].map(Bytes::from));
}

#[test]
fn the_store_takes_no_batch_twice_none_of_an_old_epoch_and_renews_nothing_that_lapsed() {
    let store = SharedStore::new(1);
    let owner = |id| Owner { id, address: "somewhere".into() };
    let claim = |epoch| Claim { shard: 0, epoch };
    let take = |now, id, seen| {
        let seen = vec![claim(seen)];
        let statement = Statement::Take { owner: owner(id), lease_millis: 100, seen };
        let Answer::Table(table) = store.execute(now, statement) else { panic!("no table") };
        (table.shards[0].epoch, table.shards[0].owner.as_ref().map(|owner| owner.id))
    };
    let append = |epoch, number, expected| {
        let (entries, row, snapshot) = (vec![Bytes::from_static(b"x")], None, None);
        let writes = vec![Write { key: key(), expected: Seq(expected), entries, row, snapshot }];
        let answer = store.execute(0, Statement::Append { claim: claim(epoch), number, writes });
        format!("{answer:?}")
    };
    assert_eq!(take(0, 1, 0), (1, Some(1)));
    assert_eq!(take(50, 2, 1), (1, Some(1)), "it has not lapsed");
    assert_eq!(append(1, 1, 1), "Appended");
    assert_eq!(append(1, 1, 1), "Appended", "the same one again");
    assert_eq!(append(1, 2, 1), "Refused { index: 0, next: Some(#2) }");
    assert_eq!(append(1, 2, 2), "Appended");
    assert_eq!(append(2, 1, 3), "Fenced", "nobody has that epoch");
    let held = vec![claim(1)];
    let beat = Statement::Beat { owner: owner(1), lease_millis: 100, held };
    let Answer::Table(table) = store.execute(100, beat) else { panic!("no table") };
    assert_eq!(table.shards[0].owner, None, "what has lapsed is not renewed");
    assert_eq!(append(1, 3, 3), "Appended", "nobody has taken it yet");
    assert_eq!(take(100, 2, 0), (1, None), "another epoch was seen");
    assert_eq!(take(100, 2, 1), (2, Some(2)));
    assert_eq!(append(1, 4, 4), "Fenced");
    assert_eq!(append(2, 1, 4), "Appended", "numbers begin again with an epoch");
    let give = Statement::Give { held: vec![claim(1)] };
    drop(store.execute(100, give));
    assert_eq!(take(150, 1, 2), (2, Some(2)), "an old epoch gives nothing back");
}

/// A connection whose first request for leases is carried out, but whose answer to it never comes,
/// and over which nothing is renewed.
#[derive(Debug)]
struct Hushed {
    direct: Direct,
    taken: AtomicU64,
}

impl Wire for Hushed {
    fn send(&self, statement: Statement) -> BoxFuture<'_, Result<Answer, Broken>> {
        async move {
            match &statement {
                Statement::Take { .. } if self.taken.fetch_add(1, Ordering::Relaxed) == 0 => {
                    sleep(Duration::from_millis(100)).await;
                    drop(self.direct.send(statement).await);
                    std::future::pending().await
                }
                Statement::Beat { held, .. } if !held.is_empty() => std::future::pending().await,
                _ => self.direct.send(statement).await,
            }
        }
        .boxed()
    }

    fn listen(&self) -> mpsc::UnboundedReceiver<Notice> {
        self.direct.listen()
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_counts_from_when_it_was_asked_for_first() {
    let world = Shared::new(None);
    let wire = Arc::new(Hushed { direct: world.direct(), taken: AtomicU64::new(0) });
    let log = world.log_over(Arc::clone(&wire) as Arc<dyn Wire>);
    // It sees that the shard is free, and waits until the request under way is given up.
    sleep(Duration::from_millis(50)).await;
    let lease = log.acquire(&key()).await.unwrap();
    assert!(wire.taken.load(Ordering::Relaxed) >= 2, "it has asked once more");
    assert!(world.clock.start.elapsed() > LEASE / 4);
    let fence = log.fence(&key(), lease.epoch);
    assert!(fence.holds());
    // By now the store gives the lease to whoever asks.
    sleep(LEASE + Duration::from_millis(150) - world.clock.start.elapsed()).await;
    assert!(!fence.holds());
    world.log().acquire(&key()).await.unwrap();
}
