//! Running other programs: both outputs in the order they came, kept or shown.

use anyhow::{Context as _, Result, bail};
use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(20);

/// A program to run from the root of the repository.
#[derive(Debug)]
pub(crate) struct Program {
    command: Command,
    line: OsString,
    limit: Option<Duration>,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Whether it succeeded.
    pub(crate) ok: bool,
    /// All it printed.
    pub(crate) text: String,
}

impl Program {
    /// Names a program.
    pub(crate) fn new(name: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(&name);
        command.current_dir(crate::tree::root()).stdin(Stdio::null());
        Self { command, line: name.as_ref().to_owned(), limit: None }
    }

    /// Adds arguments.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        for arg in args {
            self.line.push(" ");
            self.line.push(arg.as_ref());
            self.command.arg(arg);
        }
        self
    }

    /// Sets a variable of its environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets its working directory.
    pub(crate) fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Ends it by force when it takes longer.
    pub(crate) const fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Runs it to its end and keeps what it prints.
    pub(crate) fn run(mut self) -> Result<Finished> {
        let line = self.line.to_string_lossy().into_owned();
        let (mut reader, writer) = std::io::pipe().context("make a pipe")?;
        let second = writer.try_clone().context("make a pipe")?;
        let started = Instant::now();
        let child = self.command.stdout(writer).stderr(second).spawn();
        let mut child = child.with_context(|| format!("start {line}"))?;
        // The command holds the writing ends; the reader sees the end when nobody does.
        drop(self.command);
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 64 * 1024];
            while let Ok(count @ 1..) = reader.read(&mut chunk) {
                if sender.send(chunk[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut bytes = Vec::new();
        let mut late = false;
        let status = loop {
            while let Ok(chunk) = receiver.recv_timeout(POLL) {
                bytes.extend(chunk);
            }
            if let Some(status) = child.try_wait().with_context(|| format!("wait for {line}"))? {
                break status;
            }
            if self.limit.is_some_and(|limit| started.elapsed() > limit) {
                late = true;
                child.kill().with_context(|| format!("kill {line}"))?;
                self.limit = None;
            }
        };
        // What a left-over child of it prints later is not waited for.
        while let Ok(chunk) = receiver.recv_timeout(POLL) {
            bytes.extend(chunk);
        }
        let mut text = format!("$ {line}\n{}", String::from_utf8_lossy(&bytes));
        if late {
            text.push_str("\nended by force: it took longer than its limit\n");
        }
        Ok(Finished { ok: status.success() && !late, text })
    }

    /// Runs it and fails with all it printed if it fails.
    pub(crate) fn succeed(self) -> Result<String> {
        let finished = self.run()?;
        if !finished.ok {
            bail!("{}", finished.text);
        }
        Ok(finished.text)
    }

    /// Runs it and returns what it printed on its standard output only.
    pub(crate) fn stdout(mut self) -> Result<String> {
        let line = self.line.to_string_lossy().into_owned();
        let output = self.command.output().with_context(|| format!("start {line}"))?;
        if !output.status.success() {
            bail!("$ {line}\n{}", String::from_utf8_lossy(&output.stderr));
        }
        String::from_utf8(output.stdout).with_context(|| format!("{line} printed no UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_outputs_are_kept_in_order() {
        let script = "echo one; echo two >&2; echo three";
        let finished = Program::new("sh").args(["-c", script]).run().unwrap();
        assert!(finished.ok);
        assert!(finished.text.ends_with("one\ntwo\nthree\n"), "{}", finished.text);
    }

    #[test]
    fn a_program_that_takes_too_long_is_ended() {
        let program = Program::new("sh").args(["-c", "echo begun; exec sleep 600"]);
        let finished = program.limit(Duration::from_millis(200)).run().unwrap();
        assert!(!finished.ok);
        assert!(finished.text.contains("begun"));
    }
}
