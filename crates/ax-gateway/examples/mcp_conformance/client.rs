//! A harness that uses a tool server through a gateway, as the suite wants a client to.

use crate::{Outcome, gateway};
use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult,
    ElicitationAction, Implementation, JsonObject, ProtocolVersion, Tool,
};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt as _, RequestContext, RoleClient};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientHandler, ErrorData};
use serde_json::{Value, json};

/// Says yes to whatever a tool wants to know.
#[derive(Clone, Debug)]
struct Harness;

impl ClientHandler for Harness {
    fn get_info(&self) -> ClientConfig {
        let can = ClientCapabilities::builder().enable_elicitation().build();
        ClientConfig::new(can, Implementation::new("harness", "1"))
    }

    async fn create_elicitation(
        &self,
        _request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let said = json!({"confirmed": true, "ok": true, "name": "Ann"});
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(said))
    }
}

pub(crate) async fn run(url: &str) -> Outcome<()> {
    let gateway = gateway::open(url).await?;
    let today = std::env::var("MCP_CONFORMANCE_PROTOCOL_VERSION")
        .is_ok_and(|version| version == ProtocolVersion::V_2026_07_28.as_str());
    let lifecycle = if today {
        let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
        ClientLifecycleMode::Discover { preferred_versions }
    } else {
        ClientLifecycleMode::Initialize
    };
    let transport = StreamableHttpClientTransport::from_uri(gateway.url.clone());
    let client = Harness.serve_with_lifecycle(transport, lifecycle).await?;
    let tools = client.peer().list_all_tools().await?;
    for (name, arguments) in wanted(&tools) {
        let call = CallToolRequestParams::new(name).with_arguments(arguments);
        // What is refused is as good an answer as any.
        let _answer = client.call_tool(call).await;
    }
    client.cancel().await?;
    Ok(())
}

/// The calls that the suite wants, or one of each tool.
fn wanted(tools: &[Tool]) -> Vec<(String, JsonObject)> {
    let context = std::env::var("MCP_CONFORMANCE_CONTEXT").unwrap_or_default();
    let context: Value = serde_json::from_str(&context).unwrap_or_default();
    if let Some(calls) = context["toolCalls"].as_array() {
        let call = |call: &Value| {
            let arguments = call["arguments"].as_object().cloned().unwrap_or_default();
            (call["name"].as_str().unwrap_or_default().to_owned(), arguments)
        };
        return calls.iter().map(call).collect();
    }
    // One tool wants the form of another's arguments, as it came.
    let form = tools.iter().find(|tool| tool.name == "json_schema_2020_12_tool");
    let call = |tool: &Tool| match form {
        Some(form) if tool.name == "json_schema_echo" => {
            let arguments = json!({"schema": form.input_schema});
            (tool.name.to_string(), arguments.as_object().cloned().unwrap_or_default())
        }
        _ => (tool.name.to_string(), arguments(tool)),
    };
    tools.iter().map(call).collect()
}

/// Arguments that fit a tool.
fn arguments(tool: &Tool) -> JsonObject {
    let Some(properties) = tool.input_schema.get("properties").and_then(Value::as_object) else {
        return JsonObject::new();
    };
    let value = |schema: &Value| match schema["type"].as_str() {
        Some("number" | "integer") => json!(5),
        Some("boolean") => json!(true),
        _ => json!("text"),
    };
    properties.iter().map(|(name, schema)| (name.clone(), value(schema))).collect()
}
