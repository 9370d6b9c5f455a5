//! A process that dies while it takes or restores a snapshot leaves nothing half.

use crate::world::{noise, view};
use ax_core::id::Namespace;
use ax_store::{Blob, Blobs};
use ax_workspace::{Options, Place, restore, snapshot, unfinished};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const ROUNDS: u64 = 20;
const VARIABLE: &str = "AX_WORKSPACE_TEST_CHILD";

fn places(dir: &Path) -> (Blobs, Place, Place) {
    let place = |name: &str| Place { dir: dir.join(name), beside: dir.join(format!("{name}.at")) };
    let all = (Blobs::local(&dir.join("blobs")).unwrap(), place("w"), place("copy"));
    fs::create_dir_all(&all.1.dir).unwrap();
    all
}

fn change(dir: &Path, n: u64) {
    for file in 0..30 {
        let at = dir.join(format!("d{}", (n + file) % 7));
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join(format!("f{file}")), noise(n + file, 5_000)).unwrap();
    }
    drop(fs::remove_dir_all(dir.join(format!("d{}", n % 5))));
}

/// What is killed: changes the workspace, takes a snapshot, says so, restores it elsewhere.
#[tokio::test]
async fn child() {
    let Ok(given) = std::env::var(VARIABLE) else { return };
    let (dir, first) = given.split_once('|').unwrap();
    let (blobs, work, copy) = places(Path::new(dir));
    let namespace = Namespace::default();
    let mut previous = parse(first);
    for n in 0.. {
        change(&work.dir, n);
        let options = Options::default();
        let taken = snapshot(&blobs, &namespace, &work, previous, &options).await.unwrap();
        #[expect(clippy::print_stdout, reason = "the parent reads it")]
        {
            println!("\ntaken {} {}", taken.root.id, taken.root.bytes);
        }
        previous = Some(taken.root);
        restore(&blobs, &namespace, &copy, &taken.root.id, &options).await.unwrap();
    }
}

fn parse(text: &str) -> Option<Blob> {
    let (id, bytes) = text.split_once(' ')?;
    Some(Blob { id: id.parse().ok()?, bytes: bytes.parse().ok()? })
}

fn start(dir: &Path, previous: Option<Blob>) -> Child {
    let previous = previous.map(|blob| format!("{} {}", blob.id, blob.bytes)).unwrap_or_default();
    let program: PathBuf = std::env::current_exe().unwrap();
    Command::new(program)
        .args(["--exact", "kills::child", "--nocapture"])
        .env(VARIABLE, format!("{}|{previous}", dir.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn nothing_is_half_whenever_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (blobs, work, copy) = places(dir.path());
    let (namespace, options) = (Namespace::default(), Options::default());
    let mut last = None;
    let mut interrupted = 0;
    for round in 0..ROUNDS {
        let mut child = start(dir.path(), last);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut taken = |line: String| parse(line.strip_prefix("taken ")?);
        last = lines.by_ref().find_map(&mut taken).or(last);
        // The moment is random, the wait is not for anything.
        std::thread::sleep(Duration::from_micros(round * 1_700));
        child.kill().unwrap();
        child.wait().unwrap();
        last = lines.filter_map(taken).last().or(last);
        if let Some(id) = unfinished(&copy).unwrap() {
            interrupted += 1;
            restore(&blobs, &namespace, &copy, &id, &options).await.unwrap();
        }
        assert_eq!(unfinished(&copy).unwrap(), None);
        // What was said to be taken is whole.
        let elsewhere = Place {
            dir: dir.path().join(format!("whole{round}")),
            beside: dir.path().join(format!("whole{round}.at")),
        };
        let said = last.unwrap();
        restore(&blobs, &namespace, &elsewhere, &said.id, &options).await.unwrap();
        // And the workspace is kept and comes back as it is now.
        let now = snapshot(&blobs, &namespace, &work, last, &options).await.unwrap();
        restore(&blobs, &namespace, &elsewhere, &now.root.id, &options).await.unwrap();
        assert_eq!(view(&elsewhere.dir), view(&work.dir));
        last = Some(now.root);
    }
    assert!(interrupted > 0, "no restore was ever cut");
}
