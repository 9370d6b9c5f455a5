//! Parts of documents that are written by this program, between two comments.

use crate::tree;
use anyhow::{Context as _, Result};
use std::path::Path;

/// Replaces what stands between `<!-- begin NAME -->` and `<!-- end NAME -->`.
pub(crate) fn write(path: &str, name: &str, content: &str) -> Result<()> {
    let old = tree::read(Path::new(path))?;
    let new = replace(&old, name, content)
        .with_context(|| format!("{path} has no part between markers named {name}"))?;
    std::fs::write(tree::root().join(path), new).with_context(|| format!("write {path}"))
}

fn replace(text: &str, name: &str, content: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- begin {name} -->"), format!("<!-- end {name} -->"));
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n{end}{after}", content.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_part_changes() {
        let text = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n";
        let new = "a\n<!-- begin x -->\nnew\n<!-- end x -->\nb\n";
        assert_eq!(replace(text, "x", "new\n").as_deref(), Some(new));
        assert_eq!(replace(text, "y", "new"), None);
    }
}
