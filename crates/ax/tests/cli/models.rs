//! Model calls through the gateway of a server that is killed: what a namespace has used, and what
//! is left of sockets.

use super::world::{World, wait};
use ax_fakemodel::{FakeModel, Options};
use rustix::process::Signal;
use serde_json::json;
use std::fs;
use std::path::PathBuf;

/// Asks over its socket, says what it was told, and stays for a while if it is to.
const ASKS: &str = r#"
import http.client, json, os, socket, sys, time

class Door(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(os.environ["AX_GATEWAY_SOCKET"])

door = Door("localhost")
text = sys.stdin.read()
body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": text}]}
door.request("POST", "/anthropic/v1/messages", json.dumps(body))
answer = door.getresponse()
print(answer.status, answer.read().decode(), flush=True)
while text == "stay": time.sleep(1)
"#;

#[test]
fn what_a_namespace_may_use_of_models_and_where_sockets_are_outlives_a_kill() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let model = runtime.block_on(FakeModel::start(Options::default())).unwrap();
    let world = World::new();
    world.write("asks.py", ASKS);
    let manifest = json!({
        "apiVersion": "agentexecutor.dev/v1",
        "kind": "Agent",
        "metadata": {"name": "asks"},
        "spec": {
            "sandbox": "process",
            "harness": {"type": "process", "protocol": "text", "command": ["python3", "asks.py"]},
            "gateway": {"models": [{"provider": "anthropic", "baseUrl": model.base_url()}]},
        },
    });
    world.write("asks.json", manifest.to_string());
    world.ok(&["agent", "apply", "-f", "asks.json"]);
    let limits = ["serve", "--set", "limits.models.calls=2", "--set", "limits.models.period=month"];
    // A provider of one's own needs no key, one of a vendor any.
    let key = [("ANTHROPIC_API_KEY", "sk-any")];
    let mut server = world.start_in(&limits, &key);
    assert!(server.line().starts_with("serving "));
    let run = |session: &str, text: &str| {
        world.ok(&["run", "-a", "asks", "-s", session, "--detach", text]);
        let events = || world.ok(&["events", session, "--json"]);
        wait("what it was told", || events().contains("200 {") || events().contains("402 {"));
        events()
    };
    assert!(run("one", "hello").contains("200"));
    assert!(run("two", "stay").contains("200"));
    wait("the file", || fs::read_to_string(world.data().join("models.json")).is_ok());
    let used = || fs::read_to_string(world.data().join("models.json")).unwrap();
    wait("both calls", || used().contains("\"default\":[2,"));
    let links = || -> Vec<PathBuf> {
        let entries = fs::read_dir(world.data().join("run")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.is_symlink()).collect()
    };
    let place = fs::read_link(&links()[0]).unwrap();
    assert!(place.is_dir(), "{}", place.display());
    server.kill();

    let mut server = world.start_in(&limits, &key);
    assert!(server.line().starts_with("serving "));
    assert!(!place.exists(), "the sockets of the life before are still there");
    let refused = run("three", "once more");
    assert!(refused.contains("402") && refused.contains("billing_error"), "{refused}");
    assert!(refused.contains("model calls of the namespace in 20"), "{refused}");
    assert!(refused.contains("gateway.over_budget"), "{refused}");
    assert_eq!(model.ledger().len(), 2, "what is in the journal is not paid again");
    server.signal(Signal::TERM);
    assert_eq!(server.end().code, 0);
    assert_eq!(links(), [] as [PathBuf; 0]);
}
