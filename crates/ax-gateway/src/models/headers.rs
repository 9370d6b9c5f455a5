//! Which headers of a harness reach a provider.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Those of its connection (RFC 9110 §7.6.1), and whatever says who it is.
const NOT_SENT: [HeaderName; 23] = [
    header::ACCEPT_ENCODING,
    header::AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::COOKIE,
    header::EXPECT,
    header::FORWARDED,
    header::HOST,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::VIA,
    // Whoever has the same key could be given the answer to another session's call.
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-goog-api-key"),
    // Those by which a request means another method than it has.
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-method-override"),
];
/// What others begin with: names of the runtime, and of proxies that say who asks.
const NOT_SENT_PREFIXES: [&str; 4] = ["ax-", "x-ax-", "x-forwarded-", "x-real-"];

/// Returns what goes on. A harness that makes spans of its own says in which one it asks; of
/// others the attempt is said.
pub(super) fn sent_on(headers: &HeaderMap, trace: Option<&HeaderValue>) -> HeaderMap {
    let of_connection: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let goes_on = |name: &HeaderName| {
        let is_other = NOT_SENT_PREFIXES.iter().any(|one| name.as_str().starts_with(one));
        !is_other && !NOT_SENT.contains(name) && !of_connection.contains(name)
    };
    let sent = headers.iter().filter(|(name, _)| goes_on(name));
    let mut sent: HeaderMap = sent.map(|(name, value)| (name.clone(), value.clone())).collect();
    if let Some(trace) = trace {
        sent.entry("traceparent").or_insert_with(|| trace.clone());
    }
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_who_somebody_is_or_belongs_to_a_connection_stays_here() {
        let sent = [
            ("anthropic-version", "2023-06-01"),
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
            ("connection", "close, X-Secret-Hop"),
            ("x-secret-hop", "1"),
            ("host", "example.com"),
            ("idempotency-key", "default/1/1/gw:model:0:1"),
            ("x-ax-session", "another"),
            ("ax-request-id", "another"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-api-key", "ax-own"),
        ];
        let sent = sent
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let went = sent_on(&sent.into_iter().collect(), None);
        let mut names: Vec<_> = went.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["anthropic-version", "content-type"]);
    }

    #[test]
    fn a_call_says_its_span_or_that_of_its_attempt() {
        let attempt = HeaderValue::from_static("attempt");
        assert_eq!(sent_on(&HeaderMap::new(), Some(&attempt))["traceparent"], "attempt");
        let own = HeaderValue::from_static("own");
        let own = [(HeaderName::from_static("traceparent"), own)].into_iter().collect();
        assert_eq!(sent_on(&own, Some(&attempt))["traceparent"], "own");
    }
}
