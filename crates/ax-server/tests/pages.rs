//! What web pages may do: a browser sends requests for any page that somebody opens, and whoever
//! made the page must not drive a server by them.

#![expect(clippy::unwrap_used, reason = "a test")]

#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use support::{Answer, MANIFEST, World};

const EVIL: &str = "https://evil.example";
const GOOD: &str = "https://good.example";

async fn open(origins: &[&str]) -> World {
    let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
    World::with(ax_server::Options { origins, ..Default::default() }, true).await
}

fn assert_refused(answer: &Answer, what: &str) {
    let (status, code, _) = answer.error();
    assert_eq!((status, code.as_str()), (403, "AX4002"), "{what}: {answer:?}");
}

#[tokio::test]
async fn a_page_of_another_server_changes_nothing() {
    let world = open(&[GOOD]).await;
    world.agent().await;
    world.submit("talk", "hello").await;
    // What a form, or `fetch` without preflight, can send.
    for lines in [
        format!("origin: {EVIL}\r\ncontent-type: text/plain\r\n"),
        "origin: null\r\n".to_owned(),
        "sec-fetch-site: cross-site\r\n".to_owned(),
        format!("origin: http://{}\r\nsec-fetch-site: cross-site\r\n", world.address),
        format!("origin: http://localhost:{}\r\n", world.address.port() ^ 1),
    ] {
        for (method, path) in [
            ("POST", "/v1/shutdown"),
            ("POST", "/v1/sessions/talk/cancel"),
            ("POST", "/v1/blobs"),
            ("POST", "/v1/archives"),
            ("POST", "/v1/agents"),
            ("POST", "/v1/inputs"),
            ("DELETE", "/v1/sessions/talk"),
        ] {
            let refused = world.send(method, path, &lines, b"").await;
            assert_refused(&refused, &format!("{method} {path} {lines}"));
        }
        let kind = "content-type: application/grpc\r\n";
        let path = "/agentexecutor.v1.Server/Shutdown";
        let refused = world.send("POST", path, &format!("{kind}{lines}"), b"\0\0\0\0\0").await;
        assert!(refused.headers.contains("grpc-status: 7"), "{refused:?}");
    }
    assert!(!world.stop.is_cancelled());
}

#[tokio::test]
async fn pages_of_the_server_and_of_named_origins_do_what_they_like() {
    let world = open(&[GOOD]).await;
    let manifest = serde_json::json!({"manifest": MANIFEST}).to_string();
    for lines in [
        "origin: http://localhost\r\nsec-fetch-site: same-origin\r\n",
        "origin: https://good.example\r\nsec-fetch-site: cross-site\r\n",
        "sec-fetch-site: none\r\n",
        "",
    ] {
        let lines = format!("{lines}content-type: application/json\r\n");
        let applied = world.send("POST", "/v1/agents", &lines, manifest.as_bytes()).await;
        assert_eq!(applied.status, 200, "{lines}: {applied:?}");
    }
    let all = open(&["*"]).await;
    let lines = format!("host: evil.example\r\norigin: {EVIL}\r\nsec-fetch-site: cross-site\r\n");
    assert_eq!(all.raw("POST", "/v1/blobs", &lines).await.status, 200);
}

#[tokio::test]
async fn a_page_cannot_have_its_own_name_lead_to_an_open_address() {
    let world = open(&[GOOD]).await;
    for (method, path) in [("GET", "/v1/sessions"), ("POST", "/v1/agents"), ("GET", "/metrics")] {
        let lines = "host: evil.example\r\norigin: http://evil.example\r\n";
        assert_refused(&world.raw(method, path, lines).await, path);
        assert_refused(&world.raw(method, path, "host: evil.example:80\r\n").await, path);
    }
    let port = world.address.port();
    for own in [format!("127.0.0.1:{port}"), format!("[::1]:{port}"), "good.example".into()] {
        let answer = world.raw("GET", "/v1/info", &format!("host: {own}\r\n")).await;
        assert_eq!(answer.status, 200, "{own}");
    }
}
