//! A data directory, agents in it, and the program.

use regex_lite::{Captures, Regex};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How often something is looked at that cannot be waited for.
const LOOK: Duration = Duration::from_millis(5);

/// Says hello and reads what the runtime has to say before an attempt begins; `$input` is the line
/// with the input.
pub(crate) const BEGIN: &str = r#"
printf '{"type":"hello","protocol":1}\n'
while IFS= read -r line; do
    case $line in
        *'"type":"input"'*) input=$line ;;
        *'"type":"ready"'*) break ;;
    esac
done
say() { printf '{"type":"output","text":"%s"}\n' "$1"; }
finish() { printf '{"type":"end"}\n'; exit 0; }
# Waits for a frame of this type, or to hear what was recorded before; goes when it is told to.
wait_for() {
    while IFS= read -r line; do
        case $line in
            *"\"type\":\"$1\""* | *'"before":{'*) return ;;
            *'"type":"park"'* | *'"type":"cancel"'*) exit 0 ;;
        esac
    done
    exit 0
}
"#;

/// A directory of its own.
#[derive(Debug)]
pub(crate) struct World {
    dir: TempDir,
}

/// A command that is over.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
    dir: PathBuf,
}

/// A command that is not over. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
    dir: PathBuf,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("ax-cli-").tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The program, in an environment of its own.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_ax"));
        command.args(args).env("AX_DATA", self.data());
        command
    }

    /// Any program, in the same environment.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.current_dir(self.dir.path()).env_clear().env("PATH", path);
        // Not where agents are: a sandbox shows no home.
        command.env("HOME", self.dir.path().join("home"));
        command
    }

    /// Runs the program with this in its environment.
    pub(crate) fn ax_in(&self, args: &[&str], environment: &[(&str, &str)]) -> Ran {
        let mut command = self.command(args);
        let output = command.envs(environment.iter().copied()).output().unwrap();
        self.ran(output)
    }

    pub(crate) fn ax(&self, args: &[&str]) -> Ran {
        self.ax_given(args, b"")
    }

    /// Runs the program with this on its standard input.
    pub(crate) fn ax_given(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let output = std::thread::scope(|scope| {
            // A program that does not read its input is no failure here.
            scope.spawn(move || drop(stdin.write_all(input)));
            child.wait_with_output().unwrap()
        });
        self.ran(output)
    }

    pub(crate) fn ran(&self, output: Output) -> Ran {
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            dir: self.dir.path().to_owned(),
        }
    }

    /// Runs the program, which must succeed, and returns what it printed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let ran = self.ax(args);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        ran.out.trim_end().to_owned()
    }

    /// Runs the program with `--json`; it must succeed.
    pub(crate) fn json(&self, args: &[&str]) -> Vec<Value> {
        let out = self.ok(&[args, &["--json"]].concat());
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Starts the program.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        self.start_in(args, &[])
    }

    /// Starts the program with this in its environment.
    pub(crate) fn start_in(&self, args: &[&str], environment: &[(&str, &str)]) -> Running {
        let mut command = self.command(args);
        command.envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Running { child, lines, dir: self.dir.path().to_owned() }
    }

    /// Starts the program at a terminal.
    pub(crate) fn terminal(&self, args: &[&str]) -> Terminal {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs = || {
            let mut options = File::options();
            let file = options.read(true).write(true).open(name.to_str().unwrap()).unwrap();
            Stdio::from(file)
        };
        let mut command = self.command(args);
        command.stdin(theirs()).stdout(theirs()).stderr(theirs());
        Terminal { child: command.spawn().unwrap(), ours: ours.into(), said: String::new() }
    }

    /// Starts a server and waits until it serves.
    pub(crate) fn serve(&self) -> Running {
        let mut server = self.start(&["serve"]);
        assert!(server.line().starts_with("serving "));
        server
    }

    /// Makes and applies an agent that is a shell script.
    pub(crate) fn agent(&self, name: &str, protocol: &str, script: &str, limits: &str) {
        let begin = if protocol == "jsonl" { BEGIN } else { "" };
        self.write(&format!("{name}.sh"), format!("set -eu\n{begin}\n{script}"));
        let limits = if limits.is_empty() { "{}" } else { limits };
        let manifest = format!(
            "apiVersion: agentexecutor.dev/v1\nkind: Agent\nmetadata: {{name: {name}}}\nspec:\n  \
             sandbox: process\n  harness:\n    type: process\n    protocol: {protocol}\n    \
             command: [sh, {name}.sh]\n  limits: {limits}\n"
        );
        self.write(&format!("{name}.yaml"), manifest);
        self.ok(&["agent", "apply", "-f", &format!("{name}.yaml")]);
    }

    /// An agent that says what it was told.
    pub(crate) fn echo(&self) {
        self.agent(
            "echo",
            "text",
            "while IFS= read -r l || [ -n \"$l\" ]; do echo \"$l\"; done",
            "",
        );
    }

    /// The state of a session, in a word.
    pub(crate) fn state(&self, session: &str) -> String {
        let shown = self.json(&["session", "show", session]);
        let state = shown[0]["status"]["state"].as_str().unwrap();
        state.trim_start_matches("STATE_").to_lowercase()
    }

    /// Waits until a session is in this state.
    pub(crate) fn wait_state(&self, session: &str, state: &str) {
        wait(state, || self.state(session) == state);
    }

    /// Waits until a file is there.
    pub(crate) fn wait_file(&self, name: &str) {
        wait(name, || self.path(name).exists());
    }

    /// The process that serves the directory.
    pub(crate) fn holder(&self) -> Option<i32> {
        let text = std::fs::read(self.data().join("server.json")).ok()?;
        let value: Value = serde_json::from_slice(&text).ok()?;
        i32::try_from(value["pid"].as_i64()?).ok()
    }
}

/// A command at a terminal. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Terminal {
    child: Child,
    ours: File,
    said: String,
}

impl Terminal {
    /// Waits until the terminal shows this.
    pub(crate) fn shows(&mut self, text: &str) {
        let mut bytes = [0; 4096];
        while !self.said.contains(text) {
            let count = self.ours.read(&mut bytes).unwrap_or(0);
            assert!(count > 0, "{text:?} is not in {:?}", self.said);
            self.said.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    /// Types a line.
    pub(crate) fn types(&mut self, line: &str) {
        self.ours.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits for its end, and returns its exit code.
    pub(crate) fn end(mut self) -> i32 {
        let mut bytes = [0; 4096];
        while self.ours.read(&mut bytes).is_ok_and(|count| count > 0) {}
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may be over already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Ran {
    /// Everything about it, with what differs from run to run replaced.
    pub(crate) fn shown(&self) -> String {
        let err =
            if self.err.is_empty() { String::new() } else { format!("-- stderr\n{}", self.err) };
        normalised(&format!("{}{err}-- exit {}\n", self.out, self.code), &self.dir)
    }

    pub(crate) fn objects(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Running {
    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// The next line of its standard output; empty at the end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal);
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ran {
        let mut out = String::new();
        self.lines.read_to_string(&mut out).unwrap();
        let mut err = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        Ran { code, out, err, dir: self.dir.clone() }
    }

    /// Kills it, as a power cut would.
    pub(crate) fn kill(mut self) {
        self.kill_now();
    }

    /// Kills it, and leaves what it had said to be read.
    pub(crate) fn kill_now(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be over already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Sends a signal to a process.
pub(crate) fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Waits until something holds.
pub(crate) fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < WAIT_MAX, "waited too long for {what}");
        std::thread::sleep(LOOK);
    }
}

/// Replaces what differs from run to run: ids by their order, times, spans and paths.
pub(crate) fn normalised(text: &str, dir: &Path) -> String {
    let text = text.replace(&dir.display().to_string(), "DIR");
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let id = Regex::new("ses_[0-9a-f]{32}").unwrap();
    let text = id.replace_all(&text, |found: &Captures<'_>| {
        let count = known.len() + 1;
        format!("ses_{}", known.entry(found[0].to_owned()).or_insert(count))
    });
    let mut text = text.into_owned();
    for (pattern, with) in [
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
        (r"\d\d:\d\d:\d\d\.\d{3}", "TIME"),
        (r#""(at|created\w*|updated\w*|applied\w*)Millis":"\d+""#, r#""${1}Millis":"TIME""#),
        (r#""digest":"[^"]+""#, r#""digest":"HASH""#),
        (r#""(key|request)":"sent-[0-9a-f]+""#, r#""$1":"KEY""#),
        (r#""principal":"[^"]+""#, r#""principal":"ME""#),
        (r"pid \d+", "pid PID"),
        (r"process \d+", "process PID"),
        (r"\d+(\.\d s| ms)\b", "SPAN"),
    ] {
        text = Regex::new(pattern).unwrap().replace_all(&text, with).into_owned();
    }
    text
}
