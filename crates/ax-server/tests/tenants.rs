//! What one tenant learns of another: nothing, whichever wire is asked.

#![expect(clippy::unwrap_used, reason = "a test")]

#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use ax_proto::ax1;
use ax_server::auth::{Role, Settings};
use prost::Message as _;
use serde_json::{Value, json};
use support::guarded::{Guarded, NOBODYS, about, filled, methods, operations, submission};

#[tokio::test]
async fn another_namespaces_ids_answer_like_ids_that_do_not_exist() {
    let guarded = Guarded::new(Settings::default()).await;
    let mine = guarded.key("mine", Role::Admin, Some("mine"));
    let session = guarded.session.clone();
    let (mut compared, mut called) = (0, 0);
    for (method, path) in operations(&guarded).await {
        if !path.contains("{session}") {
            continue;
        }
        for query in ["", "?namespace=theirs"] {
            // Without an agent nothing is begun under the id.
            let body = json!({"parts": submission("")["parts"]});
            let body = (method != "GET" && method != "DELETE").then_some(match &path {
                path if path.ends_with("/inputs") => &body,
                _ => &Value::Null,
            });
            let body = body.map(|body| if body.is_null() { json!({}) } else { body.clone() });
            let mut answers = Vec::new();
            for id in [session.as_str(), NOBODYS] {
                let path = format!("{}{query}", filled(&path, id));
                let answer = guarded.send(&mine, &method, &path, body.as_ref()).await;
                let (status, code, message) = answer.error();
                answers.push((status, code, message.replace(id, "ID")));
            }
            assert_eq!(answers[0], answers[1], "{method} {path}{query}");
            // What is malformed is refused for another reason, which is no secret either.
            if answers[0].1 == "AX1002" {
                compared += 1;
            }
        }
    }
    assert!(compared >= 12, "{compared}");
    for method in methods().iter().filter(|method| method.contains(".Sessions/")) {
        for namespace in ["", "theirs"] {
            let mut answers = Vec::new();
            for id in [session.as_str(), NOBODYS] {
                let (status, text, code) =
                    guarded.call(&mine, method, &about(method, namespace, id)).await;
                answers.push((status, text.replace(id, "ID"), code));
            }
            assert_eq!(answers[0], answers[1], "{method}");
            if answers[0].2 == "AX1002" {
                called += 1;
            }
        }
    }
    assert!(called >= 12, "{called}");
    let listed = guarded.send(&mine, "GET", "/v1/sessions", None).await.json();
    assert!(!listed.to_string().contains(&session));
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn another_namespaces_contents_and_agents_are_not_there_either() {
    let guarded = Guarded::new(Settings::default()).await;
    let mine = guarded.key("mine", Role::Admin, Some("mine"));
    let path = "/v1/blobs?namespace=theirs";
    let lines = format!("authorization: Bearer {}\r\n", guarded.root);
    let put = guarded.world.send("POST", path, &lines, b"their content").await.json();
    let blob = put["id"].as_str().unwrap();
    let none = format!("blob_{}", "0".repeat(64));
    let mut answers = Vec::new();
    for id in [blob, &none] {
        let answer = guarded.send(&mine, "GET", &format!("/v1/blobs/{id}"), None).await;
        let (status, code, message) = answer.error();
        answers.push((status, code, message.replace(id, "ID")));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].1, "AX1015");
    // Naming a namespace tells nothing, not even whether it exists.
    let mut answers = Vec::new();
    for namespace in ["theirs", "nobodys"] {
        for path in ["/v1/sessions", "/v1/agents", "/v1/agents/done", "/v1/usage"] {
            let path = format!("{path}?namespace={namespace}");
            let answer = guarded.send(&mine, "GET", &path, None).await;
            answers.push((path.replace(namespace, "N"), answer));
        }
    }
    let mut seen = Vec::new();
    for (path, answer) in answers {
        let (status, code, message) = answer.error();
        assert_eq!((status, code.as_str()), (403, "AX4002"), "{path}");
        seen.push((path, message));
    }
    let (theirs, nobodys) = seen.split_at(4);
    assert_eq!(theirs, nobodys);
}

/// What each method of the AX wire is asked about a conversation.
fn asked_over_ax1(id: &str) -> Vec<(&'static str, Vec<u8>)> {
    let conversation_id = id.to_owned();
    let text = ax1::content::Type::Text(ax1::TextContent { text: "hello".into() });
    let content = Some(ax1::Content { r#type: Some(text) });
    let said = ax1::Message { role: "user".into(), content, internal_only: false };
    let listens = ax1::ExecRequest { conversation_id: id.into(), ..Default::default() };
    // Without an agent of that name nothing is begun under the id.
    let speaks =
        ax1::ExecRequest { inputs: vec![said], harness_id: "none".into(), ..listens.clone() };
    let file = ax1::ReadFileRequest { conversation_id: id.into(), path: "a.txt".into() };
    let delete = ax1::DeleteConversationRequest { conversation_id };
    let fork = |from: &str, to: &str| ax1::ForkConversationRequest {
        src_conversation_id: from.into(),
        dest_conversation_id: to.into(),
        ..Default::default()
    };
    vec![
        ("/ax.ExecutionService/Exec", listens.encode_to_vec()),
        ("/ax.ControllerService/Exec", speaks.encode_to_vec()),
        ("/ax.InteractionsService/CreateInteraction", listens.encode_to_vec()),
        ("/ax.FileService/ReadFile", file.encode_to_vec()),
        ("/ax.EventLogService/Fork", fork(id, "fresh").encode_to_vec()),
        ("/ax.ConversationService/ForkConversation", fork(&format!("{id}:1"), "x").encode_to_vec()),
        ("/ax.ConversationService/DeleteConversation", delete.encode_to_vec()),
    ]
}

#[tokio::test]
async fn another_namespaces_conversations_are_not_there_over_the_ax_wire_either() {
    let guarded = Guarded::new(Settings::default()).await;
    let mine = guarded.key("mine", Role::Admin, Some("mine"));
    let (theirs, nobodys) = (asked_over_ax1(&guarded.session), asked_over_ax1(NOBODYS));
    let mut told = 0;
    for ((method, about_theirs), (_, about_nobodys)) in theirs.into_iter().zip(nobodys) {
        let mut answers = Vec::new();
        for (id, asked) in [(&*guarded.session, about_theirs), (NOBODYS, about_nobodys)] {
            let (status, text, code) = guarded.call(&mine, method, &asked).await;
            assert_ne!(status, "0", "{method}");
            answers.push((status, text.replace(id, "ID"), code));
        }
        assert_eq!(answers[0], answers[1], "{method}");
        told += usize::from(answers[0].2 == "AX1002");
    }
    assert!(told >= 5, "{told}");
    let state = format!("/v1/sessions/{}?namespace=theirs", guarded.session);
    assert_eq!(guarded.send(&guarded.root, "GET", &state, None).await.status, 200);
}
