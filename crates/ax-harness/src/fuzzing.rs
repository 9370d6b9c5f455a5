//! For `ax-fuzz`: decoders that are nobody else's business.

/// Reads a line of a harness; says what is wrong with it.
///
/// # Errors
///
/// Returns the words that the harness would be told.
pub fn frame(line: &[u8]) -> Result<(), String> {
    crate::process::decodes(line)
}
