//! Programs of an attempt: in a sandbox, or under a supervisor alone.

mod shown;

use crate::environment;
use crate::launch::Launch;
use crate::reach::Reach;
use crate::supervise::{Ended, Options, Spec, Status, Supervised};
use ax_core::session::Failure;
use ax_gateway::{Sockets, Users};
use ax_sandbox::{
    Backend as _, BackendKind, Gateway, Guests, ImageRoot, Mount, Namespace, Plan, Refusal, Root,
};
use serde_json::Value;
use shown::Shown;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tokio::net::unix::pipe;

/// The port of a sandbox's loopback interface that leads to the gateway.
pub(crate) const GATEWAY_PORT: u16 = 4_400;
/// The port of a sandbox's loopback interface at which a program may be told to listen.
pub(crate) const PROGRAM_PORT: u16 = 4_401;
/// The signal that is not caught (signal(7)).
const SIGKILL: i32 = 9;
/// What nobody means to show who keeps an agent beside it.
const KEEPS_SECRETS: [&str; 31] = [
    ".ssh",
    ".aws",
    ".azure",
    ".boto",
    ".config/gcloud",
    ".config/gh",
    ".config/google-chrome",
    ".config/hub",
    ".config/op",
    ".config/rclone",
    ".bash_history",
    ".bitcoin",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".docker",
    ".electrum",
    ".git-credentials",
    ".gnupg",
    ".kube",
    ".local/share/keyrings",
    ".mozilla",
    ".my.cnf",
    ".netrc",
    ".oci",
    ".password-store",
    ".pgpass",
    ".pypirc",
    ".s3cfg",
    ".terraform.d",
    ".vault-token",
    ".zsh_history",
];
/// Directories of the host that every sandbox shows.
const SHOWN: [&str; 5] = ["/usr", "/bin", "/sbin", "/lib", "/lib64"];

/// Starts the programs of attempts.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    options: Options,
    /// Makes sandboxes: one for all of them.
    maker: Arc<OnceLock<Namespace>>,
    around: Option<Arc<Around>>,
}

/// What is around the programs of one attempt.
#[derive(Clone, Debug)]
struct Around {
    plan: Plan,
    workspace: PathBuf,
    gateway: Option<Gateway>,
    /// Its sandboxes, as their gateway knows them.
    guests: Guests,
    files: Vec<PathBuf>,
}

/// A program to start, for a thread of its own.
struct Owned {
    command: Vec<OsString>,
    dir: PathBuf,
    env: Vec<(OsString, OsString)>,
}

impl Programs {
    /// Starts them under supervisors, with nothing around them.
    pub(crate) fn new(options: Options) -> Self {
        Self { options, maker: Arc::default(), around: None }
    }

    /// What makes sandboxes.
    pub(crate) fn maker(&self) -> &Namespace {
        self.maker.get_or_init(|| Namespace::new(self.options.sandboxes()))
    }

    pub(crate) const fn options(&self) -> &Options {
        &self.options
    }

    /// Starts those of this attempt as its agent's manifest says.
    ///
    /// # Errors
    ///
    /// Fails if the section cannot be read, or says what this server does not allow.
    pub(crate) fn of(&self, launch: &Launch) -> Result<Self, Failure> {
        let plan = self.plan(&launch.agent.sandbox)?;
        if plan.backend == BackendKind::Process {
            return Ok(Self { around: None, ..self.clone() });
        }
        let workspace = fs::canonicalize(&launch.workspace);
        let workspace = workspace.map_err(|error| failure("workspace", &error))?;
        let guests = Guests::default();
        let around = Around { plan, workspace, gateway: None, guests, files: Vec::new() };
        Ok(Self { around: Some(Arc::new(around)), ..self.clone() })
    }

    /// Reads a `sandbox` section.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read, or says what this server does not allow.
    pub(crate) fn plan(&self, sandbox: &Value) -> Result<Plan, Failure> {
        let plan = Plan::parse(sandbox).map_err(|error| failure("config", &error))?;
        if plan.backend == BackendKind::Process && !self.options.unsandboxed {
            let why = "this server runs no program without one; leave `sandbox: process` out of \
                       the manifest, or start the server with --allow-unsandboxed";
            return Err(failure("unsandboxed", &why));
        }
        Ok(plan)
    }

    /// Whether there is a sandbox around them.
    pub(crate) const fn are_sandboxed(&self) -> bool {
        self.around.is_some()
    }

    /// The user ids of programs that come to a gateway: those of the attempt's own sandboxes.
    pub(crate) fn users(&self) -> Users {
        let Some(around) = &self.around else { return Users::default() };
        let guests = around.guests.clone();
        Users::of(move |id| guests.has(id))
    }

    /// Lets them reach a gateway, and read the files that it has for them.
    pub(crate) fn reach(mut self, socket: Option<&Path>, files: Option<&Path>) -> Self {
        if let Some(around) = &mut self.around {
            let around = Arc::make_mut(around);
            let gateway = |socket: &Path| Gateway { socket: socket.into(), port: GATEWAY_PORT };
            around.gateway = socket.map(gateway);
            around.files.extend(files.map(Path::to_path_buf));
        }
        self
    }

    /// Lets them write to a directory of the runtime, which they see at its own path.
    pub(crate) fn share(mut self, dir: &Path) -> Self {
        if let Some(around) = &mut self.around {
            let mount = Mount { source: dir.into(), target: None, writable: true };
            Arc::make_mut(around).plan.mounts.push(mount);
        }
        self
    }

    /// What a program gets of the runtime's own environment; nothing else of it.
    pub(crate) fn inherited(&self) -> Vec<(OsString, OsString)> {
        let Some(around) = &self.around else { return environment::inherited() };
        let mut env = environment::harmless();
        // An image knows where its programs are.
        env.retain(|(name, _)| !around.has_image() || name != "PATH");
        env
    }

    /// Starts a program. That it does not exist is learnt from [`Program::wait`]. If this is
    /// dropped meanwhile, the program ends as soon as it is started.
    pub(crate) async fn start(&self, spec: Spec<'_>) -> io::Result<Program> {
        let Some(around) = self.around.clone() else {
            return Supervised::start(&self.options, spec).map(Program::supervised);
        };
        let Spec { command, dir, env } = spec;
        let owned = Owned { command: command.to_vec(), dir: dir.to_owned(), env };
        let programs = self.clone();
        // Making a sandbox takes locks and waits for processes.
        let started = tokio::task::spawn_blocking(move || around.start(&programs, owned)).await;
        started?.map(Program::sandboxed).map_err(|refusal| io::Error::other(said(&refusal)))
    }
}

impl Around {
    fn has_image(&self) -> bool {
        matches!(self.plan.root, Root::Image(_))
    }

    /// Makes the sandbox. Blocks.
    fn start(&self, programs: &Programs, spec: Owned) -> Result<ax_sandbox::Running, Refusal> {
        let Owned { command, dir, mut env } = spec;
        let mut dirs: Vec<PathBuf> = match self.plan.root {
            Root::Host => SHOWN.map(PathBuf::from).to_vec(),
            Root::Image(_) => Vec::new(),
        };
        dirs.push(self.workspace.clone());
        dirs.extend(self.plan.mounts.iter().map(|mount| mount.target().to_owned()));
        let mut shown = Shown::new(dirs, self.written());
        let mut cwd = dir.clone();
        if fs::canonicalize(&dir).is_ok_and(|dir| dir == self.workspace) {
            cwd.clone_from(&self.workspace);
        } else if !(shown.has(&dir) || self.has_image() && fs::symlink_metadata(&dir).is_err()) {
            check_dir(&dir)?;
            shown.add(cwd.clone());
        }
        for mount in &self.plan.mounts {
            check_sockets(&mount.source)?;
        }
        // An image knows where its programs are, and has nothing of the host's.
        if !self.has_image() {
            let path = env.iter().rev().find(|(name, _)| name == "PATH");
            let path = path.map(|(_, value)| value.clone());
            let program = command.first().and_then(|name| shown.named(name, &dir, path.as_deref()));
            if let Some(program) = program {
                shown.bring(&program, path.as_deref());
            }
            shown
                .programs
                .iter()
                .try_for_each(|path| self.check_brought(&programs.options, path))?;
            for (_, value) in env.iter_mut().filter(|(name, _)| name == "PATH") {
                *value = shown.visible(value);
            }
        }
        let (image, held) = self.image(&programs.options)?;
        programs.maker().start(ax_sandbox::Spec {
            command,
            dir: self.workspace.clone(),
            cwd: Some(cwd),
            env,
            plan: self.plan.clone(),
            gateway: self.gateway.clone(),
            guests: self.guests.clone(),
            image,
            held,
            programs: shown.programs,
            links: shown.links,
            covers: Sockets::places(),
            files: self.files.clone(),
            ..ax_sandbox::Spec::default()
        })
    }

    /// Where programs of the sandbox write.
    fn written(&self) -> Vec<PathBuf> {
        let mounts = self.plan.mounts.iter().filter(|mount| mount.writable);
        let mounts = mounts.map(|mount| &mount.source).chain([&self.workspace]);
        let real = |path: &PathBuf| [Some(path.clone()), fs::canonicalize(path).ok()];
        mounts.flat_map(real).flatten().collect()
    }

    /// Refuses what a program is said to bring along if that is more than a program, or not the
    /// operator's word. What of the runtime's own lies in it is covered.
    fn check_brought(&self, options: &Options, path: &Path) -> Result<(), Refusal> {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let private = options.private.iter().filter_map(|path| fs::canonicalize(path).ok());
        if private.chain(self.written()).any(|kept| real.starts_with(kept)) {
            return Err(Refusal {
                wall: None,
                cause: format!("the program is in {}, which it cannot be shown", real.display()),
                hint: "install it elsewhere, or mount what it needs".into(),
            });
        }
        check_dir(path)
    }

    /// Finds the image that is the root, and holds on to its layers.
    fn image(&self, options: &Options) -> Result<(Option<ImageRoot>, Vec<Arc<File>>), Refusal> {
        let Root::Image(name) = &self.plan.root else { return Ok((None, Vec::new())) };
        let store = ax_image::Store::open(&options.images);
        let root = store.and_then(|store| store.root(name, ax_image::Form::Layers));
        let root = root.map_err(|error| Refusal {
            wall: None,
            cause: format!("sandbox.root: {error}"),
            hint: "`ax image list` shows the images there are".into(),
        })?;
        let (env, user) = (root.image.env.clone(), root.image.user.clone());
        Ok((Some(ImageRoot { layers: root.layers, env, user }), root.held))
    }
}

/// Refuses to show a directory that is only meant to hold an agent, but holds a person's secrets.
fn check_dir(dir: &Path) -> Result<(), Refusal> {
    let real = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    check_sockets(&real)?;
    let Some(secret) = secret_in(&real) else { return Ok(()) };
    let (dir, cause) = (dir.display(), "the harness would see all of");
    Err(Refusal {
        wall: None,
        cause: format!("{cause} {dir}, {secret}"),
        hint: "keep the agent in a directory of its own, or name another one in harness.dir".into(),
    })
}

/// Says what nobody means to show with a directory, if there is something.
fn secret_in(dir: &Path) -> Option<String> {
    let homes = ["/", "/home", "/root", "/var", "/etc"].map(PathBuf::from);
    let own = std::env::var_os("HOME").and_then(|home| fs::canonicalize(home).ok());
    if homes.contains(&dir.to_owned()) || own.is_some_and(|home| home.starts_with(dir)) {
        return Some("which is a home directory or holds them".into());
    }
    let within = KEEPS_SECRETS.iter().find(|name| dir.join(name).exists());
    if let Some(name) = within {
        return Some(format!("in which there is {name}"));
    }
    let names: Vec<_> = dir.iter().collect();
    let is_part = |secret: &&&str| {
        let secret: Vec<_> = Path::new(secret).iter().collect();
        names.windows(secret.len()).any(|part| part == secret)
    };
    let name = KEEPS_SECRETS.iter().find(is_part)?;
    Some(format!("which is in {name}"))
}

/// Refuses to show where sockets of gateways are.
fn check_sockets(path: &Path) -> Result<(), Refusal> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if !Sockets::are_in(&real) {
        return Ok(());
    }
    Err(Refusal {
        wall: None,
        cause: format!("{} would show the sockets of gateways", path.display()),
        hint: "use a directory in it, or another one".into(),
    })
}

fn failure(code: &str, error: &impl ToString) -> Failure {
    Failure { code: code.into(), message: format!("the sandbox: {}", error.to_string()) }
}

fn said(refusal: &Refusal) -> String {
    match refusal.hint.as_str() {
        "" => refusal.cause.clone(),
        hint => format!("{}; {hint}", refusal.cause),
    }
}

/// A program that runs. Dropping it kills it and everything it started.
#[derive(Debug)]
pub(crate) struct Program {
    running: Running,
    /// Whether it was asked to be killed.
    killed: bool,
    /// The program's standard input.
    pub(crate) stdin: Option<pipe::Sender>,
    /// The program's standard output.
    pub(crate) stdout: Option<pipe::Receiver>,
    /// The program's standard error.
    pub(crate) stderr: Option<pipe::Receiver>,
}

#[derive(Debug)]
enum Running {
    Supervised(Supervised),
    Sandboxed(ax_sandbox::Running),
}

impl Program {
    fn supervised(mut process: Supervised) -> Self {
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        let stderr = process.stderr.take();
        Self { running: Running::Supervised(process), killed: false, stdin, stdout, stderr }
    }

    fn sandboxed(mut process: ax_sandbox::Running) -> Self {
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        let stderr = process.stderr.take();
        let running = Running::Sandboxed(process);
        Self { running, killed: false, stdin, stdout, stderr }
    }

    /// The way to the ports that it listens at.
    pub(crate) fn reach(&self) -> Reach {
        match &self.running {
            Running::Supervised(_) => Reach::Machine,
            Running::Sandboxed(process) => process.door().map_or(Reach::Machine, Reach::Sandbox),
        }
    }

    /// Sends SIGTERM to the program's process group.
    pub(crate) fn terminate(&self) {
        match &self.running {
            Running::Supervised(process) => process.terminate(),
            Running::Sandboxed(process) => process.terminate(),
        }
    }

    /// Kills the program and everything it started.
    pub(crate) fn kill(&mut self) {
        self.killed = true;
        match &self.running {
            Running::Supervised(process) => process.kill(),
            Running::Sandboxed(process) => process.kill(),
        }
    }

    /// Waits until the program and everything it started are gone. May be dropped and called
    /// again.
    pub(crate) async fn wait(&mut self) -> io::Result<Ended> {
        let process = match &mut self.running {
            Running::Supervised(process) => return process.wait().await,
            Running::Sandboxed(process) => process,
        };
        Ok(match process.wait().await? {
            ax_sandbox::Ended::Ran(ax_sandbox::Status::Exited(code)) => {
                Ended::Ran(Status::Exited(code))
            }
            ax_sandbox::Ended::Ran(ax_sandbox::Status::Signaled(signal)) => {
                Ended::Ran(Status::Signaled(signal))
            }
            ax_sandbox::Ended::TimedOut => Ended::TimedOut,
            ax_sandbox::Ended::Killed if self.killed => Ended::Ran(Status::Signaled(SIGKILL)),
            ax_sandbox::Ended::Killed => Ended::SupervisorDied,
            ax_sandbox::Ended::NotStarted(refusal) => Ended::NotStarted(said(&refusal)),
        })
    }
}

/// Checks the `sandbox` section of a manifest.
///
/// # Errors
///
/// Says which field is wrong.
pub(crate) fn validate(section: &Value) -> Result<BackendKind, crate::ConfigError> {
    let checked = Plan::parse(section).map(|plan| plan.backend);
    checked.map_err(|error| crate::ConfigError {
        path: match error.path.as_str() {
            "" => "sandbox".into(),
            path => format!("sandbox.{path}"),
        },
        cause: error.cause,
        suggestion: Some(error.hint).filter(|hint| !hint.is_empty()),
    })
}
