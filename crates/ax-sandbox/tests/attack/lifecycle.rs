//! What becomes of a sandbox: whatever dies, nothing stays behind.

use crate::bench::{Bench, Who, text};
use ax_sandbox::{Gateway, State, Wall};
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long something may take that is a matter of milliseconds.
const SOON: Duration = Duration::from_secs(20);

fn both(test: fn(&Bench)) {
    for who in [Who::Root, Who::User] {
        if let Some(bench) = Bench::new(who) {
            test(&bench);
            bench.assert_clean();
        }
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun_at = Instant::now();
    while !holds() {
        assert!(begun_at.elapsed() < SOON, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns whether a process runs whose command line contains this.
fn runs(mark: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok()).any(|line| {
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(mark) && !line.contains("host {")
    })
}

#[test]
fn every_mandatory_wall_stands_and_the_rest_is_reported() {
    both(|bench| {
        let outcome = bench.run(&bench.order(&["true"]));
        let walls = outcome.walls.unwrap_or_else(|| panic!("{}", outcome.ended));
        for standing in walls {
            let missing = matches!(standing.state, State::Missing { .. });
            assert!(!missing || !standing.wall.is_mandatory(), "{standing:?}");
            if missing {
                eprintln!("{:?}: {standing:?}", bench.who);
            }
        }
    });
}

#[test]
fn the_kernel_says_that_the_command_is_confined() {
    both(|bench| {
        let outcome = bench.run(&bench.order(&["cat", "/proc/self/status"]));
        let field = |name: &str| {
            let line = outcome.output.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name} in {outcome:?}")).trim().to_owned()
        };
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(field(set), "0000000000000000", "{set}");
        }
        assert_eq!(field("NoNewPrivs:"), "1");
        assert_eq!(field("Seccomp:"), "2");
        assert!(!field("Uid:").split_whitespace().any(|id| id == "0"));
        assert_eq!(field("Groups:").replace("65534", ""), "");
    });
}

#[test]
fn files_of_the_workspace_are_the_sandboxs_inside_and_the_runtimes_outside() {
    both(|bench| {
        let seeded = bench.path("workspace/seeded");
        fs::write(&seeded, "before").unwrap();
        std::os::unix::fs::chown(&seeded, Some(bench.uid()), Some(bench.uid())).unwrap();
        fs::set_permissions(&seeded, fs::Permissions::from_mode(0o600)).unwrap();
        let script = "cat seeded && echo after > seeded && mkdir made && echo x > made/file";
        let outcome = bench.run(&bench.order(&["sh", "-c", script]));
        assert_eq!((&*outcome.output, &*outcome.errors), ("before", ""), "{outcome:?}");
        assert_eq!(fs::read_to_string(&seeded).unwrap(), "after\n");
        let made = fs::metadata(bench.path("workspace/made/file")).unwrap();
        assert_eq!(made.uid(), bench.uid());
    });
}

#[test]
fn two_sandboxes_of_root_have_no_user_in_common() {
    let Some(bench) = Bench::new(Who::Root) else { return };
    let order = bench.order(&["sh", "-c", "id -u; sleep 1"]);
    let (mut first, mut second) = (bench.host(&order), bench.host(&order));
    let run = |command: &mut Command| command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let children = [run(&mut first), run(&mut second)];
    let said = children.map(|child| child.wait_with_output().unwrap().stdout);
    let said = said.map(|said| serde_json::from_slice::<crate::host::Outcome>(&said).unwrap());
    assert_ne!(said[0].output, said[1].output);
    assert!(said.iter().all(|one| one.output.trim() != "0"), "{said:?}");
    bench.assert_clean();
}

#[test]
fn the_only_way_out_leads_to_the_gateway() {
    both(|bench| {
        let dir = bench.path("gateway");
        fs::create_dir(&dir).unwrap();
        let socket = dir.join("gateway.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        for path in [&dir, &socket] {
            std::os::unix::fs::chown(path, Some(bench.uid()), Some(bench.uid())).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        }
        drop(std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut asked = [0; 4];
                stream.read_exact(&mut asked).unwrap();
                stream.write_all(b"answer to ").unwrap();
                stream.write_all(&asked).unwrap();
            }
        }));
        let script = "exec 3<>/dev/tcp/127.0.0.1/8080; printf ping >&3; cat <&3";
        let mut order = bench.order(&["bash", "-c", script]);
        order.gateway = Some(Gateway { socket, port: 8080 });
        let outcome = bench.run(&order);
        assert_eq!(outcome.output, "answer to ping", "{outcome:?}");
    });
}

#[test]
fn the_way_in_is_the_runtimes_and_nobody_elses() {
    both(|bench| {
        let port: u16 = 20_000 + u16::try_from(bench.ids.0 / 64 % 20_000).unwrap();
        let server = format!(
            "import socket, time; s = socket.create_server(('127.0.0.1', {port}));
while True: s.accept()[0].sendall(b'from inside')"
        );
        let client = format!(
            "import socket
try: print(socket.create_connection(('127.0.0.1', {port})).recv(99).decode())
except OSError as error: print(type(error).__name__)"
        );
        // A neighbour, or a program of the host, finds the port only where there is no wall.
        for (without, neighbour) in
            [(Vec::new(), "ConnectionRefusedError\n"), (vec![Wall::NetNamespace], "from inside\n")]
        {
            let mut order = bench.order(&["python3", "-I", "-c", &server]);
            (order.enter, order.without) = (Some(port), without.clone());
            order.after = Some((3_000, "kill".into()));
            let mut inside = bench.host(&order);
            let inside = inside.stdout(std::process::Stdio::piped()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(1_500));
            let mut order = bench.order(&["python3", "-I", "-c", &client]);
            order.without = without;
            let outcome = bench.run(&order);
            assert_eq!(outcome.output, neighbour, "{outcome:?}");
            let said = inside.wait_with_output().unwrap().stdout;
            let outcome: crate::host::Outcome = serde_json::from_slice(&said).unwrap();
            assert_eq!(outcome.entered.as_deref(), Some("from inside"), "{outcome:?}");
        }
    });
}

#[test]
fn what_detaches_and_stops_itself_dies_with_the_command() {
    both(|bench| {
        let script = "(setsid sh -c 'sleep 0.3; echo late > late' </dev/null >/dev/null 2>&1 &); \
                      (setsid sh -c 'kill -STOP $$; sleep 99' &) ; sleep 0.1";
        let order = bench.order(&["sh", "-c", script]);
        let outcome = bench.run(&order);
        assert_eq!(outcome.ended, "Ran(Exited(0))", "{outcome:?}");
        std::thread::sleep(Duration::from_millis(500));
        let late = bench.path("workspace/late");
        assert!(!late.exists());
        // The control: without a process namespace the first one lives on, and is seen.
        let script = "(setsid sh -c 'sleep 0.3; echo late > late' </dev/null >/dev/null 2>&1 &)";
        let mut order = bench.order(&["sh", "-c", script]);
        order.without = vec![Wall::PidNamespace];
        bench.run(&order);
        until("the control's file", || late.exists());
    });
}

#[test]
fn orphans_are_taken_care_of() {
    both(|bench| {
        // Each leaves a child behind that ends at once; were they not reaped, 40 would be too many.
        let script = "i=0; while [ $i -lt 300 ]; do (true & true) ; i=$((i+1)); done; echo done";
        let mut order = bench.order(&["sh", "-c", script]);
        order.plan = json!({"resources": {"pids": 40}});
        let outcome = bench.run(&order);
        assert_eq!(outcome.output, "done\n", "{outcome:?}");
    });
}

#[test]
fn a_runtime_that_dies_takes_its_sandboxes_along() {
    both(|bench| {
        let mark = format!("600.{}", bench.uid());
        let mut order = bench.order(&["sleep", &mark]);
        order.after = Some((0, "abandon".into()));
        assert!(bench.host(&order).status().unwrap().success());
        until("the end of the sandbox", || !runs(&format!("sleep {mark}")));
        until("the removal of the entry", || fs::read_dir(bench.path("run")).unwrap().count() == 0);
        let launcher = format!("{} launch", text(&bench.program()));
        until("the end of the launcher that stays ready", || !runs(&launcher));
    });
}

#[test]
fn a_launcher_that_is_killed_takes_its_sandbox_along() {
    both(|bench| {
        let mark = format!("700.{}", bench.uid());
        let order = bench.order(&["sleep", &mark]);
        let mut host = bench.host(&order);
        let host = host.stdout(std::process::Stdio::piped()).spawn().unwrap();
        until("the start", || runs(&format!("sleep {mark}")));
        let entry = fs::read_dir(bench.path("run")).unwrap().next().unwrap().unwrap();
        let entry = fs::read_to_string(entry.path()).unwrap();
        let launcher = entry.split(' ').nth(2).unwrap().parse().unwrap();
        let launcher = rustix::process::Pid::from_raw(launcher).unwrap();
        rustix::process::kill_process(launcher, rustix::process::Signal::KILL).unwrap();
        let said = host.wait_with_output().unwrap().stdout;
        let outcome: crate::host::Outcome = serde_json::from_slice(&said).unwrap();
        assert_eq!(outcome.ended, "Killed");
        assert!(!runs(&format!("sleep {mark}")));
    });
}

#[test]
fn a_mount_does_not_follow_what_an_earlier_session_planted() {
    both(|bench| {
        let shared = bench.open_dir("shared");
        let link = bench.path("workspace/link");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        let mut order = bench.order(&["true"]);
        order.plan = json!({"mounts": [{"source": shared, "target": link.join("below")}]});
        let outcome = bench.run(&order);
        assert!(outcome.ended.starts_with("not started: own file tree"), "{outcome:?}");
        fs::remove_file(link).unwrap();
    });
}

#[test]
fn a_mount_of_the_runtimes_own_files_is_refused() {
    both(|bench| {
        for source in [bench.path("run"), bench.dir.path().to_path_buf()] {
            let mut order = bench.order(&["true"]);
            order.plan = json!({"mounts": [{"source": text(&source), "target": "/opt/x"}]});
            let outcome = bench.run(&order);
            assert!(outcome.ended.starts_with("refused: sandbox.mounts"), "{outcome:?}");
        }
    });
}

#[test]
fn ordinary_programs_work() {
    both(|bench| {
        let script = "id -un; hostname 2>/dev/null || cat /etc/hostname; \
                      python3 -I -c 'import json, socket, threading, subprocess, sqlite3; \
                      print(subprocess.run([\"echo\", \"sub\"], capture_output=True).stdout)'";
        let outcome = bench.run(&bench.order(&["/bin/sh", "-c", script]));
        assert_eq!(outcome.output, "agent\nsandbox\nb'sub\\n'\n", "{outcome:?}");
    });
}

#[test]
fn what_it_consumes_is_known_where_there_are_control_groups() {
    let Some(bench) = Bench::new(Who::Root) else { return };
    let outcome = bench.run(&bench.order(&["sleep", "0.2"]));
    let walls = outcome.walls.unwrap();
    let limited = walls.iter().any(|one| one.wall == Wall::Cgroup && one.state == State::Stands);
    if limited {
        assert!(outcome.peak_pids.is_some_and(|pids| pids >= 1));
    } else {
        eprintln!("NOT TESTED: this machine has no control groups for us");
    }
}

/// Returns the control groups of sandboxes of this bench, wherever they are.
fn groups(bench: &Bench) -> Vec<PathBuf> {
    let prefix = ax_sandbox::prefix_of(&bench.path("run"));
    let (mut found, mut places) = (Vec::new(), vec![PathBuf::from("/sys/fs/cgroup")]);
    while let Some(place) = places.pop() {
        for entry in fs::read_dir(place).into_iter().flatten().filter_map(Result::ok) {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                found.push(entry.path());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                places.push(entry.path());
            }
        }
    }
    found
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// `AX_SANDBOX_ROUNDS` says how many rounds for each user, `AX_SANDBOX_SEED` when they kill.
#[test]
fn a_runtime_killed_at_any_moment_leaves_nothing_after_the_next_start() {
    let rounds = number("AX_SANDBOX_ROUNDS", 20);
    let mut random = number("AX_SANDBOX_SEED", u64::from(std::process::id()));
    eprintln!("AX_SANDBOX_SEED={random} AX_SANDBOX_ROUNDS={rounds}");
    let (mut killed, mut entries) = (0, 0);
    for who in [Who::Root, Who::User] {
        let Some(bench) = Bench::new(who) else { continue };
        let mark = format!("800.{}", bench.uid());
        let launcher = format!("{} launch", text(&bench.program()));
        for round in 0..rounds {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // One that stays is killed while it is made or runs, one that ends while it is removed.
            let ends = format!(": {mark}");
            let stays: [&str; 2] = ["sleep", &mark];
            let command = if round % 2 == 0 { &stays[..] } else { &["sh", "-c", &ends] };
            let mut host = bench.host(&bench.order(command));
            let mut host = host.stdout(std::process::Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_micros((random >> 33) % 30_000));
            host.kill().unwrap();
            killed += u64::from(!host.wait().unwrap().success());
            entries += fs::read_dir(bench.path("run")).unwrap().count() as u64;
            let mut order = bench.order(&["true"]);
            order.reap = true;
            let outcome = bench.run(&order);
            assert_eq!(outcome.ended, "Ran(Exited(0))", "round {round}: {outcome:?}");
            assert!(!runs(&format!("sleep {mark}")), "round {round}");
            until("the end of launchers", || !runs(&launcher));
            bench.assert_clean();
            assert_eq!(groups(&bench), Vec::<PathBuf>::new(), "round {round}");
        }
    }
    let counts = json!({"name": "sandbox", "killed": killed, "left_to_reap": entries});
    eprintln!("{counts}");
}

#[test]
fn control_groups_are_where_they_are_looked_for() {
    let Some(bench) = Bench::new(Who::Root) else { return };
    let mark = format!("900.{}", bench.uid());
    let mut host = bench.host(&bench.order(&["sleep", &mark]));
    let mut host = host.stdout(std::process::Stdio::piped()).spawn().unwrap();
    until("the start", || runs(&format!("sleep {mark}")));
    let found = groups(&bench);
    host.kill().unwrap();
    host.wait().unwrap();
    let mut order = bench.order(&["true"]);
    order.reap = true;
    let walls = bench.run(&order).walls.unwrap();
    let stands = walls.iter().any(|one| one.wall == Wall::Cgroup && one.state == State::Stands);
    assert_eq!(!found.is_empty(), stands, "{found:?}");
    bench.assert_clean();
}

#[test]
fn the_law_holds_as_root_and_as_a_user() {
    both(|bench| {
        let mut command = Command::new(bench.program());
        let dir = text(bench.dir.path());
        command.args(["conform", &dir, &bench.ids.0.to_string()]);
        let output = bench.as_who(&mut command).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?}: {errors}", bench.who);
    });
}
