//! Stores that are damaged, that fail, or that cannot be used.

use super::world::World;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn world() -> World {
    let world = World::new();
    world.echo();
    world.ok(&["run", "-a", "echo", "-s", "talk", "hello"]);
    world
}

/// The largest file of the log: the one with the events.
fn segment(world: &World) -> PathBuf {
    let entries = std::fs::read_dir(world.data().join("log")).unwrap();
    let files = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    files.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

#[test]
fn a_sound_store_is_sound() {
    let world = world();
    assert!(world.ok(&["fsck"]).starts_with("sound: "));
    let report = world.json(&["fsck"]);
    assert_eq!(report.last().unwrap()["sound"], true);
    assert_eq!(World::new().ax(&["fsck"]).code, 0);
}

#[test]
fn damage_is_found_and_the_rest_is_saved() {
    let world = world();
    world.ok(&["run", "-a", "echo", "-s", "other", "hello"]);
    let path = segment(&world);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = find(&bytes, b"hello").unwrap();
    bytes[at] ^= 0xff;
    std::fs::write(&path, bytes).unwrap();
    let checked = world.ax(&["fsck"]);
    assert_eq!(checked.code, 1, "{checked:?}");
    assert!(checked.out.contains("damage: "), "{checked:?}");
    let repaired = world.ax(&["fsck", "--repair"]);
    assert_eq!(repaired.code, 0, "{repaired:?}");
    assert!(repaired.out.contains("repaired; "), "{repaired:?}");
    assert!(world.ok(&["fsck"]).starts_with("sound: "));
    assert_eq!(world.ax(&["session", "list"]).code, 0);
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

#[test]
fn a_command_on_a_damaged_store_says_what_to_do() {
    let world = world();
    let manifest = world.data().join("log/MANIFEST");
    let mut bytes = std::fs::read(&manifest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&manifest, bytes).unwrap();
    for command in [&["session", "list"][..], &["run", "-a", "echo", "again"]] {
        let ran = world.ax(command);
        assert_eq!(ran.code, 3, "{ran:?}");
        assert!(ran.err.starts_with("error[AX2002]: "), "{ran:?}");
        assert!(ran.err.contains("hint: ") && ran.err.contains("ax fsck"), "{ran:?}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_said() {
    let world = world();
    // For the superuser too, and whatever the file system does with modes.
    let wal = segment(&world);
    let aside = world.path("aside");
    std::fs::rename(&wal, &aside).unwrap();
    std::fs::create_dir(&wal).unwrap();
    let ran = world.ax(&["run", "-a", "echo", "again"]);
    assert_ne!(ran.code, 0, "{ran:?}");
    assert!(ran.err.starts_with("error[AX200") && ran.err.contains("hint: "), "{ran:?}");
    std::fs::remove_dir(&wal).unwrap();
    std::fs::rename(&aside, &wal).unwrap();
    assert!(world.ok(&["session", "list"]).contains("talk"), "nothing was changed");
}

/// The system refuses to write files beyond a length, as a disk does that fails.
#[test]
fn a_server_whose_log_fails_ends_and_the_next_one_goes_on() {
    let world = world();
    let binary = env!("CARGO_BIN_EXE_ax");
    let script = format!("trap '' XFSZ; ulimit -f 1024; exec {binary} serve");
    let command = world.command(&[]);
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(world.path("")).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut server = shell.stderr(Stdio::piped()).spawn().unwrap();
    // Before it serves, a command would start a server of its own.
    let mut said = BufReader::new(server.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.starts_with("serving "), "{line:?}");
    // More than the limit in all, none so large that it would be a file of its own.
    let words = "x".repeat(60_000);
    let mut sent = 0;
    for number in 0..200 {
        let name = format!("chat-{number}");
        let ran = world.ax(&["run", "-a", "echo", "-s", &name, "--detach", &words]);
        if ran.code != 0 {
            assert!(ran.err.starts_with("error[AX"), "{ran:?}");
            break;
        }
        sent += 1;
    }
    let output = server.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{err}");
    assert!(err.contains("error[AX2004]: "), "{err}");
    for number in 0..sent {
        let said = world.ok(&["follow", &format!("chat-{number}"), "--until-idle"]);
        assert!(said.contains(&words), "what was acknowledged goes on");
    }
}

#[test]
fn a_store_in_use_is_not_checked() {
    let world = world();
    let server = world.serve();
    let ran = world.ax(&["fsck"]);
    assert_eq!(ran.code, 4);
    assert!(ran.err.starts_with("error[AX2001]"), "{ran:?}");
    assert!(ran.err.contains(&format!("pid {}", server.pid())), "{ran:?}");
}

#[test]
fn a_damaged_blob_is_found() {
    let world = world();
    let large = vec![b'x'; 200 << 10];
    assert_eq!(world.ax_given(&["run", "-a", "echo"], &large).code, 0);
    let blobs = files(world.data().join("blobs"));
    let blob = blobs.iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(blob).unwrap();
    bytes[7] ^= 1;
    let mut permissions = blob.metadata().unwrap().permissions();
    permissions.set_mode(0o600);
    std::fs::set_permissions(blob, permissions).unwrap();
    std::fs::write(blob, bytes).unwrap();
    let checked = world.ax(&["fsck"]);
    assert_eq!(checked.code, 1, "{checked:?}");
    assert!(checked.out.contains("is damaged"), "{checked:?}");
}

fn files(dir: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_directory_that_is_a_file_is_refused() {
    let world = World::new();
    let file = world.write("file", "");
    let ran = world.ax(&["session", "list", "--data", file.to_str().unwrap()]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.err.starts_with("error[AX2006]"), "{ran:?}");
    assert!(ran.err.contains("hint: "), "{ran:?}");
}

#[test]
fn an_output_that_is_full_is_said_and_nothing_is_lost() {
    let world = World::new();
    world.echo();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = world.command(&["run", "-a", "echo", "-s", "chat", "hello"]);
    let output = command.stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("error[AX2003]: the output cannot be written"), "{err}");
    assert!(world.ok(&["follow", "chat", "--until-idle"]).contains("hello"));
}

#[test]
fn without_a_home_a_directory_must_be_named() {
    let world = World::new();
    let mut command = world.command(&["session", "list"]);
    let output = command.env_remove("HOME").env_remove("AX_DATA").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(
        err.starts_with("error[AX2006]: no data directory is known\n  hint: name one"),
        "{err}"
    );
}
