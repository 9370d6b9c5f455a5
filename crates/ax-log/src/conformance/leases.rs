//! Laws 13 and 14: several processes on one store.

use ax_core::id::Seq;

use super::{Store, assert_fenced, assert_holds, entries, extend, filled, key};
use crate::Lease;
use crate::types::{AcquireError, LogFault};

fn assert_elsewhere(acquired: Result<Lease, AcquireError>) {
    let elsewhere = matches!(acquired, Err(AcquireError::Fault(LogFault::Elsewhere { .. })));
    assert!(elsewhere, "{acquired:?}");
}

/// The others are told where the writer is, and read and watch what it writes.
pub async fn law_13_only_the_holder_of_a_lease_writes(store: &dyn Store) {
    let one = store.open().await;
    let a = key(1);
    let mut lease = filled(&*one, &a, 3).await;
    let Some(joins) = store.join() else { return };
    let two = joins.await;
    assert!(one.owns(&a) && !two.owns(&a));
    assert_elsewhere(two.acquire(&a).await);
    assert_fenced(two.append(entries(&a, &lease, 1)).await);
    assert_holds(&*two, &a, 1, 3, |_| 1).await;
    let mut watch = two.watch(&a).await.unwrap();
    assert_eq!(watch.current().last, Seq(3));
    extend(&*one, &a, &mut lease, 2).await;
    assert_eq!(watch.beyond(Seq(4)).await.last, Seq(5));
    assert_holds(&*two, &a, 1, 5, |_| 1).await;
    // What one of them deletes is deleted for all.
    let mut doomed = two.watch(&a).await.unwrap();
    one.delete(&a).await.unwrap();
    assert!(doomed.beyond(Seq(100)).await.ended);
    assert_eq!(two.head(&a).await.unwrap(), None);
}

/// Whoever comes after a lease has lapsed has a higher epoch, and the old writer writes nothing.
pub async fn law_13_a_lapsed_lease_is_taken_over(store: &dyn Store) {
    let one = store.open().await;
    let a = key(1);
    let stale = filled(&*one, &a, 3).await;
    let Some(joins) = store.join() else { return };
    let two = joins.await;
    assert_elsewhere(two.acquire(&a).await);
    store.lapse();
    let mut lease = two.acquire(&a).await.unwrap();
    assert!(lease.epoch > stale.epoch, "epochs grow from process to process");
    assert_eq!(lease.next, Seq(4));
    assert_fenced(one.append(entries(&a, &stale, 1)).await);
    extend(&*two, &a, &mut lease, 2).await;
    let mut late = entries(&a, &stale, 1);
    late.expected = Seq(6);
    assert_fenced(one.append(late).await);
    assert_elsewhere(one.acquire(&a).await);
    assert!(two.owns(&a) && !one.owns(&a));
    assert_holds(&*one, &a, 1, 5, |_| 1).await;
    assert_holds(&*two, &a, 1, 5, |_| 1).await;
}

/// A process that closes its log gives its leases back: nobody has to wait for them.
pub async fn law_13_what_is_given_back_is_free_at_once(store: &dyn Store) {
    let one = store.open().await;
    let a = key(1);
    let stale = filled(&*one, &a, 3).await;
    let Some(joins) = store.join() else { return };
    let two = joins.await;
    assert_elsewhere(two.acquire(&a).await);
    one.close().await.unwrap();
    let mut lease = two.acquire(&a).await.unwrap();
    assert!(lease.epoch > stale.epoch);
    extend(&*two, &a, &mut lease, 1).await;
    assert_holds(&*two, &a, 1, 4, |_| 1).await;
}

/// The fence of a writer falls when its lease may be another's, and a later one does not raise it.
pub async fn law_14_a_fence_falls_with_the_lease(store: &dyn Store) {
    let one = store.open().await;
    let a = key(1);
    let lease = filled(&*one, &a, 1).await;
    let Some(joins) = store.join() else { return };
    let two = joins.await;
    let fence = one.fence(&a, lease.epoch);
    assert!(fence.holds());
    assert!(!two.fence(&a, lease.epoch).holds(), "it is the writer's own");
    // Else it may be the one that takes the lease.
    two.close().await.unwrap();
    store.lapse();
    assert!(!fence.holds(), "nobody has to be asked");
    fence.fallen_down().await;
    let again = one.acquire(&a).await.unwrap();
    assert!(again.epoch > lease.epoch);
    assert!(!fence.holds(), "a lapsed lease is not renewed");
    let fence = one.fence(&a, again.epoch);
    assert!(fence.holds());
    one.close().await.unwrap();
    fence.fallen_down().await;
    assert!(!fence.holds());
}
