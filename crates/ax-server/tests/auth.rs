//! Who may do what, over real sockets and both protocols: each test is an attack, or a rule that
//! somebody would like to get around.

#![expect(clippy::unwrap_used, reason = "a test")]

#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use ax_core::time::Timestamp;
use ax_engine::{Clock as _, SystemClock};
use ax_server::audit::Kind;
use ax_server::auth::limits::Quota;
use ax_server::auth::{Role, Settings};
use serde_json::json;
use support::guarded::{
    FREE, Guarded, as_it_is, filled, key, message, methods, operations, submission,
};

#[tokio::test]
async fn nobody_gets_in_without_a_credential_whatever_the_method() {
    let guarded = Guarded::new(Settings::default()).await;
    for (method, path) in operations(&guarded).await {
        let path = filled(&path, &guarded.session);
        let answer = guarded.send("", &method, &path, None).await;
        if ["/healthz", "/readyz"].contains(&path.as_str()) {
            continue;
        }
        let (status, code, _) = answer.error();
        assert_eq!((status, code.as_str()), (401, "AX4001"), "{method} {path}");
        assert!(answer.headers.contains("www-authenticate: bearer"), "{}", answer.headers);
    }
    for method in methods() {
        for token in ["", "nonsense"] {
            let sent = message("theirs", &guarded.session);
            let called = guarded.call(token, &method, &sent).await;
            let free = method == FREE;
            let refused = (called.0.as_str(), called.2.as_str()) == ("16", "AX4001");
            assert_eq!(refused, !free, "{method} {called:?}");
        }
    }
}

#[tokio::test]
async fn each_role_does_what_it_may_and_no_more() {
    let guarded = Guarded::new(Settings::default()).await;
    let session = guarded.session.clone();
    let viewer = guarded.key("viewer", Role::Viewer, Some("theirs"));
    let operator = guarded.key("operator", Role::Operator, Some("theirs"));
    let admin = guarded.key("admin", Role::Admin, Some("theirs"));
    let everywhere = guarded.key("reader", Role::Viewer, None);
    for (method, path) in operations(&guarded).await {
        let route = filled(&path, &session);
        let status = |token: String| {
            let (guarded, method, route) = (&guarded, &method, &route);
            async move { guarded.send(&token, method, route, None).await.status }
        };
        let (changes, of_the_server) = (
            method != "GET" && !path.ends_with("/validate"),
            path == "/v1/shutdown" || path.starts_with("/v1/agents") && method != "GET",
        );
        if path.ends_with("/follow") || method == "DELETE" && path.contains("{session}") {
            continue;
        }
        assert_eq!(status(viewer.clone()).await == 403, changes || path == "/v1/info", "{path}");
        assert_eq!(status(everywhere.clone()).await == 403, changes, "{path}");
        let refused = of_the_server || path == "/v1/info";
        assert_eq!(status(operator.clone()).await == 403, refused, "{path}");
        assert_eq!(status(admin.clone()).await == 403, refused, "{path}");
    }
    let path = format!("/v1/sessions/{session}");
    for token in [&viewer, &operator] {
        let (status, code, _) = guarded.send(token, "DELETE", &path, None).await.error();
        assert_eq!((status, code.as_str()), (403, "AX4002"));
    }
    assert_eq!(guarded.send(&admin, "DELETE", &path, None).await.status, 200);
}

#[tokio::test]
async fn wrong_expired_revoked_and_replayed_credentials_are_refused() {
    let guarded = Guarded::new(Settings::default()).await;
    let good = guarded.key("good", Role::Viewer, Some("theirs"));
    let get = |token: String| {
        let guarded = &guarded;
        async move {
            let answer = guarded.send(&token, "GET", "/v1/sessions", None).await;
            if answer.status == 200 {
                (200, String::new())
            } else {
                (answer.status, answer.error().1)
            }
        }
    };
    let unknown = (401, "AX4001".to_owned());
    let expired = (401, "AX4003".to_owned());
    assert_eq!(get(good.clone()).await.0, 200);
    let mut wrong = good.clone();
    wrong.replace_range(30..31, if &good[30..31] == "7" { "8" } else { "7" });
    for wrong in [&wrong, "axk_", "axk_x_y", "axs_", "axs_000", "x", "a.b.c", "Bearer"] {
        assert_eq!(get(wrong.to_owned()).await, unknown, "{wrong:?}");
    }
    let past = Some(Timestamp { millis: SystemClock.now().millis - 1 });
    assert_eq!(get(key(&guarded.keys, "old", Role::Viewer, None, past)).await, expired);
    guarded.keys.revoke("good", SystemClock.now()).unwrap();
    assert_eq!(get(good.clone()).await, unknown, "it was good a moment ago");
    let path = format!("/v1/sessions/{}", guarded.session);
    let soon = SystemClock.now().plus_millis(3_600_000);
    let share = guarded.share(&guarded.session, soon);
    assert_eq!(guarded.send(&share, "GET", &path, None).await.status, 200);
    guarded.shares.rotate().unwrap();
    assert_eq!(guarded.send(&share, "GET", &path, None).await.error().1, "AX4001");
    let late = guarded.share(&guarded.session, Timestamp { millis: 1 });
    assert_eq!(guarded.send(&late, "GET", &path, None).await.error().1, "AX4003");
    let two = format!("authorization: Bearer {}\r\n", guarded.root).repeat(2);
    let answer = guarded.world.send("GET", "/v1/sessions", &two, b"").await;
    assert_eq!(answer.error().1, "AX4001");
    let basic = "authorization: Basic cm9vdDpyb290\r\n";
    assert_eq!(guarded.world.send("GET", "/v1/sessions", basic, b"").await.error().1, "AX4001");
}

#[tokio::test]
async fn a_share_token_reads_its_session_and_does_nothing_else() {
    let guarded = Guarded::new(Settings::default()).await;
    let session = guarded.session.clone();
    let body = submission("theirs");
    let other = guarded.send(&guarded.root, "POST", "/v1/inputs", Some(&body)).await.json();
    let other = other["session"].as_str().unwrap();
    let soon = SystemClock.now().plus_millis(3_600_000);
    let token = guarded.share(&session, soon);
    for (method, path) in operations(&guarded).await {
        let own = filled(&path, &session);
        let reads = ["", "/events", "/follow"].map(|end| format!("/v1/sessions/{{session}}{end}"));
        if method == "GET" && reads.contains(&path) {
            let (status, code, message) =
                guarded.send(&token, "GET", &filled(&path, other), None).await.error();
            assert_eq!((status, code.as_str()), (404, "AX1002"), "{path}");
            assert_eq!(message, format!("there is no session {other}"));
        } else if !["/healthz", "/readyz", "/metrics"].contains(&path.as_str()) {
            let (status, code, _) = guarded.send(&token, &method, &own, None).await.error();
            assert_eq!((status, code.as_str()), (403, "AX4002"), "{method} {path}");
        }
    }
    for method in methods() {
        let reads = ["Follow", "ListEvents", "GetSession"];
        let reads = reads.iter().any(|read| method.ends_with(&format!("Sessions/{read}")));
        if !reads && method != FREE {
            let (status, _, code) = guarded.call(&token, &method, &message("", &session)).await;
            assert_eq!((status.as_str(), code.as_str()), ("7", "AX4002"), "{method}");
        }
    }
    // In an address it is good for the same, and no other credential is.
    let path = format!("/v1/sessions/{session}/events");
    let linked = guarded.send("", "GET", &format!("{path}?limit=1&share={token}"), None).await;
    assert_eq!(linked.json()["events"].as_array().unwrap().len(), 1);
    let twice = format!("{path}?share={token}&share={token}");
    assert_eq!(guarded.send("", "GET", &twice, None).await.error().1, "AX4001");
    assert_eq!(guarded.send(&guarded.root, "GET", &twice, None).await.error().1, "AX4001");
    for query in [format!("share={}", guarded.root), format!("key={}", guarded.root)] {
        let answer = guarded.send("", "GET", &format!("{path}?{query}"), None).await;
        assert_eq!(answer.error().1, "AX4001");
        assert!(!String::from_utf8_lossy(&answer.body).contains(&guarded.root[20..]));
    }
    let other = guarded.send("", "GET", &format!("{path}?access_token={token}"), None).await;
    assert!(other.error().1 == "AX4001" && other.error().2.contains("access_token"), "{other:?}");
    let posted = guarded.send("", "POST", &format!("/v1/inputs?share={token}"), Some(&body)).await;
    assert_eq!(posted.error().1, "AX4001");
}

#[tokio::test]
async fn who_asks_too_much_is_told_when_to_come_back() {
    let mut settings = Settings::default();
    settings.limits.caller = Quota { per_second: 1, burst: 3, calls: 8, streams: 1 };
    settings.limits.failures_per_second = 2;
    settings.limits.request_bytes = 1_000;
    let guarded = Guarded::new(settings).await;
    let (one, other) =
        (guarded.key("one", Role::Viewer, Some("theirs")), guarded.key("two", Role::Viewer, None));
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let answer = guarded.send(&one, "GET", "/v1/sessions", None).await;
        if answer.status == 429 {
            assert_eq!(answer.error().1, "AX4004");
            assert!(answer.headers.contains("retry-after: "), "{}", answer.headers);
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    assert_eq!(guarded.send(&other, "GET", "/v1/sessions", None).await.status, 200);
    let (status, _, code) =
        guarded.call(&one, "/agentexecutor.v1.Sessions/ListSessions", &[]).await;
    assert_eq!((status.as_str(), code.as_str()), ("8", "AX4004"));
    // Whoever tries keys is slowed down, and those who have one are not.
    for _ in 0..2 {
        guarded.send("wrong", "GET", "/v1/sessions", None).await;
    }
    assert_eq!(guarded.send("wrong", "GET", "/v1/sessions", None).await.error().1, "AX4004");
    assert_eq!(guarded.send(&other, "GET", "/v1/sessions", None).await.status, 200);
}

#[tokio::test]
async fn only_so_many_streams_are_open_at_a_time() {
    let mut settings = Settings::default();
    settings.limits.caller.streams = 1;
    settings.limits.request_bytes = 1_000;
    let guarded = Guarded::new(settings).await;
    let viewer = guarded.key("one", Role::Viewer, Some("theirs"));
    let path = format!("/v1/sessions/{}/follow", guarded.session);
    let lines = format!("authorization: Bearer {viewer}\r\n");
    let mut stream = guarded.world.follow(&path, &lines).await;
    stream.until("session.created").await;
    let second = guarded.send(&viewer, "GET", &path, None).await;
    assert_eq!((second.status, second.error().1.as_str()), (429, "AX4005"));
    drop(stream);
    // The place is free as soon as the server has seen that the first is gone.
    loop {
        let lines = format!("{lines}connection: close\r\n");
        let path = format!("{path}?untilIdle=true");
        if guarded.world.send("GET", &path, &lines, b"").await.status == 200 {
            break;
        }
        tokio::task::yield_now().await;
    }
    let operator = guarded.key("two", Role::Operator, Some("theirs"));
    let large = json!({"name": "x".repeat(1_000)});
    let path = format!("/v1/sessions/{}/signals", guarded.session);
    let refused = guarded.send(&operator, "POST", &path, Some(&large)).await;
    assert_eq!((refused.status, refused.error().1.as_str()), (413, "AX1013"));
    let lines = format!(
        "authorization: Bearer {operator}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n"
    );
    let chunk = format!("7d0\r\n{}\r\n0\r\n\r\n", " ".repeat(2_000));
    let refused = as_it_is(&guarded, "POST", &path, &lines, &chunk).await;
    assert!(["HTTP/1.1 400", "HTTP/1.1 413"].contains(&&refused[..12]), "{refused}");
}

#[tokio::test]
async fn acts_and_denials_are_recorded_without_any_secret() {
    let guarded = Guarded::new(Settings::default()).await;
    let viewer = guarded.key("eve", Role::Viewer, Some("theirs"));
    let path = format!("/v1/sessions/{}", guarded.session);
    assert_eq!(guarded.send(&viewer, "DELETE", &path, None).await.status, 403);
    assert_eq!(
        guarded
            .send(&guarded.root, "DELETE", &format!("{path}?namespace=theirs"), None)
            .await
            .status,
        200
    );
    guarded.send("axk_wrong", "GET", "/v1/sessions", None).await;
    let lines = guarded.auth.audit().read().unwrap();
    let find = |kind: Kind, what: &str| {
        let mut found = lines.iter().filter(|line| line.kind == kind && line.what.ends_with(what));
        found.next_back().unwrap_or_else(|| panic!("{what} is not in {lines:?}"))
    };
    let denied = find(Kind::Denied, "Sessions/DeleteSession");
    assert_eq!((denied.who.as_str(), denied.result.as_str()), ("key:eve", "AX4002"));
    assert!(denied.from.starts_with("127.0.0.1:"), "{denied:?}");
    assert_eq!(find(Kind::Asked, "Sessions/DeleteSession").who, "key:root");
    let done = find(Kind::Done, "Sessions/DeleteSession");
    assert_eq!((done.about.as_str(), done.result.as_str()), (guarded.session.as_str(), "ok"));
    assert_eq!(done.namespace, "theirs");
    assert_eq!(find(Kind::Denied, "Sessions/ListSessions").result, "AX4001");
    let text = format!("{lines:?}");
    for secret in [&viewer, &guarded.root] {
        assert!(!text.contains(&secret[17..]));
    }
}

#[tokio::test]
async fn an_act_that_cannot_be_recorded_is_not_carried_out() {
    let guarded = Guarded::new(Settings::default()).await;
    let audit = guarded.dir.path().join("audit");
    std::fs::remove_dir_all(&audit).unwrap();
    std::fs::write(&audit, "in the way").unwrap();
    let path = format!("/v1/sessions/{}?namespace=theirs", guarded.session);
    let (status, code, _) = guarded.send(&guarded.root, "DELETE", &path, None).await.error();
    assert_eq!((status, code.as_str()), (503, "AX4006"));
    assert_eq!(guarded.send(&guarded.root, "GET", &path, None).await.status, 200);
}

#[tokio::test]
async fn what_is_not_in_the_table_is_not_there() {
    let guarded = Guarded::new(Settings::default()).await;
    let viewer = guarded.key("eve", Role::Admin, Some("theirs"));
    let session = &guarded.session;
    for path in [
        "/v1/secrets".to_owned(),
        format!("/v1/sessions/{session}/"),
        format!("/v1//sessions/{session}"),
        format!("/v1/sessions/{session}/events/"),
        format!("/v1/sessions/../sessions/{session}"),
        format!("/V1/sessions/{session}"),
        "/agentexecutor.v1.Server/Shutdown".to_owned(),
        "/../../../../etc/passwd".to_owned(),
        "/v1/blobs/../../etc/passwd".to_owned(),
        "/v1/blobs/..%2f..%2fetc%2fpasswd".to_owned(),
        "/v1/blobs/%2e%2e%2f%2e%2e%2fetc%2fpasswd".to_owned(),
    ] {
        let answer = guarded.send(&viewer, "GET", &path, None).await;
        let (status, _, message) = answer.error();
        assert!([400, 404].contains(&status), "{path}: {answer:?}");
        assert!(!message.contains("root:"), "{message}");
    }
}
