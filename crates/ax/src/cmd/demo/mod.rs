//! `ax demo`: a real agent on a real server that is killed, twice, and what is left of it.
//!
//! Nothing is staged but the model: the server is another process of this program, its log is a
//! real one, and both kills are SIGKILL. What is claimed in the end is counted in the log, in the
//! ledger of the model and in the file that the agent's commands append to.

mod play;
mod stage;
mod verdict;

use crate::args::DemoArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::link::Context;
use crate::out::Style;
use crate::view::session::sandbox;
use play::Play;
use stage::Stage;
use std::time::Instant;
use verdict::Verdict;

pub(crate) async fn demo(cx: &Context, args: &DemoArgs) -> Result<Exit, Failure> {
    let began = Instant::now();
    let mut stage = Stage::set(cx, args).await?;
    say(cx, &format!("{} {}", bold(cx, "model   "), stage.model_words()))?;
    let why = stage.unsandboxed.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    say(cx, &format!("{} {}{why}", bold(cx, "sandbox "), sandbox(stage.sandbox())))?;
    say(cx, &format!("{} {}", bold(cx, "data    "), stage.data.root.display()))?;
    let played = Play::new(cx, &mut stage).run().await;
    let verdict = match played {
        Ok(played) => Verdict::of(&stage, played).await,
        Err(failure) => Err(failure),
    };
    stage.clear().await?;
    let verdict = verdict?;
    if cx.out.json {
        cx.out.object(&verdict.json(began.elapsed()))?;
    } else {
        for line in verdict.lines(cx, began.elapsed()) {
            cx.out.line(&line)?;
        }
    }
    Ok(if verdict.holds() { Exit::Done } else { Exit::Failed })
}

/// Tells what goes on; with `--json` or `--quiet` only the summary is printed.
fn say(cx: &Context, text: &str) -> Result<(), Failure> {
    if cx.out.json || cx.out.quiet { Ok(()) } else { cx.out.line(text) }
}

fn bold(cx: &Context, text: &str) -> String {
    cx.out.style(Style::Bold, text)
}
