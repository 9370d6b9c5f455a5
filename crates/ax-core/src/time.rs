//! Time as a value.

use std::fmt;

/// A point in time: milliseconds since the Unix epoch, as the driver's clock tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub millis: u64,
}

impl Timestamp {
    /// A point that is never reached.
    pub const NEVER: Self = Self { millis: u64::MAX };

    /// Returns the point `millis` after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self { millis }
    }

    /// Returns the point `millis` later; saturates at [`Timestamp::NEVER`].
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self { millis: self.millis.saturating_add(millis) }
    }

    /// Returns how many milliseconds lie between `earlier` and this point; 0 if it is not earlier.
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.millis.saturating_sub(earlier.millis)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.millis)
    }
}
