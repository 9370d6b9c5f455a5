//! Tools for a harness that is a part of the runtime, and needs no port for them.

use super::Answer;
use super::calls::Calls;
use super::server::{Asked, Server};
use rmcp::ErrorData;
use rmcp::model::{CallToolResult, JsonObject, PaginatedRequestParams, Tool};
use serde_json::Value;
use std::sync::Arc;

/// The most pages of a server's tools that are read.
const PAGES_MAX: usize = 64;
/// The most tools of a server that are listed.
const TOOLS_MAX: usize = 1_024;

/// All tools of an attempt. Calls through it are journaled like those of other harnesses.
#[derive(Clone, Debug)]
pub struct Toolbox {
    servers: Vec<Arc<Server>>,
    calls: Arc<Calls>,
}

/// A tool that may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// The tool server, as the manifest names it.
    pub server: String,
    /// The tool, as its server names it.
    pub name: String,
    /// What it does.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub input: Value,
}

/// What a tool returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// In words.
    pub text: String,
    /// Whether it failed.
    pub error: bool,
}

impl Toolbox {
    pub(super) const fn new(servers: Vec<Arc<Server>>, calls: Arc<Calls>) -> Self {
        Self { servers, calls }
    }

    /// Lists what may be called, in the order of the manifest and of each server.
    ///
    /// # Errors
    ///
    /// Says which tool server cannot be used, and why.
    pub async fn offered(&self) -> Result<Vec<Offered>, String> {
        let mut offered = Vec::new();
        for server in &self.servers {
            let tools = listed(server).await.map_err(|error| {
                format!("the tool server {} cannot be used: {}", server.name(), error.message)
            })?;
            offered.extend(tools.into_iter().map(|tool| Offered {
                server: server.name().to_owned(),
                name: tool.name.into_owned(),
                description: tool.description.unwrap_or_default().into_owned(),
                input: Value::Object((*tool.input_schema).clone()),
            }));
        }
        Ok(offered)
    }

    /// Calls a tool, or returns what an earlier attempt recorded of this call. Dropping it gives up
    /// waiting, not the call.
    ///
    /// # Errors
    ///
    /// Fails if the attempt cannot go on.
    pub async fn call(
        &self,
        server: &str,
        tool: &str,
        arguments: JsonObject,
    ) -> Result<Said, String> {
        let Some(server) = self.servers.iter().find(|one| one.name() == server) else {
            return Ok(said(&super::error("there is no such tool server")));
        };
        let taken = match self.calls.call(server, Asked::plain(tool, arguments)).await {
            Ok(taken) => taken,
            Err(denied) => return Ok(said(&super::error(&denied))),
        };
        let answer = taken.outcome().wait().await?;
        taken.whole();
        Ok(match answer {
            Answer::Result(result) => said(&result),
            // Nobody here can be asked.
            Answer::Wants(_) => said(&super::error("the tool wants to know more than it was told")),
            Answer::Error(error) => said(&super::error(&error.message)),
        })
    }
}

/// Lists all pages of a server's tools.
async fn listed(server: &Server) -> Result<Vec<Tool>, ErrorData> {
    let (mut tools, mut page) = (Vec::new(), None);
    for _ in 0..PAGES_MAX {
        let listed = server.tools(page).await?;
        tools.extend(listed.tools);
        page = match listed.next_cursor {
            Some(cursor) if tools.len() < TOOLS_MAX => {
                Some(PaginatedRequestParams::default().with_cursor(Some(cursor)))
            }
            _ => break,
        };
    }
    Ok(tools)
}

/// Puts a result into words: its texts, and what else there is as JSON.
fn said(result: &CallToolResult) -> Said {
    let error = result.is_error == Some(true);
    let blocks = result.content.iter().map(|block| {
        let value = serde_json::to_value(block).unwrap_or_default();
        value["text"].as_str().map_or_else(|| value.to_string(), str::to_owned)
    });
    let mut text = blocks.collect::<Vec<_>>().join("\n");
    if let (true, Some(structured)) = (text.is_empty(), &result.structured_content) {
        text = structured.to_string();
    }
    Said { text, error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_result_is_put_into_words() {
        for (result, text, error) in [
            (
                json!({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}),
                "a\nb",
                false,
            ),
            (json!({"content": [], "structuredContent": {"boxes": 7}}), r#"{"boxes":7}"#, false),
            (json!({"content": [{"type": "text", "text": "no"}], "isError": true}), "no", true),
        ] {
            let result: CallToolResult = serde_json::from_value(result).unwrap();
            assert_eq!(said(&result), Said { text: text.into(), error });
        }
    }
}
