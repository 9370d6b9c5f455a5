//! One gateway for each attempt.

use crate::config::{Config, Kind};
use crate::denials::Denials;
use crate::door::{self, Door, Listener, Users};
use crate::egress::{self, Egress};
use crate::models::{Meter, Models, Quotas, Rates, Used};
use crate::proof;
use crate::records::{Desk, Holder, Records};
use crate::session::{KEY_PREFIX, Recorded, Session, Told};
use crate::sockets::{self, Socket};
use crate::tools::{self, Spawn, Toolbox, Tools};
use ax_core::id::SessionKey;
use ax_core::session::{Answer, Failure, Frame, Prefix, StepKey};
use http::HeaderValue;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a gateway begins with.
pub struct Setup {
    /// What it lets through.
    pub config: Config,
    /// Where it listens.
    pub listen: Listen,
    /// Connections to the outside, shared by all gateways: see [`crate::connections`].
    pub http: reqwest::Client,
    /// Takes what the gateway says to its session.
    pub frames: mpsc::Sender<Frame>,
    /// Whether something may be done outside, at the moment of asking.
    pub may_act: Box<dyn Fn() -> bool + Send + Sync>,
    /// What earlier attempts of the execution recorded under keys that begin with [`KEY_PREFIX`].
    pub journal: Vec<Recorded>,
    /// Tool calls that earlier attempts may have carried out, and of which a probe can tell.
    pub doubts: HashSet<StepKey>,
    /// The requests that the session's log holds, those of earlier executions included.
    pub sent: Vec<Prefix>,
    /// Questions of earlier attempts under such keys, and their answers; `None` if they expired.
    pub asks: HashMap<StepKey, Option<Answer>>,
    /// What tells this execution from all others, for the keys that tool servers get:
    /// `NAMESPACE/SESSION/EXECUTION`.
    pub scope: String,
    /// Starts tool servers that are programs.
    pub spawn: Spawn,
    /// What was consumed before.
    pub used: Used,
    /// How fast agents call: one for all gateways of the process.
    pub rates: Rates,
    /// Whose rate it is: namespace and agent.
    pub rated: String,
    /// What namespaces may use: one for all gateways of the process.
    pub quotas: Quotas,
    /// The namespace.
    pub namespace: String,
    /// The session.
    pub session: SessionKey,
    /// Where the runtime's own interface is.
    pub desk: Desk,
    /// The W3C `traceparent` of the attempt, if it is traced: models and tool servers at an address
    /// hear of it.
    pub trace: Option<String>,
    /// Where files for the harness may be put, in a directory of their own. Made when needed.
    pub files: PathBuf,
}

/// Where a gateway listens: all ways lead to the same door.
#[derive(Debug, Default)]
pub struct Listen {
    /// A socket of its own: see [`crate::Sockets`]. Who comes this way needs no placeholder, and
    /// may have no other one.
    pub socket: Option<Socket>,
    /// What there is for programs that speak TCP.
    pub port: Port,
    /// The user ids, besides the runtime's own, that may come through the socket: those of
    /// sandboxes.
    pub users: Users,
}

/// A port for programs that speak TCP. Who comes this way needs the placeholder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Port {
    /// One of the loopback interface, which anybody on the machine can reach.
    #[default]
    Loopback,
    /// Nobody listens here: who runs the sandbox forwards this port of its own loopback interface
    /// to the socket.
    Forwarded(u16),
    /// There is only the socket.
    None,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Why a gateway cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A provider's key is not at hand.
    #[error(
        "the environment variable {variable} is not set where the runtime runs; set it to the API \
         key of {provider}, or name another variable in gateway.models[].apiKeyEnv"
    )]
    Key {
        /// The provider.
        provider: String,
        /// The variable that should hold it.
        variable: String,
    },
    /// What is to be added to requests is not at hand.
    #[error(
        "the environment variable {variable} {why} where the runtime runs; set it to the secret \
         for {host}, or name another variable in gateway.egress[].inject.apiKeyEnv"
    )]
    Credential {
        /// For which host.
        host: String,
        /// The variable that should hold it.
        variable: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The hosts to whose requests something is added cannot be vouched for.
    #[error("the certificates for hosts with credentials cannot be made: {source}")]
    Trust {
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No port can be had.
    #[error("the gateway cannot listen: {source}")]
    Listen {
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The door of one attempt. Dropping it closes it at once.
#[derive(Debug)]
pub struct Gateway {
    session: Arc<Session>,
    models: Arc<Models>,
    egress: Arc<Egress>,
    environment: Vec<(String, String)>,
    /// What has the harness believe the gateway; gone with it.
    files: Option<egress::Files>,
    toolbox: Toolbox,
    /// Calls under way, which go on without the harness.
    calls: TaskTracker,
    /// Ends everything at once.
    stop: CancellationToken,
    /// The file of its socket, which goes with it.
    socket: Option<sockets::File>,
}

/// The ways to the door.
struct Ways {
    users: Users,
    /// Where a harness that speaks TCP finds it.
    port: Option<u16>,
    listeners: Vec<Listener>,
    file: Option<sockets::File>,
}

impl Ways {
    async fn open(listen: Listen) -> Result<Self, OpenError> {
        let (port, mut listeners) = match listen.port {
            Port::Loopback => {
                let (port, listener) = loopback().await?;
                (Some(port), vec![Listener::Port(listener)])
            }
            Port::Forwarded(port) => (Some(port), Vec::new()),
            Port::None => (None, Vec::new()),
        };
        let mut file = None;
        if let Some(socket) = listen.socket {
            let listener = UnixListener::from_std(socket.listener);
            let listener = listener.map_err(|source| OpenError::Listen { source })?;
            listeners.push(Listener::Socket(listener));
            file = Some(socket.file);
        }
        Ok(Self { users: listen.users, port, listeners, file })
    }

    fn environment(&self, port: Port) -> Option<(String, String)> {
        if matches!(port, Port::Forwarded(_)) {
            // It is somewhere else inside, and for the forwarder.
            return None;
        }
        let path = self.file.as_ref()?.path().to_string_lossy().into_owned();
        Some(("AX_GATEWAY_SOCKET".to_owned(), path))
    }

    /// Listens from here on; returns the file of the socket, which must live as long.
    fn serve(self, door: &Arc<Door>, stop: &CancellationToken) -> Option<sockets::File> {
        for listener in self.listeners {
            drop(tokio::spawn(door::serve(listener, Arc::clone(door), stop.clone())));
        }
        self.file
    }
}

impl Gateway {
    /// Opens the door.
    ///
    /// # Errors
    ///
    /// Fails without a provider's key or another secret that is to be added to requests, and if no
    /// port of the loopback interface can be had.
    pub async fn open(setup: Setup) -> Result<Self, OpenError> {
        let Setup { config, http, frames, may_act, journal, doubts, sent, asks, .. } = setup;
        let (scope, spawn) = (setup.scope, setup.spawn);
        let session = Arc::new(Session::new(frames, may_act));
        let (calls, stop) = (TaskTracker::new(), CancellationToken::new());
        let trace = setup.trace.and_then(|trace| HeaderValue::try_from(trace).ok());
        let port = setup.listen.port;
        let ways = Ways::open(setup.listen).await?;
        let placeholder = proof::placeholder();
        let mut environment = environment(&config, ways.port, &placeholder);
        environment.extend(ways.environment(port));
        let Config { models: providers, tools: servers, on_divergence, limits, egress, records } =
            config;
        let records = records.map(|records| Records {
            desk: setup.desk,
            holder: Arc::new(Holder::new(setup.session, &records.sessions)),
            session: Arc::clone(&session),
        });
        let meter = Meter::new(limits, setup.used, setup.rates, setup.rated);
        let of_session = scope.rsplit_once('/').map_or("", |(session, _)| session);
        let meter = meter.within(of_session.to_owned(), setup.namespace, setup.quotas);
        let (for_tools, for_models) = journal.into_iter().partition(is_of_a_tool);
        let models = Models::new(
            providers,
            on_divergence,
            http,
            for_models,
            &sent,
            meter,
            Arc::clone(&session),
        )?;
        let models = Arc::new(models.under(calls.clone(), stop.clone(), trace.clone()));
        let tools = Tools::new(tools::Setup {
            servers,
            spawn,
            scope,
            journal: for_tools,
            doubts,
            asks,
            session: Arc::clone(&session),
            tasks: calls.clone(),
            stop: stop.clone(),
            trace,
        });
        let (rules, files) = egress::open(egress, setup.files).await?;
        environment.extend(files.iter().flat_map(egress::Files::environment));
        let resolve = egress::system_resolver();
        let egress = Arc::new(Egress::new(rules, resolve, Arc::clone(&session), stop.clone()));
        let (models_door, egress_door) = (Arc::clone(&models), Arc::clone(&egress));
        let toolbox = tools.toolbox();
        let door = Door {
            models: models_door,
            egress: egress_door,
            tools,
            records,
            denials: Arc::new(Denials::new(Arc::clone(&session))),
            placeholder: placeholder.into(),
            users: ways.users.clone(),
        };
        let socket = ways.serve(&Arc::new(door), &stop);
        Ok(Self { session, models, egress, environment, files, toolbox, calls, stop, socket })
    }

    /// Where its socket is, if it has one.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_ref().map(sockets::File::path)
    }

    /// The directory with files that its environment names, if there is one.
    pub fn files(&self) -> Option<&Path> {
        self.files.as_ref().map(egress::Files::dir)
    }

    /// Whether a key is one of the gateway's, which no harness may use.
    pub fn owns(key: &StepKey) -> bool {
        key.as_str().starts_with(KEY_PREFIX)
    }

    /// What a harness finds in its environment, so that it comes through here.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// The tools, for a harness that comes through no port.
    pub const fn toolbox(&self) -> &Toolbox {
        &self.toolbox
    }

    /// Takes in what the session says about a key of the gateway.
    pub fn tell(&self, key: &StepKey, told: Told) {
        self.session.tell(key, told);
    }

    /// Waits until the attempt cannot go on, and says why.
    pub async fn failed(&self) -> Failure {
        self.session.failed().await
    }

    /// Whether a model or a tool is being asked, and not only people.
    pub fn is_busy(&self) -> bool {
        self.calls.len() > self.session.asks()
    }

    /// The harness wants nothing more: ends what is under way, and returns when it has ended.
    pub async fn close(&self) {
        self.stop.cancel();
        self.drain().await;
    }

    /// The harness is gone, or said its last word: nothing new begins. Waits until the answers that
    /// are under way are read to their end and recorded. May be dropped and called again.
    pub async fn drain(&self) {
        self.session.closing();
        self.calls.close();
        self.calls.wait().await;
        self.models.sum_up().await;
        self.egress.sum_up().await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn loopback() -> Result<(u16, TcpListener), OpenError> {
    let listen = async || -> io::Result<_> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        Ok((listener.local_addr()?.port(), listener))
    };
    listen().await.map_err(|source| OpenError::Listen { source })
}

fn is_of_a_tool(recorded: &Recorded) -> bool {
    recorded.key.as_str().starts_with(&format!("{KEY_PREFIX}tool:"))
}

/// The variables that vendors' clients read, and one of ours for each provider. Without a port
/// there are only the words that serve as keys.
fn environment(config: &Config, port: Option<u16>, placeholder: &str) -> Vec<(String, String)> {
    let mut all = port.map_or_else(Vec::new, |port| addresses(config, port, placeholder));
    let keys = config.models.iter().flat_map(|provider| match provider.provider {
        Kind::Anthropic => &["ANTHROPIC_API_KEY"][..],
        Kind::Openai => &["OPENAI_API_KEY"],
        Kind::Gemini => &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
    });
    let keys: BTreeSet<_> = keys.chain(&["AX_GATEWAY_KEY"]).collect();
    all.extend(keys.into_iter().map(|name| ((*name).to_owned(), placeholder.to_owned())));
    all
}

/// The addresses of what can be reached through a port.
fn addresses(config: &Config, port: u16, placeholder: &str) -> Vec<(String, String)> {
    let mut all = vec![("AX_GATEWAY_URL".to_owned(), format!("http://127.0.0.1:{port}"))];
    let mut vendors = Vec::new();
    for provider in &config.models {
        let url = format!("http://127.0.0.1:{port}/{}", provider.name());
        let name = provider.name().to_ascii_uppercase().replace('-', "_");
        all.push((format!("AX_MODEL_{name}_URL"), url.clone()));
        // The first of a kind is what its clients find by themselves.
        if vendors.contains(&provider.provider) {
            continue;
        }
        vendors.push(provider.provider);
        let urls: &[(&str, &str)] = match provider.provider {
            Kind::Anthropic => &[("ANTHROPIC_BASE_URL", "")],
            Kind::Openai => &[("OPENAI_BASE_URL", "/v1"), ("OPENAI_API_BASE", "/v1")],
            Kind::Gemini => &[("GOOGLE_GEMINI_BASE_URL", ""), ("GEMINI_NEXT_GEN_API_BASE_URL", "")],
        };
        all.extend(urls.iter().map(|(name, path)| ((*name).to_owned(), format!("{url}{path}"))));
    }
    for server in &config.tools {
        let name = server.name.to_ascii_uppercase().replace('-', "_");
        let url = format!("http://127.0.0.1:{port}/mcp/{}?key={placeholder}", server.name);
        all.push((format!("AX_MCP_{name}_URL"), url));
    }
    if config.records.is_some() {
        // What the runtime's own clients read.
        all.push(("AX_SERVER".into(), format!("http://127.0.0.1:{port}")));
        all.push(("AX_TOKEN".into(), placeholder.into()));
    }
    // Programs that heed no proxy reach nothing once they are in a sandbox.
    if !config.egress.is_empty() {
        let proxy = format!("http://ax:{placeholder}@127.0.0.1:{port}");
        let names = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"];
        all.extend(names.map(|name| (name.to_owned(), proxy.clone())));
    }
    // Clients that heed a proxy would send it there what is for us.
    all.extend(
        ["NO_PROXY", "no_proxy"].map(|name| (name.to_owned(), "127.0.0.1,localhost".into())),
    );
    all
}
