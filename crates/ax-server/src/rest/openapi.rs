//! The OpenAPI document, made from the proto files and the table of routes.

use super::descriptors::{DESCRIPTORS, Field, Message, Type};
use super::{Form, ROUTES, Route, query};
use crate::auth::role;
use crate::kinds;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// The document (OpenAPI 3.1), as it is served and as it stands in `api/openapi.json`.
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let text = serde_json::to_string_pretty(&document());
        text.expect("a value is written") + "\n"
    });
    &TEXT
}

fn document() -> Value {
    let mut used = BTreeSet::new();
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = operation(route, &mut used);
    }
    used.insert("Event".to_owned());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Agent Executor",
            "version": "v1",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Sessions of agents: submit inputs, follow what comes of them, answer, \
                signal, cancel, branch. JSON is in the mapping of protocol buffers: fields that \
                have their default value are left out, and 64-bit numbers are strings.",
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schemas(used),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "share": {
                    "type": "apiKey", "in": "query", "name": query::SHARE,
                    "description": "A share token of the session, in place of the header.",
                },
            },
            "responses": {"Refused": {
                "description": "The request was refused, or could not be carried out.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            }},
        },
    })
}

fn operation(route: &Route, used: &mut BTreeSet<String>) -> Value {
    let method = &DESCRIPTORS.methods[route.rpc];
    let mut parameters: Vec<Value> = Vec::new();
    let request = DESCRIPTORS.request(route.rpc);
    for field in &request.fields {
        if route.path.contains(&format!("{{{}}}", field.name)) {
            let schema = json!({"type": "string", "minLength": 1});
            parameters.push(parameter(field, "path", schema));
        }
    }
    for field in query::parameters(route) {
        let mut schema = schema(field, used);
        if let Some(object) = schema.as_object_mut() {
            object.remove("description");
        }
        if field.name == "kinds" {
            schema["items"] = json!({"type": "string", "examples": kinds::NAMES});
        }
        parameters.push(parameter(field, "query", schema));
    }
    if route.form == Form::Follow {
        parameters.push(json!({
            "name": "Last-Event-ID", "in": "header",
            "description": "The id of the last event that came; more than `after`.",
            "schema": {"type": "string", "pattern": "^[0-9]{1,19}$"},
        }));
    }
    let unique = ROUTES.iter().filter(|other| other.rpc == route.rpc).count() == 1;
    let suffix = if unique || !route.path.contains('{') { "" } else { "To" };
    let mut operation = json!({
        "operationId": format!("{}{suffix}", route.rpc),
        "tags": [method.service],
        "parameters": parameters,
        "responses": {
            "200": answer(route, used),
            "default": {"$ref": "#/components/responses/Refused"},
        },
    });
    if !method.comment.is_empty() {
        operation["description"] = method.comment.clone().into();
    }
    let method = route.method.parse().expect("the methods of the table are methods");
    if role::rule(&method, route.path).is_some_and(|rule| rule.shared) {
        operation["security"] = json!([{}, {"bearer": []}, {"share": []}]);
    }
    match route.form {
        Form::Send => {
            let schema = body(route, request, used);
            operation["requestBody"] =
                json!({"required": false, "content": {"application/json": {"schema": schema}}});
        }
        Form::Upload => {
            operation["requestBody"] =
                json!({"required": true, "content": {"application/octet-stream": {"schema": {}}}});
        }
        Form::Ask | Form::Follow | Form::Download => {}
    }
    operation
}

fn parameter(field: &Field, place: &str, schema: Value) -> Value {
    let mut parameter = json!({"name": field.json, "in": place, "schema": schema});
    if place == "path" {
        parameter["name"] = field.name.clone().into();
        parameter["required"] = true.into();
    }
    if field.repeated {
        parameter["style"] = "form".into();
        parameter["explode"] = true.into();
    }
    if !field.comment.is_empty() {
        parameter["description"] = field.comment.clone().into();
    }
    parameter
}

/// The message without what stands in the path and the query.
fn body(route: &Route, request: &Message, used: &mut BTreeSet<String>) -> Value {
    let in_path = |field: &Field| route.path.contains(&format!("{{{}}}", field.name));
    let fields = request.fields.iter().filter(|f| f.name != "namespace" && !in_path(f));
    let properties: Map<String, Value> =
        fields.map(|field| (field.json.clone(), schema(field, used))).collect();
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

fn answer(route: &Route, used: &mut BTreeSet<String>) -> Value {
    let content = match route.form {
        Form::Ask | Form::Send | Form::Upload => {
            let message = DESCRIPTORS.methods[route.rpc].response.clone();
            let schema = json!({"$ref": reference(&message)});
            used.insert(message);
            json!({"application/json": {"schema": schema}})
        }
        Form::Download => json!({"application/octet-stream": {}}),
        Form::Follow => json!({"text/event-stream": {"schema": sent(used)}}),
    };
    let description = match route.form {
        Form::Follow => {
            "Events: `id` is the position, `event` the kind, `data` an Event. Also `caught-up` \
                (a CaughtUp), `end` (a FollowEnd; the last one) and `failure` (an Error; the last \
                one)."
        }
        Form::Download => "The content.",
        Form::Ask | Form::Send | Form::Upload => "Done.",
    };
    json!({"description": description, "content": content})
}

/// A server-sent event.
fn sent(used: &mut BTreeSet<String>) -> Value {
    used.extend(["CaughtUp".to_owned(), "FollowEnd".to_owned()]);
    let words = ["caught-up", "end", "failure"];
    let events: Vec<&str> = kinds::NAMES.iter().copied().chain(words).collect();
    let data = ["Event", "CaughtUp", "FollowEnd", "Error"];
    let data = data.map(|name| json!({"$ref": reference(name)}));
    json!({
        "type": "object",
        "description": "One event of the stream, of which there are any number.",
        "properties": {
            "event": {"type": "string", "examples": events},
            "id": {"type": "string", "pattern": "^[0-9]{1,20}$"},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"anyOf": data},
            },
            "retry": {"description": "Milliseconds until a client connects again."},
        },
    })
}

/// Every message that is used, and those that they use.
fn schemas(mut used: BTreeSet<String>) -> Value {
    let mut schemas = Map::new();
    while let Some(name) = used.pop_first() {
        if schemas.contains_key(&component(&name)) {
            continue;
        }
        let described = match (DESCRIPTORS.messages.get(&name), DESCRIPTORS.enums.get(&name)) {
            (Some(message), _) => object(message, &mut used),
            (None, Some(one)) => {
                described(json!({"type": "string", "enum": one.values}), &one.comment)
            }
            (None, None) => unreachable!("{name} is described"),
        };
        schemas.insert(component(&name), described);
    }
    schemas.insert("Error".into(), error());
    Value::Object(schemas)
}

fn object(message: &Message, used: &mut BTreeSet<String>) -> Value {
    let properties: Map<String, Value> =
        message.fields.iter().map(|field| (field.json.clone(), schema(field, used))).collect();
    described(json!({"type": "object", "properties": properties}), &message.comment)
}

/// An error as HTTP has it: all its fields are always there.
fn error() -> Value {
    let mut error = object(&DESCRIPTORS.messages["Error"], &mut BTreeSet::new());
    error["required"] = json!(["code", "message", "hint", "retryable", "causes"]);
    error["properties"]["code"]["pattern"] = "^AX[0-9]{4}$".into();
    error
}

fn schema(field: &Field, used: &mut BTreeSet<String>) -> Value {
    let one = match &field.kind {
        Type::Bool => json!({"type": "boolean"}),
        Type::U32 => {
            json!({"type": "integer", "format": "uint32", "minimum": 0, "maximum": u32::MAX})
        }
        Type::U64 => json!({"type": "string", "format": "uint64", "pattern": "^[0-9]{1,20}$"}),
        Type::Text => json!({"type": "string"}),
        Type::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
        Type::Enum(name) | Type::Message(name) => {
            used.insert(name.clone());
            json!({"$ref": reference(name)})
        }
    };
    let many = if field.repeated { json!({"type": "array", "items": one}) } else { one };
    let comment = match &field.oneof {
        Some(oneof) => format!("{}\nOne of the choices of `{oneof}`.", field.comment),
        None => field.comment.clone(),
    };
    described(many, comment.trim())
}

fn described(mut schema: Value, comment: &str) -> Value {
    if !comment.is_empty() {
        schema["description"] = comment.into();
    }
    schema
}

fn component(name: &str) -> String {
    name.replace('.', "")
}

fn reference(name: &str) -> String {
    format!("#/components/schemas/{}", component(name))
}
