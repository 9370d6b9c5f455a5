//! Tunnels that are opened: the harness' encryption ends here, and another begins. Requests are
//! read one by one, held to the rules, and get what the manifest adds to them.

use super::forward::{Counted, answered, sent_on};
use super::rule::Way;
use super::{Body, CONNECT_MAX, Denied, Egress, Out, Place, refusal};
use http::header::{self, HeaderMap};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::{ClientConfig, ServerConfig};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

/// How long a harness may take for the head of a request, and may say nothing between two.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// How much of a connection is read ahead, in bytes.
const BUFFER_BYTES_MAX: usize = 256 * 1024;

/// The tunnel of a harness, opened.
pub(super) struct Opened {
    pub(super) egress: Arc<Egress>,
    pub(super) place: Place,
    pub(super) client: Arc<ClientConfig>,
    /// The way to the host, as it was found when the tunnel began.
    pub(super) out: Mutex<Out>,
    /// A connection to the host on which nothing is under way.
    pub(super) idle: Mutex<Option<SendRequest<Counted>>>,
}

impl Opened {
    /// Serves the harness until it or the attempt ends.
    pub(super) async fn serve(self, harness: Upgraded, server: Arc<ServerConfig>) {
        let harness = match self.accept(harness, server).await {
            Ok(harness) => harness,
            Err(denied) => {
                self.egress.notes.denied(&Method::CONNECT, &self.place, &denied).await;
                return;
            }
        };
        let opened = Arc::new(self);
        let service = service_fn(|request| {
            let opened = Arc::clone(&opened);
            async move { Ok::<_, Infallible>(opened.answer(request).await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_MAX)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(TokioIo::new(harness), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a tunnel of a harness broke");
        }
    }

    /// Shows the harness the certificate of the host, if it is this host that it wants.
    async fn accept(
        &self,
        harness: Upgraded,
        server: Arc<ServerConfig>,
    ) -> Result<TlsStream<TokioIo<Upgraded>>, Denied> {
        let broken = |error| Denied::Broken(format!("the harness encrypts otherwise: {error}"));
        let slow = |_| Denied::Broken("the harness does not encrypt".to_owned());
        let hello = LazyConfigAcceptor::new(Acceptor::default(), TokioIo::new(harness));
        let hello = timeout(CONNECT_MAX, hello).await.map_err(slow)?.map_err(broken)?;
        let other = match hello.client_hello().server_name() {
            Some(name) if name.trim_end_matches('.').eq_ignore_ascii_case(&self.place.host) => None,
            name => name.map(str::to_owned),
        };
        if let Some(other) = other {
            return Err(Denied::Elsewhere(other));
        }
        timeout(CONNECT_MAX, hello.into_stream(server)).await.map_err(slow)?.map_err(broken)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let method = request.method().clone();
        match self.send(request).await {
            Ok(answer) => answer,
            Err(denied) => {
                self.egress.notes.denied(&method, &self.place, &denied).await;
                refusal(&denied)
            }
        }
    }

    async fn send(&self, request: Request<Incoming>) -> Result<Response<Body>, Denied> {
        let place = &self.place;
        meant_for(place, request.uri(), request.headers())?;
        if request.headers().contains_key(header::UPGRADE) {
            return Err(Denied::Upgrade);
        }
        let rule = self.egress.rule(Way::Opened, request.method(), place)?;
        let credential = rule.credential.as_deref();
        let exchange = self.egress.exchange(&request, place, credential);
        let port = super::inject::Scheme::Https.port();
        let mut request = sent_on(request, place, port, credential, &exchange);
        let mut again = true;
        let (answer, sender) = loop {
            let mut sender = self.sender().await?;
            match sender.try_send_request(request).await {
                Ok(answer) => break (answer, sender),
                // Nothing of it has left: the host had hung up.
                Err(mut error) if again && error.message().is_some() => {
                    let unsent = error.take_message();
                    let Some(unsent) = unsent else { return Err(self.broken(error.error())) };
                    (request, again) = (unsent, false);
                }
                Err(error) => return Err(self.broken(error.error())),
            }
        };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Denied::Upgrade);
        }
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        Ok(answered(answer, credential, exchange))
    }

    fn broken(&self, error: &dyn std::error::Error) -> Denied {
        Denied::Unreachable(format!("{}: {}", self.place, crate::provider::causes(error)))
    }

    /// Returns a connection to the host on which a request can be sent.
    async fn sender(&self) -> Result<SendRequest<Counted>, Denied> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut idle) = idle
            && let Ok(Ok(())) = timeout(CONNECT_MAX, idle.ready()).await
        {
            return Ok(idle);
        }
        let slow = |_| Denied::Unreachable(format!("{} does not answer", self.place));
        let stream = self.egress.stream(&self.out, &self.place).await?;
        let name =
            ServerName::try_from(self.place.host.clone()).map_err(|error| self.broken(&error))?;
        let tls = TlsConnector::from(Arc::clone(&self.client)).connect(name, stream);
        let tls = timeout(CONNECT_MAX, tls).await.map_err(slow)?;
        let tls = tls.map_err(|error| self.broken(&error))?;
        let (sender, connection) =
            handshake(TokioIo::new(tls)).await.map_err(|error| self.broken(&error))?;
        let stop = self.egress.stop.clone();
        drop(tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                _over = connection => {}
            }
        }));
        Ok(sender)
    }
}

/// Checks that a request is for the host that the tunnel leads to.
fn meant_for(place: &Place, uri: &Uri, headers: &HeaderMap) -> Result<(), Denied> {
    let is_it = |authority: &Authority| {
        super::of_authority(authority, Some(443)).is_some_and(|named| named == *place)
    };
    if let Some(authority) = uri.authority() {
        let encrypted = uri.scheme() == Some(&Scheme::HTTPS);
        if !encrypted || !is_it(authority) {
            return Err(Denied::Elsewhere(authority.host().to_owned()));
        }
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => String::from_utf8_lossy(host.as_bytes()).into_owned(),
        _ => return Err(Denied::Elsewhere("no host, or several".to_owned())),
    };
    match host.parse::<Authority>() {
        Ok(authority) if is_it(&authority) => Ok(()),
        _ => Err(Denied::Elsewhere(host)),
    }
}
