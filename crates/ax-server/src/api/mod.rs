//! The requests themselves, whatever protocol they came by: wire types in, wire types out.

mod agents;
mod blobs;
mod follow;
mod records;
mod sessions;
mod submit;
mod usage;

pub(crate) use blobs::chunks;
pub(crate) use follow::Followed;

use crate::caller::{Act, Asker};
use crate::serve::Server;
use ax_engine::Error;
use ax_proto::v1;
use futures::stream::BoxStream;
use std::sync::Arc;
use std::time::Duration;

/// A stream that may break off.
pub(crate) type Stream<T> = BoxStream<'static, Result<T, Error>>;

/// Carries requests out. Clones share one engine.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    server: Arc<Server>,
}

impl Api {
    pub(crate) const fn new(server: Arc<Server>) -> Self {
        Self { server }
    }

    fn engine(&self) -> &ax_engine::Engine {
        &self.server.engine
    }

    /// How long the next piece of a request's body may take.
    pub(crate) fn body_pause_max(&self) -> Duration {
        self.server.options.body_pause_max
    }

    pub(crate) async fn get_info(
        self,
        asker: Asker,
        _request: v1::GetInfoRequest,
    ) -> Result<v1::GetInfoResponse, Error> {
        asker.server(Act::Read)?;
        let info = self.engine().info();
        Ok(v1::GetInfoResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            data_dir: self.server.data_dir.display().to_string(),
            started_at_millis: self.server.started_at.millis,
            awake_sessions: info.awake_sessions,
            running_attempts: info.running_attempts,
        })
    }

    pub(crate) async fn shutdown(
        self,
        asker: Asker,
        _request: v1::ShutdownRequest,
    ) -> Result<v1::ShutdownResponse, Error> {
        asker.server(Act::Administer)?;
        self.server.stop.cancel();
        Ok(v1::ShutdownResponse {})
    }
}
