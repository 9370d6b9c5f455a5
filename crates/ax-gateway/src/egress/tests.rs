//! A real proxy between real connections; only names are resolved by the tests.

mod hostile;
mod inject;
mod origin;

use super::*;
use crate::config::Config;
use crate::proof::Proof;
use ax_core::session::{Body as Content, Frame};
use hyper::service::service_fn;
use serde_json::Value;
use std::convert::Infallible;
use std::sync::atomic::AtomicUsize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const PASSWORD: &str = "ax-word";

/// A proxy with these rules, which resolves every name to what the test says.
struct World {
    proxy: SocketAddr,
    said: mpsc::Receiver<Frame>,
    resolved: Arc<AtomicUsize>,
    egress: Arc<Egress>,
    files: Option<Files>,
    dir: tempfile::TempDir,
}

async fn world(rules: Value, answers: Vec<Vec<SocketAddr>>) -> World {
    world_that_believes(Vec::new(), rules, answers).await
}

async fn world_that_believes(roots: Roots, rules: Value, answers: Vec<Vec<SocketAddr>>) -> World {
    let config = Config::parse(&json!({"egress": rules})).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (rules, files) = Rules::open(config.egress, || roots, dir.path()).unwrap();
    let (frames, said) = mpsc::channel(64);
    let session = Arc::new(Session::new(frames, Box::new(|| true)));
    let resolved = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&resolved);
    let resolve: Resolve = Arc::new(move |_, _| {
        let at = counter.fetch_add(1, Ordering::SeqCst);
        let answer = answers[at.min(answers.len() - 1)].clone();
        Box::pin(async move { Ok(answer) })
    });
    let egress = Egress::new(rules, resolve, session, CancellationToken::new());
    let egress = Arc::new(egress);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (proxy, serving) = (listener.local_addr().unwrap(), Arc::clone(&egress));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let egress = Arc::clone(&serving);
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let egress = Arc::clone(&egress);
                    let proof = Proof { placeholder: PASSWORD, by_socket: false };
                    let holds = proof.is_password_in(request.headers());
                    async move { Ok::<_, Infallible>(egress.answer(request, holds).await) }
                });
                let http = hyper::server::conn::http1::Builder::new();
                drop(http.serve_connection(TokioIo::new(stream), service).with_upgrades().await);
            });
        }
    });
    World { proxy, said, resolved, egress, files, dir }
}

/// A server that answers what it was sent.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = vec![0; 4096];
                let count = stream.read(&mut bytes).await.unwrap();
                let body = String::from_utf8_lossy(&bytes[..count]).into_owned();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    address
}

/// Sends a text and reads what comes until the connection ends.
async fn send(world: &World, head: &str, password: &str) -> String {
    let mut stream = TcpStream::connect(world.proxy).await.unwrap();
    let word = {
        use base64::Engine as _;
        base64::prelude::BASE64_STANDARD.encode(format!("ax:{password}"))
    };
    let text = format!("{head}\r\nproxy-authorization: Basic {word}\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        let read = timeout(Duration::from_secs(5), stream.read(&mut bytes)).await;
        match read {
            Ok(Ok(0)) | Ok(Err(_)) | Err(_) => break,
            Ok(Ok(count)) => said.extend_from_slice(&bytes[..count]),
        }
        if head.starts_with("CONNECT") && said.ends_with(b"\r\n\r\n") {
            if !said.starts_with(b"HTTP/1.1 200") {
                break;
            }
            stream.write_all(b"through the tunnel").await.unwrap();
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

fn notes(said: &mut mpsc::Receiver<Frame>) -> Vec<String> {
    let mut notes = Vec::new();
    while let Ok(Frame::Note { name, data: Content::Text(text), .. }) = said.try_recv() {
        notes.push(format!("{name} {text}"));
    }
    notes
}

#[tokio::test]
async fn nothing_goes_out_that_is_not_named() {
    let server = echo().await;
    let mut world =
        world(json!([{"host": "a.test", "port": 8080, "private": true}]), vec![vec![server]]).await;
    for head in [
        "CONNECT b.test:443 HTTP/1.1",
        "CONNECT a.test:22 HTTP/1.1",
        "GET http://b.test/ HTTP/1.1\r\nhost: a.test:8080",
    ] {
        let said = send(&world, head, PASSWORD).await;
        assert!(said.starts_with("HTTP/1.1 403"), "{head}: {said}");
    }
    assert_eq!(world.resolved.load(Ordering::SeqCst), 0, "nobody is even asked for the name");
    let noted = notes(&mut world.said);
    assert_eq!(noted.len(), 3, "{noted:?}");
    assert!(
        noted[0].starts_with("gateway.egress_denied") && noted[0].contains("b.test"),
        "{noted:?}"
    );
}

#[tokio::test]
async fn what_is_named_goes_through_and_is_noted_once() {
    let server = echo().await;
    let mut world =
        world(json!([{"host": "a.test", "port": 8080, "private": true}]), vec![vec![server]]).await;
    let head =
        "GET http://a.test:8080/x?y=1 HTTP/1.1\r\nhost: other.test\r\nx-mine: 1\r\nkeep-alive: 5";
    let said = send(&world, head, PASSWORD).await;
    assert!(said.contains("GET /x?y=1 HTTP/1.1") && said.contains("host: a.test:8080"), "{said}");
    assert!(said.contains("x-mine: 1"), "{said}");
    assert!(!said.contains("proxy-authorization") && !said.contains("keep-alive"), "{said}");
    let said = send(&world, "CONNECT a.test:8080 HTTP/1.1", PASSWORD).await;
    assert!(said.ends_with("through the tunnel"), "{said}");
    world.egress.sum_up().await;
    let noted = notes(&mut world.said);
    assert_eq!(noted.len(), 3, "{noted:?}");
    assert!(
        noted[1].starts_with("gateway.request")
            && noted[1].contains(r#""path":"/x""#)
            && noted[1].contains(r#""status":200"#),
        "{noted:?}"
    );
    assert!(
        noted[2].starts_with("gateway.traffic")
            && noted[2].contains(r#""connections":2"#)
            && noted[2].contains(r#""requests":1"#)
            && !noted[2].contains(r#""sent":0"#),
        "{noted:?}"
    );
}

#[tokio::test]
async fn who_does_not_have_the_word_gets_nowhere() {
    let server = echo().await;
    let world =
        world(json!([{"host": "a.test", "port": 8080, "private": true}]), vec![vec![server]]).await;
    let said = send(&world, "CONNECT a.test:8080 HTTP/1.1", "wrong").await;
    assert!(said.starts_with("HTTP/1.1 407") && said.contains("proxy-authenticate"), "{said}");
}

#[tokio::test]
async fn a_name_that_means_something_near_is_refused_however_often_it_changes_its_mind() {
    let server = echo().await;
    let far: SocketAddr = "192.0.2.1:8080".parse().unwrap();
    let near = vec![server, "169.254.169.254:80".parse().unwrap(), far];
    let mut world = world(json!([{"host": "a.test", "port": 8080}]), vec![near]).await;
    let said = send(&world, "CONNECT a.test:8080 HTTP/1.1", PASSWORD).await;
    assert!(said.starts_with("HTTP/1.1 403") && said.contains("private network"), "{said}");
    assert_eq!(world.resolved.load(Ordering::SeqCst), 1, "what was checked is what is used");
    assert!(notes(&mut world.said)[0].contains("gateway.egress_denied"));
    for address in ["127.0.0.1", "169.254.169.254", "[::1]", "0x7f000001", "2130706433"] {
        let said = send(&world, &format!("CONNECT {address}:8080 HTTP/1.1"), PASSWORD).await;
        assert!(said.starts_with("HTTP/1.1 403"), "{address}: {said}");
    }
}

#[tokio::test]
async fn what_is_no_plain_place_is_refused() {
    let server = echo().await;
    let world =
        world(json!([{"host": "a.test", "port": 8080, "private": true}]), vec![vec![server]]).await;
    for head in [
        "GET http://user@a.test:8080/ HTTP/1.1\r\nhost: a.test",
        "GET https://a.test:8080/ HTTP/1.1\r\nhost: a.test",
    ] {
        let said = send(&world, head, PASSWORD).await;
        assert!(said.starts_with("HTTP/1.1 400"), "{head}: {said}");
    }
    // The end of a name may have its dot, and letters any size.
    let said = send(&world, "CONNECT A.Test.:8080 HTTP/1.1", PASSWORD).await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
}

#[tokio::test]
async fn tunnels_are_counted_as_long_as_they_are_open() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rules = json!([{"host": "a.test", "port": 8080, "private": true}]);
    let world = world(rules, vec![vec![server.local_addr().unwrap()]]).await;
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = server.accept().await {
            kept.push(stream);
        }
    });
    let mut open = Vec::new();
    for at in 0..=OPEN_MAX {
        let mut stream = TcpStream::connect(world.proxy).await.unwrap();
        use base64::Engine as _;
        let word = base64::prelude::BASE64_STANDARD.encode(format!("ax:{PASSWORD}"));
        let head = "CONNECT a.test:8080 HTTP/1.1\r\nproxy-authorization: basic ";
        stream.write_all(format!("{head}{word}\r\n\r\n").as_bytes()).await.unwrap();
        let mut said = [0; 12];
        stream.read_exact(&mut said).await.unwrap();
        let expect = if at < OPEN_MAX { b"HTTP/1.1 200" } else { b"HTTP/1.1 503" };
        assert_eq!(&said, expect, "{at}");
        open.push(stream);
    }
}
