//! A place to attack: directories, the attacker's program, a user, victims.

use crate::host::{Order, Outcome};
use crate::suite::{Attack, Verdict};
use ax_sandbox::{Gateway, Wall};
use serde_json::Value;
use std::any::Any;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// Who runs the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Root,
    User,
}

/// What an attack finds outside.
#[derive(Default)]
pub(crate) struct Scene {
    /// Arguments of the attack.
    pub(crate) args: Vec<String>,
    pub(crate) plan: Value,
    pub(crate) leak: Option<PathBuf>,
    /// Walls that are left out of the attack as well as of its control.
    pub(crate) always_without: Vec<Wall>,
    /// Why this machine lets no control reach its aim.
    pub(crate) no_control: Option<&'static str>,
    /// What must live as long as the attack.
    #[expect(dead_code, reason = "held, not read")]
    pub(crate) guards: Vec<Box<dyn Any>>,
}

/// A command's process that ends with its guard.
pub(crate) struct Victim(pub(crate) std::process::Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _status = self.0.wait();
    }
}

pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) who: Who,
    /// The user ids of its sandboxes: no other bench has them.
    pub(crate) ids: (u32, u32),
}

/// How many ids a bench has.
const IDS: u32 = 64;
static BENCHES: AtomicU32 = AtomicU32::new(0);

impl Bench {
    /// Returns `None` if this user cannot be played: only root can be somebody else.
    pub(crate) fn new(who: Who) -> Option<Self> {
        if who == Who::Root && !rustix::process::geteuid().is_root() {
            eprintln!("NOT TESTED as root: the tests do not run as root");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("ax-attack-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let number = BENCHES.fetch_add(1, Ordering::Relaxed) % 256;
        let first = 1_800_000_000 + (std::process::id() % 20_000 * 256 + number) * IDS;
        let bench = Self { dir, who, ids: (first, first + IDS) };
        let Some(built) = option_env!("CARGO_BIN_EXE_ax-sandbox-attacker") else {
            panic!("only the tests of the package know where it is");
        };
        // A copy that is being written cannot be executed, nor while a child of another test has it
        // open; a link can.
        fs::hard_link(built, bench.program())
            .or_else(|_| fs::copy(built, bench.program()).map(drop))
            .unwrap();
        for name in ["run", "workspace"] {
            fs::create_dir(bench.path(name)).unwrap();
            chown(bench.path(name), Some(bench.uid()), Some(bench.uid())).unwrap();
        }
        Some(bench)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.path("attacker")
    }

    /// The user id of whoever runs the sandbox: nobody else's, as far as a test can know.
    pub(crate) fn uid(&self) -> u32 {
        let own = rustix::process::geteuid().as_raw();
        if self.who == Who::Root || own != 0 { own } else { 410_000 + std::process::id() % 50_000 }
    }

    /// Writes a file that everybody may read and write.
    pub(crate) fn open_file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        path
    }

    /// Makes a directory that everybody may write to.
    pub(crate) fn open_dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        path
    }

    /// Starts a process outside, of the same user.
    pub(crate) fn victim(&self) -> Victim {
        let mut command = Command::new("sleep");
        command.arg("120").uid(self.uid()).gid(self.uid()).stdin(Stdio::null());
        Victim(command.spawn().unwrap())
    }

    pub(crate) fn order(&self, command: &[&str]) -> Order {
        Order {
            namespace: true,
            program: self.program(),
            run_dir: self.path("run"),
            workspace: self.path("workspace"),
            ids: self.ids,
            private: vec![self.path("run")],
            command: command.iter().map(|&word| word.into()).collect(),
            env: Vec::new(),
            plan: Value::Null,
            gateway: None::<Gateway>,
            image: None,
            without: Vec::new(),
            reap: false,
            leak: None,
            enter: None,
            after: None,
        }
    }

    pub(crate) fn host(&self, order: &Order) -> Command {
        let mut command = Command::new(self.program());
        command.arg("host").arg(serde_json::to_string(order).unwrap());
        command.env("AX_SECRET_OF_RUNTIME", "of the runtime");
        self.as_who(&mut command);
        command
    }

    /// Makes a command run as whoever runs the sandbox.
    pub(crate) fn as_who<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if rustix::process::geteuid().is_root() && self.who == Who::User {
            command.uid(self.uid()).gid(self.uid());
        }
        command.stdin(Stdio::null())
    }

    pub(crate) fn run(&self, order: &Order) -> Outcome {
        let output = self.host(order).stderr(Stdio::inherit()).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {:?}", String::from_utf8_lossy(&output.stdout))
        })
    }

    pub(crate) fn attack(&self, attack: &Attack, without: &[Wall], scene: &Scene) -> Verdict {
        let program = self.program();
        let mut order = self.order(&[program.to_str().unwrap(), "inside", attack.name]);
        order.command.extend(scene.args.iter().cloned());
        order.plan = scene.plan.clone();
        order.leak.clone_from(&scene.leak);
        order.without = [without, &scene.always_without].concat();
        let outcome = self.run(&order);
        let line = outcome.output.lines().next().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|_| {
            assert!(
                outcome.walls.is_some(),
                "{}: the attack did not run: {outcome:?}",
                attack.name
            );
            // Killed before it could say anything.
            Verdict::Refused(format!("{} {}", outcome.ended, outcome.errors))
        })
    }

    /// What is left of sandboxes: entries of the registry, control groups.
    pub(crate) fn assert_clean(&self) {
        let left: Vec<_> =
            fs::read_dir(self.path("run")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

/// Runs an attack and its control.
pub(crate) fn check(attack: &Attack, who: Who, outside: fn(&Bench) -> Scene) {
    let walls = match who {
        Who::Root => Ok(attack.root),
        Who::User => attack.user,
    };
    let Some(bench) = Bench::new(who) else { return };
    let scene = outside(&bench);
    let verdict = bench.attack(attack, &[], &scene);
    assert!(matches!(verdict, Verdict::Refused(_)), "{} as {who:?}: {verdict:?}", attack.name);
    bench.assert_clean();
    let walls = match (walls, scene.no_control) {
        (Ok(walls), None) => walls,
        (Err(why), _) | (_, Some(why)) => {
            eprintln!("NOT TESTED: the control of {} as {who:?}: {why}", attack.name);
            return;
        }
    };
    match bench.attack(attack, walls, &scene) {
        Verdict::Reached(_) => {}
        Verdict::Untestable(why) => {
            eprintln!("NOT TESTED: the control of {} as {who:?}: {why}", attack.name);
        }
        Verdict::Refused(why) => panic!(
            "{} as {who:?}: even without {walls:?} it is refused, so its refusal shows nothing: \
             {why}",
            attack.name
        ),
    }
    bench.assert_clean();
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
