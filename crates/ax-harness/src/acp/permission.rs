//! What is answered when an agent asks for a permission.

use crate::config::{ConfigError, closest};
use crate::launch::AskResult;
use ax_core::session::{Answer, AskKind, Body, Frame, StepKey};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What the keys of questions begin with.
pub(super) const KEY_PREFIX: &str = "acp:ask:";
/// How much of a title is shown in a question, in characters.
const TITLE_CHARS_MAX: usize = 2_000;

/// What is to be done about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Permit it.
    Allow,
    /// Ask a person.
    Ask,
    /// Refuse it.
    Deny,
}

/// What holds for the requests that fit; the first rule that fits counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// The kind of the tool; any if it is left out.
    kind: Option<String>,
    /// The title of the call, in which `*` stands for any text; any if it is left out.
    title: Option<String>,
    policy: Verdict,
}

/// Reads `permissions`: a word, or a list of rules.
pub(super) fn rules(section: &Value) -> Result<Vec<Rule>, ConfigError> {
    match section {
        Value::Null => Ok(Vec::new()),
        Value::String(_) => {
            let policy = verdict(section, "permissions")?;
            Ok(vec![Rule { kind: None, title: None, policy }])
        }
        Value::Array(rules) => {
            let named = |(at, rule)| (format!("permissions[{at}]"), rule);
            rules.iter().enumerate().map(named).map(|(field, one)| rule(&field, one)).collect()
        }
        _ => Err(ConfigError::new("permissions", "is neither a word nor a list of rules")
            .suggest("write allow, ask or deny, or a list of {kind, title, policy}")),
    }
}

fn rule(field: &str, rule: &Value) -> Result<Rule, ConfigError> {
    const FIELDS: [&str; 3] = ["kind", "title", "policy"];
    let Value::Object(fields) = rule else {
        return Err(
            ConfigError::new(field, "is not a rule").suggest("write {kind: read, policy: allow}")
        );
    };
    if let Some(unknown) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        let wrong = ConfigError::new(&format!("{field}.{unknown}"), "is no field of a rule");
        return Err(match closest(unknown, FIELDS) {
            Some(known) => wrong.suggest(format!("did you mean `{known}`?")),
            None => wrong.suggest("a rule has kind, title and policy"),
        });
    }
    let text = |name: &str| match fields.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(ConfigError::new(&format!("{field}.{name}"), "is not a text")),
    };
    let policy = fields.get("policy").unwrap_or(&Value::Null);
    let policy = verdict(policy, &format!("{field}.policy"))?;
    Ok(Rule { kind: text("kind")?, title: text("title")?, policy })
}

pub(crate) fn verdict(word: &Value, field: &str) -> Result<Verdict, ConfigError> {
    match word.as_str() {
        Some("allow") => Ok(Verdict::Allow),
        Some("ask") => Ok(Verdict::Ask),
        Some("deny") => Ok(Verdict::Deny),
        _ => Err(ConfigError::new(field, "is not one of allow, ask and deny")),
    }
}

/// Whether a text fits a pattern, in which `*` stands for any text.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    let Some((before, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(before) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some(at) = left.find(piece) else { return false };
        left = &left[at + piece.len()..];
    }
    left.ends_with(last)
}

/// A request of the agent that waits for its answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    /// The agent's number for it.
    pub(super) id: Value,
    /// What is to be permitted.
    call: Map<String, Value>,
    options: Vec<Choice>,
}

#[derive(Clone, Debug, PartialEq)]
struct Choice {
    id: String,
    name: String,
    kind: String,
}

impl Request {
    /// Reads a request; `known` is what was said of the call before.
    pub(super) fn of(
        id: Value,
        params: &Value,
        known: Option<&Map<String, Value>>,
    ) -> Option<Self> {
        let mut call = known.cloned().unwrap_or_default();
        for (name, value) in params.get("toolCall")?.as_object()? {
            if !value.is_null() {
                drop(call.insert(name.clone(), value.clone()));
            }
        }
        let options = params.get("options")?.as_array()?.iter();
        let options = options.map(|option| {
            let text = |name: &str| Some(option.get(name)?.as_str()?.to_owned());
            Some(Choice { id: text("optionId")?, name: text("name")?, kind: text("kind")? })
        });
        Some(Self { id, call, options: options.collect::<Option<_>>()? })
    }

    fn text(&self, name: &str) -> &str {
        self.call.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns what the first rule that fits says; a person is asked if none does.
    pub(super) fn verdict(&self, rules: &[Rule]) -> Verdict {
        let (kind, title) = (self.text("kind"), self.text("title"));
        let rule = rules.iter().find(|rule| {
            rule.kind.as_deref().is_none_or(|wanted| wanted == kind)
                && rule.title.as_deref().is_none_or(|pattern| fits(pattern, title))
        });
        rule.map_or(Verdict::Ask, |rule| rule.policy)
    }

    /// Returns the hash of what is asked, the same in every attempt that asks the same.
    fn hash(&self) -> String {
        let mut same = Map::new();
        for name in ["title", "kind", "content", "locations", "rawInput"] {
            let mut value = self.call.get(name).cloned().unwrap_or_default();
            if let Value::Object(input) = &mut value {
                input.retain(|name, _| !OF_THE_DAY.contains(&name.as_str()));
            }
            drop(same.insert(name.into(), value));
        }
        let options = self.options.iter().map(|option| json!([option.name, option.kind]));
        drop(same.insert("options".into(), options.collect()));
        let text = Value::Object(same).to_string();
        blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
    }

    /// Returns the key of the question; equal requests of one attempt are counted.
    pub(super) fn key(&self, seen: &mut BTreeMap<String, u32>) -> StepKey {
        let hash = self.hash();
        let count = seen.entry(hash.clone()).or_default();
        *count += 1;
        format!("{KEY_PREFIX}{hash}:{count}").into()
    }

    /// Whether a yes or a no says all: there are no two ways to permit it this once.
    fn is_simple(&self) -> bool {
        let once = self.options.iter().filter(|option| option.kind == "allow_once");
        once.count() <= 1
    }

    /// Returns the question to a person.
    pub(super) fn question(&self, key: StepKey) -> Frame {
        let title: String = self.text("title").chars().take(TITLE_CHARS_MAX).collect();
        let what = if title.is_empty() { self.text("toolCallId").to_owned() } else { title };
        let names = || self.options.iter().map(|option| option.name.clone()).collect();
        let (kind, choices) = if self.is_simple() {
            (AskKind::Approval, Vec::new())
        } else {
            (AskKind::Choice, names())
        };
        Frame::Ask {
            key,
            kind,
            prompt: format!("May the agent do this? {what}"),
            choices,
            details: Some(Body::Text(Value::Object(self.call.clone()).to_string())),
            expires_millis: None,
        }
    }

    fn first_of(&self, kinds: [&str; 2]) -> Option<&str> {
        let of_kind = |kind| self.options.iter().find(|option| option.kind == kind);
        kinds.into_iter().find_map(of_kind).map(|option| option.id.as_str())
    }

    /// Returns what the agent is told.
    pub(super) fn outcome(&self, allowed: bool) -> Value {
        // What is permitted for good would never be asked again, nor be in the log.
        let id = if allowed {
            self.first_of(["allow_once", "allow_always"])
        } else {
            self.first_of(["reject_once", "reject_always"])
        };
        outcome(id)
    }

    /// Returns what the agent is told of what a person said.
    pub(super) fn answered(&self, result: &AskResult) -> Value {
        match result {
            AskResult::Answered(Answer::Approve) => self.outcome(true),
            AskResult::Answered(Answer::Choice(choice, _)) => {
                let chosen = self.options.iter().find(|option| option.name == *choice);
                chosen.map_or_else(|| self.outcome(false), |option| outcome(Some(&option.id)))
            }
            AskResult::Answered(Answer::Deny(_) | Answer::Text(_)) | AskResult::Expired => {
                self.outcome(false)
            }
        }
    }
}

fn outcome(id: Option<&str>) -> Value {
    match id {
        Some(id) => json!({"outcome": {"outcome": "selected", "optionId": id}}),
        None => cancelled(),
    }
}

/// What agents make anew each time and put beside what they ask for: numbers of calls, turns and
/// processes, and clocks. Whatever else differs is another request: an account, say.
const OF_THE_DAY: [&str; 10] = [
    "call_id",
    "callId",
    "toolCallId",
    "tool_call_id",
    "approval_id",
    "process_id",
    "turn_id",
    "turnId",
    "started_at_ms",
    "completed_at_ms",
];

/// What the agent is told when the turn is canceled.
pub(super) fn cancelled() -> Value {
    json!({"outcome": {"outcome": "cancelled"}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(call: &Value, kinds: &[&str]) -> Request {
        let option =
            |kind: &&str| json!({"optionId": format!("o-{kind}"), "name": kind, "kind": kind});
        let options: Vec<Value> = kinds.iter().map(option).collect();
        let params = json!({"sessionId": "s", "toolCall": call, "options": options});
        Request::of(json!(7), &params, None).unwrap()
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rules = rules(&json!([
            {"kind": "read", "policy": "allow"},
            {"title": "git push*", "policy": "deny"},
            {"kind": "execute", "title": "git *", "policy": "allow"},
        ]))
        .unwrap();
        for (kind, title, expect) in [
            ("read", "anything", Verdict::Allow),
            ("execute", "git push origin", Verdict::Deny),
            ("execute", "git status", Verdict::Allow),
            ("edit", "git status", Verdict::Ask),
            ("execute", "rm -r /", Verdict::Ask),
        ] {
            let asked = request(&json!({"toolCallId": "c", "title": title, "kind": kind}), &[]);
            assert_eq!(asked.verdict(&rules), expect, "{kind} {title}");
        }
    }

    #[test]
    fn the_same_request_has_the_same_key_in_each_attempt() {
        let call = |id: &str, path: &str| {
            let input = json!({"call_id": id, "process_id": id, "completed_at_ms": id, "p": path});
            request(&json!({"toolCallId": id, "title": "t", "rawInput": input}), &["allow_once"])
        };
        let key = |request: &Request| request.key(&mut BTreeMap::new());
        assert_eq!(key(&call("a", "x")), key(&call("b", "x")));
        assert_ne!(key(&call("a", "x")), key(&call("a", "y")));
        let to = |account: &str| {
            let input = json!({"arguments": {"account_id": account}, "user_id": account});
            request(&json!({"toolCallId": "c", "title": "t", "rawInput": input}), &["allow_once"])
        };
        assert_ne!(key(&to("a")), key(&to("b")), "a yes is for what it was given for");
        let mut seen = BTreeMap::new();
        let (first, second) = (call("a", "x").key(&mut seen), call("b", "x").key(&mut seen));
        assert_ne!(first, second, "equal requests of one attempt are counted");
    }

    #[test]
    fn what_is_permitted_is_permitted_once() {
        let call = json!({"toolCallId": "c", "title": "t"});
        let selected =
            |id: &str| json!({"outcome": {"outcome": "selected", "optionId": format!("o-{id}")}});
        let all = ["allow_always", "allow_once", "reject_once"];
        assert_eq!(request(&call, &all).outcome(true), selected("allow_once"));
        assert_eq!(request(&call, &all).outcome(false), selected("reject_once"));
        assert_eq!(request(&call, &["allow_always"]).outcome(true), selected("allow_always"));
        assert_eq!(request(&call, &["allow_always"]).outcome(false), cancelled());
        let deny = AskResult::Answered(Answer::Deny("no".into()));
        assert_eq!(request(&call, &all).answered(&deny), selected("reject_once"));
        assert_eq!(request(&call, &all).answered(&AskResult::Expired), selected("reject_once"));
    }

    #[test]
    fn two_ways_to_permit_are_a_choice() {
        let params = json!({"toolCall": {"toolCallId": "c"}, "options": [
            {"optionId": "1", "name": "go slowly", "kind": "allow_once"},
            {"optionId": "2", "name": "go fast", "kind": "allow_once"},
        ]});
        let request = Request::of(json!(1), &params, None).unwrap();
        let Frame::Ask { kind, choices, .. } = request.question("k".into()) else { panic!() };
        assert_eq!((kind, choices.len()), (AskKind::Choice, 2));
        let fast = AskResult::Answered(Answer::Choice("go fast".into(), String::new()));
        let told = json!({"outcome": {"outcome": "selected", "optionId": "2"}});
        assert_eq!(request.answered(&fast), told);
    }
}
