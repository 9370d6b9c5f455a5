//! For `ax-fuzz`: decoders of what strangers send, which are nobody else's business.

use crate::auth::jwt::{self, SettingsError};
use crate::auth::{Shared, Shares, decodes_key};
use crate::convert::cursor;
use ax_core::id::{Namespace, SessionId};
use ax_core::time::Timestamp;
use std::path::Path;

/// What an identity provider's tokens and share tokens are checked with.
#[derive(Debug)]
pub struct Credentials {
    tokens: jwt::Tokens,
    shares: Shares,
    now: Timestamp,
}

impl Credentials {
    /// Makes it with the key of share tokens in a data directory, at a point in time.
    ///
    /// # Errors
    ///
    /// Returns a [`SettingsError`] if the settings do not do.
    pub fn new(
        settings: jwt::Settings,
        data_dir: &Path,
        now: Timestamp,
    ) -> Result<Self, SettingsError> {
        Ok(Self { tokens: jwt::Tokens::new(settings)?, shares: Shares::of(data_dir), now })
    }

    /// Checks a token of an identity provider.
    ///
    /// # Errors
    ///
    /// Says why it is not believed.
    pub async fn token(&self, text: &str) -> Result<(), String> {
        if !jwt::looks_like_token(text) {
            return Err("it does not look like a token".into());
        }
        let checked = self.tokens.check(text, self.now).await;
        checked.map(drop).map_err(|refused| format!("{refused:?}"))
    }

    /// Checks a share token.
    ///
    /// # Errors
    ///
    /// Says why it is not believed.
    pub fn share(&self, text: &str) -> Result<Shared, String> {
        self.shares.check(text, self.now).map_err(|refused| format!("{refused:?}"))
    }
}

/// Reads an API key, and writes it again.
///
/// # Errors
///
/// Says that it is none.
pub fn key(text: &str) -> Result<String, String> {
    decodes_key(text).ok_or_else(|| "it is no key".into())
}

/// Reads the cursor of a list of sessions or agents, and writes it again.
///
/// # Errors
///
/// Says that it is none.
pub fn page(text: &str) -> Result<String, String> {
    let namespace = Namespace::default();
    let session = cursor::session(&namespace, text);
    if let Ok(item) = session {
        return Ok(item.map_or_else(String::new, |id| cursor::of_session(&namespace, id)));
    }
    let agent = cursor::agent(&namespace, text).map_err(|_| "it is no cursor of a list")?;
    Ok(agent.map_or_else(String::new, |name| cursor::of_agent(&namespace, &name)))
}

/// Cursors of a list of sessions and of one of agents.
pub fn pages() -> [String; 2] {
    let namespace = Namespace::default();
    [cursor::of_session(&namespace, SessionId(7)), cursor::of_agent(&namespace, "letters")]
}

/// Reads a query as every route does.
///
/// # Errors
///
/// Returns the words that the client would be told by the last route, if none takes it.
pub fn query(text: &str) -> Result<(), String> {
    crate::rest::decodes_query(text).map_err(|error| error.message)
}

/// Reads the value of `Last-Event-ID`.
///
/// # Errors
///
/// Returns the words that the client would be told.
pub fn last_event_id(bytes: &[u8]) -> Result<u64, String> {
    let value = http::HeaderValue::from_bytes(bytes).map_err(|error| error.to_string())?;
    crate::rest::last_event_id(&value).map_err(|error| error.message)
}

/// Reads a request of the AX wire, as each of the kinds that it may be.
///
/// # Errors
///
/// Returns the words that the client would be told.
pub fn ax1(bytes: &[u8]) -> Result<(), String> {
    crate::ax1::decodes(bytes)
}
