//! Cursors of lists: opaque to clients, and of one list in one namespace only.
//!
//! A cursor names the last item of a page and a check of what list it is from, so that what was
//! mixed up is told from what was not. It is no secret: it opens nothing.

use ax_core::id::{Namespace, SessionId};
use ax_engine::Error;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;

const CHECK_BYTES: usize = 8;
/// The longest cursor that is looked at, in bytes.
const CURSOR_BYTES_MAX: usize = 512;

/// Makes the cursor of a list of sessions.
pub(crate) fn of_session(namespace: &Namespace, last: SessionId) -> String {
    make("sessions", namespace, &last.0.to_be_bytes())
}

/// Reads the cursor of a list of sessions; empty means the first page.
pub(crate) fn session(namespace: &Namespace, cursor: &str) -> Result<Option<SessionId>, Error> {
    let Some(item) = read("sessions", namespace, cursor)? else { return Ok(None) };
    let id = item.try_into().map_err(|_| refused(cursor))?;
    Ok(Some(SessionId(u128::from_be_bytes(id))))
}

/// Makes the cursor of a list of agents.
pub(crate) fn of_agent(namespace: &Namespace, last: &str) -> String {
    make("agents", namespace, last.as_bytes())
}

/// Reads the cursor of a list of agents; empty means the first page.
pub(crate) fn agent(namespace: &Namespace, cursor: &str) -> Result<Option<String>, Error> {
    let Some(item) = read("agents", namespace, cursor)? else { return Ok(None) };
    String::from_utf8(item).map(Some).map_err(|_| refused(cursor))
}

fn make(list: &str, namespace: &Namespace, item: &[u8]) -> String {
    let mut bytes = check(list, namespace, item).to_vec();
    bytes.extend_from_slice(item);
    BASE64.encode(bytes)
}

fn read(list: &str, namespace: &Namespace, cursor: &str) -> Result<Option<Vec<u8>>, Error> {
    if cursor.is_empty() {
        return Ok(None);
    }
    if cursor.len() > CURSOR_BYTES_MAX {
        return Err(refused(cursor));
    }
    let bytes = BASE64.decode(cursor).map_err(|_| refused(cursor))?;
    match bytes.split_at_checked(CHECK_BYTES) {
        Some((sum, item)) if check(list, namespace, item) == sum => Ok(Some(item.to_vec())),
        _ => Err(refused(cursor)),
    }
}

fn check(list: &str, namespace: &Namespace, item: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key("agentexecutor list cursor v1");
    for part in [list.as_bytes(), &[0], namespace.as_str().as_bytes(), &[0], item] {
        hasher.update(part);
    }
    let mut sum = [0; CHECK_BYTES];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECK_BYTES]);
    sum
}

fn refused(cursor: &str) -> Error {
    let start: String = cursor.chars().take(80).collect();
    Error::invalid(format!("{start:?} is not a cursor of this list"))
        .with_hint("take the cursor from the page before, and leave it out for the first page")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_good_for_its_own_list_only() {
        let (here, there) = (Namespace::default(), Namespace::new("there").unwrap());
        let cursor = of_session(&here, SessionId(7));
        assert_eq!(session(&here, &cursor).unwrap(), Some(SessionId(7)));
        assert_eq!(session(&here, "").unwrap(), None);
        assert!(session(&there, &cursor).is_err());
        assert!(agent(&here, &cursor).is_err());
        let cursor = of_agent(&here, "letters");
        assert_eq!(agent(&here, &cursor).unwrap().as_deref(), Some("letters"));
        assert!(session(&here, &cursor).is_err());
    }

    #[test]
    fn a_forged_cursor_is_refused() {
        let here = Namespace::default();
        let good = of_session(&here, SessionId(7));
        let mut other = good.clone().into_bytes();
        other[20] ^= 1;
        let other = String::from_utf8(other).unwrap();
        let long = "A".repeat(10_000);
        let session_id = SessionId(7).to_string();
        for forged in ["x", "AAAA", "\u{0}", "äöü", &good[1..], &other, &long, &session_id] {
            let refused = session(&here, forged).unwrap_err();
            assert_eq!(refused.code, ax_engine::Code::Invalid, "{forged:?}");
            assert!(refused.message.len() < 700);
        }
    }
}
