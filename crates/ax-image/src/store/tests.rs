use super::*;
use crate::Limits;
use crate::test_support::{Archive, Layout, Packing};
use serde_json::{Value, json};
use tempfile::TempDir;

struct World {
    dir: TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("images")).unwrap();
        Self { dir, store }
    }

    fn layout(&self, name: &str, layers: &[(Packing, Vec<u8>)]) -> PathBuf {
        let path = self.dir.path().join(name);
        let defaults = json!({"Env": ["A=b"], "User": "tester", "Cmd": ["/bin/tool"]});
        Layout::of(&path, layers, &defaults).unwrap();
        path
    }

    fn import(&self, path: &Path) -> Result<Image, Error> {
        self.store.import(path, &Import::default(), &mut |_| {})
    }

    fn names(&self, kind: &str) -> usize {
        fs::read_dir(self.store.path(kind)).unwrap().count()
    }
}

fn tool(content: &[u8]) -> Vec<u8> {
    Archive::default().program("bin/tool", content).file("etc/old", b"old").bytes()
}

fn change() -> Vec<u8> {
    Archive::default().file("etc/.wh.old", b"").file("etc/new", b"new").bytes()
}

#[test]
fn an_image_comes_in_from_a_directory_and_from_an_archive_whatever_its_packing() {
    let world = World::new();
    for (number, packing) in [Packing::Plain, Packing::Gzip, Packing::Zstd].into_iter().enumerate()
    {
        let name = format!("one{number}");
        let path = world.layout(&name, &[(packing, tool(b"tool")), (packing, change())]);
        let image = world.import(&path).unwrap();
        assert_eq!((image.name.as_str(), image.layers.len()), (name.as_str(), 2), "{packing:?}");
        assert_eq!(
            (image.env.as_slice(), image.user.as_str()),
            (&["A=b".to_owned()][..], "tester")
        );
        let archive = world.dir.path().join(format!("{name}.tar"));
        let layout = Layout::make(&path).unwrap();
        fs::write(&archive, layout.archive().unwrap()).unwrap();
        let again = world.import(&archive).unwrap();
        assert_eq!((again.digest, &again.layers), (image.digest, &image.layers));
    }
    assert_eq!(world.names("layers"), 2, "each layer is there once");
    assert_eq!(world.store.list().unwrap().len(), 3);
}

#[test]
fn what_docker_saves_comes_in() {
    let world = World::new();
    let layer = tool(b"tool");
    let here = crate::Platform::here();
    let config = json!({
        "os": here.os, "architecture": here.architecture,
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]},
    })
    .to_string();
    let config_name = format!("{}.json", Digest::of(config.as_bytes()).hex());
    let manifest = |config: &str| {
        json!([{"Config": config, "RepoTags": ["tools:1"], "Layers": ["abc/layer.tar"]}])
            .to_string()
    };
    let saved = |config_name: &str, config: &str| {
        Archive::default()
            .file("abc/layer.tar", &layer)
            .file(config_name, config.as_bytes())
            .file("manifest.json", manifest(config_name).as_bytes())
            .bytes()
    };
    let path = world.dir.path().join("saved.tar");
    fs::write(&path, saved(&config_name, &config)).unwrap();
    assert_eq!(world.import(&path).unwrap().name, "tools:1");
    fs::write(&path, saved(&config_name, &(config + " "))).unwrap();
    assert!(matches!(world.import(&path), Err(Error::Mismatch { .. })));
}

#[test]
fn a_deleted_image_takes_what_no_other_has_and_nobody_uses() {
    let world = World::new();
    let shared = (Packing::Gzip, tool(b"tool"));
    let first = world.layout("first", std::slice::from_ref(&shared));
    let second = world.layout("second", &[shared, (Packing::Gzip, change())]);
    world.import(&first).unwrap();
    let image = world.import(&second).unwrap();
    let root = world.store.root(&image.digest.hex()[..12], Form::Layers).unwrap();
    assert_eq!(root.layers.len(), 2);
    world.store.delete("second").unwrap();
    assert_eq!(world.names("layers"), 2, "what is in use stays");
    drop(root);
    let reopened = Store::open(&world.store.dir).unwrap();
    assert_eq!(world.names("layers"), 1);
    reopened.delete("first").unwrap();
    assert_eq!(world.names("layers"), 0);
    assert!(matches!(reopened.delete("first"), Err(Error::NotFound { .. })));
}

#[test]
fn all_layers_in_one_directory_are_what_an_overlay_would_show() {
    let world = World::new();
    let lower = Archive::default()
        .file("hidden/old", b"old")
        .file("was/a/dir", b"x")
        .file("was-file", b"x")
        .file("etc/old", b"old")
        .file("etc/kept", b"kept")
        .bytes();
    let upper = Archive::default()
        .file("hidden/.wh..wh..opq", b"")
        .file("hidden/new", b"new")
        .file("was", b"a file")
        .dir("was-file")
        .symlink("etc/link", "kept")
        .file("etc/.wh.old", b"")
        .bytes();
    let path = world.layout("two", &[(Packing::Gzip, lower), (Packing::Zstd, upper)]);
    world.import(&path).unwrap();
    let root = world.store.root("two", Form::Flat).unwrap();
    let [flat] = &root.layers[..] else { panic!("{root:?}") };
    let there = |name: &str| flat.join(name).symlink_metadata().is_ok();
    assert!(there("hidden/new") && !there("hidden/old"));
    assert!(there("etc/kept") && there("etc/link") && !there("etc/old"));
    assert_eq!(fs::read(flat.join("was")).unwrap(), b"a file");
    assert!(flat.join("was-file").is_dir());
    assert_eq!(world.store.root("two", Form::Flat).unwrap().layers, root.layers);
    world.store.delete("two").unwrap();
    assert_eq!(world.names("flat"), 1, "what is in use stays");
    drop(root);
    Store::open(&world.store.dir).unwrap();
    assert_eq!(world.names("flat"), 0);
}

#[test]
fn a_content_that_is_not_what_it_is_named_by_is_refused_and_nothing_counts() {
    type Spoil = fn(&Path, &Value) -> Value;
    let other = |_: &Path, one: &Value| {
        let digest = Digest::of(b"other");
        json!({"digest": digest, "size": one["size"]})
    };
    let longer = |dir: &Path, one: &Value| {
        let digest = Digest::parse(one["digest"].as_str().unwrap()).unwrap();
        let path = dir.join("blobs/sha256").join(digest.hex());
        let mut bytes = fs::read(&path).unwrap();
        bytes.push(0);
        fs::write(&path, bytes).unwrap();
        one.clone()
    };
    let flipped = |dir: &Path, one: &Value| {
        let digest = Digest::parse(one["digest"].as_str().unwrap()).unwrap();
        let path = dir.join("blobs/sha256").join(digest.hex());
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        one.clone()
    };
    let spoils: [(&str, Spoil); 3] = [("other", other), ("longer", longer), ("flipped", flipped)];
    for (what, spoil) in spoils {
        for part in ["manifest", "config", "layer"] {
            let world = World::new();
            let path = world.dir.path().join("spoilt");
            let layout = Layout::make(&path).unwrap();
            let manifest = layout.image(&[(Packing::Plain, tool(b"tool"))], &json!({})).unwrap();
            let manifest = if part == "manifest" {
                spoil(&path, &manifest)
            } else {
                let digest = Digest::parse(manifest["digest"].as_str().unwrap()).unwrap();
                let text = fs::read(path.join("blobs/sha256").join(digest.hex())).unwrap();
                let mut document: Value = serde_json::from_slice(&text).unwrap();
                let place = match part {
                    "config" => &mut document["config"],
                    _ => &mut document["layers"][0],
                };
                *place = spoil(&path, place);
                layout.blob("manifest", document.to_string().as_bytes()).unwrap()
            };
            layout.index(&[manifest]).unwrap();
            let error = world.import(&path).unwrap_err();
            let named = matches!(error, Error::Mismatch { .. } | Error::Malformed { .. });
            assert!(named, "{part} {what}: {error}");
            assert_eq!(world.store.list().unwrap(), []);
            for kind in ["layers", "work"] {
                assert_eq!(world.names(kind), 0, "{part} {what}: {kind}");
            }
        }
    }
}

#[test]
fn what_dies_on_the_way_leaves_nothing_that_counts_and_nothing_at_all_after_an_opening() {
    let world = World::new();
    let path = world.layout("one", &[(Packing::Gzip, tool(b"tool"))]);
    // As after a death while unpacking, and one before the list was written.
    let half = world.store.path("work").join("4711-0/layer-0");
    fs::create_dir_all(&half).unwrap();
    let orphan = world.store.path("layers").join(Digest::of(b"orphan").hex());
    fs::create_dir_all(orphan.join("bin")).unwrap();
    let living = world.store.work().unwrap();
    Store::open(&world.store.dir).unwrap();
    assert_eq!((world.names("layers"), world.names("work")), (0, 1));
    assert!(living.path().exists(), "whoever lives keeps what is theirs");
    drop(living);
    world.import(&path).unwrap();
    Store::open(&world.store.dir).unwrap();
    assert_eq!((world.names("layers"), world.names("work")), (1, 0));
}

#[test]
fn imports_of_one_image_at_once_agree() {
    let world = World::new();
    let path = world.layout("one", &[(Packing::Gzip, tool(b"tool")), (Packing::Gzip, change())]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let image = world.import(&path).unwrap();
                    // Another one may have deleted it.
                    drop(world.store.delete(&image.name));
                }
            });
        }
    });
    let image = world.import(&path).unwrap();
    let root = world.store.root(&image.name, Form::Layers).unwrap();
    assert!(root.layers.iter().all(|layer| layer.is_dir()));
    assert_eq!((world.names("layers"), world.names("work")), (2, 0));
}

#[test]
fn a_bomb_is_refused_and_a_generous_limit_takes_it() {
    let world = World::new();
    let zeros = vec![0; 80 << 20];
    let bomb = Archive::default().file("zeros", &zeros).bytes();
    for packing in [Packing::Gzip, Packing::Zstd] {
        let path = world.layout(&format!("{packing:?}"), &[(packing, bomb.clone())]);
        let error = world.import(&path).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }), "{error}");
        let generous = Limits { ratio: u64::MAX, ..Limits::default() };
        let import = Import { limits: generous, ..Import::default() };
        let taken = world.store.import(&path, &import, &mut |_| {});
        assert_eq!(taken.unwrap().bytes(), 80 << 20);
        let small = Import { limits: Limits { bytes: 1 << 20, ..generous }, ..import };
        world.store.delete(&format!("{packing:?}")).unwrap();
        let error = world.store.import(&path, &small, &mut |_| {}).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }), "{error}");
    }
}

#[test]
fn a_store_of_a_later_version_is_left_alone() {
    let world = World::new();
    fs::write(world.store.index(), r#"{"version":2,"pictures":[]}"#).unwrap();
    let error = Store::open(&world.store.dir).unwrap_err();
    assert!(matches!(error, Error::Version { found: 2, known: 1 }), "{error}");
}

#[test]
fn names_that_no_image_can_have_are_refused() {
    let world = World::new();
    let path = world.layout("one", &[]);
    for name in ["", "a b", "../x", "-x", &"x".repeat(257)] {
        let import = Import { name: Some(name.into()), ..Import::default() };
        let error = world.store.import(&path, &import, &mut |_| {}).unwrap_err();
        assert!(matches!(error, Error::Name { .. }), "{name}: {error}");
    }
}
