//! The `Agents` service.

use super::{Answered, call};
use crate::api::Api;
use ax_proto::v1;
use ax_proto::v1::agents_server::Agents as Service;
use tonic::Request;

/// Named, versioned manifests.
#[derive(Debug)]
pub(crate) struct Agents {
    pub(crate) api: Api,
}

#[tonic::async_trait]
impl Service for Agents {
    async fn apply_agent(
        &self,
        request: Request<v1::ApplyAgentRequest>,
    ) -> Answered<v1::ApplyAgentResponse> {
        call(&self.api, request, Api::apply_agent).await
    }

    async fn get_agent(
        &self,
        request: Request<v1::GetAgentRequest>,
    ) -> Answered<v1::GetAgentResponse> {
        call(&self.api, request, Api::get_agent).await
    }

    async fn list_agents(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Answered<v1::ListAgentsResponse> {
        call(&self.api, request, Api::list_agents).await
    }

    async fn delete_agent(
        &self,
        request: Request<v1::DeleteAgentRequest>,
    ) -> Answered<v1::DeleteAgentResponse> {
        call(&self.api, request, Api::delete_agent).await
    }

    async fn validate_agent(
        &self,
        request: Request<v1::ValidateAgentRequest>,
    ) -> Answered<v1::ValidateAgentResponse> {
        call(&self.api, request, Api::validate_agent).await
    }
}
