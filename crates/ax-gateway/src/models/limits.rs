//! What model calls may cost, and how many there may be in a minute. What is over a limit is not
//! asked; the harness hears of it in the words of its provider, and can still end well.

use super::quotas::Quotas;
use crate::config::{Amount, Limits, Rate};
use ax_core::session::Usage;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a call waits for its turn; whoever would wait longer is told to come back.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How many agents' rates are kept; those that are at rest are let go first.
const RATES_MAX: usize = 1_024;

/// What an execution and its session have consumed before an attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// The execution.
    pub execution: Usage,
    /// The session, the execution included.
    pub session: Usage,
}

/// Why a call is not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// A budget is used up.
    Budget {
        /// Such as `tokens of the session`.
        what: String,
        limit: String,
        used: String,
    },
    /// Too many calls in a short time.
    Rate {
        /// When there is room again.
        after: Duration,
    },
}

impl Over {
    /// Says it to the harness.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Budget { what, limit, used } => {
                format!("the budget of {what} is used up: {used} of {limit}")
            }
            Self::Rate { after } => {
                let seconds = after.as_secs().max(1);
                format!("too many calls in a short time: there is room in {seconds} s")
            }
        }
    }
}

/// How fast the agents of all sessions may call. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Rates(Arc<Mutex<HashMap<String, Bucket>>>);

/// What is left of a minute's worth; below zero are calls that wait for their turn.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    calls: f64,
    tokens: f64,
    at: Instant,
}

impl Rates {
    /// Lets a call in: says how long it waits for its turn.
    pub(super) fn admit(&self, who: &str, rate: &Rate) -> Result<Duration, Over> {
        let mut buckets = self.lock();
        if buckets.len() >= RATES_MAX && !buckets.contains_key(who) {
            let now = Instant::now();
            buckets.retain(|_, bucket| {
                let owes = bucket.calls < 0.0 || bucket.tokens < 0.0;
                owes || now.duration_since(bucket.at) < Duration::from_secs(60)
            });
        }
        let bucket = buckets.entry(who.to_owned()).or_insert_with(|| Bucket::full(rate));
        bucket.fill(rate);
        let lacks = |left: f64, each: Option<u64>| {
            let each = each.map_or(f64::INFINITY, figure);
            Duration::try_from_secs_f64((-left).max(0.0) * 60.0 / each).unwrap_or(Duration::MAX)
        };
        let calls = lacks(bucket.calls - 1.0, rate.calls);
        let wait = calls.max(lacks(bucket.tokens, rate.tokens));
        if wait > WAIT_MAX {
            return Err(Over::Rate { after: wait });
        }
        bucket.calls -= 1.0;
        Ok(wait)
    }

    pub(super) fn spend(&self, who: &str, rate: &Rate, tokens: u64) {
        if let Some(bucket) = self.lock().get_mut(who) {
            // More than a day of debt is no use to anybody.
            bucket.tokens = (bucket.tokens - figure(tokens)).max(-figure(tokens_max(rate)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Bucket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    fn full(rate: &Rate) -> Self {
        let most = |each: Option<u64>| each.map_or(0.0, figure);
        Self { calls: most(rate.calls), tokens: most(rate.tokens), at: Instant::now() }
    }

    fn fill(&mut self, rate: &Rate) {
        let now = Instant::now();
        let minutes = now.duration_since(self.at).as_secs_f64() / 60.0;
        let fill = |left: f64, each: Option<u64>| {
            each.map_or(0.0, |each| (left + minutes * figure(each)).min(figure(each)))
        };
        (self.calls, self.tokens) = (fill(self.calls, rate.calls), fill(self.tokens, rate.tokens));
        self.at = now;
    }
}

/// A count as a number to calculate with; exact below 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "no such count is that large")]
pub(super) const fn figure(count: u64) -> f64 {
    count as f64
}

/// What an attempt has consumed, and may.
#[derive(Debug)]
pub(crate) struct Meter {
    limits: Limits,
    used: Mutex<Used>,
    rates: Rates,
    /// Whose rate it is.
    who: String,
    quotas: Quotas,
    /// Whose quota it is.
    namespace: String,
    /// Which session this is, among those of all namespaces.
    session: String,
}

impl Meter {
    pub(crate) fn new(limits: Limits, used: Used, rates: Rates, who: String) -> Self {
        let (quotas, namespace, session) = (Quotas::default(), String::new(), String::new());
        Self { limits, used: Mutex::new(used), rates, who, quotas, namespace, session }
    }

    /// Says which session this is, and what its namespace may use.
    pub(crate) fn within(self, session: String, namespace: String, quotas: Quotas) -> Self {
        Self { quotas, namespace, session, ..self }
    }

    /// Lets a call to a provider in: says how long it waits for its turn.
    pub(crate) fn admit(&self, provider: &str) -> Result<Duration, Over> {
        let mut used = self.used();
        for (whose, limit, so_far) in [
            ("execution", &self.limits.execution, &used.execution),
            ("session", &self.limits.session, &used.session),
        ] {
            if let Some(limit) = limit {
                check(whose, limit, so_far)?;
            }
        }
        // What is shared by more comes later: who is over its own rate takes nothing from others.
        let mut wait = Duration::ZERO;
        for (who, rate) in self.rates_of(provider) {
            wait = wait.max(self.rates.admit(&who, rate)?);
        }
        wait = wait.max(self.quotas.admit(&self.namespace)?);
        // It counts from here on: what several ask at a time is not over the limit either.
        used.execution.model_calls += 1;
        used.session.model_calls += 1;
        Ok(wait)
    }

    /// Takes in what an answer has cost.
    pub(crate) fn spent(&self, provider: &str, usage: &Usage) {
        let mut used = self.used();
        let but_calls = Usage { model_calls: 0, ..*usage };
        used.execution.add(&but_calls);
        used.session.add(&but_calls);
        self.quotas.spent(&self.namespace, usage);
        for (who, rate) in self.rates_of(provider) {
            self.rates.spend(&who, rate, tokens(usage));
        }
    }

    /// The rates that hold for a call to a provider, and whose they are.
    fn rates_of(&self, provider: &str) -> impl Iterator<Item = (String, &Rate)> {
        let of_session = self.limits.session_rate.as_ref();
        let of_session = of_session.map(|rate| (format!("session {}", self.session), rate));
        let of_agent = self.limits.rate.as_ref();
        let of_agent = of_agent.map(|rate| (format!("{}/{provider}", self.who), rate));
        of_session.into_iter().chain(of_agent)
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A day's worth of tokens.
const fn tokens_max(rate: &Rate) -> u64 {
    match rate.tokens {
        Some(each) => each.saturating_mul(24 * 60),
        None => 0,
    }
}

pub(super) const fn tokens(usage: &Usage) -> u64 {
    usage.input_tokens.saturating_add(usage.output_tokens)
}

pub(super) fn check(whose: &str, limit: &Amount, used: &Usage) -> Result<(), Over> {
    let over = |what: &str, limit: String, used: String| {
        Err(Over::Budget { what: format!("{what} of the {whose}"), limit, used })
    };
    if let Some(most) = limit.tokens.filter(|most| tokens(used) >= *most) {
        return over("tokens", most.to_string(), tokens(used).to_string());
    }
    if let Some(most) = limit.calls.filter(|most| used.model_calls >= *most) {
        return over("model calls", most.to_string(), used.model_calls.to_string());
    }
    let cost = figure(used.cost_micros) / 1e6;
    if let Some(most) = limit.cost.filter(|most| cost >= *most) {
        return over("US dollars", most.to_string(), cost.to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(calls: u64) -> Limits {
        let amount = Amount { calls: Some(calls), ..Amount::default() };
        Limits { execution: Some(amount), ..Limits::default() }
    }

    #[test]
    fn calls_count_when_they_begin_and_what_they_cost_when_they_end() {
        let meter = Meter::new(limits(2), Used::default(), Rates::default(), String::new());
        meter.admit("p").unwrap();
        meter.admit("p").unwrap();
        let over = meter.admit("p").unwrap_err();
        assert_eq!(over.message(), "the budget of model calls of the execution is used up: 2 of 2");
    }

    #[tokio::test]
    async fn who_is_over_its_own_rate_takes_nothing_from_its_namespace() {
        let dir = tempfile::tempdir().unwrap();
        let quota = crate::Quota { calls_per_minute: Some(60), ..Default::default() };
        let quotas = Quotas::open(quota, dir.path().join("models.json")).unwrap();
        let own = Limits {
            session_rate: Some(Rate { calls: Some(1), tokens: None }),
            ..Limits::default()
        };
        let rates = Rates::default();
        let session = |limits, name: &str| {
            let meter = Meter::new(limits, Used::default(), rates.clone(), String::new());
            meter.within(name.into(), "ns".into(), quotas.clone())
        };
        let greedy = session(own, "greedy");
        greedy.admit("p").unwrap();
        for _ in 0..200 {
            assert!(matches!(greedy.admit("p"), Err(Over::Rate { .. })));
        }
        let other = session(Limits::default(), "other");
        assert_eq!(other.admit("p").unwrap(), Duration::ZERO);
    }

    #[test]
    fn what_was_used_before_counts() {
        let amount = Amount { tokens: Some(100), cost: Some(0.5), ..Amount::default() };
        let limits = Limits { session: Some(amount), ..Limits::default() };
        let before = Usage { input_tokens: 60, output_tokens: 39, ..Usage::default() };
        let used = Used { session: before, ..Used::default() };
        let meter = Meter::new(limits, used, Rates::default(), String::new());
        meter.admit("p").unwrap();
        meter.spent("p", &Usage { output_tokens: 1, ..Usage::default() });
        assert!(matches!(meter.admit("p"), Err(Over::Budget { .. })));
        let used = Used { session: Usage { cost_micros: 500_000, ..before }, ..Used::default() };
        let meter = Meter::new(meter.limits, used, Rates::default(), String::new());
        let over = meter.admit("p").unwrap_err().message();
        assert_eq!(over, "the budget of US dollars of the session is used up: 0.5 of 0.5");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_has_a_rate_of_its_own_over_all_providers() {
        let session_rate = Some(Rate { calls: Some(1), tokens: None });
        let limits = Limits { session_rate, ..Limits::default() };
        let rates = Rates::default();
        let meter = |session: &str| {
            let meter = Meter::new(limits.clone(), Used::default(), rates.clone(), "w".into());
            meter.within(session.into(), "n".into(), Quotas::default())
        };
        assert_eq!(meter("one").admit("p"), Ok(Duration::ZERO));
        assert!(matches!(meter("one").admit("q"), Err(Over::Rate { .. })));
        assert_eq!(meter("other").admit("q"), Ok(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_makes_calls_wait_and_refuses_those_that_would_wait_too_long() {
        let rate = Rate { calls: Some(60), tokens: Some(600) };
        let limits = Limits { rate: Some(rate), ..Limits::default() };
        let rates = Rates::default();
        let meter = || Meter::new(limits.clone(), Used::default(), rates.clone(), "w".into());
        let (one, other) = (meter(), meter());
        for _ in 0..30 {
            assert_eq!(one.admit("p"), Ok(Duration::ZERO));
            assert_eq!(other.admit("p"), Ok(Duration::ZERO));
        }
        assert_eq!(one.admit("p"), Ok(Duration::from_secs(1)), "a minute's worth is gone");
        assert_eq!(one.admit("q"), Ok(Duration::ZERO), "another provider");
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(other.admit("p"), Ok(Duration::ZERO));
        other.spent("p", &Usage { input_tokens: 1_000, ..Usage::default() });
        assert!(matches!(one.admit("p"), Err(Over::Rate { after }) if after.as_secs() == 40));
        // Whatever a provider says that it used.
        other.spent("p", &Usage { input_tokens: u64::MAX, ..Usage::default() });
        assert!(matches!(one.admit("p"), Err(Over::Rate { .. })));
    }
}
