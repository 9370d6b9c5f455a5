//! Bodies: messages, blobs, archives.

use super::{Call, json as answer_json, message};
use crate::api::Stream;
use crate::{ARCHIVE_BYTES_MAX, BLOB_BYTES_MAX, BODY_READ_MAX, REQUEST_BYTES_MAX};
use ax_engine::{Code, Error};
use ax_proto::v1;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value};
use std::time::Duration;
use tokio::time::timeout;

/// Reads a message; nothing is an empty one.
pub(super) async fn json(
    headers: &HeaderMap,
    body: Body,
    pause_max: Duration,
) -> Result<Map<String, Value>, Error> {
    let read = timeout(BODY_READ_MAX, all(headers, body, pause_max)).await;
    let bytes = read.unwrap_or_else(|_| Err(too_slow()))?;
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let message = "the body of a request is JSON";
        return Err(Error::new(Code::MediaType, message)
            .with_hint("send it with content-type: application/json"));
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::invalid(format!("the body is not a JSON object: {error}")))
}

async fn all(headers: &HeaderMap, body: Body, pause_max: Duration) -> Result<Vec<u8>, Error> {
    let most = REQUEST_BYTES_MAX as u64;
    let mut pieces = pieces(headers, body, pause_max, most, "the request")?;
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

/// A body of bounded length, whose pieces come in bounded time.
fn pieces(
    headers: &HeaderMap,
    body: Body,
    pause_max: Duration,
    bytes_max: u64,
    what: &'static str,
) -> Result<Stream<Bytes>, Error> {
    let too_large = move || {
        let message = format!("{what} is larger than {} MiB", bytes_max >> 20);
        Error::new(Code::TooLarge, message)
    };
    let said = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if said.and_then(|length| length.parse::<u64>().ok()).is_some_and(|said| said > bytes_max) {
        return Err(too_large());
    }
    let rest = Some((body.into_data_stream(), bytes_max));
    let pieces = stream::unfold(rest, move |rest| async move {
        let (mut body, left) = rest?;
        match timeout(pause_max, body.next()).await {
            Ok(Some(Ok(piece))) => match left.checked_sub(piece.len() as u64) {
                Some(left) => Some((Ok(piece), Some((body, left)))),
                None => Some((Err(too_large()), None)),
            },
            Ok(Some(Err(error))) => {
                let broken = Error::invalid("the body broke off").caused_by(&error);
                Some((Err(broken), None))
            }
            Ok(None) => None,
            Err(_) => Some((Err(too_slow()), None)),
        }
    });
    Ok(pieces.boxed())
}

pub(crate) fn too_slow() -> Error {
    Error::invalid("the body came too slowly")
}

pub(super) async fn write_blob(call: Call) -> Result<Response, Error> {
    let Call { api, asker, route, parts, params, body } = call;
    let request: v1::WriteBlobRequest = message(route, &parts, params, Map::new())?;
    let pause_max = api.body_pause_max();
    let content = pieces(&parts.headers, body, pause_max, BLOB_BYTES_MAX, "the content")?;
    let stored = api.write_blob(asker, &request.namespace, content).await?;
    Ok(answer_json(&stored))
}

pub(super) async fn read_blob(call: Call) -> Result<Response, Error> {
    let Call { api, asker, route, parts, params, .. } = call;
    let request: v1::ReadBlobRequest = message(route, &parts, params, Map::new())?;
    let id = request.id.clone();
    let (content, bytes) = api.read_blob(asker, request).await?;
    let mut response = download(content, "attachment");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, bytes.into());
    // The id was read as one: it has digits only.
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{id}\"")) {
        headers.insert(header::ETAG, tag);
    }
    let forever = HeaderValue::from_static("private, max-age=31536000, immutable");
    headers.insert(header::CACHE_CONTROL, forever);
    Ok(response)
}

pub(super) async fn export(call: Call) -> Result<Response, Error> {
    let Call { api, asker, route, parts, params, .. } = call;
    let request: v1::ExportRequest = message(route, &parts, params, Map::new())?;
    let archive = api.export(asker, request).await?;
    Ok(download(archive, "attachment; filename=\"session.axar\""))
}

pub(super) async fn import(call: Call) -> Result<Response, Error> {
    let Call { api, asker, route, parts, params, body } = call;
    let request: v1::ImportRequest = message(route, &parts, params, Map::new())?;
    let pause_max = api.body_pause_max();
    let archive = pieces(&parts.headers, body, pause_max, ARCHIVE_BYTES_MAX, "the archive")?;
    let imported = api.import(asker, &request.namespace, request.name, archive).await?;
    Ok(answer_json(&imported))
}

/// Answers by a content that a browser saves and never shows.
fn download(content: Stream<Bytes>, disposition: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, disposition),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Body::from_stream(content)).into_response()
}
