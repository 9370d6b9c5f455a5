//! The trait, its two backends, and a sandbox that runs.

use crate::cgroup::Stats;
use crate::door::Door;
use crate::forker::{self, Forked, Forker};
use crate::guests::{Guest, Guests};
use crate::order::{self, ASK_KILL, ASK_TERMINATE, Gateway, ImageRoot, Order, Started};
use crate::plan::{BackendKind, Plan};
use crate::prepare;
use crate::registry::{Entry, Registry};
use crate::wall::{Refusal, Standing, Wall};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

/// The first user id that sandboxes get: far above those of people, of services and of the usual
/// containers.
const IDS_FIRST: u32 = 1_700_000_000;
/// How many user ids a run directory has: twice as many as sandboxes.
const IDS_EACH: u32 = 20_000;
/// How many run directories have ids of their own. The last one ends below 2^31, where some
/// programs' ids end.
const IDS_RANGES: u32 = 22_000;
/// How long a launcher may take to read its order. After that it is given up.
const ORDER_LIMIT: Duration = Duration::from_secs(5);
/// The longest that a launcher says, in bytes.
const SAYING_BYTES_MAX: usize = 64 * 1024;

/// How sandboxes are made on this machine.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program and its first arguments. What it runs has to call [`crate::launcher::main`]
    /// before it starts a thread.
    pub launcher: Vec<OsString>,
    /// The directory in which running sandboxes are registered. No other program writes to it.
    pub run_dir: PathBuf,
    /// The user ids that sandboxes get where the runtime is root, two each. Two data directories
    /// of one machine need ranges of their own.
    pub ids: Range<u32>,
    /// Directories of the runtime that no manifest may mount, nor anything above or in them.
    pub private: Vec<PathBuf>,
}

/// Returns the user ids for the sandboxes of a run directory: by its name, so that two servers of
/// one machine seldom have any in common.
pub fn ids_of(run_dir: &Path) -> Range<u32> {
    let hash = crate::registry::hash(run_dir);
    let range = u32::try_from(hash % u64::from(IDS_RANGES)).unwrap_or(0);
    let first = IDS_FIRST + range * IDS_EACH;
    first..first + IDS_EACH
}

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// The program and its arguments. A name without a slash is looked for in `PATH`.
    pub command: Vec<OsString>,
    /// The workspace: mounted at its own path, writable.
    pub dir: PathBuf,
    /// The working directory; the workspace if absent. Mounted read-only at its own path unless
    /// something else shows it, as files of the command's own user.
    pub cwd: Option<PathBuf>,
    /// The whole environment; the plan's is added.
    pub env: Vec<(OsString, OsString)>,
    /// The policy.
    pub plan: Plan,
    /// The only way out.
    pub gateway: Option<Gateway>,
    /// Those that may come to that gateway: this sandbox is one of them while it runs.
    pub guests: Guests,
    /// The tree of the image that the plan names as its root.
    pub image: Option<ImageRoot>,
    /// What stays open while the sandbox runs, as locks on the layers of an image.
    pub held: Vec<Arc<File>>,
    /// Mounted read-only at their own paths, as programs that the runtime itself brings along.
    pub programs: Vec<PathBuf>,
    /// Symbolic links of the host that are made again at their own paths, as the ways to programs.
    pub links: Vec<PathBuf>,
    /// Directories that nothing shows: where they lie in the working directory, a program's or a
    /// mount, they are covered.
    pub covers: Vec<PathBuf>,
    /// Mounted read-only at their own paths, as files of the command's own user that nobody else
    /// may read.
    pub files: Vec<PathBuf>,
    /// Walls to leave out. For the controls of the attack suite, and for nothing else: no manifest
    /// and no request leads here.
    #[doc(hidden)]
    pub without: BTreeSet<Wall>,
}

/// Makes sandboxes.
///
/// # Law
///
/// Every backend runs `conformance`, whose tests have these numbers.
///
/// 1. The command gets exactly the given arguments, environment and working directory.
/// 2. Standard input, output and error are pipes to the caller, whatever the amount.
/// 3. [`Running::wait`] tells the exit status or the signal, and resolves only when nothing of the
///    sandbox runs any more, whatever it has started.
/// 4. A killed sandbox ends soon, whatever it does; so does one whose runtime has died, and one
///    whose time limit is over.
/// 5. A program that cannot be started is reported as [`Ended::NotStarted`] with a cause.
/// 6. [`Running::door`] leads to the ports that the command listens at; there is none where the
///    command has the machine's own network.
/// 7. [`Backend::reap`] leaves nothing of earlier lives, and what lives alone.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Which one it is.
    fn kind(&self) -> BackendKind;

    /// Starts a command in a sandbox of its own.
    ///
    /// # Errors
    ///
    /// If it cannot even be tried. What goes wrong later is learnt from [`Running::wait`].
    ///
    /// Blocks, for some milliseconds as a rule: files are made and locked, and the launcher may
    /// have to be executed. Needs the runtime of tokio around it all the same.
    fn start(&self, spec: Spec) -> Result<Running, Refusal>;

    /// Ends what earlier lives of this process have left, waits until it is gone, and returns how
    /// many sandboxes there were. Blocks.
    fn reap(&self) -> usize;
}

/// The backend `namespace`: all walls that the kernel has, or nothing starts. The first start
/// executes a launcher that stays ready and forks one for each sandbox, until this is dropped: keep
/// one for all sandboxes.
#[derive(Debug)]
pub struct Namespace {
    options: Options,
    forker: Forker,
}

/// The backend `process`: no isolation at all. If the launcher itself is killed, the command goes
/// on: nothing binds them together.
#[derive(Debug)]
pub struct Process(Options);

impl Namespace {
    /// Makes sandboxes so.
    pub fn new(options: Options) -> Self {
        Self { options, forker: Forker::default() }
    }
}

impl Process {
    /// Starts processes so.
    pub const fn new(options: Options) -> Self {
        Self(options)
    }
}

impl Backend for Namespace {
    fn kind(&self) -> BackendKind {
        BackendKind::Namespace
    }

    fn start(&self, spec: Spec) -> Result<Running, Refusal> {
        prepare::check_private(&self.options.private, &spec)?;
        Running::start(&self.options, spec, Some(&self.forker))
    }

    fn reap(&self) -> usize {
        registry(&self.options).reap()
    }
}

impl Backend for Process {
    fn kind(&self) -> BackendKind {
        BackendKind::Process
    }

    fn start(&self, spec: Spec) -> Result<Running, Refusal> {
        Running::start(&self.0, spec, None)
    }

    fn reap(&self) -> usize {
        registry(&self.0).reap()
    }
}

fn registry(options: &Options) -> Registry {
    Registry::new(options.run_dir.clone(), options.ids.clone())
}

/// How a command ended by itself or by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// With this exit status.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

/// What became of a command. Nothing that it started runs any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It ran and ended.
    Ran(Status),
    /// Its time was over, and it was killed.
    TimedOut,
    /// It was killed because it was asked for, or because the launcher was.
    Killed,
    /// It could not be started.
    NotStarted(Refusal),
}

/// The process that stands between.
#[derive(Debug)]
enum Launcher {
    Child(Child),
    Forked(Forked),
    Gone,
}

impl Launcher {
    fn id(&self) -> Option<u32> {
        match self {
            Self::Child(child) => child.id(),
            Self::Forked(Forked { pid, .. }) => Some(*pid),
            Self::Gone => None,
        }
    }

    /// Waits for its end, which is near: it has nothing more to say.
    async fn wait(&mut self) -> io::Result<()> {
        match self {
            Self::Child(child) => drop(child.wait().await?),
            Self::Forked(Forked { process, .. }) => {
                let process = process.try_clone()?;
                tokio::task::spawn_blocking(move || ended(&process)).await??;
            }
            Self::Gone => {}
        }
        *self = Self::Gone;
        Ok(())
    }
}

/// A sandbox that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    launcher: Launcher,
    control: tokio::net::UnixStream,
    /// The same socket, to ask for something at once.
    orders: UnixStream,
    control_open: bool,
    said: Vec<u8>,
    /// The command's standard input.
    pub stdin: Option<pipe::Sender>,
    /// The command's standard output.
    pub stdout: Option<pipe::Receiver>,
    /// The command's standard error.
    pub stderr: Option<pipe::Receiver>,
    registry: Registry,
    entry: PathBuf,
    /// While something of it may run.
    guest: Option<Guest>,
    door: Option<Door>,
    _held: Vec<Arc<File>>,
}

impl Running {
    /// Starts, with walls if there is a forker of those.
    fn start(options: &Options, spec: Spec, forker: Option<&Forker>) -> Result<Self, Refusal> {
        if !spec.dir.is_dir() {
            let cause = format!("{} is not a directory", spec.dir.display());
            return Err(Refusal::new(cause, ""));
        }
        let entry = registry(options).enter().map_err(|error| {
            let cause = format!("{}: {error}", options.run_dir.display());
            Refusal::new(cause, "the data directory must be writable, and the range of ids free")
        })?;
        let started =
            prepare::order(&options.private, &spec, &entry, forker.is_some()).and_then(|order| {
                // Before it can come to its gateway.
                let guest = order.ids.map(|ids| spec.guests.welcome(ids.init));
                Self::launch(options, &order, &entry, forker, guest, spec.held.clone()).map_err(
                    |error| Refusal::new(format!("the launcher does not start: {error}"), ""),
                )
            });
        if started.is_err() {
            entry.remove();
        }
        started
    }

    fn launch(
        options: &Options,
        order: &Order,
        entry: &Entry,
        forker: Option<&Forker>,
        guest: Option<Guest>,
        held: Vec<Arc<File>>,
    ) -> io::Result<Self> {
        let (control, theirs) = UnixStream::pair()?;
        control.set_write_timeout(Some(ORDER_LIMIT))?;
        let ((input, stdin), (stdout, output), (stderr, errors)) =
            (io::pipe()?, io::pipe()?, io::pipe()?);
        let (door, inner) = Door::make()?;
        let launcher = start_launcher(options, order, theirs.into(), forker)?;
        if let Some(pid) = launcher.id() {
            entry.started(pid)?;
        }
        let (lock, inner) = (entry.file.as_fd(), inner.as_fd());
        let pipes = (input.as_fd(), output.as_fd(), errors.as_fd());
        order::send(&control, order, [pipes.0, pipes.1, pipes.2, lock, inner])?;
        control.set_nonblocking(true)?;
        Ok(Self {
            launcher,
            orders: control.try_clone()?,
            control: tokio::net::UnixStream::from_std(control)?,
            control_open: true,
            said: Vec::new(),
            stdin: Some(pipe::Sender::from_owned_fd(OwnedFd::from(stdin))?),
            stdout: Some(pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?),
            stderr: Some(pipe::Receiver::from_owned_fd(OwnedFd::from(stderr))?),
            registry: registry(options),
            entry: entry.path.clone(),
            guest,
            door: order.isolated.then_some(door),
            _held: held,
        })
    }

    /// Sends SIGTERM to the command's process group.
    pub fn terminate(&self) {
        self.ask(ASK_TERMINATE);
    }

    /// Kills the command and everything it started.
    pub fn kill(&self) {
        self.ask(ASK_KILL);
    }

    fn ask(&self, order: u8) {
        // The socket takes far more than the few orders there are; a launcher that is gone
        // needs none.
        let _launcher_gone = (&self.orders).write_all(&[order]);
    }

    /// Returns the way to the ports of its loopback interface, if it has one of its own.
    pub fn door(&self) -> Option<Door> {
        self.door.clone()
    }

    /// Returns the launcher's process id while it runs.
    pub fn launcher(&self) -> Option<u32> {
        self.launcher.id()
    }

    /// Waits until the command is started, and returns which walls stand. `None` if it could not
    /// be started. May be dropped and called again.
    ///
    /// # Errors
    ///
    /// If the launcher cannot be heard.
    pub async fn started(&mut self) -> io::Result<Option<Vec<Standing>>> {
        loop {
            if let Some(started) = self.saying::<Started>("started") {
                return Ok(Some(started.walls));
            }
            if !self.hear().await? {
                return Ok(None);
            }
        }
    }

    /// Returns what the sandbox has consumed, as far as this machine tells.
    pub fn stats(&self) -> Stats {
        self.saying::<Started>("started")
            .map_or_else(Stats::default, |started| Stats::read(&started.cgroups))
    }

    /// Waits until the command and everything it started are gone. May be dropped and called
    /// again.
    ///
    /// # Errors
    ///
    /// If the launcher cannot be waited for.
    pub async fn wait(&mut self) -> io::Result<Ended> {
        while self.hear().await? {}
        self.launcher.wait().await?;
        if self.entry.exists() {
            // The launcher was killed: what it would have removed is still there.
            let (registry, entry) = (self.registry.clone(), self.entry.clone());
            tokio::task::spawn_blocking(move || registry.sweep(&entry)).await?;
        }
        self.guest = None;
        Ok(self.ended())
    }

    /// Reads some more of what is said; returns whether there can be more.
    async fn hear(&mut self) -> io::Result<bool> {
        if self.control_open {
            let mut bytes = [0; 1024];
            let got = self.control.read(&mut bytes).await.unwrap_or(0);
            self.control_open = got > 0;
            if self.said.len() < SAYING_BYTES_MAX {
                self.said.extend_from_slice(&bytes[..got]);
            }
        }
        Ok(self.control_open)
    }

    /// Returns what was said under this word.
    fn saying<T: serde::de::DeserializeOwned>(&self, word: &str) -> Option<T> {
        let mut lines = self.said.split_inclusive(|&byte| byte == b'\n');
        let value = lines.find_map(|line| {
            line.strip_suffix(b"\n")?.strip_prefix(word.as_bytes())?.strip_prefix(b" ")
        })?;
        serde_json::from_slice(value).ok()
    }

    fn ended(&self) -> Ended {
        if let Some(refusal) = self.saying("failed") {
            return Ended::NotStarted(refusal);
        }
        if self.saying::<()>("timeout").is_some() {
            return Ended::TimedOut;
        }
        let exited = self.saying("exited").map(Status::Exited);
        exited
            .or_else(|| self.saying("signaled").map(Status::Signaled))
            .map_or(Ended::Killed, Ended::Ran)
    }
}

/// Waits until a process has ended. Blocks.
fn ended(process: &OwnedFd) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(process, PollFlags::IN)], None) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Executes a launcher, or has one forked.
fn start_launcher(
    options: &Options,
    order: &Order,
    control: OwnedFd,
    forker: Option<&Forker>,
) -> io::Result<Launcher> {
    // What a control of the attack suite wants to be inherited, no forker has.
    let inherits = [Wall::Environment, Wall::Descriptors, Wall::NetNamespace];
    let inherits = inherits.iter().any(|wall| order.without.contains(wall));
    if let Some(forker) = forker.filter(|_| !inherits) {
        return Ok(Launcher::Forked(forker.fork(&options.launcher, &control)?));
    }
    let mut command = forker::command(&options.launcher, control)?;
    if !order.has(Wall::Environment) {
        command.envs(std::env::vars_os());
    }
    Ok(Launcher::Child(Command::from(command).spawn()?))
}
