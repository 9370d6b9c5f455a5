//! Why stored bytes are refused.

/// Why bytes do not decode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They are not a protobuf message.
    #[error("not a protobuf message of this type: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// They were written by a newer version.
    #[error("{what} version {version} is not known")]
    Version {
        /// Of what.
        what: &'static str,
        /// The version.
        version: u32,
    },
    /// A field that must be set is not, or is of a kind that a newer version has added.
    #[error("{field} is missing or of an unknown kind")]
    Missing {
        /// The field, such as `step_started.step`.
        field: &'static str,
    },
    /// An enumeration has no such value.
    #[error("{field} has no value {number}")]
    Unknown {
        /// The field.
        field: &'static str,
        /// The number.
        number: i32,
    },
    /// A hash has the wrong length.
    #[error("{field} has {bytes} bytes instead of 32")]
    Length {
        /// The field.
        field: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// A number is larger than any that is ever written.
    #[error("{field} is {number}, which is out of range")]
    Range {
        /// The field.
        field: &'static str,
        /// The number.
        number: u64,
    },
    /// An identifier is malformed.
    #[error("{field} is not an identifier: {cause}")]
    Id {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// Something that must be there once is there twice.
    #[error("{field} has {key:?} twice")]
    Twice {
        /// The field.
        field: &'static str,
        /// What is there twice.
        key: String,
    },
}
