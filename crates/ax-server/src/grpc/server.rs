//! The `Server` service.

use super::{Answered, call};
use crate::api::Api;
use ax_proto::v1;
use ax_proto::v1::server_server::Server as Service;
use tonic::Request;

/// Says what the server is, and stops it.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) api: Api,
}

#[tonic::async_trait]
impl Service for Admin {
    async fn get_info(
        &self,
        request: Request<v1::GetInfoRequest>,
    ) -> Answered<v1::GetInfoResponse> {
        call(&self.api, request, Api::get_info).await
    }

    async fn shutdown(
        &self,
        request: Request<v1::ShutdownRequest>,
    ) -> Answered<v1::ShutdownResponse> {
        call(&self.api, request, Api::shutdown).await
    }
}
