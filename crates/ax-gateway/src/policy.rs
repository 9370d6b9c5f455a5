//! What may be called, and what it means to call it twice.

use ax_core::session::EffectClass;
use serde::Deserialize;

/// What holds for the tools whose names fit a pattern; the first rule that fits counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Rule {
    /// A name, in which `*` stands for any text.
    pub(crate) tool: String,
    #[serde(default)]
    policy: Verdict,
    #[serde(default)]
    effect: Effect,
}

/// Whether a tool may be called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// Yes.
    #[default]
    Allow,
    /// If a person says so, each time.
    Ask,
    /// No; it is not even offered.
    Deny,
}

/// What it means to call a tool a second time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Effect {
    Read,
    Idempotent,
    #[default]
    Once,
}

/// What holds for a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) verdict: Verdict,
    pub(crate) effect: EffectClass,
}

/// Returns what holds for a tool. What no rule speaks of may be called, and must not happen twice.
pub(crate) fn of(rules: &[Rule], tool: &str) -> Policy {
    let rule = rules.iter().find(|rule| fits(&rule.tool, tool));
    let (verdict, effect) = rule.map_or_else(Default::default, |rule| (rule.policy, rule.effect));
    let effect = match effect {
        Effect::Read => EffectClass::Read,
        Effect::Idempotent => EffectClass::Idempotent,
        Effect::Once => EffectClass::Once,
    };
    Policy { verdict, effect }
}

/// Whether a name fits a pattern, in which `*` stands for any text.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((before, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(before) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some(at) = left.find(piece) else { return false };
        left = &left[at + piece.len()..];
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, expect) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("get_*", "get_order", true),
            ("get_*", "forget_order", false),
            ("*_order", "get_order", true),
            ("g*_o*r", "get_order", true),
            ("g*_o*x", "get_order", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(fits(pattern, name), expect, "{pattern} {name}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rules = r#"[{"tool": "get_*", "effect": "read"}, {"tool": "rm", "policy": "deny"},
            {"tool": "*", "policy": "ask", "effect": "idempotent"}]"#;
        let rules: Vec<Rule> = serde_json::from_str(rules).unwrap();
        let check = |tool, verdict, effect| {
            assert_eq!(of(&rules, tool), Policy { verdict, effect }, "{tool}");
        };
        check("get_x", Verdict::Allow, EffectClass::Read);
        check("rm", Verdict::Deny, EffectClass::Once);
        check("put", Verdict::Ask, EffectClass::Idempotent);
        let policy = Policy { verdict: Verdict::Allow, effect: EffectClass::Once };
        assert_eq!(of(&[], "x"), policy);
    }
}
