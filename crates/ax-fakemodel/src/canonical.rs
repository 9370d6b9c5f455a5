//! One form for all texts of the same JSON value, and its hash.

use serde_json::Value;

/// Returns the value as compact JSON with the keys of every object in order.
pub(crate) fn text(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

/// Returns the BLAKE3 hash of the canonical text, as 64 hexadecimal digits.
pub(crate) fn hash(value: &Value) -> String {
    blake3::hash(text(value).as_bytes()).to_hex().to_string()
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut keys: Vec<_> = fields.keys().collect();
            keys.sort();
            text.push('{');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write(&fields[key], text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(item, text);
            }
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_keys_and_white_space_do_not_matter() {
        let one: Value =
            serde_json::from_str(r#"{"b": [1, {"y": 2, "x": null}], "a": "é"}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{"a":"é","b":[1,{"x":null,"y":2}]}"#).unwrap();
        assert_eq!(text(&one), r#"{"a":"é","b":[1,{"x":null,"y":2}]}"#);
        assert_eq!(hash(&one), hash(&two));
        let other: Value = serde_json::from_str(r#"{"a":"é","b":[{"x":null,"y":2},1]}"#).unwrap();
        assert_ne!(hash(&one), hash(&other), "the order of a list matters");
    }
}
