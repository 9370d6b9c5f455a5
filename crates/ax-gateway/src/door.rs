//! Listening, and who may come in.

use crate::egress::{self, Body, Egress};
use crate::models::{self, Models};
use crate::tools::Tools;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// The most connections of a harness at a time.
const CONNECTIONS_MAX: usize = 256;
/// How long a harness may take for the head of a request.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What is behind the port.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) models: Arc<Models>,
    pub(crate) tools: Tools,
    pub(crate) egress: Arc<Egress>,
    /// What the harness has instead of a key.
    pub(crate) placeholder: Box<str>,
}

/// Makes a word that nobody else knows.
pub(crate) fn placeholder() -> String {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes.iter().fold("ax-".to_owned(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

/// Serves until it is told to stop.
pub(crate) async fn serve(listener: TcpListener, door: Arc<Door>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the gateway was lost");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        // It only makes small pieces wait; without it they come all the same.
        let _slower = stream.set_nodelay(true);
        let (door, stop) = (Arc::clone(&door), stop.clone());
        drop(tokio::spawn(async move {
            let _place = place;
            let service = service_fn(|request| {
                let door = Arc::clone(&door);
                async move { Ok::<_, Infallible>(door.answer(request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_MAX)
                .max_buf_size(HEAD_BYTES_MAX * 4)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::select! {
                () = stop.cancelled() => {}
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection of a harness broke");
                }
            }
        }));
    }
}

impl Door {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if egress::is_for_proxy(&request) {
            return self.egress.answer(request, &self.placeholder).await;
        }
        let path = request.uri().path();
        // A path that is not plain is for nobody: whoever reads it next may read it otherwise.
        let plain = !path.contains("//") && !path.contains("/.") && !path.contains(['%', '\\']);
        let first = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        match first {
            Some(("mcp", name)) if plain && self.tools.has(name) => {
                let name = name.to_owned();
                self.tool(&name, request).await
            }
            Some((name, _)) if plain && self.models.has(name) => {
                let (head, body) = request.into_parts();
                let answer = self.models.answer(head, body, &self.placeholder).await;
                answer.map(UnsyncBoxBody::new)
            }
            _ => refuse(StatusCode::NOT_FOUND, "this is no route of the gateway"),
        }
    }

    async fn tool(&self, name: &str, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        if !models::holds(request.headers(), path, &self.placeholder) {
            let message = "this is not the key that the runtime gave to this harness";
            return refuse(StatusCode::UNAUTHORIZED, message);
        }
        match self.tools.answer(name, request).await {
            Some(answer) => {
                answer.map(|body| UnsyncBoxBody::new(body.map_err(|never| match never {})))
            }
            None => refuse(StatusCode::NOT_FOUND, "there is no such tool server"),
        }
    }
}

fn refuse(status: StatusCode, message: &str) -> Response<Body> {
    let text = serde_json::json!({"error": {"message": message}}).to_string();
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {});
    let mut response = Response::new(UnsyncBoxBody::new(body));
    *response.status_mut() = status;
    response
}
