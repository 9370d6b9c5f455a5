//! What a call came to, as it is told to a harness and as it is recorded.

use super::error;
use ax_core::session::Failure;
use rmcp::ErrorData;
use rmcp::model::{
    CallToolResponse, CallToolResult, ContentBlock, InputRequiredResult, ResultType,
};
use serde_json::{Value, json};

/// What a tool server answered to a call, or what a person said became of it.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// What the tool returned.
    Result(Box<CallToolResult>),
    /// The tool wants to know something first.
    Wants(Box<InputRequiredResult>),
    /// The server answered with an error of the protocol.
    Error(ErrorData),
}

impl Answer {
    /// An error of the tool, in words.
    pub(super) fn failed(message: &str) -> Self {
        Self::Result(Box::new(error(message)))
    }

    pub(super) fn of(response: CallToolResponse) -> Self {
        match response {
            CallToolResponse::Complete(result) => Self::Result(Box::new(result)),
            CallToolResponse::InputRequired(wants) => Self::Wants(Box::new(wants)),
            _ => Self::failed("the tool server answered with what is no result of a tool"),
        }
    }

    /// What a harness is told.
    pub(super) fn tell(self) -> Result<CallToolResponse, ErrorData> {
        match self {
            Self::Result(mut result) => {
                // A server of an earlier version does not say so.
                result.result_type = Some(ResultType::COMPLETE);
                Ok((*result).into())
            }
            Self::Wants(wants) => Ok(CallToolResponse::InputRequired(*wants)),
            Self::Error(error) => Err(error),
        }
    }

    /// Its form in the log.
    pub(super) fn store(&self) -> Result<String, serde_json::Error> {
        match self {
            Self::Result(result) => serde_json::to_string(result),
            Self::Wants(wants) => serde_json::to_string(wants),
            Self::Error(error) => serde_json::to_string(&json!({"error": error})),
        }
    }

    /// Reads what is recorded of a call: what a tool server answered, or what a person said became
    /// of it.
    pub(super) fn read(result: &Result<String, Failure>) -> Self {
        let stored = match result {
            Ok(stored) => stored,
            Err(failure) => return Self::failed(&failure.message),
        };
        let value = serde_json::from_str::<Value>(stored);
        let value = value.unwrap_or_else(|_| Value::from(stored.as_str()));
        let word = value.get("resultType").and_then(Value::as_str);
        if word == Some(ResultType::INPUT_REQUIRED.as_str())
            && let Ok(wants) = serde_json::from_value(value.clone())
        {
            return Self::Wants(Box::new(wants));
        }
        if let Some(error) = value.get("error")
            && let Ok(error) = serde_json::from_value(error.clone())
        {
            return Self::Error(error);
        }
        if let Ok(result) = serde_json::from_value::<CallToolResult>(value.clone()) {
            return Self::Result(Box::new(result));
        }
        let text = match value {
            Value::Null => "[it was carried out; what it returned is not known]".to_owned(),
            Value::String(text) if text.is_empty() => {
                "[it was carried out; what it returned is not known]".to_owned()
            }
            Value::String(text) => text,
            other => other.to_string(),
        };
        Self::Result(Box::new(CallToolResult::success(vec![ContentBlock::text(text)])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_answered_is_read_as_it_was() {
        for stored in [
            json!({"resultType": "complete", "content": [{"type": "text", "text": "a"}],
                "structuredContent": {"a": [1, null]}, "isError": false}),
            json!({"resultType": "input_required", "requestState": "s", "inputRequests":
                {"a": {"method": "roots/list"}}}),
            json!({"error": {"code": -32602, "message": "no such tool", "data": {"a": 1}}}),
        ] {
            let text = stored.to_string();
            let answer = Answer::read(&Ok(text));
            let again: Value = serde_json::from_str(&answer.store().unwrap()).unwrap();
            assert_eq!(again, stored);
        }
    }
}
