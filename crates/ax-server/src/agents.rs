//! The `Agents` service.

use crate::convert::{agent, namespace};
use crate::status::status;
use ax_engine::{AgentSource, Engine, manifest};
use ax_proto::v1;
use ax_proto::v1::agents_server::Agents as Service;
use std::path::PathBuf;
use tonic::{Request, Response, Status};

/// Named, versioned manifests.
#[derive(Debug)]
pub(crate) struct Agents {
    pub(crate) engine: Engine,
}

#[tonic::async_trait]
impl Service for Agents {
    async fn apply_agent(
        &self,
        request: Request<v1::ApplyAgentRequest>,
    ) -> Result<Response<v1::ApplyAgentResponse>, Status> {
        let request = request.into_inner();
        let namespace = namespace(&request.namespace)?;
        let dir = (!request.dir.is_empty()).then(|| PathBuf::from(request.dir));
        let source = AgentSource { manifest: request.manifest, dir };
        let (view, unchanged) =
            self.engine.apply_agent(&namespace, source).await.map_err(status)?;
        let agent = Some(agent(view));
        Ok(Response::new(v1::ApplyAgentResponse { agent, unchanged }))
    }

    async fn get_agent(
        &self,
        request: Request<v1::GetAgentRequest>,
    ) -> Result<Response<v1::GetAgentResponse>, Status> {
        let request = request.into_inner();
        let namespace = namespace(&request.namespace)?;
        let view = self.engine.agent(&namespace, &request.agent).await.map_err(status)?;
        Ok(Response::new(v1::GetAgentResponse { agent: Some(agent(view)) }))
    }

    async fn list_agents(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let namespace = namespace(&request.into_inner().namespace)?;
        let views = self.engine.agents(&namespace).await.map_err(status)?;
        let agents = views.into_iter().map(agent).collect();
        Ok(Response::new(v1::ListAgentsResponse { agents }))
    }

    async fn delete_agent(
        &self,
        request: Request<v1::DeleteAgentRequest>,
    ) -> Result<Response<v1::DeleteAgentResponse>, Status> {
        let request = request.into_inner();
        let namespace = namespace(&request.namespace)?;
        self.engine.delete_agent(&namespace, &request.agent).await.map_err(status)?;
        Ok(Response::new(v1::DeleteAgentResponse {}))
    }

    async fn validate_agent(
        &self,
        request: Request<v1::ValidateAgentRequest>,
    ) -> Result<Response<v1::ValidateAgentResponse>, Status> {
        let problems = manifest::validate(&request.into_inner().manifest)
            .into_iter()
            .map(|problem| v1::Problem {
                path: problem.path,
                message: match problem.place {
                    Some(place) => {
                        let (line, column) = (place.line, place.column);
                        format!("line {line}, column {column}: {}", problem.message)
                    }
                    None => problem.message,
                },
                hint: problem.hint,
            })
            .collect();
        Ok(Response::new(v1::ValidateAgentResponse { problems }))
    }
}
