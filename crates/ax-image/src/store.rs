//! The store: a directory with images, of which each layer is there once.
//!
//! | path | what | who changes it |
//! |---|---|---|
//! | `images.json` | the images; nothing else counts | replaced as a whole, under the lock |
//! | `layers/HEX/` | a layer, by the digest of its archive | renamed to here when whole |
//! | `flat/HEX/` | all layers of the image with this manifest | the same |
//! | `work/` | what is being made | its maker, who has it locked |
//! | `empty/` | an empty directory | nobody |
//! | `lock` | whoever changes anything above holds it | |
//!
//! A layer is removed when no image has it and nobody holds it: its directory is locked, shared, by
//! those who use it. Locks are the kernel's (`flock`) and end with the process that holds them, so
//! that several processes may use a store at once, and what one of them left unfinished is found
//! and removed when the store is opened again ([`Store::open`]).

mod import;
mod index;
mod lock;

pub use import::{Import, Progress};
pub use index::{Image, Layer};

use crate::digest::Digest;
use crate::error::Error;
use crate::flat;
use index::Index;
use lock::{Held, Lock};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A directory with images.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

/// In which form a root file system is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Its layers, for an overlay file system.
    Layers,
    /// One directory, which is made at its first use.
    Flat,
}

/// The root file system of an image. Its layers stay while this, or a clone, is there.
#[derive(Clone, Debug)]
pub struct Root {
    /// The image.
    pub image: Image,
    /// Directories, the uppermost first; for an overlay there are at least two. Nobody may write
    /// to them.
    pub layers: Vec<PathBuf>,
    /// Locked directories: whoever uses the layers keeps them open.
    pub held: Vec<Arc<File>>,
}

impl Store {
    /// Opens a store, makes it where there is none, and removes what earlier lives have left.
    ///
    /// # Errors
    ///
    /// If the directory cannot be used, or a later version wrote it.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let store = Self { dir: dir.to_path_buf() };
        let make = |path: PathBuf| {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(Error::io("made", &path))
        };
        make(store.dir.clone())?;
        ["layers", "flat", "work", "empty"]
            .into_iter()
            .try_for_each(|name| make(store.path(name)))?;
        let empty = store.path("empty");
        fs::set_permissions(&empty, fs::Permissions::from_mode(0o555))
            .map_err(Error::io("given a mode", &empty))?;
        let lock = store.lock()?;
        let index = Index::read(&store.index())?;
        store.collect(&index, &lock)?;
        Ok(store)
    }

    /// Returns the images, by name.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        Ok(Index::read(&self.index())?.images)
    }

    /// Finds an image by its name, its digest, or the first digits of that.
    ///
    /// # Errors
    ///
    /// If there is none, or the digits are those of several.
    pub fn find(&self, name: &str) -> Result<Image, Error> {
        Index::read(&self.index())?.find(name).cloned()
    }

    /// Takes an image's name away, and removes what no other image has and nobody uses. What is in
    /// use is removed later, when the store is opened again.
    ///
    /// # Errors
    ///
    /// If there is no such image, or the disk fails.
    pub fn delete(&self, name: &str) -> Result<Image, Error> {
        let lock = self.lock()?;
        let mut index = Index::read(&self.index())?;
        let image = index.find(name)?.clone();
        index.images.retain(|one| one.name != image.name);
        index.write(&self.dir, &self.index())?;
        self.collect(&index, &lock)?;
        Ok(image)
    }

    /// Returns the root file system of an image.
    ///
    /// # Errors
    ///
    /// If there is no such image, or the disk fails.
    pub fn root(&self, name: &str, form: Form) -> Result<Root, Error> {
        let lock = self.lock()?;
        let image = self.find(name)?;
        let mut held = Vec::new();
        for layer in &image.layers {
            let path = self.layer(layer.digest);
            let held_layer = Held::shared(&path)?;
            held.push(held_layer.ok_or_else(|| missing(layer.digest))?.into_file());
        }
        drop(lock);
        let paths = image.layers.iter().rev().map(|layer| self.layer(layer.digest));
        let mut layers: Vec<PathBuf> = paths.collect();
        if form == Form::Flat {
            let (path, whole) = self.flatten(&image)?;
            (layers, held) = (vec![path], vec![whole.into_file()]);
        } else {
            while layers.len() < 2 {
                layers.push(self.path("empty"));
            }
        }
        Ok(Root { image, layers, held: held.into_iter().map(Arc::new).collect() })
    }

    /// Puts all layers of an image, which are held, into one directory; once.
    fn flatten(&self, image: &Image) -> Result<(PathBuf, Held), Error> {
        let path = self.path("flat").join(image.digest.hex());
        let lock = self.lock()?;
        if let Some(there) = Held::shared(&path)? {
            return Ok((path, there));
        }
        drop(lock);
        let work = self.work()?;
        let tree = work.path().join("flat");
        fs::create_dir(&tree).map_err(Error::io("made", &tree))?;
        for layer in &image.layers {
            flat::put(&self.layer(layer.digest), &tree)?;
        }
        let whole = self.publish(&tree, &path)?;
        Ok((path, whole))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn index(&self) -> PathBuf {
        self.path("images.json")
    }

    fn layer(&self, digest: Digest) -> PathBuf {
        self.path("layers").join(digest.hex())
    }

    fn lock(&self) -> Result<Lock, Error> {
        Lock::wait(&self.path("lock"))
    }

    /// Makes a directory to work in, which ends with its owner.
    pub(crate) fn work(&self) -> Result<Work, Error> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let lock = self.lock()?;
        let path = loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = self.path("work").join(format!("{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => break path,
                // Of a process that had this id, or has it in another process namespace.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("made", &path)(error)),
            }
        };
        let held = Held::shared(&path)?.ok_or_else(|| Error::NotFound { name: "work".into() })?;
        drop(lock);
        Ok(Work { path, _held: held })
    }

    /// Makes a whole tree durable and gives it its name. If somebody else was faster, theirs stays.
    fn publish(&self, tree: &Path, path: &Path) -> Result<Held, Error> {
        let held = Held::shared(tree)?.ok_or_else(|| Error::NotFound { name: "tree".into() })?;
        held.sync().map_err(Error::io("written", tree))?;
        let _lock = self.lock()?;
        if let Some(theirs) = Held::shared(path)? {
            return Ok(theirs);
        }
        fs::rename(tree, path).map_err(Error::io("renamed", path))?;
        sync_dir(path.parent().unwrap_or(path))?;
        Ok(held)
    }

    /// Removes what no image has and nobody holds.
    fn collect(&self, index: &Index, _lock: &Lock) -> Result<(), Error> {
        let layers: Vec<String> =
            index.images.iter().flat_map(|one| &one.layers).map(|one| one.digest.hex()).collect();
        let manifests: Vec<String> = index.images.iter().map(|one| one.digest.hex()).collect();
        self.sweep("layers", &layers)?;
        self.sweep("flat", &manifests)?;
        self.sweep("work", &[])
    }

    fn sweep(&self, kind: &str, wanted: &[String]) -> Result<(), Error> {
        let dir = self.path(kind);
        for entry in fs::read_dir(&dir).map_err(Error::io("read", &dir))? {
            let entry = entry.map_err(Error::io("read", &dir))?;
            let name = entry.file_name();
            if wanted.iter().any(|one| name == **one) {
                continue;
            }
            let Some(_nobody_else) = Held::alone(&entry.path())? else { continue };
            if kind == "work" {
                remove(&entry.path())?;
                continue;
            }
            // Half a layer must not have the name of a whole one.
            let gone = self.path("work").join(format!("gone-{kind}-{}", name.display()));
            if gone.exists() {
                remove(&gone)?;
            }
            fs::rename(entry.path(), &gone).map_err(Error::io("renamed", &gone))?;
            sync_dir(&dir)?;
            remove(&gone)?;
        }
        Ok(())
    }
}

/// A directory to work in.
#[derive(Debug)]
pub(crate) struct Work {
    path: PathBuf,
    _held: Held,
}

impl Work {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // If it stays, the next opening removes it.
        drop(remove(&self.path));
    }
}

fn missing(digest: Digest) -> Error {
    Error::malformed("image store", format!("layer {digest} is missing"))
}

fn remove(path: &Path) -> Result<(), Error> {
    fs::remove_dir_all(path).map_err(Error::io("removed", path))
}

fn sync_dir(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(Error::io("written", path))
}

#[cfg(test)]
mod tests;
