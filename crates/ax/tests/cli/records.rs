//! A harness in a sandbox keeps records in its session, by the client of the SDK as it is; nothing
//! else of the runtime's interface is there for it, and nothing of others.

use super::world::World;
use serde_json::json;

/// Keeps records in its own session and in one that is named; then asks for what is not its own.
/// It is told the hash of a
/// content of another session.
const AGENT: &str = r#"
import base64, os, sys, urllib.error, urllib.request
from agent_executor.client import Client
from agent_executor.records import Collection

own, hash = os.environ["AX_SESSION"], sys.stdin.read().strip()
stolen = f"blob_{base64.b64decode(hash).hex()}"
client = Client()
long = b"x" * 100_000
for session, agent in ((own, ""), ("kept/friday", "stores")):
    store = Collection(client, session, "things", agent=agent)
    store.append({"text": "milk"}, {"long": long})
    again = Collection(Client(), session, "things", agent=agent)
    record, = again.refresh()
    assert record.data == {"text": "milk"} and again.read(record.blobs["long"]) == long
print("kept")

base = os.environ["AX_SERVER"]
def ask(method, path, body=None, **headers):
    data = body if body is None or isinstance(body, bytes) else body.encode()
    headers["content-type"] = "application/json"
    request = urllib.request.Request(base + path, data, headers, method=method)
    try:
        return urllib.request.urlopen(request, timeout=30).status
    except urllib.error.HTTPError as error:
        return error.code

record = '{"collection": "c", "key": "k", "parts": [{"kind": "PART_KIND_TEXT", "body": %s}]}'
text = record % '{"text": "planted"}'
theft = record % ('{"blob": {"hash": "%s", "bytes": "100000"}}' % hash)
read = f"/v1/sessions/{own}/records?collection=things"
print("own", ask("GET", f"/v1/sessions/{own}"), ask("GET", read))
for method, path, body in [
    ("GET", "/v1/sessions/victim", None),
    ("GET", "/v1/sessions/victim/records?collection=things", None),
    ("POST", "/v1/sessions/victim/records", text),
    ("POST", "/v1/sessions/nobody/records", text),
    ("POST", f"/v1/sessions/{own}/records?namespace=other", text),
    ("GET", f"/v1/sessions/{own}?namespace=other", None),
    ("GET", f"/v1/blobs/{stolen}", None),
    ("GET", "/v1/blobs/blob_" + "0" * 64, None),
    ("POST", f"/v1/sessions/{own}/records", theft),
    ("POST", "/v1/blobs?namespace=other", "x"),
    ("GET", "/v1/sessions", None),
    ("DELETE", f"/v1/sessions/{own}", None),
    ("PATCH", f"/v1/sessions/{own}", '{"title": "mine"}'),
    ("GET", f"/v1/sessions/{own}/events", None),
    ("GET", f"/v1/sessions/{own}/follow", None),
    ("GET", f"/v1/sessions/{own}/archive", None),
    ("POST", f"/v1/sessions/{own}/inputs", "{}"),
    ("POST", f"/v1/sessions/{own}/answers", "{}"),
    ("POST", f"/v1/sessions/{own}/signals", "{}"),
    ("POST", f"/v1/sessions/{own}/cancel", "{}"),
    ("POST", f"/v1/sessions/{own}/checkpoints", "{}"),
    ("POST", f"/v1/sessions/{own}/branches", "{}"),
    ("POST", "/v1/inputs", "{}"),
    ("POST", "/v1/archives", "x"),
    ("GET", "/v1/agents", None),
    ("POST", "/v1/agents", "{}"),
    ("DELETE", "/v1/agents/stores", None),
    ("GET", "/v1/usage", None),
    ("GET", "/v1/info", None),
    ("POST", "/v1/shutdown", "{}"),
    ("GET", "/v1/openapi.json", None),
    ("GET", "/v1/", None),
]:
    got = ask(method, path, body)
    assert got == 403, (method, path, got)
for headers in [{"authorization": "Bearer other"}, {"x-api-key": "other"}]:
    assert ask("GET", f"/v1/sessions/{own}", **headers) == 401
# Who it is, no header says.
forged = {"ax-session": "victim", "x-forwarded-for": "127.0.0.1", "ax-namespace": "other"}
assert ask("GET", "/v1/sessions/victim", **forged) == 403
# A name is no path: this one is of a session that there is not.
assert ask("GET", "/v1/sessions/kept%2Fother%2F..%2F..%2Fvictim") == 404
assert ask("GET", "/metrics") == 404 and ask("GET", "/agentexecutor.v1.Sessions/Submit") == 404
try:
    large = ask("POST", f"/v1/sessions/{own}/records", b"{" + b" " * (9 << 20))
except urllib.error.URLError:
    large = 413  # It hangs up on whoever goes on talking.
assert large == 413, large
assert ask("GET", f"/v1/sessions/{own}") == 200
print("refused")
"#;

fn manifest(name: &str, records: &serde_json::Value) -> String {
    let sdk = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sdk/python/src");
    let sdk = std::fs::canonicalize(sdk).unwrap();
    let manifest = json!({
        "apiVersion": "agentexecutor.dev/v1",
        "kind": "Agent",
        "metadata": {"name": name},
        "spec": {
            "sandbox": {"mounts": [{"source": sdk}], "env": {"PYTHONPATH": sdk}},
            "harness": {"type": "process", "protocol": "text", "command": ["python3", "keeps.py"]},
            "gateway": records,
        },
    });
    manifest.to_string()
}

#[test]
fn a_harness_keeps_records_in_its_own_session_and_reaches_nothing_else() {
    let world = World::new();
    world.write("keeps.py", AGENT);
    let stores = "apiVersion: agentexecutor.dev/v1\nkind: Agent\nmetadata: {name: stores}\n\
                  spec: {harness: {type: external}}\n";
    world.write("stores.yaml", stores);
    let records = json!({"records": {"sessions": ["kept/*"]}});
    world.write("keeper.yaml", manifest("keeper", &records));
    world.echo();
    let _server = world.serve();
    world.ok(&["agent", "apply", "-f", "stores.yaml"]);
    world.ok(&["agent", "apply", "-f", "keeper.yaml"]);
    world.ok(&["run", "--agent", "echo", "--session", "victim", &"v".repeat(100_000)]);
    let events = world.ok(&["--json", "events", "victim"]);
    let (_, hash) = events.split_once("\"hash\":\"").expect("it is kept apart");
    let stolen = hash.split('"').next().unwrap();
    let said = world.ok(&["run", "--agent", "keeper", "--session", "mine", stolen]);
    assert!(said.contains("kept") && said.contains("own 200 200"), "{said}");
    assert!(said.contains("refused"), "{said}");
    let events = world.ok(&["--json", "events", "mine"]);
    assert!(events.contains("\"principal\":\"harness\""), "{events}");
    assert!(events.contains("gateway.denied"), "{events}");
    let victim = world.ok(&["--json", "events", "victim"]);
    assert!(!victim.contains("planted") && !victim.contains("harness\""), "{victim}");
}
