//! The ways to run a program: ours and those of others.

use anyhow::{Context as _, Result, bail, ensure};
use ax_sandbox::{Backend, Namespace, Options, Running, Spec};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::io::{self, PipeReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// The user ids of the sandboxes of a measurement.
const IDS: std::ops::Range<u32> = 1_820_000_000..1_820_010_000;
static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// A way to run a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// `fork` and `exec`, no walls.
    Plain,
    /// Ours, with everything that stays ready.
    Warm,
    /// Ours, the first one of a server.
    Cold,
    /// bubblewrap, with every namespace.
    Bubblewrap,
    /// runc.
    Runc,
    /// gVisor.
    Runsc,
}

impl Way {
    pub(crate) const ALL: [Self; 6] =
        [Self::Plain, Self::Warm, Self::Cold, Self::Bubblewrap, Self::Runc, Self::Runsc];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Warm => "warm",
            Self::Cold => "cold",
            Self::Bubblewrap => "bubblewrap",
            Self::Runc => "runc",
            Self::Runsc => "runsc",
        }
    }
}

/// Where everything is that a measurement needs.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    program: PathBuf,
    ours: Namespace,
    /// How gVisor gets at the calls of a program: what this version knows.
    platform: &'static str,
}

impl Place {
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("sandbox-").tempdir_in(dir)?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        for name in ["run", "workspace", "root", "bundles", "states"] {
            fs::create_dir(dir.path().join(name))?;
        }
        let program = dir.path().join("program");
        let source = dir.path().join("program.c");
        fs::write(&source, include_str!("program.c"))?;
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-static", "-o"]).args([&program, &source]);
        ensure!(compiler.status()?.success(), "cc could not make a static program");
        fs::copy(&program, dir.path().join("root/program"))?;
        let ours = Namespace::new(options(dir.path())?);
        let mut place = Self { dir, program, ours, platform: "systrap" };
        if place.run(Way::Runsc, &["first"]).is_err() {
            place.platform = "ptrace";
        }
        Ok(place)
    }

    /// Starts the program with these arguments, in this way.
    pub(crate) fn start(&self, way: Way, args: &[&str]) -> Result<Started> {
        match way {
            Way::Plain => self.start_child(Command::new(&self.program).args(args)),
            Way::Warm | Way::Cold => self.start_ours(way, args),
            Way::Bubblewrap => self.start_child(self.bubblewrap().args(args)),
            Way::Runc | Way::Runsc => self.start_container(way, args),
        }
    }

    fn start_ours(&self, way: Way, args: &[&str]) -> Result<Started> {
        let mut command = vec![OsString::from(&self.program)];
        command.extend(args.iter().map(OsString::from));
        let spec = Spec {
            command,
            dir: self.dir.path().join("workspace"),
            programs: vec![self.program.clone()],
            ..Spec::default()
        };
        let started = if way == Way::Cold {
            Namespace::new(options(self.dir.path())?).start(spec)
        } else {
            self.ours.start(spec)
        };
        let mut running = started.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
        let output = running.stdout.take().context("its output")?;
        Ok(Started::Ours { running: Box::new(running), output })
    }

    fn bubblewrap(&self) -> Command {
        let mut command = Command::new("bwrap");
        command.args(["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]);
        command.args(["--clearenv", "--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib"]);
        command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--uid", "1000"]);
        command.arg("--bind").args([self.dir.path().join("workspace")]).arg("/workspace");
        command.arg("--ro-bind").args([&self.program, &self.program]).arg(&self.program);
        command
    }

    fn start_child(&self, command: &mut Command) -> Result<Started> {
        let (output, theirs) = io::pipe()?;
        let log = fs::File::create(self.dir.path().join("errors"))?;
        let child = command.stdin(Stdio::null()).stdout(theirs).stderr(log).spawn()?;
        command.stdout(Stdio::null());
        Ok(Started::Child { child, output })
    }

    fn start_container(&self, way: Way, args: &[&str]) -> Result<Started> {
        let name = format!("ax-bench-{}-{}", std::process::id(), next());
        let bundle = self.dir.path().join("bundles").join(&name);
        fs::create_dir(&bundle)?;
        let config = self.config(args);
        fs::write(bundle.join("config.json"), config.to_string())?;
        let mut command = Command::new(way.name());
        command.arg("--root").arg(self.dir.path().join("states"));
        if way == Way::Runsc {
            let platform = format!("--platform={}", self.platform);
            command.args([&*platform, "--network=none", "--ignore-cgroups"]);
        }
        command.args(["run", "--bundle"]).arg(&bundle).arg(&name);
        self.start_child(&mut command)
    }

    /// A container with the same namespaces and nothing else to do.
    fn config(&self, args: &[&str]) -> Value {
        let mut command = vec!["/program"];
        command.extend(args);
        let namespaces = ["pid", "network", "ipc", "uts", "mount"];
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false, "user": {"uid": 1000, "gid": 1000}, "args": command,
                "cwd": "/", "noNewPrivileges": true, "capabilities": {},
            },
            "root": {"path": self.dir.path().join("root"), "readonly": true},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
            ],
            "linux": {"namespaces": namespaces.map(|kind| json!({"type": kind}))},
        })
    }

    /// Runs the program to its end and returns what it has printed.
    pub(crate) fn run(&self, way: Way, args: &[&str]) -> Result<String> {
        let Started::Child { mut child, mut output } = self.start(way, args)? else {
            bail!("only others are waited for here");
        };
        let mut text = String::new();
        output.read_to_string(&mut text)?;
        let errors = || fs::read_to_string(self.dir.path().join("errors")).unwrap_or_default();
        ensure!(child.wait()?.success(), "{}: {}", way.name(), errors());
        Ok(text)
    }
}

fn options(dir: &Path) -> Result<Options> {
    Ok(Options {
        launcher: vec![std::env::current_exe()?.into(), "launch".into()],
        run_dir: dir.join("run"),
        ids: IDS,
        private: Vec::new(),
    })
}

fn next() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// A program that runs.
pub(crate) enum Started {
    Child { child: Child, output: PipeReader },
    Ours { running: Box<Running>, output: pipe::Receiver },
}

impl Started {
    /// Waits for the first byte.
    pub(crate) async fn first(&mut self) -> Result<()> {
        let mut byte = [0; 1];
        match self {
            Self::Child { output, .. } => output.read_exact(&mut byte)?,
            Self::Ours { output, .. } => drop(output.read_exact(&mut byte).await?),
        }
        Ok(())
    }

    /// Reads the rest and waits for the end.
    pub(crate) async fn finish(self) -> Result<String> {
        let mut text = String::new();
        match self {
            Self::Child { mut child, mut output } => {
                output.read_to_string(&mut text)?;
                child.wait()?;
            }
            Self::Ours { mut running, mut output } => {
                output.read_to_string(&mut text).await?;
                running.wait().await?;
            }
        }
        Ok(text)
    }

    /// Ends it at once.
    pub(crate) async fn kill(self) -> Result<()> {
        match self {
            Self::Child { mut child, .. } => {
                // What stands between has to end its container first.
                let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
                let pid = pid.context("a process id")?;
                rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
                child.wait()?;
            }
            Self::Ours { mut running, .. } => {
                running.kill();
                running.wait().await?;
            }
        }
        Ok(())
    }
}
