//! What goes wrong on demand, and what the ledger says of it.

#![expect(clippy::unwrap_used, reason = "a test")]

mod common;

use ax_fakemodel::ledger::{self, Status};
use ax_fakemodel::{FakeModel, Options, Script};
use common::{Reply, get, post, prompted, send, start};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn ask(text: &str) -> Value {
    json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": text}]})
}

/// Asks a server that adds this fault to every answer.
async fn with_fault(fault: &str) -> (Reply, FakeModel) {
    let script = format!(r#"{{"version": 1, "turns": [{{"fault": {fault}}}]}}"#);
    let model = start(&script).await;
    let reply =
        post(&model, "/v1/messages", &ask("a text of some chunks, one after another")).await;
    (reply, model)
}

/// What became of the first request.
fn status(model: &FakeModel) -> Status {
    model.ledger()[0].status
}

#[tokio::test]
async fn a_stream_is_cut_after_so_many_chunks_and_is_paid() {
    let (reply, model) = with_fault(r#"{"cut_after_chunks": 4}"#).await;
    assert_eq!((reply.status, reply.whole, reply.events().len()), (200, false, 4));
    let entry = &model.ledger()[0];
    assert_eq!((entry.status, entry.is_paid()), (Status::Cut, true));
    assert!(entry.output_tokens > 0);
}

#[tokio::test]
async fn a_stream_is_cut_after_so_many_bytes() {
    let (reply, model) = with_fault(r#"{"cut_after_bytes": 777}"#).await;
    assert_eq!((reply.status, reply.whole, reply.body.len()), (200, false, 777));
    assert_eq!(status(&model), Status::Cut);
    let (reply, model) = with_fault(r#"{"cut_after_bytes": 0}"#).await;
    assert_eq!((reply.whole, reply.body.len(), status(&model)), (false, 0, Status::Cut));
    let (reply, model) = with_fault(r#"{"cut_after_bytes": 1000000}"#).await;
    assert!(reply.whole);
    assert_eq!(status(&model), Status::Answered);
}

#[tokio::test]
async fn a_refused_request_is_not_paid() {
    let fault = r#"{"status": 429, "retry_after_seconds": 7, "message": "later"}"#;
    let (reply, model) = with_fault(fault).await;
    assert_eq!((reply.status, reply.headers["retry-after"].as_str()), (429, "7"));
    let error = json!({"type": "rate_limit_error", "message": "later"});
    assert_eq!(reply.json()["error"], error);
    let entry = &model.ledger()[0];
    assert_eq!((entry.status, entry.is_paid(), entry.http_status), (Status::Refused, false, 429));
    let reply = post(&model, "/v1beta/models/g:generateContent", &json!({"contents": []})).await;
    assert_eq!(reply.json()["error"]["status"], "RESOURCE_EXHAUSTED");
}

#[tokio::test]
async fn the_second_try_succeeds_when_only_the_first_fails() {
    let model = start(
        r#"{"version": 1, "turns": [{"times": 1, "fault": {"status": 529}}, {"text": "fine"}]}"#,
    )
    .await;
    assert_eq!(post(&model, "/v1/messages", &ask("x")).await.status, 529);
    let second = post(&model, "/v1/messages", &ask("x")).await;
    assert_eq!((second.status, second.whole), (200, true));
    let totals = ledger::totals(&model.ledger());
    assert_eq!((totals.request_count, totals.paid_count, totals.refused_count), (2, 1, 1));
}

#[tokio::test]
async fn garbage_comes_where_it_is_wanted() {
    let (reply, _model) = with_fault(r#"{"garbage_after_chunks": 2}"#).await;
    assert!(reply.whole);
    let events = reply.events();
    assert!(events[2].1.as_str().unwrap().contains("not JSON"));
    assert!(events[3].1.is_object());
}

#[tokio::test]
async fn slow_bytes_arrive_all_the_same() {
    let (reply, model) = with_fault(r#"{"byte_delay_millis": 0, "cut_after_bytes": 60}"#).await;
    assert_eq!((reply.whole, reply.body.len()), (false, 60));
    let (reply, _model) = with_fault(r#"{"byte_delay_millis": 0}"#).await;
    assert!(reply.whole);
    assert_eq!(reply.events().pop().unwrap().0, "message_stop");
    assert_eq!(status(&model), Status::Cut);
}

#[tokio::test]
async fn a_hanging_answer_ends_when_the_client_goes_or_the_server_stops() {
    let script = r#"{"version": 1, "turns": [{"fault": {"hang_after_chunks": 2}}]}"#;
    let model = start(script).await;
    let mut stream = TcpStream::connect(model.addr()).await.unwrap();
    let body = ask("x").to_string();
    let head = format!("POST /v1/messages HTTP/1.1\r\nhost: t\r\ncontent-length: {}", body.len());
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
    let mut seen = String::new();
    while !seen.contains("event: ping") {
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer).await.unwrap();
        seen.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    assert_eq!(status(&model), Status::Open);
    drop(stream);
    while status(&model) == Status::Open {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&model), Status::Cut);

    let hanging = tokio::spawn({
        let address = model.addr();
        async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            drop(stream.read_to_end(&mut rest).await);
            rest
        }
    });
    while model.ledger().len() < 2 {
        tokio::task::yield_now().await;
    }
    model.shutdown().await;
    hanging.await.unwrap();
}

#[tokio::test]
async fn a_request_brings_its_own_fault() {
    let model = prompted().await;
    let body = ask("x").to_string();
    let head = "POST /v1/messages HTTP/1.1\r\nx-fake-fault: {\"status\": 503}";
    assert_eq!(send(&model, head, body.as_bytes()).await.status, 503);
    let query = "/v1/messages?fake_fault=%7B%22cut_after_chunks%22%3A1%7D";
    assert!(!post(&model, query, &ask("x")).await.whole);
    let wrong = "POST /v1/messages HTTP/1.1\r\nx-fake-fault: {\"sttus\": 503}";
    assert_eq!(send(&model, wrong, body.as_bytes()).await.status, 400);
    assert_eq!(model.ledger().len(), 2);
}

#[tokio::test]
async fn the_same_request_gets_the_same_identifiers_in_another_run() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let model = prompted().await;
        let first = post(&model, "/v1/messages", &ask("x")).await.body;
        let second = post(&model, "/v1/messages", &ask("x")).await.body;
        assert_ne!(first, second, "a second occurrence has its own");
        runs.push((first, second));
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
async fn a_ledger_file_counts_over_the_death_of_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.jsonl");
    let script = r#"{"version": 1, "turns": [{"times": 2, "text": "early"}, {"text": "late"}]}"#;
    let open = || async {
        let script = Script::from_json(script).unwrap();
        let ledger_file = Some(path.clone());
        FakeModel::start(Options { script, ledger_file, ..Options::default() }).await.unwrap()
    };
    let model = open().await;
    post(&model, "/v1/messages", &ask("x")).await;
    post(&model, "/v1/messages?fake_fault=%7B%22cut_after_chunks%22%3A1%7D", &ask("x")).await;
    model.shutdown().await;
    let mut torn = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut torn, b"{\"seq\": 3, \"kin").unwrap();

    let model = open().await;
    let third = post(&model, "/v1/messages", &ask("x")).await;
    assert!(third.text().contains("late"), "the script goes on where it was");
    let entries = ledger::read(&path).unwrap();
    assert_eq!(entries, model.ledger());
    let seen: Vec<_> =
        entries.iter().map(|entry| (entry.seq, entry.occurrence, entry.status)).collect();
    let expect = [(1, 1, Status::Answered), (2, 2, Status::Cut), (3, 3, Status::Answered)];
    assert_eq!(seen, expect);
}

#[tokio::test]
async fn a_test_looks_into_the_server_and_steers_it() {
    let model = prompted().await;
    post(&model, "/v1/messages", &ask("first")).await;
    let ledger = get(&model, "/_ledger").await.json();
    assert_eq!(
        (&ledger["totals"]["paid_count"], &ledger["entries"][0]["prompt"]),
        (&json!(1), &json!("first"))
    );
    let script = json!({"version": 1, "turns": [{"text": "as told: {{prompt}}"}]});
    assert_eq!(post(&model, "/_script", &script).await.json()["turn_count"], 1);
    let body = json!({"messages": [{"role": "user", "content": "x"}]});
    let told = post(&model, "/v1/chat/completions", &body).await.json();
    assert_eq!(told["choices"][0]["message"]["content"], "as told: x");
    assert_eq!(get(&model, "/_script").await.json()["turns"][0]["text"], "as told: {{prompt}}");
    let wrong = post(&model, "/_script", &json!({"version": 1, "turns": 3})).await;
    assert_eq!(wrong.status, 400);
    assert_eq!(
        get(&model, "/_ledger?after=1").await.json()["entries"].as_array().unwrap().len(),
        1
    );
    post(&model, "/_reset", &json!({})).await;
    assert_eq!(model.ledger().len(), 0);
    assert_eq!(get(&model, "/_nothing").await.status, 404);
}

#[tokio::test]
async fn a_script_refuses_what_it_does_not_know() {
    let script = r#"{"version": 1, "otherwise": "refuse", "turns": [{"when": {"text": "yes"}}]}"#;
    let model = start(script).await;
    assert_eq!(post(&model, "/v1/messages", &ask("yes")).await.status, 200);
    let refused = post(&model, "/v1/messages", &ask("no")).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("no turn of the script fits"));
}
