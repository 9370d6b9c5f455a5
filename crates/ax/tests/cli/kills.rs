//! Commands that are killed in the middle of what they write.

use super::world::World;
use std::collections::BTreeSet;
use std::time::Instant;

/// How many commands are killed at least, each a little later than the one before.
const KILL_COUNT: u32 = 40;
/// How many keys are made in the end: some commands are killed when they have done their work.
const SHOWN_COUNT_MIN: usize = 5;

#[test]
fn keys_that_were_shown_are_kept_and_the_file_is_whole_whenever_a_command_is_killed() {
    let world = World::new();
    let began = Instant::now();
    let before = world.ok(&["auth", "key", "create", "--name", "first", "--role", "viewer"]);
    assert!(before.starts_with("axk_"), "{before}");
    // What it takes to start a process and to write its files lies well within this.
    let pause = began.elapsed() * 3 / 2 / KILL_COUNT;
    let mut shown = BTreeSet::from(["first".to_owned()]);
    let mut number = 0;
    // On a machine that is busier than it was at first the last ones are killed later still.
    while number < KILL_COUNT || shown.len() < SHOWN_COUNT_MIN {
        let name = format!("key-{number}");
        let role = ["--role", "operator"];
        let create = [&["auth", "key", "create", "--name", &name][..], &role].concat();
        let mut command = world.start(&create);
        std::thread::sleep(pause * number);
        command.kill_now();
        if command.line().starts_with("axk_") {
            shown.insert(name);
        }
        number += 1;
    }
    let listed = world.json(&["auth", "key", "list"]);
    let listed = listed.iter().map(|key| key["name"].as_str().unwrap().to_owned());
    let listed: BTreeSet<String> = listed.collect();
    assert!(shown.is_subset(&listed), "{shown:?} are shown, {listed:?} are there");
    // Whoever was killed left no lock, and no name that cannot be taken again.
    world.ok(&["auth", "key", "create", "--name", "last", "--role", "viewer"]);
    let audit = world.json(&["auth", "audit"]);
    let asked = audit.iter().map(|line| line["about"].as_str().unwrap().to_owned());
    let asked: BTreeSet<String> = asked.collect();
    assert!(listed.is_subset(&asked), "{listed:?} are there, {asked:?} were asked for");
}
