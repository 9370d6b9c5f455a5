//! Why a request failed.

use crate::connect::untrusted;
use ax_proto::v1;
use prost::Message;
use tonic::{Code, Status};

/// The code of an error that no server answered with: there is none, or the connection broke.
pub const UNAVAILABLE: &str = "AX3001";
/// The code of a server that is about to be gone, and has not carried the request out.
pub(crate) const STOPPING: &str = "AX3002";
/// The code of a server that cannot show that it is the one that is meant.
const UNTRUSTED: &str = "AX4007";
/// The code of an argument that is malformed.
const INVALID: &str = "AX1001";
/// The code of something that is larger than allowed.
const TOO_LARGE: &str = "AX1013";
/// The code of a bug.
const INTERNAL: &str = "AX9001";
/// The binary metadata of a failed call that has the details.
const METADATA: &str = "ax-error-bin";

/// The metadata of a failed call that says when to come back.
const RETRY_AFTER: &str = "retry-after";

/// Why a request failed, in the words of the server if it was one that said so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[expect(clippy::error_impl_error, reason = "the only error of the crate, named by its path")]
pub struct Error {
    /// `AX` and four digits; `docs/errors/` has a page for each.
    pub code: String,
    /// What is wrong, in words.
    pub message: String,
    /// What may help; may be empty.
    pub hint: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// What caused it, outermost first.
    pub causes: Vec<String>,
    /// Whether there is no server, or no more: sending the request again may help, and it is not
    /// known if it was carried out.
    pub broken: bool,
    /// How long the server asks to wait before the next try, in milliseconds.
    pub retry_after_millis: Option<u64>,
}

impl Error {
    /// Makes the error of a connection that failed.
    pub(crate) fn broken(message: impl Into<String>) -> Self {
        Self {
            code: UNAVAILABLE.into(),
            message: message.into(),
            hint: String::new(),
            retryable: true,
            causes: Vec::new(),
            broken: true,
            retry_after_millis: None,
        }
    }

    /// Whether it passes by itself: the connection broke, or the server says when to come back.
    pub(crate) const fn passes(&self) -> bool {
        self.broken || self.retryable && self.retry_after_millis.is_some()
    }

    /// Makes the error of an argument that makes no sense.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::refused(INVALID, message)
    }

    /// Makes the error of an argument that cannot be sent, or of an answer that makes no sense.
    pub(crate) fn refused(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), retryable: false, broken: false, ..Self::broken(message) }
    }

    /// Makes the error of a content that could not be read or written here.
    pub(crate) fn content(error: &std::io::Error) -> Self {
        let refused = Self::refused(INVALID, "the content could not be read or written to its end");
        Self { causes: vec![error.to_string()], ..refused }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let retry_after_millis = retry_after_millis(&status);
        let details = status.metadata().get_bin(METADATA).and_then(|value| value.to_bytes().ok());
        if let Some(error) = details.and_then(|bytes| v1::Error::decode(bytes).ok()) {
            let code = error.code;
            return Self {
                message: error.message,
                hint: error.hint,
                retryable: error.retryable,
                causes: error.causes,
                broken: [UNAVAILABLE, STOPPING].contains(&&*code),
                code,
                retry_after_millis,
            };
        }
        let text = || format!("{}: {}", status.code().description(), status.message());
        match status.code() {
            Code::OutOfRange | Code::ResourceExhausted => Self::refused(TOO_LARGE, text()),
            Code::InvalidArgument => Self::refused(INVALID, text()),
            Code::Unimplemented => Self {
                hint: "the server is older than this client".into(),
                ..Self::refused(INTERNAL, "the server does not know this request")
            },
            _ if untrusted(&status) => Self {
                causes: causes_of(&status),
                hint: "name the authority that vouches for it".into(),
                ..Self::refused(UNTRUSTED, "the certificate of the server is not believed")
            },
            _ => Self {
                causes: causes_of(&status),
                retry_after_millis,
                ..Self::broken("no server answers")
            },
        }
    }
}

/// How long the server asks to wait, from whole seconds (RFC 9110, section 10.2.3).
fn retry_after_millis(status: &Status) -> Option<u64> {
    let value = status.metadata().get(RETRY_AFTER)?.to_str().ok()?;
    value.parse::<u64>().ok()?.checked_mul(1_000)
}

/// The words of the status and of everything below it, each once.
fn causes_of(status: &Status) -> Vec<String> {
    let mut causes = vec![status.message().to_owned()];
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        causes.push(error.to_string());
        source = error.source();
    }
    causes.retain(|cause| !cause.is_empty());
    causes.dedup();
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::metadata::{MetadataMap, MetadataValue};

    #[test]
    fn what_the_server_says_is_kept_to_the_letter() {
        let said = v1::Error {
            code: "AX1002".into(),
            message: "there is no session \"x\"".into(),
            hint: "list them".into(),
            retryable: false,
            causes: vec!["a".into(), "b".into()],
        };
        let mut metadata = MetadataMap::new();
        metadata.insert_bin(METADATA, MetadataValue::from_bytes(&said.encode_to_vec()));
        let error: Error = Status::with_metadata(Code::NotFound, "short", metadata).into();
        assert_eq!((error.code, error.message), (said.code, said.message));
        assert_eq!((error.hint, error.causes), (said.hint, said.causes));
        assert!(!error.broken && !error.retryable);
    }

    #[test]
    fn a_limit_passes_when_the_server_says_when() {
        let said = v1::Error { code: "AX4004".into(), retryable: true, ..Default::default() };
        let mut metadata = MetadataMap::new();
        metadata.insert_bin(METADATA, MetadataValue::from_bytes(&said.encode_to_vec()));
        let status = |metadata| Status::with_metadata(Code::ResourceExhausted, "much", metadata);
        assert!(!Error::from(status(metadata.clone())).passes(), "it is for the caller to decide");
        metadata.insert(RETRY_AFTER, "3".parse().unwrap());
        let error = Error::from(status(metadata));
        assert!(error.passes() && !error.broken);
        assert_eq!(error.retry_after_millis, Some(3_000));
    }

    #[test]
    fn a_broken_connection_is_told_from_a_refusal() {
        for (code, broken) in [
            (Code::Unavailable, true),
            (Code::Unknown, true),
            (Code::Cancelled, true),
            (Code::Internal, true),
            (Code::OutOfRange, false),
            (Code::InvalidArgument, false),
            (Code::Unimplemented, false),
        ] {
            let error = Error::from(Status::new(code, "x"));
            assert_eq!((error.broken, error.code == UNAVAILABLE), (broken, broken), "{code:?}");
        }
    }
}
