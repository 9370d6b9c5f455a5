//! What a conversation of many calls leaves in the log.

use crate::{WIRES, World};
use serde_json::{Value, json};

#[tokio::test]
async fn a_conversation_is_stored_once() {
    for (provider, path, _, _) in WIRES.into_iter().take(4) {
        let world = World::new(r#"{"version": 1}"#).await;
        let attempt = world.attempt().await;
        let mut messages = Vec::new();
        for turn in 0..6 {
            let text = format!("turn {turn} {}", "x".repeat(1_000));
            let body = talk(provider, path, &mut messages, &text);
            let (status, said) = attempt.ask(provider, path, &body).await;
            assert_eq!(status, 200, "{said}");
            messages.push(answer(path, &said));
        }
        let log = world.log.lock().unwrap();
        let stored: usize = log.begun.iter().map(|(.., request)| request.len()).sum();
        assert!(stored < 6 * 1_400, "{path}: {stored} bytes");
        assert_eq!(log.begun.len(), 6, "{path}");
        for (.., prefix, request) in log.begun.iter().skip(1) {
            assert_eq!(prefix.parts.len(), 1, "{path}: {request}");
        }
    }
}

/// A conversation of 200 000 tokens, four bytes each, goes on for a hundred calls (P10).
#[tokio::test]
async fn a_hundred_calls_on_a_long_context_are_kept_once() {
    const CALL_COUNT: usize = 100;
    const CONTEXT_BYTES: usize = 800_000;
    let script = r#"{"version": 1, "defaults": {"chunk_chars": 64},
        "turns": [{"text": "a middling answer {{prompt}}"}]}"#;
    let world = World::new(script).await;
    let attempt = world.attempt().await;
    let mut messages = vec![
        json!({"role": "user", "content": "c".repeat(CONTEXT_BYTES)}),
        json!({"role": "assistant", "content": "read"}),
    ];
    let mut content = CONTEXT_BYTES;
    for call in 0..CALL_COUNT {
        let text = format!("call {call} {}", "y".repeat(600));
        content += text.len();
        let body = talk("anthropic", "/v1/messages", &mut messages, &text);
        let (status, said) = attempt.text(&body).await;
        assert_eq!(status, 200, "{said}");
        content += said.len();
        messages.push(answer("/v1/messages", &said));
    }
    let log = world.log.lock().unwrap();
    let requests = log.begun.iter();
    let requests: usize = requests
        .map(|(key, _, prefix, request)| {
            key.as_str().len() + request.len() + 32 * (prefix.parts.len() + 2)
        })
        .sum();
    let results = log.journal.iter().map(|recorded| recorded.result.as_ref().unwrap().len());
    let kept = requests + results.sum::<usize>();
    assert!(kept * 10 <= content * 11, "{kept} bytes are kept of {content}");
}

/// Makes the next request of a conversation.
fn talk(provider: &str, path: &str, messages: &mut Vec<Value>, text: &str) -> Value {
    let message = match provider {
        "gemini" => json!({"role": "user", "parts": [{"text": text}]}),
        _ => json!({"role": "user", "content": text}),
    };
    messages.push(message);
    match (provider, path.ends_with("responses")) {
        ("gemini", _) => json!({"contents": messages}),
        (_, true) => json!({"model": "m", "stream": true, "input": messages}),
        _ => json!({"model": "m", "max_tokens": 9, "stream": true, "messages": messages}),
    }
}

/// Puts an answer together as a client does.
fn answer(path: &str, said: &str) -> Value {
    let events = said.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = events.filter_map(|data| serde_json::from_str(data).ok()).collect();
    let text = |pointer: &str| -> String {
        events.iter().filter_map(|event| event.pointer(pointer)?.as_str()).collect()
    };
    if path.contains("messages") {
        let text = text("/delta/text");
        json!({"role": "assistant", "content": [{"type": "text", "text": text}]})
    } else if path.contains("chat") {
        json!({"role": "assistant", "content": text("/choices/0/delta/content")})
    } else if path.contains("responses") {
        events.last().unwrap()["response"]["output"][0].clone()
    } else {
        let parts = events.iter().filter_map(|event| event.pointer("/candidates/0/content/parts"));
        let parts: Vec<Value> = parts.filter_map(Value::as_array).flatten().cloned().collect();
        json!({"role": "model", "parts": parts})
    }
}
