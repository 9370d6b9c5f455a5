//! Who is let in at the addresses of a server, as its settings say.

use crate::config::Config;
use crate::failure::Failure;
use crate::paths::DataDir;
use ax_engine::Code;
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
    pub(crate) tls: Option<tls::Settings>,
}

impl Locks {
    /// Reads the settings.
    pub(crate) fn of(config: &Config) -> Self {
        let files = config.path("tls.certificate").zip(config.path("tls.key"));
        let client_ca = config.path("tls.client_ca");
        let client_required = config.is("tls.client_required");
        let tls = files.map(|(certificate, key)| tls::Settings {
            certificate,
            key,
            client_ca,
            client_required,
        });
        Self { auth: config.path("auth.file"), tls }
    }

    /// Opens what says who callers are.
    pub(crate) fn auth(&self, data: &DataDir) -> Result<Arc<Auth>, Failure> {
        Auth::open(&data.root, settings(self.auth.as_deref())?)
            .map_err(|error| wrong("the settings of authentication do not do", &error))
    }

    /// Opens the certificates, if there are any.
    pub(crate) fn tls(&self) -> Result<Option<Arc<Tls>>, Failure> {
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
}

impl Gate {
    /// Reads the files again. What cannot be used changes nothing, and is logged.
    pub(crate) fn reload(&self, config: &Config) {
        match self.reload_auth(config) {
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

    fn reload_auth(&self, config: &Config) -> Result<(), Failure> {
        let settings = settings(config.path("auth.file").as_deref())?;
        self.auth
            .reload(settings)
            .map_err(|error| wrong("the settings of authentication do not do", &error))
    }
}

fn settings(path: Option<&Path>) -> Result<auth::Settings, Failure> {
    path.map_or_else(|| Ok(auth::Settings::default()), read)
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
