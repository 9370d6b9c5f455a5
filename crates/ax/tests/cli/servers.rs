//! Servers: in the foreground, in the background, in another command, killed.

use super::world::{World, kill, wait};
use expect_test::expect;
use rustix::process::Signal;
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

/// Counts to 200 and says so, waiting in the middle until it may go on.
const COUNTS: &str = "i=0; while test $i -lt 200; do i=$((i+1)); echo $i; \
    if test $i -eq 100; then touch \"$AX_WORKSPACE\"/../../../../began; \
    while test ! -e \"$AX_WORKSPACE\"/../../../../go; do sleep 0.02; done; fi; done";

#[test]
fn a_server_says_where_it_serves_and_stops_when_it_is_told() {
    let world = World::new();
    let mut server = world.start(&["serve"]);
    let line = server.line();
    assert_eq!(line, format!("serving {}", world.data().join("ax.sock").display()));
    assert_eq!(world.holder(), Some(server.pid()));
    server.signal(Signal::TERM);
    assert_eq!(server.end().code, 0);
    assert!(!world.data().join("ax.sock").exists());
    assert_eq!(world.holder(), None);
}

#[test]
fn a_server_on_an_address_says_which_and_answers_there() {
    let world = World::new();
    let args =
        ["serve", "--listen", "127.0.0.1:0", "--insecure-no-auth", "--allow-unsandboxed", "--json"];
    let mut server = world.start(&args);
    let serving: Value = serde_json::from_str(&server.line()).unwrap();
    let url = serving["addresses"][0].as_str().unwrap().to_owned();
    let address = url.strip_prefix("http://").unwrap();
    assert!(!address.ends_with(":0"), "{url}");
    let written = std::fs::read_to_string(world.data().join("server.json")).unwrap();
    let written: Value = serde_json::from_str(&written).unwrap();
    assert_eq!(written["addresses"][0], url.as_str());
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let request = "GET /v1/info HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let info: Value = serde_json::from_str(body).unwrap();
    assert_eq!(info["pid"], server.pid());
    server.signal(Signal::TERM);
    let ended = server.end();
    assert_eq!(ended.code, 0);
    assert!(ended.err.contains("there is no authentication"), "{ended:?}");
}

#[test]
fn an_address_is_refused_without_authentication_and_when_it_is_taken() {
    let world = World::new();
    let refused = world.ax(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.err.contains("AX4001"), "{refused:?}");
    assert!(refused.err.contains("--insecure-no-auth"), "{refused:?}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = world.ax(&["serve", "--listen", &address, "--insecure-no-auth"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.err.contains(&format!("cannot listen at {address}")), "{refused:?}");
    assert_eq!(world.holder(), None);
}

#[test]
fn a_second_server_on_a_directory_is_refused_and_told_who_has_it() {
    let world = World::new();
    let server = world.serve();
    let second = world.ax(&["serve"]);
    assert_eq!(second.code, 4);
    assert!(second.err.contains(&format!("pid {}", server.pid())), "{second:?}");
    let err = second.shown().replace(env!("CARGO_BIN_EXE_ax"), "ax");
    expect![[r#"
        -- stderr
        error[AX2001]: DIR/data is in use by process PID (ax serve)
          hint: pid PID serves it at DIR/data/ax.sock: other commands use that server by themselves
        -- exit 4
    "#]]
    .assert_eq(&err);
}

#[test]
fn commands_use_the_server_and_work_goes_on_without_them() {
    let world = World::new();
    world.agent("counts", "text", COUNTS, "");
    let server = world.serve();
    let session = world.ok(&["run", "-a", "counts", "--detach", "go"]);
    world.wait_file("began");
    let follow = world.start(&["follow", &session]);
    follow.kill();
    world.write("go", "");
    world.wait_state(&session, "completed");
    let followed = world.ax(&["follow", &session, "--until-idle"]);
    assert_eq!(followed.out.lines().count(), 201);
    assert_eq!(world.holder(), Some(server.pid()));
}

#[test]
fn detaching_starts_a_server_that_leaves_when_it_is_idle() {
    let world = World::new();
    world.agent("counts", "text", COUNTS, "");
    let session = world.ok(&["run", "-a", "counts", "--detach", "go"]);
    assert!(session.starts_with("ses_"), "{session}");
    world.wait_file("began");
    let pid = world.holder().unwrap();
    world.write("go", "");
    let followed = world.ax(&["follow", &session, "--until-idle"]);
    assert_eq!(followed.code, 0, "{followed:?}");
    assert!(followed.out.ends_with("199\n200\n"), "{followed:?}");
    assert_eq!(world.holder(), Some(pid), "the same server runs");
    kill(pid, Signal::TERM);
    wait("the end of the server", || world.holder().is_none());
    let log = std::fs::read_to_string(world.data().join("server.log")).unwrap();
    assert!(log.starts_with("serving "), "{log}");
}

#[test]
fn an_idle_server_stops_by_itself() {
    let world = World::new();
    let server = world.start(&["serve", "--idle-exit", "0"]);
    assert_eq!(server.end().code, 0);
}

#[test]
fn a_server_whose_program_was_replaced_starts_harnesses_as_before() {
    let world = World::new();
    world.echo();
    // An upgrade puts another file in its place.
    let program = world.path("ax");
    let ours = env!("CARGO_BIN_EXE_ax");
    if std::fs::hard_link(ours, &program).is_err() {
        std::fs::copy(ours, &program).unwrap();
    }
    let mut command = Command::new(&program);
    command.arg("serve").current_dir(world.path("")).env_clear();
    let given = world.command(&[]);
    command.envs(given.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut server = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("serving "), "{line:?}");
    std::fs::remove_file(&program).unwrap();
    let ran = world.ax(&["run", "-a", "echo", "hello"]);
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!((ran.code, ran.out.trim_end()), (0, "hello"), "{ran:?}");
}

#[test]
fn a_follower_sees_every_event_once_although_the_server_is_killed() {
    let world = World::new();
    world.agent("counts", "text", COUNTS, "");
    let server = world.serve();
    let session = world.ok(&["run", "-a", "counts", "-s", "count", "--detach", "go"]);
    let mut follow = world.start(&["follow", "count", "--json"]);
    let mut seen = vec![follow.line()];
    world.wait_file("began");
    server.kill();
    let _server = world.serve();
    world.write("go", "");
    world.wait_state("count", "completed");
    while !seen.last().unwrap().contains("execution.completed") {
        seen.push(follow.line());
    }
    let seqs: Vec<u64> = seen.iter().map(|line| seq(line)).collect();
    let last = u64::try_from(seqs.len()).unwrap();
    assert_eq!(seqs, (1..=last).collect::<Vec<_>>(), "{session}");
    assert!(seen.iter().any(|line| line.contains("attempt.lost")));
}

fn seq(line: &str) -> u64 {
    let event: Value = serde_json::from_str(line).unwrap();
    event["seq"].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_command_takes_over_from_one_that_is_done() {
    let world = World::new();
    world.agent("counts", "text", COUNTS, "");
    world.agent(
        "gate",
        "text",
        "touch \"$AX_WORKSPACE\"/../../../../open; \
         while test ! -e \"$AX_WORKSPACE\"/../../../../shut; do sleep 0.02; done; echo bye",
        "",
    );
    let first = world.start(&["run", "-a", "gate", "go"]);
    world.wait_file("open");
    let second = world.start(&["run", "-a", "counts", "-s", "count", "go"]);
    world.wait_file("began");
    assert_eq!(world.holder(), Some(first.pid()));
    world.write("shut", "");
    assert_eq!(first.end().out, "bye\n");
    wait("another holder", || world.holder() == Some(second.pid()));
    world.write("go", "");
    let ran = second.end();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.ends_with("199\n200\n"), "{ran:?}");
}

#[test]
fn a_data_directory_with_a_long_path_is_served_all_the_same() {
    let world = World::new();
    let data = world.path(&"long".repeat(30));
    let data = data.to_str().unwrap();
    let mut server = world.start(&["serve", "--data", data]);
    let line = server.line();
    assert!(line.starts_with("serving /") && line.len() < 116, "{line}");
    assert_eq!(world.ok(&["session", "list", "--data", data]), "");
}

#[test]
fn doctor_finds_everything_in_order() {
    let world = World::new();
    let checks = world.json(&["doctor"]);
    let names: Vec<_> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    for name in ["version", "data", "disk", "space", "server", "kernel", "python", "model key"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert!(checks.iter().all(|check| check["level"] != "wrong"), "{checks:?}");
    let server = world.serve();
    let text = world.ok(&["doctor"]);
    assert!(text.contains(&format!("pid {}: ", server.pid())), "{text}");
    assert!(text.contains("namespace, with "), "{text}");
    assert!(text.contains("network namespace"), "{text}");
}

#[test]
fn the_demo_keeps_its_claims() {
    let world = World::new();
    let ran = world.ax(&["demo", "--json"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    let summary = &ran.objects()[0];
    assert_eq!(summary["ok"], true, "{summary}");
    assert_eq!(summary["sandbox"], "namespace");
    assert_eq!(summary["duplicates"], 0);
    assert_eq!(summary["effects"], 2);
    assert_eq!(summary["kills"], 2);
    assert_eq!(summary["recovered_attempts"], 2);
    assert_eq!(summary["branches"].as_array().unwrap().len(), 1);
}
