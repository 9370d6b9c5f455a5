//! Laws 7 to 9: branches, and what deleting and cutting leave to them.

use ax_core::id::{Namespace, Seq, SessionId};
use bytes::Bytes;

use super::{Store, assert_holds, entries, extend, filled, key, list_all, row};
use crate::EventLog;
use crate::types::{
    AcquireError, AppendError, BranchError, CutError, DeleteError, Filter, ReadError, ReadLimit,
    Row, Snapshot,
};

/// A branch shares the prefix and goes its own way; the parent never notices.
pub async fn law_07_a_branch_reads_as_its_parent_then_as_itself(store: &dyn Store) {
    let log = store.open().await;
    let (a, b) = (key(1), key(2));
    let mut parent = filled(&*log, &a, 10).await;
    log.branch(&a, Seq(6), SessionId(2), row(3, "branch")).await.unwrap();
    assert_holds(&*log, &b, 1, 6, |_| 1).await;
    let head = log.head(&b).await.unwrap().unwrap();
    assert_eq!(head.parent, Some((SessionId(1), Seq(6))));
    assert_eq!((head.first, head.row), (Seq(1), row(3, "branch")));
    let mut child = log.acquire(&b).await.unwrap();
    assert_eq!((child.next, child.row.clone()), (Seq(7), Some(row(3, "branch"))));
    extend(&*log, &b, &mut child, 5).await;
    extend(&*log, &a, &mut parent, 5).await;
    let owner = |seq| if seq <= 6 { 1 } else { 2 };
    assert_holds(&*log, &b, 1, 11, owner).await;
    assert_holds(&*log, &b, 5, 11, owner).await;
    assert_holds(&*log, &b, 9, 11, owner).await;
    assert_holds(&*log, &a, 1, 15, |_| 1).await;
    assert_eq!(log.head(&a).await.unwrap().unwrap().parent, None);
}

/// Reads go through any depth of branches, and the first of siblings does not hide the second.
pub async fn law_07_a_branch_of_a_branch_reads_through(store: &dyn Store) {
    let log = store.open().await;
    filled(&*log, &key(1), 4).await;
    for depth in 1..40_u128 {
        let at = Seq(u64::try_from(depth).unwrap() + 3);
        let child = SessionId(depth + 1);
        log.branch(&key(depth), at, child, Row::default()).await.unwrap();
        let mut lease = log.acquire(&key(depth + 1)).await.unwrap();
        extend(&*log, &key(depth + 1), &mut lease, 3).await;
    }
    // Each session owns one position of what the deepest one sees; the root 4, the leaf 3.
    let owner = |seq: u64| u128::from(seq.saturating_sub(3).clamp(1, 40));
    assert_holds(&*log, &key(40), 1, 45, owner).await;
    assert_holds(&*log, &key(40), 30, 45, owner).await;
    // A branch below its parent's own branch point belongs to the grandparent's part.
    log.branch(&key(40), Seq(2), SessionId(99), Row::default()).await.unwrap();
    assert_holds(&*log, &key(99), 1, 2, |_| 1).await;
    let mut low = log.acquire(&key(99)).await.unwrap();
    extend(&*log, &key(99), &mut low, 2).await;
    assert_holds(&*log, &key(99), 1, 4, |seq| if seq <= 2 { 1 } else { 99 }).await;
}

/// A branch finds the snapshots of its prefix, and none of what its parent did later.
pub async fn law_07_a_branch_sees_the_snapshots_before_it(store: &dyn Store) {
    let log = store.open().await;
    let a = key(1);
    let mut lease = log.acquire(&a).await.unwrap();
    for round in 1..=3_u64 {
        snapshot_after(&*log, &a, &mut lease, 4, round).await;
    }
    log.branch(&a, Seq(9), SessionId(2), Row::default()).await.unwrap();
    let found = log.snapshot(&key(2), Seq(100)).await.unwrap().unwrap();
    assert_eq!(found, Snapshot { at: Seq(8), data: Bytes::from_static(b"snapshot 2") });
    let earlier = log.snapshot(&key(2), Seq(7)).await.unwrap().unwrap();
    assert_eq!(earlier.at, Seq(4));
    assert_eq!(log.snapshot(&key(2), Seq(3)).await.unwrap(), None);
    let mut child = log.acquire(&key(2)).await.unwrap();
    snapshot_after(&*log, &key(2), &mut child, 1, 7).await;
    let own = log.snapshot(&key(2), Seq(100)).await.unwrap().unwrap();
    assert_eq!((own.at, &own.data[..]), (Seq(10), &b"snapshot 7"[..]));
    let parents = log.snapshot(&a, Seq(100)).await.unwrap().unwrap();
    assert_eq!((parents.at, &parents.data[..]), (Seq(12), &b"snapshot 3"[..]));
}

/// Branches of nothing, beyond the head, or under an id in use are refused.
pub async fn law_07_what_cannot_be_branched_is_refused(store: &dyn Store) {
    let log = store.open().await;
    filled(&*log, &key(1), 3).await;
    filled(&*log, &key(2), 1).await;
    filled(&*log, &key(3), 1).await;
    log.delete(&key(3)).await.unwrap();
    let branch = async |parent, at, child| {
        log.branch(&key(parent), Seq(at), SessionId(child), Row::default()).await
    };
    assert!(matches!(branch(9, 1, 10).await, Err(BranchError::NotFound)));
    assert!(matches!(branch(3, 1, 10).await, Err(BranchError::NotFound)));
    let beyond = branch(1, 4, 10).await;
    let Err(BranchError::OutOfRange { at, first, last }) = beyond else { panic!("{beyond:?}") };
    assert_eq!((at, first, last), (Seq(4), Seq(0), Seq(3)));
    for taken in [1, 2, 3] {
        assert!(matches!(branch(1, 2, taken).await, Err(BranchError::Exists { .. })));
    }
    branch(1, 0, 10).await.unwrap();
    assert_eq!(log.head(&key(10)).await.unwrap().unwrap().last, Seq(0));
    let mut empty = log.acquire(&key(10)).await.unwrap();
    extend(&*log, &key(10), &mut empty, 2).await;
    assert_holds(&*log, &key(10), 1, 2, |_| 10).await;
}

/// A deleted session is not found by anything and its id is never used again.
pub async fn law_08_a_deleted_session_is_gone_for_good(store: &dyn Store) {
    let log = store.open().await;
    let a = key(1);
    assert!(matches!(log.delete(&a).await, Err(DeleteError::NotFound)));
    let lease = filled(&*log, &a, 3).await;
    let mut watch = log.watch(&a).await.unwrap();
    log.delete(&a).await.unwrap();
    assert!(watch.beyond(Seq(100)).await.ended, "a watcher is told");
    assert!(log.watch(&a).await.unwrap().current().ended);
    assert!(matches!(log.append(entries(&a, &lease, 1)).await, Err(AppendError::Deleted)));
    assert_gone(&*log, 1).await;
    assert!(matches!(log.delete(&a).await, Err(DeleteError::NotFound)));
    assert!(matches!(log.cut(&a, Seq(2)).await, Err(CutError::NotFound)));
}

/// What a branch shares with a deleted session still reads, over any number of deletions.
pub async fn law_08_a_deleted_parent_keeps_what_its_branches_share(store: &dyn Store) {
    let log = store.open().await;
    filled(&*log, &key(1), 10).await;
    log.branch(&key(1), Seq(8), SessionId(2), Row::default()).await.unwrap();
    let mut lease = log.acquire(&key(2)).await.unwrap();
    extend(&*log, &key(2), &mut lease, 4).await;
    log.branch(&key(2), Seq(10), SessionId(3), Row::default()).await.unwrap();
    log.delete(&key(1)).await.unwrap();
    log.delete(&key(2)).await.unwrap();
    let owner = |seq| if seq <= 8 { 1 } else { 2 };
    assert_holds(&*log, &key(3), 1, 10, owner).await;
    let head = log.head(&key(3)).await.unwrap().unwrap();
    assert_eq!(head.parent, Some((SessionId(2), Seq(10))));
    log.branch(&key(3), Seq(9), SessionId(4), Row::default()).await.unwrap();
    log.delete(&key(3)).await.unwrap();
    assert_holds(&*log, &key(4), 1, 9, owner).await;
    for gone in [1, 2, 3] {
        assert_gone(&*log, gone).await;
    }
}

/// A cut needs a snapshot, hides what is below, and a read that begins there says so.
pub async fn law_09_a_cut_is_seen_by_a_read_that_begins_there(store: &dyn Store) {
    let log = store.open().await;
    let a = key(1);
    let mut lease = log.acquire(&a).await.unwrap();
    extend(&*log, &a, &mut lease, 3).await;
    assert!(matches!(log.cut(&a, Seq(2)).await, Err(CutError::Uncovered { .. })));
    snapshot_after(&*log, &a, &mut lease, 3, 1).await;
    extend(&*log, &a, &mut lease, 4).await;
    assert!(matches!(log.cut(&a, Seq(8)).await, Err(CutError::Uncovered { .. })));
    assert!(matches!(log.cut(&key(9), Seq(1)).await, Err(CutError::NotFound)));
    log.cut(&a, Seq(1)).await.unwrap();
    assert_holds(&*log, &a, 1, 10, |_| 1).await;
    log.cut(&a, Seq(7)).await.unwrap();
    log.cut(&a, Seq(3)).await.unwrap();
    assert_cut(&*log, 1, 7).await;
    assert_holds(&*log, &a, 7, 10, |_| 1).await;
    assert_eq!(log.snapshot(&a, Seq(10)).await.unwrap().unwrap().at, Seq(6));
    let low = log.branch(&a, Seq(5), SessionId(2), Row::default()).await;
    assert!(matches!(low, Err(BranchError::OutOfRange { .. })), "{low:?}");
    log.branch(&a, Seq(6), SessionId(2), Row::default()).await.unwrap();
    assert_eq!(log.snapshot(&key(2), Seq(10)).await.unwrap().unwrap().at, Seq(6));
    assert_cut(&*log, 2, 7).await;
    extend(&*log, &a, &mut lease, 2).await;
    assert_holds(&*log, &a, 7, 12, |_| 1).await;
}

/// What a branch shares is there after its parent was cut, and after another branch was.
pub async fn law_09_a_cut_keeps_what_a_branch_shares(store: &dyn Store) {
    let log = store.open().await;
    let a = key(1);
    let mut lease = log.acquire(&a).await.unwrap();
    extend(&*log, &a, &mut lease, 6).await;
    for child in [2, 3] {
        log.branch(&a, Seq(5), SessionId(child), Row::default()).await.unwrap();
    }
    snapshot_after(&*log, &a, &mut lease, 4, 1).await;
    log.cut(&a, Seq(11)).await.unwrap();
    assert_cut(&*log, 1, 11).await;
    assert_holds(&*log, &key(2), 1, 5, |_| 1).await;
    let mut child = log.acquire(&key(2)).await.unwrap();
    snapshot_after(&*log, &key(2), &mut child, 3, 2).await;
    log.cut(&key(2), Seq(7)).await.unwrap();
    assert_cut(&*log, 2, 7).await;
    assert_holds(&*log, &key(2), 7, 8, |_| 2).await;
    assert_holds(&*log, &key(3), 1, 5, |_| 1).await;
    log.delete(&key(2)).await.unwrap();
    assert_holds(&*log, &key(3), 1, 5, |_| 1).await;
}

/// Appends `count` entries with a snapshot called by `name`.
pub(super) async fn snapshot_after(
    log: &dyn EventLog,
    key: &ax_core::id::SessionKey,
    lease: &mut crate::Lease,
    count: u64,
    name: u64,
) {
    let mut append = entries(key, lease, count);
    append.snapshot = Some(Bytes::from(format!("snapshot {name}")));
    lease.next = log.append(append).await.unwrap().next();
}

/// Asserts that a read from the start of a session says what was cut.
pub(super) async fn assert_cut(log: &dyn EventLog, session: u128, first: u64) {
    assert_eq!(log.head(&key(session)).await.unwrap().unwrap().first, Seq(first));
    for after in [0, first - 2] {
        let read = log.read(&key(session), Seq(after), ReadLimit::default()).await;
        let Err(ReadError::Cut { first: said }) = read else { panic!("{read:?}") };
        assert_eq!(said, Seq(first));
    }
    assert!(log.read(&key(session), Seq(first - 1), ReadLimit::default()).await.is_ok());
}

/// Asserts that a deleted session is found by nothing.
pub(super) async fn assert_gone(log: &dyn EventLog, session: u128) {
    let a = key(session);
    let read = log.read(&a, Seq::ZERO, ReadLimit::default()).await;
    assert!(matches!(read, Err(ReadError::NotFound)), "{read:?}");
    assert_eq!(log.head(&a).await.unwrap(), None);
    assert_eq!(log.snapshot(&a, Seq(u64::MAX)).await.unwrap(), None);
    assert!(matches!(log.acquire(&a).await, Err(AcquireError::Deleted)));
    let rows = list_all(log, &Namespace::default(), 10, Filter::default()).await;
    assert!(rows.iter().all(|row| row.session.0 != session));
    filled_twin(log, session).await;
}

async fn filled_twin(log: &dyn EventLog, session: u128) {
    let branch = log.branch(&key(session), Seq(1), SessionId(777), Row::default()).await;
    assert!(matches!(branch, Err(BranchError::NotFound)), "{branch:?}");
}
