//! Calls that must not happen twice, were under way when everything died, and can be asked about.

use super::World;
use ax_core::session::EffectClass;
use serde_json::{Value, json};
use std::time::Duration;

fn world(more: &Value) -> World {
    let mut world = World::new();
    let mut probe = json!({
        "tool": "find",
        "args": {"key": "${key}"},
        "done": "result.structuredContent.found",
    });
    for (name, value) in more.as_object().unwrap() {
        probe[name] = value.clone();
    }
    world.section["tools"][0]["tools"] = json!([
        {"tool": "find", "policy": "deny"},
        {"tool": "*", "probe": probe},
    ]);
    world
}

/// Makes a call, and lets everything die in the middle of it.
async fn cut_short(world: &World, tool: &'static str, arguments: &Value) {
    let attempt = world.attempt().await;
    tokio::select! {
        _result = attempt.call(tool, arguments) => panic!("it takes a while"),
        () = begun(world) => {}
    }
    if tool != "late" {
        world.effect(tool).await;
    }
    drop(attempt);
}

async fn begun(world: &World) {
    while world.log.lock().unwrap().begun.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn done(world: &World, tool: &str) -> usize {
    world.effects().iter().filter(|line| line.starts_with(tool)).count()
}

#[tokio::test]
async fn what_a_probe_knows_to_be_done_is_not_done_again() {
    let world = world(&json!({}));
    let arguments = json!({"seconds": 1});
    cut_short(&world, "pay", &arguments).await;
    assert!(world.log.lock().unwrap().journal.is_empty());
    for _ in 0..2 {
        let attempt = world.attempt().await;
        let result = attempt.call("pay", &arguments).await;
        let result = serde_json::to_value(&result).unwrap();
        assert_eq!(result["structuredContent"], json!({"found": true}), "{result}");
        assert_eq!(result["_meta"]["dev.agentexecutor/probe"], "find", "{result}");
    }
    assert_eq!((done(&world, "pay"), done(&world, "find")), (1, 1));
    let log = world.log.lock().unwrap();
    let effects: Vec<_> = log.begun.iter().map(|begun| begun.1).collect();
    assert_eq!(effects, [EffectClass::Probed; 2], "it is begun again once it is found out");
}

#[tokio::test]
async fn what_a_probe_knows_not_to_be_done_is_done() {
    let world = world(&json!({}));
    let arguments = json!({"seconds": 0.5});
    cut_short(&world, "late", &arguments).await;
    std::fs::write(world.dir.path().join("effects"), "").unwrap();
    let attempt = world.attempt().await;
    let (error, text) = attempt.text("late", &arguments).await;
    assert!(!error && text.contains("late done"), "{text}");
    assert_eq!((done(&world, "late"), done(&world, "find")), (1, 1));
}

#[tokio::test]
async fn what_a_probe_cannot_tell_a_person_is_asked() {
    for more in [
        json!({"args": {"fails": true}}),
        json!({"tool": "wrong"}),
        json!({"done": "result.structuredContent.nothing"}),
        json!({"args": {"key": "${args.nothing}"}}),
    ] {
        let world = world(&more);
        let arguments = json!({"seconds": 1});
        cut_short(&world, "pay", &arguments).await;
        let attempt = world.attempt().await;
        let failure = tokio::select! {
            _result = attempt.client.peer().call_tool(
                rmcp::model::CallToolRequestParams::new("pay")
                    .with_arguments(arguments.as_object().unwrap().clone())
            ) => attempt.gateway.failed().await,
            failure = attempt.gateway.failed() => failure,
        };
        assert_eq!(failure.code, "tool_server");
        assert_eq!(done(&world, "pay"), 1);
        let log = world.log.lock().unwrap();
        let effects: Vec<_> = log.begun.iter().map(|begun| begun.1).collect();
        assert_eq!(effects, [EffectClass::Probed, EffectClass::Once], "{more}");
        assert!(log.journal.is_empty(), "it stays open");
    }
}

#[tokio::test]
async fn a_tool_server_that_breaks_is_asked_what_it_did_when_it_is_back() {
    let world = world(&json!({}));
    let attempt = world.attempt().await;
    let result = serde_json::to_value(attempt.call("die", &json!({})).await).unwrap();
    assert_eq!(result["_meta"]["dev.agentexecutor/probe"], "find", "{result}");
    assert_eq!((done(&world, "die"), done(&world, "find")), (1, 1));
}
