//! What may be called, and what it means to call it twice.

use crate::expression::Expression;
use crate::probe::Probe;
use ax_core::session::EffectClass;
use rmcp::model::JsonObject;
use serde::Deserialize;
use serde_json::Value;

/// What holds for calls: of the tools whose names fit a pattern, with the arguments for which a
/// condition is true. The first rule that fits in both ways counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Rule {
    /// A name, in which `*` stands for any text.
    pub(crate) tool: String,
    /// For which arguments; for all unless given.
    when: Option<When>,
    #[serde(default)]
    policy: Verdict,
    #[serde(default)]
    effect: Effect,
    /// How to find out what became of a call that must not happen twice.
    pub(crate) probe: Option<Probe>,
}

/// A condition over the arguments of a call.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
struct When(Expression);

impl TryFrom<String> for When {
    type Error = String;

    fn try_from(source: String) -> Result<Self, String> {
        Expression::compile(&source, &["args"]).map(Self)
    }
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

impl From<Effect> for EffectClass {
    fn from(effect: Effect) -> Self {
        match effect {
            Effect::Read => Self::Read,
            Effect::Idempotent => Self::Idempotent,
            Effect::Once => Self::Once,
        }
    }
}

/// What holds for a call.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) verdict: Verdict,
    pub(crate) effect: EffectClass,
    pub(crate) probe: Option<Probe>,
}

/// How a tool is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Some of its calls may happen twice at most by mistake: a person may have to say what became
    /// of one.
    pub(crate) once: bool,
}

/// What may help when a field of a rule cannot be read.
pub(crate) fn hint(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, field)| field) {
        Some("when") => {
            "write a condition over `args` in the Common Expression Language, such as \
             `has(args.amount) && args.amount <= 100`"
        }
        Some("done") => "write a condition over `result`, such as `result.structuredContent.found`",
        _ => "",
    }
}

impl Rule {
    /// Whether it says how to find out about calls that may happen twice anyway.
    pub(crate) fn probes_in_vain(&self) -> bool {
        self.probe.is_some() && self.effect != Effect::Once
    }
}

/// Returns what holds for a call. What no rule speaks of may be called, and must not happen twice.
///
/// # Errors
///
/// Says which condition is neither true nor false of these arguments: such a call is denied.
pub(crate) async fn of(
    rules: &[Rule],
    tool: &str,
    arguments: &JsonObject,
) -> Result<Policy, String> {
    for rule in rules.iter().filter(|rule| fits(&rule.tool, tool)) {
        if let Some(When(condition)) = &rule.when
            && !condition.holds(vec![("args", Value::from(arguments.clone()))]).await?
        {
            continue;
        }
        let (effect, probe) = (rule.effect.into(), rule.probe.clone());
        return Ok(Policy { verdict: rule.policy, effect, probe });
    }
    Ok(Policy { verdict: Verdict::Allow, effect: EffectClass::Once, probe: None })
}

/// Returns how a tool is offered, unless each call of it would be denied.
pub(crate) fn offer(rules: &[Rule], tool: &str) -> Option<Offer> {
    let (mut allowed, mut once) = (false, false);
    for rule in rules.iter().filter(|rule| fits(&rule.tool, tool)) {
        if rule.policy != Verdict::Deny {
            allowed = true;
            once |= rule.effect == Effect::Once;
        }
        if rule.when.is_none() {
            return allowed.then_some(Offer { once });
        }
    }
    Some(Offer { once: true })
}

/// Whether a name fits a pattern, in which `*` stands for any text.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
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
    use serde_json::json;

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

    fn rules(rules: Value) -> Vec<Rule> {
        serde_json::from_value(rules).unwrap()
    }

    /// What holds for a call, in words; `!` and the reason if it is denied by an error.
    async fn check(rules: &[Rule], tool: &str, arguments: Value, expect: &str) {
        let arguments = arguments.as_object().unwrap().clone();
        let said = match of(rules, tool, &arguments).await {
            Ok(Policy { verdict, effect, .. }) => format!("{verdict:?} {effect:?}"),
            Err(why) => format!("!{why}"),
        };
        assert!(said.starts_with(expect), "{tool} {arguments:?}: {said}, not {expect}");
    }

    #[tokio::test]
    async fn the_first_rule_that_fits_counts() {
        let some = rules(json!([{"tool": "get_*", "effect": "read"},
            {"tool": "rm", "policy": "deny"},
            {"tool": "*", "policy": "ask", "effect": "idempotent"}]));
        check(&some, "get_x", json!({}), "Allow Read").await;
        check(&some, "rm", json!({}), "Deny Once").await;
        check(&some, "put", json!({}), "Ask Idempotent").await;
        check(&[], "x", json!({}), "Allow Once").await;
    }

    #[tokio::test]
    async fn a_rule_with_a_condition_counts_where_it_is_true() {
        let some = rules(json!([
            {"tool": "refund", "when": "args.amount <= 50"},
            {"tool": "ref*", "when": "args.amount <= 500", "policy": "ask"},
            {"tool": "refund", "policy": "deny"},
        ]));
        check(&some, "refund", json!({"amount": 50}), "Allow Once").await;
        check(&some, "refund", json!({"amount": 51}), "Ask Once").await;
        check(&some, "refund", json!({"amount": 501}), "Deny").await;
        // What cannot be said is not allowed, whatever comes after it.
        check(&some, "refund", json!({}), "!`args.amount <= 50` cannot").await;
        check(&some, "refund", json!({"amount": "1"}), "!`args.amount <= 50` cannot").await;
        let odd = rules(json!([{"tool": "*", "when": "args.amount"}]));
        check(&odd, "x", json!({"amount": 1}), "!`args.amount` is neither").await;
    }

    #[test]
    fn a_tool_is_offered_unless_each_call_of_it_is_denied() {
        let once = |once| Some(Offer { once });
        for (some, expect) in [
            (json!([]), once(true)),
            (json!([{"tool": "x", "effect": "read"}]), once(false)),
            (json!([{"tool": "x", "policy": "deny"}]), None),
            (json!([{"tool": "x", "when": "true", "policy": "deny"}]), once(true)),
            (
                json!([{"tool": "x", "when": "true", "effect": "read"},
                    {"tool": "*", "policy": "deny"}]),
                once(false),
            ),
            (
                json!([{"tool": "x", "when": "true", "policy": "deny"},
                    {"tool": "*", "policy": "deny"}, {"tool": "x"}]),
                None,
            ),
        ] {
            assert_eq!(offer(&rules(some.clone()), "x"), expect, "{some}");
        }
    }
}
