//! What the model can do: tools that work in the workspace.

mod files;
mod output;
mod search;
mod shell;
mod workspace;

use crate::link::{Link, Stop};
pub(super) use crate::outside::Returned;
use crate::programs::Programs;
use ax_core::session::EffectClass;
use serde::Deserialize;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use workspace::Workspace;

/// How much a tool returns, in bytes.
const OUTPUT_BYTES_MAX: usize = 32 * 1024;

/// A tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// Runs a command.
    Shell,
    /// Reads a file.
    Read,
    /// Writes a file.
    Write,
    /// Replaces text in a file.
    Edit,
    /// Lists a directory.
    List,
    /// Searches files.
    Search,
}

impl Kind {
    /// Returns the name by which the model calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Read => "read",
            Self::Write => "write",
            Self::Edit => "edit",
            Self::List => "list",
            Self::Search => "search",
        }
    }

    /// Returns what it means to carry it out again, unless the manifest says otherwise.
    pub(super) const fn effect(self) -> EffectClass {
        match self {
            Self::Shell => EffectClass::Once,
            Self::Write | Self::Edit => EffectClass::Idempotent,
            Self::Read | Self::List | Self::Search => EffectClass::Read,
        }
    }

    /// Returns what the model is told about it.
    pub(super) fn schema(self) -> Value {
        let (description, properties, required): (&str, Value, &[&str]) = match self {
            Self::Shell => (
                "Runs a command with sh in the workspace and returns its output and exit status. \
                 It has no terminal and no input. What it leaves running is killed.",
                json!({
                    "command": {"type": "string", "description": "The command."},
                    "timeout_ms": {
                        "type": "integer",
                        "description": "How long it may take; 120000 if left out, at most 600000.",
                    },
                }),
                &["command"],
            ),
            Self::Read => (
                "Reads a text file in the workspace.",
                json!({
                    "path": {"type": "string", "description": "The file."},
                    "offset": {"type": "integer", "description": "The first line, from 1."},
                    "limit": {"type": "integer", "description": "How many lines."},
                }),
                &["path"],
            ),
            Self::Write => (
                "Writes a text file in the workspace, replacing what it had. Makes directories as \
                 needed.",
                json!({
                    "path": {"type": "string", "description": "The file."},
                    "content": {"type": "string", "description": "All of its new content."},
                }),
                &["path", "content"],
            ),
            Self::Edit => (
                "Replaces a text in a file in the workspace. The old text must occur exactly once, \
                 unless all is true.",
                json!({
                    "path": {"type": "string", "description": "The file."},
                    "old": {"type": "string", "description": "The text to replace."},
                    "new": {"type": "string", "description": "What to put there."},
                    "all": {"type": "boolean", "description": "Replace every occurrence."},
                }),
                &["path", "old", "new"],
            ),
            Self::List => (
                "Lists a directory in the workspace. Directories end with a slash.",
                json!({
                    "path": {"type": "string", "description": "The directory; . if left out."},
                    "depth": {"type": "integer", "description": "How deep; 1 if left out."},
                }),
                &[],
            ),
            Self::Search => (
                "Searches the files in the workspace line by line for a regular expression and \
                 returns path:line:text for each match.",
                json!({
                    "pattern": {"type": "string", "description": "The regular expression."},
                    "path": {"type": "string", "description": "Where; . if left out."},
                }),
                &["pattern"],
            ),
        };
        let input = json!({"type": "object", "properties": properties, "required": required});
        json!({"name": self.name(), "description": description, "input": input})
    }
}

/// The tools of an attempt.
#[derive(Debug)]
pub(super) struct Tools {
    programs: Programs,
    workspace: PathBuf,
    env: Vec<(OsString, OsString)>,
    /// Whether a tool may have been carried out already, by an attempt that was lost.
    again: bool,
}

impl Tools {
    pub(super) const fn new(
        programs: Programs,
        workspace: PathBuf,
        env: Vec<(OsString, OsString)>,
        again: bool,
    ) -> Self {
        Self { programs, workspace, env, again }
    }

    /// Returns how long a call may take.
    pub(super) fn limit(kind: Kind, input: &Value) -> Duration {
        match kind {
            Kind::Shell => shell::limit(input),
            _ => search::TIME_MAX,
        }
    }

    /// Carries out a call. When it returns, nothing of it goes on.
    pub(super) async fn run(
        &self,
        link: &mut Link,
        kind: Kind,
        input: &Value,
    ) -> Result<Returned, Stop> {
        match kind {
            Kind::Shell => self.shell(link, input).await,
            Kind::Read => self.blocking(link, input, files::read).await,
            Kind::Write => self.blocking(link, input, files::write).await,
            Kind::Edit if self.again => self.blocking(link, input, files::edit_again).await,
            Kind::Edit => self.blocking(link, input, files::edit).await,
            Kind::List => self.blocking(link, input, search::list).await,
            Kind::Search => self.blocking(link, input, search::search).await,
        }
    }

    /// Does something with files, and waits for it even if the harness has to stop.
    async fn blocking<T: for<'de> Deserialize<'de> + Send + 'static>(
        &self,
        link: &mut Link,
        input: &Value,
        work: fn(&Workspace, &T, &AtomicBool) -> Result<String, String>,
    ) -> Result<Returned, Stop> {
        let input: T = match parse(input) {
            Ok(input) => input,
            Err(wrong) => return Ok(Returned::error(wrong)),
        };
        let stopped = Arc::new(AtomicBool::new(false));
        let (path, stop) = (self.workspace.clone(), Arc::clone(&stopped));
        let mut task =
            tokio::task::spawn_blocking(move || work(&Workspace::open(&path)?, &input, &stop));
        let done = link.during(&mut task).await;
        if done.is_err() {
            stopped.store(true, Ordering::Relaxed);
            let _result_of_no_interest = task.await;
        }
        match done? {
            Ok(result) => Ok(result.into()),
            Err(error) => Ok(Returned::error(format!("the tool broke: {error}"))),
        }
    }
}

fn parse<T: for<'de> Deserialize<'de>>(input: &Value) -> Result<T, String> {
    T::deserialize(input).map_err(|error| match input {
        Value::String(_) => "the input of the tool is not JSON".to_owned(),
        _ => format!("the input of the tool is wrong: {error}"),
    })
}
