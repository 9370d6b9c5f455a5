//! `ax session …`.

use super::trajectory;
use crate::args::{ExportFormat, SessionArgs, SessionCommand, StateName};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::link::{Context, Link, Need};
use crate::out::Style;
use crate::time::rfc3339;
use crate::view::describe::bytes;
use crate::view::json;
use crate::view::session::{colored, facts, title, word};
use crate::view::table::{aligned, short};
use ax_engine::WaitState;
use ax_proto::v1;
use serde_json::json;
use std::io::IsTerminal as _;
use std::path::Path;

/// How many sessions are asked for at a time.
const PAGE_SESSIONS: u32 = 500;
/// How much of a title is listed, in characters.
const TITLE_CHARS_MAX: usize = 40;

pub(crate) async fn session(cx: &Context, args: SessionArgs) -> Result<Exit, Failure> {
    if let SessionCommand::Share { session, expires } = args.command {
        return super::auth::session(cx, session, expires).await.map(|()| Exit::Done);
    }
    let link = cx.link(Need::Record).await?;
    let done = match args.command {
        SessionCommand::Share { .. } => unreachable!("that is above"),
        SessionCommand::List { state, agent, limit } => {
            let states = state.into_iter().map(|state| number(state).into()).collect();
            let agent = agent.unwrap_or_default();
            list(cx, &link, states, agent, limit.unwrap_or(usize::MAX)).await
        }
        SessionCommand::Show { session, cost: true } => trajectory::show(cx, &link, &session).await,
        SessionCommand::Show { session, cost: false } => show(cx, &link, session).await,
        SessionCommand::Delete { sessions } => delete(cx, &link, sessions).await,
        SessionCommand::Rename { session, title } => {
            let request = v1::RenameSessionRequest { session, title, ..Default::default() };
            match link.client.rename_session(request).await {
                Ok(done) => told(cx, &json::typed(&done, "recorded")?, "renamed"),
                Err(error) => Err(error.into()),
            }
        }
        SessionCommand::Export { session, format: ExportFormat::Archive, output } => {
            export(cx, &link, &session, &output).await
        }
        SessionCommand::Export { session, format, output } => {
            trajectory::export(cx, &link, &session, format, &output).await
        }
        SessionCommand::Import { file, name } => {
            import(cx, &link, &file, &name.unwrap_or_default()).await
        }
    };
    let closed = link.close().await;
    done.and(closed).map(|()| Exit::Done)
}

const fn number(state: StateName) -> u8 {
    let state = match state {
        StateName::Ready => WaitState::Ready,
        StateName::Running => WaitState::Running,
        StateName::Retrying => WaitState::Retrying,
        StateName::WaitingAsk => WaitState::WaitingAsk,
        StateName::WaitingTimer => WaitState::WaitingTimer,
        StateName::WaitingSignal => WaitState::WaitingSignal,
        StateName::WaitingCapacity => WaitState::WaitingCapacity,
        StateName::Completed => WaitState::Completed,
        StateName::Failed => WaitState::Failed,
        StateName::Canceled => WaitState::Canceled,
        StateName::TimedOut => WaitState::TimedOut,
    };
    state as u8
}

/// Reads sessions page by page, and hands each page on.
pub(crate) async fn pages(
    link: &Link,
    mut request: v1::ListSessionsRequest,
    mut page: impl FnMut(Vec<v1::Session>) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    loop {
        let request_now = v1::ListSessionsRequest { limit: PAGE_SESSIONS, ..request.clone() };
        let listed = link.client.list_sessions(request_now).await?;
        let more = page(listed.sessions)?;
        if !more || listed.cursor.is_empty() {
            return Ok(());
        }
        request.cursor = listed.cursor;
    }
}

async fn list(
    cx: &Context,
    link: &Link,
    states: Vec<i32>,
    agent: String,
    limit: usize,
) -> Result<(), Failure> {
    let request = v1::ListSessionsRequest { states, agent, ..Default::default() };
    let (mut left, mut any) = (limit, false);
    pages(link, request, |mut sessions| {
        sessions.truncate(left);
        left -= sessions.len();
        if cx.out.json {
            for session in &sessions {
                cx.out.object(&json::typed(session, "session")?)?;
            }
            return Ok(left > 0);
        }
        let mut rows = Vec::with_capacity(sessions.len() + 1);
        if !any && !sessions.is_empty() && !cx.out.quiet {
            any = true;
            let heads = ["SESSION", "STATE", "AGENT", "EVENTS", "UPDATED", "TITLE"];
            rows.push(heads.map(str::to_owned).to_vec());
        }
        rows.extend(sessions.iter().map(row));
        for line in aligned(&rows) {
            cx.out.line(&line)?;
        }
        Ok(left > 0)
    })
    .await?;
    if !any && !cx.out.json && limit > 0 {
        cx.out.progress("there are no sessions");
    }
    Ok(())
}

fn row(session: &v1::Session) -> Vec<String> {
    vec![
        session.id.clone(),
        word(session.status.as_ref()).to_owned(),
        format!("{}@{}", session.agent, session.agent_version),
        session.last.to_string(),
        rfc3339(session.updated_at_millis / 1000 * 1000).replace(".000Z", "Z"),
        short(title(session), TITLE_CHARS_MAX),
    ]
}

async fn show(cx: &Context, link: &Link, session: String) -> Result<(), Failure> {
    let request = v1::GetSessionRequest { session, ..Default::default() };
    let session = link.client.get_session(request).await?.session.unwrap_or_default();
    if cx.out.json {
        return cx.out.object(&json::typed(&session, "session")?);
    }
    for (what, text) in facts(&session) {
        let text = if what == "state" { colored(&cx.out, &text) } else { text };
        cx.out.line(&format!("{} {text}", cx.out.style(Style::Bold, &format!("{what:<10}"))))?;
    }
    Ok(())
}

async fn delete(cx: &Context, link: &Link, sessions: Vec<String>) -> Result<(), Failure> {
    for session in sessions {
        let request = v1::DeleteSessionRequest { session: session.clone(), ..Default::default() };
        link.client.delete_session(request).await?;
        let object = json!({"type": "deleted", "session": session});
        told(cx, &object, &format!("deleted {session}"))?;
    }
    Ok(())
}

async fn export(cx: &Context, link: &Link, session: &str, output: &Path) -> Result<(), Failure> {
    if output == Path::new("-") {
        if std::io::stdout().is_terminal() {
            return Err(Failure::usage("an export is not text and does not fit a terminal")
                .hint("name a file with --output, or pipe it on"));
        }
        link.client.export(session, &mut tokio::io::stdout()).await?;
        return Ok(());
    }
    let failed = |error| Failure::file("written", output, &error);
    let part = output.with_extension("part");
    let mut file = tokio::fs::File::create(&part).await.map_err(failed)?;
    let written = link.client.export(session, &mut file).await;
    let size = match written {
        Ok(size) => size,
        Err(error) => {
            // What is there of it is of no use.
            drop(tokio::fs::remove_file(&part).await);
            return Err(error.into());
        }
    };
    file.sync_all().await.map_err(failed)?;
    tokio::fs::rename(&part, output).await.map_err(failed)?;
    let file = output.display().to_string();
    let object = json!({"type": "exported", "session": session, "file": file, "bytes": size});
    told(cx, &object, &format!("exported {} to {file}", bytes(size)))
}

async fn import(cx: &Context, link: &Link, file: &Path, name: &str) -> Result<(), Failure> {
    let made = if file == Path::new("-") {
        link.client.import(name, tokio::io::stdin()).await?
    } else {
        let opened = tokio::fs::File::open(file).await;
        let archive = opened.map_err(|error| Failure::file("read", file, &error))?;
        link.client.import(name, archive).await?
    };
    told(cx, &json::typed(&made, "imported")?, &made.session)
}

fn told(cx: &Context, object: &serde_json::Value, words: &str) -> Result<(), Failure> {
    if cx.out.json { cx.out.object(object) } else { cx.out.line(words) }
}
