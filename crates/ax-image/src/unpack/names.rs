//! Names of entries, and what they ask for.

use crate::error::Error;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The longest name of one file, in bytes: what file systems take.
const NAME_BYTES_MAX: usize = 255;
/// The longest path, in bytes: the kernel takes one more for a zero.
pub(super) const PATH_BYTES_MAX: usize = 4095;
/// How the name of something begins that lower layers have and this one removes.
const WHITEOUT: &[u8] = b".wh.";
/// Names of what an old union file system kept for itself begin so.
const RESERVED: &[u8] = b".wh..wh.";
/// The name that hides all that lower layers have in a directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What names of an archive may mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// It is a layer of an image: some names remove what is below.
    Layer,
    /// Names are names.
    Plain,
}

/// What the name of an entry stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// The directory that is unpacked into.
    Root,
    /// Something below it: at least one plain name.
    Path(PathBuf),
    /// What lower layers have under this name is gone.
    Whiteout { parent: PathBuf, name: OsString },
    /// What lower layers have in this directory is gone.
    Opaque { parent: PathBuf },
    /// Nothing that matters.
    Ignored,
}

pub(super) fn refused(written: &[u8], why: &str) -> Error {
    Error::Entry { path: String::from_utf8_lossy(written).into_owned(), why: why.into() }
}

/// Reads a name. In a layer some names mean removals; elsewhere they are names like any other.
pub(super) fn read(written: &[u8], depth_max: usize, meaning: Meaning) -> Result<Name, Error> {
    let refused = |why: &str| Err(refused(written, why));
    if written.len() > PATH_BYTES_MAX {
        // Not repeated in full.
        let path = String::from_utf8_lossy(&written[..64]).into_owned();
        return Err(Error::Entry { path, why: "has a name that is too long".into() });
    }
    if written.contains(&0) {
        return refused("has a zero byte in its name");
    }
    if written.first() == Some(&b'/') {
        return refused("has an absolute name");
    }
    let parts: Vec<&[u8]> =
        written.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&b"..".as_slice()) {
        return refused("goes up with ..");
    }
    if parts.iter().any(|part| part.len() > NAME_BYTES_MAX) {
        return refused("has a name that is too long");
    }
    let Some((last, above)) = parts.split_last() else { return Ok(Name::Root) };
    if above.len() > depth_max {
        return refused("is in too many directories");
    }
    let parent: PathBuf = above.iter().map(|part| OsStr::from_bytes(part)).collect();
    if meaning == Meaning::Plain {
        return Ok(Name::Path(parent.join(OsStr::from_bytes(last))));
    }
    if above.iter().any(|part| part.starts_with(WHITEOUT)) {
        return refused("is in a directory whose name means a removal");
    }
    if *last == OPAQUE {
        return Ok(Name::Opaque { parent });
    }
    if last.starts_with(RESERVED) {
        return Ok(Name::Ignored);
    }
    match last.strip_prefix(WHITEOUT) {
        None => Ok(Name::Path(parent.join(OsStr::from_bytes(last)))),
        Some(b"" | b"." | b"..") => refused("removes what has no name"),
        Some(name) => Ok(Name::Whiteout { parent, name: OsStr::from_bytes(name).into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_stand_for() {
        let path = |text: &str| Name::Path(text.into());
        let whiteout =
            |parent: &str, name: &str| Name::Whiteout { parent: parent.into(), name: name.into() };
        for (written, expected) in [
            ("./", Name::Root),
            ("", Name::Root),
            ("./a//b/./c/", path("a/b/c")),
            ("...", path("...")),
            ("a/.wh.b", whiteout("a", "b")),
            (".wh.b", whiteout("", "b")),
            ("a/.wh..wh..opq", Name::Opaque { parent: "a".into() }),
            (".wh..wh.plnk", Name::Ignored),
        ] {
            assert_eq!(read(written.as_bytes(), 4, Meaning::Layer).unwrap(), expected, "{written}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let long = "x".repeat(256);
        let longer = "x/".repeat(2048);
        for written in [
            "/etc/passwd",
            "..",
            "a/../../b",
            "a/..",
            "a\0b",
            ".wh.",
            ".wh..",
            ".wh...",
            ".wh.a/b",
            "a/b/c/d/e/f",
            &long,
            &longer,
        ] {
            assert!(read(written.as_bytes(), 4, Meaning::Layer).is_err(), "{written}");
        }
    }

    #[test]
    fn outside_of_layers_no_name_means_a_removal() {
        for written in ["a/.wh.b", ".wh..wh..opq", ".wh.a/b", ".wh."] {
            let path = Name::Path(written.into());
            assert_eq!(read(written.as_bytes(), 4, Meaning::Plain).unwrap(), path);
        }
        assert!(read(b".wh.a/../../b", 4, Meaning::Plain).is_err());
    }
}
