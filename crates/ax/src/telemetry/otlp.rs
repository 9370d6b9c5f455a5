//! Sends spans to a collector: OTLP over HTTP, in protobuf.
//!
//! The collector may be slow or away: spans wait in a queue of bounded length, are sent again a
//! few times, and are dropped and counted after that. Nothing else waits for it.

use crate::config::Config;
use ax_server::ops::{Metrics, SPANS_AHEAD, Span, export_request};
use prost::Message as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The most spans in one request.
const BATCH_SPANS_MAX: usize = 512;
/// How long spans are gathered.
const GATHER: Duration = Duration::from_millis(500);
/// How often a request is made before its spans are dropped.
const TRIES_MAX: u32 = 4;
/// The pause before the second try; it doubles.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long the last spans may take when the server stops.
const FLUSH_MAX: Duration = Duration::from_secs(5);
/// Where traces go below an endpoint (OTLP 1.x, "OTLP/HTTP Request").
const PATH: &str = "/v1/traces";

/// The export of spans; to be ended by [`Exporter::flush`].
#[derive(Debug)]
pub(crate) struct Exporter {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

/// Why spans cannot be exported as configured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Wrong {
    /// The endpoint is no URL.
    #[error("tracing.endpoint must be a URL such as http://localhost:4318")]
    Endpoint,
    /// A header is not `name=value`.
    #[error("tracing.headers must be like name=value")]
    Header,
    /// The client cannot be made.
    #[error("no HTTP client can be made")]
    Client(#[source] reqwest::Error),
}

/// Sends the batches.
#[derive(Debug)]
struct Sender {
    http: reqwest::Client,
    url: reqwest::Url,
    service: String,
    instance: String,
    metrics: Arc<Metrics>,
}

/// Begins to export if an endpoint is set; returns where spans go.
pub(crate) fn start(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<Option<(mpsc::Sender<Span>, Exporter)>, Wrong> {
    let Some(endpoint) = config.text("tracing.endpoint").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let url = url(endpoint)?;
    let headers = headers(&config.texts("tracing.headers"))?;
    // Fails if somebody has chosen already.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder()
        .default_headers(headers)
        .timeout(config.duration("tracing.timeout").unwrap_or(Duration::from_secs(10)))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(Wrong::Client)?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let sender = Sender {
        http,
        url,
        service: config.text("tracing.service").unwrap_or("agent-executor").to_owned(),
        instance: format!("{host}:{}", std::process::id()),
        metrics: Arc::clone(metrics),
    };
    let (spans, queue) = mpsc::channel(SPANS_AHEAD);
    let stop = CancellationToken::new();
    let task = tokio::spawn(sender.run(queue, stop.clone()));
    Ok(Some((spans, Exporter { task, stop })))
}

/// Adds the path for traces to an endpoint that does not name it.
fn url(endpoint: &str) -> Result<reqwest::Url, Wrong> {
    let base = endpoint.trim_end_matches('/');
    let path = if base.ends_with(PATH) { "" } else { PATH };
    let url: reqwest::Url = format!("{base}{path}").parse().map_err(|_| Wrong::Endpoint)?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(Wrong::Endpoint);
    }
    Ok(url)
}

fn headers(written: &[String]) -> Result<HeaderMap, Wrong> {
    let mut headers = HeaderMap::new();
    for header in written {
        let (name, value) = header.split_once('=').ok_or(Wrong::Header)?;
        let name: HeaderName = name.trim().parse().map_err(|_| Wrong::Header)?;
        let mut value: HeaderValue = value.trim().parse().map_err(|_| Wrong::Header)?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

impl Exporter {
    /// Sends what waits, as far as that does not take long.
    pub(crate) async fn flush(self) {
        self.stop.cancel();
        if timeout(FLUSH_MAX, self.task).await.is_err() {
            tracing::warn!("the last spans were not exported in time");
        }
    }
}

impl Sender {
    async fn run(self, mut queue: mpsc::Receiver<Span>, stop: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            let count = tokio::select! {
                count = queue.recv_many(&mut batch, BATCH_SPANS_MAX) => count,
                () = stop.cancelled() => break,
            };
            if count == 0 {
                return;
            }
            tokio::select! {
                () = sleep(GATHER) => {}
                () = stop.cancelled() => {}
            }
            while batch.len() < BATCH_SPANS_MAX
                && let Ok(span) = queue.try_recv()
            {
                batch.push(span);
            }
            self.send(std::mem::take(&mut batch)).await;
        }
        while let Ok(span) = queue.try_recv() {
            batch.push(span);
            if batch.len() == BATCH_SPANS_MAX {
                self.send(std::mem::take(&mut batch)).await;
            }
        }
        if !batch.is_empty() {
            self.send(batch).await;
        }
    }

    async fn send(&self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let body = export_request(&self.service, &self.instance, spans).encode_to_vec();
        let mut pause = RETRY_PAUSE;
        for attempt in 1..=TRIES_MAX {
            let (again, what) = match self.post(body.clone()).await {
                Ok(status) if status.is_success() => return,
                Ok(status) => {
                    (matches!(status.as_u16(), 429 | 502 | 503 | 504), status.to_string())
                }
                // Without the address: it may have a password in it.
                Err(error) => (true, error.without_url().to_string()),
            };
            if !again || attempt == TRIES_MAX {
                tracing::warn!(count, reason = what, "spans were dropped");
                break;
            }
            sleep(pause).await;
            pause *= 2;
        }
        self.metrics.spans_dropped(count);
    }

    async fn post(&self, body: Vec<u8>) -> Result<reqwest::StatusCode, reqwest::Error> {
        let request = self.http.post(self.url.clone()).body(body);
        let response = request.header(CONTENT_TYPE, "application/x-protobuf").send().await?;
        Ok(response.status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_base_or_the_whole_address() {
        for (endpoint, expected) in [
            ("http://localhost:4318", "http://localhost:4318/v1/traces"),
            ("https://o.example/otlp/", "https://o.example/otlp/v1/traces"),
            ("http://localhost:4318/v1/traces", "http://localhost:4318/v1/traces"),
        ] {
            assert_eq!(url(endpoint).unwrap().as_str(), expected);
        }
        for endpoint in ["", "localhost:4318", "ftp://x", "file:///x"] {
            assert!(url(endpoint).is_err(), "{endpoint}");
        }
    }

    #[test]
    fn headers_are_names_and_values() {
        let made = headers(&["authorization=Bearer x=y".into()]).unwrap();
        assert_eq!(made["authorization"], "Bearer x=y");
        assert!(headers(&["nothing".into()]).is_err());
        assert!(headers(&["a b=c".into()]).is_err());
    }
}
