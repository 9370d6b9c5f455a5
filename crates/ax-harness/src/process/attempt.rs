//! One attempt of a harness, from its start to its end.

use super::config::{Config, Protocol};
use super::decode::{self, Broken};
use super::line::{Lines, Read};
use super::outbox::{Outbox, QUEUE_BYTES_MAX};
use super::tail::Tail;
use super::{FRAME_BYTES_MAX, encode, failure, text};
use crate::launch::{Exit, Io, Launch, Told};
use crate::programs::Program;
use crate::supervise::{Ended, Status};
use ax_core::session::{Failure, Frame, Part};
use std::io;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// How long a harness has to say hello.
const HELLO_MAX: Duration = Duration::from_secs(60);
/// How long the pipes of a process that is gone are read, should somebody else hold them open.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// How far the harness has come.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// It has not said hello.
    Silent,
    /// It may say anything.
    Talking,
    /// It has said that it is done, or that it failed.
    Said,
    /// It broke the protocol, or something else is wrong with it.
    Wrong(Failure),
    /// It closed its output.
    Closed,
}

/// The next thing to do if the process is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Force {
    Terminate,
    Kill,
}

/// One thing that happened.
enum Happening {
    Kill,
    Told(Option<Told>),
    Heard(io::Result<Read>),
    Discarded(io::Result<bool>),
    Sent,
    Wrote(io::Result<usize>),
    Stderr,
    Ended(io::Result<Ended>),
    HelloOverdue,
    Overdue,
    DrainOverdue,
}

pub(super) struct Attempt {
    process: Program,
    stdin: Option<pipe::Sender>,
    lines: Option<Lines<pipe::Receiver>>,
    stderr: Tail<pipe::Receiver>,
    protocol: Protocol,
    stage: Stage,
    /// Said, and not yet taken by the engine.
    pending: Option<Frame>,
    /// Whether force was used.
    forced: bool,
    /// When more force is used, and which.
    force: Option<(Instant, Force)>,
    hello_due: Instant,
    stop_grace: Duration,
    /// Why it was told to stop, if it was.
    told_to_stop: Option<&'static str>,
    told_open: bool,
    killed: bool,
    ended: Option<(Ended, Instant)>,
}

impl Attempt {
    pub(super) fn new(config: &Config, mut process: Program) -> Self {
        let stdin = process.stdin.take();
        let lines = process.stdout.take().map(|stdout| Lines::new(stdout, FRAME_BYTES_MAX));
        let stderr = Tail::new(process.stderr.take());
        let silent = config.protocol == Protocol::Jsonl;
        Self {
            process,
            stdin,
            lines,
            stderr,
            protocol: config.protocol,
            stage: if silent { Stage::Silent } else { Stage::Talking },
            pending: None,
            forced: false,
            force: None,
            hello_due: Instant::now() + HELLO_MAX,
            stop_grace: config.stop_grace(),
            told_to_stop: None,
            told_open: true,
            killed: false,
            ended: None,
        }
    }

    pub(super) async fn run(
        mut self,
        launch: Launch,
        config: &Config,
        mut io: Io,
    ) -> Result<Exit, Failure> {
        let mut outbox = match self.protocol {
            Protocol::Jsonl => {
                Outbox::new(Box::new(encode::opening(launch, &config.config.to_string())))
            }
            Protocol::Text => Outbox::new(Box::new(text::opening(launch.input))),
        };
        if self.protocol == Protocol::Text {
            outbox.close();
        }
        while !self.is_over() {
            if outbox.is_done() {
                self.stdin = None;
            }
            match self.happening(&mut io, &mut outbox).await {
                Happening::Kill => self.kill(),
                // What is granted is done.
                Happening::Told(Some(Told::Granted { .. })) if !io.may_act.now() => self.kill(),
                Happening::Told(told) => self.told(told, &mut outbox),
                Happening::Heard(read) => self.heard(read, &mut outbox),
                Happening::Discarded(any) => self.discarded(&any),
                Happening::Sent | Happening::Stderr => {}
                Happening::Wrote(Ok(bytes)) => outbox.wrote(bytes),
                // It reads no more, which it may.
                Happening::Wrote(Err(_)) => self.stdin = None,
                Happening::Ended(ended) => {
                    let ended = ended.map_err(|error| failure("supervisor", error))?;
                    self.ended = Some((ended, Instant::now() + DRAIN_MAX));
                }
                Happening::HelloOverdue => {
                    let message = format!("no hello within {} s", HELLO_MAX.as_secs());
                    self.wrong(failure("hello_timeout", message), &mut outbox);
                }
                Happening::Overdue => self.use_force(),
                Happening::DrainOverdue => self.stop_reading(),
            }
            self.say_end_of_text();
        }
        Ok(self.exit())
    }

    fn is_over(&self) -> bool {
        let drained = self.lines.is_none() && self.stderr.is_done();
        self.ended.is_some() && (self.killed || drained && self.pending.is_none())
    }

    /// Waits for the next thing to happen. Nothing is lost whatever else happens first.
    async fn happening(&mut self, io: &mut Io, outbox: &mut Outbox) -> Happening {
        let Self { process, stdin, lines, stderr, pending, force, ended, .. } = self;
        let talks = matches!(self.stage, Stage::Silent | Stage::Talking);
        let reads = lines.is_some() && pending.is_none();
        let writes = stdin.is_some() && outbox.fill();
        let overdue = force.map_or_else(Instant::now, |(at, _)| at);
        let drain_overdue = ended.as_ref().map_or_else(Instant::now, |(_, at)| *at);
        let drains = lines.is_some() || !stderr.is_done();
        tokio::select! {
            () = io.kill.cancelled(), if !self.killed => Happening::Kill,
            () = io.frames.closed(), if !self.killed => Happening::Kill,
            told = io.told.recv(), if self.told_open => Happening::Told(told),
            () = send(&io.frames, pending), if pending.is_some() => Happening::Sent,
            heard = listen(lines, talks), if reads => heard,
            wrote = write(stdin, outbox.chunk()), if writes => Happening::Wrote(wrote),
            () = stderr.read(), if !stderr.is_done() => Happening::Stderr,
            result = process.wait(), if ended.is_none() => Happening::Ended(result),
            () = sleep_until(self.hello_due), if self.stage == Stage::Silent && ended.is_none() => {
                Happening::HelloOverdue
            }
            () = sleep_until(overdue), if force.is_some() && ended.is_none() => Happening::Overdue,
            () = sleep_until(drain_overdue), if ended.is_some() && drains => {
                Happening::DrainOverdue
            },
        }
    }

    fn kill(&mut self) {
        self.killed = true;
        self.force = None;
        self.process.kill();
    }

    /// Lets the process be for a while, then uses force.
    fn stop_after(&mut self, grace: Duration) {
        let at = Instant::now() + grace;
        // What comes sooner holds.
        if self.force.is_none_or(|(due, _)| at < due) {
            self.force = Some((at, Force::Terminate));
        }
    }

    fn use_force(&mut self) {
        self.forced = true;
        match self.force.map(|(_, force)| force) {
            Some(Force::Terminate) => {
                self.process.terminate();
                self.force = Some((Instant::now() + self.stop_grace, Force::Kill));
            }
            Some(Force::Kill) | None => {
                self.force = None;
                self.process.kill();
            }
        }
    }

    fn told(&mut self, told: Option<Told>, outbox: &mut Outbox) {
        let Some(told) = told else {
            self.told_open = false;
            return;
        };
        let stop = match &told {
            Told::Park { grace_millis } => Some(("parked", *grace_millis)),
            Told::Cancel { grace_millis, .. } => Some(("canceled", *grace_millis)),
            _ => None,
        };
        if let Some((why, grace_millis)) = stop {
            let grace = Duration::from_millis(grace_millis);
            self.told_to_stop = Some(why);
            match self.protocol {
                Protocol::Jsonl => self.stop_after(grace),
                // A signal is all that it understands.
                Protocol::Text => {
                    self.process.terminate();
                    self.force = Some((Instant::now() + grace, Force::Kill));
                }
            }
        }
        if !outbox.push(encode::told(&told)) {
            let message = format!("the harness leaves {QUEUE_BYTES_MAX} bytes of input unread");
            self.wrong(failure("input_unread", message), outbox);
        }
    }

    fn heard(&mut self, read: io::Result<Read>, outbox: &mut Outbox) {
        if self.protocol == Protocol::Text {
            return match read {
                Ok(Read::Line(line) | Read::Long(line)) => self.pending = Some(output(&line)),
                Ok(Read::End) | Err(_) => self.output_ended(),
            };
        }
        let line = match read {
            Ok(Read::Line(line)) => decode::line(&line),
            Ok(Read::Long(_)) => Err(Broken::new(
                "AX1202",
                format!("a frame is longer than {FRAME_BYTES_MAX} bytes"),
                "write large content to a file in the workspace",
            )),
            Ok(Read::End) | Err(_) => return self.output_ended(),
        };
        match (&self.stage, line) {
            (_, Err(broken)) => self.broken(&broken, outbox),
            (Stage::Silent, Ok(None)) => self.stage = Stage::Talking,
            (Stage::Silent, Ok(Some(_))) => {
                let hint = "send hello before anything else";
                self.broken(&Broken::new("AX1205", "the first frame is not hello", hint), outbox);
            }
            (_, Ok(None)) => {
                let hint = "send hello once";
                self.broken(&Broken::new("AX1205", "hello came a second time", hint), outbox);
            }
            (_, Ok(Some(frame))) => {
                if matches!(frame, Frame::End { .. } | Frame::Fail { .. }) {
                    self.stage = Stage::Said;
                    outbox.close();
                    self.stop_after(self.stop_grace);
                }
                self.pending = Some(frame);
            }
        }
    }

    fn broken(&mut self, broken: &Broken, outbox: &mut Outbox) {
        outbox.push(encode::refused(None, broken.code, &broken.message, &broken.hint));
        let message = format!("{} ({}; {})", broken.message, broken.code, broken.hint);
        self.wrong(failure("protocol", message), outbox);
    }

    fn wrong(&mut self, failure: Failure, outbox: &mut Outbox) {
        // What was said before stays said.
        if matches!(self.stage, Stage::Silent | Stage::Talking) {
            self.stage = Stage::Wrong(failure);
        }
        outbox.close();
        self.stop_after(self.stop_grace);
    }

    /// What comes after the end is read, so that the harness can write it, and refused.
    fn discarded(&mut self, any: &io::Result<bool>) {
        if self.stage == Stage::Said && matches!(any, Ok(true)) {
            tracing::warn!("a harness wrote to its output after it said that it was done");
        }
        if any.is_err() || self.lines.as_ref().is_none_or(Lines::is_done) {
            self.output_ended();
        }
    }

    fn output_ended(&mut self) {
        self.lines = None;
        if matches!(self.stage, Stage::Silent | Stage::Talking) {
            self.stage = Stage::Closed;
        }
        // A plain process may well go on; one that speaks the protocol has nothing left to do.
        if self.protocol == Protocol::Jsonl {
            self.stop_after(self.stop_grace);
        }
    }

    /// Somebody else holds the pipes open.
    fn stop_reading(&mut self) {
        self.output_ended();
        self.stderr.close();
    }

    /// The end of a plain process is its exit status.
    fn say_end_of_text(&mut self) {
        let done = matches!(self.ended, Some((Ended::Ran(Status::Exited(0)), _)));
        let said_all = self.stage == Stage::Closed && self.pending.is_none();
        let asked = self.told_to_stop.is_some() || self.killed;
        if self.protocol == Protocol::Text && done && said_all && !asked {
            self.stage = Stage::Said;
            self.pending = Some(Frame::End { result: None });
        }
    }

    fn exit(mut self) -> Exit {
        let ended = self.ended.take().map_or(Ended::SupervisorDied, |(ended, _)| ended);
        let closed = self.stage == Stage::Closed;
        let why = match (self.stage, ended) {
            (Stage::Said, _) if self.pending.is_none() => return Exit::Said,
            (Stage::Wrong(why), _) => why,
            (_, Ended::NotStarted(why)) => {
                failure("spawn", format!("the harness cannot be started: {why}"))
            }
            (_, Ended::TimedOut) => failure("time_limit", "the sandbox' time was over"),
            (_, Ended::SupervisorDied) => failure("supervisor", "the supervisor was killed"),
            (_, Ended::Ran(_)) if closed && self.forced && self.told_to_stop.is_none() => {
                let message = "the harness closed its output and went on without a word";
                failure("output_closed", message)
            }
            (_, Ended::Ran(status)) => {
                let code = match (self.told_to_stop, status) {
                    _ if self.killed => "killed",
                    (Some(why), _) => why,
                    (None, Status::Signaled(_)) => "signal",
                    (None, Status::Exited(_)) => "exit_status",
                };
                failure(code, format!("the harness {status} before it said that it was done"))
            }
        };
        Exit::Gone(Failure { message: self.stderr.after(&why.message), code: why.code })
    }
}

/// A line of a plain process.
fn output(line: &[u8]) -> Frame {
    let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned();
    Frame::Output { block: None, key: None, parts: vec![Part::text(text)] }
}

async fn listen(lines: &mut Option<Lines<pipe::Receiver>>, talks: bool) -> Happening {
    match lines {
        Some(lines) if talks => Happening::Heard(lines.next().await),
        Some(lines) => Happening::Discarded(lines.discard().await),
        None => std::future::pending().await,
    }
}

async fn write(stdin: &mut Option<pipe::Sender>, chunk: &[u8]) -> io::Result<usize> {
    match stdin {
        Some(stdin) => stdin.write(chunk).await,
        None => Ok(0),
    }
}

async fn send(frames: &mpsc::Sender<Frame>, pending: &mut Option<Frame>) {
    match frames.reserve().await {
        Ok(permit) => {
            if let Some(frame) = pending.take() {
                permit.send(frame);
            }
        }
        // That nobody listens any more is noticed by whoever waits for it.
        Err(_) => std::future::pending().await,
    }
}
