//! Configuration: flags, then the environment, then one file, then what holds by itself.
//!
//! `docs/configuration.md` describes it. The settings are the table in `setting.rs`; everything
//! that is wrong with them is found at once, and each value knows where it comes from.

mod load;
pub(crate) mod setting;
mod value;

pub(crate) use load::{Given, load};

use ax_engine::manifest::{Place, Problem, duration_millis};
use serde_json::Value;
use setting::{SETTINGS, Setting};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where a value comes from; what comes later wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// It holds by itself.
    Default,
    /// A line of the file.
    File(Place),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(place) => write!(f, "file, line {}", place.line),
            Self::Environment(name) => write!(f, "environment, {name}"),
            Self::Flag(flag) => write!(f, "flag, {flag}"),
        }
    }
}

/// A value and where it comes from.
#[derive(Clone, Debug, PartialEq)]
struct Resolved {
    value: Value,
    source: Source,
}

/// The settings as they hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    /// The file, if there is one.
    pub(crate) file: Option<PathBuf>,
    /// What is wrong. The settings that it is about hold by themselves meanwhile.
    pub(crate) problems: Vec<Problem>,
    values: BTreeMap<&'static str, Resolved>,
}

impl Config {
    fn value(&self, path: &str) -> Option<&Value> {
        debug_assert!(setting::find(path).is_some(), "{path} is no setting");
        self.values.get(path).map(|resolved| &resolved.value)
    }

    /// A setting that is a text or one of some words.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.value(path).and_then(Value::as_str)
    }

    /// A setting that is a path.
    pub(crate) fn path(&self, path: &str) -> Option<PathBuf> {
        self.text(path).map(PathBuf::from)
    }

    /// A setting that is true or false.
    pub(crate) fn is(&self, path: &str) -> bool {
        self.value(path).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A setting that is a number.
    pub(crate) fn number(&self, path: &str) -> Option<u64> {
        self.value(path).and_then(Value::as_u64)
    }

    /// A setting that is a duration.
    pub(crate) fn duration(&self, path: &str) -> Option<Duration> {
        self.text(path).and_then(duration_millis).map(Duration::from_millis)
    }

    /// A setting that is a list of texts.
    pub(crate) fn texts(&self, path: &str) -> Vec<String> {
        let items = self.value(path).and_then(Value::as_array).into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Every setting with its value, as it may be shown, and where that comes from.
    pub(crate) fn shown(&self) -> impl Iterator<Item = (&'static Setting, String, Source)> + '_ {
        SETTINGS.iter().map(|setting| {
            let resolved = self.values.get(setting.path);
            let value = match resolved.map(|resolved| &resolved.value) {
                None => "not set".into(),
                Some(_) if setting.secret => "(secret)".into(),
                Some(Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
            };
            let source = resolved.map_or(Source::Default, |resolved| resolved.source.clone());
            (setting, value, source)
        })
    }

    /// The settings whose values differ between the two.
    pub(crate) fn changed(&self, other: &Self) -> Vec<&'static Setting> {
        let value = |config: &Self, path| config.value(path).cloned();
        let differs = |setting: &&Setting| value(self, setting.path) != value(other, setting.path);
        SETTINGS.iter().filter(differs).collect()
    }
}
