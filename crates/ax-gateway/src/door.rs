//! Listening, and who may come in.

use crate::models::{Models, Reply};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
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
                .serve_connection(TokioIo::new(stream), service);
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
    async fn answer(&self, request: Request<Incoming>) -> Response<Reply> {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        // A path that is not plain is for nobody: whoever reads it next may read it otherwise.
        let plain = !path.contains("//") && !path.contains("/.") && !path.contains('%');
        let first = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        match first {
            Some((name, _)) if plain && self.models.has(name) => {
                self.models.answer(head, body, &self.placeholder).await
            }
            _ => {
                let text = "{\"error\":{\"message\":\"this is no route of the gateway\"}}";
                let mut response = Response::new(Reply::whole(Bytes::from_static(text.as_bytes())));
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        }
    }
}
