//! The tools of the tool server.

#![expect(deprecated, reason = "logging, subscriptions: earlier versions have them")]

use crate::fixture::{Change, Fixture, PNG, made, wants};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, ClientResult,
    ContentBlock, InputRequiredResult, JsonObject, LoggingLevel, LoggingMessageNotificationParam,
    ProgressNotificationParam, ServerRequest,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde_json::{Value, json};
use std::time::Duration;

/// A sound, very short.
const WAV: &str = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA=";
/// The tools without anything to say about their arguments.
const PLAIN: &[&str] = &[
    "test_simple_text",
    "test_image_content",
    "test_audio_content",
    "test_embedded_resource",
    "test_multiple_content_types",
    "test_error_handling",
    "test_tool_with_logging",
    "test_tool_with_progress",
    "test_elicitation_sep1034_defaults",
    "test_elicitation_sep1330_enums",
    "test_streaming_elicitation",
    "test_logging_tool",
    "test_missing_capability",
    "test_trigger_tool_change",
    "test_trigger_prompt_change",
    "test_input_required_result_elicitation",
    "test_input_required_result_sampling",
    "test_input_required_result_list_roots",
    "test_input_required_result_request_state",
    "test_input_required_result_multiple_inputs",
    "test_input_required_result_multi_round",
    "test_input_required_result_tampered_state",
    "test_input_required_result_capabilities",
];

pub(crate) fn list() -> Value {
    let tool = |name: &str, schema: Value| {
        let says = format!("Tests: {name}");
        json!({"name": name, "description": says, "inputSchema": schema})
    };
    let text = |name: &str| {
        let properties = json!({name: {"type": "string"}});
        json!({"type": "object", "properties": properties, "required": [name]})
    };
    let plain = PLAIN.iter().map(|name| tool(name, json!({"type": "object", "properties": {}})));
    let mut tools: Vec<Value> = plain.collect();
    tools.push(tool("test_sampling", text("prompt")));
    tools.push(tool("test_elicitation", text("message")));
    let region = json!({"type": "string", "x-mcp-header": "Region"});
    tools.push(tool(
        "test_custom_header",
        json!({"type": "object", "properties":
        {"region": region}, "required": ["region"]}),
    ));
    tools.push(tool("json_schema_2020_12_tool", json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties":
            {"street": {"type": "string"}, "city": {"type": "string"}}}},
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": false,
    })));
    Value::from(tools)
}

/// A request for one field of a form.
pub(crate) fn form(message: &str, field: &str, kind: &str) -> Value {
    json!({"method": "elicitation/create", "params": {"mode": "form", "message": message,
        "requestedSchema": {"type": "object", "properties": {field: {"type": kind}},
            "required": [field]}}})
}

fn sampling(text: &str, tokens: u32) -> Value {
    json!({"method": "sampling/createMessage", "params": {"maxTokens": tokens, "messages":
        [{"role": "user", "content": {"type": "text", "text": text}}]}})
}

fn roots() -> Value {
    json!({"method": "roots/list", "params": {}})
}

pub(crate) async fn call(
    fixture: &Fixture,
    request: CallToolRequestParams,
    context: RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    if let Some(response) = input_required(&request, &context)? {
        return Ok(response);
    }
    let arguments = request.arguments.unwrap_or_default();
    match request.name.as_ref() {
        "test_tool_with_logging" => log(&context).await,
        "test_logging_tool" if context.meta.log_level().is_some() => log(&context).await,
        "test_tool_with_progress" => progress(&context).await,
        "test_trigger_tool_change" => drop(fixture.changes.send(Change::Tools)),
        "test_trigger_prompt_change" => drop(fixture.changes.send(Change::Prompts)),
        "test_missing_capability" => {
            let needed = ClientCapabilities::builder().enable_sampling().build();
            return Err(ErrorData::missing_required_client_capability(needed));
        }
        "test_sampling"
        | "test_elicitation"
        | "test_elicitation_sep1034_defaults"
        | "test_elicitation_sep1330_enums" => {
            return asked(&request.name, &arguments, &context).await;
        }
        _ => {}
    }
    match content(&request.name) {
        Some(result) => Ok(CallToolResponse::Complete(made(result)?)),
        None => {
            let message = format!("there is no tool {}", request.name);
            Err(ErrorData::invalid_params(message, None))
        }
    }
}

fn content(name: &str) -> Option<Value> {
    let text = |text: &str| json!({"type": "text", "text": text});
    let image = json!({"type": "image", "data": PNG, "mimeType": "image/png"});
    Some(match name {
        "test_simple_text" => {
            json!({"content": [text("This is a simple text response for testing.")]})
        }
        "test_image_content" => json!({"content": [image]}),
        "test_audio_content" => {
            json!({"content": [{"type": "audio", "data": WAV, "mimeType": "audio/wav"}]})
        }
        "test_embedded_resource" => json!({"content": [{"type": "resource", "resource": {
            "uri": "test://embedded-resource", "mimeType": "text/plain",
            "text": "This is an embedded resource content."}}]}),
        "test_multiple_content_types" => json!({"content": [
            text("Multiple content types test:"), image, {"type": "resource", "resource": {
                "uri": "test://mixed-content-resource", "mimeType": "application/json",
                "text": r#"{"test":"data","value":123}"#}}]}),
        "test_error_handling" => json!({"isError": true,
            "content": [text("This tool intentionally returns an error for testing")]}),
        "test_custom_header" | "json_schema_2020_12_tool" => json!({"content": [text("done")]}),
        known if PLAIN.contains(&known) => json!({"content": [text("done")]}),
        _ => return None,
    })
}

async fn log(context: &RequestContext<RoleServer>) {
    for text in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
        let log = LoggingMessageNotificationParam::new(LoggingLevel::Info, json!(text));
        let _gone = context.peer.notify_logging_message(log).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn progress(context: &RequestContext<RoleServer>) {
    let Some(token) = context.meta.get_progress_token() else { return };
    for part in [0.0, 50.0, 100.0] {
        let progress = ProgressNotificationParam::new(token.clone(), part).with_total(100.0);
        let _gone = context.peer.notify_progress(progress).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asks the client something in the middle of a call, as it was until 2025-11-25.
async fn asked(
    tool: &str,
    arguments: &JsonObject,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let argument = |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or_default();
    let string = |description: &str| json!({"type": "string", "description": description});
    let schema = |properties: Value, required: Value| {
        let kind = "object";
        json!({"type": kind, "properties": properties, "required": required})
    };
    let asks = |message: &str, schema: Value| {
        json!({"method": "elicitation/create",
            "params": {"mode": "form", "message": message, "requestedSchema": schema}})
    };
    let request = match tool {
        "test_sampling" => sampling(argument("prompt"), 100),
        "test_elicitation" => asks(
            argument("message"),
            schema(
                json!({"username": string("User's response"),
                    "email": string("User's email address")}),
                json!(["username", "email"]),
            ),
        ),
        "test_elicitation_sep1034_defaults" => asks("Please review", schema(defaults(), json!([]))),
        _ => asks("Please choose", schema(choices(), json!([]))),
    };
    let request: ServerRequest = made(request)?;
    let failed = |error: rmcp::ServiceError| ErrorData::internal_error(error.to_string(), None);
    let text = match context.peer.send_request(request).await.map_err(failed)? {
        ClientResult::CreateMessageResult(answer) => {
            format!("LLM response: {}", serde_json::to_string(&answer).unwrap_or_default())
        }
        ClientResult::ElicitResult(answer) => {
            format!("Elicitation completed: {}", serde_json::to_string(&answer).unwrap_or_default())
        }
        _ => return Err(ErrorData::internal_error("an answer to something else", None)),
    };
    Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
}

fn defaults() -> Value {
    json!({
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"],
            "default": "active"},
        "verified": {"type": "boolean", "default": true},
    })
}

fn choices() -> Value {
    let titled = |word: &str| {
        let of =
            |value: &str, order: &str| json!({"const": value, "title": format!("{order} {word}")});
        json!([of("value1", "First"), of("value2", "Second"), of("value3", "Third")])
    };
    let options = json!(["option1", "option2", "option3"]);
    json!({
        "untitledSingle": {"type": "string", "enum": options},
        "titledSingle": {"type": "string", "oneOf": titled("Option")},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled("Choice")}},
    })
}

/// The answer to an asked field of a form, if it is one.
fn answered<'a>(request: &'a CallToolRequestParams, name: &str) -> Option<&'a Value> {
    let answer = request.input_responses.as_ref()?.get(name)?;
    answer.is_object().then_some(answer)
}

/// The state of a tool, with what shows that it was not changed.
fn sealed(state: &str) -> String {
    let seal = blake3::keyed_hash(&[7; 32], state.as_bytes());
    format!("{state}.{seal}")
}

/// What today's tools want to know before they do something.
fn input_required(
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<Option<CallToolResponse>, ErrorData> {
    let Some(tool) = request.name.strip_prefix("test_input_required_result_") else {
        return Ok(None);
    };
    let state = request.request_state.as_deref();
    let said =
        |text: String| Ok(Some(CallToolResult::success(vec![ContentBlock::text(text)]).into()));
    let asks = |wants: Result<InputRequiredResult, ErrorData>| Ok(Some(wants?.into()));
    let name = || form("What is your name?", "name", "string");
    match tool {
        "elicitation" => match answered(request, "user_name") {
            Some(answer) => {
                said(format!("Hello, {}!", answer["content"]["name"].as_str().unwrap_or("you")))
            }
            None => asks(wants(json!({"user_name": name()}), None)),
        },
        "sampling" => match answered(request, "capital_question") {
            Some(answer) => said(format!("The model said {answer}")),
            None => {
                let question = sampling("What is the capital of France?", 100);
                asks(wants(json!({"capital_question": question}), None))
            }
        },
        "list_roots" => match answered(request, "client_roots") {
            Some(answer) => said(format!("The roots are {answer}")),
            None => asks(wants(json!({"client_roots": roots()}), None)),
        },
        "request_state" | "tampered_state" => {
            let sealed = sealed("confirm");
            match state {
                None => {
                    let confirm = form("Please confirm", "ok", "boolean");
                    asks(wants(json!({"confirm": confirm}), Some(&sealed)))
                }
                Some(state) if state == sealed => said("state-ok".into()),
                Some(_) => Err(ErrorData::invalid_params("the state was changed", None)),
            }
        }
        "multiple_inputs" => {
            let names = ["user_name", "greeting", "client_roots"];
            if names.iter().all(|name| answered(request, name).is_some()) {
                return said("all is known".into());
            }
            let all = json!({"user_name": name(), "greeting": sampling("Generate a greeting", 50),
                "client_roots": roots()});
            asks(wants(all, Some(&sealed("multiple"))))
        }
        "multi_round" => match state {
            None => {
                let step = form("Step 1: What is your name?", "name", "string");
                asks(wants(json!({"step1": step}), Some(&sealed("1"))))
            }
            Some(state) if state == sealed("1") => {
                let step = form("Step 2: What is your favorite color?", "color", "string");
                asks(wants(json!({"step2": step}), Some(&sealed("2"))))
            }
            Some(_) => said("both are known".into()),
        },
        "capabilities" => {
            let can = context.client_capabilities().unwrap_or_default();
            let mut all = JsonObject::new();
            if can.sampling.is_some() {
                all.insert("greeting".into(), sampling("Generate a greeting", 50));
            }
            if can.elicitation.is_some() {
                all.insert("user_name".into(), name());
            }
            asks(wants(Value::Object(all), None))
        }
        _ => Ok(None),
    }
}
