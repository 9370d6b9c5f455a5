//! When two parts of requests are the same: their canonical forms are (`docs/formats/gateway.md`).

use super::Wire;
use crate::canonical;
use ax_core::session::Digest;
use regex_lite::Regex;
use serde_json::Value;
use std::sync::Arc;

/// Hashes parts of one wire format.
#[derive(Clone, Debug)]
pub(crate) struct Canon {
    wire: Wire,
    /// What is as if it were not there, in any text: clocks, say.
    ignored: Arc<[Regex]>,
}

impl Canon {
    pub(crate) const fn new(wire: Wire, ignored: Arc<[Regex]>) -> Self {
        Self { wire, ignored }
    }

    pub(crate) const fn wire(&self) -> Wire {
        self.wire
    }

    /// Returns the hash of a part's canonical form.
    pub(crate) fn hash(&self, part: &Value) -> Digest {
        let mut part = part.clone();
        clean(&mut part);
        self.hash_clean(&part)
    }

    /// The same for a part that was cleaned, which most often need not be copied.
    pub(super) fn hash_clean(&self, part: &Value) -> Digest {
        if self.wire != Wire::Responses && self.ignored.is_empty() {
            return canonical::hash(part);
        }
        let mut part = part.clone();
        if self.wire == Wire::Responses {
            unnamed(&mut part);
        }
        self.cut(&mut part);
        canonical::hash(&part)
    }

    fn cut(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                for pattern in self.ignored.iter() {
                    if pattern.is_match(text) {
                        *text = pattern.replace_all(text, "").into_owned();
                    }
                }
            }
            Value::Object(fields) => fields.values_mut().for_each(|value| self.cut(value)),
            Value::Array(items) => items.iter_mut().for_each(|item| self.cut(item)),
            _ => {}
        }
    }
}

/// Takes out the name of an item: clients make one up for what the model did not say.
fn unnamed(part: &mut Value) {
    if let Value::Object(item) = part
        && item.get("type").is_none_or(|kind| kind != "item_reference")
    {
        drop(item.remove("id"));
    }
}

/// Takes out what vendors and clients leave out or write as null as they please, and marks that
/// only steer a cache.
pub(super) fn clean(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| !value.is_null() && name != "cache_control");
            fields.values_mut().for_each(clean);
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn canon(wire: Wire, ignored: &[&str]) -> Canon {
        let ignored: Vec<_> = ignored.iter().map(|text| Regex::new(text).unwrap()).collect();
        Canon::new(wire, ignored.into())
    }

    #[test]
    fn what_is_ignored_makes_no_difference_and_all_else_does() {
        let canon = canon(Wire::Chat, &["Wall time: [0-9.]+ seconds"]);
        let said = |text: &str| canon.hash(&json!({"content": [{"text": text}]}));
        assert_eq!(said("Wall time: 0.1 seconds\n7"), said("Wall time: 22 seconds\n7"));
        assert_ne!(said("Wall time: 0.1 seconds\n7"), said("Wall time: 0.1 seconds\n8"));
        assert_ne!(said("Wall time: 0.1 seconds"), said("Wall time: long"));
    }

    #[test]
    fn an_item_of_responses_has_no_name_unless_it_is_one() {
        let responses = canon(Wire::Responses, &[]);
        let item = |kind: &str, id: &str| responses.hash(&json!({"type": kind, "id": id, "x": 1}));
        assert_eq!(item("message", "msg_1"), item("message", "msg_2"));
        assert_ne!(item("item_reference", "msg_1"), item("item_reference", "msg_2"));
        let chat = canon(Wire::Chat, &[]);
        assert_ne!(chat.hash(&json!({"id": "1"})), chat.hash(&json!({"id": "2"})));
    }
}
