//! Programs of an attempt: in a sandbox, or under a supervisor alone.

use crate::environment;
use crate::launch::Launch;
use crate::reach::Reach;
use crate::supervise::{Ended, Options, Spec, Status, Supervised};
use ax_core::session::Failure;
use ax_sandbox::{
    Backend as _, BackendKind, Gateway, ImageRoot, Mount, Namespace, Plan, Refusal, Root,
};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tokio::net::unix::pipe;

/// The port of a sandbox's loopback interface that leads to the gateway.
pub(crate) const GATEWAY_PORT: u16 = 4_400;
/// The port of a sandbox's loopback interface at which a program may be told to listen.
pub(crate) const PROGRAM_PORT: u16 = 4_401;
/// The signal that is not caught (signal(7)).
const SIGKILL: i32 = 9;
/// What nobody means to show who keeps an agent beside it.
const KEEPS_SECRETS: [&str; 8] =
    [".ssh", ".aws", ".gnupg", ".kube", ".docker", ".netrc", ".azure", ".config/gcloud"];
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
    files: Vec<PathBuf>,
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
        let around = Around { plan, workspace, gateway: None, files: Vec::new() };
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

    /// The user ids that programs may have which come to a gateway.
    pub(crate) fn users(&self) -> std::ops::Range<u32> {
        if self.are_sandboxed() { self.options.sandboxes().ids } else { 0..0 }
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

    /// Starts a program. That it does not exist is learnt from [`Program::wait`].
    pub(crate) fn start(&self, spec: Spec<'_>) -> io::Result<Program> {
        match &self.around {
            None => Supervised::start(&self.options, spec).map(Program::supervised),
            Some(around) => {
                let sandboxed = around.start(self, spec);
                sandboxed
                    .map(Program::sandboxed)
                    .map_err(|refusal| io::Error::other(said(&refusal)))
            }
        }
    }
}

impl Around {
    fn has_image(&self) -> bool {
        matches!(self.plan.root, Root::Image(_))
    }

    fn start(&self, programs: &Programs, spec: Spec<'_>) -> Result<ax_sandbox::Running, Refusal> {
        let mut shown: Vec<PathBuf> = SHOWN.map(PathBuf::from).to_vec();
        shown.push(self.workspace.clone());
        shown.extend(self.plan.mounts.iter().map(|mount| mount.target().to_owned()));
        let mut cwd = spec.dir.to_owned();
        if fs::canonicalize(spec.dir).is_ok_and(|dir| dir == self.workspace) {
            cwd.clone_from(&self.workspace);
        } else if !is_shown(&shown, spec.dir) {
            check_dir(spec.dir)?;
            shown.push(cwd.clone());
        }
        let mut beside = Vec::new();
        if !self.has_image() {
            beside = brought(&shown, named(&spec).as_deref());
            beside.iter().try_for_each(|path| self.check_brought(&programs.options, path))?;
            shown.extend(beside.iter().cloned());
        }
        let (image, held) = self.image(&programs.options)?;
        let env = spec.env.into_iter().map(|(name, value)| visible(&shown, name, value));
        programs.maker().start(ax_sandbox::Spec {
            command: spec.command.to_vec(),
            dir: self.workspace.clone(),
            cwd: Some(cwd),
            env: env.collect(),
            plan: self.plan.clone(),
            gateway: self.gateway.clone(),
            image,
            held,
            programs: beside,
            files: self.files.clone(),
            ..ax_sandbox::Spec::default()
        })
    }
}

impl Around {
    /// Refuses what a program is said to bring along if that is more than a program, or not the
    /// operator's word.
    fn check_brought(&self, options: &Options, path: &Path) -> Result<(), Refusal> {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mounts = self.plan.mounts.iter().filter(|mount| mount.writable);
        let writable = mounts.map(|mount| &mount.source).chain([&self.workspace]);
        let kept = options.private.iter().chain(writable);
        let mut kept = kept.map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.clone()));
        if kept.any(|kept| real.starts_with(&kept) || kept.starts_with(&real)) {
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

/// Whether a path is in one of these directories.
fn is_shown(shown: &[PathBuf], path: &Path) -> bool {
    shown.iter().any(|dir| path.starts_with(dir))
}

/// Returns the program's path, as it would be found outside.
fn named(spec: &Spec<'_>) -> Option<PathBuf> {
    let name = spec.command.first()?;
    let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let path = if name.as_encoded_bytes().contains(&b'/') {
        spec.dir.join(name)
    } else {
        let paths = spec.env.iter().rev().find(|(name, _)| name == "PATH")?;
        let found = std::env::split_paths(&paths.1).map(|dir| dir.join(name));
        found.into_iter().find(|path| path.is_file())?
    };
    Some(path).filter(|path| path.is_absolute() && path.components().all(is_plain))
}

/// Refuses to show a directory that is only meant to hold an agent, but holds a person's secrets.
fn check_dir(dir: &Path) -> Result<(), Refusal> {
    let secret = KEEPS_SECRETS.iter().find(|name| dir.join(name).exists());
    let Some(secret) = secret else { return Ok(()) };
    let (dir, cause) = (dir.display(), "the harness would see all of");
    Err(Refusal {
        wall: None,
        cause: format!("{cause} {dir}, in which there is {secret}"),
        hint: "keep the agent in a directory of its own, or name another one in harness.dir".into(),
    })
}

/// Returns what a program brings along that is not shown yet: the Python environment or the Node
/// modules that it is in, else the program alone.
fn brought(shown: &[PathBuf], program: Option<&Path>) -> Vec<PathBuf> {
    let Some(program) = program.filter(|program| !is_shown(shown, program)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let tree = program.ancestors().skip(1).find(|dir| {
        dir.join("pyvenv.cfg").is_file() || dir.file_name() == Some(OsStr::new("node_modules"))
    });
    match tree {
        Some(tree) => {
            found.push(tree.to_owned());
            found.extend(base_of_python(tree));
        }
        None if program.is_file() => found.push(program.to_owned()),
        None => {}
    }
    found.retain(|path| !is_shown(shown, path));
    found
}

/// Returns where the interpreter of a Python environment is installed, if not where all are.
fn base_of_python(tree: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(tree.join("pyvenv.cfg")).ok()?;
    let home = text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == "home").then(|| PathBuf::from(value.trim()))
    })?;
    let home = fs::canonicalize(home).ok()?;
    let base = home.parent()?;
    // What makes a directory an installation.
    let libraries = fs::read_dir(base.join("lib")).ok()?.filter_map(Result::ok);
    let mut names = libraries.map(|entry| entry.file_name());
    names.any(|name| name.as_encoded_bytes().starts_with(b"python")).then(|| base.to_owned())
}

/// Leaves out of `PATH` what is not there.
fn visible(shown: &[PathBuf], name: OsString, value: OsString) -> (OsString, OsString) {
    if name != "PATH" {
        return (name, value);
    }
    let dirs = std::env::split_paths(&value).filter(|dir| is_shown(shown, dir));
    let joined = std::env::join_paths(dirs.collect::<Vec<_>>());
    (name, joined.unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into()))
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
