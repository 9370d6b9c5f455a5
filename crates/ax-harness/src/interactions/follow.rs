//! Beginning an interaction, and hearing it to its end over however many connections.

use super::client::{Begun, Cut, Refused, Stream};
use super::past::{create_key, intent_key, run_key};
use super::request::Request;
use super::run::Run;
use super::steps::Steps;
use super::wire::{Kind, Standing};
use super::{failure, request};
use crate::link::Stop;
use crate::turn::said;
use ax_core::session::{Body, EffectClass, Failure, Frame, StepKind, Usage};
use serde_json::{Value, json};
use std::pin::pin;
use std::time::{Duration, SystemTime};
use tokio::time::{sleep, timeout};

/// How often in a row something is tried in vain before the attempt fails.
const TRIES_MAX: u32 = 20;
/// How often an interaction is begun whose beginning was not answered.
const BEGUN_MAX: u32 = 2;
/// The pause before the second try; it doubles with each.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
/// The longest pause that the provider did not ask for.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How long an interaction may take, in milliseconds: 30 days.
const STEP_MILLIS_MAX: u64 = 30 * 24 * 60 * 60 * 1_000;
/// The longest that the provider is given to end an interaction.
const CANCEL_MAX: Duration = Duration::from_secs(10);

/// Counts what was tried in vain, in a row.
#[derive(Debug, Default)]
struct Tries(u32);

impl Tries {
    /// Returns how long to wait before the next; `None` if there is none.
    fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.0 += 1;
        let pause = BACKOFF_MIN.saturating_mul(1 << (self.0 - 1).min(16)).min(BACKOFF_MAX);
        // Spreads those who were refused at the same moment.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let spread = Duration::from_millis(u64::from(now.subsec_nanos() % 100));
        (self.0 < TRIES_MAX).then(|| asked.unwrap_or(pause + spread))
    }
}

/// An interaction that the log knows.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) id: String,
    /// Whether this session began it, and may end it.
    ours: bool,
    stream: Option<Stream>,
}

impl Run<'_> {
    /// Begins an interaction, or finds the one that an earlier attempt began. When this returns,
    /// the log knows its name.
    pub(super) async fn create(&mut self, turn: u32, request: Request) -> Result<Known, Stop> {
        let key = create_key(turn);
        match self.past.step(&key) {
            Some(Ok(result)) => return known(result, &self.session()),
            Some(Err(failure)) => {
                return Err(Stop::Failed { failure: failure.clone(), retry: false });
            }
            None => {}
        }
        let begin = Frame::StepBegin {
            step: key.clone(),
            kind: StepKind::Model,
            name: self.config.who().1.to_owned(),
            effect: EffectClass::Idempotent,
            digest: request.digest(self.config),
            request: None,
            prefix: None,
            limit_millis: None,
        };
        self.link.say(begin).await?;
        // Whoever finds it knows that what follows may have been paid.
        let intent = intent_key(turn);
        let (key_of_note, data) = (Some(intent.clone()), Body::Text("{}".into()));
        let name = "interactions.intent".into();
        self.link.say(Frame::Note { key: key_of_note, name, data }).await?;
        self.link.recorded(&intent).await?;
        let mut usage = Usage::default();
        let begun = self.begin(turn, request, &mut usage).await?;
        let result = match &begun {
            Ok((id, _)) => {
                let result = json!({"interaction": id, "session": self.session()});
                Ok(Body::Text(result.to_string()))
            }
            Err(failure) => Err(failure.clone()),
        };
        self.link.say(Frame::StepEnd { step: key.clone(), result, usage }).await?;
        self.link.recorded(&key).await?;
        let (id, stream) = begun.map_err(|failure| Stop::Failed { failure, retry: false })?;
        Ok(Known { id, ours: true, stream })
    }

    /// Asks until an interaction has begun; returns its name, or why there will be none.
    async fn begin(
        &mut self,
        turn: u32,
        mut request: Request,
        usage: &mut Usage,
    ) -> Result<Result<(String, Option<Stream>), Failure>, Stop> {
        let (mut tries, mut unknown) = (Tries::default(), 0);
        loop {
            let refused = match self.begin_once(&request).await? {
                Ok((id, stream)) => {
                    usage.model_calls += 1;
                    return Ok(Ok((id, stream)));
                }
                Err(refused) => refused,
            };
            // Some say of what they have forgotten that it is wrong, or nobody's business.
            let doubted = turn == 1 && matches!(refused.status, 400 | 403);
            if (refused.missing || doubted) && request.previous.is_some() {
                if turn > 1 {
                    let message = refused.failure.message;
                    return Ok(Err(failure("interaction_expired", message)));
                }
                self.forgotten(&mut request, &refused).await?;
                continue;
            }
            if refused.unknown {
                // It may have begun, and nobody knows its name: there is nothing to find it by.
                usage.model_calls += 1;
                unknown += 1;
                let data = json!({"why": refused.failure.message});
                self.note("interactions.begun_again", &data).await?;
                if unknown == BEGUN_MAX {
                    let message = format!(
                        "{BEGUN_MAX} times it is not known whether an interaction has begun: {}",
                        refused.failure.message
                    );
                    return Ok(Err(failure("interaction_unknown", message)));
                }
            }
            if !refused.again {
                return Ok(Err(refused.failure));
            }
            let Some(pause) = tries.next(refused.pause) else {
                return Err(Stop::Failed { failure: refused.failure, retry: true });
            };
            self.link.during(sleep(pause)).await?;
        }
    }

    /// The provider has forgotten what the session went on from: it is told as text.
    async fn forgotten(&mut self, request: &mut Request, why: &Refused) -> Result<(), Stop> {
        let lost = request.previous.take();
        let data = json!({"interaction": lost, "why": why.failure.message});
        self.note("interactions.lost", &data).await?;
        let before = said::history(&self.launch.history)
            .map_err(|failure| Stop::Failed { failure, retry: false })?;
        request.input.splice(0..0, before.map(request::text));
        Ok(())
    }

    async fn begin_once(
        &mut self,
        request: &Request,
    ) -> Result<Result<(String, Option<Stream>), Refused>, Stop> {
        let tools: Vec<Value> = self.outside.schemas().collect();
        let body = request.body(self.config, &tools);
        // The provider acts on it by itself: this is the last moment to ask.
        self.link.may_act()?;
        let client = self.client;
        let mut asked = pin!(async {
            let begun = client.create(&body).await?;
            named(begun).await
        });
        match self.link.during(asked.as_mut()).await {
            Ok(begun) => Ok(begun),
            Err(stop) => {
                // What was paid for a moment ago is nobody's now.
                if let Some(grace) = self.link.canceled()
                    && let Ok(Ok((id, _))) = timeout(grace.min(CANCEL_MAX), asked).await
                {
                    self.cancel(&id, grace).await;
                }
                Err(stop)
            }
        }
    }

    /// Hears an interaction to its end, and records where it stands then.
    pub(super) async fn hear(
        &mut self,
        turn: u32,
        known: &mut Known,
        steps: &mut Steps,
    ) -> Result<Standing, Stop> {
        let key = run_key(turn);
        if let Some(Ok(result)) = self.past.step(&key) {
            let result: Value = serde_json::from_str(result).unwrap_or_default();
            return Ok(Standing::of(&result));
        }
        let begin = Frame::StepBegin {
            step: key.clone(),
            kind: StepKind::User,
            name: "interaction".into(),
            effect: EffectClass::Read,
            digest: ax_gateway::canonical::hash(&json!({"interaction": known.id})),
            request: Some(Body::Text(json!({"interaction": known.id}).to_string())),
            prefix: None,
            // How long it may take is said by the limits of the execution.
            limit_millis: Some(STEP_MILLIS_MAX),
        };
        self.link.say(begin).await?;
        let standing = match self.follow_up(known, steps).await {
            Ok(mut standing) => {
                let asks = standing.status == "requires_action" && steps.calls().next().is_none();
                if asks {
                    steps.words().clone_into(&mut standing.words);
                }
                standing
            }
            Err(stop) => {
                if let Some(grace) = self.link.canceled().filter(|_| known.ours) {
                    self.cancel(&known.id, grace).await;
                }
                return Err(stop);
            }
        };
        let errors: Vec<Value> =
            standing.errors.iter().map(|error| json!({"message": error})).collect();
        let mut result = json!({"status": standing.status, "errors": errors});
        if !standing.words.is_empty() {
            result["words"] = standing.words.as_str().into();
        }
        let result = Ok(Body::Text(result.to_string()));
        let usage = standing.usage;
        self.link.say(Frame::StepEnd { step: key.clone(), result, usage }).await?;
        self.link.recorded(&key).await?;
        Ok(standing)
    }

    async fn follow_up(&mut self, known: &mut Known, steps: &mut Steps) -> Result<Standing, Stop> {
        let (mut pauses, mut vain) = (Tries::default(), Tries::default());
        let mut stale = false;
        loop {
            if let Some(mut stream) = known.stream.take() {
                let before = steps.progress();
                let standing = self.listen(&mut stream, steps).await?;
                if let Some(standing) = standing.filter(Standing::is_over) {
                    return Ok(standing);
                }
                stale = steps.progress() == before;
            }
            if stale {
                let pause = match self.look(&known.id, steps).await? {
                    Ok(Some(standing)) => return Ok(standing),
                    Ok(None) => {
                        // It is under way at the provider, however often its stream breaks.
                        vain = Tries::default();
                        pauses.next(None).unwrap_or(BACKOFF_MAX)
                    }
                    Err(refused) => again(&known.id, &mut vain, refused)?,
                };
                self.link.during(sleep(pause)).await?;
            } else {
                pauses = Tries::default();
            }
            match self.reach(&known.id, steps).await? {
                Ok(stream) => {
                    stale = stream.is_none();
                    known.stream = stream;
                }
                Err(refused) => {
                    let pause = again(&known.id, &mut vain, refused)?;
                    self.link.during(sleep(pause)).await?;
                }
            }
        }
    }

    /// Looks where an interaction stands; takes in all of it if it is over.
    async fn look(
        &mut self,
        id: &str,
        steps: &mut Steps,
    ) -> Result<Result<Option<Standing>, Refused>, Stop> {
        let client = self.client;
        let mut standing = match self.link.during(client.look(id)).await? {
            Ok(standing) => standing,
            Err(refused) => return Ok(Err(refused)),
        };
        if !standing.is_over() {
            return Ok(Ok(None));
        }
        let filled = steps.fill(std::mem::take(&mut standing.steps));
        self.say(filled).await?;
        self.say(steps.close()).await?;
        Ok(Ok(Some(standing)))
    }

    /// Reaches the stream of an interaction again, behind what is known of it.
    async fn reach(
        &mut self,
        id: &str,
        steps: &mut Steps,
    ) -> Result<Result<Option<Stream>, Refused>, Stop> {
        let (client, after) = (self.client, steps.after().map(str::to_owned));
        Ok(match self.link.during(client.follow(id, after.as_deref())).await? {
            Ok(Begun::Stream(stream)) => Ok(Some(stream)),
            // It does not stream: we look again later.
            Ok(Begun::Standing(_)) => Ok(None),
            Err(refused) if refused.failure.code == "model_request" && after.is_some() => {
                steps.begin_anew();
                Ok(None)
            }
            Err(refused) => Err(refused),
        })
    }

    /// Takes in what a stream says until it is over; returns where the interaction stands then, if
    /// the stream says so.
    async fn listen(
        &mut self,
        stream: &mut Stream,
        steps: &mut Steps,
    ) -> Result<Option<Standing>, Stop> {
        loop {
            let event = match self.link.during(stream.next()).await? {
                Ok(event) => event,
                Err(Cut::Ended) => return Ok(None),
                Err(Cut::Broken(why)) => {
                    tracing::info!(code = why.code, "a stream is cut: {}", why.message);
                    return Ok(None);
                }
            };
            let kind = event.kind.clone();
            self.say(steps.hear(event)).await?;
            match kind {
                Kind::Completed(mut standing) => {
                    if standing.status.is_empty() {
                        standing.status = "completed".into();
                    }
                    self.say(steps.close()).await?;
                    return Ok(Some(standing));
                }
                Kind::Done | Kind::Error(_) => return Ok(None),
                Kind::Other(name) => {
                    let name: String = name.chars().take(64).collect();
                    tracing::debug!(name, "an event of an unknown kind");
                }
                _ => {}
            }
        }
    }

    async fn say(&mut self, frames: Result<Vec<Frame>, String>) -> Result<(), Stop> {
        let frames = frames.map_err(|why| {
            Stop::final_failure("protocol", format!("the provider breaks its protocol: {why}"))
        })?;
        for frame in frames {
            self.link.say(frame).await?;
        }
        Ok(())
    }

    /// Ends an interaction at the provider, if that can be done in time.
    async fn cancel(&mut self, id: &str, grace: Duration) {
        if self.link.may_act().is_err() {
            return;
        }
        match timeout(grace.min(CANCEL_MAX), self.client.cancel(id)).await {
            Ok(Ok(())) => {}
            Ok(Err(refused)) => {
                tracing::warn!(id, "an interaction is not canceled: {}", refused.failure.message);
            }
            Err(_) => tracing::warn!(id, "an interaction is not canceled in time"),
        }
    }

    /// Returns the request that an execution begins with.
    pub(super) fn first(&self) -> Result<Request, Failure> {
        let previous = self.launch.kept.as_deref().and_then(kept);
        let mut input = request::input(self.launch)?;
        if previous.is_none() {
            input.splice(0..0, said::history(&self.launch.history)?.map(request::text));
        }
        Ok(Request { input, previous })
    }
}

/// Says how long to wait before an interaction that cannot be followed is tried again, or what
/// becomes of it.
fn again(id: &str, vain: &mut Tries, refused: Refused) -> Result<Duration, Stop> {
    if refused.missing {
        let message = format!(
            "the provider does not know the interaction {id} any more; ask again for a new one"
        );
        return Err(Stop::final_failure("interaction_expired", message));
    }
    let pause = vain.next(refused.pause).filter(|_| refused.again);
    let (failure, retry) = (refused.failure, refused.again);
    pause.ok_or(Stop::Failed { failure, retry })
}

/// Returns what is to be kept for the executions to come.
pub(super) fn keep(id: &str) -> Value {
    json!({"interaction": id})
}

fn kept(text: &str) -> Option<String> {
    let kept: Value = serde_json::from_str(text).ok()?;
    kept["interaction"].as_str().map(str::to_owned)
}

fn known(result: &str, session: &str) -> Result<Known, Stop> {
    let result: Value = serde_json::from_str(result).unwrap_or_default();
    let Some(id) = result["interaction"].as_str() else {
        let message = "it is recorded that an interaction was begun, but not which";
        return Err(Stop::final_failure("interaction_unknown", message));
    };
    Ok(Known { id: id.into(), ours: result["session"] == session, stream: None })
}

/// Waits until an interaction that has begun says its name.
async fn named(begun: Begun) -> Result<(String, Option<Stream>), Refused> {
    let lost = |failure: Failure| Refused {
        failure,
        again: true,
        unknown: true,
        missing: false,
        status: 0,
        pause: None,
    };
    let mut stream = match begun {
        Begun::Standing(Standing { id, .. }) if !id.is_empty() => return Ok((id, None)),
        Begun::Standing(_) => {
            return Err(lost(failure("protocol", "the interaction has no name")));
        }
        Begun::Stream(stream) => stream,
    };
    let mut skipped = false;
    loop {
        let event = stream.next().await.map_err(|cut| match cut {
            Cut::Ended => lost(failure("protocol", "the interaction does not say its name")),
            Cut::Broken(failure) => lost(failure),
        })?;
        match event.kind {
            Kind::Created(standing) | Kind::Status(standing) if !standing.id.is_empty() => {
                return Ok((standing.id, Some(stream).filter(|_| !skipped)));
            }
            Kind::Completed(standing) if !standing.id.is_empty() => return Ok((standing.id, None)),
            Kind::Error(why) => return Err(lost(failure("interaction_failed", why))),
            // Before it has a name nothing of it can be recorded: that is read again.
            _ => skipped = true,
        }
    }
}
