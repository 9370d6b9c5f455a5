//! The body of a request: read to its end, within bounds, and decoded.

use bytes::{Bytes, BytesMut};
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::StatusCode;
use http::header::{CONTENT_ENCODING, HeaderMap};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The largest request, in bytes, before and after it is decoded.
const REQUEST_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The same in KiB.
const REQUEST_KIB_MAX: u32 = 32 * 1024;
/// The most values that a request's JSON may have: each takes far more memory than text.
const VALUES_MAX: usize = 1_000_000;
/// How many KiB the requests of an attempt may have together; more wait.
const ROOM_KIB: usize = 128 * 1024;
/// How long a harness may take for a request's body.
const BODY_MAX: Duration = Duration::from_secs(120);

/// The place for the requests of an attempt.
#[derive(Debug)]
pub(super) struct Room(Arc<Semaphore>);

/// A request, and its place until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    pub(super) place: OwnedSemaphorePermit,
}

/// Why a request is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unread {
    #[error("a request may have {REQUEST_BYTES_MAX} bytes, also when it is decoded")]
    TooLarge,
    #[error("the request has no end")]
    Endless,
    #[error("a request may have {VALUES_MAX} values")]
    TooMany,
    #[error("the request broke off")]
    Broken,
    #[error("the content encoding {0:?} is not understood; use gzip, deflate or none")]
    Coding(String),
    #[error("the request is not what its content encoding says: {0}")]
    Garbled(String),
}

impl Unread {
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge | Self::TooMany => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Endless => StatusCode::REQUEST_TIMEOUT,
            Self::Broken | Self::Garbled(_) => StatusCode::BAD_REQUEST,
            Self::Coding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }
}

/// How a body is coded (RFC 9110 §8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Plain,
    Gzip,
    Deflate,
}

impl Coding {
    fn of(headers: &HeaderMap) -> Result<Self, Unread> {
        let named: Vec<_> = headers
            .get_all(CONTENT_ENCODING)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase())
            .collect();
        match &named.join(", ")[..] {
            "" | "identity" => Ok(Self::Plain),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            other => Err(Unread::Coding(other.chars().take(64).collect())),
        }
    }
}

impl Room {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(ROOM_KIB)))
    }

    /// Reads a body to its end and decodes it.
    pub(super) async fn read(&self, headers: &HeaderMap, body: Incoming) -> Result<Held, Unread> {
        let coding = Coding::of(headers)?;
        let length = body.size_hint().exact().map(usize::try_from);
        let length = length.map_or(REQUEST_BYTES_MAX, |length| length.unwrap_or(usize::MAX));
        if length > REQUEST_BYTES_MAX {
            return Err(Unread::TooLarge);
        }
        // All at once: who has a part and waits for more would keep others waiting who do the same.
        // Nobody knows how large it becomes when it is decoded.
        let more = if coding == Coding::Plain { 0 } else { REQUEST_KIB_MAX };
        let place = u32::try_from(kib(length)).unwrap_or(REQUEST_KIB_MAX) + more;
        let place = Arc::clone(&self.0).acquire_many_owned(place).await;
        let mut place = place.map_err(|_| Unread::Broken)?;
        let read = async {
            let bytes = collect(body).await?;
            if coding == Coding::Plain {
                return Ok(bytes);
            }
            let decoded = tokio::task::spawn_blocking(move || decoded(coding, &bytes));
            decoded.await.map_err(|_| Unread::Broken)?
        };
        let bytes = timeout(BODY_MAX, read).await.unwrap_or(Err(Unread::Endless))?;
        let unused = place.num_permits().saturating_sub(kib(bytes.len()));
        drop(place.split(unused));
        Ok(Held { bytes, place })
    }
}

async fn collect(mut body: Incoming) -> Result<Bytes, Unread> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
        if bytes.len() + data.len() > REQUEST_BYTES_MAX {
            return Err(Unread::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Whether a JSON text has more values than a request may have. There is none without a byte.
pub(super) fn has_too_many_values(json: &[u8]) -> bool {
    json.len() > VALUES_MAX && value_count(json) > VALUES_MAX
}

/// Counts what a JSON text is made of, without reading it: little text can be many values.
fn value_count(json: &[u8]) -> usize {
    let (mut count, mut in_text, mut escaped) = (1, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => count += 1,
            _ => {}
        }
    }
    count
}

const fn kib(bytes: usize) -> usize {
    bytes.div_ceil(1024)
}

fn decoded(coding: Coding, coded: &[u8]) -> Result<Bytes, Unread> {
    let decoded = match coding {
        Coding::Plain => return Ok(Bytes::copy_from_slice(coded)),
        Coding::Gzip => all(MultiGzDecoder::new(coded)),
        Coding::Deflate if is_zlib(coded) => all(ZlibDecoder::new(coded)),
        // What some clients take the word for.
        Coding::Deflate => all(DeflateDecoder::new(coded)),
    };
    let decoded = decoded.map_err(|error| Unread::Garbled(error.to_string()))?;
    if decoded.len() > REQUEST_BYTES_MAX { Err(Unread::TooLarge) } else { Ok(decoded.into()) }
}

/// Whether bytes begin as the format does that is meant by `deflate` (RFC 1950 §2.2).
fn is_zlib(coded: &[u8]) -> bool {
    matches!(coded, [first, second, ..]
        if first & 0x0f == 8 && u16::from_be_bytes([*first, *second]) % 31 == 0)
}

/// Reads to the end, or one byte more than is allowed.
fn all(decoder: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    decoder.take(REQUEST_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use std::io::Write as _;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_was_coded_comes_back() {
        let text = b"a body, and a body, and a body";
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
        zlib.write_all(text).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::best());
        raw.write_all(text).unwrap();
        for (coding, coded) in [
            (Coding::Plain, text.to_vec()),
            (Coding::Gzip, gzip(text)),
            (Coding::Gzip, [gzip(&text[..7]), gzip(&text[7..])].concat()),
            (Coding::Deflate, zlib.finish().unwrap()),
            (Coding::Deflate, raw.finish().unwrap()),
        ] {
            assert_eq!(decoded(coding, &coded).as_deref(), Ok(&text[..]), "{coding:?}");
        }
    }

    #[test]
    fn what_becomes_too_large_or_is_no_code_is_refused() {
        let bomb = gzip(&vec![0; REQUEST_BYTES_MAX + 1]);
        assert!(bomb.len() < REQUEST_BYTES_MAX / 100);
        assert_eq!(decoded(Coding::Gzip, &bomb), Err(Unread::TooLarge));
        let whole = gzip(b"a text");
        for coded in [&b"{}"[..], &whole[..whole.len() - 4]] {
            let said = decoded(Coding::Gzip, coded);
            assert!(matches!(said, Err(Unread::Garbled(_))), "{coded:?}: {said:?}");
        }
    }

    #[test]
    fn values_are_counted_and_texts_are_not_read() {
        for (json, count) in
            [("{}", 2), ("[1,2,[3]]", 5), (r#"{"a": "[,{", "b": "\\\",", "c": [1, 2]}"#, 6)]
        {
            assert_eq!(value_count(json.as_bytes()), count, "{json}");
        }
    }

    #[test]
    fn only_one_coding_is_understood() {
        let check = |values: &[&'static str], expect: Option<Coding>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, http::HeaderValue::from_static(value));
            }
            assert_eq!(Coding::of(&headers).ok(), expect, "{values:?}");
        };
        check(&[], Some(Coding::Plain));
        check(&["Identity"], Some(Coding::Plain));
        check(&["GZIP"], Some(Coding::Gzip));
        check(&["x-gzip"], Some(Coding::Gzip));
        check(&["deflate"], Some(Coding::Deflate));
        check(&["zstd"], None);
        check(&["gzip", "gzip"], None);
        check(&["gzip, gzip"], None);
    }
}
