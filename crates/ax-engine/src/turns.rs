//! One at a time, by session: for what is decided here and carried out in two sessions.

use ax_core::id::SessionKey;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::OwnedMutexGuard;

type Locks = HashMap<SessionKey, Arc<tokio::sync::Mutex<()>>>;

/// Who may go on, by session. Sessions that nobody asks for take no memory.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<Locks>);

/// A turn that ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    key: SessionKey,
    held: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits until nobody else has the turn.
    pub(crate) async fn take(&self, key: &SessionKey) -> Turn<'_> {
        let lock = Arc::clone(self.locks().entry(key.clone()).or_default());
        // Made before the wait, so that one that is given up is tidied up after, too.
        let mut turn = Turn { turns: self, key: key.clone(), held: None };
        turn.held = Some(lock.lock_owned().await);
        turn
    }

    fn locks(&self) -> MutexGuard<'_, Locks> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        drop(self.held.take());
        let mut locks = self.turns.locks();
        if locks.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ax_core::id::{Namespace, SessionId};
    use futures::FutureExt as _;

    #[tokio::test]
    async fn one_has_the_turn_at_a_time_and_nothing_is_left_behind() {
        let turns = Turns::default();
        let key = |id| SessionKey::new(Namespace::default(), SessionId(id));
        let (one, two) = (key(1), key(2));
        let first = turns.take(&one).await;
        let other = turns.take(&two).await;
        let mut second = Box::pin(turns.take(&one));
        assert!(second.as_mut().now_or_never().is_none());
        let mut given_up = Box::pin(turns.take(&one));
        assert!(given_up.as_mut().now_or_never().is_none());
        drop((first, other, given_up));
        drop(second.await);
        assert!(turns.locks().is_empty());
    }
}
