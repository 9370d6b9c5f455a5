//! Parameters in the query.

use super::descriptors::{DESCRIPTORS, Field, Type};
use super::{Form, Route};
use ax_engine::Error;
use serde_json::{Map, Value};

/// Left to authentication: a share token, where a browser cannot send a header.
pub(super) const SHARE: &str = "share";

/// The parameters that a route takes in its query.
pub(super) fn parameters(route: &Route) -> impl Iterator<Item = &'static Field> {
    let request = DESCRIPTORS.request(route.rpc);
    request.fields.iter().filter(move |field| {
        let in_path = route.path.contains(&format!("{{{}}}", field.name));
        let taken = match route.form {
            Form::Ask | Form::Follow | Form::Download => true,
            Form::Upload => field.name != "chunk",
            Form::Send => field.name == "namespace",
        };
        taken && !in_path
    })
}

/// Reads a query.
pub(super) fn read(route: &Route, query: &str) -> Result<Map<String, Value>, Error> {
    let mut fields = Map::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name == SHARE {
            continue;
        }
        let field = parameters(route).find(|field| field.name == name || field.json == name);
        let Some(field) = field else {
            let name: String = name.chars().take(80).collect();
            let known: Vec<&str> = parameters(route).map(|field| &*field.json).collect();
            let hint = match known.is_empty() {
                true => "it takes no parameters".to_owned(),
                false => format!("the parameters are {}", known.join(", ")),
            };
            return Err(Error::invalid(format!("{name:?} is not a parameter")).with_hint(hint));
        };
        let before = fields.get_mut(&field.name);
        match before {
            Some(Value::Array(values)) if field.repeated => values.extend(list(field, &value)?),
            Some(_) => return Err(Error::invalid(format!("{} is there twice", field.json))),
            None => {
                let value = if field.repeated {
                    Value::Array(list(field, &value)?)
                } else {
                    single(field, &value)?
                };
                fields.insert(field.name.clone(), value);
            }
        }
    }
    Ok(fields)
}

fn list(field: &Field, value: &str) -> Result<Vec<Value>, Error> {
    value.split(',').map(|value| single(field, value)).collect()
}

fn single(field: &Field, value: &str) -> Result<Value, Error> {
    let refuse = |what: &str| {
        let value: String = value.chars().take(80).collect();
        Err(Error::invalid(format!("{} must be {what}, not {value:?}", field.json)))
    };
    Ok(match field.kind {
        Type::Bool => match value {
            "true" | "1" => true.into(),
            "false" | "0" | "" => false.into(),
            _ => return refuse("true or false"),
        },
        Type::U32 => match value.parse::<u32>() {
            Ok(number) => number.into(),
            Err(_) => return refuse("a whole number below 2^32"),
        },
        Type::U64 => match value.parse::<u64>() {
            Ok(number) => number.into(),
            Err(_) => return refuse("a whole number"),
        },
        Type::Text | Type::Bytes | Type::Enum(_) | Type::Message(_) => value.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::ROUTES;
    use super::*;

    fn check(rpc: &str, query: &str) -> Result<Value, String> {
        let route = ROUTES.iter().find(|route| route.rpc == rpc).unwrap();
        read(route, query).map(Value::Object).map_err(|error| error.message)
    }

    #[test]
    fn parameters_are_read_by_their_types() {
        let read = check("Follow", "after=7&untilIdle=true&no_deltas=1&kinds=note,ask&kinds=step");
        let expect = serde_json::json!({
            "after": 7, "until_idle": true, "no_deltas": true, "kinds": ["note", "ask", "step"],
        });
        assert_eq!(read.unwrap(), expect);
        assert_eq!(check("Follow", "share=x").unwrap(), serde_json::json!({}));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (query, part) in [
            ("after=-1", "after"),
            ("after=99999999999999999999", "after"),
            ("untilIdle=maybe", "untilIdle"),
            ("after=1&after=2", "twice"),
            ("colour=red", "colour"),
            ("session=other", "session"),
        ] {
            let refused = check("Follow", query).unwrap_err();
            assert!(refused.contains(part), "{query}: {refused}");
        }
        assert!(check("ListEvents", "limit=4294967296").unwrap_err().contains("limit"));
        assert!(check("Answer", "via=web").is_err());
    }
}
