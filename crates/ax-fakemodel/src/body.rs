//! Reading the body of a request.

use axum::body::Body;
use axum::http::{HeaderMap, header};
use flate2::read::{GzDecoder, ZlibDecoder};
use serde_json::Value;
use std::io::Read;

/// The longest body, before and after it is decompressed.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 20;

/// Why a body is not understood: a status and a message.
pub(crate) type Refusal = (u16, String);

/// Reads a body, chunked or not, compressed or not.
pub(crate) async fn text(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Refusal> {
    let raw = axum::body::to_bytes(body, BODY_BYTES_MAX).await;
    let raw = raw.map_err(|error| (413, format!("the body cannot be read: {error}")))?;
    let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?"));
    match encoding.unwrap_or("identity") {
        "identity" => Ok(raw.to_vec()),
        "gzip" | "x-gzip" => inflate(GzDecoder::new(&raw[..])),
        "deflate" => inflate(ZlibDecoder::new(&raw[..])),
        other => Err((415, format!("the content encoding {other:?} is not known"))),
    }
}

/// Reads a body that is JSON.
pub(crate) async fn json(headers: &HeaderMap, body: Body) -> Result<Value, Refusal> {
    let text = text(headers, body).await?;
    serde_json::from_slice(&text).map_err(|error| (400, format!("the body is no JSON: {error}")))
}

fn inflate(reader: impl Read) -> Result<Vec<u8>, Refusal> {
    let mut text = Vec::new();
    let mut limited = reader.take(BODY_BYTES_MAX as u64 + 1);
    let read = limited.read_to_end(&mut text);
    read.map_err(|error| (400, format!("the body cannot be decompressed: {error}")))?;
    if text.len() > BODY_BYTES_MAX {
        return Err((413, format!("the body has more than {BODY_BYTES_MAX} bytes")));
    }
    Ok(text)
}
