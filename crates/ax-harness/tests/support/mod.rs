//! Runs harnesses that are scripts of the tests.
#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]

pub mod engine;
pub mod model;
pub mod sandboxed;

use ax_core::id::{AttemptId, ExecId, Namespace, Seq, SessionId, SessionKey};
use ax_core::session::{Body, Failure, Frame, PartKind};
use ax_harness::supervise::Options;
use ax_harness::{AgentInfo, Content, Exit, Io, Launch, Launcher, MayAct, Told};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A directory with a workspace and a run directory, and supervisors.
pub struct Rig {
    path: PathBuf,
    _dir: Option<tempfile::TempDir>,
}

impl Rig {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("workspace")).unwrap();
        Self { path: dir.path().to_owned(), _dir: Some(dir) }
    }

    /// Uses the directory of another process' rig.
    pub fn at(path: PathBuf) -> Self {
        Self { path, _dir: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn workspace(&self) -> PathBuf {
        self.path.join("workspace")
    }

    pub fn options(&self) -> Options {
        let supervisor: OsString = env!("CARGO_BIN_EXE_ax-supervise").into();
        Options {
            sandbox: vec![supervisor.clone(), "__sandbox".into()],
            supervisor: vec![supervisor],
            run_dir: self.path.join("run"),
            images: self.path.join("images"),
            private: Vec::new(),
            unsandboxed: true,
        }
    }

    pub fn launch(&self, harness: Value) -> Launch {
        Launch {
            key: SessionKey::new(Namespace::default(), SessionId(1)),
            agent: AgentInfo {
                name: "test".into(),
                version: 1,
                harness,
                gateway: Value::Null,
                sandbox: "process".into(),
            },
            exec: ExecId(1),
            attempt: AttemptId(1),
            workspace: self.workspace(),
            history: Vec::new(),
            kept: None,
            input_seq: Seq(2),
            input: vec![text("hello")],
            journal: Vec::new(),
            doubts: Vec::new(),
            sent: Vec::new(),
            env: Vec::new(),
            used: ax_harness::Used::default(),
        }
    }

    /// Asserts that nothing is registered as running any more.
    pub fn assert_nothing_runs(&self) {
        let left = std::fs::read_dir(self.path.join("run")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "supervisors are still registered");
    }
}

pub fn text(text: &str) -> Content {
    Content {
        kind: PartKind::Text,
        media_type: "text/plain".into(),
        name: String::new(),
        text: text.into(),
        file: None,
    }
}

/// A harness that is a shell script.
pub fn sh(script: &str) -> Value {
    json!({"type": "process", "command": ["sh", "-c", script], "stop_grace_ms": 200})
}

/// A harness that is a Python program with helpers to speak the protocol.
pub fn python(program: &str) -> Value {
    let prelude = "import json, os, signal, subprocess, sys, time\n\
        def say(**f): print(json.dumps(f), flush=True)\n\
        def hear(): return json.loads(sys.stdin.readline())\n\
        def begin():\n\
        \x20   say(type='hello', protocol=1)\n\
        \x20   heard = []\n\
        \x20   while True:\n\
        \x20       heard.append(hear())\n\
        \x20       if heard[-1]['type'] == 'ready': return heard\n";
    let program = format!("{prelude}{program}");
    json!({"type": "process", "command": ["python3", "-c", program], "stop_grace_ms": 200})
}

/// An attempt under way.
pub struct Running {
    pub frames: mpsc::Receiver<Frame>,
    pub told: mpsc::Sender<Told>,
    pub kill: CancellationToken,
    exit: JoinHandle<Exit>,
}

impl Running {
    pub fn start(launcher: &Arc<dyn Launcher>, launch: Launch) -> Self {
        Self::start_while(launcher, launch, MayAct::default())
    }

    pub fn start_while(launcher: &Arc<dyn Launcher>, launch: Launch, may_act: MayAct) -> Self {
        let (frame_sender, frames) = mpsc::channel(64);
        let (told, told_receiver) = mpsc::channel(64);
        let kill = CancellationToken::new();
        let io = Io { frames: frame_sender, told: told_receiver, kill: kill.clone(), may_act };
        let exit = tokio::spawn(launcher.launch(launch, io));
        Self { frames, told, kill, exit }
    }

    pub async fn next(&mut self) -> Frame {
        self.frames.recv().await.expect("the harness says something")
    }

    pub async fn tell(&self, told: Told) {
        self.told.send(told).await.unwrap();
    }

    /// Takes everything that is still said, and how the attempt ended.
    pub async fn rest(mut self) -> (Vec<Frame>, Exit) {
        let mut frames = Vec::new();
        while let Some(frame) = self.frames.recv().await {
            frames.push(frame);
        }
        (frames, self.exit.await.unwrap())
    }

    pub async fn exit(self) -> Exit {
        self.rest().await.1
    }

    /// Returns how the attempt ended, if it did without being listened to.
    pub async fn exit_unheard(self) -> Exit {
        let Self { frames, exit, told: _told, kill: _kill } = self;
        let exit = exit.await.unwrap();
        drop(frames);
        exit
    }
}

pub fn gone(exit: Exit) -> Failure {
    match exit {
        Exit::Gone(failure) => failure,
        Exit::Said => panic!("the harness said that it was done"),
    }
}

pub fn end() -> Frame {
    Frame::End { result: None }
}

pub fn note_text(frame: &Frame) -> Value {
    match frame {
        Frame::Note { data: Body::Text(text), .. } => serde_json::from_str(text).unwrap(),
        other => panic!("{other:?} is not a note"),
    }
}

/// Returns whether a process lives (its remains do not count).
pub fn lives(pid: i64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with(['Z', 'X']))
}

/// Waits until something holds.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun_at = Instant::now();
    while !holds() {
        assert!(begun_at.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Reads the process ids that a script wrote into a file, once it has written them all.
pub async fn pids(file: &Path, count: usize) -> Vec<i64> {
    let read = || -> Vec<i64> {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    };
    until("the script names its processes", || read().len() >= count).await;
    read()
}
