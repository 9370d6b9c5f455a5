//! Where a command writes: results to standard output, everything else to standard error.

use crate::failure::Failure;
use std::io::{self, IsTerminal as _, Write as _};

/// When to use color; `Auto` is on a terminal, unless `NO_COLOR` is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

/// Colors and the like, as far as they mean something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Style {
    const fn start(self) -> &'static str {
        match self {
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Red => "\x1b[1;31m",
            Self::Green => "\x1b[32m",
            Self::Yellow => "\x1b[33m",
            Self::Cyan => "\x1b[36m",
        }
    }
}

const RESET: &str = "\x1b[0m";

/// The two outputs and how they are to be used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    /// One JSON object a line, nothing else.
    pub(crate) json: bool,
    /// Results and errors only.
    pub(crate) quiet: bool,
    /// Standard output is a terminal.
    pub(crate) live: bool,
    /// Standard error is a terminal.
    pub(crate) watched: bool,
    color: bool,
    color_err: bool,
}

impl Out {
    pub(crate) fn new(json: bool, quiet: bool, color: Color) -> Self {
        let (live, watched) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let (color, color_err) = match color {
            Color::Auto => (live && !plain, watched && !plain),
            Color::Always => (true, true),
            Color::Never => (false, false),
        };
        Self { json, quiet, live, watched, color, color_err }
    }

    /// Whether a person can be asked something.
    pub(crate) fn can_ask(&self) -> bool {
        !self.json && self.watched && io::stdin().is_terminal()
    }

    /// Styles a text for standard output.
    pub(crate) fn style(&self, style: Style, text: &str) -> String {
        styled(self.color, style, text)
    }

    /// Writes a line of the result.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        self.text(&format!("{text}\n"))
    }

    /// Writes a piece of the result.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        Ok(stdout.flush()?)
    }

    /// Writes a JSON object, on a line of its own.
    pub(crate) fn object(&self, value: &serde_json::Value) -> Result<(), Failure> {
        self.line(&value.to_string())
    }

    /// Tells what goes on, if somebody watches.
    pub(crate) fn progress(&self, text: &str) {
        if self.watched && !self.quiet && !self.json {
            warn(&styled(self.color_err, Style::Dim, text));
        }
    }

    /// Tells something worth knowing, watched or not.
    pub(crate) fn notice(&self, text: &str) {
        if !self.quiet && !self.json {
            warn(&styled(self.color_err, Style::Yellow, text));
        }
    }

    /// Warns of a danger, however quiet it is to be.
    pub(crate) fn danger(&self, text: &str) {
        warn(&styled(self.color_err, Style::Red, text));
    }

    /// Tells something that went wrong, but is not why the command fails.
    pub(crate) fn error(&self, text: &str) {
        if !self.json {
            warn(&styled(self.color_err, Style::Red, text));
        }
    }

    /// Asks something; the answer comes from standard input.
    pub(crate) fn prompt(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        let text = format!("{} ", styled(self.color_err, Style::Bold, text));
        // In one piece, so that what is typed is not shown within. Nothing can be done about a
        // standard error that is closed.
        let _written = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }

    /// Tells why the command failed.
    pub(crate) fn failure(&self, failure: &Failure) {
        if failure.silent {
            return;
        }
        if self.json {
            warn(&failure.json().to_string());
            return;
        }
        let (red, reset) = if self.color_err { (Style::Red.start(), RESET) } else { ("", "") };
        warn(failure.text(red, reset).trim_end());
    }
}

fn styled(on: bool, style: Style, text: &str) -> String {
    if on { format!("{}{text}{RESET}", style.start()) } else { text.to_owned() }
}

fn warn(line: &str) {
    // Nothing can be done about a standard error that is closed.
    let _written = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}
