//! What operators rely on: settings, logs, signals, systemd, doctor, traces.

use super::certificates::Authority;
use super::manager::Manager;
use super::world::{Ran, Running, World, wait};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use rustix::process::Signal;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

/// What must not be in any log line or span.
const PLANTED: &str = "planted-d41d8cd98f";

fn ended(server: Running) -> (i32, Vec<Value>) {
    server.signal(Signal::TERM);
    let ran = server.end();
    let lines = ran.err.lines().filter(|line| line.starts_with('{'));
    (ran.code, lines.map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn systemd_is_told_what_the_server_does() {
    let world = World::new();
    let manager = Manager::new(&world);
    let environment = [("NOTIFY_SOCKET", &*manager.path), ("WATCHDOG_USEC", "200000")];
    let server = world.start_in(&["serve"], &environment);
    assert!(manager.told("READY=1").contains("STATUS="));
    manager.told("WATCHDOG=1");
    manager.told("WATCHDOG=1");
    server.signal(Signal::HUP);
    assert!(manager.told("RELOADING=1").contains("MONOTONIC_USEC="));
    manager.told("READY=1");
    server.signal(Signal::TERM);
    manager.told("STOPPING=1");
    assert_eq!(server.end().code, 0);
}

#[test]
fn a_reload_changes_the_level_and_cuts_nothing() {
    let world = World::new();
    world.echo();
    world.ok(&["run", "-a", "echo", "-s", "talk", "one"]);
    let manager = Manager::new(&world);
    let file = world.write("data/config.yaml", "log: {level: error, format: json}\n");
    let server = world.start_in(&["serve"], &[("NOTIFY_SOCKET", &manager.path)]);
    manager.told("READY=1");
    let mut follower = world.start(&["follow", "talk", "--json"]);
    let first: Value = serde_json::from_str(&follower.line()).unwrap();
    assert_eq!(first["seq"], "1", "{first}");
    let reload = |text: &str| {
        std::fs::write(&file, text).unwrap();
        server.signal(Signal::HUP);
        manager.told("RELOADING=1");
        manager.told("READY=1");
    };
    reload("log: {levle: info}\n");
    reload("log: {level: info, format: json}\nengine: {runs_max: 3}\n");
    world.ok(&["run", "-s", "talk", "two"]);
    // The same follower, over both reloads.
    wait("the second execution", || follower.line().contains("\"execution\":2"));
    let (code, lines) = ended(server);
    assert_eq!(code, 0);
    let has = |part: &str| lines.iter().any(|line| line.to_string().contains(part));
    assert!(has("did you mean `level`?"), "{lines:#?}");
    assert!(has("needs a restart") && has("engine.runs_max"), "{lines:#?}");
    assert!(has("launched"), "{lines:#?}");
    // Nothing at that level before it was asked for.
    let first = lines.first().map(|line| line["level"].clone());
    assert_eq!(first, Some("ERROR".into()), "{lines:#?}");
}

#[test]
fn logs_carry_ids_and_no_contents() {
    let world = World::new();
    world.agent("echo", "jsonl", &format!("say {PLANTED}\nfinish"), "");
    let manager = Manager::new(&world);
    let environment = [
        ("NOTIFY_SOCKET", &*manager.path),
        ("AX_LOG_FORMAT", "json"),
        ("AX_LOG_LEVEL", "info"),
        ("AX_TRACING_HEADERS", &format!("authorization={PLANTED}")),
    ];
    let server = world.start_in(&["serve"], &environment);
    manager.told("READY=1");
    world.ok(&["run", "-a", "echo", "-s", "talk", PLANTED]);
    let (code, lines) = ended(server);
    assert_eq!(code, 0);
    let launched = lines.iter().find(|line| line["message"] == "launched").unwrap();
    let session = launched["session"].as_str().unwrap();
    assert!(session.contains("ses_"), "{launched}");
    assert_eq!((&launched["exec"], &launched["attempt"]), (&"exec_1".into(), &1.into()));
    for line in &lines {
        assert!(!line.to_string().contains(PLANTED), "{line}");
        assert!(line["at"].is_string() && line["level"].is_string(), "{line}");
    }
}

#[test]
fn a_wrong_setting_stops_a_command_and_doctor_says_which() {
    let world = World::new();
    let file = world.write("ax.yaml", "log: {level: info}\nengine: {runs_maks: 3}\n");
    let file = file.to_str().unwrap();
    let ran = world.ax(&["session", "list", "--config", file]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.err.starts_with("error[AX1102]"), "{ran:?}");
    assert!(ran.err.contains("line 2") && ran.err.contains("did you mean `runs_max`?"), "{ran:?}");
    let ran = world.ax(&["doctor", "--config", file, "--set", "metrics.public=true", "--json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let checks = ran.objects();
    let found = |part: &str| checks.iter().find(|check| check["found"].to_string().contains(part));
    assert_eq!(found("engine.runs_maks").unwrap()["level"], "wrong");
    assert!(found("log.level = info (file, line 1)").is_some(), "{ran:?}");
    assert!(found("metrics.public = true (flag, --set)").is_some(), "{ran:?}");
    assert!(found("engine.runs_max = 64 (default)").is_some(), "{ran:?}");
}

#[test]
fn doctor_finds_an_agent_whose_program_is_not_there() {
    let world = World::new();
    world.echo();
    let fine = world.json(&["doctor"]);
    assert!(fine.iter().any(|check| check["name"] == "agents" && check["level"] == "ok"));
    let manifest = std::fs::read_to_string(world.path("echo.yaml")).unwrap();
    world.write(
        "gone.yaml",
        manifest.replace("[sh,", "[no-such-program,").replace("echo}", "gone}"),
    );
    world.ok(&["agent", "apply", "-f", "gone.yaml"]);
    let ran = world.ax(&["doctor"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("gone: no-such-program is not found"), "{ran:?}");
}

#[test]
fn doctor_reads_what_a_server_would_need_to_let_somebody_in() {
    let (world, authority) = (World::new(), Authority::new());
    let [certificate, key] = authority.issue("127.0.0.1", &world.path(""), "server");
    let auth = world.write("auth.yaml", "certificates: []\n").display().to_string();
    let set = |auth: &str, key: &str| {
        let pairs = [("auth.file", auth), ("tls.certificate", &certificate), ("tls.key", key)];
        pairs.map(|(path, value)| format!("{path}={value}"))
    };
    let checked = |auth: &str, key: &str| {
        let [auth, certificate, key] = set(auth, key);
        world.ax(&["doctor", "--json", "--set", &auth, "--set", &certificate, "--set", &key])
    };
    let levels = |ran: &Ran| {
        let of = |name: &str| {
            let check = ran.objects().into_iter().find(|check| check["name"] == name).unwrap();
            (check["level"].as_str().unwrap().to_owned(), check["found"].to_string())
        };
        [of("auth"), of("tls")]
    };
    let fine = checked(&auth, &key);
    assert_eq!(levels(&fine).map(|(level, _)| level), ["ok", "ok"], "{fine:?}");
    world.write("auth.yaml", "jwt: {issuer: 7}\n");
    world.write("other.key", "no key at all");
    let other = world.path("other.key").display().to_string();
    let wrong = checked(&auth, &other);
    assert_eq!(wrong.code, 1, "{wrong:?}");
    let [auth, tls] = levels(&wrong);
    let half = format!("tls.certificate={certificate}");
    let half = world.ax(&["serve", "--set", &half]);
    assert!(half.err.contains("needs a certificate and its key"), "{half:?}");
    assert!(auth.0 == "wrong" && auth.1.contains("auth.yaml"), "{auth:?}");
    assert!(tls.0 == "wrong" && tls.1.contains("there can be no TLS"), "{tls:?}");
}

/// A collector: takes what is posted, and keeps the spans.
struct Collector {
    address: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let spans = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&spans);
        // It ends with the test's process.
        std::thread::spawn(move || {
            // The first is refused for a while: it must come again.
            let mut refused = false;
            for stream in listener.incoming() {
                take(&stream.unwrap(), &kept, &mut refused);
            }
        });
        Self { address, spans }
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }
}

/// Takes the requests of one connection, until it is closed.
fn take(stream: &TcpStream, kept: &Mutex<Vec<Span>>, refused: &mut bool) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut head, mut length) = (Vec::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim_end().to_lowercase();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
            head.push(line);
        }
        assert_eq!(head[0], "post /v1/traces http/1.1");
        assert!(head.contains(&"content-type: application/x-protobuf".into()), "{head:?}");
        assert!(head.contains(&"x-tenant: acme".into()), "{head:?}");
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let status = if *refused { "200 OK" } else { "503 Service Unavailable" };
        if *refused {
            let request = ExportTraceServiceRequest::decode(&*body).unwrap();
            let scopes = request.resource_spans.into_iter().flat_map(|one| one.scope_spans);
            kept.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
        }
        *refused = true;
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        (&*stream).write_all(answer.as_bytes()).unwrap();
    }
}

fn attribute(span: &Span, name: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == name);
    format!("{:?}", found.and_then(|found| found.value.clone()).and_then(|value| value.value))
}

#[test]
fn an_execution_has_one_trace_over_a_kill_and_a_restart() {
    let world = World::new();
    let collector = Collector::new();
    let script = "
if [ ! -e again ]; then
    : > again
    printf '{\"type\":\"step_begin\",\"key\":\"look\",\"kind\":\"tool\",\"name\":\"search\",'
    printf '\"effect\":\"read\"}\\n'
    while :; do read -r line || exit 0; done
fi
say PLANTED
finish"
        .replace("PLANTED", PLANTED)
        .replace("again", &world.path("again").display().to_string());
    world.agent("worker", "jsonl", &script, "");
    let environment =
        [("AX_TRACING_ENDPOINT", &*collector.address), ("AX_TRACING_HEADERS", "x-tenant=acme")];
    let mut server = world.start_in(&["serve"], &environment);
    assert!(server.line().starts_with("serving "));
    world.ok(&["run", "-a", "worker", "-s", "job", "--detach", PLANTED]);
    wait("the step", || world.ok(&["events", "job", "--json"]).contains("search"));
    server.kill();
    let mut server = world.start_in(&["serve"], &environment);
    assert!(server.line().starts_with("serving "));
    world.wait_state("job", "completed");
    server.signal(Signal::TERM);
    assert_eq!(server.end().code, 0);
    let spans = collector.spans();
    let named = |name: &str| {
        spans.iter().find(|span| span.name == name).unwrap_or_else(|| {
            let names: Vec<_> = spans.iter().map(|span| &span.name).collect();
            panic!("no span {name:?} among {names:?}")
        })
    };
    let execution = named("invoke_agent worker");
    let (first, second) = (named("attempt 1"), named("attempt 2"));
    let step = named("execute_tool search");
    assert!(spans.iter().all(|span| span.trace_id == execution.trace_id));
    assert_eq!(
        (&first.parent_span_id, &second.parent_span_id),
        (&execution.span_id, &execution.span_id)
    );
    assert_eq!(step.parent_span_id, first.span_id);
    assert_eq!(second.links.len(), 1);
    assert_eq!(second.links[0].span_id, first.span_id);
    assert!(first.status.as_ref().is_some_and(|status| status.message == "runtime"), "{first:?}");
    assert!(execution.start_time_unix_nano <= step.start_time_unix_nano);
    assert!(execution.end_time_unix_nano >= second.end_time_unix_nano);
    assert!(attribute(execution, "gen_ai.operation.name").contains("invoke_agent"));
    assert!(attribute(execution, "gen_ai.agent.name").contains("worker"));
    assert!(attribute(execution, "gen_ai.conversation.id").contains("ses_"));
    assert!(attribute(step, "gen_ai.tool.name").contains("search"));
    assert!(execution.events.iter().any(|event| event.name == "attempt.lost"), "{execution:?}");
    assert!(!format!("{spans:?}").contains(PLANTED));
}

/// Asks the local socket for a path; returns the status and the body.
fn get(world: &World, path: &str) -> Option<(u16, String)> {
    let mut stream = UnixStream::connect(world.data().join("ax.sock")).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

#[test]
fn probes_and_metrics_say_how_the_server_is() {
    let world = World::new();
    world.echo();
    let server = world.serve();
    assert_eq!(get(&world, "/healthz").unwrap().0, 200);
    let (status, body) = get(&world, "/readyz").unwrap();
    assert_eq!((status, body.trim_end()), (200, "{\"status\":\"ready\"}"));
    world.ok(&["run", "-a", "echo", "-s", "talk", PLANTED]);
    assert_eq!(get(&world, "/no/such/path").unwrap().0, 404);
    let (status, metrics) = get(&world, "/metrics").unwrap();
    assert_eq!(status, 200);
    for line in [
        "ax_executions_started_total 1",
        "ax_executions_ended_total{kind=\"completed\"} 1",
        "ax_events_total{kind=\"input.received\"} 1",
        "ax_requests_total{method=\"agentexecutor.v1.Sessions/Submit\",code=\"0\"} 1",
        "ax_requests_total{method=\"GET /readyz\",code=\"200\"} 1",
        "ax_requests_total{method=\"other\",code=\"404\"} 1",
        "# EOF",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
    let appends = metrics.lines().find_map(|line| line.strip_prefix("ax_log_appends_total "));
    assert!(appends.unwrap().parse::<u64>().unwrap() > 2, "{metrics}");
    assert!(!metrics.contains("ses_") && !metrics.contains(PLANTED), "{metrics}");
    drop(server);
}

#[test]
fn a_server_that_stops_is_not_ready() {
    let world = World::new();
    // It does not go when it is told to, so that stopping takes a while.
    world.agent("stubborn", "jsonl", "trap '' TERM INT; : > up; while :; do sleep 1; done", "");
    let server = world.serve();
    world.ok(&["run", "-a", "stubborn", "-s", "job", "--detach", "x"]);
    wait("the agent", || world.ok(&["events", "job"]).contains("attempt.started"));
    assert_eq!(get(&world, "/readyz").unwrap().0, 200);
    server.signal(Signal::TERM);
    // It says so for as long as anything is under way, and then is gone.
    wait("it to be not ready", || match get(&world, "/readyz") {
        Some((status, body)) => status == 503 && body.contains("\"draining\""),
        None => true,
    });
    server.kill();
}

#[test]
fn metrics_can_be_turned_off() {
    let world = World::new();
    let mut server = world.start(&["serve", "--set", "metrics.enabled=false"]);
    assert!(server.line().starts_with("serving "));
    assert_eq!(get(&world, "/metrics").unwrap().0, 404);
    assert_eq!(get(&world, "/healthz").unwrap().0, 200);
}
