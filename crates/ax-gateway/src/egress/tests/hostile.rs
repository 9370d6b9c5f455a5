//! Harnesses and hosts that mean harm.

use super::origin::{Origin, rule, secret, until};
use super::*;

async fn refused(world: &mut World, origin: &Origin, status: &str, request: &str) {
    let said = world.say(request).await;
    assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {said}");
    assert!(origin.asked().is_empty(), "{request}: {:?}", origin.asked());
    assert!(!format!("{said} {:?}", notes(&mut world.said)).contains(&secret()));
}

#[tokio::test]
async fn a_request_is_for_the_host_of_its_tunnel_or_refused() {
    let origin = Origin::new("a.test").await;
    let mut world = origin.world(json!([rule("a.test"), rule("b.test")])).await;
    for head in [
        "GET / HTTP/1.1\r\nhost: b.test\r\n",
        "GET / HTTP/1.1\r\nhost: a.test\r\nhost: b.test\r\n",
        "GET / HTTP/1.1\r\nhost: b.test\r\nhost: a.test\r\n",
        "GET / HTTP/1.1\r\nhost: a.test:8443\r\n",
        "GET / HTTP/1.1\r\nhost: a.test@b.test\r\n",
        "GET / HTTP/1.1\r\nhost: a.test, b.test\r\n",
        "GET / HTTP/1.1\r\nhost: \r\n",
        "GET / HTTP/1.1\r\n",
        "GET https://b.test/ HTTP/1.1\r\nhost: a.test\r\n",
        "GET http://a.test/ HTTP/1.1\r\nhost: a.test\r\n",
        "CONNECT b.test:443 HTTP/1.1\r\nhost: a.test\r\n",
    ] {
        let request = format!("{head}connection: close\r\n\r\n");
        refused(&mut world, &origin, "421", &request).await;
    }
    for host in ["a.test", "A.Test.", "a.test:443"] {
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let said = world.say(&request).await;
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
        assert_eq!(origin.asked().last().unwrap().headers["host"], "a.test");
    }
}

#[tokio::test]
async fn what_would_show_the_secret_or_end_the_protocol_is_refused() {
    let origin = Origin::new("a.test").await;
    let mut world = origin.world(json!([rule("a.test")])).await;
    for (status, head) in [
        ("405", "TRACE / HTTP/1.1\r\nhost: a.test\r\n"),
        ("405", "trace / HTTP/1.1\r\nhost: a.test\r\n"),
        ("501", "GET / HTTP/1.1\r\nhost: a.test\r\nupgrade: websocket\r\n"),
        ("501", "GET / HTTP/1.1\r\nhost: a.test\r\nupgrade: h2c\r\n"),
    ] {
        let request = format!("{head}connection: close\r\n\r\n");
        refused(&mut world, &origin, status, &request).await;
    }
    let wrong = "GET / HTTP/1.1\r\nhost: a.test\r\n";
    for line in
        ["x: a\rauthorization: b", "x: a\0b", "x : a", "x: a\r\n y: b", "transfer-encoding: x"]
    {
        let request = format!("{wrong}{line}\r\nconnection: close\r\n\r\n");
        refused(&mut world, &origin, "400", &request).await;
    }
}

#[tokio::test]
async fn a_name_in_the_handshake_that_is_not_the_tunnels_ends_it() {
    let origin = Origin::new("a.test").await;
    let mut world = origin.world(json!([rule("a.test"), rule("b.test")])).await;
    let wrong = world.secured("a.test:443", "b.test", &world.bundle()).await;
    assert!(wrong.is_err());
    let denied = loop {
        let noted = notes(&mut world.said);
        let denied = noted.into_iter().find(|note| note.starts_with("gateway.egress_denied"));
        match denied {
            Some(denied) => break denied,
            None => tokio::task::yield_now().await,
        }
    };
    assert!(denied.contains("another host than its tunnel: b.test"), "{denied}");
    assert!(origin.asked().is_empty());
}

#[tokio::test]
async fn no_request_hides_in_another() {
    let origin = Origin::new("a.test").await;
    let world = origin.world(json!([rule("a.test")])).await;
    let hidden = "GET /hidden HTTP/1.1\r\nhost: b.test\r\nconnection: close\r\n\r\n";
    for lengths in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
    ] {
        let at = origin.asked().len();
        let head = format!("POST /one HTTP/1.1\r\nhost: a.test\r\n{lengths}\r\n\r\n");
        let said = world.say(&format!("{head}0\r\n\r\n{hidden}")).await;
        let asked = origin.asked().split_off(at);
        let [one] = &asked[..] else { panic!("{said} {asked:?}") };
        assert_eq!((one.line.as_str(), one.body.as_str()), ("POST /one", ""));
        assert!(!one.headers.contains_key(header::CONTENT_LENGTH), "{one:?}");
    }
    let at = origin.asked().len();
    for lengths in [
        "content-length: 4\r\ncontent-length: 5",
        "content-length: +4",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: identity\r\ncontent-length: 4",
    ] {
        let head = format!("POST /one HTTP/1.1\r\nhost: a.test\r\n{lengths}\r\n\r\n");
        let said = world.say(&format!("{head}{hidden}")).await;
        assert!(said.starts_with("HTTP/1.1 400"), "{lengths}: {said}");
    }
    assert_eq!(origin.asked().len(), at);
}

#[tokio::test]
async fn requests_that_come_at_once_are_each_looked_at() {
    let origin = Origin::new("a.test").await;
    let world = origin.world(json!([rule("a.test")])).await;
    let mut client = world.client().await;
    let good = |path| format!("GET {path} HTTP/1.1\r\nhost: a.test\r\n\r\n");
    let bad = "GET /bad HTTP/1.1\r\nhost: b.test\r\n\r\n";
    let all = [good("/1"), bad.to_owned(), good("/2"), good("/3")].concat();
    client.write_all(all.as_bytes()).await.unwrap();
    let mut said = String::new();
    for end in ["you said: ", "b.test\"}}", "you said: ", "you said: "] {
        said += &until(&mut client, end).await;
    }
    assert_eq!(said.matches("HTTP/1.1 200").count(), 3, "{said}");
    assert_eq!(said.matches("HTTP/1.1 421").count(), 1, "{said}");
    let lines: Vec<_> = origin.asked().into_iter().map(|asked| asked.line).collect();
    assert_eq!(lines, ["GET /1", "GET /2", "GET /3"]);
}

#[tokio::test]
async fn a_host_that_cannot_prove_its_name_is_told_nothing() {
    let request = "GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n";
    let other = Origin::new("b.test").await;
    let unknown = Origin::new("a.test").await;
    let believed = other.roots.clone();
    for (origin, why) in [(&other, "not valid for name"), (&unknown, "UnknownIssuer")] {
        let rules = json!([rule("a.test")]);
        let answers = vec![vec![origin.address]];
        let mut world = world_that_believes(believed.clone(), rules, answers).await;
        let said = world.say(request).await;
        assert!(said.starts_with("HTTP/1.1 502") && said.contains("a.test:443"), "{said}");
        assert!(said.contains(why), "{said}");
        assert!(origin.asked().is_empty());
        let noted = notes(&mut world.said);
        let denied = noted.iter().find(|note| note.starts_with("gateway.egress_denied")).unwrap();
        assert!(denied.contains(why) && !denied.contains(&secret()), "{denied}");
    }
}

#[tokio::test]
async fn an_answer_without_encryption_is_no_answer() {
    let server = echo().await;
    let world = world(json!([rule("a.test")]), vec![vec![server]]).await;
    let request = "GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n";
    let said = world.say(request).await;
    assert!(said.starts_with("HTTP/1.1 502") && !said.contains(&secret()), "{said}");
}

#[tokio::test]
async fn a_tunnel_that_is_opened_keeps_its_turn_and_its_address_near_or_far() {
    let origin = Origin::new("a.test").await;
    let mut near = rule("a.test");
    near["private"] = json!(false);
    let world = origin.world(json!([near])).await;
    let refused = world.tunnel("a.test:443").await.unwrap_err();
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    let world = origin.world(json!([rule("a.test")])).await;
    let mut open = Vec::new();
    for _ in 0..OPEN_MAX {
        open.push(world.tunnel("a.test:443").await.unwrap());
    }
    let refused = world.tunnel("a.test:443").await.unwrap_err();
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    drop(open);
}
