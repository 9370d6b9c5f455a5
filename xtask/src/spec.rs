//! Documents that name tests name tests that exist.
//!
//! A test is named in backticks as `path#function`, with the path from the root. A row of a table
//! in the specification or the list of invariants names one, or says that it is *pending*.

use crate::tree;
use anyhow::Result;
use std::path::Path;

/// The documents whose tables promise something, and the letters of their numbers.
const PROMISES: &[(&str, &str)] = &[("docs/spec.md", "P"), ("docs/invariants.md", "ILDES")];

/// Looks for every named test; returns how many names there are.
pub(crate) fn check(problems: &mut Vec<String>) -> Result<usize> {
    let mut count = 0;
    for path in tree::files(&["md"])? {
        let text = tree::read(&path)?;
        for (number, line) in (1..).zip(text.lines()) {
            for (file, function) in names(line) {
                count += 1;
                if !exists(file, function)? {
                    let at = path.display();
                    problems.push(format!("{at}:{number}: no {function} in {file}"));
                }
            }
        }
    }
    for (path, letters) in PROMISES {
        let text = tree::read(Path::new(path))?;
        for (number, line) in (1..).zip(text.lines()) {
            if is_row(line, letters) && names(line).is_empty() && !line.contains("*pending*") {
                problems.push(format!("{path}:{number}: neither a test nor *pending*"));
            }
        }
    }
    Ok(count)
}

/// Returns whether the line is a table row that begins with one of the letters and a number.
fn is_row(line: &str, letters: &str) -> bool {
    let first = line.strip_prefix("| ").and_then(|rest| rest.split(" |").next());
    let number = first.and_then(|first| first.strip_prefix(|c| letters.contains(c)));
    number.is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
}

/// Finds what is between backticks and looks like `path.rs#name` or `path.py#name`.
fn names(line: &str) -> Vec<(&str, &str)> {
    let quoted = line.split('`').skip(1).step_by(2);
    let pairs = quoted.filter_map(|text| text.split_once('#'));
    pairs.filter(|(file, _)| file.ends_with(".rs") || file.ends_with(".py")).collect()
}

fn exists(file: &str, function: &str) -> Result<bool> {
    if !tree::root().join(file).is_file() {
        return Ok(false);
    }
    let text = tree::read(Path::new(file))?;
    let starts = [format!("fn {function}("), format!("fn {function}<"), format!("def {function}(")];
    Ok(starts.iter().any(|start| text.contains(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_rows_are_recognised() {
        assert_eq!(names("x `a/b.rs#c` `d#e` `f.py#g`"), [("a/b.rs", "c"), ("f.py", "g")]);
        assert!(is_row("| P1 | text |", "P"));
        assert!(is_row("| D3 | text |", "ID"));
        assert!(!is_row("| Promise | text |", "P"));
    }

    #[test]
    fn a_test_that_exists_is_found_and_another_is_not() {
        let file = "xtask/src/spec.rs";
        assert!(exists(file, "a_test_that_exists_is_found_and_another_is_not").unwrap());
        assert!(!exists(file, concat!("a_test_that_is", "_not_there")).unwrap());
        assert!(!exists("no/such/file.rs", "names").unwrap());
    }
}
