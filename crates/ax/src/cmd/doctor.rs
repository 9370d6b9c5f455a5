//! `ax doctor`: is everything there?

mod agents;
mod machine;
mod walls;

use crate::config::setting::{SETTINGS, Setting};
use crate::config::{Given, Source};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::guard::Locks;
use crate::link::Context;
use crate::out::Style;
use crate::paths::DataDir;
use crate::view::describe::bytes;
use crate::view::table::aligned;
use ax_engine::manifest::suggestion;
use ax_proto::v1::GetInfoRequest;
use rustix::fs::{Mode, OFlags};
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Less free space than this is worth a word, in bytes.
const SPACE_BYTES_LOW: u64 = 1 << 30;

/// What helps with settings in general.
const CONFIG_HINT: &str = "docs/configuration.md lists the settings";
/// Variables of ours that are no settings of the file.
const VARIABLES: [&str; 12] = [
    "AX_CONFIG",
    "AX_SERVER",
    "AX_NAMESPACE",
    "AX_LOG",
    "AX_TOKEN",
    "AX_CA",
    "AX_CERT",
    "AX_KEY",
    "AX_SESSION",
    "AX_EXECUTION",
    "AX_ATTEMPT",
    "AX_WORKSPACE",
];

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
    checks.extend(configuration(cx));
    match cx.data() {
        Ok(data) => {
            checks.extend(directory(&data));
            checks.extend(doors(cx, &data));
            checks.push(machine::clock(&data));
            checks.push(server(cx, &data).await);
            checks.extend(agents::check(cx, &data).await);
            checks.extend(walls::check(&data).await);
        }
        Err(failure) => {
            checks.push(Check::new(Level::Wrong, "data", failure.message).hint(failure.hint));
        }
    }
    checks.push(machine::kernel());
    checks.push(machine::descriptors());
    checks.push(agents::python());
    checks.extend(agents::models());
    show(cx, &checks)?;
    let wrong = checks.iter().any(|check| check.level == Level::Wrong);
    Ok(if wrong { Exit::Failed } else { Exit::Done })
}

/// The settings: what is wrong with them, and where those that say something come from.
fn configuration(cx: &Context) -> Vec<Check> {
    let config = &cx.config;
    let wrong = config.problems.iter().map(|problem| {
        let path = if problem.path.is_empty() { "" } else { ": " };
        let line = problem.place.map(|place| format!("line {}: ", place.line)).unwrap_or_default();
        let found = format!("{line}{}{path}{}", problem.path, problem.message);
        let hint = if problem.hint.is_empty() { CONFIG_HINT } else { &problem.hint };
        Check::new(Level::Wrong, "config", found).hint(hint)
    });
    let mut checks: Vec<_> = wrong.collect();
    if checks.is_empty() {
        let found = match &config.file {
            Some(file) => format!("{}", file.display()),
            None => "no file".into(),
        };
        checks.push(Check::new(Level::Fine, "config", found));
    }
    let said = config.shown().filter(|(_, _, source)| cx.out.json || *source != Source::Default);
    checks.extend(said.map(|(setting, value, source)| {
        Check::new(Level::Fine, "setting", format!("{} = {value} ({source})", setting.path))
    }));
    checks.extend(strangers(&cx.given));
    checks
}

/// What a server would need to let somebody in: the files are read as it would read them.
fn doors(cx: &Context, data: &DataDir) -> Vec<Check> {
    let locks = Locks::of(&cx.config);
    let check = |name, read: Result<(), Failure>, file: Option<&Path>| match read {
        Ok(()) => file.map(|file| Check::new(Level::Fine, name, file.display().to_string())),
        Err(failure) => {
            let found = [vec![failure.message], failure.causes].concat().join(": ");
            Some(Check::new(Level::Wrong, name, found).hint(failure.hint))
        }
    };
    let certificate = locks.tls.as_ref().map(|files| &*files.certificate);
    let auth = check("auth", locks.auth(data).map(drop), locks.auth.as_deref());
    let tls = check("tls", locks.tls().map(drop), certificate);
    auth.into_iter().chain(tls).collect()
}

/// Variables that look like settings and are none.
fn strangers(given: &Given) -> Vec<Check> {
    let known: Vec<String> = SETTINGS.iter().map(Setting::variable).collect();
    let names: Vec<&str> = known.iter().map(String::as_str).chain(VARIABLES).collect();
    let set = given.environment.keys().filter_map(|name| name.to_str());
    let strange = set.filter(|name| name.starts_with("AX_") && !names.contains(name));
    let check = |name| {
        let hint = suggestion(name, &names);
        let hint = if hint.len() > 80 { CONFIG_HINT.to_owned() } else { hint };
        Check::new(Level::Worth, "variable", format!("{name} is no setting")).hint(hint)
    };
    strange.map(check).collect()
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
    checks.extend(rights(data));
    checks.extend(space(data));
    checks
}

/// Whether somebody else could read or write in it.
fn rights(data: &DataDir) -> Option<Check> {
    let about = fs::metadata(&data.root).ok()?;
    let (mode, owner) = (about.mode() & 0o777, about.uid());
    let own = rustix::process::geteuid().as_raw();
    if owner != own {
        let found = format!("it belongs to user {owner}, not to {own}");
        return Some(Check::new(Level::Wrong, "rights", found).hint(
            "run ax as the user that the data belongs to, or give the directory to this one",
        ));
    }
    if mode & 0o077 == 0 {
        return Some(Check::new(Level::Fine, "rights", format!("{mode:03o}, for its owner only")));
    }
    let hint = format!("chmod 700 {}", data.root.display());
    let found = format!("{mode:03o}: others can look into it");
    Some(Check::new(Level::Worth, "rights", found).hint(hint))
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
