//! Connecting to a tool server.

use super::listener::Listener;
use crate::config::ToolServer;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http::{HeaderName, HeaderValue};
use rmcp::RoleClient;
use rmcp::model::{
    ClientJsonRpcMessage, ClientRequest, GetExtensions as _, JsonRpcMessage, ProtocolVersion,
    RequestMetaObject,
};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt as _, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::{
    StreamableHttpClient, StreamableHttpClientTransportConfig, StreamableHttpError,
    StreamableHttpPostResponse, StreamableHttpResponseLimits,
};
use sse_stream::{Error as SseError, Sse};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

/// Under which name a server finds the key of a call, in its `_meta`.
pub(super) const KEY_FIELD: &str = "dev.agentexecutor/idempotency-key";
/// And in which header.
const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// The longest line of a program, in bytes: a result that is larger cannot be taken.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

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

/// A connection; a program behind it ends with it.
#[derive(Debug)]
pub(super) struct Live {
    running: RunningService<RoleClient, Listener>,
    /// Ends the program.
    _program: Option<tokio_util::sync::DropGuard>,
}

impl Live {
    pub(super) fn peer(&self) -> &rmcp::Peer<RoleClient> {
        self.running.peer()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.running.is_closed()
    }
}

pub(super) type Connection = Arc<Live>;

/// Connects to a server in the newest version that both know: as it is today, and if that does not
/// work, with the handshake of earlier versions.
pub(super) async fn connect(
    config: &ToolServer,
    spawn: &Spawn,
    stop: &CancellationToken,
    listener: &Listener,
    trace: Option<&HeaderValue>,
) -> Result<Connection, String> {
    let either = ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::LATEST],
        legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
    };
    let newest = try_connect(config, spawn, (stop, trace), listener, either).await;
    let Err(why) = newest else { return newest };
    let why = config.hidden(why);
    // A server that does not know the first word of today may end, or say something odd.
    tracing::debug!(server = config.name, why, "trying the handshake of earlier versions");
    try_connect(config, spawn, (stop, trace), listener, ClientLifecycleMode::Initialize).await
}

async fn try_connect(
    config: &ToolServer,
    spawn: &Spawn,
    (stop, trace): (&CancellationToken, Option<&HeaderValue>),
    listener: &Listener,
    lifecycle: ClientLifecycleMode,
) -> Result<Connection, String> {
    if let Some(url) = &config.url {
        let transport =
            StreamableHttpClientTransport::with_client(http(config, trace)?, address(config, url)?);
        let running = listener.clone().serve_with_lifecycle(transport, lifecycle).await;
        let running = running.map_err(|error| error.to_string())?;
        return Ok(Arc::new(Live { running, _program: None }));
    }
    let env = config.env.clone().into_iter().collect();
    let (command, stop) = (config.command.clone(), stop.child_token());
    let program = stop.clone().drop_guard();
    let spawned = spawn(ToolCommand { command, env, stop }).await;
    let Spawned { output, input } = spawned.map_err(|error| error.to_string())?;
    let transport = (Lines { from: output, length: 0 }, input);
    let running = listener.clone().serve_with_lifecycle(transport, lifecycle).await;
    let running = running.map_err(|error| error.to_string())?;
    Ok(Arc::new(Live { running, _program: Some(program) }))
}

fn address(config: &ToolServer, url: &str) -> Result<StreamableHttpClientTransportConfig, String> {
    let mut address = StreamableHttpClientTransportConfig::with_uri(url.to_owned());
    if let Some(variable) = &config.api_key_env {
        let key = config.key().ok_or_else(|| {
            format!("the environment variable {variable} is not set where the runtime runs")
        })?;
        address = address.auth_header(key);
    }
    Ok(address)
}

/// Connections to servers at an address: without redirects, which would take a key elsewhere.
fn http(config: &ToolServer, trace: Option<&HeaderValue>) -> Result<Http, String> {
    let traced = trace.map(|trace| (HeaderName::from_static("traceparent"), trace.clone()));
    // A connection that was left open may be gone when it is needed.
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_MAX)
        .pool_max_idle_per_host(0)
        .tcp_nodelay(true)
        .default_headers(traced.into_iter().collect())
        .build();
    let client = client.map_err(|error| error.to_string())?;
    Ok(Http { client, server: config.clone() })
}

/// Sends the key of a call in a header, too.
#[derive(Clone, Debug)]
struct Http {
    client: reqwest::Client,
    server: ToolServer,
}

type HttpError = StreamableHttpError<reqwest::Error>;

impl Http {
    /// Takes the key out of an error in which the server repeats it: it is logged by others.
    fn without_key(&self, error: HttpError) -> HttpError {
        match error {
            StreamableHttpError::UnexpectedServerResponse(said) => {
                let said = self.server.hidden(said.into_owned());
                StreamableHttpError::UnexpectedServerResponse(said.into())
            }
            other => other,
        }
    }
}

/// The headers of a message: those of all messages, and the key of a call.
type Headers = HashMap<HeaderName, HeaderValue>;

fn with_key(message: &ClientJsonRpcMessage, mut headers: Headers) -> Headers {
    if let JsonRpcMessage::Request(request) = message
        && let ClientRequest::CallToolRequest(call) = &request.request
        && let Some(meta) = call.extensions().get::<RequestMetaObject>()
        && let Some(key) = meta.get(KEY_FIELD).and_then(|key| key.as_str())
        && let Ok(key) = HeaderValue::from_str(key)
    {
        drop(headers.insert(KEY_HEADER, key));
    }
    headers
}

impl StreamableHttpClient for Http {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<StreamableHttpPostResponse, StreamableHttpError<Self::Error>> {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(uri, message, session, auth, headers, limits).await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        headers: Headers,
        limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse, StreamableHttpError<Self::Error>> {
        let headers = with_key(&message, headers);
        let client = &self.client;
        let said =
            client.post_message_with_response_limits(uri, message, session, auth, headers, limits);
        said.await.map_err(|error| self.without_key(error))
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<(), StreamableHttpError<Self::Error>> {
        let said = self.client.delete_session(uri, session, auth, headers).await;
        said.map_err(|error| self.without_key(error))
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last: Option<String>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, StreamableHttpError<Self::Error>> {
        let said = self.client.get_stream(uri, session, last, auth, headers).await;
        said.map_err(|error| self.without_key(error))
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last: Option<String>,
        auth: Option<String>,
        headers: Headers,
        size: usize,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, StreamableHttpError<Self::Error>> {
        let client = &self.client;
        let said =
            client.get_stream_with_max_sse_event_size(uri, session, last, auth, headers, size);
        said.await.map_err(|error| self.without_key(error))
    }
}

/// The output of a program; breaks at a line that is too long, so that nobody waits for an answer
/// that cannot be taken.
struct Lines {
    from: Box<dyn AsyncRead + Send + Unpin>,
    length: usize,
}

impl AsyncRead for Lines {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        std::task::ready!(Pin::new(&mut self.from).poll_read(context, into))?;
        let new = &into.filled()[before..];
        self.length = match new.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => new.len() - at - 1,
            None => self.length + new.len(),
        };
        if self.length > LINE_BYTES_MAX {
            let message = format!("a line is longer than {LINE_BYTES_MAX} bytes");
            return Poll::Ready(Err(io::Error::other(message)));
        }
        Poll::Ready(Ok(()))
    }
}
