//! The built-in harness against the scripted model server, which vendors' own clients understand.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use ax_core::session::{Frame, PartKind};
use ax_fakemodel::{FakeModel, Options, Script};
use ax_harness::{Adapters, Exit, Launcher};
use serde_json::json;
use std::sync::Arc;
use support::Rig;
use support::engine::Session;
use support::model::PROVIDERS;

const SCRIPT: &str = r#"{
  "version": 1,
  "turns": [
    {"when": {"turn": 0}, "times": 1, "fault": {"status": 529, "retry_after_seconds": 0}},
    {"when": {"turn": 0}, "times": 1,
     "text": "This is a long text that never comes to its end, however often it begins.",
     "fault": {"cut_after_chunks": 3}},
    {"when": {"turn": 0}, "thought": "Two files.", "text": "I write them.", "calls": [
      {"tool": "write", "arguments": {"path": "a.txt", "content": "A\n"}},
      {"tool": "shell", "arguments": {"command": "echo ran >>effects; cat a.txt"}}
    ]},
    {"when": {"turn": 1, "result": "A"}, "text": "The file says {{result}}"}
  ]
}"#;

#[tokio::test]
async fn the_scripted_model_leads_through_faults_thoughts_and_tools() {
    for provider in PROVIDERS {
        let script = Script::from_json(SCRIPT).unwrap();
        let model = FakeModel::start(Options { script, ..Options::default() }).await.unwrap();
        let path = if provider.starts_with("openai") { "/v1" } else { "" };
        let harness = json!({
            "type": "builtin", "tools": ["write", "shell"],
            "model": {
                "provider": provider, "name": "fake", "base_url": model.base_url() + path,
                "api_key_env": "CARGO_MANIFEST_DIR",
            },
        });
        let rig = Rig::new();
        let launcher: Arc<dyn Launcher> = Arc::new(Adapters::new(rig.options()));
        let mut session = Session::new(&rig, &launcher, harness);
        let exit = session.attempt(None).await;
        assert_eq!(exit, Some(Exit::Said), "{provider}: {:?}", session.frames.last());
        let end = session.frames.last();
        assert!(matches!(end, Some(Frame::End { .. })), "{provider}: {end:?}");
        let effects = rig.workspace().join("effects");
        let effects = std::fs::read_to_string(effects).unwrap_or_default();
        assert_eq!(effects, "ran\n", "{provider}");
        let said = session.said();
        assert_eq!(said[0], "I write them.", "{provider}");
        assert!(
            said[1].starts_with("The file says") && said[1].contains('A'),
            "{provider}: {said:?}"
        );
        let thought = session.frames.iter().any(|frame| {
            matches!(frame, Frame::Delta { part: PartKind::Thought, text, .. } if !text.is_empty())
        });
        assert!(thought || provider == "openai-chat", "{provider} streams no thought");
        let ledger = model.ledger();
        let paid = ledger.iter().filter(|entry| entry.is_paid()).count();
        assert_eq!((ledger.len(), paid), (4, 3), "{provider}");
        assert_eq!(session.usage.model_calls, 3, "{provider}: the answer that was cut is paid");
        assert!(session.usage.input_tokens > 0 && session.usage.output_tokens > 0);
        model.shutdown().await;
    }
}
