//! Harnesses in a sandbox, as their manifests say or by default.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use ax_core::session::Frame;
use ax_fakemodel::{FakeModel, Options, Script};
use ax_harness::Exit;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use support::engine::Session;
use support::model::{Model, call, say};
use support::sandboxed::{launcher, run, said, sh};
use support::{Rig, Running, gone};

#[tokio::test]
async fn by_default_a_harness_sees_its_workspace_and_nothing_else_of_the_host() {
    let rig = Rig::new();
    fs::write(rig.path().join("secret"), "planted").unwrap();
    fs::write(rig.workspace().join("kept"), "from before").unwrap();
    let script = format!(
        "cat kept; echo made >made; cat {0}/secret; ls {0}; ls /root /home /etc/shadow /var; \
         cat /proc/1/environ; echo; echo home $HOME; exit 0",
        rig.path().display()
    );
    let (said, exit) = run(&rig, sh(&rig, &script)).await;
    assert_eq!(exit, Exit::Said, "{said}");
    assert!(said.starts_with("from before") && said.contains("home /tmp"), "{said}");
    assert!(!said.contains("planted") && !said.contains("private"), "{said}");
    let made = fs::metadata(rig.workspace().join("made")).unwrap();
    assert_eq!(made.uid(), rustix::process::geteuid().as_raw(), "it is the runtime's outside");
}

#[tokio::test]
async fn where_it_is_not_allowed_no_program_runs_without_a_sandbox() {
    let rig = Rig::new();
    let mut launch = sh(&rig, "touch ran");
    launch.agent.sandbox = "process".into();
    let (frames, exit) = Running::start(&launcher(&rig), launch).rest().await;
    assert_eq!(exit, Exit::Said);
    let Some(Frame::Fail { failure, retry: false }) = frames.last() else { panic!("{frames:?}") };
    assert_eq!(failure.code, "unsandboxed");
    assert!(failure.message.contains("--allow-unsandboxed"), "{failure:?}");
    assert!(!rig.workspace().join("ran").exists());
    assert!(launcher(&rig).refuses(&json!({"backend": "process"})).is_some());
    assert_eq!(launcher(&rig).refuses(&Value::Null), None);
}

#[tokio::test]
async fn the_directory_of_an_agent_is_shown_and_stays_as_it_is() {
    let rig = Rig::new();
    let dir = rig.path().join("agent");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("agent.sh"), "echo from the agent; touch \"$0.new\" || echo no").unwrap();
    // As of somebody whose files are for nobody else.
    fs::set_permissions(dir.join("agent.sh"), fs::Permissions::from_mode(0o600)).unwrap();
    let mut launch = sh(&rig, "");
    launch.agent.harness["command"] = json!(["sh", "agent.sh"]);
    launch.agent.harness["dir"] = dir.to_str().into();
    let (said, exit) = run(&rig, launch.clone()).await;
    assert_eq!(exit, Exit::Said, "{said}");
    assert!(said.contains("from the agentno"), "{said}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    // Not with a person's secrets in it, and not the runtime's own.
    fs::create_dir(dir.join(".ssh")).unwrap();
    let failure = gone(run(&rig, launch.clone()).await.1);
    assert!(failure.message.contains(".ssh") && failure.message.contains("harness.dir"));
    let private = rig.path().join("private");
    fs::create_dir_all(private.join("deep")).unwrap();
    for place in ["private", "private/deep"] {
        let dir = fs::canonicalize(rig.path().join(place)).unwrap();
        launch.agent.harness["dir"] = dir.to_str().into();
        let failure = gone(run(&rig, launch.clone()).await.1);
        assert!(failure.message.contains("the runtime's own files"), "{failure:?}");
    }
}

#[tokio::test]
async fn the_data_directory_may_lie_beside_an_agent_and_is_covered() {
    let rig = Rig::new();
    let private = rig.path().join("private");
    fs::create_dir_all(private.join("workspaces/mine")).unwrap();
    fs::write(private.join("log"), "planted").unwrap();
    fs::write(rig.path().join("agent.sh"), "cat private/log; ls private; cat $AX_WORKSPACE/kept")
        .unwrap();
    let mut launch = sh(&rig, "");
    launch.workspace = fs::canonicalize(private.join("workspaces/mine")).unwrap();
    fs::write(launch.workspace.join("kept"), "from before").unwrap();
    launch.agent.harness["command"] = json!(["sh", "agent.sh"]);
    launch.agent.harness["dir"] = fs::canonicalize(rig.path()).unwrap().to_str().into();
    let (said, exit) = run(&rig, launch).await;
    assert_eq!((said.as_str(), exit), ("workspacesfrom before", Exit::Said));
}

#[tokio::test]
async fn a_python_environment_comes_with_its_interpreter() {
    let rig = Rig::new();
    let venv = rig.path().join("venv");
    let made = std::process::Command::new("python3")
        .args(["-m", "venv", "--without-pip"])
        .arg(&venv)
        .status();
    assert!(made.unwrap().success());
    let packages = fs::read_dir(venv.join("lib")).unwrap().next().unwrap().unwrap().path();
    fs::write(packages.join("site-packages/planted.py"), "print('imported')").unwrap();
    let mut launch = sh(&rig, "");
    let python = venv.join("bin/python");
    launch.agent.harness["command"] = json!([python.to_str(), "-c", "import planted"]);
    let (said, exit) = run(&rig, launch).await;
    assert_eq!((said.as_str(), exit), ("imported", Exit::Said));
}

#[tokio::test]
async fn what_is_not_there_is_named_with_what_helps() {
    let rig = Rig::new();
    let mut launch = sh(&rig, "");
    launch.agent.harness["command"] = json!(["no-such-program"]);
    let failure = gone(run(&rig, launch).await.1);
    assert!(failure.message.contains("mount it, or install it below /usr"), "{failure:?}");
}

#[tokio::test]
async fn the_gateway_is_the_only_way_out() {
    let script = r#"{"version": 1, "turns": [{"text": "heard"}]}"#;
    let script = Script::from_json(script).unwrap();
    let model = FakeModel::start(Options { script, ..Options::default() }).await.unwrap();
    let rig = Rig::new();
    let program = format!(
        "
import json, os, urllib.request
body = {{'model': 'm', 'max_tokens': 9, 'messages': [{{'role': 'user', 'content': 'x'}}]}}
for base in ['{}', os.environ['ANTHROPIC_BASE_URL']]:
    headers = {{'x-api-key': os.environ['ANTHROPIC_API_KEY']}}
    request = urllib.request.Request(base + '/v1/messages', json.dumps(body).encode(), headers)
    try:
        print(json.loads(urllib.request.urlopen(request).read())['content'][0]['text'])
    except OSError as error:
        print('refused', type(error).__name__)
",
        model.base_url()
    );
    let mut launch = sh(&rig, "");
    launch.agent.harness["command"] = json!(["python3", "-c", program]);
    let provider = json!({"provider": "anthropic", "baseUrl": model.base_url()});
    launch.agent.gateway = json!({"models": [provider]});
    let mut session = Session::of(&launcher(&rig), launch);
    assert_eq!(session.attempt(None).await.unwrap(), Exit::Said);
    assert_eq!(said(&session.frames), "refused URLErrorheard");
    assert_eq!(model.ledger().len(), 1);
}

#[tokio::test]
async fn the_shell_of_the_built_in_harness_is_in_the_sandbox_too() {
    let rig = Rig::new();
    fs::write(rig.path().join("secret"), "planted").unwrap();
    let command = format!("cat {}/secret; id -u; ln -s /etc/hostname out", rig.path().display());
    let turns = vec![
        call("", "shell", json!({"command": command})),
        // What a link leads to outside is not what the tools of the runtime read.
        call("", "read", json!({"path": "out"})),
        say("done"),
    ];
    let model = Model::start(turns).await;
    let mut launch = rig.launch(model.harness("anthropic", json!(["shell", "read"])));
    launch.agent.sandbox = Value::Null;
    let mut session = Session::of(&launcher(&rig), launch);
    assert_eq!(session.attempt(None).await.unwrap(), Exit::Said);
    let (shell, read) = (session.result("tool:1:1").to_string(), session.result("tool:2:1"));
    assert!(!shell.contains("planted") && shell.contains("No such file"), "{shell}");
    assert_eq!(read["error"], true, "{read}");
    rig.assert_nothing_runs();
}

#[tokio::test]
async fn a_killed_attempt_leaves_nothing() {
    let rig = Rig::new();
    let mut running =
        Running::start(&launcher(&rig), sh(&rig, "echo up; (setsid sleep 1000 &) ; sleep 1000"));
    while !said(&[running.next().await]).contains("up") {}
    running.kill.cancel();
    assert_eq!(gone(running.exit().await).code, "killed");
    rig.assert_nothing_runs();
    assert_eq!(fs::read_dir(rig.path().join("sandboxes")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_time_limit_ends_it() {
    let rig = Rig::new();
    let mut launch = sh(&rig, "sleep 1000");
    launch.agent.sandbox = json!({"timeLimit": "1s"});
    assert_eq!(gone(run(&rig, launch).await.1).code, "time_limit");
}
