//! A harness that means harm: each attack is refused, noted, and no matter to another session that
//! works on meanwhile.

use crate::{Attempt, World, anthropic};
use ax_core::session::{Body, Frame};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The hostile harness and another one, each in its own session.
struct Two {
    world: World,
    hostile: Attempt,
    other_world: World,
    other: Attempt,
}

impl Two {
    async fn new(script: &str) -> Self {
        let (world, other_world) = (World::new(script).await, World::new(script).await);
        let (hostile, other) = (world.attempt().await, other_world.attempt().await);
        Self { world, hostile, other_world, other }
    }

    async fn connect(&self) -> TcpStream {
        let url = &self.hostile.env["AX_GATEWAY_URL"];
        TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap()
    }

    /// Sends bytes and reads what comes until nothing more does.
    async fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // It may be answered before it is read to its end.
        let _refused = stream.write_all(bytes).await;
        let mut said = Vec::new();
        let _reset = timeout(Duration::from_secs(20), stream.read_to_end(&mut said)).await;
        String::from_utf8_lossy(&said).into_owned()
    }

    /// A request with these lines in its head, in good order else.
    fn request(&self, head: &str, body: &str) -> String {
        let key = &self.hostile.env["AX_GATEWAY_KEY"];
        format!(
            "POST /anthropic/v1/messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             x-api-key: {key}\r\n{head}\r\n{body}"
        )
    }

    /// The other session is answered as if nothing were the matter.
    async fn assert_other_works(&self, text: &str) {
        let mut body = anthropic(text);
        body["stream"] = false.into();
        let (status, said) = self.other.text(&body).await;
        assert_eq!((status, said.contains(text)), (200, true), "{said}");
        let log = self.other_world.log.lock().unwrap();
        assert!(log.other.is_empty(), "{:?}", log.other);
    }

    /// Why requests were refused, by what the log says.
    fn denied(&self) -> Vec<String> {
        let log = self.world.log.lock().unwrap();
        let denied = log.other.iter().filter_map(|frame| match frame {
            Frame::Note { name, data: Body::Text(data), .. } if name == "gateway.denied" => {
                let data: Value = serde_json::from_str(data).unwrap();
                Some(data["reason"].as_str().unwrap().to_owned())
            }
            _ => None,
        });
        denied.collect()
    }
}

const PLAIN: &str = r#"{"version": 1}"#;

#[tokio::test]
async fn a_hundred_megabytes_are_refused_before_they_are_read() {
    let two = Two::new(PLAIN).await;
    let said = two.send(two.request("content-length: 104857600\r\n", "{").as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 413") && said.contains("request_too_large"), "{said}");
    // The same without saying how large it is.
    let key = &two.hostile.env["AX_GATEWAY_KEY"];
    let mib = || Ok::<_, std::io::Error>(vec![b' '; 1 << 20]);
    let pieces = reqwest::Body::wrap_stream(futures::stream::iter((0..100).map(move |_| mib())));
    let url = two.hostile.url("anthropic", "/v1/messages");
    let sent = two.hostile.http.post(url).bearer_auth(key).body(pieces).send().await;
    assert!(sent.is_err() || sent.is_ok_and(|answer| answer.status() == 413));
    two.assert_other_works("after large ones").await;
    two.world.noted("33554432 bytes").await;
    let denied = two.denied();
    assert!(denied.len() == 1 && denied[0].contains("33554432 bytes"), "{denied:?}");
    assert!(two.world.model.ledger().is_empty());
}

#[tokio::test]
async fn bodies_that_never_end_and_sockets_that_are_half_closed_harm_nobody() {
    let two = Two::new(PLAIN).await;
    let mut held = Vec::new();
    for at in 0..200 {
        let mut stream = two.connect().await;
        let request = two.request("content-length: 1000\r\n", "{\"model\":");
        stream.write_all(request.as_bytes()).await.unwrap();
        if at % 2 == 0 {
            stream.shutdown().await.unwrap();
        }
        held.push(stream);
    }
    two.assert_other_works("while others are slow").await;
    let (status, said) = two.hostile.text(&anthropic("it can go on itself")).await;
    assert_eq!(status, 200, "{said}");
    // One that is half closed is told, or let go of; it does not stay.
    let mut said = Vec::new();
    let read = timeout(Duration::from_secs(20), held[0].read_to_end(&mut said)).await;
    assert!(read.is_ok(), "it is held open");
    assert_eq!(two.world.model.ledger().len(), 1);
}

#[tokio::test]
async fn a_flood_of_requests_is_noted_once_and_not_without_end() {
    let two = Two::new(PLAIN).await;
    let url = two.hostile.url("anthropic", "/v1/messages");
    let wrong = async |key: String, path: String| {
        let request = two.hostile.http.post(format!("{url}{path}")).bearer_auth(key);
        request.body("{}").send().await.map(|answer| answer.status().as_u16())
    };
    let other = &two.other.env["AX_GATEWAY_KEY"];
    let same = (0..300).map(|_| wrong(other.clone(), String::new()));
    let different = (0..300).map(|at| wrong("sk-real".into(), format!("/{at}")));
    let works = two.assert_other_works("in a flood");
    let (same, different, ()) = futures::join!(
        futures::future::join_all(same),
        futures::future::join_all(different),
        works
    );
    assert!(same.into_iter().all(|status| status.unwrap() == 401));
    assert!(different.into_iter().all(|status| matches!(status.unwrap(), 401 | 404)));
    let denied = two.denied();
    assert!(denied.len() <= 64, "{}", denied.len());
    assert!(two.world.model.ledger().is_empty());
    assert_eq!(two.hostile.text(&anthropic("one's own")).await.0, 200);
}

#[tokio::test]
async fn what_is_forged_in_the_head_of_a_request_reaches_nobody() {
    // Whoever hears of a forged header says so.
    let forged = [
        ("idempotency-key", "default/2/1/gw:model:0:1"),
        ("x-ax-session", "ses_another"),
        ("ax-request-id", "another"),
        ("x-forwarded-for", "127.0.0.1"),
        ("cookie", "session=another"),
        ("x-hop", "1"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("proxy-authorization", "Basic eDp5"),
    ];
    let turn = |(name, value): (&str, &str)| {
        let when = json!({"headers": {name: value}});
        json!({"when": when, "text": format!("leaked {name}")})
    };
    let mut turns: Vec<Value> = forged.into_iter().map(turn).collect();
    turns.push(json!({"when": {"headers": {"host": "example.com"}}, "text": "leaked host"}));
    let script = json!({"version": 1, "turns": turns}).to_string();
    let two = Two::new(&script).await;
    let body = anthropic("clean").to_string();
    let lines: String = forged.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("connection: X-Hop\r\n{lines}content-length: {}\r\n", body.len());
    let request = two.request(&head, &body).replace("host: x\r\n", "host: example.com\r\n");
    let said = two.send(request.as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 200") && said.contains("clean"), "{said}");
    assert!(!said.contains("leaked"), "{said}");
    two.assert_other_works("beside it").await;
}

#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_is_read_in_one() {
    let two = Two::new(PLAIN).await;
    let body = anthropic("the outer one").to_string();
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let hidden = two
        .request("content-length: 2\r\n", "{}")
        .replace("/anthropic/v1/messages", "/anthropic/v1/files")
        .replace(&two.hostile.env["AX_GATEWAY_KEY"], "another");
    for (head, body, may) in [
        // Both lengths: what is hidden behind the end is a request of its own, and has no key.
        (
            format!("content-length: {}\r\ntransfer-encoding: chunked\r\n", chunked.len()),
            format!("{chunked}{hidden}"),
            true,
        ),
        ("content-length: 5\r\ncontent-length: 6\r\n".into(), "{}    ".into(), false),
        ("content-length: +2\r\n".into(), "{}".into(), false),
        ("transfer-encoding: gzip\r\n".into(), "{}".into(), false),
        ("transfer-encoding: chunked, identity\r\n".into(), chunked.clone(), false),
        ("x-a: b\r\n folded: true\r\ncontent-length: 2\r\n".into(), "{}".into(), false),
        ("x-a : b\r\ncontent-length: 2\r\n".into(), "{}".into(), false),
        ("x-a: b\0c\r\ncontent-length: 2\r\n".into(), "{}".into(), false),
    ] {
        let said = two.send(two.request(&head, &body).as_bytes()).await;
        let status = said.get(9..12).unwrap_or("none");
        let is_right = status == "400" || may && status == "200";
        assert!(is_right, "{head}{said}");
        assert!(!said.contains("HTTP/1.1 200 OK\r\n") || said.matches("HTTP/1.1").count() <= 2);
    }
    two.assert_other_works("beside it").await;
    two.world.noted("not HTTP").await;
    let denied = two.denied();
    assert!(denied.iter().any(|why| why.starts_with("not HTTP")), "{denied:?}");
    let asked = two.world.model.ledger();
    assert!(asked.len() <= 1, "{asked:?}");
}
