//! Commands that are killed in the middle of what they write.

use super::world::{World, wait};
use serde_json::Value;
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

/// What the agent of `examples/deep-research` says.
const REPORT: &str =
    "Boxes have been made of wood since antiquity, and of paper since 1817. Both are in use.";

#[test]
fn research_at_a_provider_goes_on_while_its_server_is_killed_and_is_paid_once() {
    let world = World::new();
    world.write("model.json", include_str!("../../../../examples/deep-research/model.json"));
    let play = ["fakemodel", "--script", "model.json", "--listen", "127.0.0.1:0"];
    let mut model = world.start(&[&play[..], &["--ledger", "ledger.jsonl"]].concat());
    let address = model.line();
    let manifest = include_str!("../../../../examples/deep-research/agent.yaml");
    let key = "    api_key_env:";
    let manifest = manifest.replacen(key, &format!("    base_url: {address}/v1beta\n{key}"), 1);
    world.write("agent.yaml", manifest);
    let serve = || {
        let mut server = world.start_in(&["serve"], &[("GEMINI_API_KEY", "secret-of-the-test")]);
        assert!(server.line().starts_with("serving "));
        server
    };
    let mut server = serve();
    world.ok(&["agent", "apply", "-f", "agent.yaml"]);
    let ask = |words: &str| {
        world.ok(&["run", "-a", "deep-research", "-s", "boxes", "--detach", words]);
    };
    let events = || world.json(&["events", "boxes"]);
    let deltas = || events().iter().filter(|event| event["outputDelta"].is_object()).count();
    ask("Since when are there boxes?");
    // Each time a little more is known.
    for known in [1, 3, 6] {
        wait("the agent", || deltas() >= known || world.state("boxes") == "completed");
        server.kill();
        server = serve();
    }
    world.wait_state("boxes", "completed");
    let told = said(&events());
    let keys: Vec<&str> = told.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys.len(), 2, "a thought and the report, each once: {keys:?}");
    assert!(keys[0].starts_with("out:1:0:e-") && keys[1].starts_with("out:1:1:e-"), "{keys:?}");
    assert_eq!(told[1].1, REPORT);
    assert_eq!(paid(&world), 1);

    // The next input goes on from the interaction before, and so does a branch.
    ask("And of paper?");
    world.wait_state("boxes", "completed");
    wait("the second answer", || said(&events()).len() == 3);
    assert_eq!(said(&events())[2].1, "As I said, paper came in 1817.");
    assert_eq!(paid(&world), 2);
    // A branch from before the second input goes on from the first interaction.
    let ended = |event: &Value| event["type"] == "execution.completed";
    let first = events().iter().find(|event| ended(event)).unwrap()["seq"].clone();
    let first = first.as_str().map_or_else(|| first.to_string(), str::to_owned);
    world.ok(&["branch", "boxes", "--at", &first, "--name", "other"]);
    world.ok(&["run", "-s", "other", "--detach", "And of wood?"]);
    let other = || world.json(&["events", "other"]);
    wait("the branch", || said(&other()).len() == 3);
    assert_eq!(said(&other())[2].1, "As I said, paper came in 1817.", "it remembers");
    let log = world.ok(&["events", "boxes", "--json"]);
    assert!(!log.contains("secret-of-the-test"));
}

/// The outputs of a log that are whole: their keys, and the text that was streamed into each.
fn said(events: &[Value]) -> Vec<(String, String)> {
    let mut said = Vec::new();
    for message in events.iter().filter(|event| event["outputMessage"]["key"].is_string()) {
        let output = &message["outputMessage"];
        let of = |event: &&Value| {
            let same = |name: &str| event[name] == message[name];
            same("attempt") && same("execution") && event["outputDelta"]["block"] == output["block"]
        };
        let deltas = events.iter().filter(of);
        let text = deltas.filter_map(|event| event["outputDelta"]["text"].as_str()).collect();
        said.push((output["key"].as_str().unwrap().to_owned(), text));
    }
    said
}

/// How many answers the provider was paid for.
pub(crate) fn paid(world: &World) -> usize {
    let ledger = std::fs::read_to_string(world.path("ledger.jsonl")).unwrap();
    // What is no line of its own is no entry.
    let entries = ledger.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let paid = entries.filter(|entry| entry["kind"] == "generate");
    paid.map(|entry| entry["seq"].as_u64()).collect::<BTreeSet<_>>().len()
}
