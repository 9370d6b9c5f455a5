//! How a server is reached, and reached again.

use crate::address::Address;
use crate::error::Error;
use crate::outage::Patience;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

/// How long it may take to open a connection.
const CONNECT_MILLIS_MAX: u64 = 10_000;

/// A connection of any kind.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Opens a connection; called again whenever the one before broke.
pub type Connect =
    Arc<dyn Fn() -> BoxFuture<'static, io::Result<Box<dyn Connection>>> + Send + Sync>;

/// What a server is shown, and what it is known by.
#[derive(Clone, Default)]
pub struct Credentials {
    /// An API key, a share token or a JWT; empty if there is none.
    pub token: String,
    /// Certificates (PEM) of authorities that vouch for the server, instead of the system's.
    pub authorities: Option<PathBuf>,
    /// The client's own certificates and its key (PEM), for a server that asks for them.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = if self.token.is_empty() { "none" } else { "hidden" };
        f.debug_struct("Credentials")
            .field("token", &token)
            .field("authorities", &self.authorities)
            .field("certificate", &self.certificate)
            .finish()
    }
}

/// Connects to an address.
///
/// # Errors
///
/// Returns an error if the credentials cannot be read.
pub fn connect(address: &Address, credentials: &Credentials) -> Result<Connect, Error> {
    Ok(match address.clone() {
        Address::Unix(path) => unix(path),
        Address::Tcp { host, port, tls: false } => Arc::new(move || {
            let host = host.clone();
            Box::pin(async move { Ok(boxed(tcp(&host, port).await?)) })
        }),
        Address::Tcp { host, port, tls: true } => {
            let connector = TlsConnector::from(Arc::new(tls(credentials)?));
            let name = ServerName::try_from(host.clone())
                .map_err(|error| Error::invalid(format!("{host:?} is no name: {error}")))?;
            Arc::new(move || {
                let (host, name, connector) = (host.clone(), name.clone(), connector.clone());
                Box::pin(async move {
                    Ok(boxed(connector.connect(name, tcp(&host, port).await?).await?))
                })
            })
        }
    })
}

/// Hides what kind of connection it is.
pub fn boxed(connection: impl Connection + 'static) -> Box<dyn Connection> {
    Box::new(connection)
}

/// Connects to the socket at `path`.
pub(crate) fn unix(path: PathBuf) -> Connect {
    Arc::new(move || {
        let path = path.clone();
        Box::pin(async move { Ok(boxed(UnixStream::connect(path).await?)) })
    })
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    // Requests are small, and somebody waits for each.
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn tls(credentials: &Credentials) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let refused = |error: rustls::Error| Error::invalid(format!("TLS is not possible: {error}"));
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(refused)?;
    let builder = match &credentials.authorities {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(refused)?;
            }
            builder.with_root_certificates(roots)
        }
        None => {
            let verifier = rustls_platform_verifier::Verifier::new(provider).map_err(refused)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let mut config = match &credentials.certificate {
        Some((chain, key)) => {
            let unreadable = |error| unreadable(key, &error);
            let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable)?;
            builder.with_client_auth_cert(certificates(chain)?, key).map_err(refused)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Whether an error, or one below it, says that the other end is not who it should be.
pub fn untrusted(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // What an error of the system holds is not below it, but within.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = held.and_then(|held| held.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::InvalidCertificate(_)) = tls {
            return true;
        }
        cause = error.source();
    }
    false
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let read: Vec<_> = read.map_err(|error| unreadable(path, &error))?;
    if read.is_empty() {
        return Err(Error::invalid(format!("{} has no certificate", path.display())));
    }
    Ok(read)
}

fn unreadable(path: &Path, error: &rustls::pki_types::pem::Error) -> Error {
    Error::invalid(format!("{} cannot be read: {error}", path.display()))
}

/// Makes a channel that connects when it is first used, and again after it broke.
pub(crate) fn channel(connect: Connect, patience: &Patience) -> Channel {
    let silence = Duration::from_millis(patience.silence_millis_max / 2);
    // The address is never resolved: the connector knows where to go.
    Endpoint::from_static("http://localhost")
        .http2_adaptive_window(true)
        .connect_timeout(Duration::from_millis(CONNECT_MILLIS_MAX))
        .http2_keep_alive_interval(silence)
        .keep_alive_timeout(silence)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let stream = connect();
            async move { stream.await.map(TokioIo::new) }
        }))
}
