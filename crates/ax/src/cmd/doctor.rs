//! `ax doctor`: is everything there?

use crate::exit::Exit;
use crate::failure::Failure;
use crate::link::Context;
use crate::out::Style;
use crate::paths::DataDir;
use crate::provider::Provider;
use crate::view::describe::bytes;
use crate::view::table::aligned;
use ax_proto::v1::GetInfoRequest;
use rustix::fs::{Mode, OFlags};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Less free space than this is worth a word, in bytes.
const SPACE_BYTES_LOW: u64 = 1 << 30;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Fine,
    Worth,
    Wrong,
}

impl Level {
    const fn word(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Worth => "note",
            Self::Wrong => "WRONG",
        }
    }
}

/// What was checked, and what was found.
#[derive(Clone, Debug)]
struct Check {
    level: Level,
    name: &'static str,
    found: String,
    hint: String,
}

impl Check {
    fn new(level: Level, name: &'static str, found: impl Into<String>) -> Self {
        Self { level, name, found: found.into(), hint: String::new() }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }
}

pub(crate) async fn doctor(cx: &Context) -> Result<Exit, Failure> {
    let version = format!("ax {}", env!("CARGO_PKG_VERSION"));
    let mut checks = vec![Check::new(Level::Fine, "version", version)];
    match cx.data() {
        Ok(data) => {
            checks.extend(directory(&data));
            checks.push(server(cx, &data).await);
        }
        Err(failure) => {
            checks.push(Check::new(Level::Wrong, "data", failure.message).hint(failure.hint));
        }
    }
    checks.extend(kernel());
    checks.push(python());
    checks.extend(models());
    checks.push(
        Check::new(Level::Worth, "sandbox", "process (no isolation)").hint(
            "harnesses and tools run with all your permissions: run only agents that you trust",
        ),
    );
    show(cx, &checks)?;
    let wrong = checks.iter().any(|check| check.level == Level::Wrong);
    Ok(if wrong { Exit::Failed } else { Exit::Done })
}

fn show(cx: &Context, checks: &[Check]) -> Result<(), Failure> {
    if cx.out.json {
        return checks.iter().try_for_each(|check| {
            cx.out.object(&json!({
                "type": "check",
                "level": check.level.word().to_lowercase(),
                "name": check.name,
                "found": check.found,
                "hint": check.hint,
            }))
        });
    }
    let row = |check: &Check| vec![check.name.to_owned(), check.found.clone()];
    let lines = aligned(&checks.iter().map(row).collect::<Vec<_>>());
    for (check, line) in checks.iter().zip(lines) {
        let style = match check.level {
            Level::Fine => Style::Green,
            Level::Worth => Style::Yellow,
            Level::Wrong => Style::Red,
        };
        let word = cx.out.style(style, &format!("{:<5}", check.level.word()));
        cx.out.line(&format!("{word}  {line}"))?;
        if !check.hint.is_empty() && check.level != Level::Fine {
            cx.out.line(&format!("       {}", cx.out.style(Style::Dim, &check.hint)))?;
        }
    }
    Ok(())
}

/// The data directory: there, writable, with space, and with writes past the page cache.
fn directory(data: &DataDir) -> Vec<Check> {
    let root = data.root.display().to_string();
    if let Err(failure) = data.make() {
        let causes = failure.causes.join(": ");
        return vec![
            Check::new(Level::Wrong, "data", format!("{root}: {causes}"))
                .hint("check its owner and permissions, or name another with --data"),
        ];
    }
    let probe = data.root.join(format!(".probe-{}", std::process::id()));
    let written = fs::write(&probe, b"probe").and_then(|()| fs::File::open(&probe)?.sync_all());
    let mut checks = vec![match &written {
        Ok(()) => Check::new(Level::Fine, "data", root),
        Err(error) => Check::new(Level::Wrong, "data", format!("{root}: {error}"))
            .hint("check its owner and permissions, or name another with --data"),
    }];
    if written.is_ok() {
        checks.push(direct(&probe));
        // It has no content worth keeping.
        drop(fs::remove_file(&probe));
    }
    checks.extend(space(data));
    checks
}

/// Whether the file system takes writes past the page cache.
fn direct(probe: &Path) -> Check {
    let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    match rustix::fs::open(probe, flags, Mode::empty()) {
        Ok(_) => Check::new(Level::Fine, "disk", "takes direct writes"),
        Err(_) => Check::new(Level::Worth, "disk", "takes no direct writes").hint(
            "the log works, but slower: a local ext4 or xfs is faster than tmpfs or overlayfs",
        ),
    }
}

fn space(data: &DataDir) -> Option<Check> {
    let about = rustix::fs::statvfs(&data.root).ok()?;
    let free = about.f_bavail.saturating_mul(about.f_frsize);
    let level = if free < SPACE_BYTES_LOW { Level::Worth } else { Level::Fine };
    let found = format!("{} free", bytes(free));
    Some(
        Check::new(level, "space", found).hint("the log stops taking inputs when the disk is full"),
    )
}

async fn server(cx: &Context, data: &DataDir) -> Check {
    let client = match cx.server().await {
        Ok(client) => client,
        Err(failure) => {
            return Check::new(Level::Wrong, "server", failure.message).hint(failure.hint);
        }
    };
    let Some(client) = client else {
        let socket = data.socket().map(|socket| socket.display().to_string());
        let found = match socket {
            Ok(socket) => format!("none runs; a command would serve {socket} itself"),
            Err(failure) => return Check::new(Level::Wrong, "server", failure.message),
        };
        return Check::new(Level::Fine, "server", found);
    };
    match client.get_info(GetInfoRequest {}).await {
        Ok(info) if info.version != env!("CARGO_PKG_VERSION") => {
            let found = format!("pid {} runs ax {}", info.pid, info.version);
            Check::new(Level::Worth, "server", found).hint("restart it to use this version")
        }
        Ok(info) => {
            let (awake, running) = (info.awake_sessions, info.running_attempts);
            let what = format!("{awake} sessions awake, {running} attempts running");
            Check::new(Level::Fine, "server", format!("pid {}: {what}", info.pid))
        }
        Err(error) => Check::new(Level::Wrong, "server", error.message).hint(error.hint),
    }
}

fn kernel() -> Vec<Check> {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0_u32));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let name = format!("{} {release}", system.sysname().to_string_lossy());
    let kernel = if version >= (5, 4) {
        Check::new(Level::Fine, "kernel", name)
    } else {
        Check::new(Level::Worth, "kernel", name).hint("Linux 5.4 or newer is what is tested")
    };
    let has = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() != "0");
    let features = [
        ("user namespaces", has("/proc/sys/user/max_user_namespaces")),
        ("cgroup v2", has("/sys/fs/cgroup/cgroup.controllers")),
        ("seccomp", has("/proc/sys/kernel/seccomp/actions_avail")),
        ("landlock", lsm_has("landlock")),
    ];
    let named = |wanted: bool| {
        let names = features.iter().filter(|(_, has)| *has == wanted).map(|(name, _)| *name);
        names.collect::<Vec<_>>().join(", ")
    };
    let mut found = named(true);
    let missing = named(false);
    if !missing.is_empty() {
        found = format!("{found}; not: {missing}");
    }
    vec![kernel, Check::new(Level::Fine, "features", found)]
}

fn lsm_has(name: &str) -> bool {
    let text = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    text.trim().split(',').any(|module| module == name)
}

/// Python, which agents made by the SDK need.
fn python() -> Check {
    let ask = |code: &str| {
        let asked =
            Command::new("python3").args(["-c", code]).stderr(Stdio::null()).output().ok()?;
        let said = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
        asked.status.success().then_some(said)
    };
    let Some(version) = ask("import platform; print(platform.python_version())") else {
        return Check::new(Level::Worth, "python", "python3 is not found")
            .hint("only agents in Python need it");
    };
    match ask("import agent_executor as ax; print(ax.__version__)") {
        Some(sdk) => Check::new(Level::Fine, "python", format!("{version}, agent-executor {sdk}")),
        None => Check::new(Level::Worth, "python", format!("{version}, without agent-executor"))
            .hint("agents made by the Python SDK need it: pip install agent-executor"),
    }
}

/// Which keys of models are set. Their values are not looked at.
fn models() -> Vec<Check> {
    let check = |provider: &Provider| {
        if provider.has_key() {
            Check::new(Level::Fine, "model key", format!("{} is set", provider.key))
        } else {
            Check::new(Level::Fine, "model key", format!("{} is not set", provider.key))
        }
    };
    Provider::ALL.iter().map(check).collect()
}
