//! What a harness sees of a tool server.

use super::server::Server;
use super::{Calls, error};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ListToolsResult, PaginatedRequestParams,
    ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use std::sync::Arc;

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
}

impl ServerHandler for Proxy {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let listed = tokio::select! {
            () = context.ct.cancelled() => Err("the request was given up".to_owned()),
            listed = self.server.tools() => listed,
        };
        let tools = listed.map_err(|message| {
            let message =
                format!("the tool server {} cannot be used: {message}", self.server.name());
            ErrorData::internal_error(message, None)
        })?;
        Ok(ListToolsResult::with_all_items(tools))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let taken = match self.calls.call(&self.server, &request.name, arguments) {
            Ok(taken) => taken,
            Err(denied) => return Ok(error(&denied).into()),
        };
        let outcome = taken.outcome();
        let done = tokio::select! {
            biased;
            // Whoever asked is gone, and may ask again: the call goes on without.
            () = context.ct.cancelled() => Err("the request was given up".to_owned()),
            done = outcome.wait() => done,
        };
        match done {
            Ok(result) if !context.ct.is_cancelled() => {
                taken.whole();
                Ok(result.into())
            }
            Ok(_) => Err(ErrorData::internal_error("the request was given up", None)),
            Err(message) => Err(ErrorData::internal_error(message, None)),
        }
    }
}
