//! Errors of the engine, as gRPC and HTTP carry them.

use ax_engine::{Code, Error};
use ax_proto::v1;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use prost::Message as _;
use serde_json::{Value, json};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code as Grpc, Status};

/// The binary metadata that has the details.
const METADATA: &str = "ax-error-bin";
/// What is kept of causes, in bytes: they travel in a header.
const CAUSE_BYTES_MAX: usize = 1_000;
/// When a client may try again, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");
/// How many causes are kept.
const CAUSES_MAX: usize = 5;

/// What a client is told of an error, in both protocols.
pub(crate) fn details(error: &Error) -> v1::Error {
    if error.code == Code::Internal {
        tracing::error!(%error, causes = ?error.causes, "a request failed");
    }
    v1::Error {
        code: error.code.to_string(),
        message: short(&error.message),
        hint: short(error.hint()),
        retryable: error.code.retryable(),
        causes: error.causes.iter().take(CAUSES_MAX).map(|cause| short(cause)).collect(),
    }
}

/// Makes the status of a refused request; everything that is known is in its metadata.
pub(crate) fn status(error: Error) -> Status {
    let details = details(&error);
    let mut metadata = MetadataMap::new();
    metadata.insert_bin(METADATA, MetadataValue::from_bytes(&details.encode_to_vec()));
    Status::with_metadata(grpc(error.code), details.message, metadata)
}

/// What ends a call that was under way.
pub(crate) fn trailers(error: Error) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let added = status(error).add_header(&mut trailers);
    added.expect("what is longer than a header may be is cut");
    trailers
}

/// A refusal that tonic made by itself, such as of a message that cannot be read.
pub(crate) fn of_wire(refused: &Status) -> Status {
    if refused.metadata().contains_key(METADATA) {
        return refused.clone();
    }
    let code = match refused.code() {
        Grpc::Unimplemented if refused.message().is_empty() => {
            return status(Error::new(Code::NoMethod, "there is no such method"));
        }
        Grpc::Unimplemented => Code::MediaType,
        Grpc::OutOfRange | Grpc::ResourceExhausted => Code::TooLarge,
        Grpc::Unavailable | Grpc::Cancelled => Code::Stopping,
        _ => Code::Invalid,
    };
    status(Error::new(code, refused.message()))
}

/// Says of a refusal that tonic made by itself what every refusal says.
pub(crate) async fn explain(response: Response) -> Response {
    let headers = response.headers();
    let ours = !headers.contains_key(Status::GRPC_STATUS) || headers.contains_key(METADATA);
    match Status::from_header_map(headers).filter(|_| !ours) {
        Some(refused) if refused.code() != Grpc::Ok => of_wire(&refused).into_http(),
        _ => response,
    }
}

fn short(text: &str) -> String {
    if text.len() <= CAUSE_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(CAUSE_BYTES_MAX);
    format!("{}…", &text[..end])
}

const fn grpc(code: Code) -> Grpc {
    match code {
        Code::Invalid
        | Code::WrongAnswer
        | Code::TooLarge
        | Code::Manifest
        | Code::Frame
        | Code::Image => Grpc::InvalidArgument,
        Code::NoSession
        | Code::NoAgent
        | Code::NoBlob
        | Code::NoFile
        | Code::NoImage
        | Code::Deleted
        | Code::NoRoute => Grpc::NotFound,
        Code::NoMethod | Code::MediaType => Grpc::Unimplemented,
        Code::Unauthenticated | Code::Expired | Code::Untrusted => Grpc::Unauthenticated,
        Code::Forbidden | Code::Unsandboxed => Grpc::PermissionDenied,
        Code::KeyReused | Code::OtherAgent | Code::Exists => Grpc::AlreadyExists,
        Code::Busy
        | Code::Idle
        | Code::NotOpen
        | Code::Stale
        | Code::Version
        | Code::Directory
        | Code::Config => Grpc::FailedPrecondition,
        Code::QueueFull | Code::Full | Code::RateLimited | Code::Crowded => Grpc::ResourceExhausted,
        Code::OutOfRange | Code::Cut => Grpc::OutOfRange,
        Code::Locked
        | Code::Poisoned
        | Code::Read
        | Code::Workspace
        | Code::Unavailable
        | Code::Elsewhere
        | Code::Stopping
        | Code::Registry
        | Code::Unrecorded => Grpc::Unavailable,
        Code::Damaged => Grpc::DataLoss,
        Code::Internal => Grpc::Internal,
    }
}

/// The HTTP status of an error.
pub(crate) const fn http(code: Code) -> StatusCode {
    match code {
        Code::Invalid
        | Code::WrongAnswer
        | Code::Manifest
        | Code::Frame
        | Code::OutOfRange
        | Code::Image => StatusCode::BAD_REQUEST,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::NoSession
        | Code::NoAgent
        | Code::NoBlob
        | Code::NoFile
        | Code::NoImage
        | Code::NoRoute => StatusCode::NOT_FOUND,
        Code::Deleted | Code::Cut => StatusCode::GONE,
        Code::NoMethod => StatusCode::METHOD_NOT_ALLOWED,
        Code::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::Unauthenticated | Code::Expired | Code::Untrusted => StatusCode::UNAUTHORIZED,
        Code::Forbidden | Code::Unsandboxed => StatusCode::FORBIDDEN,
        Code::KeyReused
        | Code::OtherAgent
        | Code::Exists
        | Code::Busy
        | Code::Idle
        | Code::NotOpen
        | Code::Stale => StatusCode::CONFLICT,
        Code::QueueFull | Code::RateLimited | Code::Crowded => StatusCode::TOO_MANY_REQUESTS,
        Code::Full => StatusCode::INSUFFICIENT_STORAGE,
        Code::Locked
        | Code::Poisoned
        | Code::Read
        | Code::Workspace
        | Code::Unavailable
        | Code::Elsewhere
        | Code::Stopping
        | Code::Registry
        | Code::Unrecorded => StatusCode::SERVICE_UNAVAILABLE,
        Code::Damaged | Code::Version | Code::Directory | Code::Config | Code::Internal => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

/// An error as JSON.
pub(crate) fn body(error: &Error) -> Value {
    let details = details(error);
    json!({
        "code": details.code,
        "message": details.message,
        "hint": details.hint,
        "retryable": details.retryable,
        "causes": details.causes,
    })
}

/// Refuses a request over HTTP.
pub(crate) fn response(error: &Error) -> Response {
    let status = http(error.code);
    let mut response = (status, axum::Json(body(error))).into_response();
    let headers = response.headers_mut();
    if error.code.retryable() && status != StatusCode::CONFLICT {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Refuses a request with these headers in the protocol that it speaks.
pub fn refuse(headers: &HeaderMap, error: Error) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
        return status(error).into_http();
    }
    response(&error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn details_travel_with_the_status() {
        let error = Error::new(Code::NoSession, "there is no session \"ä\"");
        let status = status(error.caused_by(&std::io::Error::other("why")));
        assert_eq!(status.code(), Grpc::NotFound);
        let bytes = status.metadata().get_bin(METADATA).unwrap().to_bytes().unwrap();
        let details = v1::Error::decode(bytes).unwrap();
        assert_eq!(details.code, "AX1002");
        assert_eq!(details.message, "there is no session \"ä\"");
        assert_eq!(details.causes, ["why"]);
        assert!(!details.hint.is_empty());
    }

    /// The table of `docs/api.md`: an HTTP status, the gRPC codes and the codes it stands for.
    fn table() -> String {
        let mut rows: BTreeMap<u16, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
        for code in Code::ALL {
            let (grpcs, codes) = rows.entry(http(*code).as_u16()).or_default();
            grpcs.insert(format!("`{}`", screaming(&format!("{:?}", grpc(*code)))));
            codes.insert(code.to_string());
        }
        let joined = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>().join(", ");
        let rows = rows.into_iter().map(|(status, (grpcs, codes))| {
            format!("| {status} | {} | {} |\n", joined(grpcs), joined(codes))
        });
        format!("| HTTP | gRPC | codes |\n|---|---|---|\n{}", rows.collect::<String>())
    }

    fn screaming(name: &str) -> String {
        let mut words = String::new();
        for letter in name.chars() {
            if letter.is_uppercase() && !words.is_empty() {
                words.push('_');
            }
            words.push(letter.to_ascii_uppercase());
        }
        words
    }

    #[test]
    fn the_table_of_the_documents_is_the_one_that_is_used() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api.md");
        let document = std::fs::read_to_string(path).unwrap();
        let begin = document.find("| HTTP | gRPC | codes |").unwrap();
        let end = begin + document[begin..].find("\n\n").unwrap() + 1;
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            let document = [&document[..begin], &table(), &document[end..]].concat();
            std::fs::write(path, document).unwrap();
            return;
        }
        let old = "the table of docs/api.md is old: run this test with UPDATE_EXPECT=1";
        assert_eq!(document[begin..end], table(), "{old}");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "ä".repeat(CAUSE_BYTES_MAX);
        assert!(short(&text).len() <= CAUSE_BYTES_MAX + '…'.len_utf8());
        assert!(short(&text).ends_with('…'));
    }
}
