//! The row that a session has in lists while it sleeps.

use super::DecodeError;
use super::value::{counted_option, usage, usage_message};
use crate::{SessionView, Status, WaitState};
use ax_core::id::{AttemptId, ExecId, SessionId};
use ax_core::session::AgentRef;
use ax_core::time::Timestamp;
use ax_log::Head;
use ax_proto::store::v1::RowData;
use bytes::Bytes;
use prost::Message;

/// The longest title, reason or wait in a row, in bytes; longer ones are cut.
const TEXT_BYTES_MAX: usize = 512;
/// The most waits in a row.
const WAITS_MAX: usize = 8;

/// Encodes what a row holds of a session beside its state and times. Open questions are left out,
/// long texts are cut.
pub fn encode_row(view: &SessionView) -> Bytes {
    let status = &view.status;
    let data = RowData {
        name: view.name.clone(),
        title: cut(&view.title),
        agent: view.agent.name.clone(),
        agent_version: view.agent.version,
        sandbox: view.sandbox.clone(),
        created_at_millis: view.created_at.millis,
        waiting: status.waiting.iter().take(WAITS_MAX).map(|wait| cut(wait)).collect(),
        outcome: status.outcome.clone(),
        reason: cut(&status.reason),
        execution: status.exec.map_or(0, |exec| exec.0),
        attempt: status.attempt.map_or(0, |attempt| attempt.0),
        usage: usage_message(&view.usage),
        queued: status.queued,
    };
    data.encode_to_vec().into()
}

/// Reads what the log keeps of a session.
///
/// # Errors
///
/// Says which field is not what [`encode_row`] writes.
pub fn decode_row(id: SessionId, head: &Head) -> Result<SessionView, DecodeError> {
    let Head { last, row, parent, .. } = head;
    let data = RowData::decode(&*row.data)?;
    let number = row.state;
    let state = WaitState::from_number(number)
        .ok_or_else(|| DecodeError::Unknown { field: "row.state", number: number.into() })?;
    let status = Status {
        state,
        waiting: data.waiting,
        due_at: row.due_millis.map(Timestamp::from_millis),
        exec: counted_option("row_data.execution", data.execution)?.map(ExecId),
        attempt: counted_option("row_data.attempt", data.attempt)?.map(AttemptId),
        asks: Vec::new(),
        queued: data.queued,
        outcome: data.outcome,
        reason: data.reason,
    };
    Ok(SessionView {
        id,
        name: data.name,
        title: data.title,
        agent: AgentRef { name: data.agent, version: data.agent_version },
        sandbox: data.sandbox,
        status,
        last: *last,
        parent: *parent,
        created_at: Timestamp::from_millis(data.created_at_millis),
        updated_at: Timestamp::from_millis(row.updated_millis),
        usage: usage(data.usage),
    })
}

/// Cuts a text at a character boundary, and shows that it was cut.
fn cut(text: &str) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text.to_owned();
    }
    let mark = "…";
    let end = text.floor_char_boundary(TEXT_BYTES_MAX - mark.len());
    format!("{}{mark}", &text[..end])
}
