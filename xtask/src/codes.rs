//! Every error code has a page, and every page is of a code.

use crate::tree;
use anyhow::Result;
use std::collections::BTreeSet;
use std::path::Path;

const PAGES: &str = "docs/errors";
/// Where the codes are defined, as numbers.
const DEFINED: &str = "crates/ax-engine/src/error.rs";

/// Compares codes in the sources with pages; returns how many codes there are.
pub(crate) fn check(problems: &mut Vec<String>) -> Result<usize> {
    let mut codes = BTreeSet::new();
    for path in tree::files(&["rs", "py"])? {
        // Tests make codes up.
        let tests = path.components().any(|part| part.as_os_str() == "tests");
        if !tests && !path.starts_with("xtask") {
            codes.extend(written(&tree::read(&path)?));
        }
    }
    if tree::root().join(DEFINED).exists() {
        codes.extend(defined(&tree::read(Path::new(DEFINED))?));
    }
    let mut pages = BTreeSet::new();
    for path in tree::files(&["md"])? {
        if path.parent() == Some(Path::new(PAGES)) {
            pages.extend(path.file_stem().and_then(|stem| stem.to_str()).and_then(code_at));
        }
    }
    for code in codes.difference(&pages) {
        problems.push(format!("{PAGES}/AX{code}.md is missing"));
    }
    for code in pages.difference(&codes) {
        problems.push(format!("{PAGES}/AX{code}.md is of a code that nothing has"));
    }
    Ok(codes.len())
}

/// Finds `AX` and four digits in a text.
fn written(text: &str) -> Vec<String> {
    text.match_indices("AX").filter_map(|(at, _)| code_at(&text[at..])).collect()
}

/// Returns the four digits of a text that begins with a code.
fn code_at(text: &str) -> Option<String> {
    let digits: String =
        text.strip_prefix("AX")?.chars().take_while(char::is_ascii_digit).take(5).collect();
    (digits.len() == 4).then_some(digits)
}

/// Finds the lines `Name = 1234, retryable …` of the definition.
fn defined(text: &str) -> Vec<String> {
    let numbers = text.lines().filter_map(|line| line.split_once(", retryable "));
    let numbers = numbers.filter_map(|(before, _)| before.rsplit_once(" = "));
    let numbers = numbers.map(|(_, number)| number.to_owned());
    numbers.filter(|number| number.len() == 4 && number.parse::<u16>().is_ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_where_they_are_written_and_defined() {
        assert_eq!(written("see AX1234, not AX12 or AX12345 or TAXI"), ["1234"]);
        assert_eq!(defined("  Full = 2003, retryable true, \"AX\";\nelse = 1;"), ["2003"]);
    }
}
