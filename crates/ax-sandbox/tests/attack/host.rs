//! The host side of one run, in a process of its own, so that it can be any user's.

use ax_sandbox::{
    Backend, Door, Ended, Gateway, ImageRoot, Namespace, Options, Plan, Process, Spec, Wall,
    conformance,
};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// What to run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) namespace: bool,
    pub(crate) program: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) workspace: PathBuf,
    /// The first user id of the range, and the one after the last.
    pub(crate) ids: (u32, u32),
    pub(crate) private: Vec<PathBuf>,
    pub(crate) command: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) plan: serde_json::Value,
    pub(crate) gateway: Option<Gateway>,
    pub(crate) image: Option<ImageRoot>,
    pub(crate) without: Vec<Wall>,
    /// Whether to end first what earlier lives have left.
    pub(crate) reap: bool,
    /// A file to open and to leave open across the start.
    pub(crate) leak: Option<PathBuf>,
    /// A port of the sandbox from which to read, by the way in.
    pub(crate) enter: Option<u16>,
    /// What to do after that many milliseconds: `terminate`, `kill`, or `abandon` (die).
    pub(crate) after: Option<(u64, String)>,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) output: String,
    pub(crate) errors: String,
    pub(crate) ended: String,
    /// What was read from the port.
    pub(crate) entered: Option<String>,
    pub(crate) walls: Option<Vec<ax_sandbox::Standing>>,
    pub(crate) peak_pids: Option<u64>,
}

#[expect(clippy::print_stdout, reason = "the test reads it")]
pub(crate) fn run(order: &str) -> ExitCode {
    let Ok(order) = serde_json::from_str::<Order>(order) else { return ExitCode::FAILURE };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    let outcome = runtime.block_on(outcome(order)).unwrap_or_else(|error| Outcome {
        output: String::new(),
        errors: String::new(),
        ended: error,
        entered: None,
        walls: None,
        peak_pids: None,
    });
    println!("{}", serde_json::to_string(&outcome).unwrap_or_default());
    ExitCode::SUCCESS
}

/// Runs the conformance suite in this directory.
pub(crate) fn conform(dir: &str, program: &str, first: &str) -> ExitCode {
    let dir = PathBuf::from(dir);
    let first = first.parse().unwrap_or(0);
    let options = Options {
        launcher: vec![program.into(), "launch".into()],
        run_dir: dir.join("run"),
        ids: first..first + 64,
        private: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    runtime.block_on(conformance::run(&Namespace::new(options), &dir.join("workspace")));
    ExitCode::SUCCESS
}

async fn outcome(order: Order) -> Result<Outcome, String> {
    let failed = |error: std::io::Error| error.to_string();
    let options = Options {
        launcher: vec![order.program.clone().into(), "launch".into()],
        run_dir: order.run_dir,
        ids: order.ids.0..order.ids.1,
        private: order.private,
    };
    let backend: Box<dyn Backend> = if order.namespace {
        Box::new(Namespace::new(options))
    } else {
        Box::new(Process::new(options))
    };
    if order.reap {
        backend.reap();
    }
    let leaked = order.leak.map(std::fs::File::open).transpose().map_err(failed)?;
    let _leaked = leaked.map(leak);
    let spec = Spec {
        command: order.command.into_iter().map(OsString::from).collect(),
        dir: order.workspace,
        env: order.env.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        plan: Plan::parse(&order.plan).map_err(|error| error.to_string())?,
        gateway: order.gateway,
        image: order.image,
        held: Vec::new(),
        programs: vec![order.program],
        without: order.without.into_iter().collect(),
        ..Spec::default()
    };
    let mut running = backend.start(spec).map_err(|refusal| format!("refused: {refusal}"))?;
    drop(running.stdin.take());
    let walls = running.started().await.map_err(failed)?;
    let (stdout, stderr) = (running.stdout.take(), running.stderr.take());
    let output = tokio::spawn(read(stdout));
    let errors = tokio::spawn(read(stderr));
    let peak_pids = running.stats().pids;
    let mut entered = None;
    if let (Some(port), Some(door)) = (order.enter, running.door()) {
        entered = Some(enter(&door, port).await);
    }
    if let Some((millis, what)) = order.after {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        match &*what {
            "terminate" => running.terminate(),
            "kill" => running.kill(),
            _ => std::process::exit(0),
        }
    }
    let ended = running.wait().await.map_err(failed)?;
    let text = |text: Result<String, _>| text.unwrap_or_else(|error| format!("{error}"));
    let wait = Duration::from_secs(1);
    let output = tokio::time::timeout(wait, output).await;
    let errors = tokio::time::timeout(wait, errors).await;
    Ok(Outcome {
        output: output.map_or_else(|_| "still open".into(), text),
        errors: errors.map_or_else(|_| "still open".into(), text),
        ended: match ended {
            Ended::NotStarted(refusal) => format!("not started: {refusal}"),
            other => format!("{other:?}"),
        },
        entered,
        walls,
        peak_pids,
    })
}

/// Reads what a port of the sandbox says, once somebody listens there.
async fn enter(door: &Door, port: u16) -> String {
    let mut said = String::new();
    for _ in 0..1000 {
        if let Ok(mut stream) = door.connect(port).await {
            let _what_there_is = stream.read_to_string(&mut said).await;
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    said
}

async fn read(from: Option<tokio::net::unix::pipe::Receiver>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        let _what_there_is = from.read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Lets a descriptor be inherited by whatever is executed.
fn leak(file: std::fs::File) -> std::fs::File {
    let _still_closed = rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty());
    file
}
