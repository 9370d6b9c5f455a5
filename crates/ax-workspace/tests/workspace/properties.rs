//! Whatever is in a workspace, and however it changes, every snapshot comes back.

use crate::world::{World, noise, view};
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// One change of a workspace. Paths have up to three names out of four.
#[derive(Clone, Debug)]
enum Op {
    Write(Vec<u8>, u64, usize),
    Dir(Vec<u8>),
    Link(Vec<u8>),
    Remove(Vec<u8>),
    Mode(Vec<u8>, u32),
    Rename(Vec<u8>, Vec<u8>),
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0_u8..4, 1..4)
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = prop_oneof![4 => 0_usize..2_000, 1 => 60_000_usize..700_000];
    prop_oneof![
        4 => (path(), 0_u64..6, bytes).prop_map(|(at, seed, bytes)| Op::Write(at, seed, bytes)),
        2 => path().prop_map(Op::Dir),
        1 => path().prop_map(Op::Link),
        2 => path().prop_map(Op::Remove),
        1 => (path(), prop_oneof![Just(0o600), Just(0o755), Just(0o700)])
            .prop_map(|(at, mode)| Op::Mode(at, mode)),
        2 => (path(), path()).prop_map(|(from, to)| Op::Rename(from, to)),
    ]
}

fn at(root: &Path, path: &[u8]) -> PathBuf {
    const NAMES: [&[u8]; 4] = [b"a", b"b.txt", b"\xff\xfe", b"a b"];
    path.iter().fold(root.to_owned(), |at, name| at.join(crate::world::name(NAMES[*name as usize])))
}

/// Does what is possible; what is not changes nothing.
fn apply(root: &Path, op: &Op) {
    let about = |path: &Path| fs::symlink_metadata(path);
    drop(match op {
        // Not through links: the view of a workspace is what is in it.
        Op::Write(path, ..) | Op::Mode(path, _)
            if about(&at(root, path)).is_ok_and(|about| about.is_symlink()) =>
        {
            Ok(())
        }
        Op::Write(path, seed, bytes) => fs::write(at(root, path), noise(*seed, *bytes)),
        Op::Dir(path) => fs::create_dir(at(root, path)),
        Op::Link(path) => symlink("../a", at(root, path)),
        Op::Remove(path) => {
            let path = at(root, path);
            fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path))
        }
        Op::Mode(path, mode) => {
            fs::set_permissions(at(root, path), fs::Permissions::from_mode(*mode))
        }
        Op::Rename(from, to) => fs::rename(at(root, from), at(root, to)),
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_snapshot_comes_back(
        rounds in prop::collection::vec(prop::collection::vec(op(), 0..12), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let root = world.place("w").dir;
            let mut taken = Vec::new();
            let mut previous = None;
            for ops in &rounds {
                ops.iter().for_each(|op| apply(&root, op));
                let snapshot = world.save("w", previous).await;
                previous = Some(snapshot.root);
                taken.push((snapshot, view(&root)));
            }
            // Forwards into one directory, and backwards into the workspace itself.
            for (snapshot, was) in &taken {
                world.restore("copy", snapshot).await;
                assert_eq!(&view(&world.path("copy")), was);
            }
            for (snapshot, was) in taken.iter().rev() {
                world.restore("w", snapshot).await;
                assert_eq!(&view(&root), was);
                let again = world.save("w", Some(snapshot.root)).await;
                assert_eq!(again.root, snapshot.root, "nothing has changed since");
            }
        });
    }
}
