//! Images: taken in, listed, shown, deleted.

use super::world::World;
use ax_image::test_support::{Archive, Layout, Packing};
use serde_json::{Value, json};

fn layout(world: &World, name: &str, content: &[u8]) {
    let tree = Archive::default().program("bin/tool", content).bytes();
    let defaults = json!({"Env": ["A=b"], "User": "tester\u{1b}[2J", "Cmd": ["/bin/tool"]});
    Layout::of(&world.path(name), &[(Packing::Gzip, tree)], &defaults).unwrap();
}

#[test]
fn an_image_is_taken_in_listed_shown_and_deleted() {
    let world = World::new();
    layout(&world, "tools", b"#!");
    let said = world.ok(&["image", "import", "tools", "--name", "tools:1"]);
    assert!(said.starts_with("tools:1 sha256:"), "{said}");
    let listed: Value = serde_json::from_str(&world.ok(&["image", "list", "--json"])).unwrap();
    assert_eq!((&listed["type"], &listed["name"]), (&json!("image"), &json!("tools:1")));
    let digest = listed["digest"].as_str().unwrap();
    let table = world.ok(&["image", "list"]);
    assert!(table.starts_with("IMAGE") && table.contains("tools:1  "), "{table}");
    let shown = world.ok(&["image", "show", &digest[..19]]);
    assert!(shown.contains("user      tester\u{fffd}[2J"), "{shown}");
    assert!(shown.contains("env       A=b") && shown.contains(", 1 entries"), "{shown}");
    assert_eq!(world.ok(&["image", "delete", "tools:1"]), "deleted tools:1");
    assert_eq!(world.ok(&["image", "list"]), "");
    assert_eq!(std::fs::read_dir(world.data().join("images/layers")).unwrap().count(), 0);
}

#[test]
fn an_image_that_is_refused_says_why_and_is_not_there() {
    let world = World::new();
    let evil = Archive::default().symlink("a", "/tmp").file("a/b", b"x").bytes();
    Layout::of(&world.path("evil"), &[(Packing::Zstd, evil)], &json!({})).unwrap();
    let ran = world.ax(&["image", "import", "evil"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.starts_with("error[AX1023]") && ran.err.contains("through a link"), "{ran:?}");
    assert!(ran.err.contains("hint: "), "{ran:?}");
    assert_eq!(world.ok(&["image", "list"]), "");
}

#[test]
fn images_are_taken_in_while_a_server_has_the_directory() {
    let world = World::new();
    layout(&world, "tools", b"#!");
    let server = world.serve();
    world.ok(&["image", "import", "tools"]);
    assert!(world.ok(&["image", "list"]).contains("tools"));
    drop(server);
}
