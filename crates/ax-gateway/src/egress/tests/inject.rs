//! Credentials that are added to requests.

use super::origin::{Origin, rule, secret, until};
use super::*;
use std::os::unix::fs::MetadataExt as _;

/// Everything that was said to the session, once the attempt is over.
async fn noted(world: &mut World) -> Vec<String> {
    let mut noted = Vec::new();
    while noted.iter().all(|note: &String| !note.starts_with("gateway.request")) {
        noted.extend(notes(&mut world.said));
        tokio::task::yield_now().await;
    }
    world.egress.sum_up().await;
    noted.extend(notes(&mut world.said));
    noted
}

#[tokio::test]
async fn a_secret_is_added_outside_and_shown_to_nobody_inside() {
    let origin = Origin::new("a.test").await;
    let mut world = origin.world(json!([rule("a.test")])).await;
    let said = world
        .say(
            "GET /x/y?token=mine HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer mine\r\n\
             authorization: Bearer mine too\r\nX-Mine: 1\r\nKeep-Alive: 5\r\n\
             Connection: close, authorization\r\n\r\n",
        )
        .await;
    let [asked] = &origin.asked()[..] else { panic!("{said}") };
    let shown: Vec<_> = asked.headers.get_all(header::AUTHORIZATION).iter().collect();
    assert_eq!(shown, [format!("Bearer {}", secret()).as_str()], "{asked:?}");
    assert_eq!(asked.line, "GET /x/y?token=mine");
    assert_eq!(asked.headers["host"], "a.test");
    assert!(asked.headers.contains_key("x-mine") && !asked.headers.contains_key("keep-alive"));
    assert!(
        said.starts_with("HTTP/1.1 200") && said.contains("x-shown: Bearer [hidden]"),
        "{said}"
    );
    assert!(said.contains("location: https://b.test/?t=Bearer [hidden]"), "{said}");
    let noted = noted(&mut world).await;
    let said_in = |note: &str, name| -> Value {
        serde_json::from_str(note.strip_prefix(name).unwrap()).unwrap()
    };
    let reached = said_in(&noted[0], "gateway.egress ");
    assert_eq!(reached, json!({"host": "a.test", "port": 443, "opened": true}));
    let request = said_in(&noted[1], "gateway.request ");
    let expect = json!({"method": "GET", "host": "a.test", "port": 443, "path": "/x/y",
        "status": 200, "sent": 0, "received": 10, "injected": true});
    assert_eq!(request, expect);
    assert!(noted[2].contains(r#""requests":1"#) && !noted[2].contains(r#""sent":0"#), "{noted:?}");
    let files = world.files.as_ref().unwrap();
    let everything = format!("{said} {noted:?} {:?} {:?}", world.egress, files.environment());
    assert!(!everything.contains(&secret()));
}

#[tokio::test]
async fn a_connection_is_used_again_and_another_takes_its_place() {
    let origin = Origin::new("a.test").await;
    let world = origin.world(json!([rule("a.test")])).await;
    let mut client = world.client().await;
    for (path, connections) in [("/1", 1), ("/2", 1), ("/bye", 1), ("/3", 2), ("/4", 2)] {
        let text = format!("POST {path} HTTP/1.1\r\nhost: a.test\r\ncontent-length: 2\r\n\r\nhi");
        client.write_all(text.as_bytes()).await.unwrap();
        until(&mut client, "you said: hi").await;
        assert_eq!(origin.connections.load(Ordering::SeqCst), connections, "{path}");
    }
    assert_eq!(world.resolved.load(Ordering::SeqCst), 1, "the address stays the same");
    for asked in origin.asked() {
        assert_eq!(asked.headers["authorization"], format!("Bearer {}", secret()));
    }
}

#[tokio::test]
async fn bodies_go_both_ways_as_they_come() {
    let origin = Origin::new("a.test").await;
    let world = origin.world(json!([rule("a.test")])).await;
    let mut client = world.client().await;
    let head = "POST /stream HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    for piece in ["one", "two", "six"] {
        client.write_all(format!("3\r\n{piece}\r\n").as_bytes()).await.unwrap();
        until(&mut client, &format!("3\r\n{piece}\r\n")).await;
    }
    client.write_all(b"0\r\n\r\n").await.unwrap();
    until(&mut client, "0\r\n\r\n").await;
}

#[tokio::test]
async fn only_the_methods_of_the_rule_go_through_an_opened_tunnel() {
    let origin = Origin::new("a.test").await;
    let mut reads = rule("a.test");
    reads["methods"] = json!(["GET"]);
    let mut world = origin.world(json!([reads])).await;
    let said = world
        .say(
            "DELETE /all HTTP/1.1\r\nhost: a.test\r\n\r\n\
             GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n",
        )
        .await;
    assert!(said.starts_with("HTTP/1.1 403") && said.contains("HTTP/1.1 200"), "{said}");
    assert_eq!(origin.asked().len(), 1);
    let noted = noted(&mut world).await;
    let denied = noted.iter().find(|note| note.starts_with("gateway.egress_denied")).unwrap();
    assert!(denied.contains("DELETE a.test:443"), "{denied}");
}

#[tokio::test]
async fn where_nothing_is_added_the_tunnel_stays_closed() {
    let origin = Origin::new("b.test").await;
    let open = json!({"host": "b.test", "private": true});
    let world = origin.world(json!([open, rule("a.test")])).await;
    let client = world.secured("b.test:443", "b.test", &origin.roots).await.unwrap();
    let shown = client.get_ref().1.peer_certificates().unwrap();
    assert_eq!(shown, std::slice::from_ref(&origin.certificate));
    let other = world.secured("b.test:443", "b.test", &[world.bundle()[0].clone()].into()).await;
    assert!(other.is_err(), "the gateway does not stand between");
}

#[tokio::test]
async fn a_rule_with_a_credential_goes_before_one_without() {
    let origin = Origin::new("a.test").await;
    let all = json!({"host": "*.test", "private": true});
    let same = json!({"host": "a.test", "private": true});
    let world = origin.world(json!([all, same, rule("a.test")])).await;
    world.say("GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n").await;
    assert!(origin.asked()[0].headers.contains_key(header::AUTHORIZATION));
}

#[tokio::test]
async fn an_unencrypted_request_gets_a_secret_only_if_the_manifest_says_so() {
    let server = echo().await;
    let mut named = rule("a.test");
    named["inject"]["scheme"] = json!("http");
    let world = world(json!([named, rule("b.test")]), vec![vec![server]]).await;
    let head = "GET http://a.test/x HTTP/1.1\r\nhost: b.test\r\nauthorization: Bearer mine";
    let said = send(&world, head, PASSWORD).await;
    assert!(said.contains("host: a.test\r\n") && !said.contains("mine"), "{said}");
    assert!(said.contains(&format!("authorization: Bearer {}", secret())), "{said}");
    for head in [
        "GET http://b.test/ HTTP/1.1",
        "GET http://b.test:443/ HTTP/1.1",
        "CONNECT a.test:80 HTTP/1.1",
        "CONNECT a.test:443 HTTP/1.1",
    ] {
        let said = send(&world, head, PASSWORD).await;
        assert!(said.starts_with("HTTP/1.1 403") && !said.contains(&secret()), "{head}: {said}");
    }
}

#[tokio::test]
async fn a_vendors_client_needs_nothing_but_the_variables() {
    let origin = Origin::new("a.test").await;
    let world = origin.world(json!([rule("a.test")])).await;
    let _chosen_already = rustls::crypto::ring::default_provider().install_default();
    let bundle = std::fs::read(world.files.as_ref().unwrap().bundle()).unwrap();
    let proxy = reqwest::Proxy::https(format!("http://ax:{PASSWORD}@{}", world.proxy)).unwrap();
    let client = reqwest::Client::builder()
        .proxy(proxy)
        .tls_certs_only(reqwest::Certificate::from_pem_bundle(&bundle).unwrap())
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    for text in ["one", "two"] {
        let answer = client.post("https://a.test/").body(text).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), format!("you said: {text}"));
    }
    assert_eq!(origin.connections.load(Ordering::SeqCst), 1);
    assert!(origin.asked().iter().all(|asked| asked.headers.contains_key("authorization")));
}

#[tokio::test]
async fn only_the_harness_of_the_same_attempt_believes_the_gateway() {
    let origin = Origin::new("a.test").await;
    let [mine, theirs] =
        [origin.world(json!([rule("a.test")])).await, origin.world(json!([rule("a.test")])).await];
    assert!(mine.secured("a.test:443", "a.test", &mine.bundle()).await.is_ok());
    for stranger in [theirs.bundle(), origin.roots.clone()] {
        let refused = mine.secured("a.test:443", "a.test", &stranger).await.unwrap_err();
        assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
    }
}

#[tokio::test]
async fn the_files_are_private_hold_no_key_and_go_with_the_attempt() {
    let origin = Origin::new("a.test").await;
    let mut world = origin.world(json!([rule("a.test")])).await;
    let files = world.files.take().unwrap();
    let [all, own] = [files.bundle(), files.authority()];
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!([mode(&all), mode(&own), mode(all.parent().unwrap())], [0o600, 0o600, 0o700]);
    let [text, own_text] = [&all, &own].map(|path| std::fs::read_to_string(path).unwrap());
    assert!(text.starts_with(&own_text) && !text.contains("PRIVATE"), "{text}");
    assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 1 + origin.roots.len());
    let named = files.environment();
    for (name, path) in [("SSL_CERT_FILE", &all), ("NODE_EXTRA_CA_CERTS", &own)] {
        let value = path.to_str().unwrap().to_owned();
        assert!(named.contains(&(name.to_owned(), value)), "{named:?}");
    }
    drop(files);
    assert_eq!(std::fs::read_dir(world.dir.path()).unwrap().count(), 0);
    let plain = super::world(json!([{"host": "a.test"}]), vec![vec![origin.address]]).await;
    assert!(plain.files.is_none(), "where nothing is added there is nothing to believe");
}
