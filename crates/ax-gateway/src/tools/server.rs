//! The connection to a tool server, made when it is first needed, and again when it broke.

use crate::config::ToolServer;
use crate::policy::{self, Policy, Verdict};
use ax_core::session::EffectClass;
use futures::future::BoxFuture;
use rmcp::model::{CallToolRequestParams, CallToolResult, JsonObject, RequestMetaObject, Tool};
use rmcp::service::{RunningService, ServiceError};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{RoleClient, ServiceExt};
use serde_json::Value;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a tool server has until it can be used.
const START_MAX: Duration = Duration::from_secs(60);
/// Under which name a server finds the key of a call, in its `_meta`.
const KEY_FIELD: &str = "dev.agentexecutor/idempotency-key";

/// A tool server that is a program.
#[derive(Clone, Debug)]
pub struct ToolCommand {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Added to its environment.
    pub env: Vec<(String, String)>,
    /// Ends it.
    pub stop: CancellationToken,
}

/// A program that was started: what it says, and what it is told.
pub struct Spawned {
    /// Its standard output.
    pub output: Box<dyn AsyncRead + Send + Unpin>,
    /// Its standard input.
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
}

impl fmt::Debug for Spawned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawned").finish_non_exhaustive()
    }
}

/// Starts programs. What they become when they are told to stop is the caller's business.
pub type Spawn = Arc<dyn Fn(ToolCommand) -> BoxFuture<'static, io::Result<Spawned>> + Send + Sync>;

type Connection = Arc<RunningService<RoleClient, ()>>;

/// A tool server.
pub(super) struct Server {
    config: ToolServer,
    spawn: Spawn,
    stop: CancellationToken,
    connection: Mutex<Option<Connection>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Why a call has no result.
#[derive(Debug)]
pub(super) enum CallError {
    /// The server answered with an error.
    Said(String),
    /// The server cannot be had: nothing was asked of it.
    Absent(String),
    /// The server broke: nobody knows what it did.
    Broken(String),
}

impl Server {
    pub(super) fn new(config: ToolServer, spawn: Spawn, stop: CancellationToken) -> Self {
        Self { config, spawn, stop, connection: Mutex::default() }
    }

    pub(super) fn name(&self) -> &str {
        &self.config.name
    }

    /// What holds for a tool.
    pub(super) fn policy(&self, tool: &str) -> Policy {
        policy::of(&self.config.tools, tool)
    }

    /// Returns the tools that may be called.
    pub(super) async fn tools(&self) -> Result<Vec<Tool>, String> {
        let listed = timeout(START_MAX, async {
            let connection = self.connection().await?;
            connection.peer().list_all_tools().await.map_err(|error| error.to_string())
        });
        let tools = tokio::select! {
            () = self.stop.cancelled() => return Err("the attempt is over".into()),
            listed = listed => match listed {
                Ok(listed) => listed?,
                Err(_) => return Err(format!("no answer within {} s", START_MAX.as_secs())),
            },
        };
        let offered = tools.into_iter().filter_map(|mut tool| {
            let Policy { verdict, effect } = self.policy(&tool.name);
            if effect == EffectClass::Once {
                // A person may have to say what became of it, which is text of no such form.
                tool.output_schema = None;
            }
            (verdict != Verdict::Deny).then_some(tool)
        });
        Ok(offered.collect())
    }

    /// Calls a tool. `key` is the same however often the call is made.
    pub(super) async fn call(
        &self,
        tool: &str,
        arguments: JsonObject,
        key: &str,
    ) -> Result<CallToolResult, CallError> {
        let connection = self.connection().await.map_err(CallError::Absent)?;
        let mut params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        let mut meta = RequestMetaObject::default();
        meta.insert(KEY_FIELD.into(), Value::from(key));
        params.meta = Some(meta);
        match connection.peer().call_tool(params).await {
            Ok(result) => Ok(result),
            Err(ServiceError::McpError(error)) => Err(CallError::Said(error.message.into_owned())),
            Err(error) => {
                self.forget(&connection).await;
                Err(CallError::Broken(error.to_string()))
            }
        }
    }

    async fn connection(&self) -> Result<Connection, String> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(Arc::clone(connection));
        }
        let connection = match timeout(START_MAX, self.connect()).await {
            Ok(connected) => Arc::new(connected?),
            Err(_) => return Err(format!("it is not ready within {} s", START_MAX.as_secs())),
        };
        *kept = Some(Arc::clone(&connection));
        Ok(connection)
    }

    async fn connect(&self) -> Result<RunningService<RoleClient, ()>, String> {
        if let Some(url) = &self.config.url {
            let mut config = StreamableHttpClientTransportConfig::with_uri(url.clone());
            if let Some(variable) = &self.config.api_key_env {
                let key = std::env::var(variable).map_err(|_| {
                    format!("the environment variable {variable} is not set where the runtime runs")
                })?;
                config = config.auth_header(key);
            }
            let transport = StreamableHttpClientTransport::from_config(config);
            return ().serve(transport).await.map_err(|error| error.to_string());
        }
        let env = self.config.env.clone().into_iter().collect();
        let (command, stop) = (self.config.command.clone(), self.stop.child_token());
        let spawned = (self.spawn)(ToolCommand { command, env, stop }).await;
        let spawned = spawned.map_err(|error| error.to_string())?;
        ().serve((spawned.output, spawned.input)).await.map_err(|error| error.to_string())
    }

    async fn forget(&self, broken: &Connection) {
        let mut kept = self.connection.lock().await;
        if kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, broken)) {
            *kept = None;
        }
    }
}
