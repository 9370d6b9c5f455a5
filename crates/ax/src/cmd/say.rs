//! `ax answer`, `ax signal`, `ax cancel`, `ax checkpoint`: something is recorded, nothing followed.

use crate::args::{AnswerArgs, CancelArgs, CheckpointArgs, SignalArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::link::{Context, Link, Need};
use crate::view::json;
use ax_core::id::{AskId, ExecId};
use ax_proto::v1;
use serde::Serialize;

pub(crate) async fn answer(cx: &Context, args: AnswerArgs) -> Result<Exit, Failure> {
    use v1::answer::{Answer, Approve, Choice, Deny};
    let ask = match &args.ask {
        None => 0,
        Some(ask) => {
            let parsed: Result<AskId, _> = ask.parse();
            parsed.map_err(|error| Failure::usage(error.to_string()))?.0
        }
    };
    let reason = args.reason.unwrap_or_default();
    let kind = args.answer;
    let answer = match (kind.approve, kind.choose, kind.text) {
        (true, ..) => Answer::Approve(Approve {}),
        (_, Some(choice), _) => Answer::Choice(Choice { choice, text: reason }),
        (.., Some(text)) => Answer::Text(text),
        _ => Answer::Deny(Deny { reason }),
    };
    let session = args.session;
    let request = v1::AnswerRequest {
        session: session.clone(),
        ask,
        answer: Some(v1::Answer { answer: Some(answer) }),
        via: "cli".into(),
        ..Default::default()
    };
    let link = cx.link(Need::Record).await?;
    let done = match link.client.answer(request).await {
        Ok(done) if done.duplicate => told(cx, &link, &done, "it was answered so before", "").await,
        Ok(done) => told(cx, &link, &done, "answered", &session).await,
        Err(error) => Err(error.into()),
    };
    finish(link, done).await
}

pub(crate) async fn signal(cx: &Context, args: SignalArgs) -> Result<Exit, Failure> {
    let parsed: Result<serde_json::Value, _> = serde_json::from_str(&args.payload);
    if let Err(error) = parsed {
        let hint = "a text is JSON when it is quoted: '\"text\"'";
        return Err(Failure::usage(format!("{:?} is not JSON", args.payload))
            .hint(hint)
            .because(&error));
    }
    let session = args.session;
    let request = v1::SignalRequest {
        session: session.clone(),
        name: args.name,
        key: args.key.unwrap_or_default(),
        payload: args.payload,
        ..Default::default()
    };
    let link = cx.link(Need::Record).await?;
    let done = match link.client.signal(request).await {
        Ok(done) if done.duplicate => told(cx, &link, &done, "it was recorded before", "").await,
        Ok(done) => told(cx, &link, &done, "recorded", &session).await,
        Err(error) => Err(error.into()),
    };
    finish(link, done).await
}

pub(crate) async fn cancel(cx: &Context, args: CancelArgs) -> Result<Exit, Failure> {
    let execution = match &args.execution {
        None => 0,
        Some(exec) => {
            let parsed: Result<ExecId, _> = exec.parse();
            parsed.map_err(|error| Failure::usage(error.to_string()))?.0
        }
    };
    let request = v1::CancelRequest {
        session: args.session,
        execution,
        queued: args.queued,
        reason: args.reason,
        ..Default::default()
    };
    let link = cx.link(Need::Record).await?;
    let done = match link.client.cancel(request).await {
        Ok(done) => told(cx, &link, &done, "canceled", "").await,
        Err(error) => Err(error.into()),
    };
    finish(link, done).await
}

pub(crate) async fn checkpoint(cx: &Context, args: CheckpointArgs) -> Result<Exit, Failure> {
    let request =
        v1::CheckpointRequest { session: args.session, name: args.name, ..Default::default() };
    let link = cx.link(Need::Record).await?;
    let done = match link.client.checkpoint(request).await {
        Ok(done) => {
            let words = format!("checkpoint at {}", done.seq);
            told(cx, &link, &done, &words, "").await
        }
        Err(error) => Err(error.into()),
    };
    finish(link, done).await
}

/// Says what was done; and if nobody carries the named session on, who can.
async fn told(
    cx: &Context,
    link: &Link,
    response: &impl Serialize,
    words: &str,
    session: &str,
) -> Result<(), Failure> {
    if cx.out.json {
        return cx.out.object(&json::typed(response, "recorded")?);
    }
    if !cx.out.quiet {
        cx.out.line(words)?;
    }
    if !session.is_empty() && link.is_embedded().await {
        cx.out
            .notice(&format!("no server runs: `ax follow {session}` or `ax serve` carries it on"));
    }
    Ok(())
}

async fn finish(link: Link, done: Result<(), Failure>) -> Result<Exit, Failure> {
    let closed = link.close().await;
    done.and(closed).map(|()| Exit::Done)
}
