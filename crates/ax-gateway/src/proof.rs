//! How a request shows that it comes from the harness of this attempt.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{self, HeaderMap, HeaderName};
use std::fmt::Write as _;

/// What a request is told that has another key.
pub(crate) const WRONG_KEY: &str = "this is not the key that the runtime gave to this harness";

/// What a request must show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proof<'a> {
    /// What the harness has instead of a key.
    pub(crate) placeholder: &'a str,
    /// That it came over the socket of this attempt is enough, unless it shows something else.
    pub(crate) by_socket: bool,
}

/// Makes a word that nobody else knows.
pub(crate) fn placeholder() -> String {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes.iter().fold("ax-".to_owned(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

impl Proof<'_> {
    /// Whether a request has the word that this harness was given, in any of the places for a key.
    pub(crate) fn is_in(self, headers: &HeaderMap, path: &str) -> bool {
        let all = |name| headers.get_all(name).iter().map(http::HeaderValue::as_bytes);
        let bearer = all(header::AUTHORIZATION).map(|value| after_word(value, "bearer"));
        let api_key = all(HeaderName::from_static("x-api-key"));
        let goog = all(HeaderName::from_static("x-goog-api-key"));
        let query = path.split_once('?').map(|(_, query)| query).unwrap_or_default();
        let query = query.split('&').filter_map(|field| field.strip_prefix("key="));
        self.is_one_of(bearer.chain(api_key).chain(goog).chain(query.map(str::as_bytes)))
    }

    /// Whether a request to the proxy has that word as its password (RFC 7617).
    pub(crate) fn is_password_in(self, headers: &HeaderMap) -> bool {
        let given = headers.get_all(header::PROXY_AUTHORIZATION).iter();
        let passwords: Vec<_> = given
            .map(|given| {
                let decoded = BASE64_STANDARD.decode(after_word(given.as_bytes(), "basic"));
                let decoded = decoded.unwrap_or_default();
                decoded.splitn(2, |byte| *byte == b':').nth(1).unwrap_or_default().to_vec()
            })
            .collect();
        self.is_one_of(passwords.iter().map(Vec::as_slice))
    }

    fn is_one_of<'b>(self, given: impl Iterator<Item = &'b [u8]>) -> bool {
        // The hashes are compared, so that the time it takes says nothing.
        let right = blake3::hash(self.placeholder.as_bytes());
        let mut given = given.map(|given| blake3::hash(given) == right).peekable();
        if given.peek().is_none() { self.by_socket } else { given.any(|is_right| is_right) }
    }
}

/// Returns what comes after the first word, if it is this one; else all.
fn after_word<'a>(value: &'a [u8], word: &str) -> &'a [u8] {
    match value.iter().position(|byte| *byte == b' ') {
        Some(at) if value[..at].eq_ignore_ascii_case(word.as_bytes()) => value[at..].trim_ascii(),
        _ => value,
    }
}

/// Returns a path and its query without the field that may hold a key.
pub(crate) fn without_key(path: &str) -> String {
    let Some((path, query)) = path.split_once('?') else { return path.to_owned() };
    let kept: Vec<_> = query.split('&').filter(|field| !field.starts_with("key=")).collect();
    if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(HeaderName, &str)], path: &str, by_port: bool, by_socket: bool) {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        for (way, expect) in [(false, by_port), (true, by_socket)] {
            let proof = Proof { placeholder: "ax-own", by_socket: way };
            assert_eq!(proof.is_in(&headers, path), expect, "{headers:?} {path} {way}");
        }
    }

    #[test]
    fn a_port_wants_the_placeholder_and_a_socket_wants_no_other_one() {
        let key = HeaderName::from_static("x-api-key");
        check(&[], "/a/b", false, true);
        check(&[(key.clone(), "ax-own")], "/a/b", true, true);
        check(&[(key.clone(), "ax-other")], "/a/b", false, false);
        check(&[(header::AUTHORIZATION, "Bearer ax-own")], "/", true, true);
        check(&[(header::AUTHORIZATION, "bearer ax-other")], "/", false, false);
        check(&[(header::AUTHORIZATION, "Basic eDp5")], "/", false, false);
        check(&[(key.clone(), "ax-other"), (key, "ax-own")], "/", true, true);
        check(&[], "/a?key=ax-own", true, true);
        check(&[], "/a?alt=sse&key=ax-other", false, false);
        check(&[], "/a?alt=sse", false, true);
    }

    #[test]
    fn a_proxy_wants_it_as_the_password() {
        let check = |value: Option<&str>, by_port, by_socket| {
            let value = value.map(|value| (header::PROXY_AUTHORIZATION, value.parse().unwrap()));
            let headers: HeaderMap = value.into_iter().collect();
            for (way, expect) in [(false, by_port), (true, by_socket)] {
                let proof = Proof { placeholder: "own", by_socket: way };
                assert_eq!(proof.is_password_in(&headers), expect, "{headers:?} {way}");
            }
        };
        check(None, false, true);
        check(Some(&format!("Basic {}", BASE64_STANDARD.encode("ax:own"))), true, true);
        check(Some(&format!("basic {}", BASE64_STANDARD.encode("ax:other"))), false, false);
        check(Some("Basic %"), false, false);
    }
}
