//! Words that have no place in the repository: unfinished work and places on somebody's machine.

use crate::tree;
use anyhow::Result;

/// Split, so that this file does not hold them itself.
const WORDS: &[&str] = &[
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("FIX", "ME"),
    concat!("TO", "DO"),
    concat!("XX", "X:"),
    concat!("HA", "CK"),
    concat!("#[ig", "nore"),
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
];

/// Looks for the words in every text of ours.
pub(crate) fn check(problems: &mut Vec<String>) -> Result<()> {
    for path in tree::files(&["rs", "py", "md", "proto", "toml", "sh", "txt", "yaml", "json"])? {
        let text = tree::read(&path)?;
        for (number, line) in (1..).zip(text.lines()) {
            for word in WORDS.iter().filter(|word| line.contains(**word)) {
                problems.push(format!("{}:{number}: {word:?}", path.display()));
            }
        }
    }
    Ok(())
}
