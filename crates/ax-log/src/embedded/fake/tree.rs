//! The names on a disk in memory, and which of them survive a loss of power.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

use super::File;

/// The names on a disk. A name is durable when the directory that it is in was synced, and lost
/// with that directory if the name of the directory is not.
#[derive(Debug)]
pub(super) struct Tree {
    /// The first one is the root, which is always there.
    dirs: Vec<Dir>,
}

#[derive(Clone, Debug, Default)]
struct Dir {
    /// What is in it as the running process sees it.
    now: Names,
    /// What is in it after a loss of power.
    durable: Names,
    /// What was done and is not durable, in order.
    unsynced: Vec<Change>,
}

type Names = BTreeMap<OsString, Node>;

/// What becomes of the names of one directory at once; `None` for one that goes.
type Change = Vec<(OsString, Option<Node>)>;

#[derive(Clone, Debug)]
enum Node {
    File(File),
    /// The place of a directory among all of them.
    Dir(usize),
}

impl Dir {
    fn change(&mut self, change: Change) {
        apply(&mut self.now, change.clone());
        self.unsynced.push(change);
    }
}

fn apply(names: &mut Names, change: Change) {
    for (name, node) in change {
        match node {
            Some(node) => drop(names.insert(name, node)),
            None => drop(names.remove(&name)),
        }
    }
}

fn missing<T>() -> io::Result<T> {
    Err(io::ErrorKind::NotFound.into())
}

/// Returns where a name belongs and the name itself.
fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let named = path.parent().zip(path.file_name());
    named.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { dirs: vec![Dir::default()] }
    }

    fn dir(&self, path: &Path) -> io::Result<usize> {
        let mut at = 0;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            at = match self.dirs[at].now.get(name) {
                Some(Node::Dir(dir)) => *dir,
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => return missing(),
            };
        }
        Ok(at)
    }

    pub(super) fn file(&self, path: &Path) -> Option<File> {
        let (dir, name) = split(path).ok()?;
        match self.dirs[self.dir(dir).ok()?].now.get(name)? {
            Node::File(file) => Some(Arc::clone(file)),
            Node::Dir(_) => None,
        }
    }

    /// Returns the files in all directories.
    pub(super) fn files(&self) -> impl Iterator<Item = &File> {
        self.dirs.iter().flat_map(|dir| dir.now.values()).filter_map(|node| match node {
            Node::File(file) => Some(file),
            Node::Dir(_) => None,
        })
    }

    /// Returns the names of the files in a directory, sorted.
    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let names = &self.dirs[self.dir(path)?].now;
        let files = names.iter().filter(|(_, node)| matches!(node, Node::File(_)));
        Ok(files.filter_map(|(name, _)| name.to_str().map(str::to_owned)).collect())
    }

    /// Makes a directory, unless there is one.
    pub(super) fn make_dir(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = split(path)?;
        let dir = self.dir(dir)?;
        let made = self.dirs.len();
        self.dirs[dir].change(vec![(name.to_owned(), Some(Node::Dir(made)))]);
        self.dirs.push(Dir::default());
        Ok(())
    }

    pub(super) fn is_dir(&self, path: &Path) -> bool {
        self.dir(path).is_ok()
    }

    pub(super) fn put(&mut self, path: &Path, file: &File) -> io::Result<()> {
        let (dir, name) = split(path)?;
        let dir = self.dir(dir)?;
        self.dirs[dir].change(vec![(name.to_owned(), Some(Node::File(Arc::clone(file))))]);
        Ok(())
    }

    /// Puts a file somewhere durably, with the directories above it.
    pub(super) fn put_durably(&mut self, path: &Path, file: &File) -> io::Result<()> {
        let mut above: Vec<_> = path.ancestors().skip(1).collect();
        above.reverse();
        for dir in &above {
            if !self.is_dir(dir) {
                self.make_dir(dir)?;
            }
        }
        self.put(path, file)?;
        above.into_iter().try_for_each(|dir| self.sync(dir))
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = split(path)?;
        let dir = self.dir(dir)?;
        if !self.dirs[dir].now.contains_key(name) {
            return missing();
        }
        self.dirs[dir].change(vec![(name.to_owned(), None)]);
        Ok(())
    }

    /// Gives a file or a directory another name. From one directory to another this is two changes,
    /// of which a loss of power may keep either.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let ((from, old), (to, new)) = (split(from)?, split(to)?);
        let (from, to) = (self.dir(from)?, self.dir(to)?);
        let Some(node) = self.dirs[from].now.get(old).cloned() else { return missing() };
        let (put, gone) = ((new.to_owned(), Some(node)), (old.to_owned(), None));
        if from == to {
            self.dirs[to].change(vec![put, gone]);
        } else {
            self.dirs[to].change(vec![put]);
            self.dirs[from].change(vec![gone]);
        }
        Ok(())
    }

    /// Makes the names in a directory durable.
    pub(super) fn sync(&mut self, path: &Path) -> io::Result<()> {
        let at = self.dir(path)?;
        let dir = &mut self.dirs[at];
        for change in std::mem::take(&mut dir.unsynced) {
            apply(&mut dir.durable, change);
        }
        Ok(())
    }

    /// Returns what is there after a loss of power: what is durable, and of what is not as much as
    /// `draw` says. `revive` says what a file holds then.
    pub(super) fn survivors(
        &self,
        draw: &mut dyn FnMut() -> bool,
        revive: fn(&File, &mut dyn FnMut() -> bool) -> File,
    ) -> Self {
        let mut after = Self { dirs: Vec::new() };
        self.survive(0, &mut after, draw, revive);
        after
    }

    fn survive(
        &self,
        at: usize,
        after: &mut Self,
        draw: &mut dyn FnMut() -> bool,
        revive: fn(&File, &mut dyn FnMut() -> bool) -> File,
    ) -> usize {
        let mut names = self.dirs[at].durable.clone();
        for change in &self.dirs[at].unsynced {
            if draw() {
                apply(&mut names, change.clone());
            }
        }
        let place = after.dirs.len();
        after.dirs.push(Dir::default());
        for node in names.values_mut() {
            *node = match node {
                Node::File(file) => Node::File(revive(file, draw)),
                Node::Dir(dir) => Node::Dir(self.survive(*dir, after, draw, revive)),
            };
        }
        let durable = names.clone();
        after.dirs[place] = Dir { now: names, durable, unsynced: Vec::new() };
        place
    }
}
