//! `ax run`: an input, and what comes of it.

use super::serve;
use crate::args::{Policy, RunArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::link::{Context, Link, Need};
use crate::view::json;
use crate::view::session::sandbox;
use crate::watch::{Patience, Watch};
use crate::{input, manifest};
use ax_proto::v1;
use std::io;
use std::io::IsTerminal as _;

pub(crate) async fn run(cx: &Context, args: RunArgs) -> Result<Exit, Failure> {
    check(&args)?;
    if args.detach {
        serve::ensure(cx).await?;
    }
    let link = cx.link(Need::Run).await?;
    let done = run_on(cx, &link, args).await;
    let closed = link.close().await;
    let exit = done?;
    closed?;
    Ok(exit)
}

/// What can be said to be wrong before anything is opened.
fn check(args: &RunArgs) -> Result<(), Failure> {
    if args.session.is_none() && args.agent.is_none() && args.manifest.is_none() {
        return Err(Failure::usage("neither an agent nor a session is named").hint(
            "name one with --agent or --session, or a manifest with -f; `ax agent init` writes one",
        ));
    }
    if args.input.is_empty() && args.file.is_empty() && io::stdin().is_terminal() {
        return Err(Failure::usage("the input is empty")
            .hint("say it in the arguments, in a file with --file, or on standard input"));
    }
    Ok(())
}

async fn run_on(cx: &Context, link: &Link, args: RunArgs) -> Result<Exit, Failure> {
    let client = &link.client;
    let agent = match &args.manifest {
        Some(path) => manifest::apply(client, path).await?.0.name,
        None => args.agent.unwrap_or_default(),
    };
    let parts = input::parts(client, &args.input, &args.file).await?;
    let request = v1::SubmitRequest {
        session: args.session.unwrap_or_default(),
        agent,
        key: args.key.unwrap_or_default(),
        parts,
        policy: policy(args.policy).into(),
        title: args.title.unwrap_or_default(),
        ..Default::default()
    };
    let sent = client.submit(request).await?;
    if args.detach {
        if cx.out.json {
            cx.out.object(&json::typed(&sent, "submitted")?)?;
        } else {
            cx.out.line(&sent.session)?;
            cx.out.progress(&format!("a server works on it: ax follow {}", sent.session));
        }
        return Ok(Exit::Done);
    }
    introduce(cx, link, &sent).await?;
    let patience = match (args.no_wait, args.wait, cx.out.can_ask()) {
        (true, ..) => Patience::None,
        (_, true, _) => Patience::Waits,
        (.., true) => Patience::Asks,
        (.., false) => Patience::None,
    };
    Watch::new(cx, link, &sent, patience).run().await
}

fn policy(policy: Option<Policy>) -> v1::SubmitPolicy {
    match policy {
        None => v1::SubmitPolicy::Unspecified,
        Some(Policy::Enqueue) => v1::SubmitPolicy::Enqueue,
        Some(Policy::Reject) => v1::SubmitPolicy::Reject,
        Some(Policy::Interrupt) => v1::SubmitPolicy::Interrupt,
        Some(Policy::Branch) => v1::SubmitPolicy::Branch,
    }
}

/// Says which session it is, and what it runs in.
async fn introduce(cx: &Context, link: &Link, sent: &v1::SubmitResponse) -> Result<(), Failure> {
    if cx.out.json {
        return cx.out.object(&json::typed(sent, "submitted")?);
    }
    let session = sent.session.clone();
    let request = v1::GetSessionRequest { session, ..Default::default() };
    let shown = link.client.get_session(request).await?.session.unwrap_or_default();
    let agent = format!("{}@{}", shown.agent, shown.agent_version);
    let sandbox = sandbox(&shown.sandbox);
    cx.out.progress(&format!("session {}  agent {agent}  sandbox: {sandbox}", shown.id));
    if sent.branched {
        cx.out.notice(&format!("the session is busy: the input went to the branch {}", shown.id));
    }
    if sent.duplicate {
        cx.out.progress("the input was recorded before: this is what came of it");
    }
    Ok(())
}
