//! The `Server` service.

use crate::listen::Server;
use ax_proto::v1;
use ax_proto::v1::server_server::Server as Service;
use tonic::{Request, Response, Status};

/// Says what the server is, and stops it.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) server: Server,
}

#[tonic::async_trait]
impl Service for Admin {
    async fn get_info(
        &self,
        _request: Request<v1::GetInfoRequest>,
    ) -> Result<Response<v1::GetInfoResponse>, Status> {
        let info = self.server.engine.info();
        Ok(Response::new(v1::GetInfoResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            data_dir: self.server.data_dir.display().to_string(),
            started_at_millis: self.server.started_at.millis,
            awake_sessions: info.awake_sessions,
            running_attempts: info.running_attempts,
        }))
    }

    async fn shutdown(
        &self,
        _request: Request<v1::ShutdownRequest>,
    ) -> Result<Response<v1::ShutdownResponse>, Status> {
        self.server.stop.cancel();
        Ok(Response::new(v1::ShutdownResponse {}))
    }
}
