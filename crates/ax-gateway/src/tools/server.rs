//! A tool server: what it offers, and calling it.

#![expect(deprecated, reason = "logging, subscriptions: earlier versions have them")]

use super::connect::{self, Connection, Spawn};
use super::listener::{Listener, Said};
use crate::config::ToolServer;
use crate::policy::{self, Policy};
use ax_core::session::StepKey;
use http::HeaderValue;
use rmcp::Peer;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CallToolResponse, CancelledNotificationParam,
    ClientCapabilities, ClientRequest, ErrorData, InputResponses, JsonObject, ListToolsResult,
    PaginatedRequestParams, ProgressNotificationParam, ProtocolVersion, RequestId,
    RequestMetaObject, ServerCapabilities, ServerResult, SubscriptionFilter, Tool,
};
use rmcp::service::{PeerRequestOptions, RoleClient, ServiceError};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, broadcast};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a tool server has until it can be used.
const START_MAX: Duration = Duration::from_secs(60);
/// How long a harness that begins waits to hear what a tool server can do.
const GREETING_MAX: Duration = Duration::from_secs(15);
/// How many tools of a server are known at a time.
const LISTED_MAX: usize = 4_096;
/// What the names in `_meta` begin with that are the runtime's, not a harness'.
const OWN_META: &str = "dev.agentexecutor/";
/// And those that are between two programs only.
const HOP_META: &str = "io.modelcontextprotocol/";

/// A tool server.
pub(super) struct Server {
    config: ToolServer,
    spawn: Spawn,
    stop: CancellationToken,
    trace: Option<HeaderValue>,
    listener: Listener,
    connection: Mutex<Option<Connection>>,
    /// The tools that were last listed.
    listed: std::sync::Mutex<HashMap<String, Tool>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What is asked of a tool.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) tool: String,
    pub(super) arguments: JsonObject,
    /// Answers to what the tool wanted to know, when it was asked before.
    pub(super) inputs: Option<InputResponses>,
    /// What the tool gave to be given back.
    pub(super) state: Option<String>,
    /// What else the harness says.
    pub(super) meta: RequestMetaObject,
    /// What the harness can be asked in turn.
    pub(super) capabilities: Option<ClientCapabilities>,
}

impl Asked {
    /// A call with nothing but arguments.
    pub(super) fn plain(tool: &str, arguments: JsonObject) -> Self {
        let meta = RequestMetaObject::default();
        let tool = tool.to_owned();
        Self { tool, arguments, inputs: None, state: None, meta, capabilities: None }
    }

    fn params(&self) -> CallToolRequestParams {
        let params = CallToolRequestParams::new(self.tool.clone());
        let mut params = params.with_arguments(self.arguments.clone());
        params.input_responses.clone_from(&self.inputs);
        params.request_state.clone_from(&self.state);
        params
    }

    /// What goes with the call: what the harness says, but not in the name of the runtime, and the
    /// key of the call.
    fn options(&self, key: &str) -> PeerRequestOptions {
        let mut meta = self.meta.clone();
        meta.retain(|name, _| {
            !name.starts_with(OWN_META) && !name.starts_with(HOP_META) && name != "progressToken"
        });
        meta.insert(connect::KEY_FIELD.into(), Value::from(key));
        if let Some(capabilities) = &self.capabilities {
            meta.set_client_capabilities(capabilities.clone());
        }
        PeerRequestOptions::no_options().with_meta(meta)
    }
}

/// Why a call has no result.
#[derive(Debug)]
pub(super) enum CallError {
    /// The server answered with an error.
    Said(ErrorData),
    /// The server cannot be had: nothing was asked of it.
    Absent(String),
    /// The server broke: nobody knows what it did.
    Broken(String),
}

impl Server {
    pub(super) fn new(
        config: ToolServer,
        spawn: Spawn,
        stop: CancellationToken,
        trace: Option<HeaderValue>,
    ) -> Self {
        let (listener, connection) = (Listener::new(), Mutex::default());
        let listed = std::sync::Mutex::default();
        Self { config, spawn, stop, trace, listener, connection, listed }
    }

    pub(super) fn name(&self) -> &str {
        &self.config.name
    }

    /// What holds for a call.
    pub(super) async fn policy(
        &self,
        tool: &str,
        arguments: &JsonObject,
    ) -> Result<Policy, String> {
        policy::of(&self.config.tools, tool, arguments).await
    }

    /// What the server can do, and how it is to be used; nothing if it cannot be had for now.
    pub(super) async fn greeting(&self) -> Option<(ServerCapabilities, Option<String>)> {
        let connection = timeout(GREETING_MAX, self.connection()).await.ok()?.ok()?;
        let info = connection.peer().peer_info()?;
        Some((info.capabilities.clone(), info.instructions.clone()))
    }

    /// Returns a page of the tools that may be called.
    pub(super) async fn tools(
        &self,
        page: Option<PaginatedRequestParams>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut listed = self.read(async |peer| peer.list_tools(page).await).await?;
        listed.tools.retain_mut(|tool| {
            let Some(offer) = policy::offer(&self.config.tools, &tool.name) else { return false };
            if offer.once {
                // A person may have to say what became of it, which is text of no such form.
                tool.output_schema = None;
            }
            true
        });
        let mut all = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() > LISTED_MAX {
            all.clear();
        }
        all.extend(listed.tools.iter().map(|tool| (tool.name.to_string(), tool.clone())));
        drop(all);
        Ok(listed)
    }

    /// Returns a tool that was listed.
    pub(super) fn tool(&self, name: &str) -> Option<Tool> {
        let all = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(name).cloned()
    }

    /// Asks the server something that changes nothing; once more if the connection broke.
    pub(super) async fn read<T>(
        &self,
        ask: impl AsyncFnOnce(Peer<RoleClient>) -> Result<T, ServiceError>,
    ) -> Result<T, ErrorData> {
        let gone = |message: String| {
            let message = format!("the tool server {} cannot be used: {message}", self.name());
            ErrorData::internal_error(message, None)
        };
        let connection = tokio::select! {
            () = self.stop.cancelled() => return Err(gone("the attempt is over".into())),
            connection = self.connection() => connection.map_err(gone)?,
        };
        let asked = tokio::select! {
            () = self.stop.cancelled() => return Err(gone("the attempt is over".into())),
            asked = timeout(START_MAX, ask(connection.peer().clone())) => asked,
        };
        match asked {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(ServiceError::McpError(error))) => Err(self.without_key(error)),
            Ok(Err(error)) => {
                self.forget(&connection).await;
                Err(gone(self.config.hidden(error.to_string())))
            }
            Err(_) => Err(gone(format!("no answer within {} s", START_MAX.as_secs()))),
        }
    }

    /// Passes a request on, in the name of whoever can be asked in turn.
    pub(super) async fn pass(
        &self,
        request: ClientRequest,
        capabilities: Option<ClientCapabilities>,
    ) -> Result<ServerResult, ErrorData> {
        let mut options = PeerRequestOptions::no_options();
        if let Some(capabilities) = capabilities {
            let mut meta = RequestMetaObject::default();
            meta.set_client_capabilities(capabilities);
            options = options.with_meta(meta);
        }
        self.read(async |peer| {
            let handle = peer.send_request_with_option(request, options).await?;
            let unwanted = Unwanted { peer, request: Some(handle.id.clone()) };
            let answer = handle.await_response().await;
            unwanted.answered();
            answer
        })
        .await
    }

    /// Calls a tool. `key` is the same however often the call is made.
    pub(super) async fn call(
        &self,
        asked: &Asked,
        key: &str,
        progress: &broadcast::Sender<ProgressNotificationParam>,
    ) -> Result<CallToolResponse, CallError> {
        let connection = self.connection().await.map_err(CallError::Absent)?;
        let peer = connection.peer();
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(asked.params()));
        let sent = self.listener.route(progress.clone(), async {
            let handle = peer.send_request_with_option(request, asked.options(key)).await?;
            Ok((handle.progress_token.clone(), handle))
        });
        let answer = match sent.await {
            Ok((_route, handle)) => handle.await_response().await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => Ok(result(answer)),
            Err(ServiceError::McpError(error)) => Err(CallError::Said(self.without_key(error))),
            Err(error) => {
                self.forget(&connection).await;
                Err(CallError::Broken(self.config.hidden(error.to_string())))
            }
        }
    }

    /// Listens to what the server says of its own accord.
    pub(super) fn said(&self) -> broadcast::Receiver<Said> {
        self.listener.said.subscribe()
    }

    /// Has the server say when something changes.
    pub(super) async fn watch(&self, filter: SubscriptionFilter) -> Result<Watch, ErrorData> {
        self.read(async |peer| {
            let version = peer.peer_info().map(|info| info.protocol_version.clone());
            if version.is_some_and(|version| version >= ProtocolVersion::V_2026_07_28) {
                return Ok(Watch::Subscription(Box::new(peer.listen(filter).await?)));
            }
            let said = self.said();
            for uri in filter.resource_subscriptions.into_iter().flatten() {
                peer.subscribe(rmcp::model::SubscribeRequestParams::new(uri)).await?;
            }
            Ok(Watch::Said(said))
        })
        .await
    }

    /// Takes the key out of an error in which a server repeats it.
    fn without_key(&self, mut error: ErrorData) -> ErrorData {
        error.message = self.config.hidden(error.message.into_owned()).into();
        error
    }

    async fn connection(&self) -> Result<Connection, String> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(Arc::clone(connection));
        }
        let (stop, trace) = (&self.stop, self.trace.as_ref());
        let connect = connect::connect(&self.config, &self.spawn, stop, &self.listener, trace);
        let connection = match timeout(START_MAX, connect).await {
            Ok(connected) => connected.map_err(|why| self.config.hidden(why))?,
            Err(_) => return Err(format!("it is not ready within {} s", START_MAX.as_secs())),
        };
        *kept = Some(Arc::clone(&connection));
        Ok(connection)
    }

    async fn forget(&self, broken: &Connection) {
        let mut kept = self.connection.lock().await;
        if kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, broken)) {
            *kept = None;
        }
    }
}

/// Tells the server that nobody waits for its answer any more, if so.
struct Unwanted {
    peer: Peer<RoleClient>,
    request: Option<RequestId>,
}

impl Unwanted {
    fn answered(mut self) {
        self.request = None;
    }
}

impl Drop for Unwanted {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            let canceled = CancelledNotificationParam::new(Some(request), None);
            let peer = self.peer.clone();
            drop(tokio::spawn(async move { peer.notify_cancelled(canceled).await }));
        }
    }
}

/// Where a server says what changes.
#[derive(Debug)]
pub(super) enum Watch {
    /// For whoever subscribed.
    Subscription(Box<rmcp::service::Subscription>),
    /// For all.
    Said(broadcast::Receiver<Said>),
}

/// What a server answered to a call. The call was made, whatever the answer is.
fn result(answer: ServerResult) -> CallToolResponse {
    match answer {
        ServerResult::CallToolResult(result) => result.into(),
        ServerResult::InputRequiredResult(result) => CallToolResponse::InputRequired(result),
        _ => super::error("the tool server answered with what is no result of a tool").into(),
    }
}

/// The key of a call, as tool servers get it.
pub(super) fn key(scope: &str, step: &StepKey) -> String {
    format!("{scope}/{step}")
}
