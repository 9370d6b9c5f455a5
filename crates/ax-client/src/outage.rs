//! How long a server that does not answer is waited for, and how often it is tried.

use crate::error::Error;

/// How long a server that does not answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// From when the connection broke until it is given up, in milliseconds.
    pub outage_millis_max: u64,
    /// The pause before the second try, in milliseconds; it doubles with every failure. What is
    /// waited is drawn between the half and the whole of it, so that clients do not come back at
    /// the same moment.
    pub pause_millis_min: u64,
    /// The longest pause, in milliseconds, unless the server asks for a longer one.
    pub pause_millis_max: u64,
    /// How long a connection may be silent until it counts as broken, in milliseconds. An idle
    /// connection is asked for a sign of life in time.
    pub silence_millis_max: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            outage_millis_max: 60_000,
            pause_millis_min: 20,
            pause_millis_max: 1_000,
            silence_millis_max: 30_000,
        }
    }
}

/// Numbers that nobody else draws (xorshift64*: Vigna, 2014). Only spreads tries over time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// Begins with a seed.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// Begins anywhere. Without a source of randomness all clients wait alike: that is harmless.
    pub(crate) fn fresh() -> Self {
        Self::new(getrandom::u64().unwrap_or(1))
    }

    /// Draws a number that is at least `low` and at most `high`.
    const fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        low + self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % (high - low).saturating_add(1)
    }
}

/// An outage: since when, and how often it was tried to end it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outage {
    failures: u32,
    /// Milliseconds, by the clock of the caller, of the first failure.
    since_millis: Option<u64>,
    chance: Chance,
}

impl Outage {
    /// There is none yet.
    pub(crate) const fn none(chance: Chance) -> Self {
        Self { failures: 0, since_millis: None, chance }
    }

    /// Whether there is one.
    pub(crate) const fn is_on(&self) -> bool {
        self.since_millis.is_some()
    }

    /// Says how many milliseconds to wait before the next try, or that it has lasted too long.
    pub(crate) fn fail(
        &mut self,
        patience: &Patience,
        now_millis: u64,
        error: &Error,
    ) -> Option<u64> {
        let since = *self.since_millis.get_or_insert(now_millis);
        if now_millis.saturating_sub(since) >= patience.outage_millis_max {
            return None;
        }
        let factor = 1_u64.checked_shl(self.failures).unwrap_or(u64::MAX);
        self.failures = self.failures.saturating_add(1);
        let pause = patience.pause_millis_min.saturating_mul(factor).min(patience.pause_millis_max);
        let drawn = self.chance.between(pause / 2, pause);
        Some(drawn.max(error.retry_after_millis.unwrap_or(0)))
    }

    /// Ends it.
    pub(crate) const fn end(&mut self) {
        (self.failures, self.since_millis) = (0, None);
    }
}

/// Adds to the error of an outage that was not waited for any longer.
pub(crate) fn given_up(error: Error, patience: &Patience) -> Error {
    let seconds = patience.outage_millis_max / 1000;
    let message = match seconds {
        0 => error.message,
        _ => format!("{}, and has not for {seconds} s", error.message),
    };
    Error { message, ..error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone() -> Error {
        Error::broken("gone")
    }

    #[test]
    fn the_pauses_double_up_to_the_longest_until_patience_ends() {
        let patience = Patience {
            outage_millis_max: 1_000,
            pause_millis_min: 10,
            pause_millis_max: 50,
            ..Patience::default()
        };
        let mut outage = Outage::none(Chance::new(7));
        for (now, whole) in [(0, 10), (10, 20), (30, 40), (70, 50), (999, 50)] {
            let pause = outage.fail(&patience, now, &gone()).unwrap();
            assert!((whole / 2..=whole).contains(&pause), "{pause} of {whole}");
        }
        assert_eq!(outage.fail(&patience, 1_000, &gone()), None);
        outage.end();
        assert!(!outage.is_on());
        assert!(outage.fail(&patience, 5_000, &gone()).unwrap() <= 10);
    }

    #[test]
    fn clients_do_not_come_back_at_the_same_moment() {
        let patience = Patience::default();
        let pauses = (1..50).map(|seed| {
            let mut outage = Outage::none(Chance::new(seed * 0x9e37_79b9));
            for _ in 0..8 {
                outage.fail(&patience, 1, &gone()).unwrap();
            }
            outage.fail(&patience, 1, &gone()).unwrap()
        });
        let distinct: std::collections::BTreeSet<_> = pauses.collect();
        assert!(distinct.len() > 20, "{distinct:?}");
    }

    #[test]
    fn what_the_server_asks_for_is_waited_for() {
        let mut outage = Outage::none(Chance::new(1));
        let busy = Error { retry_after_millis: Some(7_000), ..gone() };
        assert_eq!(outage.fail(&Patience::default(), 0, &busy), Some(7_000));
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let patience = Patience { outage_millis_max: u64::MAX, ..Patience::default() };
        let mut outage = Outage::none(Chance::new(1));
        for _ in 0..100 {
            let pause = outage.fail(&patience, 1, &gone()).unwrap();
            assert!(pause <= patience.pause_millis_max);
        }
    }
}
