//! For `ax-fuzz`: decoders that are nobody else's business.

/// Reads a line of a harness; says what is wrong with it.
///
/// # Errors
///
/// Returns the words that the harness would be told.
pub fn frame(line: &[u8]) -> Result<(), String> {
    crate::process::decodes(line)
}

/// Reads a stream of the Interactions API; returns how many frames come of it.
///
/// # Errors
///
/// Returns the words in which the attempt would fail.
pub fn interactions(stream: &[u8]) -> Result<usize, String> {
    crate::interactions::decodes(stream)
}
