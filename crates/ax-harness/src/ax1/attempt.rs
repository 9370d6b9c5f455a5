//! One attempt: a server, one stream to it, and the turns on that.

use super::config::Config;
use super::content::{Received, received};
use super::host::Host;
use super::place::Place;
use super::start::{self, Asked};
use super::{connect, failure, status_word};
use crate::launch::{AskResult, Exit, Io, Launch, MayAct, Told};
use crate::programs::Programs;
use ax_core::id::SessionId;
use ax_core::session::{AskKind, Body, Failure, Frame, Part};
use ax_proto::ax1::harness_service_client::HarnessServiceClient;
use ax_proto::ax1::{self, harness_request, harness_response};
use futures::future::BoxFuture;
use prost::Message as _;
use serde_json::json;
use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// The largest message of a server, in bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a server that is gone may have left something on the wire.
const LAST_WORDS_MAX: Duration = Duration::from_secs(2);
/// How long after its stream broke it may be found out that a server is gone.
const NOTICE_MAX: Duration = Duration::from_millis(500);
/// How many requests may wait to be sent: a start and a cancellation.
const REQUESTS_MAX: usize = 4;

/// Why the talk is over.
#[derive(Debug)]
enum Over {
    /// The harness has said its last word.
    Said,
    /// We were told to stop.
    Told(Failure),
    /// We were told to cancel, and how long that may take.
    Canceled(Duration),
    /// Something is wrong with the server or with what it says.
    Broken(Failure),
}

/// Runs an attempt to its end.
pub(super) async fn run(programs: &Programs, launch: Launch, io: Io) -> Result<Exit, Failure> {
    let config = Config::parse(&launch.agent.harness).map_err(|error| failure("config", error))?;
    let messages = start::messages(&config, &launch)?;
    let mut place = Place::of(programs, &config, &launch)?;
    io.may_act.check()?;
    let mut host = Host::start(&place.shared(programs), &config, &launch, &place).await?;
    place.reach = host.reach();
    let (kill, frames) = (io.kill.clone(), io.frames.clone());
    let over = {
        let link = Link {
            frames: io.frames,
            told: io.told,
            may_act: io.may_act,
            told_open: true,
            answers: BTreeMap::new(),
        };
        let mut talk = pin!(talk(link, &config, &launch, &place, messages));
        tokio::select! {
            over = &mut talk => over,
            () = kill.cancelled() => Over::Told(failure("killed", "the attempt was killed")),
            () = frames.closed() => Over::Told(failure("killed", "nobody listens any more")),
            why = host.gone() => match timeout(LAST_WORDS_MAX, &mut talk).await {
                Ok(Over::Said) => Over::Said,
                _ => Over::Broken(why),
            },
        }
    };
    let at_once = kill.is_cancelled() || frames.is_closed();
    let why = match over {
        Over::Said => None,
        Over::Told(why) => Some(why),
        Over::Canceled(_) => Some(failure("canceled", "the harness was told to stop")),
        // That the server is gone says more than that its stream broke.
        Over::Broken(why) => Some(timeout(NOTICE_MAX, host.gone()).await.unwrap_or(why)),
    };
    Ok(host.stop(at_once, why).await.map_or(Exit::Said, Exit::Gone))
}

/// Waits until the server serves, and talks with it until that is over.
async fn talk(
    mut link: Link,
    config: &Config,
    launch: &Launch,
    place: &Place,
    messages: Vec<ax1::Message>,
) -> Over {
    let mut asked = start::asked(&launch.journal);
    let begun = async {
        // What is open needs no server.
        link.wait_for_answers(&mut asked).await?;
        let channel = link.during(connect::serving(config, place)).await?;
        channel.map_err(Over::Broken)
    };
    let channel = match begun.await {
        Ok(channel) => channel,
        Err(over) => return over,
    };
    let mut first = messages;
    first.extend(asked.iter().map(Asked::message));
    let turn = asked.iter().map(|asked| asked.turn).max().unwrap_or(0);
    let wire = Wire::open(config, launch, channel);
    match (Turns { link, wire, turn }).run(first).await {
        Err(over) => over,
        Ok(never) => match never {},
    }
}

/// Our end of the conversation with the engine.
#[derive(Debug)]
struct Link {
    frames: mpsc::Sender<Frame>,
    told: mpsc::Receiver<Told>,
    may_act: MayAct,
    told_open: bool,
    /// What came of questions that nobody has waited for yet, by their keys.
    answers: BTreeMap<String, AskResult>,
}

impl Link {
    async fn say(&mut self, frame: Frame) -> Result<(), Over> {
        let frames = self.frames.clone();
        match self.during(frames.reserve()).await? {
            Ok(permit) => {
                permit.send(frame);
                Ok(())
            }
            Err(_) => Err(Over::Told(failure("killed", "nobody listens any more"))),
        }
    }

    /// Does something that takes its time; drops it if we are told to stop.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Over> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                heard = self.listen() => heard?,
                done = &mut work => return Ok(done),
            }
        }
    }

    /// Takes in the next thing that we are told. May be dropped and called again.
    async fn listen(&mut self) -> Result<(), Over> {
        if !self.told_open {
            return std::future::pending().await;
        }
        match self.told.recv().await {
            None => self.told_open = false,
            Some(Told::Cancel { grace_millis, .. }) => {
                return Err(Over::Canceled(Duration::from_millis(grace_millis)));
            }
            Some(Told::Park { .. }) => {
                return Err(Over::Told(failure("parked", "the harness was parked")));
            }
            Some(Told::Refused { code, message, .. }) => {
                return Err(Over::Broken(failure("refused", format!("{message} ({code})"))));
            }
            Some(Told::Answered { key, result }) => {
                drop(self.answers.insert(key.as_str().to_owned(), result));
            }
            // It begins no steps, sleeps and waits for no signal.
            Some(
                Told::Granted { .. }
                | Told::Recorded { .. }
                | Told::Fired { .. }
                | Told::Signaled { .. },
            ) => {}
        }
        Ok(())
    }

    /// Waits until questions that were asked in an earlier attempt are answered.
    async fn wait_for_answers(&mut self, asked: &mut [Asked]) -> Result<(), Over> {
        for open in asked.iter_mut().filter(|asked| asked.result.is_none()) {
            self.say(question(open, "")).await?;
            open.result = Some(self.answer(&open.key()).await?);
        }
        Ok(())
    }

    async fn answer(&mut self, key: &str) -> Result<AskResult, Over> {
        loop {
            if let Some(result) = self.answers.remove(key) {
                return Ok(result);
            }
            self.listen().await?;
        }
    }
}

fn question(asked: &Asked, question: &str) -> Frame {
    let prompt = if question.trim().is_empty() {
        format!("May {} be carried out?", asked.id)
    } else {
        question.to_owned()
    };
    Frame::Ask {
        key: asked.key().into(),
        kind: AskKind::Approval,
        prompt,
        choices: Vec::new(),
        details: Some(Body::Text(json!({"tool_call": asked.id}).to_string())),
        expires_millis: None,
    }
}

type Responses = Streaming<ax1::HarnessResponse>;

/// The stream to the server.
struct Wire {
    requests: mpsc::Sender<ax1::HarnessRequest>,
    /// Until the server has said anything at all.
    opening: BoxFuture<'static, Result<Responses, Status>>,
    responses: Option<Responses>,
    conversation: String,
    harness: String,
    config: Vec<u8>,
}

impl Wire {
    fn open(config: &Config, launch: &Launch, channel: Channel) -> Self {
        let (requests, outgoing) = mpsc::channel(REQUESTS_MAX);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        let identity = [
            ("ax-namespace", launch.key.namespace.to_string()),
            ("ax-session", launch.key.session.to_string()),
            ("ax-execution", launch.exec.to_string()),
            ("ax-attempt", launch.attempt.0.to_string()),
        ];
        for (name, value) in identity {
            if let Ok(value) = value.parse() {
                drop(request.metadata_mut().insert(name, value));
            }
        }
        let opening = Box::pin(async move {
            let mut client =
                HarnessServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            Ok(client.connect(request).await?.into_inner())
        });
        Self {
            requests,
            opening,
            responses: None,
            conversation: conversation(launch.key.session),
            harness: config.id.clone().unwrap_or_else(|| launch.agent.name.clone()),
            config: config.config.to_string().into_bytes(),
        }
    }

    /// Sends a request; that nobody takes it is noticed by whoever waits for the answer.
    fn send(&self, request: harness_request::Type) {
        let _noticed_there = self.requests.try_send(ax1::HarnessRequest {
            conversation_id: self.conversation.clone(),
            harness_id: self.harness.clone(),
            r#type: Some(request),
        });
    }

    /// Waits for the next response. May be dropped and called again.
    async fn next(&mut self) -> Result<Option<ax1::HarnessResponse>, Status> {
        let responses = match &mut self.responses {
            Some(responses) => responses,
            None => {
                let responses = (&mut self.opening).await?;
                self.responses.insert(responses)
            }
        };
        responses.message().await
    }

    /// Tells the server to stop, and waits until it has.
    async fn cancel(&mut self, grace: Duration) {
        let reason = ax1::CancelReason::UserRequested.into();
        self.send(harness_request::Type::Cancel(ax1::HarnessCancel { reason }));
        let ended = async {
            while let Ok(Some(response)) = self.next().await {
                if matches!(response.r#type, Some(harness_response::Type::End(_))) {
                    break;
                }
            }
        };
        let _ended_by_force_else = timeout(grace, ended).await;
    }
}

/// What a session is called on the wire: its number in the form of a UUID (RFC 9562 §4), since some
/// servers take nothing else.
fn conversation(session: SessionId) -> String {
    let digits = format!("{:032x}", session.0);
    let (a, b, c, d, e) =
        (&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]);
    format!("{a}-{b}-{c}-{d}-{e}")
}

/// The turns of an execution: one, and one more whenever questions were answered.
struct Turns {
    link: Link,
    wire: Wire,
    turn: u32,
}

/// Nothing is one of these.
enum Never {}

impl Turns {
    async fn run(&mut self, first: Vec<ax1::Message>) -> Result<Never, Over> {
        let mut messages = first;
        loop {
            self.turn += 1;
            let ended = self.turn(messages).await;
            if let Err(Over::Canceled(grace)) = &ended {
                self.wire.cancel(*grace).await;
            }
            let asked = ended?;
            if asked.is_empty() {
                return Err(self.last_word(Frame::End { result: None }).await);
            }
            messages = Vec::with_capacity(asked.len());
            for mut asked in asked {
                asked.result = Some(self.link.answer(&asked.key()).await?);
                messages.push(asked.message());
            }
        }
    }

    async fn last_word(&mut self, frame: Frame) -> Over {
        match self.link.say(frame).await {
            Ok(()) => Over::Said,
            Err(over) => over,
        }
    }

    /// Carries out a turn; returns what was asked in it.
    async fn turn(&mut self, messages: Vec<ax1::Message>) -> Result<Vec<Asked>, Over> {
        let harness_config = self.wire.config.clone();
        let start = ax1::HarnessStart { harness_config, messages };
        // The harness acts on it by itself: this is the last moment to ask.
        self.link.may_act.check().map_err(Over::Told)?;
        self.wire.send(harness_request::Type::Start(start));
        let mut asked = Vec::new();
        loop {
            let response = self.link.during(self.wire.next()).await?;
            let response = match response {
                Ok(Some(response)) => response,
                Ok(None) => {
                    let message = "the server closed its stream without an end";
                    return Err(Over::Broken(failure("no_end", message)));
                }
                Err(status) => {
                    let code = status_word(status.code().into());
                    return Err(Over::Broken(failure(code, status.message())));
                }
            };
            let named = &response.conversation_id;
            if !named.is_empty() && *named != self.wire.conversation {
                let message = format!("the server speaks of another conversation, {named:?}");
                return Err(Over::Broken(failure("protocol", message)));
            }
            match response.r#type {
                Some(harness_response::Type::Outputs(outputs)) => {
                    self.outputs(outputs, &mut asked).await?;
                }
                Some(harness_response::Type::End(end)) => return self.end(end, asked).await,
                None => {}
            }
        }
    }

    async fn outputs(
        &mut self,
        outputs: ax1::HarnessOutputs,
        asked: &mut Vec<Asked>,
    ) -> Result<(), Over> {
        let mut parts: Vec<Part> = Vec::new();
        for message in outputs.messages {
            if message.internal_only || message.role == "user" {
                continue;
            }
            match message.content.map_or(Received::Nothing, received) {
                Received::Nothing => {}
                Received::Part(part) => parts.push(part),
                Received::Confirmation(confirmation) => {
                    self.output(&mut parts).await?;
                    let turn = self.turn;
                    let one = Asked { id: confirmation.id, turn, result: None };
                    if asked.contains(&one) {
                        continue;
                    }
                    self.link.say(question(&one, &confirmation.question)).await?;
                    asked.push(one);
                }
            }
        }
        self.output(&mut parts).await
    }

    async fn output(&mut self, parts: &mut Vec<Part>) -> Result<(), Over> {
        if parts.is_empty() {
            return Ok(());
        }
        let parts = std::mem::take(parts);
        self.link.say(Frame::Output { block: None, key: None, parts }).await
    }

    async fn end(&mut self, end: ax1::HarnessEnd, asked: Vec<Asked>) -> Result<Vec<Asked>, Over> {
        let (code, description) = reason(&end.error);
        let (failure, retry) = match end.state() {
            ax1::State::Completed => return Ok(asked),
            ax1::State::Pending if !asked.is_empty() => return Ok(asked),
            ax1::State::Pending => {
                let message = "the server waits, and asked nothing".to_owned();
                (failure("protocol", message), false)
            }
            ax1::State::Failed => (failure(status_word(code), description), may_help(code)),
            ax1::State::Canceled => {
                let message = format!("the server canceled the turn; {description}");
                (failure("cancelled", message), false)
            }
            ax1::State::Unspecified => {
                let message = format!("the end has no state that is known: {}", end.state);
                (failure("protocol", message), false)
            }
        };
        Err(self.last_word(Frame::Fail { failure, retry }).await)
    }
}

/// Reads why a harness failed: a code and words, or in older servers words only.
fn reason(error: &[u8]) -> (i32, String) {
    const UNKNOWN: i32 = 2;
    match ax1::Error::decode(error) {
        Ok(error) if error.code != 0 || !error.description.is_empty() => {
            (error.code, error.description)
        }
        Ok(_) if error.is_empty() => (UNKNOWN, "the server gave no reason".into()),
        _ => (UNKNOWN, String::from_utf8_lossy(error).into_owned()),
    }
}

/// Whether a turn that failed with this status code may end better when it is tried again.
fn may_help(code: i32) -> bool {
    let in_vain = [
        "invalid_argument",
        "not_found",
        "already_exists",
        "permission_denied",
        "failed_precondition",
        "out_of_range",
        "unimplemented",
        "unauthenticated",
        "cancelled",
    ];
    !in_vain.contains(&status_word(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_the_form_of_a_uuid() {
        let id = SessionId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(conversation(id), "01234567-89ab-cdef-0123-456789abcdef");
    }

    #[test]
    fn the_reason_is_read_in_both_forms() {
        let error = ax1::Error { code: 9, description: "no agent".into() };
        assert_eq!(reason(&error.encode_to_vec()), (9, "no agent".into()));
        assert_eq!(reason(b"it broke down"), (2, "it broke down".into()));
        assert_eq!(reason(b""), (2, "the server gave no reason".into()));
        assert!(may_help(13) && may_help(14) && !may_help(3) && !may_help(9));
    }
}
