//! What a gateway reads: requests of harnesses, streams of providers, answers that were recorded.

use super::answer;
use crate::driver::{Answer, Target};
use ax_gateway::fuzzing;

/// What streams and requests are made of.
const WORDS: &[&str] = &[
    "data: ",
    "event: ",
    "\n\n",
    "\r\n\r\n",
    "[DONE]",
    "\"type\":",
    "\"delta\":",
    "\"content\":",
    "\"messages\":",
    "\"input\":",
    "\"tools\":",
    "\"index\":",
    "\"pieces\":[",
    "null",
];

pub(super) fn targets() -> Vec<Target> {
    let target = |name, examples: &[&str], decode: fn(&[u8]) -> Answer| Target {
        name,
        examples: examples.iter().map(|text| text.as_bytes().to_vec()).collect(),
        words: WORDS,
        memory_factor: 2_000,
        decode: Box::new(decode),
    };
    vec![
        target("gateway_request", &REQUESTS, |bytes| answer(fuzzing::request(bytes))),
        target("gateway_recorded", &RECORDED, |bytes| match std::str::from_utf8(bytes) {
            Ok(text) => answer(fuzzing::recorded(text)),
            Err(error) => Answer::Refused(error.to_string()),
        }),
        target("gateway_stream", &STREAMS, |bytes| {
            for size in [1, 7, 4_096] {
                fuzzing::stream(bytes, size);
            }
            Answer::Accepted
        }),
    ]
}

const REQUESTS: [&str; 3] = [
    r#"{"model":"m","system":"s","tools":[{"name":"t"}],"messages":[
        {"role":"user","content":"a"}]}"#,
    r#"{"model":"m","instructions":null,"input":[{"role":"user","content":"a"}],"user":"u"}"#,
    r#"{"contents":[{"role":"user","parts":[{"text":"a"}]}],"systemInstruction":{"parts":[]}}"#,
];

const RECORDED: [&str; 2] = [
    r#"{"version":1,"status":200,"headers":[["content-type","text/event-stream"]],
        "body":"data: a\n\ndata: b\n\n","pieces":[9,9],"stop":"end_turn"}"#,
    r#"{"version":1,"status":400,"headers":[],"base64":true,"body":"//4A"}"#,
];

const STREAMS: [&str; 3] = [
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"content_block\":\
     {\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"n\",\"input\":{}}}\n\n\
     data: {\"type\":\"content_block_delta\",\"delta\":{\"partial_json\":\"{}\"}}\n\n\
     data: {\"type\":\"content_block_stop\"}\n\ndata: {\"type\":\"message_stop\"}\n\n",
    "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":\
     {\"name\":\"f\",\"arguments\":\"{}\"}}]}}]}\r\n\r\ndata: [DONE]\r\n\r\n",
    "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]},\
     \"finishReason\":\"STOP\"}],\
     \"usageMetadata\":{\"promptTokenCount\":1}}\n\n",
];
