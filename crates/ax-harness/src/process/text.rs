//! What a plain process gets as its input.

use crate::launch::Content;
use ax_core::session::PartKind;
use std::fs::File;
use std::io::Read;

/// How much of a file is read at once, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// Returns the text of an input, piece by piece. Parts stand on lines of their own; a part that is
/// no text is named by the path of its file.
pub(super) fn opening(input: Vec<Content>) -> impl Iterator<Item = Vec<u8>> {
    let parts = input.into_iter().enumerate();
    parts.flat_map(|(at, part)| {
        let separator = (at > 0).then(|| b"\n".to_vec());
        separator.into_iter().chain(Pieces::of(part))
    })
}

/// The content of a part, piece by piece.
enum Pieces {
    Text(Option<Vec<u8>>),
    File(File),
}

impl Pieces {
    fn of(part: Content) -> Self {
        let Some((path, ..)) = part.file else { return Self::Text(Some(part.text.into_bytes())) };
        let is_text = matches!(part.kind, PartKind::Text | PartKind::Data)
            || part.media_type.starts_with("text/");
        let named = || Self::Text(Some(path.to_string_lossy().into_owned().into_bytes()));
        if !is_text {
            return named();
        }
        crate::own::open_input(&path).map_or_else(|_| named(), Self::File)
    }
}

impl Iterator for Pieces {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => text.take(),
            Self::File(file) => {
                let mut piece = Vec::with_capacity(READ_BYTES);
                // A file that cannot be read to its end is cut there: it is not the harness' fault,
                // and the blob store has verified it before.
                let got = file.take(READ_BYTES as u64).read_to_end(&mut piece).unwrap_or(0);
                (got > 0).then_some(piece)
            }
        }
    }
}
