//! How much somebody may ask for: so many requests a second, so many at a time.
//!
//! Each caller and each namespace has a bucket of tokens that fills again at a fixed rate. What
//! is remembered is bounded: buckets that are full and unused are forgotten, and when even so
//! there is no room, newcomers share one.

use ax_engine::{Code, Error};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many callers and namespaces are remembered at once.
pub const BUCKET_COUNT_MAX: usize = 10_000;
/// The name of the bucket that all share for whom there is no room.
const REST: &str = "";

/// What one caller, or one namespace, may ask for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota {
    /// Requests a second, in the long run.
    pub per_second: u32,
    /// Requests at once, after a pause.
    pub burst: u32,
    /// Requests under way at the same time.
    pub calls: u32,
    /// Streams that are open at the same time.
    pub streams: u32,
}

impl Default for Quota {
    fn default() -> Self {
        Self { per_second: 1_000, burst: 2_000, calls: 256, streams: 4_096 }
    }
}

/// The limits of a server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// For each key, subject of a token, certificate, or share token.
    pub caller: Quota,
    /// For all callers of a namespace together.
    pub namespace: Quota,
    /// Attempts to get in that failed, a second and at once, for each address (of IPv6, for each
    /// network of 64 bits). What fails beyond that is not recorded one by one.
    pub failures_per_second: u32,
    /// The largest request, in bytes; uploads of contents and archives have their own limit.
    pub request_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let namespace = Quota { per_second: 5_000, burst: 10_000, calls: 1_024, streams: 16_384 };
        Self {
            caller: Quota::default(),
            namespace,
            failures_per_second: 10,
            request_bytes: 8 << 20,
        }
    }
}

/// Whether something is soon over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Call,
    Stream,
}

/// Why a request is not carried out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Too many a second; the first time that one more may come.
    Rate(Duration),
    /// Too many at a time.
    Open,
}

impl Over {
    /// What a client is told.
    pub(super) fn error(self) -> Error {
        match self {
            Self::Rate(_) => Error::new(Code::RateLimited, "too many requests"),
            Self::Open => {
                Error::new(Code::Crowded, "too many requests are under way at the same time")
            }
        }
    }

    /// When one more may come, in whole seconds.
    pub(super) fn retry_after(self) -> u64 {
        match self {
            Self::Rate(wait) => wait.as_secs() + 1,
            Self::Open => 1,
        }
    }
}

#[derive(Debug)]
struct Bucket {
    quota: Quota,
    tokens: f64,
    filled_at: Instant,
    calls: u32,
    streams: u32,
}

impl Bucket {
    fn new(quota: Quota, now: Instant) -> Self {
        Self { quota, tokens: f64::from(quota.burst), filled_at: now, calls: 0, streams: 0 }
    }

    fn fill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.filled_at).as_secs_f64();
        let filled = seconds.mul_add(f64::from(self.quota.per_second), self.tokens);
        self.tokens = filled.min(f64::from(self.quota.burst));
        self.filled_at = now;
    }

    fn unused(&self) -> bool {
        self.calls == 0 && self.streams == 0 && self.tokens >= f64::from(self.quota.burst)
    }

    fn room(&self, kind: Use) -> Result<(), Over> {
        let (open, most) = match kind {
            Use::Call => (self.calls, self.quota.calls),
            Use::Stream => (self.streams, self.quota.streams),
        };
        if open >= most { Err(Over::Open) } else { Ok(()) }
    }

    /// Whether one more may come now.
    fn token(&self) -> Result<(), Over> {
        if self.tokens >= 1.0 {
            return Ok(());
        }
        let rate = f64::from(self.quota.per_second.max(1));
        Err(Over::Rate(Duration::from_secs_f64((1.0 - self.tokens) / rate)))
    }

    const fn count(&mut self, kind: Use) -> &mut u32 {
        match kind {
            Use::Call => &mut self.calls,
            Use::Stream => &mut self.streams,
        }
    }
}

/// All buckets.
#[derive(Debug, Default)]
pub(super) struct Limits {
    buckets: Mutex<HashMap<Arc<str>, Bucket>>,
}

/// The right to have one more under way; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    limits: Arc<Limits>,
    names: Vec<Arc<str>>,
    kind: Use,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut buckets = self.limits.buckets();
        for name in &self.names {
            if let Some(bucket) = buckets.get_mut(name) {
                let open = bucket.count(self.kind);
                *open = open.saturating_sub(1);
            }
        }
    }
}

impl Limits {
    fn buckets(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request in under all of these names, or under none.
    pub(super) fn enter(
        self: &Arc<Self>,
        names: &[(Arc<str>, Quota)],
        kind: Use,
        now: Instant,
    ) -> Result<Permit, Over> {
        let mut buckets = self.buckets();
        make_room(&mut buckets, names.len(), now);
        let mut found = Vec::with_capacity(names.len());
        for (name, quota) in names {
            let name = find(&mut buckets, name, *quota, now);
            let bucket = buckets.get_mut(&name).expect("it was found");
            bucket.room(kind)?;
            bucket.token()?;
            found.push(name);
        }
        for name in &found {
            let bucket = buckets.get_mut(name).expect("it was found");
            bucket.tokens -= 1.0;
            *bucket.count(kind) += 1;
        }
        Ok(Permit { limits: Arc::clone(self), names: found, kind })
    }

    /// Takes one token under each name, for what comes over a stream that is open already.
    pub(super) fn take(&self, names: &[(Arc<str>, Quota)], now: Instant) -> Result<(), Over> {
        let mut buckets = self.buckets();
        make_room(&mut buckets, names.len(), now);
        let mut found = Vec::with_capacity(names.len());
        for (name, quota) in names {
            let name = find(&mut buckets, name, *quota, now);
            buckets.get(&name).expect("it was found").token()?;
            found.push(name);
        }
        for name in found {
            buckets.get_mut(&name).expect("it was found").tokens -= 1.0;
        }
        Ok(())
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.buckets().len()
    }
}

/// Forgets what is not used if there is no room for so many more.
fn make_room(buckets: &mut HashMap<Arc<str>, Bucket>, more: usize, now: Instant) {
    if buckets.len() + more > BUCKET_COUNT_MAX {
        buckets.values_mut().for_each(|bucket| bucket.fill(now));
        buckets.retain(|_, bucket| !bucket.unused());
    }
}

/// The name of the bucket that counts for a name; it is there afterwards, and filled. None is
/// forgotten here: what was found before stays.
fn find(
    buckets: &mut HashMap<Arc<str>, Bucket>,
    name: &Arc<str>,
    quota: Quota,
    now: Instant,
) -> Arc<str> {
    let room = buckets.contains_key(name) || buckets.len() < BUCKET_COUNT_MAX;
    let name = if room { Arc::clone(name) } else { REST.into() };
    let bucket = buckets.entry(Arc::clone(&name)).or_insert_with(|| Bucket::new(quota, now));
    bucket.quota = quota;
    bucket.fill(now);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: Quota = Quota { per_second: 10, burst: 2, calls: 2, streams: 1 };

    fn names(name: &str) -> Vec<(Arc<str>, Quota)> {
        vec![(name.into(), QUOTA)]
    }

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let (limits, start) = (Arc::new(Limits::default()), Instant::now());
        let enter = |millis: u64| {
            let now = start + Duration::from_millis(millis);
            limits.enter(&names("a"), Use::Call, now).map(drop)
        };
        assert_eq!([enter(0), enter(0)], [Ok(()), Ok(())]);
        let Err(Over::Rate(wait)) = enter(0) else { panic!("one too many") };
        assert_eq!(wait, Duration::from_millis(100));
        assert!(enter(99).is_err());
        assert_eq!(enter(101), Ok(()));
        assert_eq!([enter(9_000), enter(9_000)], [Ok(()), Ok(())]);
        assert!(enter(9_000).is_err());
    }

    #[test]
    fn only_so_many_are_under_way_and_streams_count_for_themselves() {
        let (limits, now) = (Arc::new(Limits::default()), Instant::now());
        let quota = Quota { burst: 100, ..QUOTA };
        let names = vec![("a".into(), quota), ("b".into(), quota)];
        let first = limits.enter(&names, Use::Call, now).unwrap();
        let _second = limits.enter(&names, Use::Call, now).unwrap();
        assert_eq!(limits.enter(&names[..1], Use::Call, now).unwrap_err(), Over::Open);
        let _stream = limits.enter(&names, Use::Stream, now).unwrap();
        assert_eq!(limits.enter(&names, Use::Stream, now).unwrap_err(), Over::Open);
        drop(first);
        assert!(limits.enter(&names, Use::Call, now).is_ok());
    }

    #[test]
    fn a_request_that_one_bucket_refuses_costs_nothing_in_the_others() {
        let (limits, now) = (Arc::new(Limits::default()), Instant::now());
        drop([(); 2].map(|()| limits.enter(&names("full"), Use::Call, now).unwrap()));
        let both = vec![("a".into(), QUOTA), ("full".into(), QUOTA)];
        for _ in 0..10 {
            assert!(limits.enter(&both, Use::Call, now).is_err());
        }
        assert!(limits.enter(&names("a"), Use::Call, now).is_ok());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_newcomers_share_a_bucket() {
        let (limits, now) = (Arc::new(Limits::default()), Instant::now());
        for name in 0..BUCKET_COUNT_MAX {
            drop(limits.enter(&names(&format!("n{name}")), Use::Call, now));
        }
        let late = |name: &str| limits.enter(&names(name), Use::Call, now).map(drop);
        assert_eq!([late("x"), late("y")], [Ok(()), Ok(())]);
        assert!(late("z").is_err());
        assert_eq!(limits.count(), BUCKET_COUNT_MAX + 1);
        // In the end all are full again and forgotten.
        let later = now + Duration::from_secs(60);
        drop(limits.enter(&names("late"), Use::Call, later));
        assert_eq!(limits.count(), 1);
    }
}
