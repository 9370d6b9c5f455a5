//! Errors of the engine, as gRPC carries them.

use ax_engine::{Code, Error};
use ax_proto::v1;
use prost::Message as _;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code as Grpc, Status};

/// The binary metadata that has the details.
const METADATA: &str = "ax-error-bin";
/// What is kept of causes, in bytes: they travel in a header.
const CAUSE_BYTES_MAX: usize = 1_000;
/// How many causes are kept.
const CAUSES_MAX: usize = 5;

/// Makes the status of a refused request; everything that is known is in its metadata.
pub(crate) fn status(error: Error) -> Status {
    if error.code == Code::Internal {
        tracing::error!(%error, causes = ?error.causes, "a request failed");
    }
    let details = v1::Error {
        code: error.code.to_string(),
        message: short(&error.message),
        hint: short(error.hint()),
        retryable: error.code.retryable(),
        causes: error.causes.iter().take(CAUSES_MAX).map(|cause| short(cause)).collect(),
    };
    let mut metadata = MetadataMap::new();
    metadata.insert_bin(METADATA, MetadataValue::from_bytes(&details.encode_to_vec()));
    Status::with_metadata(grpc(error.code), details.message, metadata)
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
        Code::Invalid | Code::WrongAnswer | Code::TooLarge | Code::Manifest | Code::Frame => {
            Grpc::InvalidArgument
        }
        Code::NoSession | Code::NoAgent | Code::NoBlob | Code::Deleted => Grpc::NotFound,
        Code::KeyReused | Code::OtherAgent | Code::Exists => Grpc::AlreadyExists,
        Code::Busy | Code::Idle | Code::NotOpen | Code::Version | Code::Directory => {
            Grpc::FailedPrecondition
        }
        Code::QueueFull | Code::Full => Grpc::ResourceExhausted,
        Code::OutOfRange | Code::Cut => Grpc::OutOfRange,
        Code::Locked | Code::Poisoned | Code::Read | Code::Unavailable | Code::Stopping => {
            Grpc::Unavailable
        }
        Code::Damaged => Grpc::DataLoss,
        Code::Internal => Grpc::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "ä".repeat(CAUSE_BYTES_MAX);
        assert!(short(&text).len() <= CAUSE_BYTES_MAX + '…'.len_utf8());
        assert!(short(&text).ends_with('…'));
    }
}
