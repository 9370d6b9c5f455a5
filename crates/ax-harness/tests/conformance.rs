//! The law of [`Launcher`], held against every adapter by the same tests. What only one of them
//! can do is tested in a file of its own.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use ax_core::session::{Body, EffectClass, Frame, PartKind};
use ax_fakemodel::{FakeModel, Options, Script};
use ax_harness::{Adapters, Exit, Launch, Launcher, MayAct, Told};
use ax_proto::ax1::harness_service_server::{HarnessService, HarnessServiceServer};
use ax_proto::ax1::{self, content, harness_request, harness_response};
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::engine::Session;
use support::model::{Fault, Model, say};
use support::{Rig, Running, gone, python, sh, text};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// How many words a flood has.
const FLOOD_WORDS: usize = 3_000;
/// How long an attempt that is told to end may take; its harnesses are given less.
const END_MAX: Duration = Duration::from_secs(20);

/// What a harness of the tests does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    /// It says `hello` and ends.
    Hello,
    /// It says [`flood`] and ends.
    Flood,
    /// It begins and never ends; where it is a process, a deaf one.
    Hang,
    /// It dies, without a word.
    Die,
}

/// Every adapter; processes speak in lines or in frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Lines,
    Frames,
    Acp,
    Ax1,
    Builtin,
    Interactions,
}

const KINDS: [Kind; 6] =
    [Kind::Lines, Kind::Frames, Kind::Acp, Kind::Ax1, Kind::Builtin, Kind::Interactions];

/// An attempt that is about to begin, and what must live as long as it does.
struct Stage {
    rig: Rig,
    launch: Launch,
    launcher: Arc<dyn Launcher>,
    /// How often a model was asked, if there is one.
    asked: Option<Box<dyn Fn() -> usize>>,
}

impl Stage {
    async fn set(kind: Kind, scene: Scene) -> Self {
        let rig = Rig::new();
        let mut asked: Option<Box<dyn Fn() -> usize>> = None;
        let harness = match kind {
            Kind::Lines => lines(scene),
            Kind::Frames => python(frames(scene)),
            Kind::Acp => acp(),
            Kind::Ax1 => ax1(&rig),
            Kind::Builtin => {
                let started = Model::start(vec![say(&words(scene))]).await;
                if scene == Scene::Hang {
                    started.fault(Fault::Silence);
                }
                let harness = started.harness("anthropic", json!([]));
                asked = Some(Box::new(move || started.requests().len()));
                harness
            }
            Kind::Interactions => {
                let started = provider(scene).await;
                let base_url = started.base_url() + "/v1beta";
                asked = Some(Box::new(move || started.ledger().len()));
                json!({"type": "interactions", "agent": "deep-research", "base_url": base_url})
            }
        };
        let mut launch = rig.launch(harness);
        launch.input = vec![text(&input(scene))];
        let launcher: Arc<dyn Launcher> = Arc::new(Adapters::new(rig.options()));
        Self { rig, launch, launcher, asked }
    }

    fn start(&self, may_act: MayAct) -> Running {
        Running::start_while(&self.launcher, self.launch.clone(), may_act)
    }

    fn is_at_work(&self) -> bool {
        let begun = || self.rig.workspace().join("begun").exists();
        self.asked.as_ref().map_or_else(begun, |asked| asked() > 0)
    }

    /// Waits until the harness is at work.
    async fn at_work(&self, running: &mut Running) {
        let begun_at = Instant::now();
        while !self.is_at_work() {
            assert!(begun_at.elapsed() < END_MAX, "it never begins");
            tokio::select! {
                frame = running.frames.recv() => record(running, &frame.unwrap()).await,
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
    }
}

/// Answers as the engine does, as far as the harnesses of these tests wait for it.
async fn record(running: &Running, frame: &Frame) {
    let told = match frame.clone() {
        Frame::Note { key: Some(key), .. } | Frame::StepEnd { step: key, .. } => {
            Told::Recorded { key, seq: ax_core::id::Seq(9), before: None }
        }
        Frame::StepBegin { step, effect: EffectClass::Once, .. } => Told::Granted { step },
        _ => return,
    };
    running.tell(told).await;
}

fn flood() -> String {
    (0..FLOOD_WORDS).map(|number| format!("{number};")).collect()
}

fn words(scene: Scene) -> String {
    if scene == Scene::Flood { flood() } else { "hello".into() }
}

/// What the harnesses that do as they are told are told.
fn input(scene: Scene) -> String {
    match scene {
        Scene::Hello => "say hello".into(),
        Scene::Flood => format!("flood {FLOOD_WORDS}"),
        Scene::Hang => "ignore".into(),
        Scene::Die => "die".into(),
    }
}

fn lines(scene: Scene) -> Value {
    let mut harness = sh(match scene {
        Scene::Hello => "echo hello",
        Scene::Flood => "i=0; while [ $i -lt 3000 ]; do echo \"$i;\"; i=$((i + 1)); done",
        Scene::Hang => "trap '' TERM; touch begun; while :; do sleep 600; done",
        Scene::Die => "kill -9 $$",
    });
    harness["protocol"] = "text".into();
    harness
}

fn frames(scene: Scene) -> &'static str {
    match scene {
        Scene::Hello => "begin()\nsay(type='output', text='hello')\nsay(type='end')",
        Scene::Flood => {
            "begin()
for number in range(3000): say(type='delta', block='b', text=f'{number};')
say(type='output', block='b')
say(type='end')"
        }
        Scene::Hang => {
            "begin()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open('begun', 'w').close()
time.sleep(600)"
        }
        Scene::Die => "begin()\nos.kill(os.getpid(), signal.SIGKILL)",
    }
}

/// Starts a provider at which agents run.
async fn provider(scene: Scene) -> FakeModel {
    let delay_millis = if scene == Scene::Hang { 600_000 } else { 0 };
    let script = json!({"version": 1, "turns": [
        {"text": words(scene), "pace": {"chunk_delay_millis": delay_millis}}]});
    let script = Script::from_json(&script.to_string()).unwrap();
    FakeModel::start(Options { script, ..Options::default() }).await.unwrap()
}

fn acp() -> Value {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/acp_agent.py");
    let command = json!(["python3", program]);
    json!({"type": "acp", "command": command, "env": {"STATE": "{state}"}, "stop_grace_ms": 200})
}

/// Starts a server of the AX wire, which ends with the test's runtime.
fn ax1(rig: &Rig) -> Value {
    let socket = rig.path().join("harness.sock");
    let listener = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
    let service = HarnessServiceServer::new(Obedient { begun: rig.workspace().join("begun") });
    drop(tokio::spawn(Server::builder().add_service(service).serve_with_incoming(listener)));
    json!({"type": "ax1", "address": format!("unix://{}", socket.display())})
}

/// A server of the AX wire that does as it is told.
struct Obedient {
    begun: std::path::PathBuf,
}

type Said = Result<ax1::HarnessResponse, Status>;

fn obey(request: &ax1::HarnessRequest, begun: &Path) -> Vec<Said> {
    let Some(harness_request::Type::Start(start)) = &request.r#type else { return Vec::new() };
    let asked = start.messages.last().and_then(|message| message.content.as_ref()).unwrap();
    let Some(content::Type::Text(asked)) = &asked.r#type else { panic!("a text") };
    let said = match asked.text.split_once(' ').unwrap_or((&asked.text, "")) {
        ("say", words) => vec![words.to_owned()],
        ("flood", _) => flood().split_inclusive(';').map(str::to_owned).collect(),
        ("die", _) => return vec![Err(Status::unavailable("died"))],
        _ => {
            std::fs::write(begun, "").unwrap();
            return Vec::new();
        }
    };
    let outputs = said.into_iter().map(|text| {
        let text = content::Type::Text(ax1::TextContent { text });
        let content = Some(ax1::Content { r#type: Some(text) });
        let message = ax1::Message { role: "assistant".into(), content, internal_only: false };
        harness_response::Type::Outputs(ax1::HarnessOutputs { messages: vec![message] })
    });
    let end = ax1::HarnessEnd { state: ax1::State::Completed.into(), ..Default::default() };
    let all = outputs.chain([harness_response::Type::End(end)]);
    let conversation_id = &request.conversation_id;
    all.map(|said| {
        let conversation_id = conversation_id.clone();
        Ok(ax1::HarnessResponse { conversation_id, r#type: Some(said) })
    })
    .collect()
}

#[tonic::async_trait]
impl HarnessService for Obedient {
    type ConnectStream = BoxStream<'static, Said>;

    async fn connect(
        &self,
        request: Request<Streaming<ax1::HarnessRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let begun = self.begun.clone();
        let responses = request.into_inner().flat_map(move |request| {
            stream::iter(request.map_or_else(|_| Vec::new(), |request| obey(&request, &begun)))
        });
        Ok(Response::new(responses.boxed()))
    }
}

/// Everything that was said, in its order.
fn said(frames: &[Frame]) -> String {
    let texts = frames.iter().map(|frame| match frame {
        Frame::Delta { part: PartKind::Text, text, .. } => text.clone(),
        Frame::Output { parts, .. } => {
            let texts = parts.iter().filter(|part| part.kind == PartKind::Text);
            texts
                .map(|part| match &part.body {
                    Body::Text(text) => text.trim_end().to_owned(),
                    Body::Blob(_) => panic!("a harness makes no blobs"),
                })
                .collect()
        }
        _ => String::new(),
    });
    texts.collect()
}

fn says_that_it_ended(frame: &Frame) -> bool {
    matches!(frame, Frame::End { .. } | Frame::Fail { .. })
}

async fn soon(kind: Kind, running: impl Future<Output = Exit>) -> Exit {
    let ended = tokio::time::timeout(END_MAX, running).await;
    ended.unwrap_or_else(|_| panic!("{kind:?} does not end"))
}

#[tokio::test]
async fn law_1_nothing_of_an_attempt_acts_once_it_is_over() {
    for (kind, scene) in
        KINDS.into_iter().flat_map(|kind| [(kind, Scene::Hello), (kind, Scene::Hang)])
    {
        let stage = Stage::set(kind, scene).await;
        let mut running = stage.start(MayAct::default());
        if scene == Scene::Hang {
            stage.at_work(&mut running).await;
        }
        running.kill.cancel();
        soon(kind, running.exit()).await;
        stage.rig.assert_nothing_runs();
    }
}

#[tokio::test]
async fn law_2_a_kill_ends_it_soon_whatever_it_does_and_although_nobody_listens() {
    for kind in KINDS {
        for scene in [Scene::Flood, Scene::Hang] {
            let stage = Stage::set(kind, scene).await;
            let mut running = stage.start(MayAct::default());
            match scene {
                Scene::Hang => stage.at_work(&mut running).await,
                _ => {
                    let first = running.next().await;
                    record(&running, &first).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            running.kill.cancel();
            let exit = soon(kind, running.exit_unheard()).await;
            if scene == Scene::Hang {
                assert_eq!(gone(exit).code, "killed", "{kind:?}");
            }
            stage.rig.assert_nothing_runs();
        }
    }
}

#[tokio::test]
async fn law_2_a_cancel_ends_it_also_if_it_is_deaf() {
    for kind in KINDS {
        let stage = Stage::set(kind, Scene::Hang).await;
        let mut running = stage.start(MayAct::default());
        stage.at_work(&mut running).await;
        running.tell(Told::Cancel { grace_millis: 100, reason: "enough".into() }).await;
        assert_eq!(gone(soon(kind, running.exit()).await).code, "canceled", "{kind:?}");
        stage.rig.assert_nothing_runs();
    }
}

#[tokio::test]
async fn laws_3_and_4_what_is_said_arrives_in_order_and_in_full_and_the_end_comes_last() {
    for kind in KINDS {
        for scene in [Scene::Hello, Scene::Flood] {
            let stage = Stage::set(kind, scene).await;
            let mut session = Session::of(&stage.launcher, stage.launch.clone());
            assert_eq!(session.attempt(None).await, Some(Exit::Said), "{kind:?}");
            assert_eq!(said(&session.frames), words(scene), "{kind:?}");
            let ends = session.frames.iter().filter(|frame| says_that_it_ended(frame)).count();
            assert!(ends == 1 && session.frames.last().is_some_and(says_that_it_ended), "{kind:?}");
            stage.rig.assert_nothing_runs();
        }
    }
}

#[tokio::test]
async fn law_4_what_dies_without_a_word_is_gone_and_has_not_ended() {
    // The others are tasks of the runtime: they die with it.
    for kind in [Kind::Lines, Kind::Frames, Kind::Acp, Kind::Ax1] {
        let stage = Stage::set(kind, Scene::Die).await;
        let mut session = Session::of(&stage.launcher, stage.launch.clone());
        let exit = session.attempt(None).await.unwrap();
        assert!(!session.frames.iter().any(says_that_it_ended), "{kind:?}");
        assert!(!gone(exit).message.is_empty(), "{kind:?}");
        stage.rig.assert_nothing_runs();
    }
}

#[tokio::test]
async fn law_5_nothing_is_begun_for_a_session_that_may_be_anothers() {
    for kind in KINDS {
        let stage = Stage::set(kind, Scene::Hang).await;
        let mut running = stage.start(MayAct::when(|| false));
        let exit = soon(kind, async move {
            // It may say what it is about to do.
            while let Some(frame) = running.frames.recv().await {
                record(&running, &frame).await;
            }
            running.exit().await
        });
        let exit = exit.await;
        assert_eq!(gone(exit).code, "killed", "{kind:?}");
        assert!(!stage.is_at_work(), "{kind:?}");
        stage.rig.assert_nothing_runs();
    }
}

#[tokio::test]
async fn law_6_a_section_that_is_wrong_is_named_and_ends_the_attempt() {
    for kind in KINDS {
        let mut stage = Stage::set(kind, Scene::Hello).await;
        stage.launch.agent.harness["nosuchfield"] = json!({"deep": [1]});
        let error = Adapters::validate(&stage.launch.agent.harness).unwrap_err();
        assert!(error.to_string().contains("nosuchfield"), "{kind:?}: {error}");
        let (frames, exit) = stage.start(MayAct::default()).rest().await;
        let failure = match (frames.last(), exit) {
            (Some(Frame::Fail { failure, .. }), Exit::Said) => failure.clone(),
            (_, exit) => gone(exit),
        };
        assert_eq!(failure.code, "config", "{kind:?}");
        assert!(failure.message.contains("nosuchfield"), "{kind:?}: {failure:?}");
        stage.rig.assert_nothing_runs();
    }
}
