//! Every format, whole and streamed, parsed by hand.

#![expect(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{Reply, get, post, prompted, send, start};
use serde_json::{Value, json};

const CALL: &str = r#"<prompt>CALL shell {"command": "ls -l /tmp"}</prompt>"#;

fn arguments() -> Value {
    json!({"command": "ls -l /tmp"})
}

fn with(mut body: Value, key: &str, value: Value) -> Value {
    body[key] = value;
    body
}

/// Adds up a field of the events.
fn joined(reply: &Reply, pointer: &str) -> String {
    let events = reply.events();
    let texts = events.iter().filter_map(|(_, data)| data.pointer(pointer)?.as_str());
    texts.collect()
}

/// Whether all of these stand in the first list, in this order.
#[track_caller]
fn assert_names(reply: &Reply, names: &[&str]) {
    assert_eq!(reply.event_names(), names);
}

#[tokio::test]
async fn anthropic_answers_calls_and_reports() {
    let model = prompted().await;
    let ask = |messages: Value, stream: bool| {
        let limit = json!({"model": "claude-x", "max_tokens": 99, "stream": stream});
        with(limit, "messages", messages)
    };
    let user = json!([{"role": "user", "content": "hello there"}]);
    let whole = post(&model, "/v1/messages", &ask(user.clone(), false)).await.json();
    assert_eq!(whole["content"], json!([{"type": "text", "text": "echo: hello there"}]));
    assert_eq!(whole["stop_reason"], "end_turn");
    assert_eq!(whole["model"], "claude-x");
    let stream = post(&model, "/v1/messages?beta=true", &ask(user, true)).await;
    assert_names(
        &stream,
        &[
            "message_start",
            "ping",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ],
    );
    assert_eq!(joined(&stream, "/delta/text"), "echo: hello there");

    let reminder = json!({"type": "text", "text": "<reminder>be nice</reminder>"});
    let call = json!([{"role": "user", "content": [{"type": "text", "text": CALL}, reminder]}]);
    let whole = post(&model, "/v1/messages", &ask(call.clone(), false)).await.json();
    let used = &whole["content"][0];
    assert_eq!((&used["name"], &used["input"]), (&json!("shell"), &arguments()));
    assert_eq!(whole["stop_reason"], "tool_use");
    let stream = post(&model, "/v1/messages", &ask(call.clone(), true)).await;
    let json = joined(&stream, "/delta/partial_json");
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), arguments());

    let result = json!([call[0], {"role": "assistant", "content": [used]}, {"role": "user",
        "content": [{"type": "tool_result", "tool_use_id": used["id"], "content":
        [{"type": "text", "text": "total 0"}]}, {"type": "text", "text": "<reminder/>"}]}]);
    let whole = post(&model, "/v1/messages", &ask(result, false)).await.json();
    assert_eq!(whole["content"][0]["text"], "The tool answered: total 0");
    let count = post(&model, "/v1/messages/count_tokens", &json!({"messages": []})).await.json();
    assert!(count["input_tokens"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn chat_answers_calls_and_reports() {
    let model = prompted().await;
    let ask = |messages: Value, stream: bool| {
        json!({"model": "gpt-x", "messages": messages, "stream": stream,
            "stream_options": {"include_usage": true}})
    };
    let path = "/v1/chat/completions";
    let user = json!([{"role": "system", "content": "be"}, {"role": "user", "content": "hi"}]);
    let whole = post(&model, path, &ask(user.clone(), false)).await.json();
    assert_eq!(whole["choices"][0]["message"]["content"], "echo: hi");
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    let stream = post(&model, path, &ask(user, true)).await;
    assert_eq!(joined(&stream, "/choices/0/delta/content"), "echo: hi");
    let events = stream.events();
    assert_eq!(events.last().unwrap().1, "[DONE]");
    assert_eq!(
        events[events.len() - 2].1["usage"],
        whole["usage"],
        "the hash differs, not the size"
    );

    let call = json!([{"role": "user", "content": [{"type": "text", "text": CALL}]}]);
    let whole = post(&model, path, &ask(call.clone(), false)).await.json();
    let made = &whole["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(made["function"]["name"], "shell");
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
    let stream = post(&model, path, &ask(call.clone(), true)).await;
    let json = joined(&stream, "/choices/0/delta/tool_calls/0/function/arguments");
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), arguments());

    let result = json!([call[0], {"role": "assistant", "tool_calls": [made]},
        {"role": "tool", "tool_call_id": made["id"], "content": "total 0"}]);
    let whole = post(&model, path, &ask(result, false)).await.json();
    assert_eq!(whole["choices"][0]["message"]["content"], "The tool answered: total 0");
}

#[tokio::test]
async fn responses_answers_calls_and_goes_on() {
    let model = prompted().await;
    let ask =
        |input: Value, stream: bool| json!({"model": "gpt-x", "input": input, "stream": stream});
    let whole = post(&model, "/v1/responses", &ask(json!("hi"), false)).await.json();
    assert_eq!(whole["output"][0]["content"][0]["text"], "echo: hi");
    assert_eq!(whole["status"], "completed");
    let stream = post(&model, "/v1/responses", &ask(json!("hi"), true)).await;
    assert_names(
        &stream,
        &[
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ],
    );
    let numbers = stream.events().into_iter().map(|(_, data)| data["sequence_number"].as_u64());
    assert!(numbers.enumerate().all(|(index, number)| number == Some(index as u64)));

    let input = json!([{"role": "user", "content": [{"type": "input_text", "text": CALL}]}]);
    let stream = post(&model, "/v1/responses", &ask(input.clone(), true)).await;
    let last = stream.events().pop().unwrap().1;
    let call = last["response"]["output"][0].clone();
    assert_eq!(
        (call["type"].as_str(), call["name"].as_str()),
        (Some("function_call"), Some("shell"))
    );
    let text = call["arguments"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), arguments());

    let output =
        json!({"type": "function_call_output", "call_id": call["call_id"], "output": "ok"});
    let stateless = json!([input[0], call, output]);
    let whole = post(&model, "/v1/responses", &ask(stateless, false)).await.json();
    assert_eq!(whole["output"][0]["content"][0]["text"], "The tool answered: ok");
    let mut stateful = ask(json!([output]), false);
    stateful["previous_response_id"] = last["response"]["id"].clone();
    let whole = post(&model, "/v1/responses", &stateful).await.json();
    assert_eq!(whole["output"][0]["content"][0]["text"], "The tool answered: ok");
    assert_eq!(model.ledger().last().unwrap().turn, 1, "the stored conversation counts");

    let mut namespaced = ask(json!(r#"CALL mcp__files__list {}"#), false);
    namespaced["tools"] = json!([{"type": "namespace", "name": "mcp__files", "tools": []}]);
    let whole_call = post(&model, "/v1/responses", &namespaced).await.json();
    let called = &whole_call["output"][0];
    assert_eq!((&called["namespace"], &called["name"]), (&json!("mcp__files"), &json!("list")));

    let path = format!("/v1/responses/{}", whole["id"].as_str().unwrap());
    assert_eq!(get(&model, &path).await.json(), whole);
    let resumed = get(&model, &format!("{path}?stream=true&starting_after=4")).await;
    assert_eq!(resumed.events()[0].1["sequence_number"], 5);
}

#[tokio::test]
async fn gemini_answers_calls_and_reports() {
    let model = prompted().await;
    let base = "/v1beta/models/gemini-x";
    let user = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
    let whole = post(&model, &format!("{base}:generateContent"), &user).await.json();
    assert_eq!(whole["candidates"][0]["content"]["parts"], json!([{"text": "echo: hi"}]));
    assert_eq!(whole["candidates"][0]["finishReason"], "STOP");
    assert_eq!(whole["modelVersion"], "gemini-x");
    let long = json!({"contents": [{"parts": [{"text": "a longer text than one chunk holds"}]}]});
    let stream = post(&model, &format!("{base}:streamGenerateContent?alt=sse"), &long).await;
    let text = joined(&stream, "/candidates/0/content/parts/0/text");
    assert_eq!(text, "echo: a longer text than one chunk holds");
    let list = post(&model, &format!("{base}:streamGenerateContent"), &long).await.json();
    assert_eq!(list.as_array().unwrap().len(), stream.events().len());

    let call = json!({"contents": [{"role": "user", "parts": [{"text": CALL}]}]});
    let stream = post(&model, &format!("{base}:streamGenerateContent?alt=sse"), &call).await;
    let part = stream.events()[0].1["candidates"][0]["content"]["parts"][0].clone();
    assert_eq!(part["functionCall"]["args"], arguments());
    assert!(part["thoughtSignature"].is_string());
    // Some clients say that results are the model's.
    for role in ["user", "model"] {
        let result = json!({"contents": [call["contents"][0], {"role": "model", "parts": [part]},
            {"role": role, "parts": [{"functionResponse": {"name": "shell",
                "response": {"result": "total 0"}}}]}]});
        let whole = post(&model, &format!("{base}:generateContent"), &result).await.json();
        let text = &whole["candidates"][0]["content"]["parts"][0]["text"];
        assert_eq!(text, "The tool answered: total 0");
    }
    let count = post(&model, &format!("{base}:countTokens"), &user).await.json();
    assert!(count["totalTokens"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn interactions_are_created_resumed_canceled_and_deleted() {
    let turn = r#"{"when": {"text": "slow"}, "text": "a text of several chunks",
        "pace": {"chunk_chars": 4, "chunk_delay_millis": 600000}}"#;
    let model = start(&format!(r#"{{"version": 1, "turns": [{turn}]}}"#)).await;
    let path = "/v1beta/interactions";
    let created = post(&model, path, &json!({"model": "g", "input": CALL})).await.json();
    assert_eq!(created["status"], "requires_action");
    assert_eq!(created["steps"][0]["arguments"], arguments());
    let result = json!({"type": "function_result", "call_id": created["steps"][0]["id"],
        "name": "shell", "result": {"files": 0}});
    let next = json!({"model": "g", "input": [result], "stream": true,
        "previous_interaction_id": created["id"]});
    let stream = post(&model, path, &next).await;
    assert_eq!(joined(&stream, "/delta/text"), r#"The tool answered: {"files":0}"#);
    let names = ["interaction.created", "interaction.status_update", "step.start", "step.delta"];
    assert_eq!(stream.event_names()[..4], names);
    assert_eq!(stream.event_names()[4..], ["step.stop", "interaction.completed", "done"]);

    let id = stream.events()[0].1["interaction"]["id"].as_str().unwrap().to_owned();
    let resumed = get(&model, &format!("{path}/{id}?stream=true&last_event_id=e-5")).await;
    assert_eq!(resumed.events(), stream.events()[5..]);
    assert_eq!(get(&model, &format!("{path}/{id}")).await.json()["status"], "completed");

    let slow = json!({"agent": "deep", "input": "slow", "background": true});
    let begun = post(&model, path, &slow).await.json();
    assert_eq!((&begun["status"], &begun["agent"]), (&json!("in_progress"), &json!("deep")));
    let id = begun["id"].as_str().unwrap();
    let cancel = format!("{path}/{id}/cancel");
    let canceled = post(&model, &cancel, &json!({})).await.json();
    assert_eq!(canceled["status"], "cancelled");
    let ended = get(&model, &format!("{path}/{id}?stream=true")).await;
    assert!(ended.whole);
    let last = ended.events().pop().unwrap().1;
    assert_eq!(
        (&last["event_type"], &last["interaction"]["status"]),
        (&json!("interaction.completed"), &json!("cancelled"))
    );
    let deleted = send(&model, &format!("DELETE {path}/{id} HTTP/1.1"), b"").await;
    assert_eq!(deleted.status, 200);
    assert_eq!(get(&model, &format!("{path}/{id}")).await.status, 404);
}

#[tokio::test]
async fn a_background_answer_goes_on_without_its_client() {
    let model = start(r#"{"version": 1, "defaults": {"chunk_delay_millis": 5}}"#).await;
    let path = "/v1beta/interactions";
    let ask = json!({"model": "g", "input": "think", "background": true});
    let id = post(&model, path, &ask).await.json()["id"].as_str().unwrap().to_owned();
    let mut whole = get(&model, &format!("{path}/{id}")).await.json();
    while whole["status"] == "in_progress" {
        whole = get(&model, &format!("{path}/{id}")).await.json();
    }
    assert_eq!(whole["steps"][0]["content"][0]["text"], "echo: think");
    let paid = model.ledger().iter().filter(|entry| entry.is_paid()).count();
    assert_eq!(paid, 1, "asking again costs nothing");
}

#[tokio::test]
async fn heads_and_lists_of_models_are_answered() {
    let model = prompted().await;
    for path in ["/", "/v1/messages", "/anything"] {
        let reply = send(&model, &format!("HEAD {path} HTTP/1.1"), b"").await;
        assert_eq!(reply.status, 200);
    }
    assert_eq!(get(&model, "/v1/models").await.json()["object"], "list");
    assert!(get(&model, "/v1beta/models").await.json()["models"].is_array());
    let head = "GET /v1/models HTTP/1.1\r\nanthropic-version: 2023-06-01";
    assert_eq!(send(&model, head, b"").await.json()["has_more"], false);
    assert_eq!(get(&model, "/v1/models/gpt-x").await.json()["id"], "gpt-x");
    assert_eq!(post(&model, "/v1/embeddings", &json!({})).await.status, 404);
}

#[tokio::test]
async fn bodies_come_chunked_and_compressed() {
    use std::io::Write as _;
    let model = prompted().await;
    let body = json!({"messages": [{"role": "user", "content": "hi"}]}).to_string();
    let head = "POST /v1/chat/completions HTTP/1.1";
    let (first, rest) = body.split_at(10);
    let chunked = format!("a\r\n{first}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n", rest.len());
    let chunked_head = format!("{head}\r\ntransfer-encoding: chunked");
    let plain = send(&model, head, body.as_bytes()).await.json();
    let same = send(&model, &chunked_head, chunked.as_bytes()).await.json();
    assert_eq!(plain["choices"], same["choices"]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(body.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let same = send(&model, &format!("{head}\r\ncontent-encoding: gzip"), &gzip).await.json();
    assert_eq!(plain["choices"], same["choices"]);
    let hashes: Vec<_> = model.ledger().into_iter().map(|entry| entry.request_hash).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "one request, however it came");
    for (encoding, body, status) in
        [("gzip", &b"none"[..], 400), ("br", b"{}", 415), ("identity", b"{", 400)]
    {
        let reply = send(&model, &format!("{head}\r\ncontent-encoding: {encoding}"), body).await;
        assert_eq!(reply.status, status);
        assert!(reply.json()["error"]["message"].is_string());
    }
}
