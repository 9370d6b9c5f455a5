//! Relative links and paths in documents lead somewhere.

use crate::tree;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// What begins with one of these, between backticks, is a path from the root.
const ROOTS: &[&str] = &["crates/", "docs/", "sdk/", "xtask/", "examples/", "changes/", ".ci/"];

/// Follows every link; returns how many there are.
pub(crate) fn check(problems: &mut Vec<String>) -> Result<usize> {
    let mut count = 0;
    for path in tree::files(&["md"])? {
        let text = tree::read(&path)?;
        for (number, target) in links(&text) {
            count += 1;
            if let Some(problem) = follow(&path, &text, &target)? {
                problems.push(format!("{}:{number}: {problem}", path.display()));
            }
        }
        for (number, named) in paths(&text) {
            if !tree::root().join(named).exists() {
                problems.push(format!("{}:{number}: {named} does not exist", path.display()));
            }
        }
    }
    Ok(count)
}

/// Returns what is wrong with a link, if anything.
fn follow(from: &Path, text: &str, target: &str) -> Result<Option<String>> {
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    if file.is_empty() {
        let missing = !anchors(text).iter().any(|one| one == anchor);
        return Ok(missing.then(|| format!("no heading for #{anchor}")));
    }
    let to: PathBuf = from.parent().unwrap_or_else(|| Path::new("")).join(file);
    if !tree::root().join(&to).exists() {
        return Ok(Some(format!("{file} does not exist")));
    }
    if anchor.is_empty() || to.extension().is_none_or(|extension| extension != "md") {
        return Ok(None);
    }
    let missing = !anchors(&tree::read(&to)?).iter().any(|one| one == anchor);
    Ok(missing.then(|| format!("{file} has no heading for #{anchor}")))
}

/// Finds the targets of inline links that are relative, with their line numbers.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Every second piece is inside backticks.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        for after in prose.split("](").skip(1) {
            let Some((target, _)) = after.split_once(')') else { continue };
            let target = target.split_whitespace().next().unwrap_or_default();
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !target.is_empty() {
                found.push((number, target.to_owned()));
            }
        }
    }
    found
}

/// Finds paths between backticks; what has placeholders or wildcards is none.
fn paths(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let quoted = line.split('`').skip(1).step_by(2);
        let pattern = |path: &str| {
            path.contains(|c: char| " *{<|…".contains(c))
                || path.contains("NNNN")
                || path.contains("##")
        };
        let ours = |path: &&str| ROOTS.iter().any(|root| path.starts_with(root));
        let named = quoted.filter(ours).filter(|path| !pattern(path));
        let files = named.map(|path| path.split_once('#').map_or(path, |(file, _)| file));
        found.extend(files.map(|path| (number, path)));
    }
    found
}

/// Returns the anchors that headings get.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

fn anchor(heading: &str) -> String {
    let lower = heading.to_lowercase();
    let kept = lower.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_code_and_to_elsewhere_are_left_alone() {
        let text = "[a](b.md) `[c](d.md)` [e](https://f)\n```\n[g](h)\n```\n[i](#j \"k\")\n";
        assert_eq!(links(text), [(1, "b.md".to_owned()), (5, "#j".to_owned())]);
    }

    #[test]
    fn paths_are_found_and_patterns_are_not() {
        let text = "`docs/a.md` `crates/b.rs#c` `docs/errors/AX####.md` `docs/*.md` `else/d`";
        assert_eq!(paths(text), [(1, "docs/a.md"), (1, "crates/b.rs")]);
    }

    #[test]
    fn a_heading_becomes_an_anchor() {
        assert_eq!(
            anchor("The way of `one` input, step by step"),
            "the-way-of-one-input-step-by-step"
        );
    }
}
