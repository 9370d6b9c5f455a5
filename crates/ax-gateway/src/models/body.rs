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
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
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
        let read = async {
            let held = self.collect(body).await?;
            if coding == Coding::Plain { Ok(held) } else { self.decode(coding, held).await }
        };
        timeout(BODY_MAX, read).await.unwrap_or(Err(Unread::Endless))
    }

    async fn collect(&self, mut body: Incoming) -> Result<Held, Unread> {
        if body.size_hint().lower() > REQUEST_BYTES_MAX as u64 {
            return Err(Unread::TooLarge);
        }
        let mut place = self.take(0).await?;
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
            if bytes.len() + data.len() > REQUEST_BYTES_MAX {
                return Err(Unread::TooLarge);
            }
            let more = kib(bytes.len() + data.len()).saturating_sub(place.num_permits());
            if more > 0 {
                place.merge(self.take(u32::try_from(more).unwrap_or(u32::MAX)).await?);
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Held { bytes: bytes.freeze(), place })
    }

    async fn decode(&self, coding: Coding, coded: Held) -> Result<Held, Unread> {
        // Nobody knows how large it becomes.
        let mut place = self.take(REQUEST_KIB_MAX).await?;
        let bytes = coded.bytes.clone();
        let decoded = tokio::task::spawn_blocking(move || decoded(coding, &bytes));
        let bytes = decoded.await.map_err(|_| Unread::Broken)??;
        let unused = place.num_permits().saturating_sub(kib(bytes.len()));
        drop(place.split(unused));
        Ok(Held { bytes, place })
    }

    async fn take(&self, kib: u32) -> Result<OwnedSemaphorePermit, Unread> {
        Arc::clone(&self.0).acquire_many_owned(kib).await.map_err(|_| Unread::Broken)
    }
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
