//! The socket of a gateway, and the port beside it.

use crate::{World, anthropic};
use ax_core::session::{Body, Frame};
use ax_gateway::{Listen, Port, Sockets, Users};
use std::path::Path;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// Sends a question over a socket, with these lines in its head.
async fn send(socket: &Path, head: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let body = anthropic("hello").to_string();
    let request = format!(
        "POST /anthropic/v1/messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         {head}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    said
}

#[tokio::test]
async fn over_its_socket_a_harness_needs_no_key_and_may_have_no_other_one() {
    let world = World::new(r#"{"version": 1}"#).await;
    let dir = tempfile::tempdir().unwrap();
    let sockets = Sockets::new(dir.path().into());
    let listen = || Listen { socket: Some(sockets.open().unwrap()), ..Listen::default() };
    let (first, second) = (world.attempt_at(listen()).await, world.attempt_at(listen()).await);
    let path = first.gateway.socket().unwrap();
    assert_eq!(first.env["AX_GATEWAY_SOCKET"], path.to_str().unwrap());
    assert_ne!(first.env["AX_GATEWAY_SOCKET"], second.env["AX_GATEWAY_SOCKET"]);
    let (own, other) = (&first.env["AX_GATEWAY_KEY"], &second.env["AX_GATEWAY_KEY"]);
    for (head, status) in [
        (String::new(), "200"),
        (format!("x-api-key: {own}\r\n"), "200"),
        (format!("x-api-key: {other}\r\n"), "401"),
        (format!("authorization: Bearer {other}\r\n"), "401"),
        ("x-api-key: sk-real\r\n".into(), "401"),
    ] {
        let said = send(path, &head).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{head}: {said}");
    }
    // The port leads to the same door, and wants the placeholder.
    assert_eq!(first.text(&anthropic("hello")).await.0, 200);
    let url = first.url("anthropic", "/v1/messages");
    let unknown = first.http.post(url).body(anthropic("hello").to_string());
    assert_eq!(unknown.send().await.unwrap().status(), 401);
    world.noted("this is not the key").await;
    let log = world.log.lock().unwrap();
    let noted = log.other.iter().filter(|frame| {
        matches!(frame, Frame::Note { name, data: Body::Text(data), .. }
            if name == "gateway.denied" && data.contains("this is not the key"))
    });
    assert_eq!(noted.count(), 1, "once, however often: {:?}", log.other);
    drop(log);
    drop((first, second));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_gateway_can_do_without_a_port() {
    let world = World::new(r#"{"version": 1}"#).await;
    let dir = tempfile::tempdir().unwrap();
    let sockets = Sockets::new(dir.path().into());
    let socket = || Some(sockets.open().unwrap());
    let alone = world
        .attempt_at(Listen { socket: socket(), port: Port::None, users: Users::default() })
        .await;
    assert!(send(alone.gateway.socket().unwrap(), "").await.contains(" 200 OK"));
    let urls = alone.env.values().filter(|value| value.contains("://"));
    assert_eq!(urls.count(), 0, "{:?}", alone.env);
    assert!(alone.env["ANTHROPIC_API_KEY"].starts_with("ax-"));
    // Another port is named that leads here from inside a sandbox.
    let inside = world
        .attempt_at(Listen {
            socket: socket(),
            port: Port::Forwarded(4_711),
            users: Users::default(),
        })
        .await;
    assert_eq!(inside.env["ANTHROPIC_BASE_URL"], "http://127.0.0.1:4711/anthropic");
    assert!(send(inside.gateway.socket().unwrap(), "").await.contains(" 200 OK"));
}
