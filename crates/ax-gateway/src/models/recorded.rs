//! Answers as they are recorded, and read back: the same bytes in the same pieces.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

/// The version of the form.
const VERSION: u32 = 1;
/// Headers that belong to a connection and not to an answer (RFC 9110 §7.6.1), and those that say
/// who somebody is.
const NOT_KEPT: [&str; 12] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "alt-svc",
    "strict-transport-security",
];

/// Status and headers of an answer, without those of its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

impl Head {
    pub(crate) fn new(status: StatusCode, headers: &HeaderMap) -> Self {
        let kept = headers.iter().filter(|(name, _)| !NOT_KEPT.contains(&name.as_str()));
        let headers = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { status, headers }
    }

    /// Whether the answer is a stream of events.
    pub(crate) fn is_stream(&self) -> bool {
        let kind = self.headers.get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
    }
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) chunks: Vec<Bytes>,
}

/// What is wrong with a recorded answer.
#[derive(Debug, thiserror::Error)]
#[error("the recorded answer cannot be read: {0}")]
pub(crate) struct Unreadable(String);

/// The stored form, described in `docs/formats/gateway.md`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    status: u16,
    headers: Vec<(String, String)>,
    /// Text, or base64 if it is none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    base64: bool,
    body: String,
    /// The sizes of the pieces in bytes; one piece unless given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pieces: Vec<usize>,
    /// Why the model stopped, in the vendor's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stop: Option<String>,
}

impl Answer {
    /// Returns the JSON that is the result of the call's step.
    pub(crate) fn store(&self, stop: Option<&str>) -> String {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers =
            self.head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value)));
        let body = self.chunks.concat();
        let (base64, body) = match String::from_utf8(body) {
            Ok(body) => (false, body),
            Err(error) => (true, STANDARD.encode(error.as_bytes())),
        };
        let pieces = match self.chunks.len() {
            0 | 1 => Vec::new(),
            _ => self.chunks.iter().map(Bytes::len).collect(),
        };
        let stored = Stored {
            version: VERSION,
            status: self.head.status.as_u16(),
            headers: headers.collect(),
            base64,
            body,
            pieces,
            stop: stop.map(str::to_owned),
        };
        serde_json::to_string(&stored).expect("texts and numbers can be written")
    }

    /// Reads what [`Answer::store`] wrote.
    pub(crate) fn read(stored: &str) -> Result<Self, Unreadable> {
        let wrong = |what: String| Unreadable(what);
        let stored: Stored =
            serde_json::from_str(stored).map_err(|error| wrong(error.to_string()))?;
        if stored.version != VERSION {
            return Err(wrong(format!("its form has version {}", stored.version)));
        }
        let status = StatusCode::from_u16(stored.status)
            .map_err(|_| wrong(format!("its status is {}", stored.status)))?;
        let mut headers = HeaderMap::new();
        for (name, value) in stored.headers {
            let name = HeaderName::try_from(&name).map_err(|error| wrong(error.to_string()))?;
            let value = HeaderValue::try_from(value).map_err(|error| wrong(error.to_string()))?;
            headers.append(name, value);
        }
        let mut body = if stored.base64 {
            let bytes = STANDARD.decode(stored.body).map_err(|error| wrong(error.to_string()))?;
            Bytes::from(bytes)
        } else {
            Bytes::from(stored.body)
        };
        let mut chunks = Vec::with_capacity(stored.pieces.len().min(body.len()) + 1);
        for piece in stored.pieces {
            if piece > body.len() {
                return Err(wrong("its pieces are larger than it is".into()));
            }
            chunks.push(body.split_to(piece));
        }
        chunks.extend((!body.is_empty()).then_some(body));
        Ok(Self { head: Head { status, headers }, chunks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(chunks: &[&[u8]]) {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("text/event-stream"));
        headers.insert("transfer-encoding", HeaderValue::from_static("chunked"));
        let head = Head::new(StatusCode::OK, &headers);
        assert_eq!(head.headers.len(), 1);
        let chunks = chunks.iter().map(|chunk| Bytes::copy_from_slice(chunk)).collect();
        let answer = Answer { head, chunks };
        assert_eq!(Answer::read(&answer.store(Some("end_turn"))).unwrap(), answer);
    }

    #[test]
    fn an_answer_comes_back_in_the_same_pieces() {
        check(&[]);
        check(&[b"{\"a\": 1}"]);
        check(&[b"data: \xc3", b"\xa4\n\n", b"data: [DONE]\n\n"]);
        check(&[b"\xff\xfe", b"\x00"]);
    }

    #[test]
    fn what_cannot_be_an_answer_is_refused() {
        for text in [
            "",
            "{}",
            r#"{"version":2,"status":200,"headers":[],"body":""}"#,
            r#"{"version":1,"status":9,"headers":[],"body":""}"#,
            r#"{"version":1,"status":200,"headers":[["a b","c"]],"body":""}"#,
            r#"{"version":1,"status":200,"headers":[],"body":"x","pieces":[18446744073709551615]}"#,
            r#"{"version":1,"status":200,"headers":[],"body":"%","base64":true}"#,
        ] {
            assert!(Answer::read(text).is_err(), "{text}");
        }
    }
}
