//! A sandbox whose root is an image: it sees the image and nothing of the host.

use crate::bench::{Bench, Who};
use ax_image::test_support::{Archive, Layout, Packing};
use ax_image::{Form, Import, Store};
use ax_sandbox::ImageRoot;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

/// Programs of the host that the image has, with the libraries they need.
const PROGRAMS: [&str; 4] = ["/bin/sh", "/bin/cat", "/bin/ls", "/usr/bin/id"];

fn both(form: Form, test: fn(&Bench, &ImageRoot)) {
    for who in [Who::Root, Who::User] {
        if let Some(bench) = Bench::new(who) {
            let (image, _held) = image(&bench, form);
            test(&bench, &image);
            bench.assert_clean();
        }
    }
}

/// A small system of the host's own programs, an upper layer, and what an image says of itself.
fn image(bench: &Bench, form: Form) -> (ImageRoot, ax_image::Root) {
    let mut files = BTreeSet::new();
    for program in PROGRAMS {
        files.insert(program.to_owned());
        let said = Command::new("ldd").arg(program).output().unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        let words = said.split_whitespace().filter(|word| word.starts_with('/'));
        files.extend(words.map(str::to_owned));
    }
    let lower = files.iter().fold(Archive::default(), |archive, file| {
        archive.program(file.trim_start_matches('/'), &fs::read(file).unwrap())
    });
    let lower = lower.file("etc/os-release", b"of the image\n").file("opt/old", b"old\n");
    let upper = Archive::default().file("opt/.wh.old", b"").file("opt/new", b"new\n");
    let layers = [lower, upper].map(|layer| (Packing::Gzip, layer.bytes()));
    let defaults = json!({"User": "tester", "Env": ["PATH=/bin:/usr/bin", "OF_IMAGE=said"]});
    let layout = bench.path("layout");
    Layout::of(&layout, &layers, &defaults).unwrap();
    let store = Store::open(&bench.path("images")).unwrap();
    store.import(&layout, &Import::default(), &mut |_| {}).unwrap();
    let root = store.root("layout", form).unwrap();
    give(&bench.path("images"), bench.uid());
    let image = ImageRoot {
        layers: root.layers.clone(),
        env: root.image.env.clone(),
        user: root.image.user.clone(),
    };
    (image, root)
}

/// Gives a tree to whoever runs the sandbox, as if they had unpacked it.
fn give(path: &Path, user: u32) {
    std::os::unix::fs::lchown(path, Some(user), Some(user)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        chown(path, Some(user), Some(user)).unwrap();
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path(), user));
    }
}

fn run(bench: &Bench, image: &ImageRoot, script: &str) -> String {
    let mut order = bench.order(&["sh", "-c", script]);
    order.plan = json!({"root": {"image": "layout"}});
    order.image = Some(image.clone());
    let outcome = bench.run(&order);
    assert!(outcome.walls.is_some(), "{}", outcome.ended);
    assert_eq!(outcome.ended, "Ran(Exited(0))", "{}", outcome.errors);
    outcome.output
}

fn sees_the_image(bench: &Bench, image: &ImageRoot) {
    let said = run(bench, image, "cat /etc/os-release; ls /opt; echo $OF_IMAGE; echo here > f");
    assert_eq!(said, "of the image\nnew\nsaid\n");
    assert_eq!(fs::read_to_string(bench.path("workspace/f")).unwrap(), "here\n");
}

#[test]
fn the_layers_of_an_image_are_the_root() {
    both(Form::Layers, sees_the_image);
}

#[test]
fn an_image_in_one_directory_is_the_root() {
    both(Form::Flat, sees_the_image);
}

#[test]
fn nothing_of_the_host_is_there_and_nothing_of_the_image_can_be_written() {
    both(Form::Layers, |bench, image| {
        let secret = bench.open_file("secret", "of the host");
        let script = format!(
            "cat {} /usr/bin/env && echo SEEN; for f in /etc/new /opt/new /bin/sh /new; do \
             echo x > $f && echo WRITTEN $f; done; exit 0",
            secret.display()
        );
        assert_eq!(run(bench, image, &script), "");
        for layer in &image.layers {
            assert!(!layer.join("etc/new").exists() && !layer.join("new").exists());
        }
    });
}

#[test]
fn the_user_is_called_as_the_image_says_and_has_an_id_of_its_own() {
    both(Form::Layers, |bench, image| {
        let said = run(bench, image, "id -un; id -u");
        let (name, id) = said.trim().split_once('\n').unwrap();
        assert_eq!(name, "tester");
        let id: u32 = id.parse().unwrap();
        assert!(id == 1000 || (bench.ids.0..bench.ids.1).contains(&id), "{id}");
    });
}

#[test]
fn an_image_that_is_not_at_hand_is_refused() {
    let Some(bench) = Bench::new(Who::User) else { return };
    let mut order = bench.order(&["true"]);
    order.plan = json!({"root": {"image": "nothing"}});
    let outcome = bench.run(&order);
    assert!(outcome.ended.contains("no image nothing at hand"), "{}", outcome.ended);
}
