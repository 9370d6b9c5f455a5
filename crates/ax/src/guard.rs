//! Who is let in at the addresses of a server, as its settings say.

use crate::config::Config;
use crate::failure::Failure;
use crate::paths::DataDir;
use ax_engine::Code;
use ax_server::Connections;
use ax_server::auth::limits::{self, Quota};
use ax_server::auth::{self, Auth};
use ax_server::tls::{self, Tls};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is in front of the addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Locks {
    /// The file with the settings of authentication, in YAML or JSON.
    pub(crate) auth: Option<PathBuf>,
    pub(crate) limits: limits::Settings,
    pub(crate) tls: Option<tls::Settings>,
    /// Something is said of TLS, and not enough.
    half: bool,
}

impl Locks {
    /// Reads the settings.
    pub(crate) fn of(config: &Config) -> Self {
        let files = config.path("tls.certificate").zip(config.path("tls.key"));
        let client_ca = config.path("tls.client_ca");
        let client_required = config.is("tls.client_required");
        let names = ["tls.certificate", "tls.key", "tls.client_ca"];
        let half = files.is_none() && names.iter().any(|name| config.path(name).is_some());
        let tls = files.map(|(certificate, key)| tls::Settings {
            certificate,
            key,
            client_ca,
            client_required,
        });
        Self { auth: config.path("auth.file"), limits: limits(config), tls, half }
    }

    /// Opens all of it.
    pub(crate) fn gate(&self, data: &DataDir, config: &Config) -> Result<Gate, Failure> {
        let connections = Connections::default();
        if let Some(most) = connections_max(config) {
            connections.limit(most);
        }
        Ok(Gate { tls: self.tls()?, auth: self.auth(data)?, connections })
    }

    /// Opens what says who callers are.
    pub(crate) fn auth(&self, data: &DataDir) -> Result<Arc<Auth>, Failure> {
        Auth::open(&data.root, settings(self.auth.as_deref(), self.limits)?)
            .map_err(|error| wrong("the settings of authentication do not do", &error))
    }

    /// Opens the certificates, if there are any.
    pub(crate) fn tls(&self) -> Result<Option<Arc<Tls>>, Failure> {
        if self.half {
            let what = "there can be no TLS: it needs a certificate and its key";
            return Err(Failure::new(Code::Invalid, what)
                .hint("set tls.certificate and tls.key, or nothing of tls"));
        }
        let opened = self.tls.clone().map(Tls::open).transpose();
        opened.map_err(|error| wrong("there can be no TLS", &error))
    }
}

/// Who is let in, as a running server goes by it.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    /// Says who callers are.
    pub(crate) auth: Arc<Auth>,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) connections: Connections,
}

impl Gate {
    /// Takes new limits and reads the files again, whose names stay what they were. What cannot be
    /// used changes nothing, and is logged.
    pub(crate) fn reload(&self, config: &Config, fresh: &Config) {
        if let Some(most) = connections_max(fresh) {
            self.connections.limit(most);
        }
        match self.reload_auth(config, limits(fresh)) {
            Ok(()) => tracing::info!("who is let in was read again"),
            Err(failure) => {
                let (error, cause) = (failure.message, failure.causes.join(": "));
                tracing::error!(error, cause, "who is let in stays as it was");
            }
        }
        // They are looked at when connections come, too, but not at once.
        match self.tls.as_ref().map(|tls| tls.reload()) {
            None => {}
            Some(Ok(())) => tracing::info!("the certificates were read again"),
            Some(Err(error)) => {
                let cause = error.source().map(ToString::to_string);
                tracing::error!(%error, cause, "the old certificates stay");
            }
        }
    }

    fn reload_auth(&self, config: &Config, limits: limits::Settings) -> Result<(), Failure> {
        let settings = settings(config.path("auth.file").as_deref(), limits)?;
        self.auth
            .reload(settings)
            .map_err(|error| wrong("the settings of authentication do not do", &error))
    }
}

fn settings(path: Option<&Path>, limits: limits::Settings) -> Result<auth::Settings, Failure> {
    let settings = path.map_or_else(|| Ok(auth::Settings::default()), read)?;
    Ok(auth::Settings { limits, ..settings })
}

/// How many connections there may be.
fn connections_max(config: &Config) -> Option<usize> {
    config.number("limits.connections").and_then(|most| most.try_into().ok())
}

/// How much anybody may ask for.
fn limits(config: &Config) -> limits::Settings {
    let usual = limits::Settings::default();
    let number = |path: &str, usual: u32| {
        config.number(path).and_then(|number| number.try_into().ok()).unwrap_or(usual)
    };
    let quota = |who: &str, usual: Quota| {
        let of = |name: &str, usual| number(&format!("limits.{who}.{name}"), usual);
        Quota {
            per_second: of("per_second", usual.per_second),
            burst: of("burst", usual.burst),
            calls: of("calls", usual.calls),
            streams: of("streams", usual.streams),
        }
    };
    limits::Settings {
        caller: quota("caller", usual.caller),
        namespace: quota("namespace", usual.namespace),
        failures_per_second: number("limits.failures_per_second", usual.failures_per_second),
        request_bytes: config.number("limits.request_bytes").unwrap_or(usual.request_bytes),
    }
}

/// Reads the settings of authentication.
fn read(path: &Path) -> Result<auth::Settings, Failure> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| Failure::file("read", path, &error))?;
    serde_saphyr::from_str(&text).map_err(|error| {
        let what = format!("{} is malformed", path.display());
        Failure::new(Code::Directory, what).because(&error).hint("docs/security.md describes it")
    })
}

fn wrong(what: &str, error: &dyn Error) -> Failure {
    Failure::new(Code::Directory, what).because(error).hint("docs/security.md describes them")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Given};

    fn given(set: &[&str]) -> Config {
        let set = set.iter().map(|&text| text.to_owned()).collect();
        config::load(&Given { set, ..Given::default() })
    }

    #[test]
    fn limits_are_the_usual_ones_unless_the_settings_say() {
        assert_eq!(limits(&given(&[])), limits::Settings::default());
        assert_eq!(connections_max(&given(&[])), Some(10_000));
        let said = given(&["limits.caller.burst=7", "limits.namespace.streams=8"]);
        let usual = limits::Settings::default();
        let expect = limits::Settings {
            caller: Quota { burst: 7, ..usual.caller },
            namespace: Quota { streams: 8, ..usual.namespace },
            ..usual
        };
        assert_eq!((said.problems.len(), limits(&said)), (0, expect));
    }
}
