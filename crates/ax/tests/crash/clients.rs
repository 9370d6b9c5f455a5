//! Clients of the crash test: they submit, follow and answer, and write down what they were told.

use super::dice::Dice;
use super::effects;
use super::program::{Carrier, Input, Op, Session};
use super::server;
use super::terminal;
use ax_client::{Client, Error, Follow, Item};
use ax_proto::v1;
use ax_proto::v1::event::Kind;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Where everything is.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) data: PathBuf,
    pub(crate) effects: PathBuf,
    /// When everything must have ended.
    pub(crate) deadline: Instant,
}

/// What became of a session, as its clients saw it.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) session: Session,
    pub(crate) id: String,
    /// Positions of the inputs, as they were acknowledged.
    pub(crate) acknowledged: Vec<u64>,
    /// Keys and positions of the signals, as they were acknowledged.
    pub(crate) signals: Vec<(String, u64)>,
    /// What each follower saw.
    pub(crate) followed: Vec<Vec<v1::Event>>,
    /// What `ax follow --json` printed, if it was run.
    pub(crate) printed: Vec<Value>,
}

/// Carries a session through to its end.
pub(crate) async fn drive(
    world: Arc<World>,
    session: Session,
    mut dice: Dice,
) -> Result<Report, String> {
    let client = server::client(&world.data);
    let first = &session.inputs[0];
    let (id, seq) = submit(&client, &session, first, &mut dice).await?;
    let here = |error: String| format!("{} ({id}): {error}", session.name);
    let mut tasks = JoinSet::new();
    let submits = tokio::spawn(submit_rest(client.clone(), session.clone(), dice.fork()));
    let end = session.inputs.len();
    let restless = dice
        .chance(30)
        .then(|| tokio::spawn(follow_restlessly(Arc::clone(&world), id.clone(), end, dice.fork())));
    let printing = dice
        .chance(15)
        .then(|| tokio::spawn(terminal::follow(Arc::clone(&world), id.clone(), end)));
    let mut follower = Follower::new(&client, &id, &world);
    while follower.ended < end {
        let event = follower.next().await.map_err(here)?;
        react(&world, &client, &id, &follower, event, &mut dice, &mut tasks);
    }
    let mut acknowledged = vec![seq];
    acknowledged.extend(submits.await.map_err(|error| error.to_string())??);
    let mut followed = vec![follower.events];
    if let Some(restless) = restless {
        followed.push(restless.await.map_err(|error| error.to_string())??);
    }
    let printed = match printing {
        Some(printing) => printing.await.map_err(|error| error.to_string())??,
        None => Vec::new(),
    };
    let mut signals = Vec::new();
    while let Some(done) = tasks.join_next().await {
        signals.extend(done.map_err(|error| error.to_string())??);
    }
    Ok(Report { session, id, acknowledged, signals, followed, printed })
}

async fn submit_rest(client: Client, session: Session, mut dice: Dice) -> Result<Vec<u64>, String> {
    let mut positions = Vec::new();
    for input in &session.inputs[1..] {
        positions.push(submit(&client, &session, input, &mut dice).await?.1);
    }
    Ok(positions)
}

/// Submits an input; sometimes without waiting for the first answer, sometimes twice. Returns the
/// session's id and the input's position.
async fn submit(
    client: &Client,
    session: &Session,
    input: &Input,
    dice: &mut Dice,
) -> Result<(String, u64), String> {
    sleep(Duration::from_millis(input.pause_millis)).await;
    let policy = match input.interrupts {
        true => v1::SubmitPolicy::Interrupt,
        false => v1::SubmitPolicy::Unspecified,
    };
    let request = v1::SubmitRequest {
        session: session.name.clone(),
        agent: session.carrier.agent().into(),
        key: input.key.clone(),
        parts: vec![text_part(&input.text)],
        policy: policy.into(),
        ..Default::default()
    };
    let said = |error: Error| format!("submitting {}: {error:?}", input.tag);
    if let Some(millis) = input.hang_up_millis {
        let first = client.submit(request.clone());
        if let Ok(answer) = timeout(Duration::from_millis(millis), first).await {
            answer.map_err(said)?;
        }
    }
    let answer = client.submit(request.clone()).await.map_err(said)?;
    if dice.chance(20) {
        let again = client.submit(request).await.map_err(said)?;
        let same = (&again.session, again.seq) == (&answer.session, answer.seq);
        if !again.duplicate || !same {
            return Err(format!("{} was acknowledged as {answer:?}, then {again:?}", input.tag));
        }
    }
    Ok((answer.session, answer.seq))
}

fn text_part(text: &str) -> v1::Part {
    v1::Part {
        kind: v1::PartKind::Text.into(),
        media_type: "text/plain".into(),
        name: String::new(),
        body: Some(v1::Body { body: Some(v1::body::Body::Text(text.into())) }),
    }
}

/// A follower that checks what the client promises: every event once, and in order.
struct Follower<'a> {
    follow: Follow,
    world: &'a World,
    events: Vec<v1::Event>,
    /// How many inputs are done with.
    ended: usize,
    /// The tags of the inputs, by position.
    tags: BTreeMap<u64, String>,
    /// The inputs of the executions.
    inputs: BTreeMap<u32, u64>,
}

impl<'a> Follower<'a> {
    fn new(client: &Client, id: &str, world: &'a World) -> Self {
        let follow = begin(client, id, 0);
        let (tags, inputs) = (BTreeMap::new(), BTreeMap::new());
        Self { follow, world, events: Vec::new(), ended: 0, tags, inputs }
    }

    async fn next(&mut self) -> Result<v1::Event, String> {
        let event = next_event(&mut self.follow, self.world.deadline).await?;
        let event = take(&mut self.events, &mut self.ended, event)?;
        match &event.kind {
            Some(Kind::InputReceived(input)) => {
                self.tags.insert(event.seq, tag_of(&text_of(&input.parts)));
            }
            Some(Kind::ExecutionStarted(started)) => {
                self.inputs.insert(event.execution, started.input);
            }
            _ => {}
        }
        Ok(event)
    }

    fn tag(&self, execution: u32) -> Option<&str> {
        self.tags.get(self.inputs.get(&execution)?).map(String::as_str)
    }
}

fn begin(client: &Client, id: &str, after: u64) -> Follow {
    client.follow(v1::FollowRequest { session: id.into(), after, ..Default::default() })
}

async fn next_event(follow: &mut Follow, deadline: Instant) -> Result<v1::Event, String> {
    loop {
        let last = follow.last();
        let item = timeout_at(deadline, follow.next()).await;
        match item.map_err(|_| format!("nothing came after event {last}"))? {
            Ok(Some(Item::Event(event))) => return Ok(*event),
            Ok(Some(Item::CaughtUp(_) | Item::Broken(_))) => {}
            Ok(other) => return Err(format!("after event {last} the stream says {other:?}")),
            Err(error) => return Err(format!("after event {last} the stream says {error:?}")),
        }
    }
}

/// Takes an event that a follower was shown.
fn take(
    events: &mut Vec<v1::Event>,
    ended: &mut usize,
    event: v1::Event,
) -> Result<v1::Event, String> {
    let last = events.len() as u64;
    if event.seq != last + 1 {
        return Err(format!("event {} came after {last}", event.seq));
    }
    *ended += usize::from(is_end(&event) || is_taken_back(&event));
    events.push(event.clone());
    Ok(event)
}

/// Whether the event ends an execution.
pub(crate) fn is_end(event: &v1::Event) -> bool {
    matches!(
        event.kind,
        Some(
            Kind::ExecutionCompleted(_)
                | Kind::ExecutionFailed(_)
                | Kind::ExecutionCanceled(_)
                | Kind::ExecutionTimedOut(_)
        )
    )
}

/// Whether the event takes an input back that waited: another one interrupted.
pub(crate) fn is_taken_back(event: &v1::Event) -> bool {
    matches!(event.kind, Some(Kind::InputCanceled(_)))
}

/// Follows with one client after the other, each from where the one before was.
async fn follow_restlessly(
    world: Arc<World>,
    id: String,
    end: usize,
    mut dice: Dice,
) -> Result<Vec<v1::Event>, String> {
    let (mut events, mut ended) = (Vec::new(), 0);
    while ended < end {
        let client = server::client(&world.data);
        let mut follow = begin(&client, &id, events.len() as u64);
        for _ in 0..dice.between(1, 15) {
            let event = next_event(&mut follow, world.deadline).await?;
            take(&mut events, &mut ended, event)?;
            if ended == end {
                break;
            }
        }
    }
    Ok(events)
}

/// Does what a person would do about an event.
fn react(
    world: &Arc<World>,
    client: &Client,
    id: &str,
    follower: &Follower<'_>,
    event: v1::Event,
    dice: &mut Dice,
    tasks: &mut JoinSet<Result<Vec<(String, u64)>, String>>,
) {
    let (world, client, id) = (Arc::clone(world), client.clone(), id.to_owned());
    match event.kind {
        Some(Kind::AskRaised(ask)) => {
            let tag = follower.tag(event.execution).unwrap_or_default().to_owned();
            let (pause, again) = (dice.between(0, 150), dice.chance(50));
            tasks.spawn(async move {
                sleep(Duration::from_millis(pause)).await;
                answer(&world, &client, &id, &tag, &ask, again).await?;
                Ok(Vec::new())
            });
        }
        Some(Kind::SignalAwaited(awaited)) => {
            let pause = dice.between(0, 150);
            tasks.spawn(async move {
                sleep(Duration::from_millis(pause)).await;
                let key = format!("signal-{}", awaited.name);
                let request = v1::SignalRequest {
                    session: id,
                    name: awaited.name,
                    key: key.clone(),
                    payload: "{}".into(),
                    ..Default::default()
                };
                let answer = client.signal(request).await;
                let answer = answer.map_err(|error| format!("signaling {key}: {error:?}"))?;
                Ok(vec![(key, answer.seq)])
            });
        }
        _ => {}
    }
}

/// Answers a question: an approval, or what became of a step, as its file says.
async fn answer(
    world: &World,
    client: &Client,
    id: &str,
    tag: &str,
    ask: &v1::AskRaised,
    again: bool,
) -> Result<(), String> {
    use v1::answer::{Answer, Approve, Choice};
    let answer = if ask.about.is_empty() {
        Answer::Approve(Approve {})
    } else {
        let lines = effects::read(&world.effects, id);
        let done = lines.iter().any(|line| line.tag == tag && line.key == ask.about);
        let choice = match (done, again) {
            (true, _) => "completed",
            (false, true) => "retry",
            (false, false) => "failed",
        };
        Answer::Choice(Choice { choice: choice.into(), text: String::new() })
    };
    let request = v1::AnswerRequest {
        session: id.into(),
        ask: ask.ask,
        answer: Some(v1::Answer { answer: Some(answer) }),
        via: "crash test".into(),
        ..Default::default()
    };
    loop {
        match client.answer(request.clone()).await {
            Ok(_) => return Ok(()),
            // The execution was interrupted.
            Err(error) if error.code == "AX1009" => return Ok(()),
            Err(error) if error.broken => sleep(Duration::from_millis(20)).await,
            Err(error) => return Err(format!("answering ask_{} of {tag}: {error:?}", ask.ask)),
        }
        if Instant::now() > world.deadline {
            return Err(format!("ask_{} of {tag} cannot be answered", ask.ask));
        }
    }
}

/// The text of an input.
pub(crate) fn text_of(parts: &[v1::Part]) -> String {
    let bodies = parts.iter().filter_map(|part| part.body.as_ref()?.body.as_ref());
    let texts = bodies.map(|body| match body {
        v1::body::Body::Text(text) => text.as_str(),
        v1::body::Body::Blob(_) => "",
    });
    texts.collect()
}

/// The tag of an input, by its text.
pub(crate) fn tag_of(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(program) => program["tag"].as_str().unwrap_or_default().to_owned(),
        Err(_) => text.split(' ').next().unwrap_or_default().to_owned(),
    }
}

/// The signals of an input, so that the log can be asked for them.
pub(crate) fn signal_keys(input: &Input) -> Vec<String> {
    let names = input.ops.iter().filter_map(|op| match op {
        Op::Signal { name, .. } => Some(format!("signal-{name}")),
        _ => None,
    });
    names.collect()
}

/// Whether the harness of a session is one of our own programs.
pub(crate) fn is_ours(carrier: Carrier) -> bool {
    carrier != Carrier::Builtin
}
