//! Watching what comes of an input, and asking the person who watches.

use crate::ask::{Question, Terminal};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::link::{Context, Link};
use crate::view::describe::failure;
use crate::view::json;
use crate::view::session::how_to_answer;
use crate::view::transcript::Transcript;
use ax_client::{Follow, Item};
use ax_proto::v1;
use ax_proto::v1::event::Kind;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long a second interrupt is waited for.
const SECOND_INTERRUPT: Duration = Duration::from_millis(1_500);

/// What to do when the session waits for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// End.
    None,
    /// Wait until it is answered elsewhere.
    Waits,
    /// Ask here.
    Asks,
}

/// Watches an input to the end of its execution.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    cx: &'a Context,
    link: &'a Link,
    session: String,
    input: u64,
    patience: Patience,
    transcript: Transcript,
    /// The execution of the input, once it has begun.
    execution: Option<u32>,
    open: BTreeMap<u32, Question>,
    asked: Option<u32>,
    terminal: Terminal,
    /// When to detach, after the first interrupt.
    detach_at: Option<Instant>,
    canceling: bool,
}

enum Happened {
    Item(Option<Item>),
    Line(Option<String>),
    Interrupted,
    Terminated,
    Detach,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(
        cx: &'a Context,
        link: &'a Link,
        sent: &v1::SubmitResponse,
        patience: Patience,
    ) -> Self {
        Self {
            cx,
            link,
            session: sent.session.clone(),
            input: sent.seq,
            patience,
            transcript: Transcript::new(cx.out, link.client.clone(), false),
            execution: None,
            open: BTreeMap::new(),
            asked: None,
            terminal: Terminal::default(),
            detach_at: None,
            canceling: false,
        }
    }

    /// Watches until it is over, or until the person who watches has seen enough.
    pub(crate) async fn run(mut self) -> Result<Exit, Failure> {
        let mut interrupts = Interrupts::new()?;
        let mut follow = self.link.client.follow(v1::FollowRequest {
            session: self.session.clone(),
            after: self.input - 1,
            until_input: if self.patience == Patience::None { self.input } else { 0 },
            ..Default::default()
        });
        loop {
            let ended = match self.wait(&mut follow, &mut interrupts).await? {
                Happened::Item(Some(item)) => self.item(item).await?,
                // A follower that is over said so in its last item.
                Happened::Item(None) => Some(Exit::Unavailable),
                Happened::Line(line) => self.line(line).await?,
                Happened::Interrupted => self.interrupted().await?,
                Happened::Terminated | Happened::Detach => Some(self.detach().await?),
            };
            if let Some(exit) = ended {
                self.transcript.end_line()?;
                return Ok(exit);
            }
        }
    }

    async fn wait(
        &mut self,
        follow: &mut Follow,
        interrupts: &mut Interrupts,
    ) -> Result<Happened, Failure> {
        let detach_at = self.detach_at;
        let detach = async move {
            match detach_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let asking = self.asked.is_some();
        tokio::select! {
            biased;
            terminated = interrupts.next() => {
                Ok(if terminated { Happened::Terminated } else { Happened::Interrupted })
            }
            () = detach => Ok(Happened::Detach),
            line = self.terminal.line(), if asking => Ok(Happened::Line(line)),
            item = follow.next() => Ok(Happened::Item(item?)),
        }
    }

    async fn item(&mut self, item: Item) -> Result<Option<Exit>, Failure> {
        match item {
            Item::Event(event) => {
                if self.concerns(&event) || self.cx.out.json {
                    self.transcript.show(&event).await?;
                }
                self.event(&event)
            }
            Item::CaughtUp(_) => {
                self.ask();
                Ok(None)
            }
            Item::Broken(error) => {
                self.cx.out.notice(&format!("{}: trying again", error.message));
                Ok(None)
            }
            Item::End(end) => self.rest(&end),
        }
    }

    /// Whether an event is of the session as a whole or of the execution of the input, and not of
    /// one that the input waits for.
    fn concerns(&mut self, event: &v1::Event) -> bool {
        if let Some(Kind::ExecutionStarted(started)) = &event.kind
            && started.input == self.input
        {
            self.execution = Some(event.execution);
        }
        event.execution == 0 || self.execution == Some(event.execution)
    }

    /// Follows the execution of the input; returns the exit code when it is over.
    fn event(&mut self, event: &v1::Event) -> Result<Option<Exit>, Failure> {
        let Some(kind) = &event.kind else { return Ok(None) };
        match kind {
            Kind::InputCanceled(canceled) if canceled.input == self.input => {
                self.tell("the input was taken back");
                return Ok(Some(Exit::Canceled));
            }
            Kind::SessionDeleted(_) => {
                self.tell("the session was deleted");
                return Ok(Some(Exit::Canceled));
            }
            Kind::AskRaised(ask) => {
                self.open.insert(ask.ask, Question::new(ask));
                if self.patience == Patience::Waits {
                    let (session, ask, prompt) = (&self.session, ask.ask, &ask.prompt);
                    self.tell(&format!("waits for an answer to ask_{ask}: {prompt}"));
                    self.tell(&format!("  ax session show {session} says how to answer"));
                }
                self.ask();
            }
            Kind::AskAnswered(v1::AskAnswered { ask, .. })
            | Kind::AskExpired(v1::AskExpired { ask }) => {
                self.open.remove(ask);
                if self.asked == Some(*ask) {
                    self.asked = None;
                    self.ask();
                }
            }
            _ if self.execution == Some(event.execution) => return Ok(self.ended(kind)),
            _ => {}
        }
        Ok(None)
    }

    fn ended(&self, kind: &Kind) -> Option<Exit> {
        match kind {
            Kind::ExecutionCompleted(_) => Some(Exit::Done),
            Kind::ExecutionFailed(failed) => {
                self.error(&format!("the agent failed: {}", failure(failed.failure.as_ref())));
                Some(Exit::Failed)
            }
            Kind::ExecutionCanceled(canceled) => {
                let reason = if canceled.reason.is_empty() { "" } else { ": " };
                self.tell(&format!("canceled{reason}{}", canceled.reason));
                Some(Exit::Canceled)
            }
            Kind::ExecutionTimedOut(timed_out) => {
                let limit = crate::time::span(timed_out.limit_millis);
                self.error(&format!("the agent took longer than {limit}"));
                Some(Exit::TimedOut)
            }
            _ => None,
        }
    }

    /// The follower saw what it waited for, and the execution is not over: a person is needed.
    fn rest(&mut self, end: &v1::FollowEnd) -> Result<Option<Exit>, Failure> {
        self.transcript.end_line()?;
        if self.cx.out.json {
            self.cx.out.object(&json::typed(end, "end")?)?;
        }
        if end.reason() == v1::follow_end::Reason::Deleted {
            self.tell("the session was deleted");
            return Ok(Some(Exit::Canceled));
        }
        let status = end.status.clone().unwrap_or_default();
        for ask in &status.asks {
            self.tell(&format!("waits for an answer to ask_{}: {}", ask.ask, ask.prompt));
            self.tell(&format!("  {}", how_to_answer(&self.session, ask)));
        }
        if status.asks.is_empty() {
            self.tell(&format!("waits for {}", status.waiting.join(", ")));
        }
        Ok(Some(Exit::Waiting))
    }

    /// Asks the first open question, if somebody is there to be asked.
    fn ask(&mut self) {
        let next = self.open.iter().next();
        if let (Patience::Asks, None, Some((ask, question))) = (self.patience, self.asked, next) {
            self.cx.out.prompt(&question.prompt());
            self.asked = Some(*ask);
        }
    }

    async fn line(&mut self, line: Option<String>) -> Result<Option<Exit>, Failure> {
        let Some(line) = line else {
            // The terminal is gone: wait for somebody else to answer.
            (self.patience, self.asked) = (Patience::Waits, None);
            return Ok(None);
        };
        let Some((ask, question)) = self.asked.and_then(|ask| Some((ask, self.open.get(&ask)?)))
        else {
            return Ok(None);
        };
        let answer = match question.read(&line) {
            Ok(answer) => answer,
            Err(wanted) => {
                self.cx.out.prompt(&wanted);
                return Ok(None);
            }
        };
        let request = v1::AnswerRequest {
            session: self.session.clone(),
            ask,
            answer: Some(answer),
            via: "cli".into(),
            ..Default::default()
        };
        match self.link.client.answer(request).await {
            // What comes next is told by the event of the answer.
            Ok(_) => Ok(None),
            Err(error) if !error.broken => {
                self.cx.out.notice(&error.message);
                self.asked = None;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn interrupted(&mut self) -> Result<Option<Exit>, Failure> {
        if self.detach_at.take().is_some() {
            // What is under way then is somebody else's: it is not ours to cancel.
            let Some(execution) = self.execution else {
                self.tell("the input still waits for its turn, and keeps it");
                return self.detach().await.map(Some);
            };
            self.canceling = true;
            self.tell("canceling");
            let reason = "interrupted".to_owned();
            let session = self.session.clone();
            let request = v1::CancelRequest { session, execution, reason, ..Default::default() };
            match self.link.client.cancel(request).await {
                Ok(_) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        if self.canceling {
            return Ok(Some(Exit::Interrupted));
        }
        self.transcript.end_line()?;
        self.tell("detaching; interrupt again to cancel the work");
        self.detach_at = Some(Instant::now() + SECOND_INTERRUPT);
        Ok(None)
    }

    async fn detach(&mut self) -> Result<Exit, Failure> {
        self.transcript.end_line()?;
        let follow = format!("ax follow {}", self.session);
        if self.link.is_embedded().await {
            self.tell(&format!(
                "no server runs, so the work stops here; it goes on with `{follow}` or `ax serve`"
            ));
        } else {
            self.tell(&format!("detached; the work goes on: `{follow}` shows it"));
        }
        Ok(Exit::Interrupted)
    }

    fn tell(&self, text: &str) {
        self.cx.out.notice(text);
    }

    fn error(&self, text: &str) {
        self.cx.out.error(text);
    }
}
