//! Followers: they leave and come back, and miss nothing.

use crate::client::{is_passing, named};
use crate::outside::Outside;
use crate::prng::{self, Prng};
use ax_core::id::{Seq, SessionKey};
use ax_engine::{Code, Engine, FollowItem, FollowOptions, Until};
use futures::StreamExt as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// A follower, whose memory survives everything.
#[derive(Clone, Debug)]
pub(crate) struct Follower {
    pub(crate) key: SessionKey,
    pub(crate) memory: Arc<Mutex<Memory>>,
    outside: Outside,
    visit: u64,
}

/// What a follower remembers.
#[derive(Debug)]
pub(crate) struct Memory {
    prng: Prng,
    /// The last position that it saw.
    pub(crate) last: Seq,
    /// The session is deleted.
    pub(crate) ended: bool,
    /// A hash of everything that it saw.
    pub(crate) hash: u64,
    /// How often it came back.
    pub(crate) resumes: u64,
    /// Which connection is its last: what comes over an older one is not looked at.
    visit: u64,
}

impl Follower {
    pub(crate) fn new(seed: u64, key: &SessionKey, outside: &Outside) -> Self {
        let prng = Prng::of(seed, &format!("follower of {key}"));
        let memory = Memory { prng, last: Seq::ZERO, ended: false, hash: 0, resumes: 0, visit: 0 };
        let memory = Arc::new(Mutex::new(memory));
        Self { key: key.clone(), memory, outside: outside.clone(), visit: 0 }
    }

    /// Connects anew.
    pub(crate) fn visit(&self) -> Self {
        let mut memory = self.memory();
        memory.visit += 1;
        Self { visit: memory.visit, ..self.clone() }
    }

    fn is_current(&self) -> bool {
        self.memory().visit == self.visit
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no holder of the lock panics")
    }

    /// Follows as long as the engine lives.
    pub(crate) async fn run(self, engine: Engine, patience_millis_max: u64) {
        loop {
            let (options, patience) = {
                let mut memory = self.memory();
                if memory.visit != self.visit {
                    return;
                }
                memory.resumes += 1;
                let until = if memory.prng.chance(20) { Until::Idle } else { Until::Forever };
                let options = FollowOptions { after: memory.last, until, no_deltas: false };
                (options, Duration::from_millis(memory.prng.between(1, patience_millis_max)))
            };
            // Whoever is disconnected does not choose when.
            let followed = timeout(patience, self.follow(&engine, options)).await;
            if !self.is_current() {
                return;
            }
            if self.memory().ended || followed == Ok(false) {
                return;
            }
            let pause = self.memory().prng.below(5_000);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Follows until the stream ends. Says whether there is any sense in coming back.
    async fn follow(&self, engine: &Engine, options: FollowOptions) -> bool {
        let stream = engine.follow(&self.key.namespace, &named(&self.key), options).await;
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(error) => return self.refused(error.code),
        };
        while let Some(item) = stream.next().await {
            if !self.is_current() {
                return false;
            }
            match item {
                Ok(FollowItem::Event(seq, payload)) => self.see(seq, &payload),
                Ok(FollowItem::CaughtUp(at) | FollowItem::Reached(at, _)) => {
                    let last = self.memory().last;
                    if at != last {
                        let what = format!("E2 followed: {} is at {at}, saw {last}", self.key);
                        self.outside.fail(what);
                    }
                }
                Ok(FollowItem::Deleted(_)) => {
                    self.memory().ended = true;
                    return false;
                }
                Ok(FollowItem::Shutdown(_)) => return false,
                Err(error) => return self.refused(error.code),
            }
        }
        true
    }

    fn refused(&self, code: Code) -> bool {
        match code {
            Code::NoSession | Code::Deleted => {
                self.memory().ended = true;
                false
            }
            code if is_passing(code) => true,
            other => {
                self.outside
                    .fail(format!("E2 followed: {} cannot be followed: {other:?}", self.key));
                false
            }
        }
    }

    /// E2 followed: every event, once, in order.
    fn see(&self, seq: Seq, payload: &[u8]) {
        self.outside.shown(&self.key, seq, payload);
        let mut memory = self.memory();
        let expected = memory.last.next();
        memory.last = seq;
        memory.hash = prng::mix(memory.hash ^ prng::hash(payload));
        drop(memory);
        if seq != expected {
            self.outside.fail(format!("E2 followed: {} gave {seq}, not {expected}", self.key));
        }
    }
}
