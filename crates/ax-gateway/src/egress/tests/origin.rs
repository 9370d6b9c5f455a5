//! A host with a certificate, and clients that come to it through the proxy.

use super::*;
use crate::egress::authority::{PROTOCOL, provider};
use http::HeaderMap;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A variable that every test has; its value stands for a secret.
pub(super) const VARIABLE: &str = "CARGO_MANIFEST_DIR";

pub(super) fn secret() -> String {
    std::env::var(VARIABLE).unwrap()
}

/// A rule that adds the secret to the requests to a host.
pub(super) fn rule(host: &str) -> Value {
    let headers = json!({"Authorization": "Bearer {secret}"});
    let inject = json!({"headers": headers, "apiKeyEnv": VARIABLE});
    json!({"host": host, "private": true, "inject": inject})
}

/// What a host was asked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) line: String,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

/// A host that answers with what it is sent, piece by piece, and tells on its clients: in a header
/// it says what it was shown.
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    pub(super) roots: Roots,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) asked: Arc<Mutex<Vec<Asked>>>,
    pub(super) connections: Arc<AtomicUsize>,
}

impl Origin {
    pub(super) async fn new(name: &str) -> Self {
        let (issuer, certificate, key) = issued(name);
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), PROTOCOL.to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Self {
            address: listener.local_addr().unwrap(),
            roots: vec![issuer],
            certificate,
            asked: Arc::default(),
            connections: Arc::default(),
        };
        let (asked, connections) = (Arc::clone(&origin.asked), Arc::clone(&origin.connections));
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (acceptor, asked) = (acceptor.clone(), Arc::clone(&asked));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request| answer(Arc::clone(&asked), request));
                    let http = hyper::server::conn::http1::Builder::new();
                    drop(http.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        origin
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// A proxy that believes this host, and finds it under every name.
    pub(super) async fn world(&self, rules: Value) -> World {
        world_that_believes(self.roots.clone(), rules, vec![vec![self.address]]).await
    }
}

async fn answer(
    asked: Arc<Mutex<Vec<Asked>>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let mut answer = Response::new(nothing().into_body());
    if let Some(shown) = head.headers.get(header::AUTHORIZATION) {
        answer.headers_mut().insert("x-shown", shown.clone());
        let away = format!("https://b.test/?t={}", shown.to_str().unwrap());
        answer.headers_mut().insert(header::LOCATION, away.parse().unwrap());
    }
    if head.uri.path() == "/bye" {
        answer.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
    }
    let line = format!("{} {}", head.method, head.uri);
    let streams = head.uri.path() == "/stream";
    let kept = Asked { line, headers: head.headers, body: String::new() };
    let at = {
        let mut asked = asked.lock().unwrap();
        asked.push(kept);
        asked.len() - 1
    };
    if streams {
        *answer.body_mut() = UnsyncBoxBody::new(body.map_err(io::Error::other));
    } else if let Ok(body) = body.collect().await {
        let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
        asked.lock().unwrap()[at].body.clone_from(&text);
        let text = http_body_util::Full::new(Bytes::from(format!("you said: {text}")));
        *answer.body_mut() = UnsyncBoxBody::new(text.map_err(|never| match never {}));
    }
    Ok(answer)
}

fn issued(
    name: &str,
) -> (CertificateDer<'static>, CertificateDer<'static>, PrivateKeyDer<'static>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, format!("the authority of {name}"));
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().der().clone();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    (issuer.der().clone(), certificate, key)
}

impl World {
    /// What a harness of this attempt believes.
    pub(super) fn bundle(&self) -> Roots {
        let path = self.files.as_ref().unwrap().bundle();
        CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect()
    }

    /// Opens a tunnel to a place, as far as the proxy lets it.
    pub(super) async fn tunnel(&self, place: &str) -> Result<TcpStream, String> {
        use base64::Engine as _;
        let word = base64::prelude::BASE64_STANDARD.encode(format!("ax:{PASSWORD}"));
        let head = format!("CONNECT {place} HTTP/1.1\r\nproxy-authorization: Basic {word}\r\n\r\n");
        let mut stream = TcpStream::connect(self.proxy).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"\r\n\r\n") {
            said.push(stream.read_u8().await.unwrap());
        }
        let said = String::from_utf8(said).unwrap();
        if said.starts_with("HTTP/1.1 200") { Ok(stream) } else { Err(said) }
    }

    /// Opens a tunnel and speaks TLS in it, as a client that believes these and wants this name.
    pub(super) async fn secured(
        &self,
        place: &str,
        name: &str,
        roots: &Roots,
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), PROTOCOL.to_vec()];
        let stream = self.tunnel(place).await.map_err(io::Error::other)?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Opens a tunnel to `a.test` and speaks TLS in it, as a harness of this attempt.
    pub(super) async fn client(&self) -> TlsStream<TcpStream> {
        self.secured("a.test:443", "a.test", &self.bundle()).await.unwrap()
    }

    /// Sends a text in such a tunnel, and returns what comes until it ends.
    pub(super) async fn say(&self, text: &str) -> String {
        let mut client = self.client().await;
        client.write_all(text.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        let all = client.read_to_end(&mut said);
        let _cut = timeout(Duration::from_secs(10), all).await.expect("it ends");
        String::from_utf8(said).unwrap()
    }
}

/// Reads until what was read ends with a text.
pub(super) async fn until(client: &mut TlsStream<TcpStream>, end: &str) -> String {
    let mut said = Vec::new();
    while !said.ends_with(end.as_bytes()) {
        let byte = timeout(Duration::from_secs(10), client.read_u8()).await.expect("it comes");
        said.push(byte.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&said))));
    }
    String::from_utf8(said).unwrap()
}
