//! Who may call what over gRPC: every method of every service, and streams that stay open.

#![expect(clippy::unwrap_used, reason = "a test")]

#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use ax_engine::{Clock as _, SystemClock};
use ax_proto::v1;
use ax_server::auth::{Role, Settings};
use prost::Message as _;
use serde_json::{Value, json};
use std::time::Duration;
use support::World;
use support::guarded::{
    Call, FREE, Guarded, NOBODYS, about, filled, message, methods, operations, submission,
};

/// Where the agents of a namespace are kept.
const SYSTEM: &str = "ses_00000000000000000000000000000000";
const FOLLOW: &str = "/agentexecutor.v1.Sessions/Follow";

/// The least role that a call needs, and whether it is for all namespaces: what
/// `docs/security.md` says.
fn need(method: &str) -> (Role, bool) {
    let (service, name) = method.rsplit_once('/').unwrap();
    match name {
        "ApplyAgent" | "DeleteAgent" | "Shutdown" => (Role::Admin, true),
        "GetInfo" => (Role::Viewer, true),
        "DeleteSession" | "DeleteConversation" | "Delete" => (Role::Admin, false),
        "ServerReflectionInfo"
        | "Check"
        | "Watch"
        | "ReadFile"
        | "ReadBlob"
        | "Export"
        | "Follow" => (Role::Viewer, false),
        name if name.starts_with("Get") || name.starts_with("List") => (Role::Viewer, false),
        "ValidateAgent" => (Role::Viewer, false),
        _ => {
            assert!(
                service.starts_with("/agentexecutor.v1.Sessions") || service.starts_with("/ax.")
            );
            (Role::Operator, false)
        }
    }
}

#[tokio::test]
async fn every_method_of_every_service_needs_its_role() {
    let guarded = Guarded::new(Settings::default()).await;
    for role in [Role::Viewer, Role::Operator, Role::Admin] {
        let bound = guarded.key(&format!("{role}"), role, Some("theirs"));
        for method in methods() {
            let (needed, everywhere) = need(&method);
            let (status, _, code) =
                guarded.call(&bound, &method, &about(&method, "", NOBODYS)).await;
            let refused = (status.as_str(), code.as_str()) == ("7", "AX4002");
            let expect = (role < needed || everywhere) && method != FREE;
            assert_eq!(refused, expect, "{role} {method}: {status} {code}");
        }
    }
    let reader = guarded.key("reader", Role::Viewer, None);
    for method in methods() {
        let (status, _, code) = guarded.call(&reader, &method, &about(&method, "", NOBODYS)).await;
        let refused = (status.as_str(), code.as_str()) == ("7", "AX4002");
        let expect = need(&method).0 > Role::Viewer;
        assert_eq!(refused, expect, "{method}: {status} {code}");
    }
}

#[tokio::test]
async fn another_namespaces_conversations_are_not_there() {
    let guarded = Guarded::new(Settings::default()).await;
    let mine = guarded.key("mine", Role::Admin, Some("mine"));
    let mut missing = 0;
    for method in methods().iter().filter(|method| method.starts_with("/ax.")) {
        for namespace in ["", "theirs"] {
            let mut answers = Vec::new();
            for id in [guarded.session.as_str(), NOBODYS] {
                let mut sent = about(method, "", id);
                if method.ends_with("Fork") || method.ends_with("ForkConversation") {
                    sent.extend(b"\x1a\x03new");
                } else if method.ends_with("ReadFile") {
                    sent.extend(b"\x12\x01f");
                }
                let (status, text, code) = guarded.call_in(&mine, namespace, method, &sent).await;
                answers.push((status, text.replace(id, "ID"), code));
            }
            assert_eq!(answers[0], answers[1], "{method} {namespace}");
            missing += usize::from(["AX1002", "AX4002"].contains(&answers[0].2.as_str()));
        }
    }
    assert_eq!(missing, 2 * 10);
}

#[tokio::test]
async fn what_keeps_the_agents_is_no_session() {
    let guarded = Guarded::new(Settings::default()).await;
    let admin = guarded.key("admin", Role::Admin, Some("theirs"));
    let mut compared = 0;
    for (method, path) in operations(&guarded).await {
        if !path.contains("{session}") {
            continue;
        }
        // Without an agent nothing is begun under the id.
        let body = match path.rsplit_once('/').unwrap().1 {
            "inputs" => json!({"parts": submission("")["parts"]}),
            "answers" => json!({"answer": {"approve": {}}}),
            "signals" => json!({"name": "n", "payload": "{}"}),
            "checkpoints" => json!({"name": "n"}),
            _ => json!({}),
        };
        let body = Some(body).filter(|_| method != "GET" && method != "DELETE");
        let mut answers = Vec::new();
        for id in [SYSTEM, NOBODYS] {
            let answer = guarded.send(&admin, &method, &filled(&path, id), body.as_ref()).await;
            let (status, code, message) = answer.error();
            answers.push((status, code, message.replace(id, "ID")));
        }
        assert_eq!(answers[0], answers[1], "{method} {path}");
        compared += usize::from(answers[0].1 == "AX1002");
    }
    assert!(compared >= 11, "{compared}");
    for method in methods().iter().filter(|method| !method.ends_with("Import")) {
        let mut answers = Vec::new();
        for id in [SYSTEM, NOBODYS] {
            let (status, text, code) = guarded.call(&admin, method, &about(method, "", id)).await;
            answers.push((status, text.replace(id, "ID"), code));
        }
        // What is malformed besides is refused for that only if the session may be there.
        let missing = answers[0].2 == "AX1002";
        assert!(missing || answers[0] == answers[1], "{method} {answers:?}");
    }
    let path = format!("/v1/archives?name={SYSTEM}");
    assert_eq!(guarded.send(&admin, "POST", &path, None).await.error().1, "AX1002");
    let path = format!("/v1/sessions/{}/branches", guarded.session);
    let branch = json!({"at": 1, "names": [SYSTEM]});
    assert_eq!(guarded.send(&admin, "POST", &path, Some(&branch)).await.error().1, "AX1002");
    assert_eq!(guarded.send(&admin, "GET", "/v1/agents/done", None).await.status, 200);
}

#[tokio::test]
async fn paths_that_strangers_make_up_are_not_counted_apart() {
    let guarded = Guarded::new(Settings::default()).await;
    let operator = guarded.key("op", Role::Operator, Some("theirs"));
    for token in ["", &operator] {
        for path in ["/made.up.Service/One", "/agentexecutor.v1.Sessions/MadeUp"] {
            let (status, ..) = guarded.call(token, path, &[]).await;
            assert!(["5", "12", "16"].contains(&status.as_str()), "{path} {status}");
        }
    }
    guarded.call("", "/agentexecutor.v1.Sessions/ListSessions", &[]).await;
    let counted = guarded.counted();
    assert!(!counted.to_lowercase().contains("made"), "{counted}");
    assert!(counted.contains("Sessions/ListSessions"), "{counted}");
    assert!(counted.contains("other"), "{counted}");
}

#[tokio::test]
async fn what_never_gets_as_far_as_a_method_is_refused_with_a_code_too() {
    let guarded = Guarded::new(Settings::default()).await;
    let large = vec![0; 9 << 20];
    for (path, sent, code) in [
        ("/agentexecutor.v1.Sessions/MadeUp", &b""[..], "AX1018"),
        ("/ax.ExecutionService/MadeUp", b"", "AX1018"),
        ("/made.up.Service/One", b"", "AX1017"),
        ("/agentexecutor.v1.Sessions/GetSession", b"\x0a\xff", "AX1001"),
        ("/agentexecutor.v1.Sessions/WriteBlob", b"\x0a\xff", "AX1001"),
        ("/agentexecutor.v1.Sessions/SubmitStream", b"\x0a\xff", "AX1001"),
        ("/ax.ExecutionService/Exec", b"\x0a\xff", "AX1001"),
        ("/agentexecutor.v1.Sessions/Import", &large, "AX1013"),
    ] {
        let (status, message, said) = guarded.call(&guarded.root, path, sent).await;
        assert_eq!(said, code, "{path}: {status} {message}");
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_credential_that_opened_it() {
    let guarded = Guarded::new(Settings::default()).await;
    let path = format!("/v1/sessions/{}/follow", guarded.session);
    let key = guarded.key("reader", Role::Viewer, Some("theirs"));
    let soon = SystemClock.now().plus_millis(500);
    let later = SystemClock.now().plus_millis(3_600_000);
    let (expiring, lasting) =
        (guarded.share(&guarded.session, soon), guarded.share(&guarded.session, later));
    let mut streams = Vec::new();
    for token in [&expiring, &lasting, &key] {
        let lines = format!("authorization: Bearer {token}\r\n");
        let mut stream = guarded.world.follow(&path, &lines).await;
        stream.until("caught-up").await;
        streams.push(stream);
    }
    let mut call = guarded.begin(&key, "", FOLLOW).await;
    call.say(&message("", &guarded.session), true);
    assert!(call.next().await.is_some());
    let mut watch = guarded.begin(&key, "", "/grpc.health.v1.Health/Watch").await;
    watch.say(&[], true);
    assert!(watch.next().await.is_some());
    guarded.keys.revoke("reader", SystemClock.now()).unwrap();
    guarded.shares.rotate().unwrap();
    for (stream, codes) in streams.iter_mut().zip([
        // Its time is over, and so is that of the key that made it.
        ["AX4001", "AX4003"],
        ["AX4001"; 2],
        ["AX4001"; 2],
    ]) {
        let failure: Value = serde_json::from_str(&stream.until("failure").await.data).unwrap();
        assert!(codes.contains(&failure["code"].as_str().unwrap()), "{failure}");
        assert_eq!(stream.next().await, None);
    }
    for call in [call, watch] {
        let (status, _, code) = call.end().await;
        assert_eq!((status.as_str(), code.as_str()), ("16", "AX4001"));
    }
}

#[tokio::test]
async fn a_link_that_expires_stops_telling() {
    let guarded = Guarded::new(Settings::default()).await;
    let soon = guarded.share(&guarded.session, SystemClock.now().plus_millis(500));
    let path = format!("/v1/sessions/{}/follow?share={soon}", guarded.session);
    let mut stream = guarded.world.follow(&path, "").await;
    let failure = stream.until("failure").await;
    assert!(failure.data.contains("AX4003"), "{failure:?}");
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_revoked_key_submits_nothing_more_over_a_stream_that_is_open() {
    let guarded = Guarded::new(Settings::default()).await;
    let key = guarded.key("op", Role::Operator, Some("theirs"));
    let mut call = guarded.begin(&key, "", "/agentexecutor.v1.Sessions/SubmitStream").await;
    let input = |id| {
        let body = Some(v1::Body { body: Some(v1::body::Body::Text("go".into())) });
        let kind = v1::PartKind::Text.into();
        let media_type = "text/plain".to_owned();
        let part = v1::Part { kind, media_type, body, ..Default::default() };
        let (agent, parts) = ("done".to_owned(), vec![part]);
        let submit = Some(v1::SubmitRequest { agent, parts, ..Default::default() });
        v1::SubmitStreamRequest { id, submit }.encode_to_vec()
    };
    call.say(&input(1), false);
    let answer = v1::SubmitStreamResponse::decode(call.next().await.unwrap()).unwrap();
    assert!(format!("{answer:?}").contains("ses_"), "{answer:?}");
    guarded.keys.revoke("op", SystemClock.now()).unwrap();
    call.say(&input(2), false);
    let answer = v1::SubmitStreamResponse::decode(call.next().await.unwrap()).unwrap();
    assert!(format!("{answer:?}").contains("AX4001"), "{answer:?}");
    assert_eq!(call.end().await.2, "AX4001");
}

#[tokio::test]
async fn an_input_over_a_stream_is_as_large_as_a_request_may_be() {
    let mut settings = Settings::default();
    settings.limits.request_bytes = 4_096;
    let guarded = Guarded::new(settings).await;
    let key = guarded.key("op", Role::Operator, Some("theirs"));
    let mut call = guarded.begin(&key, "", "/agentexecutor.v1.Sessions/SubmitStream").await;
    for (id, bytes, expect) in [(1, 3_000, "ses_"), (2, 5_000, "AX1013"), (3, 3_000, "ses_")] {
        let body = Some(v1::Body { body: Some(v1::body::Body::Text("x".repeat(bytes))) });
        let kind = v1::PartKind::Text.into();
        let media_type = "text/plain".to_owned();
        let part = v1::Part { kind, media_type, body, ..Default::default() };
        let (agent, parts) = ("done".to_owned(), vec![part]);
        let submit = Some(v1::SubmitRequest { agent, parts, ..Default::default() });
        call.say(&v1::SubmitStreamRequest { id, submit }.encode_to_vec(), false);
        let answer = v1::SubmitStreamResponse::decode(call.next().await.unwrap()).unwrap();
        assert!(format!("{answer:?}").contains(expect), "{answer:?}");
    }
}

#[tokio::test]
async fn inputs_over_a_stream_keep_their_order_whatever_their_session_is_called() {
    let guarded = Guarded::new(Settings::default()).await;
    let key = guarded.key("op", Role::Operator, Some("theirs"));
    let mut call = guarded.begin(&key, "", "/agentexecutor.v1.Sessions/SubmitStream").await;
    let input = |id: u64, session: &str| {
        // Every other one is stored as a blob on its way, and takes longer.
        let text = "x".repeat(if id.is_multiple_of(2) { 100_000 } else { 1 });
        let body = Some(v1::Body { body: Some(v1::body::Body::Text(text)) });
        let kind = v1::PartKind::Text.into();
        let part = v1::Part { kind, media_type: "text/plain".into(), body, ..Default::default() };
        let (session, agent) = (session.to_owned(), "done".to_owned());
        let submit = v1::SubmitRequest { session, agent, parts: vec![part], ..Default::default() };
        v1::SubmitStreamRequest { id, submit: Some(submit) }.encode_to_vec()
    };
    let done = |said: bytes::Bytes| {
        let answer = v1::SubmitStreamResponse::decode(said).unwrap();
        match answer.answer.unwrap() {
            v1::submit_stream_response::Answer::Done(done) => (answer.id, done),
            v1::submit_stream_response::Answer::Error(error) => panic!("{error:?}"),
        }
    };
    call.say(&input(0, "talk"), false);
    let (_, first) = done(call.message().await.unwrap());
    for id in 1..=40 {
        let session = if id % 3 == 0 { "talk" } else { &first.session };
        call.say(&input(id, session), false);
    }
    let mut before = first.seq;
    for id in 1..=40 {
        let (answered, done) = done(call.message().await.unwrap());
        assert_eq!(answered, id);
        assert!(done.seq > before, "{} comes before {before}", done.seq);
        before = done.seq;
    }
}

#[tokio::test]
async fn a_call_that_is_sent_too_slowly_ends_and_a_stream_may_be_silent() {
    let body_pause_max = Duration::from_millis(50);
    let options = ax_server::Options { body_pause_max, ..Default::default() };
    let world = World::with(options, true).await;
    for method in ["Submit", "WriteBlob", "Import"] {
        let path = format!("/agentexecutor.v1.Sessions/{method}");
        let mut call = Call::begin(world.address, "", "", &path).await;
        call.say_half();
        let (status, message, code) = call.end().await;
        assert_eq!((status.as_str(), code.as_str()), ("3", "AX1001"), "{method}: {message}");
        assert!(message.contains("too slowly"), "{method}: {message}");
    }
    let path = "/agentexecutor.v1.Sessions/SubmitStream";
    let mut call = Call::begin(world.address, "", "", path).await;
    tokio::time::sleep(3 * body_pause_max).await;
    call.say(&[], true);
    let answer = v1::SubmitStreamResponse::decode(call.message().await.unwrap()).unwrap();
    assert!(format!("{answer:?}").contains("AX1"), "the input is empty: {answer:?}");
}
