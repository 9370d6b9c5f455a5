//! Clients of a server whose certificate a private authority has signed.

use super::certificates::Authority;
use super::world::{Ran, Running, World};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long it may take to say that a certificate is not believed: it is not tried again.
const REFUSAL_MAX: Duration = Duration::from_secs(20);

struct Served {
    world: World,
    _server: Running,
    url: String,
    key: String,
}

impl Served {
    fn new() -> Self {
        let (world, authority) = (World::new(), Authority::new());
        world.echo();
        let key = world.ok(&["auth", "key", "create", "--name", "op", "--role", "operator"]);
        authority.write(world.path("authority.pem"));
        Authority::new().write(world.path("other.pem"));
        authority.issue("127.0.0.1", &world.path(""), "server");
        let tls = ["--tls-certificate", "server.pem", "--tls-key", "server.key"];
        let args =
            [&["serve", "--listen", "127.0.0.1:0", "--allow-unsandboxed", "--json"][..], &tls]
                .concat();
        let mut server = world.start(&args);
        let said: Value = serde_json::from_str(&server.line()).unwrap();
        let url = said["addresses"][0].as_str().unwrap().to_owned();
        Self { world, _server: server, url, key }
    }

    fn environment(&self, authority: &str) -> Vec<(&'static str, String)> {
        let mut all = vec![("AX_SERVER", self.url.clone()), ("AX_TOKEN", self.key.clone())];
        if !authority.is_empty() {
            all.push(("AX_CA", self.world.path(authority).display().to_string()));
        }
        all
    }

    fn ax(&self, args: &[&str], authority: &str) -> Ran {
        let environment = self.environment(authority);
        let environment: Vec<_> = environment.iter().map(|(n, v)| (*n, v.as_str())).collect();
        self.world.ax_in(args, &environment)
    }

    /// Submits and follows by the Python client; returns its code, output and errors.
    fn python(&self, authority: &str) -> Ran {
        let sdk = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sdk/python/src");
        let program = self.world.write("client.py", PYTHON);
        let mut command = self.world.program("python3");
        command.arg(program).env("PYTHONPATH", sdk).env("PYTHONDONTWRITEBYTECODE", "1");
        command.envs(self.environment(authority));
        self.world.ran(command.output().unwrap())
    }
}

const PYTHON: &str = "
from agent_executor.client import Client, Event

client = Client()
done = client.submit('hello', agent='echo', session='python')
for item in client.follow(done.session, until_idle=True):
    if isinstance(item, Event):
        print(item.seq, item.kind)
";

#[test]
fn clients_that_know_the_authority_work_over_tls() {
    let served = Served::new();
    let ran = served.ax(&["run", "-a", "echo", "-s", "talk", "hello"], "authority.pem");
    assert_eq!((ran.code, &*ran.out), (0, "hello\n"), "{ran:?}");
    let followed = served.ax(&["follow", "talk", "--until-idle"], "authority.pem");
    assert_eq!(followed.code, 0, "{followed:?}");
    let ran = served.python("authority.pem");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("execution.completed"), "{ran:?}");
}

#[test]
fn clients_that_do_not_know_the_authority_say_so_and_send_nothing() {
    let served = Served::new();
    for authority in ["other.pem", ""] {
        let began = Instant::now();
        let ran = served.ax(&["run", "-a", "echo", "-s", "talk", "hello"], authority);
        assert_ne!(ran.code, 0, "{ran:?}");
        assert!(ran.err.contains("certificate") && ran.err.contains("AX_CA"), "{ran:?}");
        let ran = served.python(authority);
        assert_ne!(ran.code, 0, "{ran:?}");
        assert!(ran.err.contains("certificate"), "{ran:?}");
        assert!(began.elapsed() < REFUSAL_MAX, "{:?}", began.elapsed());
    }
    assert_eq!(served.world.ok(&["session", "list"]), "");
}
