//! Images from a real registry on loopback: Debian's `docker-registry`.
#![expect(clippy::unwrap_used, reason = "tests")]

use ax_image::test_support::{Archive, Layout, Packing};
use ax_image::{Digest, Error, Progress, Pull, Reference, Store};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// The password `s3cret-of-test` of `tester`, as the registry keeps it.
const PASSWORDS: &str = "tester:$2b$04$tzfm1XH8VD5iWKKC2Amnj.9Qpp3wvicchL8TzVnaXnkVkV07M44NC\n";

fn client() -> Client {
    let _chosen_already = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

/// A registry that ends with its test.
struct Registry {
    dir: TempDir,
    child: Child,
    host: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Registry {
    /// Starts one, on a free port.
    fn start(auth: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let passwords = dir.path().join("passwords");
        fs::write(&passwords, PASSWORDS).unwrap();
        let mut config = json!({
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": dir.path().join("data")}},
            "http": {"addr": "127.0.0.1:0"},
        });
        if auth {
            config["auth"] = json!({"htpasswd": {"realm": "test", "path": passwords}});
        }
        let file = dir.path().join("config.yml");
        fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it is installed: apt install docker-registry");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let host = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, rest) = line.split_once("listening on ")?;
            Some(rest.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect())
        });
        // So that it never waits for somebody who reads.
        std::thread::spawn(move || lines.for_each(drop));
        Self { dir, child, host: host.expect("it says where it listens") }
    }

    fn reference(&self, rest: &str) -> Reference {
        Reference::parse(&format!("{}/{rest}", self.host)).unwrap()
    }

    async fn put(&self, url: String, kind: &str, body: Vec<u8>) -> Response {
        let request = client().put(url);
        let request = request.basic_auth("tester", Some("s3cret-of-test"));
        request.header("content-type", kind).body(body).send().await.unwrap()
    }

    /// Pushes an image of these layers under a tag.
    async fn push(&self, tag: &str, layers: &[(Packing, Vec<u8>)]) -> Digest {
        let path = self.dir.path().join(format!("layout-{tag}"));
        let layout = Layout::make(&path).unwrap();
        let manifest = layout.image(layers, &json!({})).unwrap();
        let digest = Digest::parse(manifest["digest"].as_str().unwrap()).unwrap();
        let blobs = path.join("blobs/sha256");
        let base = format!("http://{}/v2/tools", self.host);
        for blob in fs::read_dir(&blobs).unwrap() {
            let blob = blob.unwrap();
            let name = blob.file_name().into_string().unwrap();
            if name == digest.hex() {
                continue;
            }
            let client = client();
            let begun = client.post(format!("{base}/blobs/uploads/"));
            let begun = begun.basic_auth("tester", Some("s3cret-of-test")).send().await.unwrap();
            let place = begun.headers()["location"].to_str().unwrap();
            let sign = if place.contains('?') { '&' } else { '?' };
            let place = format!("{place}{sign}digest=sha256:{name}");
            let kind = "application/octet-stream";
            let put = self.put(place, kind, fs::read(blob.path()).unwrap()).await;
            assert!(put.status().is_success(), "{put:?}");
        }
        let text = fs::read(blobs.join(digest.hex())).unwrap();
        let kind: Value = serde_json::from_slice(&text).unwrap();
        let kind = kind["mediaType"].as_str().unwrap().to_owned();
        let put = self.put(format!("{base}/manifests/{tag}"), &kind, text).await;
        assert!(put.status().is_success(), "{put:?}");
        digest
    }

    /// Where the registry itself keeps a content.
    fn stored(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        let blobs = self.dir.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("images")).unwrap();
    (dir, store)
}

fn tool() -> Vec<u8> {
    Archive::default().program("bin/tool", b"#!").bytes()
}

#[tokio::test]
async fn an_image_is_fetched_and_what_is_here_is_not_fetched_again() {
    let registry = Registry::start(false);
    let lower = (Packing::Gzip, tool());
    let upper = (Packing::Zstd, Archive::default().file("etc/new", b"x").bytes());
    let digest = registry.push("1", std::slice::from_ref(&lower)).await;
    registry.push("2", &[lower, upper]).await;
    let (_dir, store) = store();
    let mut fetched = Vec::new();
    let mut tell = |progress| {
        if let Progress::Fetched { digest, bytes, of } = progress {
            fetched.extend((bytes == of).then_some(digest));
        }
    };
    let reference = registry.reference("tools:1");
    let image = store.pull(&reference, &Pull::default(), &mut tell).await.unwrap();
    assert_eq!((image.digest, &image.name), (digest, &reference.to_string()));
    let second = registry.reference("tools:2");
    store.pull(&second, &Pull::default(), &mut tell).await.unwrap();
    assert_eq!(fetched.len(), 2, "each layer comes once");
    let pinned = registry.reference(&format!("tools@{digest}"));
    assert_eq!(store.pull(&pinned, &Pull::default(), &mut |_| {}).await.unwrap().digest, digest);
    let nowhere = registry.reference("tools:3");
    let error = store.pull(&nowhere, &Pull::default(), &mut |_| {}).await.unwrap_err();
    assert!(matches!(&error, Error::Registry { why } if why.contains("404")), "{error}");
}

#[tokio::test]
async fn a_registry_that_wants_a_password_gets_it_and_nobody_hears_of_it() {
    let registry = Registry::start(true);
    registry.push("1", &[(Packing::Gzip, tool())]).await;
    let (_dir, store) = store();
    let reference = registry.reference("tools:1");
    let with = |password: &str| {
        let credentials = Some(("tester".to_owned(), password.to_owned()));
        Pull { credentials, ..Pull::default() }
    };
    for pull in [Pull::default(), with("wrong-of-test")] {
        let error = store.pull(&reference, &pull, &mut |_| {}).await.unwrap_err();
        let said = format!("{error} {error:?} {pull:?}");
        assert!(said.contains("401") && !said.contains("wrong-of-test"), "{said}");
    }
    store.pull(&reference, &with("s3cret-of-test"), &mut |_| {}).await.unwrap();
}

#[tokio::test]
async fn what_a_registry_has_changed_is_refused_and_nothing_of_it_stays() {
    let registry = Registry::start(false);
    let layer = tool();
    registry.push("1", &[(Packing::Plain, layer.clone())]).await;
    let stored = registry.stored(Digest::of(&layer));
    let mut bytes = fs::read(&stored).unwrap();
    bytes[600] ^= 1;
    fs::write(&stored, bytes).unwrap();
    let (dir, store) = store();
    let reference = registry.reference("tools:1");
    let error = store.pull(&reference, &Pull::default(), &mut |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. } | Error::Registry { .. }), "{error}");
    assert_eq!(store.list().unwrap(), []);
    for kind in ["layers", "work"] {
        assert_eq!(fs::read_dir(dir.path().join("images").join(kind)).unwrap().count(), 0);
    }
}
