//! TLS in front of an address, and certificates of clients behind it.
//!
//! The files are looked at when connections come, and read again when they have changed, so that
//! a renewed certificate is used without a restart. What cannot be read, or does not fit together
//! as while half of it is being replaced, changes nothing.

use crate::auth::file::Stamp;
use crate::listen::{Secure, Secured};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConnection};
use serde::Deserialize;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at, at most.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Which certificates a server shows, and which it believes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The file with the server's certificate and those between it and the authority, in PEM.
    pub certificate: PathBuf,
    /// The file with its private key, in PEM.
    pub key: PathBuf,
    /// The file with the authorities whose client certificates are believed, in PEM. Without it
    /// no client is asked for one.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is turned away at once.
    #[serde(default)]
    pub client_required: bool,
}

impl Settings {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let own = [self.certificate.as_path(), self.key.as_path()];
        own.into_iter().chain(self.client_ca.as_deref())
    }
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not in PEM.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A file cannot be looked at.
    #[error("{} cannot be read", path.display())]
    Look {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no certificate in a file.
    #[error("{} has no certificate", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The certificate and the key do not fit, or one of them is not of a kind that is known.
    #[error("the certificate or its key cannot be used")]
    Unusable(#[source] rustls::Error),
    /// The authorities cannot be used.
    #[error("the authorities for clients cannot be used")]
    Authorities(#[source] rustls::server::VerifierBuilderError),
    /// Clients shall show a certificate, but nobody says whose.
    #[error("client_required needs client_ca")]
    NoAuthorities,
}

/// TLS for the connections of an address.
pub struct Tls {
    settings: Settings,
    config: RwLock<Arc<ServerConfig>>,
    seen: Mutex<Seen>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({})", self.settings.certificate.display())
    }
}

struct Seen {
    stamps: Vec<Stamp>,
    looked_at: Instant,
}

impl Tls {
    /// Reads the certificates.
    ///
    /// # Errors
    ///
    /// Returns a [`TlsError`] if they cannot be used.
    pub fn open(settings: Settings) -> Result<Arc<Self>, TlsError> {
        let stamps = stamps(&settings)?;
        let config = RwLock::new(config(&settings)?);
        let seen = Mutex::new(Seen { stamps, looked_at: Instant::now() });
        Ok(Arc::new(Self { settings, config, seen }))
    }

    /// Reads the certificates again; connections that are made from now on use them.
    ///
    /// # Errors
    ///
    /// Returns a [`TlsError`] if they cannot be used. The old ones stay then.
    pub fn reload(&self) -> Result<(), TlsError> {
        let stamps = stamps(&self.settings)?;
        let config = config(&self.settings)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).stamps = stamps;
        Ok(())
    }

    /// Reads the files again if they have changed since the last look.
    fn look(&self) {
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.looked_at.elapsed() < LOOK_PAUSE {
                return;
            }
            seen.looked_at = Instant::now();
            if stamps(&self.settings).is_ok_and(|now| now == seen.stamps) {
                return;
            }
        }
        match self.reload() {
            Ok(()) => tracing::info!(tls = ?self, "the certificates were read again"),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "the old certificates stay");
            }
        }
    }
}

impl Secure for Tls {
    fn secure(&self, stream: TcpStream) -> BoxFuture<'static, Secured> {
        self.look();
        let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
        async move {
            let stream = TlsAcceptor::from(config).accept(stream).await?;
            let certificate = leaf(stream.get_ref().1);
            Ok((Box::new(stream) as _, certificate))
        }
        .boxed()
    }
}

/// The certificate of the client itself.
fn leaf(connection: &ServerConnection) -> Option<Arc<[u8]>> {
    connection.peer_certificates()?.first().map(|leaf| leaf.as_ref().into())
}

fn stamps(settings: &Settings) -> Result<Vec<Stamp>, TlsError> {
    let stamp = |path: &Path| {
        Stamp::of(path).map_err(|source| TlsError::Look { path: path.to_owned(), source })
    };
    settings.paths().map(stamp).collect()
}

fn config(settings: &Settings) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let versions = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?;
    let builder = match &settings.client_ca {
        None if settings.client_required => return Err(TlsError::NoAuthorities),
        None => versions.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(TlsError::Unusable)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            let verifier = match settings.client_required {
                true => verifier,
                false => verifier.allow_unauthenticated(),
            };
            versions.with_client_cert_verifier(verifier.build().map_err(TlsError::Authorities)?)
        }
    };
    let key = PrivateKeyDer::from_pem_file(&settings.key).map_err(unread(&settings.key))?;
    let chain = certificates(&settings.certificate)?;
    let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn unread(path: &Path) -> impl FnOnce(rustls::pki_types::pem::Error) -> TlsError {
    let path = path.to_owned();
    move |source| TlsError::Read { path, source }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<_> = read.map_err(unread(path))?;
    if certificates.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned() });
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests;
