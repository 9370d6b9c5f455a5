//! The one way to write a JSON value, so that equal values have equal hashes.

use ax_core::session::Digest;
use serde_json::Value;

/// Returns the BLAKE3 hash of a value's canonical form.
pub fn hash(value: &Value) -> Digest {
    let mut text = String::new();
    write(value, &mut text);
    Digest(*blake3::hash(text.as_bytes()).as_bytes())
}

/// Writes a value without spaces, the fields of objects in the order of their names' bytes.
fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (at, (name, value)) in fields.into_iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                write(item, out);
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_fields_does_not_matter() {
        let mut text = String::new();
        write(&json!({"b": [1, {"d": null, "c": "x\n"}], "a": 1.5}), &mut text);
        assert_eq!(text, r#"{"a":1.5,"b":[1,{"c":"x\n","d":null}]}"#);
    }
}
