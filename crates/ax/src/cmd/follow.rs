//! `ax follow` and `ax events`.

use crate::args::{EventsArgs, FollowArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::link::{Context, Link, Need};
use crate::out::Style;
use crate::time::time_of_day;
use crate::view::session::{exit_of, how_to_answer};
use crate::view::transcript::Transcript;
use crate::view::{describe::describe, json};
use ax_client::Item;
use ax_proto::v1;
use ax_server::Kinds;

/// How many events are asked for at a time.
const PAGE_EVENTS: u32 = 1_000;

pub(crate) async fn follow(cx: &Context, args: FollowArgs) -> Result<Exit, Failure> {
    let link = cx.link(Need::Run).await?;
    let done = follow_on(cx, &link, args).await;
    let closed = link.close().await;
    let exit = done?;
    closed?;
    Ok(exit)
}

async fn follow_on(cx: &Context, link: &Link, args: FollowArgs) -> Result<Exit, Failure> {
    let mut interrupts = Interrupts::new()?;
    let mut transcript = Transcript::new(cx.out, link.client.clone(), true);
    let session = args.session.clone();
    let mut follow = link.client.follow(v1::FollowRequest {
        session: args.session,
        after: args.after,
        until_idle: args.until_idle,
        no_deltas: args.no_deltas,
        ..Default::default()
    });
    loop {
        let item = tokio::select! {
            item = follow.next() => item?,
            _terminated = interrupts.next() => {
                transcript.end_line()?;
                let last = follow.last();
                cx.out.notice(&format!("goes on with: ax follow {session} --after {last}"));
                return Ok(Exit::Interrupted);
            }
        };
        match item {
            Some(Item::Event(event)) => transcript.show(&event).await?,
            Some(Item::CaughtUp(_)) => {}
            Some(Item::Broken(error)) => {
                transcript.end_line()?;
                cx.out.notice(&format!("{}: trying again", error.message));
            }
            Some(Item::End(end)) => {
                transcript.end_line()?;
                return ended(cx, &session, &end);
            }
            None => return Ok(Exit::Unavailable),
        }
    }
}

fn ended(cx: &Context, session: &str, end: &v1::FollowEnd) -> Result<Exit, Failure> {
    if cx.out.json {
        cx.out.object(&json::typed(end, "end")?)?;
    }
    let Some(status) = &end.status else {
        cx.out.notice("the session was deleted");
        return Ok(Exit::Done);
    };
    for ask in &status.asks {
        cx.out.notice(&format!("waits for an answer to ask_{}: {}", ask.ask, ask.prompt));
        cx.out.notice(&format!("  {}", how_to_answer(session, ask)));
    }
    Ok(exit_of(status))
}

pub(crate) async fn events(cx: &Context, args: EventsArgs) -> Result<Exit, Failure> {
    let link = cx.link(Need::Record).await?;
    let done = events_on(cx, &link, args).await;
    let closed = link.close().await;
    done.and(closed).map(|()| Exit::Done)
}

async fn events_on(cx: &Context, link: &Link, args: EventsArgs) -> Result<(), Failure> {
    let mut left = args.limit.unwrap_or(u64::MAX);
    let kinds = Kinds::parse(&args.kind).map_err(|error| {
        let hint = "name kinds such as output.message, or groups such as step";
        Failure::usage(error.message).hint(hint)
    })?;
    // Without a filter no more is read than is shown.
    let most = if args.kind.is_empty() { left } else { u64::MAX };
    each_event(link, &args.session, args.after, most, |event| {
        if left > 0 && kinds.has(event) {
            left -= 1;
            cx.out.line(&line(cx, event)?)?;
        }
        Ok(left > 0)
    })
    .await
}

/// Reads events page by page, `most` of them, as long as whoever takes them wants more.
pub(crate) async fn each_event(
    link: &Link,
    session: &str,
    mut after: u64,
    most: u64,
    mut take: impl FnMut(&v1::Event) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let mut left = most;
    while left > 0 {
        let limit = u32::try_from(left).unwrap_or(u32::MAX).min(PAGE_EVENTS);
        let session = session.to_owned();
        let request = v1::ListEventsRequest { session, after, limit, ..Default::default() };
        let page = link.client.list_events(request).await?;
        for event in &page.events {
            if !take(event)? {
                return Ok(());
            }
        }
        let Some(last) = page.events.last().map(|event| event.seq) else { break };
        left = left.saturating_sub(page.events.len() as u64);
        after = last;
        if last >= page.last {
            break;
        }
    }
    Ok(())
}

/// An event on a line.
fn line(cx: &Context, event: &v1::Event) -> Result<String, Failure> {
    if cx.out.json {
        return Ok(json::event(event)?.to_string());
    }
    let (name, _) = json::kind(event)?;
    let at = cx.out.style(Style::Dim, &time_of_day(event.at_millis));
    let line = format!("{:>6}  {at}  {name:<20}  {}", event.seq, describe(event));
    Ok(line.trim_end().to_owned())
}
