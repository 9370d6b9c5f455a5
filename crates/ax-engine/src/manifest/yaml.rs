//! YAML as a tree that knows its lines.

use super::{Place, Problem};
use ax_core::session::Digest;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{MessageFormatter as _, Options, Spanned};
use std::fmt;

/// The most values of a manifest, what aliases repeat included.
const NODES_MAX: usize = 20_000;
/// How deep a manifest may be nested.
const DEPTH_MAX: usize = 32;
/// The most bytes of all texts together, what aliases repeat included.
const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// A value and where it is.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it is.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A finite number.
    Number(serde_json::Number),
    /// A text.
    Text(String),
    /// Values in their order.
    List(Vec<Node>),
    /// In the order of the document; no key is there twice.
    Map(Vec<Field>),
}

/// A key of a map and what is under it.
#[derive(Clone, Debug)]
pub struct Field {
    /// The key.
    pub name: String,
    /// Where the key is.
    pub place: Place,
    /// What is under it.
    pub node: Node,
}

/// Reads one document; `what` says what it is, such as `manifest`.
///
/// # Errors
///
/// Says what is wrong if it is not YAML, is empty, or is larger or deeper than anything sensible.
pub fn read(text: &str, what: &str) -> Result<Node, Problem> {
    if let Some(place) = first_control(text) {
        let message = format!("the {what} is not text: it has control characters");
        return Err(Problem::new("", message)
            .at(place)
            .with_hint(format!("a {what} is a YAML file in UTF-8")));
    }
    let blank = |line: &str| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---" || line == "..."
    };
    if text.trim_start_matches('\u{feff}').lines().all(blank) {
        return Err(Problem::new("", format!("the {what} is empty"))
            .with_hint("`ax agent init` writes one to begin with"));
    }
    let node: Result<Spanned<Value>, _> = serde_saphyr::from_str_with_options(text, options());
    node.map(Node::from).map_err(|error| problem(error.without_snippet(), what))
}

fn problem(error: &serde_saphyr::Error, what: &str) -> Problem {
    let problem = match error {
        serde_saphyr::Error::Budget { breach, .. } => match breach {
            BudgetBreach::Documents { .. } => {
                Problem::new("", "the file has more than one document")
                    .with_hint(format!("put each {what} in a file of its own"))
            }
            _ => {
                let message = format!("the {what} is too large or too deeply nested");
                Problem::new("", message)
            }
        },
        _ => {
            let message = serde_saphyr::UserMessageFormatter.format_message(error);
            let plain: String = message.chars().filter(|c| !c.is_control()).collect();
            Problem::new("", format!("not valid YAML: {plain}"))
        }
    };
    match error.location().and_then(place_of) {
        Some(place) => problem.at(place),
        None => problem,
    }
}

/// Finds what no YAML file contains (YAML 1.2.2 §5.1), so that a binary file is called one.
fn first_control(text: &str) -> Option<Place> {
    let control = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    let at = text.find(control)?;
    let before = &text[..at];
    let line = before.matches('\n').count() as u64 + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() as u64 + 1;
    Some(Place { line, column })
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: 4 * NODES_MAX,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_recorded_anchor_events: 4 * NODES_MAX,
            max_recorded_anchor_bytes: TEXT_BYTES_MAX,
            max_total_scalar_bytes: TEXT_BYTES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: NODES_MAX,
            max_replay_stack_depth: 16,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Merge,
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::Reject,
        with_snippet: false,
    }
}

fn place_of(location: serde_saphyr::Location) -> Option<Place> {
    let place = Place { line: location.line(), column: location.column() };
    (place.line > 0).then_some(place)
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        let place = place_of(spanned.referenced).unwrap_or(Place { line: 1, column: 1 });
        Self { place, value: spanned.value }
    }
}

impl Node {
    /// Returns what is under a key of a map.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(fields) => {
                let field = fields.iter().find(|field| field.name == key);
                field.map(|field| &field.node)
            }
            _ => None,
        }
    }

    /// Returns where a path is, or what of it there is.
    pub fn nearest(&self, path: &str) -> Option<Place> {
        let mut node = self;
        for name in path.split(['.', '[']).take_while(|name| !name.is_empty()) {
            let index = name.strip_suffix(']').and_then(|index| index.parse::<usize>().ok());
            let next = match (&node.value, index) {
                (Value::List(items), Some(index)) => items.get(index),
                _ => node.get(name),
            };
            let Some(next) = next else { break };
            node = next;
        }
        Some(node.place)
    }

    /// Says what it is.
    pub fn what(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Bool(value) => format!("{value}"),
            Value::Number(value) => format!("the number {value}"),
            Value::Text(text) => {
                let short: String = text.chars().take(40).collect();
                let more = if short.len() < text.len() { "…" } else { "" };
                format!("the text {:?}", format!("{short}{more}"))
            }
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a map".into(),
        }
    }

    /// Converts it to JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(value) => value.clone().into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(fields) => {
                fields.iter().map(|field| (field.name.clone(), field.node.to_json())).collect()
            }
        }
    }

    /// Hashes what it says: its JSON without spaces, the keys of each map in the order of bytes.
    pub(super) fn digest(&self) -> Digest {
        let mut text = String::new();
        self.write_canonical(&mut text);
        Digest(blake3::derive_key("agentexecutor manifest v1", text.as_bytes()))
    }

    fn write_canonical(&self, out: &mut String) {
        let between = |out: &mut String, index| {
            if index > 0 {
                out.push(',');
            }
        };
        match &self.value {
            Value::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    between(out, index);
                    item.write_canonical(out);
                }
                out.push(']');
            }
            Value::Map(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_by(|one, other| one.name.cmp(&other.name));
                out.push('{');
                for (index, field) in fields.into_iter().enumerate() {
                    between(out, index);
                    out.push_str(&serde_json::Value::from(field.name.as_str()).to_string());
                    out.push(':');
                    field.node.write_canonical(out);
                }
                out.push('}');
            }
            _ => out.push_str(&self.to_json().to_string()),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        let number = serde_json::Number::from_f64(value);
        number.map(Value::Number).ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Spanned<Value>>()? {
            items.push(item.into());
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            if fields.len() >= NODES_MAX {
                return Err(A::Error::custom("there are too many fields"));
            }
            let node = Node::from(access.next_value::<Spanned<Value>>()?);
            let place = place_of(key.referenced).unwrap_or(node.place);
            fields.push(Field { name: key.value, place, node });
        }
        Ok(Value::Map(fields))
    }
}
