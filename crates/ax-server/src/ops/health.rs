//! `/healthz`, `/readyz` and `/metrics`.

use super::metrics::CONTENT_TYPE;
use super::observer::Watch;
use crate::Connections;
use ax_engine::Engine;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// With less free space than this in the data directory, a server is not ready, in bytes.
pub const READY_BYTES_MIN: u64 = 64 << 20;

/// What can be said of a server's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It takes work.
    Ready,
    /// It is stopping: send new work elsewhere.
    Draining,
    /// Its log took a failed write: it must be started anew.
    Failed,
    /// The disk is full, with so many bytes free.
    Full(u64),
}

impl Health {
    /// A word for programs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Failed => "failed",
            Self::Full(_) => "full",
        }
    }

    fn reason(&self) -> String {
        match self {
            Self::Ready => String::new(),
            Self::Draining => "the server is stopping".into(),
            Self::Failed => "the log took a failed write; start the server again".into(),
            Self::Full(free) => {
                format!("{free} bytes are free in the data directory, {READY_BYTES_MIN} are needed")
            }
        }
    }
}

/// Answers those who ask how the server is.
#[derive(Clone, Debug)]
pub struct Probes {
    /// The engine.
    pub engine: Engine,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Triggered when the server is to stop.
    pub stop: CancellationToken,
    /// Counts the connections.
    pub connections: Connections,
    /// What is counted.
    pub watch: Arc<Watch>,
}

impl Probes {
    /// Says how the server is.
    pub async fn health(&self) -> Health {
        let info = self.engine.info();
        if info.has_failed {
            return Health::Failed;
        }
        if info.is_stopping || self.stop.is_cancelled() {
            return Health::Draining;
        }
        let dir = self.data_dir.clone();
        let free = tokio::task::spawn_blocking(move || {
            let about = rustix::fs::statvfs(&dir).ok()?;
            Some(about.f_bavail.saturating_mul(about.f_frsize))
        });
        match free.await {
            Ok(Some(free)) if free < READY_BYTES_MIN => Health::Full(free),
            // A file system that does not say is not called full.
            _ => Health::Ready,
        }
    }

    /// The routes that anybody may call: `/healthz` says that the process lives, `/readyz` whether
    /// it takes work.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { json(StatusCode::OK, "alive", "") }))
            .route("/readyz", get(ready))
            .with_state(self)
    }

    /// The route `/metrics`, in the text format of OpenMetrics.
    pub fn metrics_route(self) -> Router {
        Router::new().route("/metrics", get(scrape)).with_state(self)
    }

    /// Puts the routes where they belong: health is for anybody, metrics are behind the guard
    /// unless they are public.
    pub fn mount(&self, options: &mut crate::Options, metrics: bool, public: bool) {
        options.metrics = Some(Arc::clone(self.watch.metrics()));
        let mut open = self.clone().routes();
        let mut beside = std::mem::take(&mut options.beside);
        if metrics {
            let route = self.clone().metrics_route();
            if public { open = open.merge(route) } else { beside = beside.merge(route) }
        }
        options.open = std::mem::take(&mut options.open).merge(open);
        options.beside = beside;
    }

    /// The metrics as they are now.
    pub fn scrape(&self) -> String {
        self.watch.refresh();
        self.watch.metrics().text(&self.engine.info(), self.connections.count())
    }
}

async fn ready(State(probes): State<Probes>) -> Response {
    let health = probes.health().await;
    let status = match health {
        Health::Ready => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    json(status, health.word(), &health.reason())
}

async fn scrape(State(probes): State<Probes>) -> Response {
    let kind = HeaderValue::from_static(CONTENT_TYPE);
    ([(header::CONTENT_TYPE, kind)], probes.scrape()).into_response()
}

fn json(status: StatusCode, word: &str, reason: &str) -> Response {
    let reason = if reason.is_empty() { String::new() } else { format!(",\"reason\":{reason:?}") };
    let body = format!("{{\"status\":{word:?}{reason}}}\n");
    let kind = HeaderValue::from_static("application/json");
    let fresh = HeaderValue::from_static("no-store");
    (status, [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, fresh)], body).into_response()
}
