//! Laws 1, 6 and 12, and what deletions and cuts owe to a crash.

use ax_core::id::{Namespace, Seq, SessionId};

use super::branches::{assert_cut, assert_gone, snapshot_after};
use super::{Store, assert_holds, entries, extend, filled, key, list_all, row};
use crate::EventLog;
use crate::types::{
    AcquireError, AppendError, BranchError, Filter, LogFault, ReadError, ReadLimit, Row,
};

/// Entries, rows, snapshots and branches that were acknowledged survive crashes, many times over.
pub async fn law_01_what_was_acknowledged_is_there_after_a_crash(store: &dyn Store) {
    let mut log = store.open().await;
    for round in 1..=5_u64 {
        for session in 1..=3_u128 {
            let a = key(session);
            let mut lease = log.acquire(&a).await.unwrap();
            assert_eq!(lease.next, Seq((round - 1) * 10 + 1));
            extend(&*log, &a, &mut lease, 9).await;
            let mut append = entries(&a, &lease, 1);
            append.row = Some(row(2, &format!("round {round}")));
            append.snapshot = Some(format!("state {round}").into());
            log.append(append).await.unwrap();
        }
        let child = SessionId(100 + u128::from(round));
        log.branch(&key(1), Seq(round * 10 - 3), child, row(1, "child")).await.unwrap();
        store.crash(log).await;
        log = store.open().await;
        for session in 1..=3_u128 {
            assert_holds(&*log, &key(session), 1, round * 10, |_| session).await;
            let head = log.head(&key(session)).await.unwrap().unwrap();
            assert_eq!(head.row, row(2, &format!("round {round}")));
            for at in 1..=round {
                let found = log.snapshot(&key(session), Seq(at * 10 + 9)).await.unwrap().unwrap();
                assert_eq!((found.at, found.data), (Seq(at * 10), format!("state {at}").into()));
            }
        }
        for past in 1..=round {
            assert_holds(&*log, &key(100 + u128::from(past)), 1, past * 10 - 3, |_| 1).await;
        }
    }
    let rows = list_all(&*log, &Namespace::default(), 2, Filter::default()).await;
    assert_eq!(rows.len(), 3 + 5);
}

/// A watcher sees every move of the head, of a session that existed and of one that did not.
pub async fn law_06_a_watcher_sees_the_head_move(store: &dyn Store) {
    let log = store.open().await;
    let (a, b) = (key(1), key(2));
    let mut lease = filled(&*log, &a, 2).await;
    let mut watch = log.watch(&a).await.unwrap();
    let mut unborn = log.watch(&b).await.unwrap();
    assert_eq!((watch.current().last, unborn.current().last), (Seq(2), Seq(0)));
    assert_eq!(watch.beyond(Seq(1)).await.last, Seq(2));
    for _ in 0..10 {
        let seen = watch.current().last;
        let follow = async {
            let head = watch.beyond(seen).await;
            let read = log.read(&a, seen, ReadLimit::default()).await.unwrap();
            assert!(read.last().unwrap().seq >= head.last, "what a watcher sees can be read");
            assert!(!head.ended);
        };
        futures::join!(follow, extend(&*log, &a, &mut lease, 3));
    }
    futures::join!(async { assert_eq!(unborn.beyond(Seq(0)).await.last, Seq(4)) }, async {
        drop(filled(&*log, &b, 4).await)
    });
    let mut child = log.watch(&key(3)).await.unwrap();
    log.branch(&a, Seq(5), SessionId(3), Row::default()).await.unwrap();
    assert_eq!(child.beyond(Seq(4)).await.last, Seq(5), "a branch begins where it shares");
}

/// A watcher is told when the session is deleted and when the log is closed.
pub async fn law_06_a_watcher_sees_the_end(store: &dyn Store) {
    let log = store.open().await;
    filled(&*log, &key(1), 2).await;
    filled(&*log, &key(2), 2).await;
    let mut deleted = log.watch(&key(1)).await.unwrap();
    let mut closed = log.watch(&key(2)).await.unwrap();
    log.delete(&key(1)).await.unwrap();
    assert!(deleted.beyond(Seq(2)).await.ended);
    assert!(!closed.current().ended);
    log.close().await.unwrap();
    assert!(closed.beyond(Seq(2)).await.ended);
    assert_eq!(closed.current().last, Seq(2));
}

/// A deleted session does not come back, and its branches keep what they share.
pub async fn law_08_a_deletion_survives_a_crash(store: &dyn Store) {
    let mut log = store.open().await;
    filled(&*log, &key(1), 9).await;
    log.branch(&key(1), Seq(7), SessionId(2), Row::default()).await.unwrap();
    log.delete(&key(1)).await.unwrap();
    for _ in 0..3 {
        store.crash(log).await;
        log = store.open().await;
        assert_gone(&*log, 1).await;
        let twin = log.branch(&key(2), Seq(1), SessionId(1), Row::default()).await;
        assert!(matches!(twin, Err(BranchError::Exists { .. })), "{twin:?}");
        assert_holds(&*log, &key(2), 1, 7, |_| 1).await;
        filled_more(&*log).await;
    }
}

/// A cut holds over crashes.
pub async fn law_09_a_cut_survives_a_crash(store: &dyn Store) {
    let mut log = store.open().await;
    let a = key(1);
    let mut lease = log.acquire(&a).await.unwrap();
    snapshot_after(&*log, &a, &mut lease, 9, 1).await;
    log.branch(&a, Seq(4), SessionId(2), Row::default()).await.unwrap();
    extend(&*log, &a, &mut lease, 2).await;
    log.cut(&a, Seq(8)).await.unwrap();
    for _ in 0..3 {
        store.crash(log).await;
        log = store.open().await;
        assert_cut(&*log, 1, 8).await;
        assert_holds(&*log, &a, 8, 11, |_| 1).await;
        assert_holds(&*log, &key(2), 1, 4, |_| 1).await;
        filled_more(&*log).await;
    }
}

/// After `close` every call says that the log is closed.
pub async fn law_12_a_closed_log_does_nothing(store: &dyn Store) {
    let log = store.open().await;
    let a = key(1);
    let lease = filled(&*log, &a, 2).await;
    log.close().await.unwrap();
    assert!(matches!(log.acquire(&a).await, Err(AcquireError::Fault(LogFault::Closed))));
    let append = log.append(entries(&a, &lease, 1)).await;
    assert!(matches!(append, Err(AppendError::Fault(LogFault::Closed))), "{append:?}");
    let read = log.read(&a, Seq(0), ReadLimit::default()).await;
    assert!(matches!(read, Err(ReadError::Fault(LogFault::Closed))), "{read:?}");
    assert!(matches!(log.head(&a).await, Err(LogFault::Closed)));
    assert!(matches!(log.namespaces().await, Err(LogFault::Closed)));
    assert!(matches!(log.close().await, Err(LogFault::Closed)));
    log.release(&a, lease.epoch);
    store.crash(log).await;
    let log = store.open().await;
    assert_holds(&*log, &a, 1, 2, |_| 1).await;
}

/// A failed write is final: the append fails, and so does every later one, also where the disk
/// has recovered. What was acknowledged before still reads, then and after a reopening.
pub async fn law_12_after_a_failed_write_nothing_is_taken(store: &dyn Store) {
    let log = store.open().await;
    let (a, b) = (key(1), key(2));
    let lease = filled(&*log, &a, 5).await;
    let other = filled(&*log, &b, 5).await;
    if !store.break_writes() {
        return;
    }
    for (key, lease) in [(&a, &lease), (&b, &other), (&a, &lease)] {
        let mut append = entries(key, lease, 1);
        append.expected = Seq(6);
        let append = log.append(append).await;
        assert!(matches!(append, Err(AppendError::Fault(LogFault::Poisoned { .. }))), "{append:?}");
    }
    assert!(log.branch(&a, Seq(2), SessionId(3), Row::default()).await.is_err());
    assert!(log.delete(&a).await.is_err());
    assert_holds(&*log, &a, 1, 5, |_| 1).await;
    assert_holds(&*log, &b, 1, 5, |_| 2).await;
    store.crash(log).await;
    let log = store.open().await;
    for (key, session) in [(&a, 1), (&b, 2)] {
        // The failed appends may have reached the disk, whole, or not.
        let last = log.head(key).await.unwrap().unwrap().last.0;
        assert!((5..=6).contains(&last), "{last}");
        assert_holds(&*log, key, 1, last, |_| session).await;
    }
}

/// Adds unrelated sessions, so that backends have something to move about.
async fn filled_more(log: &dyn EventLog) {
    for session in 50..60 {
        let mut lease = log.acquire(&key(session)).await.unwrap();
        extend(log, &key(session), &mut lease, 20).await;
    }
}
