//! A client of the session, and the person who knows what nobody else can know.

use ax_client::Client;
use ax_proto::v1;
use ax_proto::v1::event::Kind;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The session that all works in.
const SESSION: &str = "boxes";
/// How long an execution is waited for.
pub(crate) const REST_MAX: Duration = Duration::from_secs(120);

/// Hands in the question.
pub(crate) async fn submit(client: &Client, agent: &str) {
    let text = "How many boxes do we have?".to_owned();
    let body = Some(v1::Body { body: Some(v1::body::Body::Text(text)) });
    let kind = v1::PartKind::Text.into();
    let part = v1::Part { kind, media_type: "text/plain".into(), name: String::new(), body };
    let request = v1::SubmitRequest {
        session: SESSION.into(),
        agent: agent.to_owned(),
        parts: vec![part],
        ..Default::default()
    };
    client.submit(request).await.unwrap();
}

/// Waits until the session has an end.
pub(crate) async fn rest(client: &Client) {
    let began = Instant::now();
    loop {
        let status = status(client).await;
        match status.state() {
            v1::State::Completed => return,
            v1::State::Failed => panic!("{status:?}"),
            _ => assert!(began.elapsed() < REST_MAX, "it does not end: {status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Says what became of calls that nobody else knows of; counts them.
pub(crate) async fn answer(client: Client, file: PathBuf, asked: Arc<AtomicU64>) {
    use v1::answer::{Answer, Choice};
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let status = status(&client).await;
        let Some(ask) = status.asks.first() else { continue };
        assert!(ask.prompt.contains("What became of it?"), "{ask:?}");
        let sent = effects(&file).iter().filter(|line| line.starts_with("send")).count();
        let events = events(&client).await;
        let steps: BTreeSet<_> = events.iter().filter_map(sending).collect();
        // All but the one that is asked about are known to have come to their end.
        let choice = if sent == steps.len() { "completed" } else { "retry" };
        let choice = Choice { choice: choice.into(), text: "\"it is on its way\"".into() };
        let request = v1::AnswerRequest {
            session: SESSION.into(),
            ask: ask.ask,
            answer: Some(v1::Answer { answer: Some(Answer::Choice(choice)) }),
            ..Default::default()
        };
        client.answer(request).await.unwrap();
        asked.fetch_add(1, Ordering::Relaxed);
    }
}

/// The key of a step that must not happen twice, if the event begins one.
fn sending(event: &v1::Event) -> Option<&str> {
    match &event.kind {
        Some(Kind::StepStarted(step)) if step.effect() == v1::EffectClass::Once => Some(&step.step),
        _ => None,
    }
}

async fn status(client: &Client) -> v1::Status {
    let request = v1::GetSessionRequest { session: SESSION.into(), ..Default::default() };
    client.get_session(request).await.unwrap().session.unwrap().status.unwrap()
}

/// All events of the session.
pub(crate) async fn events(client: &Client) -> Vec<v1::Event> {
    let request =
        v1::ListEventsRequest { session: SESSION.into(), limit: 1_000, ..Default::default() };
    client.list_events(request).await.unwrap().events
}

/// What was done to the world so far.
pub(crate) fn effects(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
