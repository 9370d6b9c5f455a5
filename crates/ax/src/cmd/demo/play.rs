//! The course of the demo.

use super::stage::Stage;
use super::{bold, say};
use crate::failure::Failure;
use crate::link::Context;
use crate::out::Style;
use crate::view::describe::{body, step_kind};
use crate::view::table::short;
use ax_client::Item;
use ax_engine::Code;
use ax_proto::v1;
use ax_proto::v1::event::Kind;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long the whole may take.
const PLAY_MAX: Duration = Duration::from_secs(300);
/// How often a file is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// What the agent is asked for.
const INPUT: &str = "Handle the order, strictly in this order, each as one tool call: \
    write a short plan to plan.md; run `echo 'card charged' >> effects.log`; \
    run `echo 'parcel sent' >> effects.log`; read effects.log; then say that you are done.";
/// What is asked in the branch.
const BRANCH_INPUT: &str = "In this branch: say in one sentence what was done so far.";

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Played {
    pub(super) session: String,
    pub(super) branch: String,
    pub(super) branched_at: u64,
    /// Positions, as the follower saw them.
    pub(super) seen: Vec<u64>,
    /// How often the server was killed in the middle of a step.
    pub(super) kills: u32,
    pub(super) completed: bool,
    pub(super) branch_completed: bool,
    /// The parent's events before and after there was a branch.
    pub(super) parent_last: (u64, u64),
}

pub(super) struct Play<'a> {
    cx: &'a Context,
    stage: &'a mut Stage,
    played: Played,
    models: u32,
    text: String,
}

impl<'a> Play<'a> {
    pub(super) fn new(cx: &'a Context, stage: &'a mut Stage) -> Self {
        Self { cx, stage, played: Played::default(), models: 0, text: String::new() }
    }

    pub(super) async fn run(mut self) -> Result<Played, Failure> {
        let played = timeout(PLAY_MAX, async {
            self.order().await?;
            self.branch().await
        });
        match played.await {
            Ok(played) => played.map(|()| self.played),
            Err(_) => Err(Failure::new(Code::Unavailable, "the demo did not come to its end")),
        }
    }

    /// Gives the agent its input and watches, with two accidents on the way.
    async fn order(&mut self) -> Result<(), Failure> {
        say(self.cx, &format!("{} {INPUT}\n", bold(self.cx, "input   ")))?;
        let request = submission(String::new(), "demo", INPUT);
        let sent = self.stage.client.submit(request).await?;
        self.played.session = sent.session.clone();
        let mut follow = self
            .stage
            .client
            .follow(v1::FollowRequest { session: sent.session, ..Default::default() });
        while let Some(item) = follow.next().await? {
            let Item::Event(event) = item else { continue };
            self.played.seen.push(event.seq);
            self.show(&event)?;
            match event.kind.as_ref() {
                Some(Kind::ExecutionCompleted(_)) => {
                    self.played.completed = true;
                    return Ok(());
                }
                Some(
                    Kind::ExecutionFailed(_)
                    | Kind::ExecutionCanceled(_)
                    | Kind::ExecutionTimedOut(_),
                ) => return Ok(()),
                Some(kind) => self.accident(kind).await?,
                None => {}
            }
        }
        Ok(())
    }

    /// Kills the server, once in the middle of an answer and once in the middle of a command.
    async fn accident(&mut self, kind: &Kind) -> Result<(), Failure> {
        match kind {
            Kind::StepStarted(step) if step.kind() == v1::StepKind::Model => self.models += 1,
            Kind::OutputDelta(delta)
                if self.played.kills == 0
                    && self.models >= 3
                    && delta.part() == v1::PartKind::Text =>
            {
                self.kill("in the middle of an answer of the model").await?;
            }
            Kind::StepStarted(step) if self.strikes(step) => {
                // The command appends its line first, and then takes its time.
                while self.stage.effect_lines(&self.played.session).len() < 2 {
                    sleep(LOOK).await;
                }
                self.kill("in the middle of a command that must not run twice").await?;
            }
            Kind::AskRaised(ask) if !ask.about.is_empty() => self.answer(ask).await?,
            _ => {}
        }
        Ok(())
    }

    fn strikes(&self, step: &v1::StepStarted) -> bool {
        let request = step.request.as_ref().map(body).unwrap_or_default();
        self.stage.is_scripted() && self.played.kills == 1 && request.contains("sleep 20")
    }

    async fn kill(&mut self, when: &str) -> Result<(), Failure> {
        self.flush()?;
        let pid = self.stage.kill().await?;
        self.played.kills += 1;
        let words = format!("        ✗ kill -9 {pid}: the server is dead, {when}");
        say(self.cx, &self.cx.out.style(Style::Red, &words))?;
        say(self.cx, &self.cx.out.style(Style::Green, "        ✓ another one was started"))
    }

    /// Looks whether the effect of an interrupted command is there, and tells.
    async fn answer(&mut self, ask: &v1::AskRaised) -> Result<(), Failure> {
        let lines = self.stage.effect_lines(&self.played.session);
        let (choice, text) = if lines.iter().any(|line| line == "parcel sent") {
            ("completed", r#""the parcel was sent""#)
        } else {
            ("retry", "")
        };
        let words = format!("        ! I looked at effects.log, and answer: {choice}");
        say(self.cx, &self.cx.out.style(Style::Yellow, &words))?;
        let (choice, text) = (choice.to_owned(), text.to_owned());
        let choice = v1::answer::Answer::Choice(v1::answer::Choice { choice, text });
        let request = v1::AnswerRequest {
            session: self.played.session.clone(),
            ask: ask.ask,
            answer: Some(v1::Answer { answer: Some(choice) }),
            via: "demo".into(),
            ..Default::default()
        };
        self.stage.client.answer(request).await?;
        Ok(())
    }

    /// Makes a branch from before the first effect, and runs it.
    async fn branch(&mut self) -> Result<(), Failure> {
        let session = self.played.session.clone();
        let before = self.last(&session).await?;
        let at = self.branch_point(&session).await?;
        let request = v1::BranchRequest { session: session.clone(), at, ..Default::default() };
        let made = self.stage.client.branch(request).await?;
        self.played.branch = made.sessions.first().cloned().unwrap_or_default();
        self.played.branched_at = made.at;
        let words = format!("\n{} at {at}, before anything was charged", bold(self.cx, "branch  "));
        say(self.cx, &words)?;
        let request = submission(self.played.branch.clone(), "", BRANCH_INPUT);
        let sent = self.stage.client.submit(request).await?;
        let mut follow = self.stage.client.follow(v1::FollowRequest {
            session: sent.session,
            after: sent.seq,
            until_input: sent.seq,
            ..Default::default()
        });
        while let Some(item) = follow.next().await? {
            if let Item::Event(event) = item {
                self.show(&event)?;
                self.played.branch_completed |=
                    matches!(event.kind, Some(Kind::ExecutionCompleted(_)));
            }
        }
        self.played.parent_last = (before, self.last(&session).await?);
        Ok(())
    }

    /// The position before the step that had the first effect.
    async fn branch_point(&self, session: &str) -> Result<u64, Failure> {
        let session = session.to_owned();
        let request = v1::ListEventsRequest { session, ..Default::default() };
        let events = self.stage.client.list_events(request).await?.events;
        let first = events.iter().find(|event| {
            matches!(&event.kind, Some(Kind::StepStarted(step))
                if step.kind() == v1::StepKind::Tool && step.name == "shell")
        });
        Ok(first.map_or(1, |event| event.seq - 1))
    }

    async fn last(&self, session: &str) -> Result<u64, Failure> {
        let session = session.to_owned();
        let request = v1::GetSessionRequest { session, ..Default::default() };
        Ok(self.stage.client.get_session(request).await?.session.map_or(0, |session| session.last))
    }

    /// Prints the trajectory: what is said, and what is done.
    fn show(&mut self, event: &v1::Event) -> Result<(), Failure> {
        let seq = event.seq;
        let line = match &event.kind {
            Some(Kind::OutputDelta(delta)) => {
                if delta.part() == v1::PartKind::Text {
                    self.text.push_str(&delta.text);
                }
                return Ok(());
            }
            Some(Kind::OutputMessage(_)) => return self.flush(),
            Some(Kind::StepStarted(step)) if step.kind() == v1::StepKind::Tool => {
                let request = step.request.as_ref().map(body).unwrap_or_default();
                let again = if step.again { " again" } else { "" };
                format!("{} {}{again} {}", step_kind(step), step.name, short(&request, 90))
            }
            Some(Kind::StepStarted(step)) if step.again => {
                format!("{} {} is asked again: its answer was cut", step_kind(step), step.name)
            }
            Some(Kind::AttemptStarted(_)) if event.attempt > 1 => {
                format!("attempt {}: what was completed is not done again", event.attempt)
            }
            Some(Kind::AttemptLost(lost)) => {
                self.text.clear();
                let void =
                    if lost.superseded.is_empty() { "" } else { ", its half answer is void" };
                format!("attempt {} was lost{void}", event.attempt)
            }
            Some(Kind::StepUnknown(_)) => "nobody knows whether the command was carried out".into(),
            Some(Kind::AskRaised(ask)) => format!("asks: {}", ask.prompt),
            Some(Kind::ExecutionCompleted(_)) => "completed".into(),
            Some(Kind::ExecutionFailed(failed)) => {
                let failure = failed.failure.as_ref();
                format!("failed: {}", crate::view::describe::failure(failure))
            }
            _ => return Ok(()),
        };
        let seq = self.cx.out.style(Style::Dim, &format!("{seq:>6}"));
        say(self.cx, &format!("{seq}  {line}"))
    }

    /// Prints what was said so far.
    fn flush(&mut self) -> Result<(), Failure> {
        let text = std::mem::take(&mut self.text);
        if text.is_empty() {
            return Ok(());
        }
        say(self.cx, &format!("        {}", self.cx.out.style(Style::Cyan, &format!("“{text}”"))))
    }
}

fn submission(session: String, agent: &str, text: &str) -> v1::SubmitRequest {
    let part = v1::Part {
        kind: v1::PartKind::Text.into(),
        media_type: "text/plain".into(),
        name: String::new(),
        body: Some(v1::Body { body: Some(v1::body::Body::Text(text.into())) }),
    };
    let agent = agent.to_owned();
    v1::SubmitRequest { session, agent, parts: vec![part], ..Default::default() }
}
