//! Requests that are compressed, and answers that a provider keeps.

use crate::{WIRES, World, responses};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::Value;
use std::io::Write as _;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_compressed_request_is_the_same_request() {
    for (provider, path, _, request) in WIRES {
        let world = World::new(r#"{"version": 1}"#).await;
        let body = request("compressed or not");
        let plain = world.attempt().await.ask(provider, path, &body).await;
        assert_eq!(plain.0, 200, "{plain:?}");
        for (coding, coded) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("deflate", zlib)] {
            let attempt = world.attempt().await;
            let sent = attempt.http.post(attempt.url(provider, path));
            let sent = sent.bearer_auth(&attempt.env["AX_GATEWAY_KEY"]);
            let sent = sent.header("content-encoding", coding);
            let answer = sent.body(coded(body.to_string().as_bytes())).send().await.unwrap();
            let said = (answer.status().as_u16(), answer.text().await.unwrap());
            assert_eq!(said, plain, "{path} {coding}");
        }
        assert_eq!(world.paid(), 1, "{path}");
        // What is new is passed on as the provider understands it.
        let world = World::new(r#"{"version": 1}"#).await;
        let attempt = world.attempt().await;
        let sent = attempt.http.post(attempt.url(provider, path));
        let sent = sent.bearer_auth(&attempt.env["AX_GATEWAY_KEY"]);
        let body = gzip(request("something else").to_string().as_bytes());
        let answer = sent.header("content-encoding", "gzip").body(body).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), world.paid()), (200, 1), "{path}");
    }
}

#[tokio::test]
async fn a_body_that_explodes_is_refused_in_the_words_of_the_provider() {
    let words = ["request_too_large", "invalid_request", "invalid_request"];
    let words = words.into_iter().chain(["INVALID_ARGUMENT"; 2]);
    let bomb = gzip(&vec![b' '; 34 << 20]);
    for ((provider, path, _, _), word) in WIRES.into_iter().zip(words) {
        let world = World::new(r#"{"version": 1}"#).await;
        let attempt = world.attempt().await;
        let send = async |coding: &str, body: Vec<u8>| {
            let sent = attempt.http.post(attempt.url(provider, path));
            let sent = sent.bearer_auth(&attempt.env["AX_GATEWAY_KEY"]);
            let answer = sent.header("content-encoding", coding).body(body).send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        let (status, said) = send("gzip", bomb.clone()).await;
        assert_eq!((status, said.contains(word)), (413, true), "{said}");
        assert_eq!(send("br", bomb.clone()).await.0, 415);
        assert_eq!(send("gzip", b"{}".to_vec()).await.0, 400);
        assert!(world.model.ledger().is_empty());
        world.noted("gateway.denied").await;
        world.noted("33554432 bytes").await;
    }
}

#[tokio::test]
async fn an_answer_that_the_provider_keeps_is_fetched_and_dropped_unpaid() {
    for (provider, path, id_field, cursor) in [
        ("openai", "/v1/responses", "/response/id", "starting_after=1"),
        ("gemini", "/v1beta/interactions", "/interaction/id", "last_event_id=e-2"),
    ] {
        let world = World::new(r#"{"version": 1}"#).await;
        let attempt = world.attempt().await;
        let (status, said) = attempt.ask(provider, path, &responses("keep this")).await;
        assert_eq!(status, 200, "{said}");
        let first = said.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        let first: Value = serde_json::from_str(first).unwrap();
        let id = first.pointer(id_field).and_then(Value::as_str);
        let id = id.unwrap_or_else(|| panic!("{first}")).to_owned();
        let url = attempt.url(provider, &format!("{path}/{id}"));
        let key = &attempt.env["AX_GATEWAY_KEY"];
        let get = async |url: String| {
            let answer = attempt.http.get(url).bearer_auth(key).send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        let (status, whole) = get(url.clone()).await;
        assert_eq!((status, whole.contains("keep this")), (200, true), "{whole}");
        let (status, stream) = get(format!("{url}?stream=true&{cursor}")).await;
        let tail = stream.trim_end();
        assert!(status == 200 && said.trim_end().ends_with(tail), "{stream}");
        assert!(tail.len() < said.len() && tail.contains("event:"), "{stream}");
        // Another attempt finds it at the provider, where it is.
        assert_eq!(get(url.clone()).await.0, 200);
        let canceled = attempt.http.post(format!("{url}/cancel")).bearer_auth(key);
        assert!(canceled.send().await.unwrap().status().as_u16() < 500);
        let deleted = attempt.http.delete(&url).bearer_auth(key).send().await.unwrap();
        assert_eq!(deleted.status(), 200);
        assert_eq!(get(url.clone()).await.0, 404);
        let strange = attempt.http.get(&url).bearer_auth("ax-another").send().await.unwrap();
        assert_eq!(strange.status(), 401);
        assert_eq!(world.paid(), 1);
        let log = world.log.lock().unwrap();
        assert_eq!((log.begun.len(), log.journal.len()), (1, 1), "only the call is recorded");
    }
}
