//! Harnesses behind a gateway, as the session sees them.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use ax_core::session::{Body, EffectClass, Frame, StepKind};
use ax_fakemodel::{FakeModel, Options, Script};
use ax_harness::{Adapters, Exit, Launch, Launcher, Told};
use serde_json::{Value, json};
use std::sync::Arc;
use support::engine::Session;
use support::{Rig, Running, gone, python};

/// Asks the model, in Python.
const ASK: &str = "
import urllib.request
def ask(text, read=None):
    body = {'model': 'm', 'max_tokens': 9, 'stream': True,
        'messages': [{'role': 'user', 'content': text}]}
    url = os.environ['ANTHROPIC_BASE_URL'] + '/v1/messages'
    headers = {'x-api-key': os.environ['ANTHROPIC_API_KEY']}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    return urllib.request.urlopen(request).read(read).decode()
";

struct World {
    rig: Rig,
    model: FakeModel,
    launcher: Arc<dyn Launcher>,
}

impl World {
    async fn new() -> Self {
        let script = r#"{"version": 1, "turns": [{"text": "an answer in some pieces",
            "pace": {"chunk_chars": 4, "chunk_delay_millis": 20}}]}"#;
        let script = Script::from_json(script).unwrap();
        let model = FakeModel::start(Options { script, ..Options::default() }).await.unwrap();
        let rig = Rig::new();
        let launcher = Arc::new(Adapters::new(rig.options()));
        Self { rig, model, launcher }
    }

    /// A program that speaks the protocol, or none if it is text.
    fn launch(&self, program: &str, protocol: &str) -> Launch {
        let mut harness = python(&format!("{ASK}{program}"));
        harness["protocol"] = protocol.into();
        let mut launch = self.rig.launch(harness);
        let provider = json!({"provider": "anthropic", "baseUrl": self.model.base_url()});
        launch.agent.gateway = json!({"models": [provider]});
        launch
    }

    fn session(&self, program: &str, protocol: &str) -> Session {
        Session::of(&self.launcher, self.launch(program, protocol))
    }

    fn paid(&self) -> usize {
        self.model.ledger().iter().filter(|entry| entry.is_paid()).count()
    }
}

#[tokio::test]
async fn a_program_that_fails_is_answered_from_the_journal_when_it_starts_again() {
    let world = World::new().await;
    let program = "
assert 'message_stop' in ask('one')
if not os.path.exists('again'):
    open('again', 'w').close()
    sys.exit(3)
assert 'message_stop' in ask('two')
print('done')";
    let mut session = world.session(program, "text");
    assert_eq!(gone(session.attempt(None).await.unwrap()).code, "exit_status");
    assert_eq!(session.attempt(None).await.unwrap(), Exit::Said);
    assert_eq!((world.paid(), session.usage.model_calls), (2, 2));
    world.rig.assert_nothing_runs();
}

#[tokio::test]
async fn an_answer_that_a_killed_program_waited_for_is_recorded_before_the_attempt_ends() {
    let world = World::new().await;
    let program = "
text = ask('one', 40)
if not os.path.exists('again'):
    open('again', 'w').close()
    os.kill(os.getpid(), signal.SIGKILL)
print('done')";
    let mut session = world.session(program, "text");
    assert_eq!(gone(session.attempt(None).await.unwrap()).code, "signal");
    let ended = session.frames.iter().filter(|frame| matches!(frame, Frame::StepEnd { .. }));
    assert_eq!(ended.count(), 1);
    assert_eq!(session.attempt(None).await.unwrap(), Exit::Said);
    assert_eq!(world.paid(), 1);
}

#[tokio::test]
async fn an_attempt_that_is_killed_waits_for_no_answer() {
    let world = World::new().await;
    let mut running = Running::start(&world.launcher, world.launch("ask('one')", "text"));
    while !matches!(running.next().await, Frame::StepBegin { .. }) {}
    running.kill.cancel();
    let (frames, exit) = running.rest().await;
    assert_eq!(gone(exit).code, "killed");
    assert!(!frames.iter().any(|frame| matches!(frame, Frame::StepEnd { .. })), "{frames:?}");
    world.rig.assert_nothing_runs();
}

#[tokio::test]
async fn the_last_word_of_a_harness_stays_the_last() {
    let world = World::new().await;
    let program = "
begin()
ask('one', 10)
say(type='end')";
    let running = Running::start(&world.launcher, world.launch(program, "jsonl"));
    let (frames, exit) = running.rest().await;
    assert_eq!(exit, Exit::Said);
    let begun = frames.iter().any(|frame| matches!(frame, Frame::StepBegin { .. }));
    let ended = frames.iter().any(|frame| matches!(frame, Frame::StepEnd { .. }));
    assert!(begun && !ended, "an answer is under way: {frames:?}");
    assert_eq!(frames.last(), Some(&Frame::End { result: None }));
}

#[tokio::test]
async fn keys_of_the_gateway_cannot_be_forged() {
    let world = World::new().await;
    let program = "
begin()
say(type='step_begin', key='gw:model:0:1', kind='model', name='m', effect='read', digest='00' * 32)
said = hear()
say(type='emit', name='heard', data=said)
say(type='end')";
    let running = Running::start(&world.launcher, world.launch(program, "jsonl"));
    let (frames, exit) = running.rest().await;
    assert_eq!(exit, Exit::Said);
    let forged = frames.iter().any(|frame| frame.key().is_some_and(|key| key.as_str() != "done"));
    assert!(!forged, "{frames:?}");
    let told = frames.iter().find_map(|frame| match frame {
        Frame::Note { data: Body::Text(told), .. } => Some(told.as_str()),
        _ => None,
    });
    let told: Value = serde_json::from_str(told.unwrap()).unwrap();
    assert_eq!((&told["type"], &told["key"]), (&json!("error"), &json!("gw:model:0:1")));
}

#[tokio::test]
async fn what_is_for_the_harness_reaches_it() {
    let world = World::new().await;
    let program = "
begin()
say(type='step_begin', key='mine', kind='user', name='f', effect='once', digest='00' * 32)
assert hear()['type'] == 'granted'
ask('one')
say(type='end')";
    let mut running = Running::start(&world.launcher, world.launch(program, "jsonl"));
    let mut kinds = Vec::new();
    while let Some(frame) = running.frames.recv().await {
        match frame {
            Frame::StepBegin { step, kind, effect, .. } => {
                kinds.push(kind);
                if effect == EffectClass::Once {
                    running.tell(Told::Granted { step }).await;
                }
            }
            Frame::StepEnd { step: key, .. } => {
                running.tell(Told::Recorded { key, seq: ax_core::id::Seq(9), before: None }).await;
            }
            _ => {}
        }
    }
    assert_eq!(running.exit().await, Exit::Said);
    assert_eq!(kinds, [StepKind::User, StepKind::Model]);
}

#[tokio::test]
async fn a_harness_without_the_key_of_its_provider_is_not_started() {
    let world = World::new().await;
    let mut launch = world.launch("print('started')", "text");
    let provider = json!({"provider": "anthropic", "apiKeyEnv": "AX_TEST_NOT_SET"});
    launch.agent.gateway = json!({"models": [provider]});
    let (frames, exit) = Running::start(&world.launcher, launch).rest().await;
    let failure = gone(exit);
    assert!(failure.message.contains("AX_TEST_NOT_SET is not set"), "{failure:?}");
    assert!(frames.is_empty());
}

#[tokio::test]
async fn tool_servers_end_with_the_attempt() {
    let world = World::new().await;
    let program = "
import urllib.request
headers = {'content-type': 'application/json', 'accept': 'application/json, text/event-stream'}
body = {'jsonrpc': '2.0', 'id': 1, 'method': 'tools/list', 'params': {}}
request = urllib.request.Request(os.environ['AX_MCP_SHOP_URL'], json.dumps(body).encode(), headers)
try:
    print(urllib.request.urlopen(request).read().decode())
except urllib.error.HTTPError as error:
    print(error.read().decode())";
    let mut launch = world.launch(program, "text");
    let server = "import sys, os, subprocess
subprocess.Popen(['sleep', '1000'], start_new_session=True)
for line in sys.stdin: pass";
    let tools: Value = json!([{"name": "shop", "command": ["python3", "-c", server]}]);
    launch.agent.gateway["tools"] = tools;
    let running = Running::start(&world.launcher, launch);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    running.kill.cancel();
    drop(running.rest().await);
    world.rig.assert_nothing_runs();
}
