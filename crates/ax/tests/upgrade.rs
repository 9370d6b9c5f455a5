//! A store that one version has written is gone on with by the next.
//!
//! `AX_UPGRADE_OLD` names the program of another commit; `cargo xtask full upgrade` builds it.
//! Without it the program is its own predecessor. `AX_UPGRADE_FIXTURE=FILE.tar.gz` keeps the store
//! that is gone on with, with what is in it as `expected.json`.

#![expect(clippy::unwrap_used, reason = "a test")]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How often something is looked at that cannot be waited for.
const LOOK: Duration = Duration::from_millis(10);
/// The sessions of a store, and what each is doing when its server dies.
const SESSIONS: [&str; 5] = ["done", "asks", "working", "sleeps", "branch"];

/// An agent that is in its manifest as a whole, so that no file has to be there later. The input
/// says what it does: finish, ask, sleep, or work until there is a file `go-on` in its workspace.
const MANIFEST: &str = r#"apiVersion: agentexecutor.dev/v1
kind: Agent
metadata: {name: worker}
spec:
  sandbox: process
  harness:
    type: process
    protocol: jsonl
    command:
      - sh
      - -c
      - |
        printf '{"type":"hello","protocol":1}\n'
        while IFS= read -r line; do
          case $line in
            *'"type":"input"'*) input=$line ;;
            *'"type":"ready"'*) break ;;
          esac
        done
        # Waits to be told this, or what was recorded of it before; goes when it is told to.
        hear() {
          while IFS= read -r line; do
            case $line in
              *"\"type\":\"$1\""* | *'"before":{'*) return ;;
              *'"type":"park"'* | *'"type":"cancel"'*) exit 0 ;;
            esac
          done
          exit 0
        }
        say() { printf '{"type":"output","text":"%s"}\n' "$1"; }
        case $input in
          *asks*)
            printf '{"type":"ask","key":"q","kind":"approval","prompt":"go on?"}\n'
            hear answered ;;
          *sleeps*)
            printf '{"type":"sleep","key":"nap","due_ms":%s}\n' "$(($(date +%s) * 1000 + 1500))"
            hear fired ;;
          *working*)
            printf '{"type":"step_begin","key":"look","kind":"tool","name":"search",'
            printf '"effect":"read"}\n'
            if [ ! -e seen ]; then
              : > seen
              while IFS= read -r line; do
                case $line in *'"type":"park"'* | *'"type":"cancel"'*) exit 0 ;; esac
              done
              exit 0
            fi
            printf '{"type":"step_end","key":"look","result":1}\n' ;;
        esac
        say "that was it"
        printf '{"type":"end"}\n'
"#;

/// A data directory, and a program to use on it.
struct Store {
    dir: TempDir,
}

impl Store {
    fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("ax-upgrade-").tempdir().unwrap() }
    }

    fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.args(args).current_dir(self.dir.path()).env_clear().env("PATH", path);
        command.env("HOME", self.dir.path()).env("AX_DATA", self.data());
        command
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn run(&self, program: &Path, args: &[&str]) -> Output {
        self.command(program, args).stdin(Stdio::null()).output().unwrap()
    }

    fn ok(&self, program: &Path, args: &[&str]) -> String {
        let ran = self.run(program, args);
        assert!(ran.status.success(), "{} {args:?}: {ran:?}", program.display());
        String::from_utf8(ran.stdout).unwrap()
    }

    /// Starts a server and waits until it serves.
    fn serve(&self, program: &Path) -> Server {
        let mut command = self.command(program, &["serve"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("serving "), "{line:?}");
        Server(child)
    }

    fn state(&self, program: &Path, session: &str) -> String {
        let shown = self.ok(program, &["session", "show", session, "--json"]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let state = shown["status"]["state"].as_str().unwrap_or_default();
        state.trim_start_matches("STATE_").to_lowercase()
    }

    fn wait_state(&self, program: &Path, session: &str, state: &str) {
        wait(&format!("{session} to be {state}"), || self.state(program, session) == state);
    }

    /// What is recorded, by session.
    fn events(&self, program: &Path) -> Vec<Vec<Value>> {
        let read = |session: &&str| {
            let text = self.ok(program, &["events", session, "--json"]);
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        SESSIONS.iter().map(read).collect()
    }

    /// Puts every kind of thing into the store, and kills the server in the middle of it.
    fn fill(&self, program: &Path) -> Vec<Vec<Value>> {
        std::fs::write(self.dir.path().join("worker.yaml"), MANIFEST).unwrap();
        let server = self.serve(program);
        self.ok(program, &["agent", "apply", "-f", "worker.yaml"]);
        let large = self.dir.path().join("large");
        std::fs::write(&large, "x".repeat(100_000)).unwrap();
        self.ok(program, &["run", "-a", "worker", "-s", "done", "--file", "large", "first"]);
        self.ok(program, &["run", "-s", "done", "second"]);
        self.ok(program, &["checkpoint", "done", "--name", "here"]);
        self.ok(program, &["branch", "done", "--checkpoint", "here", "--name", "branch"]);
        self.ok(program, &["run", "-s", "branch", "on a branch"]);
        for session in ["asks", "working", "sleeps"] {
            self.ok(program, &["run", "-a", "worker", "-s", session, "--detach", session]);
        }
        self.wait_state(program, "asks", "waiting_ask");
        wait("the nap", || self.ok(program, &["events", "sleeps"]).contains("timer.set"));
        wait("the step", || self.ok(program, &["events", "working"]).contains("step.started"));
        drop(server);
        self.events(program)
    }

    /// Goes on with everything, and checks that nothing of what was there before is different.
    fn finish(&self, program: &Path, before: &[Vec<Value>]) {
        let server = self.serve(program);
        for session in ["working", "sleeps"] {
            self.wait_state(program, session, "completed");
        }
        self.ok(program, &["answer", "asks", "--approve"]);
        self.wait_state(program, "asks", "completed");
        self.ok(program, &["run", "-s", "branch", "and on"]);
        let after = self.events(program);
        for ((session, before), after) in SESSIONS.iter().zip(before).zip(&after) {
            assert!(after.len() >= before.len(), "{session} is shorter");
            assert_eq!(before[..], after[..before.len()], "{session}");
        }
        self.ok(program, &["session", "export", "done", "-o", "done.axs"]);
        drop(server);
        assert!(self.ok(program, &["fsck"]).starts_with("sound"));
    }
}

/// A server; killed when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.0.id().cast_signed()).unwrap();
        // It may be over already.
        let _gone_already = kill_process(pid, Signal::KILL);
        drop(self.0.wait());
    }
}

fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < WAIT_MAX, "waited too long for {what}");
        std::thread::sleep(LOOK);
    }
}

fn new() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_ax"))
}

fn old() -> PathBuf {
    std::env::var_os("AX_UPGRADE_OLD").map_or_else(new, PathBuf::from)
}

fn tar(args: &[OsString]) {
    let ran = Command::new("tar").args(args).output().unwrap();
    assert!(ran.status.success(), "tar {args:?}: {ran:?}");
}

#[test]
fn what_an_old_version_began_a_new_one_finishes() {
    let store = Store::new();
    let before = store.fill(&old());
    if let Some(file) = std::env::var_os("AX_UPGRADE_FIXTURE") {
        let text = serde_json::to_string(&before).unwrap();
        std::fs::write(store.data().join("expected.json"), text).unwrap();
        let dir = store.dir.path().into();
        tar(&["-czSf".into(), file, "-C".into(), dir, "data".into()]);
    }
    store.finish(&new(), &before);
}

#[test]
fn what_a_new_version_wrote_an_old_one_reads_or_refuses_and_does_not_change() {
    let store = Store::new();
    let before = store.fill(&new());
    let listed = store.run(&old(), &["session", "list"]);
    if listed.status.success() {
        store.finish(&old(), &before);
    } else {
        let said = String::from_utf8_lossy(&listed.stderr).into_owned();
        assert!(said.contains("AX2005"), "{said}");
        store.finish(&new(), &before);
    }
}
