//! What the model calls of a namespace may cost in a day or a month, and in a minute: set by
//! whoever runs the server, for all agents.
//!
//! What was used is kept in a file beside the log, written a second after it changed and when the
//! last user of it goes. A life of the runtime that is killed forgets what it counted since.
//!
//! ```json
//! {"version": 1, "period": "2026-11", "used": {"default": [CALLS, TOKENS, COST_MICROS]}}
//! ```

use super::limits::{Over, Rates, check, tokens};
use crate::config::{Amount, Rate};
use ax_core::session::Usage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

/// The version of the file.
const VERSION: u32 = 1;
/// How long what was used may be known to the process alone.
const WRITE_AFTER: Duration = Duration::from_secs(1);
const DAY_SECONDS: u64 = 24 * 60 * 60;

/// For how long a budget of a namespace is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Period {
    /// From midnight to midnight, UTC.
    Day,
    /// A month of the Gregorian calendar, UTC.
    #[default]
    Month,
}

/// What each namespace may use; what is `None` has no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// What `calls`, `tokens` and `dollars` are for.
    pub period: Period,
    /// Model calls.
    pub calls: Option<u64>,
    /// Input and output tokens together.
    pub tokens: Option<u64>,
    /// Cost in US dollars, by the prices of manifests.
    pub dollars: Option<u64>,
    /// Model calls a minute.
    pub calls_per_minute: Option<u64>,
    /// Tokens a minute.
    pub tokens_per_minute: Option<u64>,
}

/// What namespaces have used. Clones are the same; the default lets everything through.
#[derive(Clone, Debug, Default)]
pub struct Quotas(Option<Arc<Shared>>);

/// The file of what was used cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("what namespaces have used of their models cannot be read from {}", path.display())]
pub struct QuotasError {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

#[derive(Debug)]
struct Shared {
    quota: Quota,
    path: PathBuf,
    rates: Rates,
    counts: Mutex<Counts>,
    /// Held by whoever writes the file.
    writes: Mutex<()>,
}

#[derive(Debug)]
struct Counts {
    stored: Stored,
    /// The file does not have it yet.
    unwritten: bool,
}

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    period: String,
    /// Calls, tokens and cost in millionths of a dollar, by namespace.
    used: BTreeMap<String, (u64, u64, u64)>,
}

impl Quotas {
    /// Reads what was used so far in this period. Without a limit no file is made.
    ///
    /// # Errors
    ///
    /// Fails if there is a file that cannot be read.
    pub fn open(quota: Quota, path: PathBuf) -> Result<Self, QuotasError> {
        if quota == (Quota { period: quota.period, ..Quota::default() }) {
            return Ok(Self(None));
        }
        let stored = match read(&path) {
            Ok(stored) => stored,
            Err(source) => return Err(QuotasError { path, source }),
        };
        let counts = Mutex::new(Counts { stored, unwritten: false });
        let (rates, writes) = (Rates::default(), Mutex::default());
        Ok(Self(Some(Arc::new(Shared { quota, path, rates, counts, writes }))))
    }

    /// Lets a call of a namespace in, and counts it: says how long it waits for its turn.
    pub(super) fn admit(&self, namespace: &str) -> Result<Duration, Over> {
        let Some(shared) = &self.0 else { return Ok(Duration::ZERO) };
        shared.admit(namespace, SystemTime::now())?;
        let rate = shared.quota.rate();
        let wait = rate.map_or(Ok(Duration::ZERO), |rate| shared.rates.admit(namespace, &rate));
        match wait {
            Ok(_) => self.write_soon(),
            Err(_) => self.take_back(namespace),
        }
        wait
    }

    /// A call that was let in is not made.
    fn take_back(&self, namespace: &str) {
        if let Some(shared) = &self.0 {
            let mut counts = shared.lock();
            if let Some((calls, ..)) = counts.stored.used.get_mut(namespace) {
                *calls = calls.saturating_sub(1);
            }
        }
    }

    /// Takes in what a call of a namespace has cost.
    pub(super) fn spent(&self, namespace: &str, usage: &Usage) {
        let Some(shared) = &self.0 else { return };
        shared.spent(namespace, usage, SystemTime::now());
        if let Some(rate) = shared.quota.rate() {
            shared.rates.spend(namespace, &rate, tokens(usage));
        }
        self.write_soon();
    }

    /// Writes the file in a while, if nobody does so already.
    fn write_soon(&self) {
        let Some(shared) = &self.0 else { return };
        if std::mem::replace(&mut shared.lock().unwritten, true) {
            return;
        }
        let shared = Arc::downgrade(shared);
        drop(tokio::spawn(async move {
            tokio::time::sleep(WRITE_AFTER).await;
            let written = tokio::task::spawn_blocking(move || {
                Weak::upgrade(&shared).map_or(Ok(()), |shared| shared.write())
            });
            if let Ok(Err(error)) = written.await {
                tracing::error!(%error, "what namespaces have used of their models is not kept");
            }
        }));
    }
}

impl Quota {
    const fn rate(&self) -> Option<Rate> {
        match (self.calls_per_minute, self.tokens_per_minute) {
            (None, None) => None,
            (calls, tokens) => Some(Rate { calls, tokens }),
        }
    }

    fn amount(&self) -> Amount {
        let cost = self.dollars.map(super::limits::figure);
        Amount { tokens: self.tokens, cost, calls: self.calls }
    }
}

impl Shared {
    fn admit(&self, namespace: &str, now: SystemTime) -> Result<(), Over> {
        let mut counts = self.lock();
        let period = counts.turn_to(self.quota.period, now);
        let used = counts.stored.used.entry(namespace.to_owned()).or_default();
        let (model_calls, input_tokens, cost_micros) = *used;
        let so_far = Usage { model_calls, input_tokens, cost_micros, ..Usage::default() };
        check(&format!("namespace in {period}"), &self.quota.amount(), &so_far)?;
        // It counts from here on: what several ask at a time is not over the limit either.
        used.0 += 1;
        Ok(())
    }

    fn spent(&self, namespace: &str, usage: &Usage, now: SystemTime) {
        let mut counts = self.lock();
        let _period = counts.turn_to(self.quota.period, now);
        let used = counts.stored.used.entry(namespace.to_owned()).or_default();
        used.1 = used.1.saturating_add(tokens(usage));
        used.2 = used.2.saturating_add(usage.cost_micros);
    }

    /// Writes the file anew, so that there is always a whole one.
    fn write(&self) -> io::Result<()> {
        let _alone = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = {
            let mut counts = self.lock();
            counts.unwritten = false;
            counts.stored.clone()
        };
        let fresh = self.path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(&stored)?)?;
        file.sync_data()?;
        fs::rename(&fresh, &self.path)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let unwritten = self.lock().unwritten;
        if unwritten && let Err(error) = self.write() {
            tracing::error!(%error, "what namespaces have used of their models is not kept");
        }
    }
}

impl Counts {
    /// Begins anew if another period has begun; returns its name.
    fn turn_to(&mut self, period: Period, now: SystemTime) -> String {
        let name = name(period, now);
        if self.stored.period != name {
            let period = name.clone();
            self.stored = Stored { version: VERSION, period, used: BTreeMap::new() };
        }
        name
    }
}

fn read(path: &Path) -> io::Result<Stored> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Stored::default()),
        Err(error) => return Err(error),
    };
    let stored: Stored = serde_json::from_slice(&text)?;
    if stored.version != VERSION {
        return Err(io::Error::other(format!("its form has version {}", stored.version)));
    }
    Ok(stored)
}

/// The name of the day or month of a time, such as `2026-11-23`, by the Gregorian calendar.
fn name(period: Period, at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Years begin in March, so that the day that some have more is the last one.
    let days = since.as_secs() / DAY_SECONDS + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    match period {
        Period::Day => format!("{year:04}-{month:02}-{day:02}"),
        Period::Month => format!("{year:04}-{month:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(days: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(days * DAY_SECONDS)
    }

    fn open(quota: Quota, dir: &tempfile::TempDir) -> Arc<Shared> {
        Quotas::open(quota, dir.path().join("models.json")).unwrap().0.unwrap()
    }

    #[test]
    fn days_and_months_have_names() {
        let check = |days, expect: &str| {
            assert_eq!(name(Period::Day, at(days)), expect);
            assert_eq!(name(Period::Month, at(days)), expect[..7]);
        };
        check(0, "1970-01-01");
        check(11_016, "2000-02-29");
        check(20_453, "2025-12-31");
        check(20_454, "2026-01-01");
    }

    #[test]
    fn what_a_namespace_used_outlives_the_process_and_not_the_period() {
        let dir = tempfile::tempdir().unwrap();
        let quota = Quota { calls: Some(2), tokens: Some(100), ..Quota::default() };
        let first = open(quota, &dir);
        first.admit("a", at(20_454)).unwrap();
        first.spent(
            "a",
            &Usage { input_tokens: 60, output_tokens: 39, ..Usage::default() },
            at(20_454),
        );
        first.lock().unwritten = true;
        drop(first);
        let next = open(quota, &dir);
        next.admit("a", at(20_460)).unwrap();
        let over = next.admit("a", at(20_484)).unwrap_err().message();
        assert!(
            over.contains("model calls of the namespace in 2026-01 is used up: 2 of 2"),
            "{over}"
        );
        next.admit("b", at(20_484)).unwrap();
        next.admit("a", at(20_485)).unwrap();
        next.spent("a", &Usage { input_tokens: 100, ..Usage::default() }, at(20_486));
        let over = next.admit("a", at(20_487)).unwrap_err().message();
        assert!(over.contains("tokens of the namespace in 2026-02"), "{over}");
    }

    #[test]
    fn a_file_that_is_none_is_an_error_and_no_limit_has_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("models.json");
        let quota = Quota { dollars: Some(1), ..Quota::default() };
        for text in ["", "{}", r#"{"version": 2, "period": "", "used": {}}"#] {
            fs::write(&path, text).unwrap();
            assert!(Quotas::open(quota, path.clone()).is_err(), "{text}");
        }
        let day = Quota { period: Period::Day, ..Quota::default() };
        assert!(Quotas::open(day, path).unwrap().0.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_has_to_wait_too_long_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let quota = Quota { calls: Some(10), calls_per_minute: Some(1), ..Quota::default() };
        let quotas = Quotas::open(quota, dir.path().join("models.json")).unwrap();
        assert_eq!(quotas.admit("a"), Ok(Duration::ZERO));
        assert!(matches!(quotas.admit("a"), Err(Over::Rate { .. })));
        assert_eq!(quotas.admit("b"), Ok(Duration::ZERO));
        assert_eq!(quotas.0.as_ref().unwrap().lock().stored.used["a"].0, 1);
    }
}
