//! Tool calls of a program through the gateway, and a server that is killed in the middle of one.

use super::kills::paid;
use super::world::{World, wait};
use serde_json::{Value, json};

/// Calls a tool and says what it returned.
const CALLS: &str = r#"
import json, os, urllib.request

params = {"name": "TOOL", "arguments": {"seconds": 2}}
body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
url = os.environ["AX_MCP_SHOP_URL"]
request = urllib.request.Request(url, json.dumps(body).encode(), headers)
print(urllib.request.urlopen(request, timeout=60).read().decode())
"#;

/// A world whose agent makes one call that must not happen twice.
fn world(tool: &str, probe: &Value) -> World {
    let world = World::new();
    world.write("calls.py", CALLS.replace("TOOL", tool));
    let harness =
        json!({"type": "process", "protocol": "text", "command": ["python3", "calls.py"]});
    apply(&world, &harness, tool, probe);
    world
}

/// Applies an agent that has the tool of a tool server.
fn apply(world: &World, harness: &Value, tool: &str, probe: &Value) {
    let server = concat!(env!("CARGO_MANIFEST_DIR"), "/../ax-gateway/tests/support/tools.py");
    let shop = json!({
        "name": "shop",
        "command": ["python3", server],
        "env": {"EFFECTS": world.path("effects")},
        "tools": [{"tool": tool, "probe": probe}],
    });
    let manifest = json!({
        "apiVersion": "agentexecutor.dev/v1",
        "kind": "Agent",
        "metadata": {"name": "buyer"},
        "spec": {
            "sandbox": "process",
            "harness": harness,
            "gateway": {"tools": [shop]},
        },
    });
    world.write("effects", "");
    world.write("buyer.yaml", manifest.to_string());
    world.ok(&["agent", "apply", "-f", "buyer.yaml"]);
}

fn probe(fails: bool) -> Value {
    let args = json!({"key": "${key}", "fails": fails});
    json!({"tool": "find", "args": args, "done": "result.structuredContent.found"})
}

fn effects(world: &World, tool: &str) -> usize {
    let text = std::fs::read_to_string(world.path("effects")).unwrap();
    text.lines().filter(|line| line.starts_with(tool)).count()
}

/// Kills the server in the middle of the call, once it has begun there or had its effect.
fn cut_short(world: &World, tool: &str, had_its_effect: bool) {
    let server = world.serve();
    world.ok(&["run", "-a", "buyer", "-s", "buys", "--detach", "go"]);
    wait("the call", || world.ok(&["events", "buys"]).contains("step.started"));
    if had_its_effect {
        wait("its effect", || effects(world, tool) == 1);
    }
    server.kill();
}

/// The events of a kind, with what they say.
fn events(world: &World, kind: &str) -> Vec<Value> {
    let all = world.json(&["events", "buys"]);
    let of_kind = |event: &Value| event.to_string().contains(&format!("\"{kind}\""));
    all.into_iter().filter(of_kind).collect()
}

#[test]
fn a_probe_answers_for_a_call_that_was_cut_off_with_the_server() {
    let world = world("pay", &probe(false));
    cut_short(&world, "pay", true);
    let _server = world.serve();
    world.wait_state("buys", "completed");
    assert_eq!((effects(&world, "pay"), effects(&world, "find")), (1, 1));
    assert!(events(&world, "askRaised").is_empty());
    let steps = events(&world, "stepStarted");
    let effect = |event: &Value| event["stepStarted"]["effect"].clone();
    let effects: Vec<_> = steps.iter().map(effect).collect();
    assert_eq!(effects, ["EFFECT_CLASS_PROBED", "EFFECT_CLASS_PROBED"], "{steps:?}");
    let results = events(&world, "stepCompleted");
    assert!(results[0].to_string().contains("dev.agentexecutor/probe"), "{results:?}");
}

#[test]
fn a_call_that_a_probe_has_not_seen_is_made() {
    let world = world("late", &probe(false));
    cut_short(&world, "late", false);
    let _server = world.serve();
    world.wait_state("buys", "completed");
    assert_eq!((effects(&world, "late"), effects(&world, "find")), (1, 1));
    assert!(events(&world, "askRaised").is_empty());
}

#[test]
fn a_person_is_asked_when_the_probe_cannot_tell() {
    let world = world("pay", &probe(true));
    cut_short(&world, "pay", true);
    let _server = world.serve();
    wait("a question", || !events(&world, "askRaised").is_empty());
    world.ok(&["answer", "buys", "--choose", "retry"]);
    world.wait_state("buys", "completed");
    assert_eq!((effects(&world, "pay"), effects(&world, "find")), (2, 1));
}

#[test]
fn a_function_of_an_agent_at_its_provider_has_one_effect_and_is_paid_once() {
    let world = World::new();
    let script = json!({"version": 1, "turns": [
        {"when": {"turn": 0}, "text": "I pay.",
         "calls": [{"tool": "shop__pay", "arguments": {"seconds": 2}}]},
        {"when": {"turn": 1, "result": ""}, "text": "It is paid."},
    ]});
    world.write("model.json", script.to_string());
    let play = ["fakemodel", "--script", "model.json", "--listen", "127.0.0.1:0"];
    let mut model = world.start(&[&play[..], &["--ledger", "ledger.jsonl"]].concat());
    let address = model.line();
    let harness = json!({"type": "interactions", "model": "gemini-x", "base_url": address});
    apply(&world, &harness, "pay", &probe(false));
    cut_short(&world, "pay", true);
    let _server = world.serve();
    world.wait_state("buys", "completed");
    assert_eq!((effects(&world, "pay"), effects(&world, "find")), (1, 1));
    assert!(events(&world, "askRaised").is_empty());
    assert_eq!(paid(&world), 2);
    let log = world.ok(&["events", "buys", "--json"]);
    assert!(log.contains("It is paid.") && log.matches("I pay.").count() == 1, "{log}");
}
