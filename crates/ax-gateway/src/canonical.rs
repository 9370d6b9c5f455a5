//! The one way to write a JSON value, so that equal values have equal hashes.

use ax_core::session::Digest;
use serde::Serialize;
use serde_json::Value;

/// Returns the BLAKE3 hash of a value's canonical form.
pub fn hash(value: &Value) -> Digest {
    let mut text = Vec::new();
    write(value, &mut text);
    Digest(*blake3::hash(&text).as_bytes())
}

/// Writes a value without spaces, the fields of objects in the order of their names' bytes.
fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            out.push(b'{');
            for (at, (name, value)) in fields.into_iter().enumerate() {
                out.extend((at > 0).then_some(b','));
                plain(name, out);
                out.push(b':');
                write(value, out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                out.extend((at > 0).then_some(b','));
                write(item, out);
            }
            out.push(b']');
        }
        other => plain(other, out),
    }
}

fn plain(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("what is in memory can be written");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_fields_does_not_matter() {
        let mut text = Vec::new();
        write(&json!({"b": [1, {"d": null, "c": "x\n"}], "a": 1.5}), &mut text);
        assert_eq!(String::from_utf8(text).unwrap(), r#"{"a":1.5,"b":[1,{"c":"x\n","d":null}]}"#);
    }
}
