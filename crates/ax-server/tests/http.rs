//! HTTP with JSON and server-sent events, over real sockets.

#![expect(clippy::unwrap_used, reason = "a test")]

#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use serde_json::{Value, json};
use std::time::Duration;
use support::{MANIFEST, World};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn a_session_lives_its_life_over_http() {
    let world = World::new().await;
    world.agent().await;
    let sent = world.submit("talk", "hello").await.json();
    assert_eq!((&sent["created"], &sent["seq"]), (&json!(true), &json!("2")));
    let path = format!("/v1/sessions/talk/follow?untilInput={}", sent["seq"].as_str().unwrap());
    let mut stream = world.follow(&path, "").await;
    assert!(stream.headers.contains("content-type: text/event-stream"), "{}", stream.headers);
    let all = stream.rest().await;
    assert_eq!(all[0].retry, "1000");
    let events: Vec<_> = all.iter().filter(|sent| sent.event.contains('.')).collect();
    assert_eq!(events[0].event, "session.created");
    for (event, seq) in events.iter().zip(1..) {
        let data: Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!((event.id.clone(), &data["seq"]), (seq.to_string(), &json!(seq.to_string())));
    }
    let end = all.last().unwrap();
    assert_eq!(end.event, "end");
    assert!(end.data.contains("REASON_REACHED"), "{end:?}");
    let shown = world.get("/v1/sessions/talk").await.json();
    assert_eq!(shown["session"]["status"]["state"], "STATE_COMPLETED");
    let page = world.get("/v1/sessions/talk/events?after=1&limit=2").await.json();
    assert_eq!(page["events"].as_array().unwrap().len(), 2);
    assert_eq!(page["events"][0]["seq"], "2");
    let body = Some(json!({"title": "A talk"}));
    assert_eq!(world.ask("PATCH", "/v1/sessions/talk", body).await.status, 200);
    let body = Some(json!({"name": "here"}));
    assert_eq!(world.ask("POST", "/v1/sessions/talk/checkpoints", body).await.status, 200);
    let body = Some(json!({"checkpoint": "here", "names": ["other"]}));
    let made = world.ask("POST", "/v1/sessions/talk/branches", body).await.json();
    assert_eq!(made["sessions"].as_array().unwrap().len(), 1);
    let body = Some(json!({"name": "paid", "payload": "{}"}));
    assert_eq!(world.ask("POST", "/v1/sessions/talk/signals", body).await.status, 200);
    let listed = world.get("/v1/sessions?agent=done").await.json();
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 2);
    let usage = world.get("/v1/usage?group=USAGE_GROUP_AGENT").await.json();
    assert_eq!(
        (&usage["rows"][0]["group"], &usage["rows"][0]["sessions"]),
        (&json!("done"), &json!("2"))
    );
    assert_eq!(world.ask("DELETE", "/v1/sessions/talk", None).await.status, 200);
    assert_eq!(world.get("/v1/sessions/talk").await.error().0, 404);
}

#[tokio::test]
async fn a_follower_goes_on_after_the_last_id() {
    let world = World::new().await;
    world.agent().await;
    world.submit("talk", "hello").await;
    let first = world.follow("/v1/sessions/talk/follow?until_idle=true", "").await.rest().await;
    let ids = |all: &[support::Sent]| -> Vec<String> {
        let events = all.iter().filter(|sent| sent.event.contains('.'));
        events.map(|sent| sent.id.clone()).collect()
    };
    let all = ids(&first);
    // Also in the middle of a text that was streamed.
    assert!(first.iter().any(|sent| sent.event == "output.delta"), "{first:?}");
    for at in 0..=all.len() {
        // What a browser says on its own is worth more than what the page said once.
        let path = "/v1/sessions/talk/follow?untilIdle=true&after=1";
        let line = format!("last-event-id: {at}\r\n");
        let rest = world.follow(path, &line).await.rest().await;
        assert_eq!(ids(&rest), all[at..]);
        let path = format!("/v1/sessions/talk/follow?untilIdle=true&after={at}");
        assert_eq!(ids(&world.follow(&path, "").await.rest().await), all[at..]);
    }
    let path = "/v1/sessions/talk/follow?untilIdle=true&noDeltas=true";
    let whole = world.follow(path, "").await.rest().await;
    assert!(whole.iter().all(|sent| sent.event != "output.delta"), "{whole:?}");
    assert!(whole.iter().any(|sent| sent.event == "output.message"), "{whole:?}");
    let (path, line) = ("/v1/sessions/talk/follow", "last-event-id: x\r\n");
    assert_eq!(world.send("GET", path, line, b"").await.error().1, "AX1001");
    let path = "/v1/sessions/talk/follow?after=1000";
    assert_eq!(world.get(path).await.error().1, "AX1012");
}

#[tokio::test]
async fn a_follower_gets_the_kinds_that_it_asks_for() {
    let world = World::new().await;
    world.agent().await;
    world.submit("talk", "hello").await;
    let path = "/v1/sessions/talk/follow?untilIdle=true&kinds=input.received,execution";
    let all = world.follow(path, "").await.rest().await;
    let names: Vec<_> = all.iter().map(|sent| sent.event.as_str()).collect();
    let (words, events): (Vec<&str>, Vec<&str>) =
        names.into_iter().partition(|name| !name.contains('.'));
    assert_eq!(events, ["input.received", "execution.started", "execution.completed"]);
    assert_eq!(words, ["", "caught-up", "end"]);
    let refused = world.get("/v1/sessions/talk/follow?kinds=colour").await.error();
    assert_eq!(refused.1, "AX1001");
}

#[tokio::test]
async fn a_follower_hears_while_nothing_happens_how_far_it_is() {
    let keep_alive_pause = Duration::from_millis(20);
    let options = ax_server::Options { keep_alive_pause, ..Default::default() };
    let world = World::with(options, true).await;
    world.agent().await;
    world.submit("talk", "hello").await;
    let mut other = world.follow("/v1/sessions/talk/follow?until_input=2", "").await;
    let last = other.until("end").await.id;
    assert!(last.parse::<u64>().unwrap() > 2);
    let mut stream = world.follow("/v1/sessions/talk/follow?kinds=note", "").await;
    stream.until("caught-up").await;
    for _ in 0..3 {
        let alive = stream.next().await.unwrap();
        // A browser remembers the id and dispatches nothing.
        let expect = support::Sent { id: last.clone(), ..Default::default() };
        assert_eq!(alive, expect);
    }
}

#[tokio::test]
async fn a_follower_of_a_busy_session_hears_how_far_it_is_too() {
    let keep_alive_pause = Duration::from_millis(20);
    let options = ax_server::Options { keep_alive_pause, ..Default::default() };
    let world = World::with(options, true).await;
    world.agent().await;
    world.submit("talk", "hello").await;
    let mut stream = world.follow("/v1/sessions/talk/follow?kinds=note", "").await;
    let mut last: u64 = stream.until("caught-up").await.id.parse().unwrap();
    let busy = async {
        loop {
            world.submit("talk", "more").await;
        }
    };
    let heard = async {
        for _ in 0..3 {
            // It is silent for as long as nothing new was left out.
            let moved = loop {
                let id = stream.next().await.unwrap().id.parse().unwrap();
                if id > last {
                    break id;
                }
            };
            last = moved;
        }
    };
    tokio::select! {
        () = busy => {}
        () = heard => {}
    }
}

#[tokio::test]
async fn errors_say_the_same_in_every_form() {
    let world = World::new().await;
    world.agent().await;
    for (method, path, body, status, code) in [
        ("GET", "/v1/sessions/nowhere", None, 404, "AX1002"),
        ("GET", "/v1/sessions/nowhere/follow", None, 404, "AX1002"),
        ("GET", "/v1/sessions/ses_1", None, 400, "AX1001"),
        ("GET", "/v1/sessions?namespace=A%20b", None, 400, "AX1001"),
        ("GET", "/v1/sessions?cursor=x", None, 400, "AX1001"),
        ("GET", "/v1/sessions?states=STATE_NONSENSE", None, 400, "AX1001"),
        ("GET", "/v1/agents/nobody", None, 404, "AX1003"),
        ("GET", "/v1/nowhere", None, 404, "AX1017"),
        ("PUT", "/v1/sessions", None, 405, "AX1018"),
        ("GET", "/v1/sessions/%ff", None, 400, "AX1001"),
        ("POST", "/v1/sessions/s/inputs", Some(json!({"parts": 1})), 400, "AX1001"),
        ("POST", "/v1/sessions/s/inputs", Some(json!({"colour": 1})), 400, "AX1001"),
        ("POST", "/v1/sessions/s/inputs", Some(json!([])), 400, "AX1001"),
        ("POST", "/v1/sessions/s/inputs", Some(json!({"session": "t"})), 400, "AX1001"),
        ("POST", "/v1/sessions/s/answers", Some(json!({})), 400, "AX1001"),
        ("POST", "/v1/agents", Some(json!({"manifest": "x"})), 400, "AX1101"),
        ("POST", "/v1/shutdown?force=1", None, 400, "AX1001"),
    ] {
        let refused = world.ask(method, path, body).await.error();
        assert_eq!((refused.0, refused.1.as_str()), (status, code), "{method} {path} {refused:?}");
    }
    let plain = world.send("POST", "/v1/agents", "content-type: text/plain\r\n", b"{}").await;
    assert_eq!((plain.error().0, plain.error().1.as_str()), (415, "AX1019"));
    let deep = vec![b'['; 100_000];
    let json = "content-type: application/json\r\n";
    assert_eq!(world.send("POST", "/v1/agents", json, &deep).await.error().1, "AX1001");
}

#[tokio::test]
async fn pages_follow_one_another_and_their_cursors_are_of_one_list() {
    let world = World::new().await;
    world.agent().await;
    for n in 0..5 {
        world.submit(&format!("talk-{n}"), "hello").await;
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/v1/sessions?limit=2&cursor={cursor}")).await.json();
        for session in page["sessions"].as_array().unwrap() {
            seen.push(session["id"].as_str().unwrap().to_owned());
        }
        match page["cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(seen.len(), 5);
    assert!(seen.is_sorted());
    for path in ["/v1/agents?", "/v1/sessions?namespace=other&"] {
        let refused = world.get(&format!("{path}cursor={cursor}")).await.error();
        assert_eq!((refused.0, refused.1.as_str()), (400, "AX1001"), "{path}");
    }
    let second = MANIFEST.replace("name: done", "name: another");
    world.ask("POST", "/v1/agents", Some(json!({"manifest": second}))).await;
    let page = world.get("/v1/agents?limit=1").await.json();
    assert_eq!(page["agents"][0]["name"], "another");
    let next = page["cursor"].as_str().unwrap();
    let page = world.get(&format!("/v1/agents?limit=1&cursor={next}")).await.json();
    assert_eq!((&page["agents"][0]["name"], page.get("cursor")), (&json!("done"), None));
}

#[tokio::test]
async fn contents_go_up_and_down() {
    let world = World::new().await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let stored = world.send("POST", "/v1/blobs", "", &content).await.json();
    let id = stored["id"].as_str().unwrap();
    let read = world.get(&format!("/v1/blobs/{id}")).await;
    assert_eq!(read.body, content);
    assert!(read.headers.contains("content-length: 3000000"), "{}", read.headers);
    assert!(read.headers.contains("nosniff"), "{}", read.headers);
    let missing = format!("/v1/blobs/blob_{}", "0".repeat(64));
    assert_eq!(world.get(&missing).await.error().1, "AX1015");
    world.agent().await;
    world.submit("talk", "hello").await;
    world.follow("/v1/sessions/talk/follow?untilIdle=true", "").await.rest().await;
    let archive = world.get("/v1/sessions/talk/archive").await;
    assert_eq!(archive.status, 200);
    let imported = world.send("POST", "/v1/archives?name=copy", "", &archive.body).await.json();
    assert!(imported["session"].as_str().unwrap().starts_with("ses_"), "{imported}");
    let broken = world.send("POST", "/v1/archives", "", &archive.body[..40]).await;
    assert!((400..500).contains(&broken.status), "{broken:?}");
}

#[tokio::test]
async fn no_path_leads_out_of_the_blobs() {
    let world = World::new().await;
    for id in [
        "..%2F..%2Fetc%2Fpasswd",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "blob_..%2F..%2F..%2Fetc%2Fpasswd",
        "blob_%00",
        "blob_G000000000000000000000000000000000000000000000000000000000000000",
        "%2Fetc%2Fpasswd",
        ".",
    ] {
        let refused = world.get(&format!("/v1/blobs/{id}")).await.error();
        assert_eq!((refused.0, refused.1.as_str()), (400, "AX1001"), "{id}");
    }
    for path in ["/v1/blobs/../../etc/passwd", "/v1/blobs/../info/x", "//etc/passwd"] {
        assert_eq!(world.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_not_read() {
    let world = World::new().await;
    let line = "content-type: application/json\r\n";
    let large = vec![b' '; 9 << 20];
    let refused = world.send("POST", "/v1/agents", line, &large).await.error();
    assert_eq!((refused.0, refused.1.as_str()), (413, "AX1013"));
    // In chunks, so that the length is not said.
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head = "POST /v1/agents HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
        content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
    for _ in 0..9 {
        if stream.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
    let line = format!("x-large: {}\r\n", "x".repeat(64 << 10));
    assert_eq!(world.send("GET", "/v1/info", &line, b"").await.status, 431);
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    assert_eq!(world.send("GET", "/v1/info", &many, b"").await.status, 431);
}

#[tokio::test]
async fn names_and_payloads_break_out_of_nothing() {
    let world = World::new().await;
    world.agent().await;
    let evil = "a\r\nevent: end\nid: 99\n\ndata: {}\n\n";
    world.submit("talk%20%26%20%3Cb%3E%20%C3%A4", evil).await;
    let path = "/v1/sessions/talk%20%26%20%3Cb%3E%20%C3%A4/follow?untilIdle=true";
    let all = world.follow(path, "").await.rest().await;
    assert_eq!(all.iter().filter(|sent| sent.event == "end").count(), 1, "{all:?}");
    let input = all.iter().find(|sent| sent.event == "input.received").unwrap();
    let data: Value = serde_json::from_str(&input.data).unwrap();
    assert_eq!(data["inputReceived"]["parts"][0]["body"]["text"], evil);
    // A line break in a name never gets as far as a header or a stream.
    let refused = world.get("/v1/sessions/a%0D%0Aset-cookie:%20x/follow").await;
    assert_eq!(refused.error().1, "AX1001");
    assert!(!refused.headers.contains("set-cookie"), "{}", refused.headers);
    let title = Some(json!({"title": evil}));
    let renamed = world.ask("PATCH", "/v1/sessions/talk%20%26%20%3Cb%3E%20%C3%A4", title).await;
    let all = world.follow(&format!("{path}&kinds=session"), "").await.rest().await;
    assert_eq!(all.iter().filter(|sent| sent.event == "end").count(), 1, "{renamed:?} {all:?}");
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_nobody_up_and_misses_nothing() {
    let world = World::new().await;
    world.agent().await;
    world.submit("talk", "begin").await;
    let mut stuck = world.follow("/v1/sessions/talk/follow", "").await;
    stuck.until("caught-up").await;
    // More than all buffers on the way hold.
    let text = "x".repeat(60_000);
    let mut last = 0;
    for _ in 0..120 {
        let sent = world.submit("talk", &text).await.json();
        last = sent["seq"].as_str().unwrap().parse::<u64>().unwrap();
    }
    // Another reader is not held up either.
    let path = format!("/v1/sessions/talk/follow?untilInput={last}");
    let mut expect = Vec::new();
    for sent in world.follow(&path, "").await.rest().await {
        if sent.event.contains('.') {
            expect.push(sent.id.parse::<u64>().unwrap());
        }
    }
    assert!(expect.iter().zip(1..).all(|(id, seq)| *id == seq), "{expect:?}");
    let mut at = 0;
    let caught_up: u64 = expect.iter().copied().max().unwrap();
    while at < caught_up {
        let sent = stuck.next().await.expect("the stream goes on");
        if sent.event.contains('.') {
            let id = sent.id.parse::<u64>().unwrap();
            assert!(at == 0 || id == at + 1, "{id} after {at}");
            at = id;
        }
    }
}

#[tokio::test]
async fn a_server_that_stops_says_where_to_go_on_and_takes_nothing_new() {
    let world = World::new().await;
    world.agent().await;
    world.done.send_replace(false);
    let sent = world.submit("talk", "hello").await.json();
    let mut stream = world.follow("/v1/sessions/talk/follow", "").await;
    stream.until("attempt.started").await;
    // A content that is on the way; the answer says that it is read.
    let mut late = TcpStream::connect(world.address).await.unwrap();
    let upload = "POST /v1/blobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\
        expect: 100-continue\r\n\r\n";
    late.write_all(upload.as_bytes()).await.unwrap();
    let mut goes_on = vec![0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    late.read_exact(&mut goes_on).await.unwrap();
    world.stop.cancel();
    let end = stream.until("end").await;
    assert!(end.data.contains("REASON_SHUTDOWN"), "{end:?}");
    assert!(end.id.parse::<u64>().unwrap() >= sent["seq"].as_str().unwrap().parse().unwrap());
    assert_eq!(stream.next().await, None);
    // What was under way before is not cut.
    late.write_all(b"ab").await.unwrap();
    let mut answer = String::new();
    late.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("blob_"), "{answer}");
    world.serving.await.unwrap();
    assert!(TcpStream::connect(world.address).await.is_err());
}

#[tokio::test]
async fn an_address_without_a_guard_is_not_served() {
    let listener = ax_server::Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
    let refused = ax_server::check(&[listener], &ax_server::Options::default()).unwrap_err();
    assert!(refused.to_string().contains("no authentication"), "{refused}");
}

#[tokio::test]
async fn a_guard_that_vouches_for_nobody_lets_nobody_in() {
    let guard = ax_server::Guard(std::sync::Arc::new(|router| router));
    let options = ax_server::Options { guard: Some(guard), ..Default::default() };
    let world = World::with(options, false).await;
    for path in ["/v1/info", "/v1/sessions", "/v1/sessions/x/follow", "/v1/blobs/x"] {
        let refused = world.get(path).await;
        assert_eq!((refused.error().0, refused.error().1.as_str()), (401, "AX4001"), "{path}");
        assert!(refused.headers.contains("www-authenticate: bearer"), "{}", refused.headers);
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_or_not_all_is_closed() {
    let short = Duration::from_millis(50);
    let (header_read_max, first_request_max) = (short, 2 * short);
    let options = ax_server::Options { header_read_max, first_request_max, ..Default::default() };
    let world = World::with(options, true).await;
    for start in ["", "PRI * HT", "GET /v1/info HTTP/1.1\r\nx: y"] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        // It ends, or the test does not.
        drop(stream.read_to_end(&mut rest).await);
    }
}

#[tokio::test]
async fn a_connection_is_closed_unless_a_request_of_it_was_let_in() {
    let first_request_max = Duration::from_millis(500);
    let ask = async |world: &World, what: &str, line: &str| {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let request = format!("{what} HTTP/1.1\r\nhost: localhost\r\n{line}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        let mut rest = Vec::new();
        let ended = timeout(4 * first_request_max, stream.read_to_end(&mut rest)).await.is_ok();
        (String::from_utf8(first.to_vec()).unwrap(), ended)
    };
    let guard = ax_server::Guard(std::sync::Arc::new(|router| router));
    let options =
        ax_server::Options { first_request_max, guard: Some(guard), ..Default::default() };
    let world = World::with(options, false).await;
    assert_eq!(ask(&world, "GET /v1/info", "").await, ("HTTP/1.1 401".into(), true));
    let evil = "origin: http://evil.example\r\ncontent-length: 0\r\n";
    assert_eq!(ask(&world, "POST /v1/inputs", evil).await, ("HTTP/1.1 403".into(), true));
    assert_eq!(ask(&world, "GET /nothing", "").await, ("HTTP/1.1 404".into(), true));
    let options = ax_server::Options { first_request_max, ..Default::default() };
    let world = World::with(options, true).await;
    assert_eq!(ask(&world, "GET /v1/info", "").await, ("HTTP/1.1 200".into(), false));
}

#[tokio::test]
async fn a_web_page_of_a_named_origin_may_read() {
    let origins = vec!["https://a.example".into()];
    let options = ax_server::Options { origins, ..Default::default() };
    let world = World::with(options, true).await;
    let line = "origin: https://a.example\r\n";
    let answer = world.send("GET", "/v1/info", line, b"").await;
    let allow = "access-control-allow-origin: https://a.example";
    assert!(answer.headers.contains(allow), "{}", answer.headers);
    let line = "origin: https://b.example\r\n";
    let answer = world.send("GET", "/v1/info", line, b"").await;
    assert!(!answer.headers.contains("access-control"), "{}", answer.headers);
    let line = "origin: https://a.example\r\naccess-control-request-method: POST\r\n";
    let answer = world.send("OPTIONS", "/v1/blobs", line, b"").await;
    assert!(answer.headers.contains("access-control-allow-methods"), "{}", answer.headers);
}

#[tokio::test]
async fn the_openapi_document_is_the_one_that_is_committed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../api/openapi.json");
    let text = ax_server::openapi::text();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, text).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == text, "api/openapi.json is old: run this test with UPDATE_EXPECT=1");
    let world = World::new().await;
    assert_eq!(world.get("/v1/openapi.json").await.body, text.as_bytes());
}
