//! What of the host is shown to a harness in a sandbox, and to whom the gateway's door opens.
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::print_stderr, reason = "says what was not tested")]

mod support;

use ax_harness::{Adapters, Exit, Launcher as _};
use ax_image::test_support::{Archive, Layout, Packing};
use ax_image::{Import, Store};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use support::engine::Session;
use support::sandboxed::{launcher, options, run, said, sh};
use support::{Rig, Running, gone, until};

/// Writes a program.
fn program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A launcher that takes a while until it is one.
fn slow(rig: &Rig) -> Adapters {
    let mut options = options(rig);
    let slowly = ["sh", "-c", "sleep 1; exec \"$@\"", "sh"];
    options.sandbox = slowly.into_iter().map(Into::into).chain(options.sandbox).collect();
    Adapters::new(options)
}

#[tokio::test]
async fn while_a_sandbox_is_made_everything_else_goes_on() {
    let rig = Rig::new();
    let launcher: std::sync::Arc<dyn ax_harness::Launcher> = std::sync::Arc::new(slow(&rig));
    // There is one thread: whoever blocks it stops this clock.
    let clock = tokio::spawn(async {
        let (mut longest, mut last) = (Duration::ZERO, Instant::now());
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            longest = longest.max(last.elapsed());
            last = Instant::now();
            if longest > Duration::from_millis(900) {
                return longest;
            }
        }
    });
    let (frames, exit) = Running::start(&launcher, sh(&rig, "echo up")).rest().await;
    assert_eq!((said(&frames).as_str(), exit), ("up", Exit::Said));
    assert!(!clock.is_finished(), "stopped for {:?}", clock.await);
    clock.abort();
}

#[tokio::test]
async fn an_attempt_that_is_dropped_while_its_sandbox_is_made_leaves_nothing() {
    let rig = Rig::new();
    let launcher = slow(&rig);
    let (frames, _heard) = tokio::sync::mpsc::channel(8);
    let (_told, told) = tokio::sync::mpsc::channel(8);
    let io = ax_harness::Io {
        frames,
        told,
        kill: tokio_util::sync::CancellationToken::new(),
        may_act: ax_harness::MayAct::default(),
    };
    let attempt = launcher.launch(sh(&rig, "sleep 1; touch ran"), io);
    let begun = tokio::time::timeout(Duration::from_millis(300), attempt).await;
    assert!(begun.is_err(), "{begun:?}");
    let registered = || fs::read_dir(rig.path().join("sandboxes")).map_or(0, Iterator::count);
    assert_eq!(registered(), 1, "it is being made");
    until("nothing is registered", || registered() == 0).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!rig.workspace().join("ran").exists());
}

#[tokio::test]
async fn a_program_that_is_shown_alone_is_found_by_its_name() {
    let rig = Rig::new();
    let place = rig.path().join("tools/tool");
    program(&place, "#!/bin/sh\necho found; ls $(dirname $0)\n");
    fs::write(rig.path().join("tools/other"), "planted").unwrap();
    let mut launch = sh(&rig, "");
    let path = format!("{}:/usr/bin:/bin", rig.path().join("tools").display());
    launch.agent.harness["env"] = json!({"PATH": path});
    launch.agent.harness["command"] = json!(["tool"]);
    let (said, exit) = run(&rig, launch).await;
    assert_eq!((said.as_str(), exit), ("foundtool", Exit::Said));
}

/// Makes a Python that is installed nowhere in particular: links to the host's.
fn python_of_its_own(dir: &Path) -> PathBuf {
    let ask = "import sys; print(sys.executable, sys.prefix, 'python%d.%d' % sys.version_info[:2])";
    let said = Command::new("python3").args(["-I", "-c", ask]).output().unwrap().stdout;
    let said = String::from_utf8(said).unwrap();
    let [executable, prefix, name] = said.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("{said}")
    };
    let python = dir.join("bin").join(name);
    fs::create_dir_all(python.parent().unwrap()).unwrap();
    fs::copy(executable, &python).unwrap();
    fs::create_dir_all(dir.join("lib")).unwrap();
    symlink(Path::new(prefix).join("lib").join(name), dir.join("lib").join(name)).unwrap();
    python
}

#[tokio::test]
async fn an_environment_in_the_agents_own_directory_comes_with_an_interpreter_from_elsewhere() {
    let rig = Rig::new();
    let root = fs::canonicalize(rig.path()).unwrap();
    let python = python_of_its_own(&root.join("pythons/3.x.1"));
    // As with uv: the version is a link to a release.
    symlink("3.x.1", root.join("pythons/3.x")).unwrap();
    let named = root.join("pythons/3.x/bin").join(python.file_name().unwrap());
    let agent = root.join("agent");
    let venv = agent.join("venv");
    let made = Command::new(&named).args(["-m", "venv", "--without-pip"]).arg(&venv).status();
    assert!(made.unwrap().success());
    let leads = fs::read_link(venv.join("bin/python3")).unwrap();
    eprintln!("its interpreter is a link to {}", leads.display());
    fs::write(agent.join("agent.py"), "import sys; print(sys.prefix != sys.base_prefix)").unwrap();
    let mut launch = sh(&rig, "");
    launch.agent.harness["dir"] = agent.to_str().into();
    launch.agent.harness["command"] = json!([venv.join("bin/python").to_str(), "agent.py"]);
    let (said, exit) = run(&rig, launch).await;
    assert_eq!((said.as_str(), exit), ("True", Exit::Said));
}

#[tokio::test]
async fn a_program_that_is_a_link_comes_with_what_it_leads_to() {
    let rig = Rig::new();
    let root = fs::canonicalize(rig.path()).unwrap();
    // As with npm: a link into modules, written for an interpreter that is found by its name.
    let tool = root.join("node/lib/node_modules/tool");
    program(&tool.join("cli.js"), "#!/usr/bin/env fakenode\n");
    fs::write(tool.join("part"), "its part").unwrap();
    program(
        &root.join("node/bin/fakenode"),
        "#!/bin/sh\necho \"$(basename $1) $(cat $(dirname $(readlink -f $1))/part)\"\n",
    );
    symlink("../lib/node_modules/tool/cli.js", root.join("node/bin/tool")).unwrap();
    fs::write(root.join("node/secret"), "planted").unwrap();
    let mut launch = sh(&rig, "");
    let path = format!("{}:/usr/bin:/bin", root.join("node/bin").display());
    launch.agent.harness["env"] = json!({"PATH": path});
    for command in ["tool", root.join("node/bin/tool").to_str().unwrap()] {
        launch.agent.harness["command"] = json!([command]);
        let (said, exit) = run(&rig, launch.clone()).await;
        assert_eq!((said.as_str(), exit), ("tool its part", Exit::Said));
    }
    let script = format!("cat {}/node/secret || echo no", root.display());
    launch.agent.harness["command"] = json!(["sh", "-c", script]);
    assert_eq!(run(&rig, launch).await.0, "no");
}

#[tokio::test]
async fn what_was_written_in_a_workspace_chooses_nothing_that_is_shown() {
    let rig = Rig::new();
    let root = fs::canonicalize(rig.path()).unwrap();
    program(&root.join("host/secret"), "#!/bin/sh\necho planted\n");
    let workspace = fs::canonicalize(rig.workspace()).unwrap();
    symlink(root.join("host/secret"), workspace.join("link")).unwrap();
    program(&workspace.join("script"), &format!("#!{}/host/secret\n", root.display()));
    fs::create_dir_all(workspace.join("venv/bin")).unwrap();
    fs::create_dir_all(root.join("host/lib/python3")).unwrap();
    program(&root.join("host/bin/python3"), "#!/bin/sh\necho planted\n");
    let home = format!("home = {}/host/bin\n", root.display());
    fs::write(workspace.join("venv/pyvenv.cfg"), home).unwrap();
    symlink(root.join("host/bin/python3"), workspace.join("venv/bin/python")).unwrap();
    for name in ["link", "script", "venv/bin/python"] {
        let mut launch = sh(&rig, "");
        launch.agent.harness["command"] = json!([workspace.join(name).to_str()]);
        let (said, exit) = run(&rig, launch).await;
        assert_eq!(said, "", "{name}");
        assert_eq!(gone(exit).code, "spawn", "{name}");
    }
}

#[tokio::test]
async fn homes_and_directories_with_secrets_are_not_shown() {
    let rig = Rig::new();
    let root = fs::canonicalize(rig.path()).unwrap();
    for name in ["keys/.config/gcloud/deep", ".gnupg/agent", "with/.git-credentials", "good"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    let inside = |name: &str| root.join(name).to_str().unwrap().to_owned();
    let places = ["/", "/home", "/root", "/etc", "/var"].map(str::to_owned).into_iter().chain([
        inside("keys/.config/gcloud/deep"),
        inside(".gnupg/agent"),
        inside("with"),
    ]);
    let home = std::env::var("HOME").ok().filter(|home| Path::new(home).is_dir());
    for dir in places.chain(home) {
        let mut launch = sh(&rig, "echo shown");
        launch.agent.harness["dir"] = dir.as_str().into();
        let (said, exit) = run(&rig, launch).await;
        let failure = gone(exit);
        assert!(failure.message.contains("the harness would see"), "{dir}: {said} {failure:?}");
    }
    let mut launch = sh(&rig, "echo shown");
    launch.agent.harness["dir"] = inside("good").into();
    assert_eq!(run(&rig, launch).await.0, "shown");
}

#[tokio::test]
async fn the_data_directory_may_lie_beside_a_program_and_is_covered() {
    let rig = Rig::new();
    let tree = fs::canonicalize(rig.path()).unwrap();
    fs::create_dir(tree.join("private")).unwrap();
    fs::write(tree.join("private/log"), "planted").unwrap();
    let made = Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&tree).status();
    assert!(made.unwrap().success());
    let mut launch = sh(&rig, "");
    let look = format!("import os; print(os.listdir('{}/private'))", tree.display());
    launch.agent.harness["command"] = json!([tree.join("bin/python").to_str(), "-c", look]);
    let (said, exit) = run(&rig, launch).await;
    assert_eq!((said.as_str(), exit), ("[]", Exit::Said));
}

/// Imports a small system of the host's own programs.
fn image(rig: &Rig) {
    let mut files = BTreeSet::new();
    for program in ["/bin/sh", "/bin/cat", "/bin/ls"] {
        files.insert(program.to_owned());
        let said = Command::new("ldd").arg(program).output().unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        files.extend(
            said.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned),
        );
    }
    let layer = files.iter().fold(Archive::default(), |archive, file| {
        archive.program(file.trim_start_matches('/'), &fs::read(file).unwrap())
    });
    let layer = layer
        .program("usr/local/tools/only-here", b"#!/bin/sh\necho \"of the image in $(pwd)\"\n")
        .file("usr/src/app/kept", b"");
    let defaults = json!({"Env": ["PATH=/usr/local/tools:/bin"]});
    let layout = rig.path().join("small");
    Layout::of(&layout, &[(Packing::Gzip, layer.bytes())], &defaults).unwrap();
    let store = Store::open(&rig.path().join("images")).unwrap();
    store.import(&layout, &Import::default(), &mut |_| {}).unwrap();
}

#[tokio::test]
async fn a_manifest_that_names_an_image_has_its_root_and_nothing_of_the_host() {
    let rig = Rig::new();
    image(&rig);
    let script = "only-here; ls /usr/bin/env; [ -e /usr/share ] || echo no host; ls";
    let mut launch = sh(&rig, script);
    launch.agent.sandbox = json!({"root": {"image": "small"}});
    fs::write(rig.workspace().join("kept"), "").unwrap();
    let (said, exit) = run(&rig, launch.clone()).await;
    let workspace = fs::canonicalize(rig.workspace()).unwrap();
    assert_eq!(said, format!("of the image in {}no hostkept", workspace.display()));
    assert_eq!(exit, Exit::Said);
    // The path that a manifest gives is the image's business, and so is a directory in it.
    launch.agent.harness["env"] = json!({"PATH": "/usr/local/tools:/bin"});
    launch.agent.harness["dir"] = "/usr/src/app".into();
    launch.agent.harness["command"] = json!(["only-here"]);
    assert_eq!(run(&rig, launch.clone()).await.0, "of the image in /usr/src/app");
    launch.agent.sandbox = json!({"root": {"image": "none"}});
    let failure = gone(run(&rig, launch).await.1);
    assert!(failure.message.contains("ax image list"), "{failure:?}");
}

#[tokio::test]
async fn no_mount_shows_the_sockets_of_gateways() {
    let rig = Rig::new();
    let shared = std::env::temp_dir();
    let doors = shared.join(format!("doors-of-the-test-{}", std::process::id()));
    fs::create_dir_all(doors.join("0")).unwrap();
    for source in [&shared, &doors, &doors.join("0")] {
        let mut launch = sh(&rig, "ls /outside");
        launch.agent.sandbox = json!({"mounts": [{"source": source, "target": "/outside"}]});
        let failure = gone(run(&rig, launch).await.1);
        assert!(failure.message.contains("the sockets of gateways"), "{failure:?}");
    }
    fs::remove_dir_all(doors).unwrap();
}

#[tokio::test]
async fn a_door_opens_for_its_own_sandbox_only() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TESTED: only root gives sandboxes ids, and can be somebody else");
        return;
    }
    let rig = Rig::new();
    let mut launch = sh(&rig, "touch up; while ! [ -e done ]; do sleep 0.05; done; echo ended");
    launch.agent.gateway = json!({});
    let mut session = Session::of(&launcher(&rig), launch);
    let ids = options(&rig).sandboxes().ids;
    let asked = async {
        until("the harness is up", || rig.workspace().join("up").exists()).await;
        let runs = fs::read_dir(rig.path().join("run")).unwrap().map(|entry| entry.unwrap());
        let link = runs.map(|run| run.path()).find(|run| run.is_symlink()).unwrap();
        let door = fs::read_link(link).unwrap().join("0/door");
        // As if the directory were not closed to them.
        for path in [&door, door.parent().unwrap(), door.ancestors().nth(2).unwrap()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let mut answers = Vec::new();
        for at in 0..4 {
            // Not on the thread that answers.
            let (door, user) = (door.clone(), ids.start + at);
            answers.push(tokio::task::spawn_blocking(move || ask(&door, user)).await.unwrap());
        }
        fs::write(rig.workspace().join("done"), "").unwrap();
        answers
    };
    let (exit, answers) = tokio::join!(session.attempt(None), asked);
    assert_eq!(exit.unwrap(), Exit::Said);
    assert_eq!(answers, [true, false, false, false]);
}

/// Asks a gateway as somebody; returns whether there is an answer.
fn ask(door: &Path, user: u32) -> bool {
    let program = format!(
        "import os, socket\nos.setgid({user}); os.setuid({user})\n\
         s = socket.socket(socket.AF_UNIX)\ns.connect('{}')\n\
         s.sendall(b'GET /x HTTP/1.0\\r\\n\\r\\n')\nprint(s.recv(8))",
        door.display()
    );
    let said = Command::new("python3").args(["-c", &program]).output().unwrap();
    String::from_utf8_lossy(&said.stdout).contains("HTTP/1")
}
