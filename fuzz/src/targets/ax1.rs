//! What comes over the AX wire: requests of its clients, responses of its harness servers.

use super::answer;
use crate::driver::{Answer, Target};
use ax_harness::ax1::{Received, received};
use ax_proto::ax1::{self, content, harness_response};
use prost::Message;

/// Beginnings of fields, and lengths that lie.
const WIRE: &[&str] = &["\u{8}", "\u{a}", "\u{12}", "\u{1a}", "\u{22}", "\u{7f}", "\u{0}", "ask_1"];

pub(super) fn targets() -> Vec<Target> {
    let target = |name, examples, decode: fn(&[u8]) -> Answer| Target {
        name,
        examples,
        words: WIRE,
        memory_factor: 2_000,
        decode: Box::new(decode),
    };
    vec![
        target("ax1_request", requests(), |bytes| answer(ax_server::fuzzing::ax1(bytes))),
        target("ax1_response", responses(), response),
    ]
}

fn message(role: &str, content: content::Type) -> ax1::Message {
    let content = Some(ax1::Content { r#type: Some(content) });
    ax1::Message { role: role.into(), content, internal_only: false }
}

fn messages(role: &str) -> Vec<ax1::Message> {
    let text = content::Type::Text(ax1::TextContent { text: "hello".into() });
    let source = Some(ax1::image_content::Source::Data(vec![1, 2, 3]));
    let image = content::Type::Image(ax1::ImageContent { source, ..Default::default() });
    let call = content::Type::ToolCall(ax1::ToolCallContent::default());
    let result = content::Type::ToolResult(ax1::ToolResultContent::default());
    [text, image, call, result].map(|content| message(role, content)).to_vec()
}

fn requests() -> Vec<Vec<u8>> {
    let exec = ax1::ExecRequest {
        conversation_id: "talk".into(),
        inputs: messages("user"),
        last_step: 3,
        harness_id: "letters".into(),
        ..Default::default()
    };
    let approval = ax1::ApprovalDecision { approved: true };
    let decision = Some(ax1::confirmation_content::Decision::Approval(approval));
    let confirmation =
        ax1::ConfirmationContent { id: "ask_1".into(), decision, ..Default::default() };
    let inputs = vec![message("user", content::Type::Confirmation(confirmation))];
    let answered =
        ax1::ExecRequest { conversation_id: "talk".into(), inputs, ..Default::default() };
    let file = ax1::ReadFileRequest { conversation_id: "talk".into(), path: "a/b.txt".into() };
    let fork = ax1::ForkConversationRequest {
        src_conversation_id: "talk:7".into(),
        dest_conversation_id: "other".into(),
        ..Default::default()
    };
    vec![exec.encode_to_vec(), answered.encode_to_vec(), file.encode_to_vec(), fork.encode_to_vec()]
}

fn responses() -> Vec<Vec<u8>> {
    let outputs = ax1::HarnessOutputs { messages: messages("assistant") };
    let all = [
        harness_response::Type::Outputs(outputs),
        harness_response::Type::End(ax1::HarnessEnd::default()),
    ];
    let response =
        |r#type| ax1::HarnessResponse { conversation_id: "talk".into(), r#type: Some(r#type) };
    all.map(|one| response(one).encode_to_vec()).to_vec()
}

/// What a harness says: every part that is taken can be sent again, and is taken again.
fn response(bytes: &[u8]) -> Answer {
    let response = match ax1::HarnessResponse::decode(bytes) {
        Ok(response) => response,
        Err(error) => return Answer::Refused(error.to_string()),
    };
    let Some(harness_response::Type::Outputs(outputs)) = response.r#type else {
        return Answer::Accepted;
    };
    for content in outputs.messages.into_iter().filter_map(|message| message.content) {
        let Received::Part(part) = received(content) else { continue };
        let (media_type, bytes) = match ax_harness::ax1::binary(&part) {
            Some(binary) => binary,
            None => match &part.body {
                ax_core::session::Body::Text(text) => {
                    (part.media_type.clone(), text.clone().into_bytes())
                }
                ax_core::session::Body::Blob(_) => {
                    return Answer::Wrong("a part in a store that it has no access to".into());
                }
            },
        };
        let again = ax_harness::ax1::sent(part.kind, &media_type, &part.name, bytes);
        if !matches!(received(again), Received::Part(_)) {
            return Answer::Wrong(format!("{part:?} cannot be sent again"));
        }
    }
    Answer::Accepted
}
