//! A program that reaches a host through the gateway, with a credential that it does not have.

use super::certificates::Authority;
use super::world::{Ran, World};
use serde_json::json;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

const SECRET: &str = "s3cret-of-the-runtime";

/// A host that keeps what it is shown, and shows it again in a header.
const HOST: &str = r#"
import http.server, ssl, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        shown = self.headers.get_all("Authorization")
        with open("shown", "a") as kept:
            print(self.path, shown, file=kept)
        self.send_response(200)
        self.send_header("X-Shown", shown[0])
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"welcome")

server = http.server.ThreadingHTTPServer(("127.0.0.2", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
"#;

/// An ordinary program: nothing in it knows of a gateway.
const PROGRAM: &str = r#"
import os, sys, urllib.request

url = f"https://127.0.0.2:{sys.argv[1]}/orders?page=2"
request = urllib.request.Request(url, headers={"Authorization": "Bearer none"})
with urllib.request.urlopen(request, timeout=30) as answer:
    print(answer.read().decode(), answer.headers["X-Shown"])
print(dict(os.environ))
with open(sys.argv[2], "w") as kept:
    kept.write(os.environ["SSL_CERT_FILE"])
"#;

struct Host {
    child: Child,
    port: u16,
}

impl Host {
    fn start(world: &World, authority: &Authority) -> Self {
        let [certificate, key] = authority.issue("127.0.0.2", world.path("").as_path(), "host");
        world.write("host.py", HOST);
        let mut command = world.program("python3");
        command.args(["host.py", &certificate, &key]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().unwrap() }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs the program behind a gateway that believes an authority.
fn run(world: &World, port: u16, believed: &str) -> Ran {
    world.write("orders.py", PROGRAM);
    let inject =
        json!({"headers": {"Authorization": "Bearer {secret}"}, "apiKeyEnv": "AX_TEST_TOKEN"});
    let rule = json!({"host": "127.0.0.2", "port": port, "private": true, "inject": inject});
    let command =
        json!(["python3", world.path("orders.py"), port.to_string(), world.path("bundle")]);
    let manifest = json!({
        "apiVersion": "agentexecutor.dev/v1",
        "kind": "Agent",
        "metadata": {"name": "orders"},
        "spec": {
            "sandbox": "process",
            "harness": {"type": "process", "protocol": "text", "command": command},
            "gateway": {"egress": [rule]},
            "limits": {"retry": {"attempts": 1}},
        },
    });
    world.write("orders.yaml", manifest.to_string());
    world.ok(&["agent", "apply", "-f", "orders.yaml"]);
    let environment = [("AX_TEST_TOKEN", SECRET), ("SSL_CERT_FILE", believed)];
    world.ax_in(&["run", "-a", "orders", "-s", "o", "--json", "go"], &environment)
}

/// Every file below a directory that holds a text.
fn holding(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes.windows(text.len()).any(|part| part == text.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn a_program_uses_a_credential_that_it_does_not_have() {
    let world = World::new();
    let authority = Authority::new();
    let host = Host::start(&world, &authority);
    let ran = run(&world, host.port, &authority.write(world.path("authority.pem")));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("welcome Bearer [hidden]"), "{ran:?}");
    let shown = std::fs::read_to_string(world.path("shown")).unwrap();
    assert_eq!(shown, format!("/orders?page=2 ['Bearer {SECRET}']\n"));
    let events = world.ok(&["events", "o", "--json"]);
    assert!(events.contains("gateway.request") && events.contains("/orders"), "{events}");
    assert!(!events.contains("page=2"), "{events}");
    assert!(!format!("{ran:?}{events}").contains(SECRET));
    assert_eq!(holding(&world.data(), SECRET), Vec::<String>::new());
    let bundle = std::fs::read_to_string(world.path("bundle")).unwrap();
    assert!(Path::new(&bundle).starts_with(world.data()), "{bundle}");
    assert!(!Path::new(&bundle).parent().unwrap().exists(), "{bundle}");
}

#[test]
fn a_host_that_the_runtime_does_not_believe_is_shown_nothing() {
    let world = World::new();
    let host = Host::start(&world, &Authority::new());
    let ran = run(&world, host.port, &Authority::new().write(world.path("authority.pem")));
    assert_ne!(ran.code, 0, "{ran:?}");
    assert!(!world.path("shown").exists());
    let events = world.ok(&["events", "o", "--json"]);
    assert!(
        events.contains("gateway.egress_denied") && events.contains("invalid peer certificate"),
        "{events}"
    );
}
