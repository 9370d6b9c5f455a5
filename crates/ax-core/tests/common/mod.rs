//! The language of scenarios and worlds: one line is one thing that happens to a session.
//!
//! ```text
//! create [LIMIT=N…]              limits: submit queue attempts backoff=MIN..MAX restarts execution
//!                                idle step park tokens cost calls, and agent=NAME, seed=N
//! submit TEXT [key=K] [policy=P]
//! answer [ask_N] approve | deny:WHY | choice:NAME[:TEXT] | text:TEXT
//! signal NAME [key=K] [json=J]     cancel [exec_N] [queued] [why=TEXT]
//! rename TEXT    checkpoint [NAME]    delete    branch carry|drop
//! [exec_N/attempt_N] > FRAME     from the harness of the running attempt, or of this one
//! [exec_N/attempt_N] gone        it is gone without a word
//! saved NAME    unsaved          the runtime kept the files as NAME, or could not
//! save NAME [at=N]               a client changed the files, or had them made as at N
//! recover    tick    wait MILLIS    back MILLIS (the clock is set back)
//! manual                         from here on nothing is durable until `persisted [N]`
//! crash                          loses what is not durable, replays and recovers
//! ```
//!
//! A word `''` is empty.
//!
//! Frames: `heartbeat`, `delta BLOCK TEXT`, `output TEXT [key=K] [block=B]`,
//! `begin KEY CLASS [tool|model|user] [name=N] [digest=N] [limit=N]`,
//! `done KEY [JSON] [tokens=N] [cost=N] [calls=N]`, `failed KEY [CODE]`,
//! `ask KEY approval|choice|text [of=A,B] [expires=N]`, `sleep KEY MILLIS`, `await KEY NAME`,
//! `note NAME [key=K]`, `mark KEY [NAME]`, `diverged KEY`, `end [JSON]`, `fail CODE [final]`.

mod frame;
mod limits;

use ax_core::id::{AskId, AttemptId, ExecId, Seq, SessionId};
use ax_core::session::{
    AgentRef, Answer, BlobRef, Body, Caller, Digest, Failure, Input, Part, Request, Saved, Session,
    SubmitPolicy,
};
use ax_core::time::Timestamp;

/// What a line asks for.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// Feed this.
    Feed(Box<Input>),
    /// Let time pass, and tick whenever something is due.
    Wait(u64),
    /// Set the clock back.
    Back(u64),
    /// This many of the events handed out are durable; all if absent.
    Persisted(Option<Seq>),
    /// Nothing becomes durable by itself any more.
    Manual,
    /// Lose what is not durable.
    Crash,
}

/// The words of a line: those with a `=` in them by name, the others in order.
pub(crate) struct Words<'a> {
    plain: Vec<&'a str>,
    named: Vec<(&'a str, &'a str)>,
}

impl<'a> Words<'a> {
    pub(crate) fn of(line: &'a str) -> Self {
        let mut words = Words { plain: Vec::new(), named: Vec::new() };
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some((name, value)) => words.named.push((name, value)),
                None if word == "''" => words.plain.push(""),
                None => words.plain.push(word),
            }
        }
        words
    }

    pub(crate) fn get(&self, at: usize) -> Option<&'a str> {
        self.plain.get(at).copied()
    }

    pub(crate) fn named(&self, name: &str) -> Option<&'a str> {
        self.named.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.named(name).map(|value| value.parse().unwrap())
    }
}

/// Returns a hash that stands for a number or a text.
pub(crate) fn digest(text: &str) -> Digest {
    let mut bytes = [0; 32];
    for (at, byte) in text.bytes().enumerate() {
        bytes[at % 32] ^= byte;
    }
    Digest(bytes)
}

/// Returns the snapshot of this name.
fn saved(words: &Words<'_>) -> Saved {
    let snapshot = BlobRef { hash: digest(words.get(1).unwrap()).0, bytes: 100 };
    Saved { snapshot, blobs: vec![snapshot], files: 1, bytes: 10 }
}

/// Reads a line.
pub(crate) fn parse(line: &str, session: &Session, now: Timestamp) -> Command {
    let (who, line) = match line.split_once(' ') {
        Some((who, rest)) if who.contains('/') => {
            let (exec, attempt) = who.split_once('/').unwrap();
            (Some((exec.parse().unwrap(), attempt.parse().unwrap())), rest)
        }
        _ => (session.state().running(), line),
    };
    let (exec, attempt) = who.unwrap_or((ExecId(1), AttemptId(1)));
    if let Some(frame) = line.strip_prefix("> ") {
        return feed(Input::Frame(exec, attempt, frame::parse(frame, now)));
    }
    let words = Words::of(line);
    let millis = || words.get(1).unwrap().parse().unwrap();
    match words.get(0).unwrap() {
        "gone" => {
            let failure =
                Failure { code: "exit_status".into(), message: "it exited with 1".into() };
            feed(Input::HarnessGone(exec, attempt, failure))
        }
        "recover" => feed(Input::Recover),
        "suspend" => feed(Input::Suspend),
        "saved" => feed(Input::Saved(Ok(saved(&words)))),
        "unsaved" => {
            let (code, message) = ("workspace_large".into(), "it is too large".into());
            feed(Input::Saved(Err(Failure { code, message })))
        }
        "tick" => feed(Input::Tick),
        "wait" => Command::Wait(millis()),
        "back" => Command::Back(millis()),
        "manual" => Command::Manual,
        "persisted" => Command::Persisted(words.get(1).map(|seq| Seq(seq.parse().unwrap()))),
        "crash" => Command::Crash,
        verb => {
            let caller = Caller { principal: "ann".into(), ..Caller::default() };
            feed(Input::Client(caller, request(verb, &words, session)))
        }
    }
}

fn feed(input: Input) -> Command {
    Command::Feed(Box::new(input))
}

fn request(verb: &str, words: &Words<'_>, session: &Session) -> Request {
    let text = |at| words.get(at).unwrap_or_default().to_owned();
    let key = words.named("key").map(Into::into);
    match verb {
        "create" => Request::Create {
            name: "s".into(),
            agent: AgentRef { name: words.named("agent").unwrap_or("bot").into(), version: 1 },
            limits: limits::parse(words),
            sandbox: "process".into(),
            seed: words.number("seed").unwrap_or(7),
        },
        "branch" => Request::Branch {
            parent: SessionId(1),
            at: session.state().last,
            carry_on: text(1) == "carry",
            seed: 8,
        },
        "submit" => Request::Submit {
            key,
            digest: digest(&text(1)),
            parts: vec![Part::text(text(1))],
            policy: words.named("policy").map(policy),
        },
        "answer" => {
            let ask: Option<AskId> = words.get(1).and_then(|word| word.parse().ok());
            let answer = answer(words.get(if ask.is_some() { 2 } else { 1 }).unwrap());
            Request::Answer { ask, answer, via: "cli".into() }
        }
        "signal" => {
            let payload = Body::Text(words.named("json").unwrap_or("null").into());
            let content = format!("{}{payload:?}", text(1));
            let digest = if key.is_some() { digest(&content) } else { Digest::default() };
            Request::Signal { name: text(1), key, digest, payload }
        }
        "record" => Request::Record {
            collection: text(1),
            key,
            digest: digest(&text(2)),
            parts: vec![Part::text(text(2))],
            replaces: words.plain.contains(&"replaces"),
            after: words.number("after").map(Seq),
        },
        "save" => Request::Save { saved: saved(words), rewound_to: words.number("at").map(Seq) },
        "cancel" => Request::Cancel {
            exec: words.get(1).and_then(|word| word.parse().ok()),
            queued: words.plain.contains(&"queued"),
            reason: words.named("why").unwrap_or_default().into(),
        },
        "rename" => Request::Rename { title: text(1) },
        "checkpoint" => Request::Checkpoint { name: text(1) },
        "delete" => Request::Delete,
        other => panic!("unknown command: {other}"),
    }
}

fn policy(word: &str) -> SubmitPolicy {
    match word {
        "enqueue" => SubmitPolicy::Enqueue,
        "reject" => SubmitPolicy::Reject,
        "interrupt" => SubmitPolicy::Interrupt,
        "branch" => SubmitPolicy::Branch,
        other => panic!("unknown policy: {other}"),
    }
}

fn answer(word: &str) -> Answer {
    let (kind, text) = word.split_once(':').unwrap_or((word, ""));
    match kind {
        "approve" => Answer::Approve,
        "deny" => Answer::Deny(text.into()),
        "text" => Answer::Text(text.into()),
        "choice" => {
            let (choice, text) = text.split_once(':').unwrap_or((text, ""));
            Answer::Choice(choice.into(), text.into())
        }
        other => panic!("unknown answer: {other}"),
    }
}
