//! How long files and lines may be. How long functions may be is clippy's to say.

use crate::tree;
use anyhow::{Result, bail};
use std::path::Path;

const FILE_LINES_MAX: usize = 600;
const LINE_CHARS_MAX: usize = 100;

/// Says which source files and which lines of code are too long.
pub(crate) fn check() -> Result<String> {
    let files = tree::files(&["rs", "py", "proto", "sh", "md"])?;
    let mut problems = Vec::new();
    for path in &files {
        problems.extend(look(path, &tree::read(path)?));
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(format!("{} files", files.len()))
}

fn look(path: &Path, text: &str) -> Vec<String> {
    let prose = path.extension().is_some_and(|extension| extension == "md");
    let source = path.extension().is_some_and(|extension| extension == "rs" || extension == "py");
    let mut problems = Vec::new();
    let count = text.lines().count();
    if source && count > FILE_LINES_MAX {
        problems.push(format!("{}: {count} lines, more than {FILE_LINES_MAX}", path.display()));
    }
    let (mut fenced, mut snapshot) = (false, false);
    for (number, line) in (1..).zip(text.lines()) {
        // The output that a test expects is as long as it is.
        if !prose && line.contains("expect![[r#\"") {
            snapshot = true;
        }
        if snapshot {
            snapshot = !line.contains("\"#]]");
            continue;
        }
        if prose && line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let chars = line.chars().count();
        if chars > LINE_CHARS_MAX && (!prose || fenced) {
            problems.push(format!("{}:{number}: {chars} characters", path.display()));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_of_prose_is_fine_and_one_of_code_is_not() {
        let long = "x".repeat(LINE_CHARS_MAX + 1);
        assert!(look(Path::new("a.md"), &long).is_empty());
        assert_eq!(look(Path::new("a.md"), &format!("```\n{long}\n```\n")).len(), 1);
        assert_eq!(look(Path::new("a.rs"), &long).len(), 1);
    }

    #[test]
    fn the_output_that_a_test_expects_may_be_long() {
        let long = "x".repeat(LINE_CHARS_MAX + 1);
        let text = format!("expect![[r#\"\n{long}\n\"#]];\n{long}\n");
        assert_eq!(look(Path::new("a.rs"), &text), ["a.rs:4: 101 characters"]);
    }

    #[test]
    fn a_long_source_file_is_found() {
        assert_eq!(look(Path::new("a.py"), &"x\n".repeat(FILE_LINES_MAX + 1)).len(), 1);
        assert!(look(Path::new("a.py"), &"x\n".repeat(FILE_LINES_MAX)).is_empty());
    }
}
