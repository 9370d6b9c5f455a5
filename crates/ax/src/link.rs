//! How a command reaches an engine: a server's socket, or one within this process.
//!
//! Either way it speaks through the same client. If the process that served the socket was a
//! command that is done, the next one takes its place when the connection is made again.

use crate::args::Global;
use crate::config::{Config, Given};
use crate::embed::{Embedded, Purpose};
use crate::failure::Failure;
use crate::out::Out;
use crate::paths::DataDir;
use crate::takeover::{self, Lock};
use crate::telemetry::Logs;
use crate::time::{now, rfc3339, span};
use ax_client::{Address, Client, Connect, Connection, Credentials, Patience, boxed, connect};
use ax_engine::Code;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

/// How long a data directory that is in use, but not served, is waited for: its holder may be
/// about to serve it, or about to let it go.
const LOCKED_MILLIS_MAX: u64 = 5_000;
/// How long a server is given to answer before a command says that it does not.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How often it is tried.
const LOCKED_PAUSE: Duration = Duration::from_millis(25);

/// What a command needs an engine for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// To see work done, and to do it if nobody else does.
    Run,
    /// To read or record something.
    Record,
}

/// What every command is given.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) out: Out,
    pub(crate) config: Arc<Config>,
    /// What the configuration was made of, to make it again.
    pub(crate) given: Given,
    pub(crate) logs: Logs,
}

/// A client, and perhaps the engine behind it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: Client,
    state: Arc<Mutex<State>>,
}

struct State {
    target: Target,
    out: Out,
    config: Arc<Config>,
    embedded: Option<Embedded>,
    /// The own end of a private connection.
    pair: Option<UnixStream>,
    /// Whether whoever serves the directory now goes when its command is done.
    passing: bool,
    need: Need,
}

enum Target {
    Server(Address, Connect),
    Data(DataDir),
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("State");
        match &self.target {
            Target::Server(address, _) => f.field("server", address),
            Target::Data(data) => f.field("data", data),
        };
        f.field("need", &self.need).finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn data(&self) -> Result<DataDir, Failure> {
        DataDir::find(self.global.data.as_deref())
    }

    /// The data directory, made where it is missing, for what (such as keys) no server hands out.
    pub(crate) fn own_data(&self, what: &str) -> Result<DataDir, Failure> {
        if self.global.server.is_some() {
            let message =
                format!("{what} belong to a data directory, and no server hands them out");
            return Err(Failure::usage(message).hint(
                "run it on the server's machine, without --server and AX_SERVER, \
                 and name the directory with --data",
            ));
        }
        let data = self.data()?;
        data.make()?;
        Ok(data)
    }

    /// How many attempts a server runs at once.
    pub(crate) fn runs_max(&self) -> usize {
        let count = self.config.number("engine.runs_max").and_then(|count| count.try_into().ok());
        count.unwrap_or(crate::embed::RUNS_MAX)
    }

    /// Reaches an engine.
    pub(crate) async fn link(&self, need: Need) -> Result<Link, Failure> {
        self.link_with(need, Patience::default()).await
    }

    async fn link_with(&self, need: Need, patience: Patience) -> Result<Link, Failure> {
        let namespace = self.global.namespace();
        ax_core::id::Namespace::new(namespace).map_err(|error| {
            Failure::usage(error.to_string()).hint("name another with --namespace")
        })?;
        let credentials = self.credentials();
        let target = match &self.global.server {
            Some(server) => {
                let address = address(server)?;
                let connect = connect(&address, &credentials)?;
                Target::Server(address, connect)
            }
            None => Target::Data(self.data()?),
        };
        let (out, embedded, pair, passing) = (self.out, None, None, false);
        let config = Arc::clone(&self.config);
        let mut state = State { target, out, config, embedded, pair, passing, need };
        state.reach().await?;
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let connect: Connect = Arc::new(move || {
            let shared = Arc::clone(&shared);
            Box::pin(async move { shared.lock().await.connect().await })
        });
        let client = Client::with_connect(connect, namespace)
            .patient(patience)
            .with_token(&credentials.token)?;
        Ok(Link { client, state })
    }

    /// Reaches a server that runs already; `None` if there is none.
    pub(crate) async fn server(&self) -> Result<Option<Client>, Failure> {
        let address = match &self.global.server {
            Some(server) => address(server)?,
            None => match self.data()?.holder() {
                Some(holder) => Address::Unix(holder.socket),
                None => return Ok(None),
            },
        };
        let credentials = self.credentials();
        let answers = connect(&address, &credentials)?().await.is_ok();
        let client = Client::at(&address, &credentials, self.global.namespace())?;
        Ok(answers.then_some(client))
    }

    /// What a server is shown: of the environment, since arguments can be read by others.
    fn credentials(&self) -> Credentials {
        let path = |name| std::env::var_os(name).filter(|path| !path.is_empty()).map(Into::into);
        Credentials {
            token: std::env::var("AX_TOKEN").unwrap_or_default(),
            authorities: path("AX_CA"),
            certificate: path("AX_CERT").zip(path("AX_KEY")),
        }
    }
}

impl Link {
    /// Whether the engine is within this process, so that work ends with it.
    pub(crate) async fn is_embedded(&self) -> bool {
        self.state.lock().await.embedded.is_some()
    }

    /// Lets go of the engine, if it is within this process.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        let embedded = self.state.lock().await.embedded.take();
        match embedded {
            Some(embedded) => embedded.close().await,
            None => Ok(()),
        }
    }
}

impl State {
    /// Finds a server, or becomes one.
    async fn reach(&mut self) -> Result<(), Failure> {
        let data = match &self.target {
            Target::Server(address, connect) => {
                return match connect().await {
                    Ok(_) => Ok(()),
                    Err(error) => Err(no_server(address, &error)),
                };
            }
            Target::Data(data) => data.clone(),
        };
        let began = Instant::now();
        loop {
            if self.served(&data).await? {
                return Ok(());
            }
            match self.embed(&data).await {
                Err(failure) if failure.code == Code::Locked.to_string() => {
                    if began.elapsed() >= Duration::from_millis(LOCKED_MILLIS_MAX) {
                        return Err(failure);
                    }
                    sleep(LOCKED_PAUSE).await;
                }
                done => return done,
            }
        }
    }

    /// Whether somebody serves the directory. A server that does not answer is not gone: only
    /// another server takes its place.
    async fn served(&mut self, data: &DataDir) -> Result<bool, Failure> {
        let Some(holder) = data.holder() else { return Ok(false) };
        self.passing = holder.passing;
        if UnixStream::connect(&holder.socket).await.is_err() {
            return Ok(false);
        }
        if takeover::answers(&holder, ANSWER_MAX).await {
            return Ok(true);
        }
        match takeover::look(data, ANSWER_MAX).await? {
            Lock::Silent(server) => Err(takeover::silent(data, &server)),
            Lock::Answers(_) => Ok(true),
            Lock::Free | Lock::Busy(_) => Ok(false),
        }
    }

    async fn embed(&mut self, data: &DataDir) -> Result<(), Failure> {
        let purpose = match self.need {
            Need::Run => Purpose::Pass,
            Need::Record => {
                let (ours, theirs) = UnixStream::pair()?;
                self.pair = Some(ours);
                Purpose::Record(theirs)
            }
        };
        let embedded = Embedded::open(data, purpose, &self.config).await?;
        if self.need == Need::Run {
            tell_late(&self.out, &embedded);
        }
        self.embedded = Some(embedded);
        Ok(())
    }

    /// Opens a connection. Called again whenever the one before broke.
    async fn connect(&mut self) -> io::Result<Box<dyn Connection>> {
        match &self.target {
            Target::Server(_, connect) => connect().await,
            Target::Data(data) => {
                let data = data.clone();
                self.connect_to(data).await.map(boxed)
            }
        }
    }

    /// Connects to whoever has the directory; becomes that if it is nobody.
    async fn connect_to(&mut self, data: DataDir) -> io::Result<UnixStream> {
        if let Some(pair) = self.pair.take() {
            return Ok(pair);
        }
        if let Some(holder) = data.holder() {
            self.passing = holder.passing;
            if let Ok(stream) = UnixStream::connect(&holder.socket).await {
                return Ok(stream);
            }
        }
        if self.passing && self.embedded.is_none() {
            let embedded = self.embed(&data).await;
            embedded.map_err(|failure| io::Error::other(failure.message))?;
            if let Some(pair) = self.pair.take() {
                return Ok(pair);
            }
        }
        match data.holder() {
            Some(holder) => UnixStream::connect(&holder.socket).await,
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Reads the name of a server.
fn address(server: &str) -> Result<Address, Failure> {
    server.parse().map_err(|error: ax_client::AddressError| {
        Failure::usage(error.to_string())
            .hint("name its socket, such as unix:/run/ax.sock, or its address, https://HOST:PORT")
    })
}

fn no_server(address: &Address, error: &io::Error) -> Failure {
    if ax_client::untrusted(error) {
        let message = format!("the certificate of {address} is not believed");
        return Failure::new(Code::Untrusted, message).because(error);
    }
    Failure::new(Code::Unavailable, format!("no server answers at {address}"))
        .hint("start one with `ax serve`, or leave out --server and AX_SERVER")
        .because(error)
}

/// Says which timers fire late.
pub(crate) fn tell_late(out: &Out, embedded: &Embedded) {
    for late in &embedded.late {
        let ago = span(now().millis_since(late.due_at));
        out.notice(&format!(
            "a timer of {} fired late: it was due {ago} ago, at {}, and nothing ran then",
            late.session,
            rfc3339(late.due_at.millis),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_no_server_is_a_mistake_of_the_command() {
        for text in ["ftp://localhost:80", "", "unix:"] {
            assert_eq!(address(text).unwrap_err().code, "AX1001", "{text}");
        }
        assert_eq!(address("unix:/a").unwrap(), Address::Unix("/a".into()));
    }
}
