//! Harnesses and tool servers that mean no good, or are broken: each is denied or bounded, what it
//! did is recorded, and nobody else notices.

use super::World;
use rmcp::model::{CallToolRequestParams, RequestMetaObject};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(60);

/// A world whose tool server misbehaves; its tools may be called as often as one likes.
fn odd() -> World {
    let mut world = World::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/odd.py");
    world.section["tools"][0]["command"] = json!(["python3", script]);
    world.section["tools"][0]["tools"] = json!([{"tool": "*", "effect": "idempotent"}]);
    world
}

/// Sees to it that somebody else's calls still work.
async fn nobody_else_notices() {
    let other = World::new();
    let attempt = other.attempt().await;
    assert!(!timeout(SOON, attempt.text("get", &json!({}))).await.unwrap().0);
}

/// The address of a route, and what comes after it.
fn parted(url: &str) -> (String, String) {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    (host.to_owned(), format!("/{path}"))
}

fn call(tool: &str, arguments: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": tool, "arguments": arguments}})
    .to_string()
}

/// The head of a request with a body of a length.
fn head(host: &str, path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\ncontent-length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn a_key_that_a_harness_makes_up_is_not_passed_on() {
    let world = World::new();
    let attempt = world.attempt().await;
    let mut meta = RequestMetaObject::default();
    meta.insert("dev.agentexecutor/idempotency-key".into(), json!("forged"));
    meta.insert("dev.agentexecutor/other".into(), json!("forged"));
    let mut params = CallToolRequestParams::new("put");
    params.meta = Some(meta);
    attempt.client.peer().call_tool(params).await.unwrap();
    let effects = world.effects();
    assert!(effects[0].contains("default/1/1/gw:tool:shop:"), "{effects:?}");
    assert!(!effects[0].contains("forged"), "{effects:?}");
}

#[tokio::test]
async fn a_body_of_100_mib_is_refused_before_it_is_taken() {
    let world = World::new();
    let attempt = world.attempt().await;
    let (host, path) = parted(&attempt.url());
    let length = 100 * 1024 * 1024;
    let mut stream = TcpStream::connect(&host).await.unwrap();
    stream.write_all(head(&host, &path, length).as_bytes()).await.unwrap();
    let chunk = vec![b' '; 64 * 1024];
    let mut sent = 0;
    // It is cut off long before the end.
    while sent < length && stream.write_all(&chunk).await.is_ok() {
        sent += chunk.len();
    }
    let mut said = Vec::new();
    let _broken = timeout(SOON, stream.read_to_end(&mut said)).await.unwrap();
    let said = String::from_utf8_lossy(&said);
    assert!(sent < length / 2 || said.starts_with("HTTP/1.1 413"), "{sent} bytes: {said}");
    assert!(!attempt.text("get", &json!({})).await.0);
    assert!(world.effects().len() == 1, "nothing else was called");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for_forever() {
    let world = World::new();
    let attempt = world.attempt().await;
    let (host, path) = parted(&attempt.url());
    let body = call("put", &json!({}));
    let mut stream = TcpStream::connect(&host).await.unwrap();
    let begun = format!("{}{}", head(&host, &path, body.len()), &body[..10]);
    stream.write_all(begun.as_bytes()).await.unwrap();
    // Meanwhile others are served.
    assert!(!attempt.text("get", &json!({})).await.0);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
    let mut said = vec![0; 12];
    timeout(SOON, stream.read_exact(&mut said)).await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&said), "HTTP/1.1 408");
    assert_eq!(world.effects().len(), 1);
}

#[tokio::test]
async fn a_harness_that_closes_its_half_calls_nothing_twice() {
    let world = World::new();
    let attempt = world.attempt().await;
    let (host, path) = parted(&attempt.url());
    let arguments = json!({"seconds": 0.5});
    let body = call("put", &arguments);
    let mut stream = TcpStream::connect(&host).await.unwrap();
    let request = format!("{}{body}", head(&host, &path, body.len()));
    stream.write_all(request.as_bytes()).await.unwrap();
    world.effect("put").await;
    stream.shutdown().await.unwrap();
    let mut said = Vec::new();
    let _broken = timeout(SOON, stream.read_to_end(&mut said)).await.unwrap();
    drop(stream);
    attempt.gateway.drain().await;
    assert_eq!(world.log.lock().unwrap().journal.len(), 1);
    assert!(!world.attempt().await.text("put", &arguments).await.0);
    assert_eq!(world.effects().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_calls_is_bounded_and_ends_with_the_attempt() {
    let world = odd();
    let attempt = world.attempt().await;
    let (host, path) = parted(&attempt.url());
    // Each is let go at once: nothing but the gateway holds them.
    for number in 0..1_200 {
        let body = call("hang", &json!({"number": number}));
        let request = format!("{}{body}", head(&host, &path, body.len()));
        let mut stream = TcpStream::connect(&host).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        if number % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        drop(stream);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = world.log.lock().unwrap().begun.len();
    assert!(begun <= 64, "{begun} calls are carried out at a time");
    nobody_else_notices().await;
    timeout(SOON, attempt.gateway.close()).await.expect("it ends with the attempt");
}

#[tokio::test]
async fn what_a_tool_server_says_is_bounded_and_recorded() {
    for (tool, expect) in [
        ("big", "\"xxxx"),
        ("huge", "the tool server broke"),
        ("endless", "the tool server broke"),
        ("number", "what is no result of a tool"),
        ("list", "what is no result of a tool"),
        ("odd content", "no result of a tool"),
        ("noise", "noise done"),
        ("floods", "floods done"),
        ("dies", "the tool server broke"),
        ("asks", "asks done"),
    ] {
        let world = odd();
        let attempt = world.attempt().await;
        let called = timeout(SOON, attempt.text(tool, &json!({}))).await;
        let (error, text) = called.unwrap_or_else(|_| panic!("{tool} does not end"));
        assert!(text.contains(expect), "{tool}: {} bytes: {:.300}", text.len(), text);
        assert_eq!(error, !expect.contains("done") && tool != "big", "{tool}");
        assert_eq!(world.log.lock().unwrap().journal.len(), 1, "{tool} is recorded");
        // And a new attempt gets the same.
        let again = world.attempt().await.text(tool, &json!({})).await;
        assert_eq!(again, (error, text), "{tool}");
    }
    nobody_else_notices().await;
}

#[tokio::test]
async fn a_tool_server_that_answers_somebody_else_or_nobody_holds_up_nobody() {
    for tool in ["hang", "other id"] {
        let world = odd();
        let attempt = world.attempt().await;
        let arguments = json!({});
        let waits = timeout(Duration::from_secs(1), attempt.text(tool, &arguments)).await;
        assert!(waits.is_err(), "{tool}: {waits:?}");
        assert!(!timeout(SOON, attempt.text("fine", &json!({}))).await.unwrap().0);
        nobody_else_notices().await;
        timeout(SOON, attempt.gateway.close()).await.expect("it ends with the attempt");
    }
}
