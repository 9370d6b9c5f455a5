//! What a running server reads again when it is told to: a real process, a real signal.

use super::certificates::Authority;
use super::manager::Manager;
use super::world::{Ran, Running, World};
use rustix::process::Signal;
use serde_json::Value;

/// A server with TLS on a port of the loopback, and what its clients need.
struct Served {
    world: World,
    manager: Manager,
    server: Running,
    url: String,
    authority: Authority,
    key: String,
}

impl Served {
    fn new(args: &[&str]) -> Self {
        let (world, authority) = (World::new(), Authority::new());
        let key = world.ok(&["auth", "key", "create", "--name", "one", "--role", "viewer"]);
        authority.write(world.path("authority.pem"));
        authority.issue("127.0.0.1", &world.path(""), "server");
        let manager = Manager::new(&world);
        let tls = ["--tls-certificate", "server.pem", "--tls-key", "server.key"];
        let start = ["serve", "--listen", "127.0.0.1:0", "--allow-unsandboxed", "--json"];
        let args = [&start[..], &tls, args].concat();
        let environment = [("NOTIFY_SOCKET", &*manager.path), ("AX_LOG_LEVEL", "info")];
        let mut server = world.start_in(&args, &environment);
        let said: Value = serde_json::from_str(&server.line()).unwrap();
        let url = said["addresses"][0].as_str().unwrap().to_owned();
        assert!(url.starts_with("https://"), "{url}");
        manager.told("READY=1");
        Self { world, manager, server, url, authority, key }
    }

    fn reload(&self) {
        self.server.signal(Signal::HUP);
        self.manager.told("RELOADING=1");
        self.manager.told("READY=1");
    }

    /// Lists the sessions over the network, as somebody who believes this authority.
    fn list(&self, authority: &str, environment: &[(&str, &str)]) -> Ran {
        let authority = self.world.path(authority).display().to_string();
        let mut all = vec![("AX_CA", &*authority)];
        all.extend(environment);
        self.world.ax_in(&["session", "list", "--server", &self.url], &all)
    }

    /// Stops it; returns what it logged.
    fn logged(self) -> String {
        self.server.signal(Signal::TERM);
        let ended = self.server.end();
        assert_eq!(ended.code, 0, "{ended:?}");
        ended.err
    }
}

#[test]
fn a_reload_changes_who_is_let_in_and_a_bad_file_changes_nothing() {
    let rules = |rules: &str| format!("certificates: [{rules}]\n");
    let ci = r#"{name: "dns:ci.example.org", role: viewer, namespace: default}"#;
    let world = World::new();
    let file = world.write("who.yaml", rules(""));
    let clients = Authority::new();
    let [certificate, key] = clients.issue("ci.example.org", &world.path(""), "ci");
    let authority = clients.write(world.path("clients.pem"));
    let served = Served::new(&["--auth", file.to_str().unwrap(), "--tls-client-ca", &authority]);
    let shown = [("AX_CERT", &*certificate), ("AX_KEY", &*key)];
    let list = || served.list("authority.pem", &shown);
    assert!(list().err.contains("AX4002"), "{:?}", list());

    world.write("who.yaml", rules(ci));
    assert!(list().err.contains("AX4002"), "nothing changes by itself: {:?}", list());
    served.reload();
    assert_eq!(list().code, 0, "{:?}", list());

    for wrong in ["certificates: 7\n", "jwt: {issuer: '', audience: [a]}\n", "rules: []\n"] {
        world.write("who.yaml", wrong);
        served.reload();
        assert_eq!(list().code, 0, "{wrong}: {:?}", list());
    }
    std::fs::remove_file(&file).unwrap();
    served.reload();
    assert_eq!(list().code, 0, "{:?}", list());

    world.write("who.yaml", rules(""));
    served.reload();
    assert!(list().err.contains("AX4002"), "{:?}", list());

    // Keys are in no such file, and need no signal.
    let by_key = |key: &str| served.list("authority.pem", &[("AX_TOKEN", key)]);
    assert_eq!(by_key(&served.key).code, 0);
    let fresh = served.world.ok(&["auth", "key", "create", "--name", "two", "--role", "viewer"]);
    assert_eq!(by_key(&fresh).code, 0);
    served.world.ok(&["auth", "key", "revoke", "one"]);
    assert!(by_key(&served.key).err.contains("AX4001"));
    let logged = served.logged();
    assert_eq!(logged.matches("who is let in was read again").count(), 2, "{logged}");
    assert_eq!(logged.matches("who is let in stays as it was").count(), 4, "{logged}");
    assert!(logged.contains("issuer is empty"), "{logged}");
}

#[test]
fn a_reload_changes_the_certificate_and_a_bad_one_changes_nothing() {
    let served = Served::new(&[]);
    let token = [("AX_TOKEN", &*served.key)];
    let dir = served.world.path("");
    let other = Authority::new();
    other.write(served.world.path("other.pem"));
    assert_eq!(served.list("authority.pem", &token).code, 0);
    assert_ne!(served.list("other.pem", &token).code, 0);

    // A key that is not the certificate's, and no key at all.
    other.issue("127.0.0.1", &dir, "theirs");
    std::fs::copy(served.world.path("theirs.key"), served.world.path("server.key")).unwrap();
    served.reload();
    assert_eq!(served.list("authority.pem", &token).code, 0);
    served.world.write("server.key", "no key");
    served.reload();
    assert_eq!(served.list("authority.pem", &token).code, 0);

    other.issue("127.0.0.1", &dir, "server");
    served.reload();
    assert_eq!(served.list("other.pem", &token).code, 0);
    assert_ne!(served.list("authority.pem", &token).code, 0);
    served.authority.issue("127.0.0.1", &dir, "server");
    served.reload();
    assert_eq!(served.list("authority.pem", &token).code, 0);
    let logged = served.logged();
    assert!(logged.matches("the old certificates stay").count() >= 2, "{logged}");
    assert!(logged.matches("the certificates were read again").count() >= 2, "{logged}");
    assert!(!logged.contains("PRIVATE KEY"), "{logged}");
}
