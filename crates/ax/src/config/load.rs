//! Putting the settings together.

use super::setting::{SETTINGS, Setting, find};
use super::{Config, Resolved, Source, value};
use ax_engine::manifest::yaml::{self, Node, Value as Yaml};
use ax_engine::manifest::{Problem, suggestion};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

/// The largest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The name of the file that is read from the data directory if none is named.
const FILE_NAME: &str = "config.yaml";

/// What the command line and the environment say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// The file, as `--config` names it.
    pub(crate) file: Option<PathBuf>,
    /// What `--set` says, such as `log.level=debug`.
    pub(crate) set: Vec<String>,
    /// What flags of their own say: the setting and the value.
    pub(crate) flags: Vec<(&'static str, String)>,
    /// The environment.
    pub(crate) environment: BTreeMap<OsString, OsString>,
    /// Where relative paths begin that are not in the file.
    pub(crate) dir: PathBuf,
}

/// Reads all that is said, and finds everything that is wrong with it.
pub(crate) fn load(given: &Given) -> Config {
    let mut config = Config::default();
    for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
        config.take(setting, Source::Default, setting.default, &given.dir);
    }
    let mut above = Config::default();
    above.environment(given);
    above.flags(given);
    if let Some((path, required)) = file(given, &above) {
        config.file(&path, required);
    }
    config.values.append(&mut above.values);
    config.problems.append(&mut above.problems);
    config
}

/// The file to read, and whether it has to be there: as the flag names it, as the environment
/// does, or in the data directory if that is named.
fn file(given: &Given, above: &Config) -> Option<(PathBuf, bool)> {
    let named = given.file.clone();
    let named = named.or_else(|| variable(given, "AX_CONFIG").map(PathBuf::from));
    if let Some(named) = named {
        return Some((given.dir.join(named), true));
    }
    let root = crate::paths::DataDir::find(above.path("data").as_deref()).ok()?;
    Some((root.root.join(FILE_NAME), false))
}

fn variable(given: &Given, name: &str) -> Option<String> {
    let value = given.environment.get(&OsString::from(name))?;
    Some(value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
}

impl Config {
    fn take(&mut self, setting: &'static Setting, source: Source, text: &str, dir: &Path) {
        match value::from_text(setting, text, dir) {
            Ok(value) => drop(self.values.insert(setting.path, Resolved { value, source })),
            Err(message) => {
                let message = format!("{message} ({source})");
                self.problems.push(Problem::new(setting.path, message));
            }
        }
    }

    fn environment(&mut self, given: &Given) {
        for setting in SETTINGS {
            let names = [setting.also.to_owned(), setting.variable()];
            for name in names {
                if let Some(text) = variable(given, &name) {
                    self.take(setting, Source::Environment(name), &text, &given.dir);
                }
            }
        }
    }

    fn flags(&mut self, given: &Given) {
        for said in &given.set {
            let Some((path, text)) = said.split_once('=') else {
                let problem = Problem::new("", format!("--set {said}: must be SETTING=VALUE"));
                self.problems.push(problem.with_hint("such as --set log.level=debug"));
                continue;
            };
            match find(path) {
                Some(setting) => {
                    self.take(setting, Source::Flag("--set".into()), text, &given.dir);
                }
                None => {
                    let known: Vec<_> = SETTINGS.iter().map(|setting| setting.path).collect();
                    let problem = Problem::new(path, "there is no such setting");
                    self.problems.push(problem.with_hint(suggestion(path, &known)));
                }
            }
        }
        for (path, text) in &given.flags {
            let setting = find(path).expect("flags are of settings");
            self.take(setting, Source::Flag(setting.flag.into()), text, &given.dir);
        }
    }

    fn file(&mut self, path: &Path, required: bool) {
        let text = match read(path) {
            Ok(text) => text,
            // What is wrong with the data directory itself is for others to say.
            Err(error) if !required && is_absent(&error) => return,
            Err(error) => {
                let message = format!("{} cannot be read: {error}", path.display());
                let hint = "name another file with --config or AX_CONFIG";
                return self.problems.push(Problem::new("", message).with_hint(hint));
            }
        };
        self.file = Some(path.to_owned());
        let dir = path.parent().unwrap_or_else(|| Path::new("/"));
        self.document(&text, dir, required);
    }

    /// Reads the text of a file in `dir`; `named` says that it was asked for.
    fn document(&mut self, text: &str, dir: &Path, named: bool) {
        let says_something = |line: &str| {
            let line = line.trim();
            !(line.is_empty() || line.starts_with('#') || line == "---")
        };
        if !text.lines().any(says_something) {
            return;
        }
        match yaml::read(text, "configuration") {
            Ok(root) => self.section("", &root, dir),
            Err(problem) => self.problems.push(problem),
        }
        if !named && matches!(self.source("data"), Some(Source::File(_))) {
            let message = "a file in the data directory cannot say which directory that is";
            let hint = "leave it out, or name the file with --config or AX_CONFIG";
            self.problems.push(Problem::new("data", message).with_hint(hint));
            self.values.remove("data");
        }
    }

    fn source(&self, path: &str) -> Option<&Source> {
        self.values.get(path).map(|resolved| &resolved.source)
    }

    /// Reads a map of settings and sections.
    fn section(&mut self, path: &str, node: &Node, dir: &Path) {
        let Yaml::Map(fields) = &node.value else {
            let problem = Problem::new(path, format!("must be a map, not {}", node.what()));
            return self.problems.push(problem.at(node.place));
        };
        for field in fields {
            let below =
                if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
            if matches!(field.node.value, Yaml::Null) {
                // A field that is there and empty counts as left out, if it is one at all.
                if !is_known(&below) {
                    self.unknown(path, &below, field);
                }
            } else if let Some(setting) = find(&below) {
                match value::from_node(setting, &field.node, dir) {
                    Ok(value) => {
                        let source = Source::File(field.node.place);
                        self.values.insert(setting.path, Resolved { value, source });
                    }
                    Err(message) => {
                        self.problems.push(Problem::new(below, message).at(field.node.place));
                    }
                }
            } else if is_known(&below) {
                self.section(&below, &field.node, dir);
            } else {
                self.unknown(path, &below, field);
            }
        }
    }

    fn unknown(&mut self, path: &str, below: &str, field: &yaml::Field) {
        let mut known: Vec<_> = SETTINGS.iter().filter_map(|one| name_below(one, path)).collect();
        known.dedup();
        let problem = Problem::new(below, "there is no such field").at(field.place);
        self.problems.push(problem.with_hint(suggestion(&field.name, &known)));
    }
}

/// Whether a path is a setting or a section.
fn is_known(path: &str) -> bool {
    SETTINGS.iter().any(|setting| {
        let rest = setting.path.strip_prefix(path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// The name that a setting has within a section: its own, or that of a section below.
fn name_below(setting: &Setting, section: &str) -> Option<&'static str> {
    let rest = setting.path.strip_prefix(section)?;
    let rest = if section.is_empty() { rest } else { rest.strip_prefix('.')? };
    rest.split('.').next()
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let message = format!("it has more than {FILE_BYTES_MAX} bytes");
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(environment: &[(&str, &str)], set: &[&str]) -> Given {
        Given {
            set: set.iter().map(|&text| text.to_owned()).collect(),
            environment: environment.iter().map(|(n, v)| (n.into(), v.into())).collect(),
            dir: "/srv".into(),
            ..Given::default()
        }
    }

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ax.yaml");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn problems(text: &str) -> Vec<String> {
        let mut config = Config::default();
        config.document(text, Path::new("/etc/ax"), true);
        config.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn flags_win_over_the_environment_over_the_file_over_defaults() {
        let (_dir, path) = written("engine: {runs_max: 2}\nlog:\n  level: warn\n  format: json\n");
        let environment =
            [("AX_CONFIG", path.to_str().unwrap()), ("AX_LOG_LEVEL", "info"), ("AX_LOG", "error")];
        let config = load(&given(&environment, &["engine.runs_max=3"]));
        assert_eq!(config.problems, []);
        assert_eq!(config.number("engine.runs_max"), Some(3));
        assert_eq!(config.source("engine.runs_max"), Some(&Source::Flag("--set".into())));
        assert_eq!(config.text("log.level"), Some("info"));
        assert_eq!(config.text("log.format"), Some("json"));
        assert_eq!(config.source("log.format").unwrap().to_string(), "file, line 4");
        assert_eq!(config.source("metrics.enabled"), Some(&Source::Default));
        assert!(config.is("metrics.enabled"));
        let flagged = Given {
            flags: vec![("engine.runs_max", "4".into())],
            ..given(&environment, &["engine.runs_max=3"])
        };
        assert_eq!(load(&flagged).number("engine.runs_max"), Some(4));
    }

    #[test]
    fn what_is_unknown_is_an_error_that_says_what_may_be_meant() {
        assert_eq!(
            problems("log:\n  levle: info\nmetric: {enabled: true}\nengine: 7\n"),
            [
                "line 2, column 3: log.levle: there is no such field; did you mean `level`?",
                "line 3, column 1: metric: there is no such field; did you mean `metrics`?",
                "line 4, column 9: engine: must be a map, not the number 7",
            ]
        );
        assert_eq!(problems("log:\n  colour:\n").len(), 1);
        assert_eq!(problems("a: [").len(), 1);
        assert_eq!(problems("# nothing\n---\n"), [""; 0]);
        let config = load(&given(&[("AX_CONFIG", "/nowhere/ax.yaml")], &["log.levels=info", "x"]));
        let said: Vec<_> = config.problems.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].contains("/nowhere/ax.yaml cannot be read"), "{said:?}");
        assert!(said[1].contains("did you mean `log.level`?"), "{said:?}");
    }

    #[test]
    fn a_value_must_be_what_the_setting_is() {
        let text = "engine: {runs_max: 0, idle_exit: 5}\nlog: {level: '=x=', format: yaml}\n\
                    metrics: {enabled: 'yes'}\ntracing: {headers: [1], timeout: 3 s}\n";
        let said = problems(text);
        assert_eq!(said.len(), 7, "{said:#?}");
        assert!(said[0].contains("number from 1 to 4096, not \"0\""), "{said:#?}");
        let config = load(&given(&[("AX_TRACING_TIMEOUT", "soon")], &["engine.runs_max=many"]));
        assert_eq!(config.problems.len(), 2);
        // What is wrong does not hold, and what holds by itself does.
        assert_eq!(config.number("engine.runs_max"), Some(64));
    }

    #[test]
    fn limits_are_settings_like_all_others() {
        let (_dir, path) =
            written("limits:\n  connections: 7\n  caller: {per_second: 1, burst: 2, calls: 3}\n");
        let environment = [
            ("AX_CONFIG", path.to_str().unwrap()),
            ("AX_LIMITS_CALLER_BURST", "20"),
            ("AX_LIMITS_CALLER_CALLS", "30"),
        ];
        let config = load(&given(&environment, &["limits.caller.calls=300"]));
        assert_eq!(config.problems, []);
        let numbers = ["connections", "caller.per_second", "caller.burst", "caller.calls"]
            .map(|name| config.number(&format!("limits.{name}")).unwrap());
        assert_eq!(numbers, [7, 1, 20, 300]);
        let said = problems("limits: {caller: {bursts: 1}, connections: 0, request_bytes: 1e9}\n");
        assert_eq!(said.len(), 3, "{said:#?}");
        assert!(said[0].contains("did you mean `burst`?"), "{said:#?}");
        assert!(said[1].contains("number from 1 to 1000000"), "{said:#?}");
    }

    #[test]
    fn a_file_that_is_damaged_is_taken_or_refused_with_words() {
        let text = "data: x\nlog: {level: info}\nlisten:\n  address: ['127.0.0.1:1']\n\
                    limits: {caller: {burst: 2}}\ntracing:\n  headers: [a=b]\n  timeout: 3s\n";
        let damage = [
            "",
            ":",
            "{",
            "}",
            "[",
            "]",
            "- ",
            "&a ",
            "*a",
            "|",
            "'",
            "\"",
            "#",
            "\n",
            "\t",
            "\0",
            "é",
            "!!binary ",
            "<<: ",
            "1e999",
        ];
        for at in 0..text.len() {
            for with in damage {
                for rest in [&text[at..], &text[at + 1..], ""] {
                    let said = problems(&format!("{}{with}{rest}", &text[..at]));
                    assert!(said.iter().all(|words| words.len() > 8), "{at} {with:?}: {said:?}");
                }
            }
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = load(&given(&[("AX_TRACING_HEADERS", "authorization=hidden")], &[]));
        assert_eq!(config.texts("tracing.headers"), ["authorization=hidden"]);
        assert!(config.shown().all(|(_, value, _)| !value.contains("hidden")));
    }

    #[test]
    fn relative_paths_begin_where_they_are_written() {
        let (dir, path) = written("data: store\n");
        let config = load(&given(&[("AX_CONFIG", path.to_str().unwrap())], &[]));
        assert_eq!(config.path("data"), Some(dir.path().join("store")));
        let config = load(&given(&[("AX_DATA", "store")], &[]));
        assert_eq!(config.path("data"), Some("/srv/store".into()));
    }

    #[test]
    fn the_data_directory_may_have_the_file_but_not_be_named_by_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.yaml"), "data: /x\nlog: {format: text}\n").unwrap();
        let root = dir.path().to_str().unwrap();
        let config = load(&given(&[("AX_DATA", root)], &[]));
        assert_eq!(config.text("log.format"), Some("text"));
        assert_eq!(config.problems.len(), 1);
        assert_eq!(config.path("data"), Some(dir.path().to_owned()));
    }
}
