//! Typed identifiers. Each prints with a prefix and parses back from what it prints.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Why a text is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The text does not have the form of this kind of identifier.
    #[error("{text:?} is not {form}")]
    Form {
        /// What was given, at most its first 80 characters.
        text: String,
        /// What it should look like.
        form: &'static str,
    },
}

fn malformed(text: &str, form: &'static str) -> ParseError {
    ParseError::Form { text: text.chars().take(80).collect(), form }
}

/// A tenant. It is a part of every key that is stored.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// The name of the namespace that is used when none is named.
    pub const DEFAULT: &'static str = "default";
    /// The longest name, in bytes (as a DNS label, RFC 1123 §2.1).
    pub const BYTES_MAX: usize = 63;
    const FORM: &'static str =
        "a namespace: 1 to 63 of a-z, 0-9 and '-', which is neither first nor last";

    /// Checks a name.
    ///
    /// # Errors
    ///
    /// Returns a [`ParseError`] if the name is not a DNS label in lower case.
    pub fn new(name: &str) -> Result<Self, ParseError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let edges = name.starts_with('-') || name.ends_with('-');
        if name.is_empty() || name.len() > Self::BYTES_MAX || edges || !name.bytes().all(plain) {
            return Err(malformed(name, Self::FORM));
        }
        Ok(Self(name.into()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A session, unique within its namespace. Prints as `ses_` and 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ses_{:032x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SessionId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let digits = text.strip_prefix("ses_").filter(|digits| digits.len() == 32);
        let plain = |digits: &&str| {
            digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        digits
            .filter(plain)
            .and_then(|digits| u128::from_str_radix(digits, 16).ok())
            .map(Self)
            .ok_or_else(|| malformed(text, "a session id: ses_ and 32 hexadecimal digits"))
    }
}

/// A session and the tenant it belongs to: the key of everything that is stored for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// The tenant.
    pub namespace: Namespace,
    /// The session within it.
    pub session: SessionId,
}

impl SessionKey {
    /// Puts the two together.
    pub const fn new(namespace: Namespace, session: SessionId) -> Self {
        Self { namespace, session }
    }
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.session)
    }
}

/// A position in a session's log. The first event has position 1; 0 is "before everything", so
/// that `after = 0` asks for all of it. Positions have no gaps.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first event.
    pub const ZERO: Self = Self(0);
    /// The position of the first event.
    pub const FIRST: Self = Self(1);

    /// Returns the position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Returns the position before this one; 0 stays 0.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The right to write, as a number: a writer with a lower one is refused by the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! counted_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $form:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl $name {
            /// Returns the one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                let digits = text.strip_prefix($prefix);
                let number = digits.and_then(|digits| digits.parse().ok());
                number.map(Self).ok_or_else(|| malformed(text, $form))
            }
        }
    };
}

counted_id!(
    /// An execution, counted from 1 within its session. Prints as `exec_3`.
    ExecId,
    "exec_",
    "an execution id, such as exec_3"
);
counted_id!(
    /// A try of an execution, counted from 1 within it. Prints as `attempt_2`.
    AttemptId,
    "attempt_",
    "an attempt id, such as attempt_2"
);
counted_id!(
    /// A question to a person, counted from 1 within its session. Prints as `ask_1`.
    AskId,
    "ask_",
    "an ask id, such as ask_1"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_parse_back_from_what_they_print() {
        let session = SessionId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(session.to_string().parse(), Ok(session));
        assert_eq!(ExecId(7).to_string().parse(), Ok(ExecId(7)));
        assert_eq!(AskId(u32::MAX).to_string().parse(), Ok(AskId(u32::MAX)));
    }

    #[test]
    fn other_forms_are_refused() {
        for text in
            ["", "ses_", "ses_12", "exec_", "exec_-1", "ses_+123456789abcdef0123456789abcdef"]
        {
            assert!(text.parse::<SessionId>().is_err(), "{text}");
            assert!(text.parse::<ExecId>().is_err(), "{text}");
        }
        for name in ["", "-a", "a-", "A", "a.b", "a/b", "ä", &"a".repeat(64)] {
            assert!(Namespace::new(name).is_err(), "{name}");
        }
        assert!(Namespace::new(&"a".repeat(63)).is_ok());
    }
}
