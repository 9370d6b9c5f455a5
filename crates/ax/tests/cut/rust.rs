//! The Rust client, over gRPC.

use super::check::Seen;
use super::plan::Session;
use super::text::{ends, text};
use ax_client::{Client, Credentials, Item, Patience};
use ax_proto::v1;
use serde_json::Value;

/// A client that gives up late.
pub(crate) fn client(url: &str) -> Client {
    let patience = Patience {
        outage_millis_max: 60_000,
        pause_millis_min: 5,
        pause_millis_max: 100,
        silence_millis_max: 20_000,
    };
    let address = url.parse().unwrap();
    Client::at(&address, &Credentials::default(), "default").unwrap().patient(patience)
}

/// Sends an input; returns its position.
pub(crate) async fn submit(
    client: &Client,
    session: &str,
    program: &Value,
    key: String,
) -> Result<u64, String> {
    let body = v1::Body { body: Some(v1::body::Body::Text(program.to_string())) };
    let part = v1::Part {
        kind: v1::PartKind::Text.into(),
        media_type: "text/plain".into(),
        name: String::new(),
        body: Some(body),
    };
    let request = v1::SubmitRequest {
        session: session.to_owned(),
        agent: "streamer".into(),
        key,
        parts: vec![part],
        ..Default::default()
    };
    let done = client.submit(request).await;
    Ok(done.map_err(|error| format!("submitting to {session}: {error:?}"))?.seq)
}

/// Follows a session until all its executions have ended; meanwhile sends its inputs, after the
/// first one, if that is its part.
pub(crate) async fn follow(url: String, session: Session) -> Result<Seen, String> {
    let client = client(&url);
    let submits = async {
        let mut acknowledged = Vec::new();
        if !session.python_submits {
            for (number, program) in session.inputs.iter().enumerate().skip(1) {
                let key = if number % 2 == 0 { String::new() } else { format!("key-{number}") };
                acknowledged.push(submit(&client, &session.name, program, key).await?);
            }
        }
        Ok::<_, String>(acknowledged)
    };
    let following = async {
        let request = v1::FollowRequest { session: session.name.clone(), ..Default::default() };
        let mut follow = client.follow(request);
        let mut events = Vec::new();
        while ends(&events) < session.inputs.len() {
            match follow.next().await {
                Ok(Some(Item::Event(event))) => events.push(*event),
                Ok(Some(Item::CaughtUp(_) | Item::Broken(_))) => {}
                other => {
                    return Err(format!("{} after {}: {other:?}", session.name, follow.last()));
                }
            }
        }
        Ok(events)
    };
    let (acknowledged, events) = futures::try_join!(submits, following)?;
    let text = text(&events);
    Ok(Seen { client: "Rust", session: session.name, events, text, acknowledged })
}
