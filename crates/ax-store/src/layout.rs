//! Where things are in the store; `docs/formats/blobs.md` describes it.
//!
//! Every part of a path is made of a checked [`Namespace`], of hexadecimal digits or of a constant,
//! so nothing that a caller names can lead out of its namespace.

use crate::id::BlobId;
use ax_core::id::Namespace;
use object_store::path::Path;

/// The version of the layout, and the first part of every path.
pub(crate) const VERSION: &str = "v1";
/// The part that holds uploads under way; it is no pair of digits, so it holds no blobs.
pub(crate) const STAGING: &str = "staging";

/// Everything of a namespace is under this path.
pub(crate) fn namespace(namespace: &Namespace) -> Path {
    Path::from(format!("{VERSION}/{namespace}"))
}

/// The object that holds the content of a blob.
pub(crate) fn blob(namespace: &Namespace, id: &BlobId) -> Path {
    let hex = id.hex();
    Path::from(format!("{VERSION}/{namespace}/{}/{hex}", &hex[..2]))
}

/// The object in which a large content is gathered until its name is known.
pub(crate) fn staging(namespace: &Namespace, upload: &str) -> Path {
    Path::from(format!("{VERSION}/{namespace}/{STAGING}/{upload}"))
}

/// What a path within a namespace holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A blob.
    Blob(BlobId),
    /// An upload, finished or abandoned before it got its name.
    Staging(String),
    /// Something that was not put there by this crate.
    Foreign,
}

/// The inverse of [`blob`] and [`staging`].
pub(crate) fn place(path: &Path) -> Place {
    let parts: Vec<_> = path.parts().collect();
    let [_, _, directory, file] = parts.as_slice() else { return Place::Foreign };
    if directory.as_ref() == STAGING {
        return Place::Staging(file.as_ref().to_owned());
    }
    match BlobId::from_hex(file.as_ref()) {
        Some(id) if file.as_ref().starts_with(directory.as_ref()) => Place::Blob(id),
        _ => Place::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_known_from_its_path() {
        let space = Namespace::default();
        let id = BlobId::of(b"x");
        assert_eq!(place(&blob(&space, &id)), Place::Blob(id));
        assert_eq!(place(&staging(&space, "1-2")), Place::Staging("1-2".to_owned()));
        let elsewhere = Path::from(format!("v1/default/00/{}", id.hex()));
        assert_eq!(place(&elsewhere), Place::Foreign);
        assert_eq!(place(&Path::from("v1/default/notes.txt")), Place::Foreign);
    }
}
