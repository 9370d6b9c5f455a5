//! What a person sees when a command fails.

use crate::args::Cli;
use crate::exit::Exit;
use ax_engine::Code;
use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use serde_json::json;
use std::fmt::Write as _;
use std::io;

/// Why a command failed: a code that has a page in `docs/errors/`, words, and what may help.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) hint: String,
    pub(crate) causes: Vec<String>,
    pub(crate) exit: Exit,
    /// Nobody listens any more: nothing is printed.
    pub(crate) silent: bool,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code: code.to_string(),
            message: message.into(),
            hint: hint_of(code as u16, code.hint()).into(),
            causes: Vec::new(),
            exit: exit_of(code as u16),
            silent: false,
        }
    }

    /// An argument that is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    /// Adds an error and everything below it.
    pub(crate) fn because(mut self, error: &dyn std::error::Error) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            self.causes.push(error.to_string());
            cause = error.source();
        }
        self
    }

    /// Adds what was being done, before the other causes.
    pub(crate) fn because_of(mut self, what: &str) -> Self {
        self.causes.insert(0, what.into());
        self
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(doing: &str, path: &std::path::Path, error: &io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "check the path",
            io::ErrorKind::PermissionDenied => "check its owner and permissions",
            io::ErrorKind::IsADirectory => "name a file, not a directory",
            _ => "",
        };
        let message = format!("{} cannot be {doing}", path.display());
        Self::usage(message).hint(hint).because(error)
    }

    /// What is printed: `error[AX1002]: …`, then causes and hint, each on its line.
    pub(crate) fn text(&self, red: &str, reset: &str) -> String {
        let mut text = format!("{red}error[{}]{reset}: {}\n", self.code, self.message);
        let causes = self.causes.iter().map(|cause| ("cause", cause));
        let hint = (!self.hint.is_empty()).then_some(("hint", &self.hint));
        for (word, line) in causes.chain(hint) {
            // A string takes everything.
            let _written = writeln!(text, "  {word}: {}", line.replace('\n', "\n    "));
        }
        text
    }

    /// The same as one JSON object.
    pub(crate) fn json(&self) -> serde_json::Value {
        json!({
            "type": "error",
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "causes": self.causes,
            "exit": self.exit as u8,
        })
    }
}

/// The exit code of an error code.
const fn exit_of(code: u16) -> Exit {
    match code {
        1006 | 1007 => Exit::Unavailable,
        1101 | 1102 | 2002 | 2005 | 2006 | 4001 | 4003 | 4007 => Exit::Configuration,
        1000..2000 => Exit::Usage,
        _ => Exit::Unavailable,
    }
}

/// What may help on a command line, where the engine has nothing to say.
fn hint_of(code: u16, hint: &str) -> &str {
    match code {
        _ if !hint.is_empty() => hint,
        1001 => "--help after the command says what it takes",
        1010 => "`ax session show` says how to answer",
        1013 => "hand large content over in a file",
        1015 => "`ax events` shows the blobs that a session refers to",
        1201 => "docs/formats/harness-stdio.md describes what a harness may say",
        3001 => "start a server with `ax serve`, or leave out --server",
        _ => hint,
    }
}

impl From<ax_client::Error> for Failure {
    fn from(error: ax_client::Error) -> Self {
        let number = error.code.strip_prefix("AX").and_then(|digits| digits.parse().ok());
        let number = number.unwrap_or(Code::Internal as u16);
        Self {
            exit: exit_of(number),
            code: error.code,
            message: error.message,
            hint: hint_of(number, &error.hint).into(),
            causes: error.causes,
            silent: false,
        }
    }
}

impl From<ax_engine::Error> for Failure {
    fn from(error: ax_engine::Error) -> Self {
        let hint = hint_of(error.code as u16, error.hint()).to_owned();
        Self { causes: error.causes, hint, ..Self::new(error.code, error.message) }
    }
}

impl From<ax_server::BindError> for Failure {
    fn from(error: ax_server::BindError) -> Self {
        if let ax_server::BindError::Address { source, .. } = &error {
            return Self::usage(error.to_string())
                .because(source)
                .hint("choose another port, or 0 for a free one");
        }
        Self::new(Code::Directory, "the server's socket cannot be made").because(&error)
    }
}

impl From<ax_server::ServeError> for Failure {
    fn from(error: ax_server::ServeError) -> Self {
        Self::new(Code::Unauthenticated, error.to_string()).hint(
            "make a key with `ax auth key create`, or name an identity provider with --auth; \
                 --insecure-no-auth lets anybody in",
        )
    }
}

/// Output that cannot be written: nobody reads it, or the disk is full.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            let broken = Self::new(Code::Internal, "nobody reads the output");
            return Self { silent: true, exit: Exit::Interrupted, ..broken };
        }
        let code = match error.kind() {
            io::ErrorKind::StorageFull => Code::Full,
            _ => Code::Invalid,
        };
        let hint = "what was done is recorded: `ax follow` shows it again";
        Self::new(code, "the output cannot be written").because(&error).hint(hint)
    }
}

impl From<&clap::Error> for Failure {
    fn from(error: &clap::Error) -> Self {
        Self::usage(clap_message(error)).hint(clap_hint(error))
    }
}

fn context(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => Some(texts.join(", ")),
        ContextValue::StyledStr(text) => Some(text.to_string()),
        ContextValue::StyledStrs(texts) => {
            Some(texts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        }
        other => Some(other.to_string()),
    }
    .filter(|text| !text.is_empty())
}

/// The first line of clap's message, without its prefix.
fn clap_message(error: &clap::Error) -> String {
    let text = |kind| context(error, kind).unwrap_or_default();
    match error.kind() {
        ErrorKind::MissingRequiredArgument => {
            format!("missing: {}", text(ContextKind::InvalidArg))
        }
        ErrorKind::MissingSubcommand => "no command is given".into(),
        _ => {
            let rendered = error.to_string();
            let line = rendered.lines().next().unwrap_or_default();
            line.strip_prefix("error: ").unwrap_or(line).to_owned()
        }
    }
}

fn clap_hint(error: &clap::Error) -> String {
    let similar =
        [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    if let Some(similar) = similar.into_iter().find_map(|kind| context(error, kind)) {
        return format!("did you mean `{similar}`?");
    }
    if let Some(similar) = context(error, ContextKind::InvalidSubcommand).and_then(similar_command)
    {
        return format!("did you mean `{similar}`?");
    }
    match (error.kind(), context(error, ContextKind::ValidValue)) {
        (ErrorKind::InvalidValue, Some(values)) => format!("possible values: {values}"),
        _ => {
            let usage = context(error, ContextKind::Usage).unwrap_or_default();
            let usage = usage.trim().strip_prefix("Usage: ").unwrap_or_default().trim();
            match usage.lines().next() {
                Some(usage) if !usage.is_empty() => format!("usage: {usage}; --help says more"),
                _ => hint_of(Code::Invalid as u16, "").into(),
            }
        }
    }
}

/// The command that a misspelt one is closest to.
fn similar_command(wrong: String) -> Option<String> {
    let cli = Cli::command();
    let names = cli.get_subcommands().filter(|command| !command.is_hide_set());
    let near = names.map(|command| {
        let name = command.get_name();
        (strsim::damerau_levenshtein(name, &wrong), name.to_owned())
    });
    near.filter(|(distance, name)| *distance <= 2 && *distance < name.len())
        .min()
        .map(|near| near.1)
}
