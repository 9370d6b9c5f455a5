//! The engine within this process.

use crate::config::Config;
use crate::failure::Failure;
use crate::guard::{Gate, Locks};
use crate::paths::{DataDir, Holder, unusable};
use crate::telemetry::otlp;
use crate::time::now;
use ax_core::id::SessionId;
use ax_core::time::Timestamp;
use ax_engine::{Code, Engine, Observer, SystemClock, SystemEntropy, WaitState, codec};
use ax_harness::{Adapters, Period, Quota, Quotas, supervise};
use ax_log::{EmbeddedLog, EventLog, Filter, ListQuery, OpenError, Options, StateMask};
use ax_server::ops::{Metrics, Probes, Watch};
use ax_server::tls::Tls;
use ax_server::{Connections, Listener, Server};
use ax_store::Blobs;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How late a timer has to be to be worth a word, in milliseconds.
pub(crate) const LATE_MILLIS_MIN: u64 = 2_000;
/// How many attempts run at once, unless the command line says.
pub(crate) const RUNS_MAX: usize = 64;
/// How many late timers are named.
const LATE_MAX: usize = 20;

/// What an engine is opened for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// To run sessions for whoever asks, for as long as it takes.
    Serve {
        /// How many attempts may run at once.
        runs_max: usize,
        /// Where else to listen than at the data directory's socket.
        doors: Doors,
    },
    /// To run sessions while this command does.
    Pass,
    /// To read or record something over this connection, and run nothing.
    Record(UnixStream),
}

/// Addresses to listen at, and for whom.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doors {
    pub(crate) listen: Vec<SocketAddr>,
    /// Anybody may do anything.
    pub(crate) open: bool,
    /// Origins of web pages that may use the server.
    pub(crate) origins: Vec<String>,
    /// Who is let in.
    pub(crate) locks: Locks,
}

impl Doors {
    /// Reads the settings.
    pub(crate) fn of(config: &Config) -> Self {
        let listen = config.texts("listen.address");
        Self {
            // What is no address is refused where settings are read.
            listen: listen.iter().filter_map(|address| address.parse().ok()).collect(),
            open: config.is("listen.insecure_no_auth"),
            origins: config.texts("listen.origins"),
            locks: Locks::of(config),
        }
    }

    /// Begins to listen. Nobody is answered yet.
    async fn listeners(&self, tls: Option<&Arc<Tls>>) -> Result<Vec<Listener>, Failure> {
        let mut listeners = Vec::new();
        for address in &self.listen {
            let mut listener = Listener::tcp(*address).await?;
            if let Some(tls) = tls {
                listener = listener.secured(Arc::clone(tls) as _);
            }
            listeners.push(if self.open { listener.open_to_anybody() } else { listener });
        }
        Ok(listeners)
    }
}

/// An engine, and the server in front of it.
#[derive(Debug)]
pub(crate) struct Embedded {
    pub(crate) engine: Engine,
    pub(crate) stop: CancellationToken,
    pub(crate) connections: Connections,
    /// Timers that came due while nothing ran.
    pub(crate) late: Vec<Late>,
    pub(crate) log: Arc<dyn EventLog>,
    /// Where else it listens than at the socket, such as `http://127.0.0.1:7700`.
    pub(crate) addresses: Vec<String>,
    serving: JoinHandle<Result<(), ax_server::ServeError>>,
    /// The data directory, if its socket is served.
    data: Option<DataDir>,
    /// Who is let in.
    pub(crate) gate: Gate,
    /// Says how it is.
    pub(crate) probes: Probes,
    /// Sends spans away, if somebody takes them.
    exporter: Option<otlp::Exporter>,
}

/// A timer that came due while nothing ran.
#[derive(Clone, Debug)]
pub(crate) struct Late {
    pub(crate) session: SessionId,
    pub(crate) due_at: Timestamp,
}

impl Purpose {
    fn doors(&self) -> Doors {
        match self {
            Self::Serve { doors, .. } => doors.clone(),
            _ => Doors::default(),
        }
    }

    const fn runs_max(&self) -> usize {
        match self {
            Self::Serve { runs_max, .. } => *runs_max,
            Self::Pass => RUNS_MAX,
            Self::Record(_) => 0,
        }
    }
}

impl Embedded {
    /// Opens the data directory and serves it.
    pub(crate) async fn open(
        data: &DataDir,
        purpose: Purpose,
        config: &Config,
    ) -> Result<Self, Failure> {
        data.make()?;
        let doors = purpose.doors();
        let gate = doors.locks.gate(data, config)?;
        let mut listeners = doors.listeners(gate.tls.as_ref()).await?;
        // An address at which nobody can be known has no guard, and is refused.
        let known = doors.open || doors.listen.is_empty() || gate.auth.knows_anybody();
        let guard = known.then(|| gate.auth.guard());
        let mut options =
            ax_server::Options { guard, origins: doors.origins, ..Default::default() };
        ax_server::check(&listeners, &options)?;
        let log: Arc<dyn EventLog> = Arc::new(open_log(data).await?);
        let late = late(&*log).await?;
        let runs_max = purpose.runs_max();
        let unsandboxed = doors.listen.is_empty() || config.is("listen.allow_unsandboxed");
        let adapters = Adapters::new(programs(data, unsandboxed)).at(options.desk.clone());
        let (engine, watch, exporter) = engine(data, &log, runs_max, adapters, config).await?;
        let passing = matches!(purpose, Purpose::Pass);
        let mut addresses = Vec::new();
        let served = match purpose {
            Purpose::Record(stream) => {
                listeners.push(Listener::pair(stream));
                None
            }
            _ => {
                let socket = data.socket()?;
                let urls = listeners.iter().filter_map(Listener::url);
                addresses = urls.collect::<Vec<_>>();
                listeners.push(Listener::bind(&socket)?);
                let (pid, addresses) = (std::process::id(), addresses.clone());
                data.hold(&Holder { socket, passing, pid, addresses })?;
                Some(data.clone())
            }
        };
        let (stop, connections) = (CancellationToken::new(), gate.connections.clone());
        let probes = Probes {
            engine: engine.clone(),
            data_dir: data.root.clone(),
            stop: stop.clone(),
            connections: connections.clone(),
            watch,
        };
        probes.mount(&mut options, config.is("metrics.enabled"), config.is("metrics.public"));
        let server = Server {
            engine: engine.clone(),
            data_dir: data.root.clone(),
            started_at: now(),
            stop: stop.clone(),
            connections: connections.clone(),
            options,
        };
        let serving = tokio::spawn(server.serve(listeners));
        let data = served;
        Ok(Self {
            engine,
            stop,
            connections,
            late,
            log,
            addresses,
            serving,
            data,
            gate,
            probes,
            exporter,
        })
    }

    /// Waits until something stops it: [`Embedded::stop`], a request, or a failure.
    pub(crate) async fn served(&mut self) -> Result<(), Failure> {
        let served = (&mut self.serving).await;
        if let Some(data) = self.data.take() {
            data.let_go();
        }
        if let Some(exporter) = self.exporter.take() {
            exporter.flush().await;
        }
        match served {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Err(error) => Err(Failure::new(Code::Internal, "the server broke").because(&error)),
        }
    }

    /// Stops the engine and the server.
    pub(crate) async fn close(mut self) -> Result<(), Failure> {
        self.stop.cancel();
        self.served().await
    }
}

/// Opens the engine, and what watches it.
async fn engine(
    data: &DataDir,
    log: &Arc<dyn EventLog>,
    runs_max: usize,
    adapters: Adapters,
    config: &Config,
) -> Result<(Engine, Arc<Watch>, Option<otlp::Exporter>), Failure> {
    let adapters = adapters.within(quotas(data, config)?);
    let blobs = Blobs::local(&data.blobs()).map_err(|error| {
        Failure::new(Code::Directory, "the blobs cannot be opened").because(&error)
    })?;
    let metrics = Arc::new(Metrics::new());
    let exporting = otlp::start(config, &metrics).map_err(|error| {
        Failure::new(Code::Config, "the traces cannot be exported").because(&error)
    })?;
    let (spans, exporter) = exporting.unzip();
    let watch = Arc::new(Watch::new(metrics, spans));
    let options = ax_engine::Options {
        data_dir: data.root.clone(),
        runs_max,
        log: Arc::clone(log),
        blobs,
        launcher: Arc::new(adapters),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
    };
    let observer: Arc<dyn Observer> = Arc::<Watch>::clone(&watch);
    let engine = Engine::open_observed(options, observer).await?;
    Ok((engine, watch, exporter))
}

/// What namespaces may use of models, and have used.
fn quotas(data: &DataDir, config: &Config) -> Result<Quotas, Failure> {
    let of = |name: &str| config.number(&format!("limits.models.{name}"));
    let quota = Quota {
        period: match config.text("limits.models.period") {
            Some("day") => Period::Day,
            _ => Period::Month,
        },
        calls: of("calls"),
        tokens: of("tokens"),
        dollars: of("dollars"),
        calls_per_minute: of("calls_per_minute"),
        tokens_per_minute: of("tokens_per_minute"),
    };
    Quotas::open(quota, data.model_use()).map_err(|error| {
        let hint = "remove the file: what was used so far is then forgotten";
        Failure::new(Code::Damaged, error.to_string()).because(&error.source).hint(hint)
    })
}

/// How programs are started; without a sandbox only where that is allowed.
pub(crate) fn programs(data: &DataDir, unsandboxed: bool) -> supervise::Options {
    // Not by its path: when an upgrade has replaced it, the file is another one by now.
    supervise::Options {
        supervisor: vec!["/proc/self/exe".into(), "__supervise".into()],
        sandbox: vec!["/proc/self/exe".into(), "__sandbox".into()],
        run_dir: data.supervisors(),
        images: data.images(),
        private: vec![data.root.clone()],
        unsandboxed,
    }
}

async fn open_log(data: &DataDir) -> Result<EmbeddedLog, Failure> {
    let options = Options::new(data.log());
    let opened = tokio::task::spawn_blocking(move || EmbeddedLog::open(&options)).await;
    match opened {
        Ok(opened) => opened.map_err(|error| log_failure(data, &error)),
        Err(error) => Err(Failure::new(Code::Internal, "the log broke").because(&error)),
    }
}

/// Says why a log cannot be opened.
pub(crate) fn log_failure(data: &DataDir, error: &OpenError) -> Failure {
    let failure = |code| {
        let failure = Failure::new(code, error.to_string());
        match std::error::Error::source(error) {
            Some(source) => failure.because(source),
            None => failure,
        }
    };
    match error {
        OpenError::Locked { holder, .. } => {
            let message = format!("{} is in use by {holder}", data.root.display());
            Failure::new(Code::Locked, message)
        }
        OpenError::Damaged { .. } => failure(Code::Damaged),
        OpenError::Version { .. } => failure(Code::Version),
        OpenError::Full { .. } => failure(Code::Full),
        OpenError::Io { source, .. } => unusable(&data.root, source).because_of(&error.to_string()),
    }
}

/// Finds the timers that came due while nothing ran.
async fn late(log: &dyn EventLog) -> Result<Vec<Late>, Failure> {
    let mut late = Vec::new();
    let before = now().millis.saturating_sub(LATE_MILLIS_MIN);
    let filter = Filter {
        states: StateMask::of(WaitState::WaitingTimer as u8),
        due_before_millis: Some(before),
    };
    for namespace in log.namespaces().await.map_err(ax_engine::Error::from)? {
        let mut after = None;
        loop {
            let query = ListQuery { namespace: namespace.clone(), after, limit: LATE_MAX, filter };
            let page = log.list(query).await.map_err(ax_engine::Error::from)?;
            // A row that cannot be read is the engine's to complain about.
            late.extend(page.rows.into_iter().filter_map(|row| {
                let view = codec::decode_row(row.session, &row.head).ok()?;
                let due_at = view.status.due_at?;
                Some(Late { session: row.session, due_at })
            }));
            after = page.next;
            if after.is_none() || late.len() >= LATE_MAX {
                break;
            }
        }
    }
    late.truncate(LATE_MAX);
    Ok(late)
}
