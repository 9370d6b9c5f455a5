//! How a command reaches an engine: a server's socket, or one within this process.
//!
//! Either way it speaks through the same client. If the process that served the socket was a
//! command that is done, the next one takes its place when the connection is made again.

use crate::args::Global;
use crate::embed::{Embedded, Purpose};
use crate::failure::Failure;
use crate::out::Out;
use crate::paths::DataDir;
use crate::takeover::{self, Lock};
use crate::time::{now, rfc3339, span};
use ax_client::{Client, Connect, Patience};
use ax_engine::Code;
use std::io;
use std::path::{Path, PathBuf};
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
}

/// A client, and perhaps the engine behind it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: Client,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    target: Target,
    out: Out,
    embedded: Option<Embedded>,
    /// The own end of a private connection.
    pair: Option<UnixStream>,
    /// Whether whoever serves the directory now goes when its command is done.
    passing: bool,
    need: Need,
}

#[derive(Clone, Debug)]
enum Target {
    Socket(PathBuf),
    Data(DataDir),
}

impl Context {
    pub(crate) fn data(&self) -> Result<DataDir, Failure> {
        DataDir::find(self.global.data.as_deref())
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
        let target = match &self.global.server {
            Some(server) => Target::Socket(socket_of(server)?),
            None => Target::Data(self.data()?),
        };
        let (out, embedded, pair, passing) = (self.out, None, None, false);
        let mut state = State { target, out, embedded, pair, passing, need };
        state.reach().await?;
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let connect: Connect = Arc::new(move || {
            let shared = Arc::clone(&shared);
            Box::pin(async move { shared.lock().await.connect().await })
        });
        let client = Client::with_connect(connect, namespace).patient(patience);
        Ok(Link { client, state })
    }

    /// Reaches a server that runs already; `None` if there is none.
    pub(crate) async fn server(&self) -> Result<Option<Client>, Failure> {
        let socket = match &self.global.server {
            Some(server) => socket_of(server)?,
            None => match self.data()?.holder() {
                Some(holder) => holder.socket,
                None => return Ok(None),
            },
        };
        let answers = UnixStream::connect(&socket).await.is_ok();
        Ok(answers.then(|| Client::unix(socket, self.global.namespace())))
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
            Target::Socket(socket) => {
                let connected = UnixStream::connect(socket).await;
                return match connected {
                    Ok(_) => Ok(()),
                    Err(error) => Err(no_server(socket, &error)),
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
        let embedded = Embedded::open(data, purpose).await?;
        if self.need == Need::Run {
            tell_late(&self.out, &embedded);
        }
        self.embedded = Some(embedded);
        Ok(())
    }

    /// Opens a connection. Called again whenever the one before broke.
    async fn connect(&mut self) -> io::Result<UnixStream> {
        if let Some(pair) = self.pair.take() {
            return Ok(pair);
        }
        let data = match &self.target {
            Target::Socket(socket) => return UnixStream::connect(socket).await,
            Target::Data(data) => data.clone(),
        };
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

/// Reads `unix:PATH`, `unix:///PATH` or a path.
fn socket_of(server: &str) -> Result<PathBuf, Failure> {
    let refuse = |why: &str| {
        Err(Failure::usage(format!("{server:?} does not name a server: {why}"))
            .hint("name its socket, such as unix:/run/ax.sock"))
    };
    let path = match server.split_once(':') {
        Some(("unix", path)) => path.strip_prefix("//").unwrap_or(path),
        Some((scheme, rest)) if rest.starts_with("//") => {
            return refuse(&format!("{scheme} is not supported"));
        }
        _ => server,
    };
    if path.is_empty() { refuse("the path is empty") } else { Ok(Path::new(path).to_owned()) }
}

fn no_server(socket: &Path, error: &io::Error) -> Failure {
    Failure::new(Code::Unavailable, format!("no server answers at {}", socket.display()))
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
    fn a_server_is_named_by_its_socket() {
        for (text, path) in
            [("/a/b", "/a/b"), ("unix:/a", "/a"), ("unix:///a", "/a"), ("rel.sock", "rel.sock")]
        {
            assert_eq!(socket_of(text).unwrap(), Path::new(path));
        }
        for text in ["http://localhost:80", "", "unix:"] {
            assert_eq!(socket_of(text).unwrap_err().code, "AX1001", "{text}");
        }
    }
}
