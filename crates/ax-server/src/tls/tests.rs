use super::*;
use crate::auth::file::replace;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for a name, and its key, both in PEM.
fn issued(by: &Issuer, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.signed_by(&key, by).unwrap().pem(), key.serialize_pem())
}

struct Place {
    dir: TempDir,
    authority: Issuer,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap(), authority: authority() };
        place.renew("localhost");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn renew(&self, name: &str) {
        let (certificate, key) = issued(&self.authority, name);
        replace(&self.path("key.pem"), key.as_bytes()).unwrap();
        replace(&self.path("certificate.pem"), certificate.as_bytes()).unwrap();
    }

    fn settings(&self) -> Settings {
        Settings {
            certificate: self.path("certificate.pem"),
            key: self.path("key.pem"),
            client_ca: None,
            client_required: false,
        }
    }

    fn asking_for_certificates(&self, of: &Issuer) -> Settings {
        let path = self.path("clients.pem");
        replace(&path, of.pem().as_bytes()).unwrap();
        Settings { client_ca: Some(path), client_required: true, ..self.settings() }
    }

    /// Connects as a client that believes the authority, and says what the server sees of it.
    async fn connect(&self, tls: &Arc<Tls>, own: Option<(String, String)>) -> Seen {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = tokio::spawn(client(config, address));
        let (stream, _) = listener.accept().await.unwrap();
        let secured = tls.secure(stream).await;
        let certificate = match secured {
            Ok((mut wire, certificate)) => {
                wire.write_all(b"hello").await.unwrap();
                wire.shutdown().await.ok();
                Some(certificate)
            }
            Err(_) => None,
        };
        Seen { certificate, heard: client.await.unwrap() }
    }
}

struct Seen {
    /// The client's certificate; `None` if it was turned away.
    certificate: Option<Option<Arc<[u8]>>>,
    heard: io::Result<(String, Vec<u8>)>,
}

async fn client(config: ClientConfig, address: SocketAddr) -> io::Result<(String, Vec<u8>)> {
    let stream = TcpStream::connect(address).await?;
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, stream).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    Ok((text, shown))
}

#[tokio::test]
async fn a_connection_is_secured_and_a_renewed_certificate_is_shown() {
    let place = Place::new();
    let tls = Tls::open(place.settings()).unwrap();
    let first = place.connect(&tls, None).await;
    let (text, shown) = first.heard.unwrap();
    assert_eq!(text, "hello");
    assert_eq!(first.certificate.unwrap(), None);
    place.renew("localhost");
    tls.seen.lock().unwrap().looked_at -= 2 * LOOK_PAUSE;
    let (_, now) = place.connect(&tls, None).await.heard.unwrap();
    assert_ne!(now, shown);
}

#[tokio::test]
async fn what_does_not_fit_together_changes_nothing() {
    let place = Place::new();
    let tls = Tls::open(place.settings()).unwrap();
    let (_, shown) = place.connect(&tls, None).await.heard.unwrap();
    let (_, other_key) = issued(&place.authority, "localhost");
    replace(&place.path("key.pem"), other_key.as_bytes()).unwrap();
    assert!(matches!(tls.reload(), Err(TlsError::Unusable(_))));
    replace(&place.path("key.pem"), b"nonsense").unwrap();
    tls.seen.lock().unwrap().looked_at -= 2 * LOOK_PAUSE;
    let (_, still) = place.connect(&tls, None).await.heard.unwrap();
    assert_eq!(still, shown);
    assert!(matches!(Tls::open(place.settings()), Err(TlsError::Read { .. })));
}

#[tokio::test]
async fn only_certificates_of_the_named_authority_are_believed() {
    let place = Place::new();
    let (ours, others) = (authority(), authority());
    let tls = Tls::open(place.asking_for_certificates(&ours)).unwrap();
    let good = issued(&ours, "ci.example.org");
    let seen = place.connect(&tls, Some(good)).await;
    let der = seen.certificate.unwrap().unwrap();
    let names = crate::auth::certificate::names(&der);
    assert!(names.contains(&"dns:ci.example.org".to_owned()), "{names:?}");
    let forged = place.connect(&tls, Some(issued(&others, "ci.example.org"))).await;
    assert!(forged.certificate.is_none());
    assert!(place.connect(&tls, None).await.certificate.is_none());
    let unnamed = Settings { client_ca: None, ..place.asking_for_certificates(&ours) };
    assert!(matches!(Tls::open(unnamed), Err(TlsError::NoAuthorities)));
}
