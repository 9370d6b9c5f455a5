//! Attacks on the real program, over real sockets: each must fail, and leave the server as it was.

#![expect(clippy::unwrap_used, reason = "a test")]

#[expect(dead_code, reason = "other tests use more of it")]
#[path = "cli/world.rs"]
mod world;

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use world::World;

/// How long anything may take.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A server on a port of the loopback, and a key of an operator.
struct Served {
    world: World,
    server: Child,
    address: String,
    key: String,
}

impl Served {
    fn new() -> Self {
        Self::with(&[], &[])
    }

    fn with(args: &[&str], environment: &[(&str, &str)]) -> Self {
        let world = World::new();
        world.echo();
        let key = world.ok(&["auth", "key", "create", "--name", "op", "--role", "operator"]);
        let args =
            [&["serve", "--listen", "127.0.0.1:0", "--allow-unsandboxed", "--json"], args].concat();
        let mut command = world.command(&args);
        command.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped());
        // It says much, and must not wait for somebody to read it.
        command.stderr(fs::File::create(world.path("server.err")).unwrap());
        let mut server = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| {
            let err = fs::read_to_string(world.path("server.err"));
            panic!("{error}: {line:?} {err:?}")
        });
        let url = said["addresses"][0].as_str().unwrap();
        let address = url.split_once("//").unwrap().1.to_owned();
        Self { world, server, address, key }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
        stream
    }

    /// Sends bytes as they are, and reads until the server closes.
    fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // A server that has refused already need not read on.
        drop(stream.write_all(bytes));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn send(&self, method: &str, path: &str, lines: &str, body: &[u8]) -> (u16, String) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-length: {}\r\n\
             authorization: Bearer {}\r\n{lines}\r\n",
            body.len(),
            self.key
        );
        let answer = self.raw(&[head.as_bytes(), body].concat());
        (status(&answer), answer)
    }

    fn post(&self, path: &str, body: &Value) -> (u16, String) {
        let kind = "content-type: application/json\r\n";
        self.send("POST", path, kind, body.to_string().as_bytes())
    }

    fn submit(&self, session: &str, text: &str) -> (u16, String) {
        let part = json!({"kind": "PART_KIND_TEXT", "mediaType": "text/plain",
            "body": {"text": text}});
        let body = json!({"agent": "echo", "parts": [part]});
        self.post(&format!("/v1/sessions/{session}/inputs"), &body)
    }

    /// Its resident memory, in bytes.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Whether the server still does its work.
    fn works(&self) {
        let (status, answer) = self.submit("alive", "are you there?");
        assert_eq!(status, 200, "{answer}");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may be over already.
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[test]
fn oversized_headers_and_bodies_are_refused() {
    let served = Served::new();
    let long = format!("x-long: {}\r\n", "x".repeat(64 << 10));
    let (status, answer) = served.send("GET", "/v1/sessions", &long, b"");
    assert!([0, 400, 431].contains(&status), "{answer}");
    let many = "x-many: y\r\n".repeat(2_000);
    let (status, answer) = served.send("GET", "/v1/sessions", &many, b"");
    assert!([0, 400, 431].contains(&status), "{answer}");
    let line = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "x".repeat(128 << 10));
    assert!([0, 400, 414, 431].contains(&self::status(&served.raw(line.as_bytes()))));
    let kind = "content-type: application/json\r\n";
    let (status, answer) = served.send("POST", "/v1/inputs", kind, &vec![b' '; (8 << 20) + 1]);
    assert!([0, 413].contains(&status), "{answer}");
    // A length that is not true, and one that is no number.
    let head = "POST /v1/inputs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    for length in ["99999999999999999999", "-1", "1, 2", "0x10"] {
        let lines = format!("{head}content-length: {length}\r\n\r\n");
        let refused = self::status(&served.raw(lines.as_bytes()));
        assert!([0, 400, 401, 413].contains(&refused), "{length}: {refused}");
    }
    let both = format!("{head}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
    assert!([0, 400, 401].contains(&self::status(&served.raw(both.as_bytes()))));
    served.works();
}

#[test]
fn a_slow_client_is_hung_up_on_and_holds_nobody_up() {
    let served = Served::new();
    let mut slow = served.connect();
    slow.write_all(b"GET /v1/sessions HTTP/1.1\r\nhost: localhost\r\nx-").unwrap();
    let mut silent = served.connect();
    let began = Instant::now();
    served.works();
    for stream in [&mut slow, &mut silent] {
        let mut answer = Vec::new();
        // Ends when the server has had enough; an error would be that it has not.
        let ended = stream.read_to_end(&mut answer);
        assert!(ended.is_ok() || ended.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset);
    }
    assert!(began.elapsed() < WAIT_MAX);
}

/// How many followers read nothing.
const STALLED_COUNT: u64 = 10;
/// How many numbers an agent counts, each a line of a thousand digits: 20 MB of text.
const NUMBER_COUNT: u64 = 20_000;

#[test]
fn readers_that_stop_reading_cost_little_and_miss_nothing() {
    let served = Served::new();
    let script = format!("cat > go; seq -f %01000.0f 1 {NUMBER_COUNT}");
    served.world.agent("counts", "text", &script, "");
    let count = |session: &str| {
        let part =
            json!({"kind": "PART_KIND_TEXT", "mediaType": "text/plain", "body": {"text": "go"}});
        let body = json!({"agent": "counts", "parts": [part]});
        let (status, answer) = served.post(&format!("/v1/sessions/{session}/inputs"), &body);
        assert_eq!(status, 200, "{answer}");
    };
    // What the work itself takes is taken before: the readers come on top of it.
    count("alone");
    served.world.wait_state("alone", "completed");
    let before = served.memory();
    count("count");
    let key = &served.key;
    let stalled = (0..STALLED_COUNT).map(|_| {
        let mut stream = served.connect();
        let request = format!(
            "GET /v1/sessions/count/follow?untilIdle=true HTTP/1.1\r\nhost: localhost\r\n\
             connection: close\r\nauthorization: Bearer {key}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        stream
    });
    let mut stalled: Vec<_> = stalled.collect();
    served.world.wait_state("count", "completed");
    let grown = served.memory().saturating_sub(before);
    assert!(grown < STALLED_COUNT * (4 << 20), "{grown} bytes more for {STALLED_COUNT} readers");
    let mut late = String::new();
    stalled.pop().unwrap().read_to_string(&mut late).unwrap();
    let events = late.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = events.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let numbers = events.filter_map(|event| {
        let text = event["outputMessage"]["parts"][0]["body"]["text"].as_str()?.to_owned();
        Some(text.trim().parse::<u64>().unwrap())
    });
    assert!(numbers.eq(1..=NUMBER_COUNT), "nothing is missing, and nothing comes twice");
    served.works();
}

#[test]
fn no_path_leads_out_of_the_data_directory() {
    let served = Served::new();
    let secret = served.world.write("data/outside", "root:x:0:0");
    assert!(secret.exists());
    let up = "..%2f..%2f..%2f..%2fetc%2fpasswd";
    for path in [
        "/../../../../etc/passwd",
        "/v1/../../../etc/passwd",
        "/v1/blobs/../outside",
        "/v1/blobs/..%2foutside",
        "/v1/blobs/%2e%2e%2foutside",
        "/v1/blobs/blob_..%2f..%2foutside",
        "/v1/agents/..%2f..%2foutside",
        "/v1/sessions/..%2f..%2foutside",
        "/v1/sessions/%00",
        &format!("/v1/blobs/{up}"),
        &format!("/v1/sessions/{up}/archive"),
        &format!("/v1/sessions/x/events?session={up}"),
    ] {
        let (status, answer) = served.send("GET", path, "", b"");
        assert!([400, 404].contains(&status), "{path}: {answer}");
        assert!(!answer.contains("root:x:0:0"), "{path}: {answer}");
    }
    served.works();
}

#[test]
fn no_text_breaks_out_of_a_server_sent_event() {
    let served = Served::new();
    let evil = "one\n\nevent: evil\nid: 999\ndata: {}\n\n\r\rdata: x\r\n\r\n\u{2028}retry: 1\n\n";
    assert_eq!(served.submit("talk", evil).0, 200);
    let (status, answer) = served.post(
        "/v1/sessions/talk/signals",
        &json!({"name": "a\n\nevent: evil\n\n", "payload": "{}"}),
    );
    assert!([200, 400].contains(&status), "{answer}");
    served.world.wait_state("talk", "completed");
    let (_, answer) = served.send("GET", "/v1/sessions/talk/follow?untilIdle=true", "", b"");
    assert!(answer.contains("event: end"), "{answer}");
    for line in answer.lines().flat_map(|line| line.split('\r')) {
        assert!(!line.starts_with("event: evil") && !line.starts_with("id: 999"), "{answer}");
    }
    for header in
        ["last-event-id: 1\r\n\tevil: 1\r\n", "last-event-id: -1\r\n", "last-event-id: x\r\n"]
    {
        let (status, answer) =
            served.send("GET", "/v1/sessions/talk/follow?untilIdle=true", header, b"");
        assert!([200, 400].contains(&status), "{header:?}: {answer}");
        assert!(!answer.contains("\nevil: 1"), "{answer}");
    }
    let (status, answer) = served.send("GET", "/v1/sessions/a%0d%0aset-cookie:%20x=1", "", b"");
    assert!([400, 404].contains(&status), "{answer}");
    assert!(!answer.to_lowercase().contains("\r\nset-cookie"), "{answer}");
}

#[test]
fn bombs_of_json_and_protobuf_do_no_harm() {
    let served = Served::new();
    let kind = "content-type: application/json\r\n";
    let deep = [vec![b'['; 200_000], vec![b']'; 200_000]].concat();
    let nested = format!("{}1{}", "{\"parts\":".repeat(100_000), "}".repeat(100_000));
    let many = format!("{{\"parts\":[{}{{}}]}}", "{},".repeat(500_000));
    let number = format!("{{\"policy\":1e{}}}", "9".repeat(1_000_000));
    for bomb in [&deep[..], nested.as_bytes(), many.as_bytes(), number.as_bytes(), b"\xff\xfe"] {
        let (status, answer) = served.send("POST", "/v1/inputs", kind, bomb);
        assert!([400, 413].contains(&status), "{status}: {}", &answer[..answer.len().min(500)]);
    }
    // Groups in groups, a length that is not there, and a varint without an end.
    let grpc = "content-type: application/grpc\r\nte: trailers\r\n";
    let framed = |message: &[u8], length: usize| {
        let length = u32::try_from(length).unwrap().to_be_bytes();
        [&[0], &length[..], message].concat()
    };
    let groups = vec![0x0b; 500_000];
    let parts = [&[0x2a, 0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0; 100]].concat();
    for bomb in [
        framed(&groups, groups.len()),
        framed(&parts, parts.len()),
        framed(&[0xff; 64], 64),
        framed(&[], u32::MAX as usize),
        [&[1][..], &framed(&[0; 64], 64)[1..]].concat(),
    ] {
        let path = "/agentexecutor.v1.Sessions/Submit";
        let (_, answer) = served.send("POST", path, grpc, &bomb);
        assert!(!answer.contains("grpc-status: 0"), "{answer}");
    }
    served.works();
}

#[test]
fn cursors_that_were_made_up_show_nothing() {
    let served = Served::new();
    served.world.ok(&["run", "-a", "echo", "--session", "mine", "hello"]);
    served.world.ok(&[
        "auth",
        "key",
        "create",
        "--name",
        "x",
        "--role",
        "viewer",
        "--namespace",
        "other",
    ]);
    let theirs = served.world.ok(&[
        "auth",
        "key",
        "create",
        "--name",
        "y",
        "--role",
        "viewer",
        "--namespace",
        "other",
    ]);
    for cursor in ["x", "ses_00000000000000000000000000000000", "..%2f", "%00", "AAAA", "-1"] {
        for path in ["/v1/sessions", "/v1/agents"] {
            let (status, answer) = served.send("GET", &format!("{path}?cursor={cursor}"), "", b"");
            assert_eq!(status, 400, "{path} {cursor}: {answer}");
        }
    }
    served.submit("second", "hello");
    let (_, page) = served.send("GET", "/v1/sessions?limit=1", "", b"");
    let body: Value = serde_json::from_str(page.split_once("\r\n\r\n").unwrap().1).unwrap();
    let cursor = body["cursor"].as_str().unwrap();
    assert!(!cursor.is_empty());
    let head = format!(
        "GET /v1/sessions?cursor={cursor} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         authorization: Bearer {theirs}\r\n\r\n"
    );
    let answer = served.raw(head.as_bytes());
    assert!(status(&answer) == 400 || !answer.contains("ses_"), "{answer}");
    for query in ["after=-1", "after=x", "after=99999999999999999999", "limit=-1"] {
        let (status, answer) =
            served.send("GET", &format!("/v1/sessions/mine/events?{query}"), "", b"");
        assert_eq!(status, 400, "{query}: {answer}");
    }
}

#[test]
fn keys_are_made_shown_rotated_and_revoked_while_the_server_runs() {
    let mut served = Served::new();
    served.works();
    let old = served.key.clone();
    let rotated = served.world.ok(&["auth", "key", "rotate", "op", "--grace", "1h"]);
    served.works();
    served.key = rotated;
    served.works();
    let again = served.world.ok(&["auth", "key", "rotate", "op", "--grace", "0s"]);
    for over in [old, std::mem::replace(&mut served.key, again)] {
        let now = std::mem::replace(&mut served.key, over);
        assert_eq!(served.submit("x", "x").0, 401);
        served.key = now;
    }
    served.works();
    let listed = served.world.json(&["auth", "key", "list"]);
    assert_eq!((&listed[0]["name"], &listed[0]["role"]), (&json!("op"), &json!("operator")));
    assert_eq!(listed[0]["namespace"], "default");
    assert!(listed[0].get("key").is_none() && listed[0].get("hash").is_none());
    served.world.ok(&["auth", "key", "revoke", "op"]);
    assert_eq!(served.submit("x", "x").0, 401);
    let wrong = served.world.ax(&["auth", "key", "revoke", "nobody"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    let whats = served.world.json(&["auth", "audit"]);
    let has = |what: &str| whats.iter().any(|line| line["what"] == what && line["result"] == "ok");
    for what in ["ax auth key create", "ax auth key rotate", "ax auth key revoke"] {
        assert!(has(what), "{what}: {whats:?}");
    }
    assert!(whats.iter().any(|line| line["result"] == "AX4001" && line["kind"] == "denied"));
}

#[test]
fn a_shared_link_reads_one_session_until_it_is_revoked() {
    let served = Served::new();
    served.world.ok(&["run", "-a", "echo", "--session", "mine", "hello"]);
    let shared = served.world.json(&["session", "share", "mine", "--expires", "1h"]);
    let link = shared[0]["link"].as_str().unwrap();
    let path = format!("/{}", link.splitn(4, '/').nth(3).unwrap());
    let get = |path: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        served.raw(head.as_bytes())
    };
    let read = get(&format!("{path}&untilIdle=true"));
    assert!(read.contains("event: end") && read.contains("hello"), "{read}");
    let session = shared[0]["session"].as_str().unwrap();
    let other = path.replace(session, "ses_0123456789abcdef0123456789abcdef");
    assert_eq!(status(&get(&other)), 404);
    assert_eq!(status(&get(&path.replace("/follow", "/archive"))), 401);
    served.world.ok(&["auth", "share", "rotate"]);
    assert_eq!(status(&get(&path)), 401);
    assert_eq!(served.world.ax(&["session", "share", "nobodys"]).code, 2);
}

#[test]
fn limits_are_as_the_settings_say_and_change_on_a_reload() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let limits = |connections: u32, burst: u32| {
        let caller = json!({"per_second": 1, "burst": burst});
        json!({"limits": {"request_bytes": 2_000, "connections": connections, "caller": caller}})
    };
    fs::write(file.path(), limits(8, 2).to_string()).unwrap();
    let mut served = Served::with(&["--config", file.path().to_str().unwrap()], &[]);
    let kind = "content-type: application/json\r\n";
    let (status, answer) = served.send("POST", "/v1/inputs", kind, &[b' '; 2_001]);
    assert_eq!(status, 413, "{answer}");
    let list = |served: &Served| served.send("GET", "/v1/sessions", "", b"").0;
    let statuses = [(); 4].map(|()| list(&served));
    assert_eq!(statuses[3], 429, "{statuses:?}");
    // Connections that ask for nothing are connections, too.
    let held = [(); 8].map(|()| served.connect());
    assert_eq!(list(&served), 0, "one too many");
    let err = || fs::read_to_string(served.world.path("server.err")).unwrap();
    world::wait("the refusal in the log", || err().contains("there are too many"));
    fs::write(file.path(), limits(100, 100_000).to_string()).unwrap();
    world::kill(served.server.id().cast_signed(), rustix::process::Signal::HUP);
    world::wait("the new limits", || err().contains("the configuration was read again"));
    drop(held);
    served.key = served.world.ok(&["auth", "key", "create", "--name", "b", "--role", "operator"]);
    let statuses = [(); 8].map(|()| list(&served));
    assert_eq!(statuses, [200; 8]);
}

/// Everything that is in files below a directory.
fn files(dir: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.is_file() {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
}

#[test]
fn no_secret_is_in_any_output_or_file() {
    let planted = "PlantedSecret7f3a";
    let mut served = Served::with(
        &["--set", "limits.failures_per_second=1000"],
        &[("AX_LOG", "trace"), ("OTHER_API_KEY", planted)],
    );
    served.works();
    let admin = served.world.ok(&[
        "auth",
        "key",
        "create",
        "--name",
        "a",
        "--role",
        "admin",
        "--all-namespaces",
    ]);
    served.submit("mine", "hello");
    served.world.wait_state("mine", "completed");
    let share = served.world.json(&["session", "share", "mine"]);
    let share = share[0]["token"].as_str().unwrap().to_owned();
    let operator = std::mem::replace(&mut served.key, admin.clone());
    let mut answers = Vec::new();
    // Good credentials, and bad ones, in every place that somebody may put them.
    let bad = format!("axk_{planted}_{planted}");
    let jwt = format!("eyJhbGciOiJub25lIn0.{planted}.{planted}");
    let basic = format!("authorization: Basic {planted}\r\n");
    for secret in [&admin, &operator, &share, &bad, &jwt, &planted.to_owned()] {
        served.key = secret.clone();
        for path in [
            "/v1/sessions/mine".to_owned(),
            format!("/v1/sessions/mine/events?share={secret}"),
            format!("/v1/sessions?token={secret}&access_token={secret}&key={secret}"),
            format!("/v1/sessions/mine/follow?untilIdle=true&share={secret}"),
        ] {
            for lines in ["", &format!("x-api-key: {secret}\r\ncookie: a={secret}\r\n"), &basic] {
                answers.push(served.send("GET", &path, lines, b"").1);
            }
        }
        // A body that is refused before anything of it is used.
        let body = format!("{{\"authorization\": \"{secret}\"");
        let kind = "content-type: application/json\r\n";
        answers.push(served.send("POST", "/v1/inputs", kind, body.as_bytes()).1);
        answers.push(served.send("DELETE", "/v1/sessions/nobodys", "", b"").1);
        let grpc = "content-type: application/grpc\r\nte: trailers\r\n";
        let path = "/agentexecutor.v1.Sessions/GetSession";
        answers.push(served.send("POST", path, grpc, secret.as_bytes()).1);
    }
    let shown = served.world.ok(&["auth", "audit", "--limit", "10000"]);
    let doctor = served.world.ax(&["doctor"]);
    world::kill(served.server.id().cast_signed(), rustix::process::Signal::TERM);
    served.server.wait().unwrap();
    let rest = fs::read(served.world.path("server.err")).unwrap();
    assert!(rest.len() > 10_000, "what the server says was not looked at");
    let mut found = Vec::new();
    files(&served.world.data(), &mut found);
    found.push(("answers".into(), answers.concat().into_bytes()));
    found.push(("audit".into(), shown.into_bytes()));
    found.push(("doctor".into(), format!("{doctor:?}").into_bytes()));
    found.push(("server".into(), rest));
    assert!(found.len() > 8, "{}", found.len());
    let tail = |key: &str| key[key.len() - 40..].to_owned();
    for secret in [tail(&admin), tail(&operator), tail(&share), planted.to_owned()] {
        for (name, content) in &found {
            let there = content.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!there, "a secret is in {name}");
        }
    }
}
