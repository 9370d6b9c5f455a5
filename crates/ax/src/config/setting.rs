//! The settings there are: the one list that the loader, `ax doctor` and the documentation follow.

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// What log levels are said in: `info`, or `warn,ax_engine=debug`.
    Filter,
    /// A path; one in the file is taken from where the file is.
    Path,
    /// `true` or `false`.
    Bool,
    /// A whole number within these bounds.
    Number(u64, u64),
    /// A time such as `30s`.
    Duration,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Texts: a list in the file, separated by commas elsewhere.
    Texts,
    /// The same of addresses: an IP address and a port.
    Addresses,
}

impl Kind {
    /// What it is called in documents and messages.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Text => "text".into(),
            Self::Filter => "log levels".into(),
            Self::Path => "path".into(),
            Self::Bool => "`true` or `false`".into(),
            Self::Number(least, most) => format!("number from {least} to {most}"),
            Self::Duration => "duration".into(),
            Self::OneOf(words) => {
                words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
            }
            Self::Texts => "list of texts".into(),
            Self::Addresses => "list of addresses".into(),
        }
    }
}

/// A setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// Where it is in the file, such as `log.level`.
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    /// What holds if nobody says anything, as one would write it; empty if nothing.
    pub(crate) default: &'static str,
    /// An older or shorter name of its environment variable, which holds as well.
    pub(crate) also: &'static str,
    /// The flag that sets it, beside `--set`; may be empty.
    pub(crate) flag: &'static str,
    /// Whether a running server takes a new value when it reloads.
    pub(crate) reloads: bool,
    /// Whether its value is never shown.
    pub(crate) secret: bool,
}

impl Setting {
    const fn new(path: &'static str, kind: Kind, default: &'static str) -> Self {
        let (also, flag) = ("", "");
        Self { path, kind, default, also, flag, reloads: false, secret: false }
    }

    const fn also(self, also: &'static str) -> Self {
        Self { also, ..self }
    }

    const fn flag(self, flag: &'static str) -> Self {
        Self { flag, ..self }
    }

    const fn reloads(self) -> Self {
        Self { reloads: true, ..self }
    }

    const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    /// The name of its environment variable: `log.level` is `AX_LOG_LEVEL`.
    pub(crate) fn variable(&self) -> String {
        format!("AX_{}", self.path.replace('.', "_").to_uppercase())
    }
}

/// How many of something somebody may ask for: some, and none without an end.
const MANY: Kind = Kind::Number(1, 1_000_000);

/// What a namespace may use of models.
const MODELS: Kind = Kind::Number(1, 1_000_000_000_000);

/// Every setting, in the order of the documentation.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting::new("data", Kind::Path, "").flag("--data"),
    Setting::new("listen.address", Kind::Addresses, "").flag("--listen"),
    Setting::new("listen.insecure_no_auth", Kind::Bool, "false").flag("--insecure-no-auth"),
    Setting::new("listen.allow_unsandboxed", Kind::Bool, "false").flag("--allow-unsandboxed"),
    Setting::new("listen.origins", Kind::Texts, "").flag("--allow-origin"),
    Setting::new("server.standby", Kind::Bool, "false").flag("--standby"),
    Setting::new("server.takeover_after", Kind::Duration, "15s").flag("--takeover-after"),
    Setting::new("auth.file", Kind::Path, "").flag("--auth"),
    Setting::new("tls.certificate", Kind::Path, "").flag("--tls-certificate"),
    Setting::new("tls.key", Kind::Path, "").flag("--tls-key"),
    Setting::new("tls.client_ca", Kind::Path, "").flag("--tls-client-ca"),
    Setting::new("tls.client_required", Kind::Bool, "false").flag("--tls-client-required"),
    Setting::new("limits.request_bytes", Kind::Number(1_024, 8_388_608), "8388608").reloads(),
    Setting::new("limits.connections", Kind::Number(1, 1_000_000), "10000").reloads(),
    Setting::new("limits.failures_per_second", MANY, "10").reloads(),
    Setting::new("limits.caller.per_second", MANY, "1000").reloads(),
    Setting::new("limits.caller.burst", MANY, "2000").reloads(),
    Setting::new("limits.caller.calls", MANY, "256").reloads(),
    Setting::new("limits.caller.streams", MANY, "4096").reloads(),
    Setting::new("limits.namespace.per_second", MANY, "5000").reloads(),
    Setting::new("limits.namespace.burst", MANY, "10000").reloads(),
    Setting::new("limits.namespace.calls", MANY, "1024").reloads(),
    Setting::new("limits.namespace.streams", MANY, "16384").reloads(),
    Setting::new("limits.models.period", Kind::OneOf(&["day", "month"]), "month"),
    Setting::new("limits.models.calls", MODELS, ""),
    Setting::new("limits.models.tokens", MODELS, ""),
    Setting::new("limits.models.dollars", MODELS, ""),
    Setting::new("limits.models.calls_per_minute", MODELS, ""),
    Setting::new("limits.models.tokens_per_minute", MODELS, ""),
    Setting::new("engine.runs_max", Kind::Number(1, 4096), "64").flag("--runs-max"),
    Setting::new("engine.idle_exit", Kind::Duration, "").flag("--idle-exit"),
    Setting::new("log.level", Kind::Filter, "").also("AX_LOG").reloads(),
    Setting::new("log.format", Kind::OneOf(&["auto", "text", "json"]), "auto"),
    Setting::new("metrics.enabled", Kind::Bool, "true"),
    Setting::new("metrics.public", Kind::Bool, "false"),
    Setting::new("tracing.endpoint", Kind::Text, "").also("OTEL_EXPORTER_OTLP_ENDPOINT"),
    Setting::new("tracing.headers", Kind::Texts, "").also("OTEL_EXPORTER_OTLP_HEADERS").secret(),
    Setting::new("tracing.service", Kind::Text, "agent-executor").also("OTEL_SERVICE_NAME"),
    Setting::new("tracing.timeout", Kind::Duration, "10s"),
];

/// The setting at a path.
pub(crate) fn find(path: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_setting_is_named_once() {
        let paths: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.path).collect();
        assert_eq!(paths.len(), SETTINGS.len());
        let variables: BTreeSet<_> = SETTINGS.iter().map(Setting::variable).collect();
        assert_eq!(variables.len(), SETTINGS.len());
    }

    /// The table of the document: one row for each setting, with what the code says.
    #[test]
    fn every_setting_is_documented_and_nothing_else_is() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let document = std::fs::read_to_string(path).unwrap();
        let rows: Vec<_> = document.lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<_> = SETTINGS.iter().map(row).collect();
        let known: BTreeSet<_> = expected.iter().map(String::as_str).collect();
        for expected in &expected {
            let found = rows.iter().any(|row| row.starts_with(expected.as_str()));
            assert!(found, "docs/configuration.md has no row that begins\n{expected}");
        }
        for row in rows {
            let named = known.iter().any(|known| row.starts_with(known));
            assert!(named, "docs/configuration.md describes what is no setting:\n{row}");
        }
    }

    /// How the row of a setting begins.
    fn row(setting: &Setting) -> String {
        let also = match setting.also {
            "" => String::new(),
            also => format!(", `{also}`"),
        };
        let flag = match setting.flag {
            "" => String::new(),
            flag => format!("`{flag}`"),
        };
        let default = match setting.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        let (path, variable) = (setting.path, setting.variable());
        let name = setting.kind.name();
        format!("| `{path}` | {name} | {default} | `{variable}`{also} | {flag} |")
    }
}
