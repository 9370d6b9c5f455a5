//! What a harness sees of a tool server.

#![expect(deprecated, reason = "logging, subscriptions: earlier versions have them")]

use super::calls::Calls;
use super::listener::Said;
use super::server::{Asked, Server, Watch};
use super::{error, ledger::Taken};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ClientRequest, CompleteRequestParams, CompleteResult,
    DiscoverResult, GetPromptRequest, GetPromptRequestParams, GetPromptResponse, Implementation,
    InitializeRequestParams, InitializeResult, ListPromptsResult, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, LoggingMessageNotificationParam, PaginatedRequestParams,
    ProgressNotificationParam, ProgressToken, ProtocolVersion, ReadResourceRequest,
    ReadResourceRequestParams, ReadResourceResponse, ResultType, ServerCapabilities, ServerConfig,
    ServerNotification, ServerResult, SetLevelRequestParams, SubscriptionFilter, Tool,
};
use rmcp::service::{RequestContext, SubscriptionContext, SubscriptionSink};
use rmcp::{ErrorData, Peer, RoleServer, ServerHandler};
use std::future::pending;
use std::sync::Arc;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

/// What today's version says of a result, and a server of an earlier one does not. Harnesses of
/// earlier versions are not told.
const COMPLETE: Option<ResultType> = Some(ResultType::COMPLETE);

/// A tool server, behind the gateway.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    server: Arc<Server>,
    calls: Arc<Calls>,
}

impl Proxy {
    pub(super) const fn new(server: Arc<Server>, calls: Arc<Calls>) -> Self {
        Self { server, calls }
    }

    /// What can be had here. What changes is told only to those who subscribe, in today's version.
    async fn offer(&self, today: bool) -> ServerConfig {
        let (theirs, instructions) = self.server.greeting().await.unwrap_or_default();
        let mut ours = self.get_info().capabilities;
        let changes = |flag: Option<bool>| if today { flag } else { None };
        ours.tools = Some(theirs.tools.unwrap_or_default());
        ours.prompts = theirs.prompts;
        ours.resources = theirs.resources;
        ours.completions = theirs.completions;
        ours.logging = theirs.logging;
        if let Some(tools) = &mut ours.tools {
            tools.list_changed = changes(tools.list_changed);
        }
        if let Some(prompts) = &mut ours.prompts {
            prompts.list_changed = changes(prompts.list_changed);
        }
        if let Some(resources) = &mut ours.resources {
            resources.list_changed = changes(resources.list_changed);
            resources.subscribe = changes(resources.subscribe);
        }
        let mut offer = ServerConfig::new(ours);
        offer.server_info = this();
        offer.instructions = instructions;
        offer
    }
}

fn this() -> Implementation {
    Implementation::new("agent-executor", env!("CARGO_PKG_VERSION"))
}

/// Waits for an answer as long as somebody wants it.
async fn wanted<T>(
    context: &RequestContext<RoleServer>,
    answer: impl Future<Output = Result<T, ErrorData>>,
) -> Result<T, ErrorData> {
    tokio::select! {
        () = context.ct.cancelled() => Err(given_up()),
        answer = answer => answer,
    }
}

fn no_answer() -> ErrorData {
    ErrorData::internal_error("the tool server answered something else", None)
}

fn given_up() -> ErrorData {
    ErrorData::internal_error("the request was given up", None)
}

/// Tells a harness what a call says before it is done.
struct Meanwhile {
    peer: Peer<RoleServer>,
    token: Option<ProgressToken>,
    progress: broadcast::Receiver<ProgressNotificationParam>,
    said: Option<broadcast::Receiver<Said>>,
}

impl Meanwhile {
    fn new(taken: &Taken, server: &Server, context: &RequestContext<RoleServer>) -> Self {
        let version = context.protocol_version();
        let today = version.is_some_and(|version| version >= ProtocolVersion::V_2026_07_28);
        Self {
            peer: context.peer.clone(),
            token: context.meta.get_progress_token(),
            progress: taken.outcome().progress.subscribe(),
            // Today a log is only for those who ask for it.
            said: (!today || context.meta.log_level().is_some()).then(|| server.said()),
        }
    }

    /// Passes on what is said; never returns.
    async fn pass_on(&mut self) {
        loop {
            tokio::select! {
                progress = self.progress.recv(), if self.token.is_some() => match progress {
                    Ok(progress) => self.progress(progress).await,
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => pending().await,
                },
                said = hear(&mut self.said) => self.log(said).await,
                else => pending().await,
            }
        }
    }

    /// Passes on what was said until now.
    async fn rest(&mut self) {
        loop {
            match self.progress.try_recv() {
                Ok(progress) if self.token.is_some() => self.progress(progress).await,
                Ok(_) | Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        while let Some(Ok(Said::Log(log))) = self.said.as_mut().map(broadcast::Receiver::try_recv) {
            self.log(log).await;
        }
    }

    async fn progress(&self, mut progress: ProgressNotificationParam) {
        let Some(token) = &self.token else { return };
        progress.progress_token = token.clone();
        // Whoever asked may be gone.
        let _gone = self.peer.notify_progress(progress).await;
    }

    async fn log(&self, log: LoggingMessageNotificationParam) {
        let _gone = self.peer.notify_logging_message(log).await;
    }
}

/// Waits for the next thing that a server logs.
async fn hear(said: &mut Option<broadcast::Receiver<Said>>) -> LoggingMessageNotificationParam {
    let Some(said) = said else { return pending().await };
    loop {
        match said.recv().await {
            Ok(Said::Log(log)) => return log,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return pending().await,
        }
    }
}

impl ServerHandler for Proxy {
    fn get_info(&self) -> ServerConfig {
        // As much as there may be; what there is depends on the tool server.
        let all = ServerCapabilities::builder().enable_tools().enable_tool_list_changed();
        let all = all.enable_prompts().enable_prompts_list_changed().enable_resources();
        let all = all.enable_resources_list_changed().enable_resources_subscribe();
        let mut info = ServerConfig::new(all.enable_completions().build());
        info.server_info = this();
        info
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        context.peer.set_peer_info(request.clone());
        let mut offer = wanted(&context, async { Ok(self.offer(false).await) }).await?;
        let known = ProtocolVersion::KNOWN_VERSIONS.contains(&request.protocol_version);
        offer.protocol_version = if known && request.protocol_version.has_initialize() {
            request.protocol_version
        } else {
            ProtocolVersion::LATEST_WITH_INITIALIZE
        };
        Ok(offer)
    }

    async fn discover(
        &self,
        context: RequestContext<RoleServer>,
    ) -> Result<DiscoverResult, ErrorData> {
        let offer = wanted(&context, async { Ok(self.offer(true).await) }).await?;
        let versions = self.supported_protocol_versions().into_owned();
        Ok(DiscoverResult::from_server_info(versions, offer))
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut listed = wanted(&context, self.server.tools(plain(request))).await?;
        listed.result_type = COMPLETE;
        Ok(listed)
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.server.tool(name)
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let ask = self.server.read(async |peer| peer.list_prompts(plain(request)).await);
        let mut listed = wanted(&context, ask).await?;
        listed.result_type = COMPLETE;
        Ok(listed)
    }

    async fn get_prompt(
        &self,
        mut request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        request.meta = None;
        let request = ClientRequest::GetPromptRequest(GetPromptRequest::new(request));
        let ask = self.server.pass(request, context.meta.client_capabilities());
        match wanted(&context, ask).await? {
            ServerResult::GetPromptResult(mut prompt) => {
                prompt.result_type = COMPLETE;
                Ok(prompt.into())
            }
            ServerResult::InputRequiredResult(wants) => Ok(wants.into()),
            _ => Err(no_answer()),
        }
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let ask = self.server.read(async |peer| peer.list_resources(plain(request)).await);
        let mut listed = wanted(&context, ask).await?;
        listed.result_type = COMPLETE;
        Ok(listed)
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let ask = async |peer: Peer<_>| peer.list_resource_templates(plain(request)).await;
        let mut listed = wanted(&context, self.server.read(ask)).await?;
        listed.result_type = COMPLETE;
        Ok(listed)
    }

    async fn read_resource(
        &self,
        mut request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        request.meta = None;
        let request = ClientRequest::ReadResourceRequest(ReadResourceRequest::new(request));
        let ask = self.server.pass(request, context.meta.client_capabilities());
        match wanted(&context, ask).await? {
            ServerResult::ReadResourceResult(mut resource) => {
                resource.result_type = COMPLETE;
                Ok(resource.into())
            }
            ServerResult::InputRequiredResult(wants) => Ok(wants.into()),
            _ => Err(no_answer()),
        }
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let ask = self.server.read(async |peer| peer.complete(request).await);
        let mut completed = wanted(&context, ask).await?;
        completed.result_type = COMPLETE;
        Ok(completed)
    }

    async fn set_level(
        &self,
        request: SetLevelRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let ask = self.server.read(async |peer| peer.set_level(request).await);
        wanted(&context, ask).await
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let mut watch = self.server.watch(context.accepted().clone()).await?;
        loop {
            tokio::select! {
                () = context.cancelled() => return Ok(()),
                more = watch.pass_on(context.sink(), context.accepted()) => if !more {
                    return Ok(());
                },
            }
        }
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let asked = Asked {
            tool: request.name.into_owned(),
            arguments: request.arguments.unwrap_or_default(),
            inputs: request.input_responses,
            state: request.request_state,
            meta: context.meta.clone(),
            capabilities: context.meta.client_capabilities(),
        };
        let taken = match self.calls.call(&self.server, asked).await {
            Ok(taken) => taken,
            Err(denied) => return Ok(error(&denied).into()),
        };
        let outcome = taken.outcome();
        let mut meanwhile = Meanwhile::new(&taken, &self.server, &context);
        let done = tokio::select! {
            biased;
            // Whoever asked is gone, and may ask again: the call goes on without.
            () = context.ct.cancelled() => Err("the request was given up".to_owned()),
            done = outcome.wait() => done,
            () = meanwhile.pass_on() => unreachable!("it never returns"),
        };
        match done {
            Ok(answer) if !context.ct.is_cancelled() => {
                meanwhile.rest().await;
                taken.whole();
                answer.tell()
            }
            Ok(_) => Err(given_up()),
            Err(message) => Err(ErrorData::internal_error(message, None)),
        }
    }
}

impl Watch {
    /// Passes the next change on; returns whether there may be more.
    async fn pass_on(&mut self, sink: &SubscriptionSink, wanted: &SubscriptionFilter) -> bool {
        let said = match self {
            Self::Said(said) => match said.recv().await {
                Ok(said) => said,
                Err(RecvError::Lagged(_)) => return true,
                Err(RecvError::Closed) => return false,
            },
            Self::Subscription(subscription) => match subscription.next().await {
                Ok(Some(ServerNotification::ToolListChangedNotification(_))) => Said::Tools,
                Ok(Some(ServerNotification::PromptListChangedNotification(_))) => Said::Prompts,
                Ok(Some(ServerNotification::ResourceListChangedNotification(_))) => Said::Resources,
                Ok(Some(ServerNotification::ResourceUpdatedNotification(updated))) => {
                    Said::Resource(updated.params)
                }
                Ok(Some(_)) => return true,
                Ok(None) | Err(_) => return false,
            },
        };
        let sent = match said {
            Said::Tools if wanted.tools_list_changed == Some(true) => {
                sink.notify_tool_list_changed().await
            }
            Said::Prompts if wanted.prompts_list_changed == Some(true) => {
                sink.notify_prompt_list_changed().await
            }
            Said::Resources if wanted.resources_list_changed == Some(true) => {
                sink.notify_resource_list_changed().await
            }
            Said::Resource(updated)
                if wanted
                    .resource_subscriptions
                    .as_ref()
                    .is_some_and(|uris| uris.contains(&updated.uri)) =>
            {
                sink.notify_resource_updated(updated.uri).await
            }
            _ => return true,
        };
        sent.is_ok()
    }
}

/// A page, without what is between the harness and the gateway only.
fn plain(page: Option<PaginatedRequestParams>) -> Option<PaginatedRequestParams> {
    page.map(|mut page| {
        page.meta = None;
        page
    })
}
