//! The law of [`Backend`], as tests that every backend runs. Each function is one promise; it
//! panics if it is broken.

use crate::backend::{Backend, Ended, Running, Spec, Status};
use crate::plan::Plan;
use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long something may take that is a matter of milliseconds.
const SOON: Duration = Duration::from_secs(20);

/// What came of a run.
struct Done {
    output: Vec<u8>,
    errors: Vec<u8>,
    ended: Ended,
}

/// Runs every promise in this directory, which must exist and be empty.
///
/// # Panics
///
/// If the backend breaks one.
pub async fn run(backend: &dyn Backend, dir: &Path) {
    arguments_environment_and_directory_arrive(backend, dir).await;
    pipes_carry_any_amount_both_ways(backend, dir).await;
    status_and_signal_are_told(backend, dir).await;
    nothing_outlives_the_command(backend, dir).await;
    asking_to_end_is_heard(backend, dir).await;
    a_killed_one_ends_whatever_it_does(backend, dir).await;
    time_is_limited(backend, dir).await;
    what_cannot_start_says_why(backend, dir).await;
    the_door_leads_to_what_the_command_listens_at(backend, dir).await;
}

fn spec(dir: &Path, command: &[&str]) -> Spec {
    let command = command.iter().map(OsString::from).collect();
    Spec { command, dir: dir.to_path_buf(), ..Spec::default() }
}

fn shell(dir: &Path, script: &str) -> Spec {
    spec(dir, &["/bin/sh", "-c", script])
}

fn start(backend: &dyn Backend, spec: Spec) -> Running {
    backend.start(spec).expect("it starts")
}

async fn finish(mut running: Running, input: &[u8]) -> Done {
    let mut stdin = running.stdin.take().expect("not taken yet");
    let mut stdout = running.stdout.take().expect("not taken yet");
    let mut stderr = running.stderr.take().expect("not taken yet");
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let write = async {
        let _reader_gone = stdin.write_all(input).await;
        drop(stdin);
    };
    let all = async {
        let read = (stdout.read_to_end(&mut output), stderr.read_to_end(&mut errors));
        let ((), out, err) = tokio::join!(write, read.0, read.1);
        let _what_there_is = (out, err);
        running.wait().await.expect("it can be waited for")
    };
    let ended = tokio::time::timeout(SOON, all).await.expect("it ends");
    Done { output, errors, ended }
}

async fn arguments_environment_and_directory_arrive(backend: &dyn Backend, dir: &Path) {
    let mut spec =
        shell(dir, "pwd; printf '%s|' \"$@\" \"$GIVEN\" \"$OF_PLAN\"; env | grep -c AX_");
    spec.command.extend(["name", "a b", "", "c\n"].map(OsString::from));
    spec.env.push(("GIVEN".into(), "to it".into()));
    spec.plan.env.insert("OF_PLAN".into(), "planned".into());
    let done = finish(start(backend, spec), b"").await;
    let path = std::fs::canonicalize(dir).expect("it exists");
    let expected = format!("{}\na b||c\n|to it|planned|0\n", path.display());
    assert_eq!(String::from_utf8_lossy(&done.output), expected);
}

async fn pipes_carry_any_amount_both_ways(backend: &dyn Backend, dir: &Path) {
    let script = "tee /dev/stderr";
    let sent: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let done = finish(start(backend, shell(dir, script)), &sent).await;
    assert!(done.output == sent, "{} bytes came back", done.output.len());
    assert!(done.errors == sent, "{} bytes came back as errors", done.errors.len());
    assert_eq!(done.ended, Ended::Ran(Status::Exited(0)));
}

async fn status_and_signal_are_told(backend: &dyn Backend, dir: &Path) {
    let done = finish(start(backend, shell(dir, "exit 7")), b"").await;
    assert_eq!(done.ended, Ended::Ran(Status::Exited(7)));
    let done = finish(start(backend, shell(dir, "kill -9 $$")), b"").await;
    assert_eq!(done.ended, Ended::Ran(Status::Signaled(9)));
}

async fn nothing_outlives_the_command(backend: &dyn Backend, dir: &Path) {
    let script =
        "(setsid sh -c 'sleep 0.4; echo x > late' </dev/null >/dev/null 2>&1 &); sleep 0.1";
    let done = finish(start(backend, shell(dir, script)), b"").await;
    assert_eq!(done.ended, Ended::Ran(Status::Exited(0)));
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!dir.join("late").exists(), "something outlived the command");
}

async fn asking_to_end_is_heard(backend: &dyn Backend, dir: &Path) {
    let script = "trap 'echo heard; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut running = start(backend, shell(dir, script));
    ready(&mut running).await;
    running.terminate();
    let done = finish(running, b"").await;
    assert_eq!(String::from_utf8_lossy(&done.output), "heard\n");
    assert_eq!(done.ended, Ended::Ran(Status::Exited(3)));
}

async fn ready(running: &mut Running) {
    let mut word = [0; 6];
    let stdout = running.stdout.as_mut().expect("not taken yet");
    let read = tokio::time::timeout(SOON, stdout.read_exact(&mut word)).await;
    assert!(matches!(read, Ok(Ok(_))), "the command does not start");
}

async fn a_killed_one_ends_whatever_it_does(backend: &dyn Backend, dir: &Path) {
    let script = "trap '' TERM INT HUP; echo ready; (setsid sh -c 'trap \"\" TERM; sleep 60' &); \
                  while :; do sleep 60; done";
    let mut running = start(backend, shell(dir, script));
    ready(&mut running).await;
    running.kill();
    let begun_at = Instant::now();
    let done = finish(running, b"").await;
    assert_eq!(done.ended, Ended::Killed);
    assert!(begun_at.elapsed() < SOON / 2, "it took {:?}", begun_at.elapsed());
}

async fn time_is_limited(backend: &dyn Backend, dir: &Path) {
    let plan = Plan { time_limit: Some(1), ..Plan::default() };
    let spec = Spec { plan, ..shell(dir, "sleep 60") };
    assert_eq!(finish(start(backend, spec), b"").await.ended, Ended::TimedOut);
}

async fn what_cannot_start_says_why(backend: &dyn Backend, dir: &Path) {
    let done = finish(start(backend, spec(dir, &["/usr/bin/no-such-program"])), b"").await;
    let Ended::NotStarted(refusal) = done.ended else { panic!("{:?}", done.ended) };
    assert!(refusal.cause.contains("no-such-program"), "{refusal:?}");
    assert!(!refusal.hint.is_empty());
}

async fn the_door_leads_to_what_the_command_listens_at(backend: &dyn Backend, dir: &Path) {
    let server = "
import socket
def echo(server):
    talk, _ = server.accept()
    while data := talk.recv(65536):
        talk.sendall(data)
for family, host in [(socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')]:
    with socket.socket(family) as server:
        server.bind((host, 4711))
        server.listen()
        print('ready', flush=True)
        echo(server)
";
    let mut running = start(backend, spec(dir, &["/usr/bin/python3", "-I", "-c", server]));
    let Some(door) = running.door() else { return };
    let sent: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    for _ in 0..2 {
        ready(&mut running).await;
        let (mut from, mut to) = door.connect(4711).await.expect("it listens").into_split();
        let write = async {
            to.write_all(&sent).await.expect("it reads");
            drop(to);
        };
        let mut came = Vec::new();
        let ((), read) = tokio::join!(write, from.read_to_end(&mut came));
        assert!(read.is_ok() && came == sent, "{} bytes came back", came.len());
    }
    let nobody = door.connect(4712).await.map_err(|error| error.kind());
    assert!(matches!(nobody, Err(std::io::ErrorKind::ConnectionRefused)), "{nobody:?}");
    let done = finish(running, b"").await;
    assert_eq!(done.ended, Ended::Ran(Status::Exited(0)));
    let gone = door.connect(4711).await.map_err(|error| error.kind());
    assert!(gone.is_err(), "{gone:?}");
}
