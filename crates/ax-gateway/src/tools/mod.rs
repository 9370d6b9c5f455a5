//! The way of a tool call: who asks, whether it is allowed, which result belongs to it, and if
//! there is none yet, calling the tool server.

mod answer;
mod calls;
mod connect;
mod ledger;
mod listener;
mod proxy;
mod server;
mod toolbox;

use crate::config::ToolServer;
use crate::session::{KEY_PREFIX, Recorded, Session};
use answer::Answer;
use ax_core::session::{self as core, StepKey};
use bytes::Bytes;
use calls::Calls;
pub use connect::{Spawn, Spawned, ToolCommand};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use ledger::Ledger;
use proxy::Proxy;
use rmcp::model::{CallToolResult, ContentBlock};
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::tower::StreamableHttpServerConfig;
use server::Server;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
pub use toolbox::{Offered, Said, Toolbox};

/// How often a harness that waits for a result hears that it is still waited for.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The largest request, in bytes.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a harness may take to send one.
const REQUEST_MAX: Duration = Duration::from_secs(30);

type Service = StreamableHttpService<Proxy, LocalSessionManager>;
type Reply = Response<BoxBody<Bytes, Infallible>>;

/// Everything between a harness and its tool servers.
pub(crate) struct Tools {
    servers: HashMap<String, Service>,
    toolbox: Toolbox,
}

impl fmt::Debug for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tools").field("servers", &self.servers.keys()).finish_non_exhaustive()
    }
}

/// What tools begin with.
pub(crate) struct Setup {
    pub(crate) servers: Vec<ToolServer>,
    pub(crate) spawn: Spawn,
    /// What tells one execution from all others.
    pub(crate) scope: String,
    pub(crate) journal: Vec<Recorded>,
    /// Calls that may have been carried out by earlier attempts, and of which a probe can tell.
    pub(crate) doubts: HashSet<StepKey>,
    /// Questions of earlier attempts, with their answers.
    pub(crate) asks: HashMap<StepKey, Option<core::Answer>>,
    pub(crate) session: Arc<Session>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    /// The trace that calls are part of.
    pub(crate) trace: Option<HeaderValue>,
}

impl Tools {
    pub(crate) fn new(setup: Setup) -> Self {
        let Setup { servers, spawn, scope, journal, doubts, asks, session, tasks, stop, trace } =
            setup;
        let ledger = Ledger::new(journal, doubts);
        let calls = Arc::new(Calls::new(ledger, asks, session, scope, tasks, stop.clone()));
        let server =
            |config| Arc::new(Server::new(config, Arc::clone(&spawn), stop.clone(), trace.clone()));
        let servers: Vec<_> = servers.into_iter().map(server).collect();
        let toolbox = Toolbox::new(servers.clone(), Arc::clone(&calls));
        let servers = servers.into_iter().map(|server| {
            let name = server.name().to_owned();
            let proxy = Proxy::new(server, Arc::clone(&calls));
            let config = StreamableHttpServerConfig::default()
                .with_legacy_session_mode(false)
                .with_sse_keep_alive(Some(KEEP_ALIVE))
                .with_max_request_body_bytes(REQUEST_BYTES_MAX)
                .with_cancellation_token(stop.child_token());
            let service = Service::new(move || Ok(proxy.clone()), Arc::default(), config);
            (name, service)
        });
        Self { servers: servers.collect(), toolbox }
    }

    pub(crate) fn toolbox(&self) -> Toolbox {
        self.toolbox.clone()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.servers.contains_key(name)
    }

    /// Answers a request for a tool server.
    pub(crate) async fn answer(&self, name: &str, request: Request<Incoming>) -> Option<Reply> {
        let service = self.servers.get(name)?;
        let (head, body) = request.into_parts();
        // It is read here, since nobody else is in a hurry.
        let body = Limited::new(body, REQUEST_BYTES_MAX).collect();
        let body = match tokio::time::timeout(REQUEST_MAX, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let message = format!("a request may have {REQUEST_BYTES_MAX} bytes");
                return Some(refuse(StatusCode::PAYLOAD_TOO_LARGE, &message));
            }
            Ok(Err(_)) => return Some(refuse(StatusCode::BAD_REQUEST, "the request broke off")),
            Err(_) => return Some(refuse(StatusCode::REQUEST_TIMEOUT, "the request is too slow")),
        };
        Some(service.handle(Request::from_parts(head, Full::new(body))).await)
    }
}

/// What a harness is told when a tool did not do what it should.
fn error(message: &str) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(message)])
}

/// Returns the name of the nth call with this request.
fn key(server: &str, digest: core::Digest, number: usize) -> StepKey {
    let hex: String = digest.to_string().chars().take(32).collect();
    format!("{KEY_PREFIX}tool:{server}:{hex}:{number}").into()
}

fn refuse(status: StatusCode, message: &str) -> Reply {
    let text = serde_json::json!({"error": {"message": message}}).to_string();
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed());
    *response.status_mut() = status;
    response
}
