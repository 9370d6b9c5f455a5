//! Keys that are planted wherever the runtime holds one, and then searched for wherever somebody
//! could read them: they reach whom they are for, and nobody else.

#![expect(clippy::unwrap_used, reason = "a test")]

#[expect(dead_code, reason = "other tests use more of it")]
#[path = "cli/world.rs"]
mod world;

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use world::World;

const PROVIDER_KEY: &str = "sk-planted-provider-5f1c9e";
const TOOL_KEY: &str = "planted-tool-server-77ab02";

/// What the agent does: says what it knows, asks a model twice and a tool server once.
const AGENT: &str = r#"
import json, os, urllib.error, urllib.request

def post(url, body, headers):
    headers = {'content-type': 'application/json', **headers}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        return urllib.request.urlopen(request).read().decode()
    except urllib.error.HTTPError as error:
        return f'{error.code} {error.read().decode()}'

key = {'x-api-key': os.environ['ANTHROPIC_API_KEY']}
url = os.environ['ANTHROPIC_BASE_URL'] + '/v1/messages'
ask = lambda text: post(url, {'model': 'm', 'max_tokens': 9,
    'messages': [{'role': 'user', 'content': text}]}, key)
said = [ask('be refused'), ask('be answered')]
listing = {'jsonrpc': '2.0', 'id': 1, 'method': 'initialize', 'params': {
    'protocolVersion': '2025-06-18', 'capabilities': {},
    'clientInfo': {'name': 'a', 'version': '1'}}}
accept = {'accept': 'application/json, text/event-stream'}
said.append(post(os.environ['AX_MCP_SHOP_URL'], listing, accept))
listing = {'jsonrpc': '2.0', 'id': 2, 'method': 'tools/list', 'params': {}}
said.append(post(os.environ['AX_MCP_SHOP_URL'], listing, accept))
with open('known.json', 'w') as file:
    json.dump({'environment': dict(os.environ), 'said': said,
        'limits': open('/proc/self/limits').read()}, file)
print('\n'.join(said).replace('\n', ' '))
"#;

/// What is outside: a provider, a tool server and a collector of traces at one address. It keeps
/// what it was sent, and is careless with keys in its errors.
struct Outside {
    address: String,
    heads: Arc<Mutex<Vec<String>>>,
    traces: Arc<Mutex<Vec<u8>>>,
}

impl Outside {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (heads, traces) = (Arc::default(), Arc::default());
        let (seen, spans) = (Arc::clone(&heads), Arc::clone(&traces));
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, spans) = (Arc::clone(&seen), Arc::clone(&spans));
                std::thread::spawn(move || take(&stream.unwrap(), &seen, &spans));
            }
        });
        Self { address, heads, traces }
    }

    /// The head of the first request for a path.
    fn head(&self, path: &str) -> String {
        let heads = self.heads.lock().unwrap();
        let found = heads.iter().find(|head| head.starts_with(&format!("POST {path}")));
        found.unwrap_or_else(|| panic!("{heads:?}")).clone()
    }
}

/// Answers the requests of one connection.
fn take(stream: &TcpStream, heads: &Mutex<Vec<String>>, traces: &Mutex<Vec<u8>>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let length = head.lines().find_map(|line| {
            line.to_lowercase().strip_prefix("content-length: ").map(|value| value.parse().unwrap())
        });
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).unwrap();
        let text = String::from_utf8_lossy(&body).into_owned();
        let (status, answer) = if head.starts_with("POST /v1/traces") {
            traces.lock().unwrap().extend(body);
            ("200 OK", Value::Null)
        } else if head.starts_with("POST /v1/messages") && text.contains("be answered") {
            let content = json!([{"type": "text", "text": "answered"}]);
            let usage = json!({"input_tokens": 3, "output_tokens": 1});
            (
                "200 OK",
                json!({"type": "message", "role": "assistant", "model": "m",
                "stop_reason": "end_turn", "content": content, "usage": usage}),
            )
        } else {
            let message = format!("who are you? {head}");
            (
                "401 Unauthorized",
                json!({"type": "error",
                "error": {"type": "authentication_error", "message": message}}),
            )
        };
        heads.lock().unwrap().push(head);
        let answer = answer.to_string();
        let said = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{answer}",
            answer.len()
        );
        (&*stream).write_all(said.as_bytes()).unwrap();
    }
}

fn agent(world: &World, outside: &Outside) {
    world.write("agent.py", AGENT);
    let manifest = json!({
        "apiVersion": "agentexecutor.dev/v1",
        "kind": "Agent",
        "metadata": {"name": "echo"},
        "spec": {
            "sandbox": "process",
            "harness": {
                "type": "process", "protocol": "text",
                "command": ["python3", world.path("agent.py")], "dir": world.path("work"),
            },
            "gateway": {
                "models": [{"provider": "anthropic", "baseUrl": outside.address,
                    "apiKeyEnv": "PLANTED_PROVIDER", "tries": 1}],
                "tools": [{"name": "shop", "url": format!("{}/mcp", outside.address),
                    "apiKeyEnv": "PLANTED_TOOL"}],
            },
        },
    });
    fs::create_dir(world.path("work")).unwrap();
    world.write("agent.json", manifest.to_string());
    world.ok(&["agent", "apply", "-f", "agent.json"]);
}

fn send(address: &str, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let request = format!(
        "{head}host: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

/// Every file below a directory.
fn files(dir: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            files(&path, found);
        } else if path.is_file() {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
}

/// A server that holds the keys and says all that it does; returns where it listens.
fn serve(world: &World, outside: &Outside) -> (Child, String) {
    let mut command =
        world.command(&["serve", "--listen", "127.0.0.1:0", "--allow-unsandboxed", "--json"]);
    command.env("PLANTED_PROVIDER", PROVIDER_KEY).env("PLANTED_TOOL", TOOL_KEY);
    command.env("AX_LOG", "trace").env("AX_TRACING_ENDPOINT", &outside.address);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(fs::File::create(world.path("server.err")).unwrap());
    let mut server = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let said: Value = serde_json::from_str(&line).unwrap();
    let address = said["addresses"][0].as_str().unwrap().split_once("//").unwrap().1.to_owned();
    (server, address)
}

fn assert_nowhere(secret: &str, found: &[(String, Vec<u8>)]) {
    for (name, content) in found {
        let at = content.windows(secret.len()).position(|part| part == secret.as_bytes());
        if let Some(at) = at {
            let around = &content[at.saturating_sub(200)..(at + 100).min(content.len())];
            panic!("a key is in {name}: {}", String::from_utf8_lossy(around));
        }
    }
}

#[test]
fn planted_keys_reach_whom_they_are_for_and_nobody_else() {
    let (world, outside) = (World::new(), Outside::new());
    agent(&world, &outside);
    let key = world.ok(&["auth", "key", "create", "--name", "op", "--role", "operator"]);
    let (mut server, address) = serve(&world, &outside);
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();

    let part = json!({"kind": "PART_KIND_TEXT", "mediaType": "text/plain", "body": {"text": "go"}});
    let body = json!({"agent": "echo", "parts": [part]}).to_string();
    let head = format!(
        "POST /v1/sessions/mine/inputs HTTP/1.1\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\n"
    );
    let mut answers = vec![send(&address, &head, &body)];
    assert!(answers[0].starts_with("HTTP/1.1 200"), "{}", answers[0]);
    world.wait_state("mine", "completed");
    for path in ["/v1/sessions/mine", "/v1/sessions/mine/events", "/metrics", "/v1/nothing"] {
        let head = format!("GET {path} HTTP/1.1\r\nauthorization: Bearer {key}\r\n");
        answers.push(send(&address, &head, ""));
    }
    let wrong = "GET /v1/sessions/mine HTTP/1.1\r\nauthorization: Bearer axk_wrong\r\n";
    answers.push(send(&address, wrong, ""));
    let shown = [
        &["session", "export", "mine", "--format", "jsonl"][..],
        &["session", "export", "mine", "--format", "otel"],
        &["session", "export", "mine", "-o", "mine.archive"],
        &["session", "show", "mine", "--cost"],
        &["events", "mine", "--json"],
        &["doctor"],
    ];
    answers.extend(shown.map(|args| {
        let ran = world.ax(args);
        assert!(ran.code == 0 || args == ["doctor"], "{args:?}: {ran:?}");
        format!("{ran:?}")
    }));
    world::kill(server.id().cast_signed(), rustix::process::Signal::TERM);
    server.wait().unwrap();

    // They reached whom they are for, and the trace of the attempt with them.
    let (model, tool) = (outside.head("/v1/messages"), outside.head("/mcp"));
    assert!(model.contains(PROVIDER_KEY) && tool.contains(TOOL_KEY), "{model} {tool}");
    let known: Value =
        serde_json::from_slice(&fs::read(world.path("work/known.json")).unwrap()).unwrap();
    let trace = known["environment"]["TRACEPARENT"].as_str().unwrap();
    let traced = format!("traceparent: {trace}");
    assert!(model.contains(&traced) && tool.contains(&traced), "{traced}: {model} {tool}");
    let said = known["said"].to_string();
    assert!(said.contains("who are you?") && said.contains("answered"), "{said}");
    // No core is dumped of the server or of what it starts.
    for limits in [&limits, known["limits"].as_str().unwrap()] {
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let words: Vec<_> = core.split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{core}");
    }

    let mut found = Vec::new();
    files(world.path("").as_path(), &mut found);
    assert!(found.iter().any(|(name, _)| name.ends_with("known.json")));
    assert!(
        found.iter().any(|(name, content)| name.ends_with("server.err") && content.len() > 10_000)
    );
    let traces = outside.traces.lock().unwrap().clone();
    assert!(!traces.is_empty(), "no trace was exported");
    found.push(("traces".into(), traces));
    found.push(("answers".into(), answers.concat().into_bytes()));
    for secret in [PROVIDER_KEY, TOOL_KEY, &key[key.len() - 40..]] {
        assert_nowhere(secret, &found);
    }
}
