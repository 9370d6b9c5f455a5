//! How to find out what became of a call that must not happen twice: by calling another tool, which
//! changes nothing.

use crate::expression::Expression;
use rmcp::model::{CallToolResult, JsonObject, MetaObject};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Says of a recorded result, in its `_meta`, that a probe returned it.
const MARK: &str = "dev.agentexecutor/probe";
/// The names that stand for something in what a probe is asked.
const NAMES: [&str; 2] = ["args", "key"];

/// A tool that knows what became of a call.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Probe {
    /// Its name, at the same tool server.
    pub(crate) tool: String,
    /// What it is asked; `${…}` in a text is an expression over `args` and `key`.
    #[serde(default, deserialize_with = "templates")]
    args: Vec<(String, Template)>,
    /// Whether the call was carried out: an expression over `result`, `args` and `key`.
    done: Done,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Done(Expression);

impl TryFrom<String> for Done {
    type Error = String;

    fn try_from(source: String) -> Result<Self, String> {
        let [args, key] = NAMES;
        Expression::compile(&source, &["result", args, key]).map(Self)
    }
}

/// A value with places to be filled in.
#[derive(Clone, Debug)]
enum Template {
    Plain(Value),
    /// The value of one expression.
    Value(Expression),
    Text(Vec<Piece>),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    Value(Expression),
}

fn templates<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, Template)>, D::Error> {
    let fields = JsonObject::deserialize(from)?;
    let read = |(name, value): (String, Value)| {
        let template = Template::read(value).map_err(|why| format!("{name:?} {why}"))?;
        Ok((name, template))
    };
    let fields: Result<Vec<_>, String> = fields.into_iter().map(read).collect();
    fields.map_err(serde::de::Error::custom)
}

impl Template {
    fn read(value: Value) -> Result<Self, String> {
        Ok(match value {
            Value::String(text) if text.contains("${") => Self::text(&text)?,
            Value::Array(items) => {
                Self::List(items.into_iter().map(Self::read).collect::<Result<_, _>>()?)
            }
            Value::Object(fields) => {
                let fields = fields.into_iter();
                let fields = fields.map(|(name, value)| Ok((name, Self::read(value)?)));
                Self::Object(fields.collect::<Result<_, String>>()?)
            }
            plain => Self::Plain(plain),
        })
    }

    /// Reads a text with expressions. One ends at the first `}` with which it can be read.
    fn text(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let mut wrong = "has a `${` without a `}`".to_owned();
            let ends = after.match_indices('}').map(|(at, _)| at);
            let read = ends.into_iter().find_map(|at| {
                let read = Expression::compile(&after[..at], &NAMES);
                read.map_err(|why| wrong = why).ok().map(|read| (read, at))
            });
            let (expression, at) = read.ok_or(wrong)?;
            pieces.push(Piece::Value(expression));
            rest = &after[at + 1..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(match pieces.as_slice() {
            [Piece::Value(expression)] => Self::Value(expression.clone()),
            _ => Self::Text(pieces),
        })
    }

    async fn fill(&self, args: &Value, key: &str) -> Result<Value, String> {
        let names = || NAMES.into_iter().zip([args.clone(), Value::from(key)]).collect();
        Ok(match self {
            Self::Plain(value) => value.clone(),
            Self::Value(expression) => expression.evaluate(names()).await?,
            Self::Text(pieces) => {
                let mut text = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Text(plain) => text.push_str(plain),
                        Piece::Value(expression) => match expression.evaluate(names()).await? {
                            Value::String(value) => text.push_str(&value),
                            other => text.push_str(&other.to_string()),
                        },
                    }
                }
                Value::from(text)
            }
            Self::List(items) => {
                let mut list = Vec::new();
                for item in items {
                    list.push(Box::pin(item.fill(args, key)).await?);
                }
                Value::from(list)
            }
            Self::Object(fields) => Value::Object(fill(fields, args, key).await?),
        })
    }
}

async fn fill(
    fields: &[(String, Template)],
    args: &Value,
    key: &str,
) -> Result<JsonObject, String> {
    let mut filled = JsonObject::new();
    for (name, template) in fields {
        filled.insert(name.clone(), Box::pin(template.fill(args, key)).await?);
    }
    Ok(filled)
}

impl Probe {
    /// What the probe is asked about a call with these arguments and this key.
    pub(crate) async fn arguments(
        &self,
        args: &JsonObject,
        key: &str,
    ) -> Result<JsonObject, String> {
        fill(&self.args, &Value::from(args.clone()), key).await
    }

    /// Whether the call was carried out, by what the probe returned.
    ///
    /// # Errors
    ///
    /// Says why that cannot be known.
    pub(crate) async fn is_done(
        &self,
        result: &CallToolResult,
        args: &JsonObject,
        key: &str,
    ) -> Result<bool, String> {
        if result.is_error == Some(true) {
            return Err(format!("{} returned an error", self.tool));
        }
        let result = serde_json::to_value(result).map_err(|error| error.to_string())?;
        let [args_name, key_name] = NAMES;
        let names = vec![
            ("result", result),
            (args_name, Value::from(args.clone())),
            (key_name, Value::from(key)),
        ];
        self.done.0.holds(names).await
    }

    /// Marks what a probe returned as the result of the call that it is about.
    pub(crate) fn mark(&self, mut result: CallToolResult) -> CallToolResult {
        let meta = result.meta.get_or_insert_with(MetaObject::new);
        meta.insert(MARK.into(), Value::from(self.tool.as_str()));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn what_a_probe_is_asked_is_made_of_the_call() {
        let probe: Probe = serde_json::from_value(json!({
            "tool": "find",
            "args": {"id": "${args.order.id}", "note": "for ${args.to}: ${key}!", "deep": [1,
                {"all": "${args.order}", "map": "${ {'a': args.to} }"}], "dollar": "5$ {x}"},
            "done": "result.structuredContent.key == key",
        }))
        .unwrap();
        let args = json!({"order": {"id": 7}, "to": "Ann"}).as_object().unwrap().clone();
        let asked = probe.arguments(&args, "k/1").await.unwrap();
        let expect = json!({"id": 7, "note": "for Ann: k/1!", "deep": [1,
            {"all": {"id": 7}, "map": {"a": "Ann"}}], "dollar": "5$ {x}"});
        assert_eq!(Value::from(asked), expect);
        let none = JsonObject::new();
        assert!(probe.arguments(&none, "k/1").await.unwrap_err().contains("cannot be evaluated"));

        let found = |key| CallToolResult::structured(json!({"key": key}));
        assert_eq!(probe.is_done(&found("k/1"), &args, "k/1").await, Ok(true));
        assert_eq!(probe.is_done(&found("k/2"), &args, "k/1").await, Ok(false));
        let mut failed = found("k/1");
        failed.is_error = Some(true);
        assert!(probe.is_done(&failed, &args, "k/1").await.is_err());
        let other = CallToolResult::structured(json!({}));
        assert!(probe.is_done(&other, &args, "k/1").await.is_err());
        assert_eq!(probe.mark(found("k")).meta.unwrap()[MARK], "find");
    }

    #[test]
    fn what_is_wrong_with_a_probe_is_said_when_it_is_read() {
        for (probe, expect) in [
            (json!({"tool": "find"}), "done"),
            (json!({"tool": "find", "done": "result."}), "is not an expression"),
            (json!({"tool": "find", "done": "other"}), "names `other`"),
            (json!({"tool": "find", "args": {"a": "${args.x"}, "done": "true"}), "without a `}`"),
            (json!({"tool": "find", "args": {"a": ["${x}"]}, "done": "true"}), "names `x`"),
        ] {
            let said = serde_json::from_value::<Probe>(probe.clone()).unwrap_err().to_string();
            assert!(said.contains(expect), "{probe}: {said}");
        }
    }
}
