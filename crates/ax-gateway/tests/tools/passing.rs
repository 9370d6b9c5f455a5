//! What goes through besides calls: prompts, resources, pages, progress, changes, and the key of a
//! call in a header. The conformance suite has the rest.

use super::World;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientRequest, GetPromptRequestParams,
    GetPromptResponse, GetPromptResult, ListToolsResult, PaginatedRequestParams,
    ProgressNotificationParam, PromptMessage, ProtocolVersion, ReadResourceRequestParams,
    ReadResourceResponse, ReadResourceResult, ResourceContents, Role, ServerCapabilities,
    ServerConfig, ServerNotification, SubscriptionFilter, Tool,
};
use rmcp::service::{
    ClientLifecycleMode, ClientServiceExt as _, NotificationContext, RequestContext, RoleClient,
    SubscriptionContext,
};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::{ClientHandler, ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::timeout;

/// A tool server at an address.
#[derive(Clone, Debug, Default)]
struct Shop {
    /// The keys of calls, from the header and from what goes with the call.
    keys: Arc<Mutex<Vec<(String, String)>>>,
    changed: Arc<Notify>,
}

impl Shop {
    async fn serve(&self) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let shop = self.clone();
        let service = StreamableHttpService::<_, LocalSessionManager>::new(
            move || Ok(shop.clone()),
            Arc::default(),
            rmcp::transport::streamable_http_server::tower::StreamableHttpServerConfig::default(),
        );
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(service.clone());
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        url
    }
}

impl ServerHandler for Shop {
    fn get_info(&self) -> ServerConfig {
        let all = ServerCapabilities::builder().enable_tools().enable_tool_list_changed();
        ServerConfig::new(all.enable_prompts().enable_resources().build())
    }

    async fn list_tools(
        &self,
        page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let of = |name: &'static str| Tool::new(name, name, Arc::new(serde_json::Map::new()));
        let second = page.and_then(|page| page.cursor).is_some();
        let mut listed =
            ListToolsResult::with_all_items(vec![of(if second { "sell" } else { "buy" })]);
        listed.next_cursor = (!second).then(|| "2".to_owned());
        Ok(listed)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let name = "idempotency-key";
        let head = context.extensions.get::<http::request::Parts>().unwrap();
        let header = head.headers.get(name).unwrap().to_str().unwrap().to_owned();
        let with = context.meta.get("dev.agentexecutor/idempotency-key").unwrap();
        self.keys.lock().unwrap().push((header, with.as_str().unwrap().to_owned()));
        if let Some(token) = context.meta.get_progress_token() {
            for part in 1..=3 {
                let progress = ProgressNotificationParam::new(token.clone(), f64::from(part));
                context.peer.notify_progress(progress).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let known = context.meta.get("traceparent").cloned();
        let result = json!({"tool": request.name, "trace": known, "null": null, "big": u64::MAX});
        Ok(CallToolResult::structured(result).into())
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let message = PromptMessage::new_text(Role::User, request.name);
        Ok(GetPromptResult::new(vec![message]).into())
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let text = ResourceContents::text("what it says", request.uri);
        Ok(ReadResourceResult::new(vec![text]).into())
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        loop {
            tokio::select! {
                () = context.cancelled() => return Ok(()),
                () = self.changed.notified() => {
                    drop(context.sink().notify_tool_list_changed().await);
                }
            }
        }
    }
}

/// A harness that hears how far its calls are.
#[derive(Clone, Debug, Default)]
struct Harness(Arc<Mutex<Vec<f64>>>);

impl ClientHandler for Harness {
    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.0.lock().unwrap().push(params.progress);
    }
}

async fn world(shop: &Shop) -> World {
    let mut world = World::new();
    world.section = json!({"tools": [{"name": "shop", "url": shop.serve().await}]});
    world
}

#[tokio::test]
async fn prompts_and_resources_go_through_and_are_no_steps() {
    let shop = Shop::default();
    let world = world(&shop).await;
    let attempt = world.attempt().await;
    let peer = attempt.client.peer();
    let prompt = peer.get_prompt(GetPromptRequestParams::new("hello")).await.unwrap();
    assert!(serde_json::to_string(&prompt).unwrap().contains("hello"));
    let resource = peer.read_resource(ReadResourceRequestParams::new("a://b")).await.unwrap();
    assert!(serde_json::to_string(&resource).unwrap().contains("what it says"));
    let pages = peer.list_all_tools().await.unwrap();
    assert_eq!(pages.iter().map(|tool| tool.name.as_ref()).collect::<Vec<_>>(), ["buy", "sell"]);
    let missing = peer.list_prompts(None).await.map(|listed| listed.prompts.len());
    assert!(matches!(missing, Ok(0)), "{missing:?}");
    assert!(world.log.lock().unwrap().begun.is_empty());
}

#[tokio::test]
async fn a_call_has_its_key_in_a_header_and_says_how_far_it_is() {
    let shop = Shop::default();
    let world = world(&shop).await;
    for (number, mode) in [
        ClientLifecycleMode::Initialize,
        ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::LATEST] },
    ]
    .into_iter()
    .enumerate()
    {
        let attempt = world.attempt().await;
        let harness = Harness::default();
        let transport = StreamableHttpClientTransport::from_uri(attempt.url());
        let client = harness.clone().serve_with_lifecycle(transport, mode).await.unwrap();
        let arguments = json!({"number": number}).as_object().unwrap().clone();
        let mut params = CallToolRequestParams::new("buy").with_arguments(arguments);
        let mut meta = rmcp::model::RequestMetaObject::default();
        meta.insert("traceparent".into(), json!("00-1-2-01"));
        params.meta = Some(meta);
        let request = ClientRequest::CallToolRequest(rmcp::model::CallToolRequest::new(params));
        let answer = client.peer().send_request(request).await.unwrap();
        let answer: Value = serde_json::to_value(&answer).unwrap();
        let expect = json!({"tool": "buy", "trace": "00-1-2-01", "null": null, "big": u64::MAX});
        assert_eq!(answer["structuredContent"], expect);
        let progress = harness.0.lock().unwrap().clone();
        assert_eq!(progress, [1.0, 2.0, 3.0]);
    }
    let keys = shop.keys.lock().unwrap().clone();
    assert!(keys.len() == 2 && keys[0] != keys[1], "{keys:?}");
    for (header, with) in keys {
        assert!(header == with && with.starts_with("default/1/1/gw:tool:shop:"), "{with}");
    }
}

#[tokio::test]
async fn whoever_listens_hears_of_changes() {
    let shop = Shop::default();
    let world = world(&shop).await;
    let attempt = world.attempt().await;
    let mode = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::LATEST] };
    let transport = StreamableHttpClientTransport::from_uri(attempt.url());
    let client = ().serve_with_lifecycle(transport, mode).await.unwrap();
    let filter = SubscriptionFilter::builder().tools_list_changed().build();
    let mut changes = client.peer().listen(filter).await.unwrap();
    let heard = async {
        loop {
            shop.changed.notify_one();
            let next = timeout(Duration::from_millis(200), changes.next()).await;
            if let Ok(next) = next {
                return next.unwrap();
            }
        }
    };
    let heard = timeout(Duration::from_secs(30), heard).await.unwrap();
    assert!(matches!(heard, Some(ServerNotification::ToolListChangedNotification(_))));
}
