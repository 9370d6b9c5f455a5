//! The tool server: prompts, resources, and how it is served. `tools.rs` has the tools.

#![expect(deprecated, reason = "logging, subscriptions: earlier versions have them")]

use crate::{Outcome, tools};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult,
    GetPromptRequestParams, GetPromptResponse, InputRequiredResult, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig,
    SetLevelRequestParams, SubscriptionFilter, Tool,
};
use rmcp::service::{RequestContext, SubscriptionContext};
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::tower::StreamableHttpServerConfig;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

/// A red dot.
pub(crate) const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwAD\
 hgGAWjR9awA\
AAABJRU5ErkJggg==";

/// What changes in the lists.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Tools,
    Prompts,
}

/// The server; one for each connection, with the same channel.
#[derive(Clone, Debug)]
pub(crate) struct Fixture {
    pub(crate) changes: broadcast::Sender<Change>,
}

/// Serves it, and returns its address.
pub(crate) async fn serve() -> Outcome<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}/mcp", listener.local_addr()?);
    let fixture = Fixture { changes: broadcast::Sender::new(16) };
    let service = StreamableHttpService::<_, LocalSessionManager>::new(
        move || Ok(fixture.clone()),
        Default::default(),
        StreamableHttpServerConfig::default(),
    );
    drop(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            drop(tokio::spawn(connection));
        }
    }));
    Ok(url)
}

/// Makes what the protocol wants of its JSON; a result is complete unless it says otherwise.
pub(crate) fn made<T: DeserializeOwned>(mut value: Value) -> Result<T, ErrorData> {
    if let Some(fields) = value.as_object_mut().filter(|fields| !fields.contains_key("method")) {
        fields.entry("resultType").or_insert_with(|| "complete".into());
    }
    serde_json::from_value(value)
        .map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

/// What wants to know something first.
pub(crate) fn wants(
    requests: Value,
    state: Option<&str>,
) -> Result<InputRequiredResult, ErrorData> {
    let mut wants = json!({"resultType": "input_required", "inputRequests": requests});
    if let Some(state) = state {
        wants["requestState"] = json!(state);
    }
    made(wants)
}

fn user(content: Value) -> Value {
    json!({"role": "user", "content": content})
}

fn prompts() -> Value {
    let required = |name: &str| json!({"name": name, "description": name, "required": true});
    json!({"prompts": [
        {"name": "test_simple_prompt", "description": "Says something"},
        {"name": "test_prompt_with_arguments", "description": "Says what it is told",
            "arguments": [required("arg1"), required("arg2")]},
        {"name": "test_prompt_with_embedded_resource", "description": "Embeds a resource",
            "arguments": [required("resourceUri")]},
        {"name": "test_prompt_with_image", "description": "Shows an image"},
        {"name": "test_input_required_result_prompt", "description": "Wants to know something"},
    ]})
}

fn prompt(request: &GetPromptRequestParams) -> Option<Value> {
    let argument = |name: &str| {
        let arguments = request.arguments.as_ref();
        arguments.and_then(|all| all.get(name)).and_then(Value::as_str).unwrap_or_default()
    };
    let text = |text: &str| user(json!({"type": "text", "text": text}));
    let messages = match request.name.as_str() {
        "test_simple_prompt" => json!([text("This is a simple prompt for testing.")]),
        "test_prompt_with_arguments" => {
            let (arg1, arg2) = (argument("arg1"), argument("arg2"));
            json!([text(&format!("Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"))])
        }
        "test_prompt_with_embedded_resource" => json!([
            user(json!({"type": "resource", "resource": {"uri": argument("resourceUri"),
                "mimeType": "text/plain", "text": "Embedded resource content for testing."}})),
            text("Please process the embedded resource above."),
        ]),
        "test_prompt_with_image" => json!([
            user(json!({"type": "image", "data": PNG, "mimeType": "image/png"})),
            text("Please analyze the image above."),
        ]),
        "test_input_required_result_prompt" => json!([text("It has its context.")]),
        _ => return None,
    };
    Some(json!({"messages": messages}))
}

fn resource(uri: &str) -> Option<Value> {
    let content = match uri {
        "test://static-text" => json!({"uri": uri, "mimeType": "text/plain",
            "text": "This is the content of the static text resource."}),
        "test://static-binary" => json!({"uri": uri, "mimeType": "image/png", "blob": PNG}),
        "test://watched-resource" => json!({"uri": uri, "mimeType": "text/plain",
            "text": "Watched resource content."}),
        _ => {
            let id = uri.strip_prefix("test://template/")?.strip_suffix("/data")?;
            let data =
                json!({"id": id, "templateTest": true, "data": format!("Data for ID: {id}")});
            json!({"uri": uri, "mimeType": "application/json", "text": data.to_string()})
        }
    };
    Some(json!({"contents": [content]}))
}

impl ServerHandler for Fixture {
    fn get_info(&self) -> ServerConfig {
        let all = ServerCapabilities::builder().enable_tools().enable_tool_list_changed();
        let all = all.enable_prompts().enable_prompts_list_changed().enable_resources();
        let all = all.enable_resources_list_changed().enable_resources_subscribe();
        let all = all.enable_completions().enable_logging();
        ServerConfig::new(all.build())
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        made(json!({"tools": tools::list()}))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        let tools: Vec<Tool> = made(tools::list()).ok()?;
        tools.into_iter().find(|tool| tool.name == name)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        tools::call(self, request, context).await
    }

    async fn list_prompts(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        made(prompts())
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let wants_more = request.name == "test_input_required_result_prompt";
        if wants_more && request.input_responses.is_none() {
            let asks = tools::form("What context should the prompt use?", "context", "string");
            return Ok(wants(json!({"user_context": asks}), None)?.into());
        }
        match prompt(&request) {
            Some(prompt) => Ok(GetPromptResponse::Complete(made(prompt)?)),
            None => Err(ErrorData::invalid_params("there is no such prompt", None)),
        }
    }

    async fn list_resources(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let of = |uri: &str, kind: &str| {
            let name = uri;
            json!({"uri": uri, "name": name, "description": name, "mimeType": kind})
        };
        made(json!({"resources": [
            of("test://static-text", "text/plain"),
            of("test://static-binary", "image/png"),
            of("test://watched-resource", "text/plain"),
        ]}))
    }

    async fn list_resource_templates(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        made(json!({"resourceTemplates": [{"uriTemplate": "test://template/{id}/data",
            "name": "data", "description": "Data by id", "mimeType": "application/json"}]}))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        match resource(&request.uri) {
            Some(resource) => Ok(ReadResourceResponse::Complete(made(resource)?)),
            None => {
                let data = json!({"uri": request.uri});
                Err(ErrorData::resource_not_found("there is no such resource", Some(data)))
            }
        }
    }

    async fn complete(
        &self,
        _request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        made(json!({"completion": {"values": ["paris", "park"], "total": 2, "hasMore": false}}))
    }

    async fn set_level(
        &self,
        _request: SetLevelRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn subscribe(
        &self,
        _request: rmcp::model::SubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn unsubscribe(
        &self,
        _request: rmcp::model::UnsubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let mut changes = self.changes.subscribe();
        let (sink, wanted) = (context.sink(), context.accepted());
        loop {
            let change = tokio::select! {
                () = context.cancelled() => return Ok(()),
                change = changes.recv() => change,
            };
            let told = match change {
                Ok(Change::Tools) if wanted.tools_list_changed == Some(true) => {
                    sink.notify_tool_list_changed().await
                }
                Ok(Change::Prompts) if wanted.prompts_list_changed == Some(true) => {
                    sink.notify_prompt_list_changed().await
                }
                Ok(_) => Ok(()),
                Err(_) => return Ok(()),
            };
            if told.is_err() {
                return Ok(());
            }
        }
    }
}
