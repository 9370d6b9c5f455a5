//! Laws 2 to 5, 10 and 11: what one append does, who may make it, and how sessions are found.

use ax_core::id::{Namespace, Seq, SessionId, SessionKey};
use bytes::Bytes;

use super::{
    Store, assert_fenced, assert_holds, entries, extend, filled, key, list_all, payload, read_all,
    row,
};
use crate::types::{
    APPEND_ENTRIES_MAX, AppendError, ENTRY_BYTES_MAX, Filter, ReadError, ReadLimit, Row, StateMask,
};

/// Entries, row and snapshot of one append appear together; a refused one leaves nothing.
pub async fn law_02_row_snapshot_and_entries_come_together(store: &dyn Store) {
    let log = store.open().await;
    let a = key(1);
    let lease = log.acquire(&a).await.unwrap();
    let mut append = entries(&a, &lease, 3);
    append.row = Some(row(4, "hello"));
    append.snapshot = Some(Bytes::from_static(b"state at 3"));
    assert_eq!(log.append(append).await.unwrap(), Seq(3));
    let head = log.head(&a).await.unwrap().unwrap();
    assert_eq!(head.row, row(4, "hello"));
    assert_eq!((head.first, head.last, head.parent), (Seq(1), Seq(3), None));
    let snapshot = log.snapshot(&a, Seq(9)).await.unwrap().unwrap();
    assert_eq!((snapshot.at, &snapshot.data[..]), (Seq(3), &b"state at 3"[..]));
    assert_eq!(log.snapshot(&a, Seq(2)).await.unwrap(), None);

    let mut refused = entries(&a, &lease, 1);
    refused.expected = Seq(3);
    refused.row = Some(row(9, "never"));
    refused.snapshot = Some(Bytes::from_static(b"never"));
    assert!(log.append(refused).await.is_err());
    assert_eq!(log.head(&a).await.unwrap().unwrap().row, row(4, "hello"));
    assert_eq!(log.snapshot(&a, Seq(9)).await.unwrap().unwrap().at, Seq(3));

    let mut bare = entries(&a, &lease, 0);
    bare.expected = Seq(4);
    bare.row = Some(row(5, "only a row"));
    assert_eq!(log.append(bare).await.unwrap(), Seq(3), "a row alone takes no position");
    assert_eq!(log.head(&a).await.unwrap().unwrap().row, row(5, "only a row"));
    assert_holds(&*log, &a, 1, 3, |_| 1).await;
}

/// Positions are 1, 2, 3, … and what is read is what was appended, in batches of any size.
pub async fn law_03_positions_have_no_gaps(store: &dyn Store) {
    let log = store.open().await;
    let a = key(1);
    assert!(matches!(
        log.read(&a, Seq::ZERO, ReadLimit::default()).await,
        Err(ReadError::NotFound)
    ));
    assert_eq!(log.head(&a).await.unwrap(), None);
    let mut lease = log.acquire(&a).await.unwrap();
    assert_eq!((lease.next, &lease.row), (Seq(1), &None));
    assert_eq!(log.head(&a).await.unwrap(), None, "acquiring makes no session");
    for count in [1, 2, 5, 1, 40, 3] {
        extend(&*log, &a, &mut lease, count).await;
        assert_holds(&*log, &a, 1, lease.next.0 - 1, |_| 1).await;
    }
    assert_holds(&*log, &a, 10, 52, |_| 1).await;
    assert_eq!(read_all(&*log, &a, 52).await, vec![]);
    assert_eq!(read_all(&*log, &a, 1000).await, vec![]);
}

/// A read keeps to its limits but always returns an entry if there is one.
pub async fn law_03_reads_stop_at_their_limits(store: &dyn Store) {
    let log = store.open().await;
    let a = key(1);
    let lease = log.acquire(&a).await.unwrap();
    let mut append = entries(&a, &lease, 0);
    append.entries = vec![Bytes::from(vec![7; 1000]); 10];
    log.append(append).await.unwrap();
    let count = async |entries, bytes| {
        log.read(&a, Seq::ZERO, ReadLimit { entries, bytes }).await.unwrap().len()
    };
    assert_eq!(count(3, 1 << 20).await, 3);
    assert_eq!(count(100, 2500).await, 2);
    assert_eq!(count(100, 10).await, 1, "a first entry is returned whatever its size");
    assert_eq!(count(0, 0).await, 1);
    let over = |entries: Vec<Bytes>| {
        let mut append = super::entries(&a, &lease, 0);
        append.expected = Seq(11);
        append.entries = entries;
        append
    };
    let large = log.append(over(vec![Bytes::from(vec![0; ENTRY_BYTES_MAX + 1])])).await;
    assert!(matches!(large, Err(AppendError::TooLarge { .. })), "{large:?}");
    let many = log.append(over(vec![Bytes::new(); APPEND_ENTRIES_MAX + 1])).await;
    assert!(matches!(many, Err(AppendError::TooLarge { .. })), "{many:?}");
    let largest = vec![Bytes::from(vec![1; ENTRY_BYTES_MAX]); 16];
    assert_eq!(log.append(over(largest)).await.unwrap(), Seq(26), "the limits themselves pass");
}

/// An append at a position that is taken, or not reached, changes nothing.
pub async fn law_04_a_wrong_position_changes_nothing(store: &dyn Store) {
    let log = store.open().await;
    let a = key(1);
    let lease = filled(&*log, &a, 5).await;
    for expected in [0, 1, 5, 7, u64::MAX] {
        let mut wrong = entries(&a, &lease, 2);
        wrong.expected = Seq(expected);
        let error = log.append(wrong).await.unwrap_err();
        let AppendError::WrongSeq { expected: said, next } = error else { panic!("{error:?}") };
        assert_eq!((said, next), (Seq(expected), Seq(6)));
    }
    assert_holds(&*log, &a, 1, 5, |_| 1).await;
}

/// Whoever acquires later writes; the one before is refused, though its position is right.
pub async fn law_05_a_stale_writer_is_refused(store: &dyn Store) {
    let log = store.open().await;
    let a = key(1);
    let stale = filled(&*log, &a, 2).await;
    let mut lease = log.acquire(&a).await.unwrap();
    assert!(lease.epoch > stale.epoch);
    assert_eq!(lease.next, Seq(3));
    assert_fenced(log.append(entries(&a, &stale, 1)).await);
    extend(&*log, &a, &mut lease, 1).await;
    assert_fenced(log.append(entries(&a, &stale, 1)).await);
    log.release(&a, stale.epoch);
    extend(&*log, &a, &mut lease, 1).await;
    assert_holds(&*log, &a, 1, 4, |_| 1).await;
}

/// A released epoch is refused, and the next one given is higher.
pub async fn law_05_a_released_epoch_is_refused(store: &dyn Store) {
    let log = store.open().await;
    let a = key(1);
    let mut released = filled(&*log, &a, 2).await;
    released.next = Seq(3);
    log.release(&a, released.epoch);
    assert_fenced(log.append(entries(&a, &released, 1)).await);
    let mut lease = log.acquire(&a).await.unwrap();
    assert!(lease.epoch > released.epoch);
    assert_eq!(lease.row, Some(Row::default()));
    extend(&*log, &a, &mut lease, 1).await;
    assert_fenced(log.append(entries(&a, &released, 1)).await);
}

/// An epoch from before a restart is lower than every one after it, and refused.
pub async fn law_05_epochs_grow_over_restarts(store: &dyn Store) {
    let a = key(1);
    let mut highest = ax_core::id::Epoch(0);
    let mut stale = None;
    for round in 0..4 {
        let log = store.open().await;
        if let Some(stale) = &stale {
            assert_fenced(log.append(entries(&a, stale, 1)).await);
        }
        let _passing = log.acquire(&key(2)).await.unwrap();
        let mut lease = log.acquire(&a).await.unwrap();
        assert!(lease.epoch > highest, "round {round}");
        if let Some(stale) = &stale {
            assert_fenced(log.append(entries(&a, stale, 1)).await);
        }
        highest = lease.epoch;
        extend(&*log, &a, &mut lease, 1).await;
        stale = Some(lease);
        store.crash(log).await;
    }
}

/// Pages are in the order of ids; filters select; a cursor holds when sessions come and go.
pub async fn law_10_pages_follow_ids_and_filters(store: &dyn Store) {
    let log = store.open().await;
    for session in [9_u128, 2, 7, 4, 1, 8, 3, u128::MAX, 5] {
        let lease = log.acquire(&key(session)).await.unwrap();
        let mut append = entries(&key(session), &lease, 1);
        let mut row = row(u8::try_from(session % 3).unwrap(), "r");
        row.due_millis = session.is_multiple_of(2).then_some(u64::try_from(session).unwrap_or(0));
        append.row = Some(row);
        log.append(append).await.unwrap();
        log.release(&key(session), lease.epoch);
    }
    let ids = async |limit, filter| {
        let rows = list_all(&*log, &Namespace::default(), limit, filter).await;
        rows.into_iter().map(|row| row.session.0).collect::<Vec<_>>()
    };
    let all = vec![1, 2, 3, 4, 5, 7, 8, 9, u128::MAX];
    for limit in [1, 2, 3, 100] {
        assert_eq!(ids(limit, Filter::default()).await, all);
        let states = StateMask::of(1).and(2);
        let filter = Filter { states, due_before_millis: None };
        assert_eq!(ids(limit, filter).await, vec![1, 2, 4, 5, 7, 8]);
        let filter = Filter { states: StateMask::ALL, due_before_millis: Some(4) };
        assert_eq!(ids(limit, filter).await, vec![2, 4]);
        let filter = Filter { states: StateMask::of(30), due_before_millis: None };
        assert_eq!(ids(limit, filter).await, Vec::<u128>::new());
    }
    let mut query = crate::ListQuery {
        namespace: Namespace::default(),
        after: None,
        limit: 3,
        filter: Filter::default(),
    };
    let page = log.list(query.clone()).await.unwrap();
    assert_eq!(page.next, Some(SessionId(3)));
    log.delete(&key(3)).await.unwrap();
    log.delete(&key(5)).await.unwrap();
    filled(&*log, &key(6), 1).await;
    query.after = page.next;
    let page = log.list(query).await.unwrap();
    let next: Vec<_> = page.rows.iter().map(|row| row.session.0).collect();
    assert_eq!(next, vec![4, 6, 7]);
}

/// The same id in two namespaces is two sessions, listed apart.
pub async fn law_11_namespaces_do_not_see_each_other(store: &dyn Store) {
    let log = store.open().await;
    let other = Namespace::new("other").unwrap();
    let (a, b) = (key(1), SessionKey::new(other.clone(), SessionId(1)));
    assert_eq!(log.namespaces().await.unwrap(), vec![]);
    let mut one = filled(&*log, &a, 3).await;
    let two = log.acquire(&b).await.unwrap();
    assert_eq!(two.next, Seq(1));
    let mut append = entries(&b, &two, 0);
    append.entries = vec![Bytes::from_static(b"of the other")];
    log.append(append).await.unwrap();
    extend(&*log, &a, &mut one, 1).await;
    assert_holds(&*log, &a, 1, 4, |_| 1).await;
    assert_eq!(read_all(&*log, &b, 0).await.len(), 1);
    log.delete(&b).await.unwrap();
    assert_holds(&*log, &a, 1, 4, |_| 1).await;
    assert_eq!(list_all(&*log, &other, 10, Filter::default()).await, vec![]);
    assert_eq!(list_all(&*log, &Namespace::default(), 10, Filter::default()).await.len(), 1);
    assert_eq!(log.namespaces().await.unwrap(), vec![Namespace::default(), other]);
    assert_eq!(payload(1, 1), read_all(&*log, &a, 0).await[0].payload);
}
