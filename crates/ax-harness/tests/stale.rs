//! Attempts whose session may be another's: whatever adapter runs them, nothing more is done.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use ax_core::session::{Frame, StepKind};
use ax_harness::{
    Ax1Harness, BuiltinHarness, Exit, Launch, Launcher, MayAct, ProcessHarness, Told,
};
use ax_proto::ax1::harness_service_server::{HarnessService, HarnessServiceServer};
use ax_proto::ax1::{self, content, harness_request, harness_response};
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use support::model::{Model, call, say};
use support::{Rig, Running, gone, python, sh};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// The right to write a session, until it is lost.
#[derive(Clone)]
struct Right(Arc<AtomicBool>);

impl Right {
    fn held() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    fn lost() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    fn lose(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    fn start(&self, launcher: impl Launcher, launch: Launch) -> Running {
        let held = Arc::clone(&self.0);
        let may_act = MayAct::when(move || held.load(Ordering::SeqCst));
        let launcher: Arc<dyn Launcher> = Arc::new(launcher);
        Running::start_while(&launcher, launch, may_act)
    }
}

fn is_ended(exit: Exit) {
    let failure = gone(exit);
    assert_eq!(failure.code, "killed", "{failure:?}");
    assert!(failure.message.contains("another's"), "{failure:?}");
}

#[tokio::test]
async fn no_process_is_started_for_a_session_that_was_lost() {
    let rig = Rig::new();
    let launcher = ProcessHarness::new(rig.options());
    let running = Right::lost().start(launcher, rig.launch(sh("touch began")));
    is_ended(running.exit().await);
    assert!(!rig.workspace().join("began").exists());
    rig.assert_nothing_runs();
}

#[tokio::test]
async fn a_process_is_not_told_to_do_what_another_may_do_now() {
    let rig = Rig::new();
    let program = "begin()
say(type='step_begin', key='k', kind='tool', name='n', effect='once')
hear()
open('acted', 'w').close()
time.sleep(60)";
    let right = Right::held();
    let launcher = ProcessHarness::new(rig.options());
    let mut running = right.start(launcher, rig.launch(python(program)));
    let Frame::StepBegin { step, .. } = running.next().await else { panic!("a step begins") };
    right.lose();
    running.tell(Told::Granted { step }).await;
    gone(running.exit().await);
    assert!(!rig.workspace().join("acted").exists());
    rig.assert_nothing_runs();
}

#[tokio::test]
async fn no_model_is_asked_for_a_session_that_was_lost() {
    let rig = Rig::new();
    let model = Model::start(vec![say("done")]).await;
    let launch = rig.launch(model.harness("anthropic", json!([])));
    let running = Right::lost().start(BuiltinHarness::new(rig.options()), launch);
    is_ended(running.exit().await);
    assert_eq!(model.requests().len(), 0);
}

#[tokio::test]
async fn no_tool_is_called_for_a_session_that_was_lost() {
    let rig = Rig::new();
    let input = json!({"command": "echo x >>effects"});
    let model = Model::start(vec![call("", "shell", input), say("done")]).await;
    let launch = rig.launch(model.harness("anthropic", json!(["shell"])));
    let right = Right::held();
    let mut running = right.start(BuiltinHarness::new(rig.options()), launch);
    let mut seq = 0;
    loop {
        seq += 1;
        match running.next().await {
            Frame::StepBegin { kind: StepKind::Tool, step, .. } => {
                right.lose();
                running.tell(Told::Granted { step }).await;
                break;
            }
            Frame::StepEnd { step: key, .. } => {
                let seq = ax_core::id::Seq(seq);
                running.tell(Told::Recorded { key, seq, before: None }).await;
            }
            _ => {}
        }
    }
    is_ended(running.exit().await);
    assert!(!rig.workspace().join("effects").exists());
}

/// A server of the AX wire that asks a question in its first turn, and counts the starts.
#[derive(Clone, Default)]
struct Asking(Arc<AtomicUsize>);

fn asking(harness: &Asking, request: &ax1::HarnessRequest) -> Vec<ax1::HarnessResponse> {
    let Some(harness_request::Type::Start(_)) = &request.r#type else { return Vec::new() };
    harness.0.fetch_add(1, Ordering::SeqCst);
    let question = ax1::ConfirmationContent {
        id: "c1".into(),
        question: "May I?".into(),
        ..Default::default()
    };
    let content = Some(ax1::Content { r#type: Some(content::Type::Confirmation(question)) });
    let message = ax1::Message { role: "assistant".into(), content, internal_only: false };
    let outputs = ax1::HarnessOutputs { messages: vec![message] };
    let end = ax1::HarnessEnd { state: ax1::State::Completed.into(), ..Default::default() };
    [harness_response::Type::Outputs(outputs), harness_response::Type::End(end)]
        .map(|said| ax1::HarnessResponse {
            conversation_id: request.conversation_id.clone(),
            r#type: Some(said),
        })
        .to_vec()
}

#[tonic::async_trait]
impl HarnessService for Asking {
    type ConnectStream = BoxStream<'static, Result<ax1::HarnessResponse, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<ax1::HarnessRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let harness = self.clone();
        let responses = request.into_inner().flat_map(move |request| {
            let said = request.map_or_else(|_| Vec::new(), |request| asking(&harness, &request));
            stream::iter(said.into_iter().map(Ok))
        });
        Ok(Response::new(responses.boxed()))
    }
}

#[tokio::test]
async fn no_turn_is_started_at_a_server_for_a_session_that_was_lost() {
    let rig = Rig::new();
    let socket = rig.path().join("harness.sock");
    let listener = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
    let harness = Asking::default();
    let service = HarnessServiceServer::new(harness.clone());
    let server = tokio::spawn(Server::builder().add_service(service).serve_with_incoming(listener));
    let section = json!({"type": "ax1", "address": format!("unix://{}", socket.display())});
    let starts = || harness.0.load(Ordering::SeqCst);

    let lost = Right::lost().start(Ax1Harness::new(rig.options()), rig.launch(section.clone()));
    is_ended(lost.exit().await);
    assert_eq!(starts(), 0);

    let right = Right::held();
    let mut running = right.start(Ax1Harness::new(rig.options()), rig.launch(section));
    let Frame::Ask { key, .. } = running.next().await else { panic!("it asks") };
    assert_eq!(starts(), 1);
    right.lose();
    let result = ax_harness::AskResult::Answered(ax_core::session::Answer::Approve);
    running.tell(Told::Answered { key, result }).await;
    is_ended(running.exit().await);
    assert_eq!(starts(), 1, "the second turn of an attempt is asked about, too");
    server.abort();
}
