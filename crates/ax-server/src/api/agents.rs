//! Agents.

use super::Api;
use crate::caller::{Act, Asker};
use crate::convert::{agent, cursor, limit};
use crate::{PAGE_AGENTS_MAX, PAGE_BYTES_MAX};
use ax_engine::{AgentSource, Error, manifest};
use ax_proto::v1;
use std::path::PathBuf;

impl Api {
    pub(crate) async fn apply_agent(
        self,
        asker: Asker,
        request: v1::ApplyAgentRequest,
    ) -> Result<v1::ApplyAgentResponse, Error> {
        let namespace = asker.namespace(Act::Administer, &request.namespace)?;
        let dir = (!request.dir.is_empty()).then(|| PathBuf::from(request.dir));
        let source = AgentSource { manifest: request.manifest, dir };
        let (view, unchanged) = self.engine().apply_agent(&namespace, source).await?;
        Ok(v1::ApplyAgentResponse { agent: Some(agent(view)), unchanged })
    }

    pub(crate) async fn get_agent(
        self,
        asker: Asker,
        request: v1::GetAgentRequest,
    ) -> Result<v1::GetAgentResponse, Error> {
        let namespace = asker.namespace(Act::Read, &request.namespace)?;
        let view = self.engine().agent(&namespace, &request.agent).await?;
        Ok(v1::GetAgentResponse { agent: Some(agent(view)) })
    }

    pub(crate) async fn list_agents(
        self,
        asker: Asker,
        request: v1::ListAgentsRequest,
    ) -> Result<v1::ListAgentsResponse, Error> {
        let namespace = asker.namespace(Act::Read, &request.namespace)?;
        let after = cursor::agent(&namespace, &request.cursor)?;
        let mut views = self.engine().agents(&namespace).await?;
        views.sort_by(|a, b| a.name.cmp(&b.name));
        let mut views = views.into_iter().filter(|view| Some(&view.name) > after.as_ref());
        let (most, mut bytes) = (limit(request.limit, PAGE_AGENTS_MAX), 0);
        let (mut agents, mut more): (Vec<v1::Agent>, _) = (Vec::new(), false);
        for view in views.by_ref() {
            bytes += view.manifest.len();
            if agents.len() == most || (bytes > PAGE_BYTES_MAX && !agents.is_empty()) {
                more = true;
                break;
            }
            agents.push(agent(view));
        }
        let last = agents.last().filter(|_| more);
        let cursor = last.map(|last| cursor::of_agent(&namespace, &last.name));
        Ok(v1::ListAgentsResponse { agents, cursor: cursor.unwrap_or_default() })
    }

    pub(crate) async fn delete_agent(
        self,
        asker: Asker,
        request: v1::DeleteAgentRequest,
    ) -> Result<v1::DeleteAgentResponse, Error> {
        let namespace = asker.namespace(Act::Administer, &request.namespace)?;
        self.engine().delete_agent(&namespace, &request.agent).await?;
        Ok(v1::DeleteAgentResponse {})
    }

    pub(crate) async fn validate_agent(
        self,
        _asker: Asker,
        request: v1::ValidateAgentRequest,
    ) -> Result<v1::ValidateAgentResponse, Error> {
        let problems = manifest::validate(&request.manifest).into_iter().map(|problem| {
            let message = match problem.place {
                Some(place) => {
                    let (line, column) = (place.line, place.column);
                    format!("line {line}, column {column}: {}", problem.message)
                }
                None => problem.message,
            };
            v1::Problem { path: problem.path, message, hint: problem.hint }
        });
        Ok(v1::ValidateAgentResponse { problems: problems.collect() })
    }
}
