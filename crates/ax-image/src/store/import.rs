//! Taking an image in.

use super::index::{Image, Index, Layer, check_name};
use super::lock::Held;
use super::{Store, Work};
use crate::blob::{Named, unpack_blob};
use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::{Config, Defaults, Document, INDEXES_MAX, LAYERS_MAX, Saved, parse, pick};
use crate::source::Source;
use crate::unpack::{Limits, Unpacked};
use rustix::fd::AsFd;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The most an image keeps of its configuration, in bytes.
const DEFAULTS_BYTES_MAX: usize = 256 * 1024;

/// How an image is taken in.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// What it is to be called; what it calls itself if absent.
    pub name: Option<String>,
    /// Which one, where there are several.
    pub tag: Option<String>,
    /// Where it is from, as people are told; the path if absent.
    pub source: Option<String>,
    /// How much is unpacked of each layer.
    pub limits: Limits,
}

/// What goes on while an image is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A layer is here already.
    Known(Digest),
    /// Bytes of a layer come from a registry.
    Fetched {
        /// The layer's blob.
        digest: Digest,
        /// How many are here.
        bytes: u64,
        /// How many there are.
        of: u64,
    },
    /// A layer is being unpacked.
    Unpacking(Digest),
}

/// An image that was found in what is imported.
struct Found {
    digest: Digest,
    config: Config,
    layers: Vec<FoundLayer>,
    /// What it calls itself.
    name: Option<String>,
}

struct FoundLayer {
    named: Named,
    /// Where it is, if not under its digest.
    file: Option<String>,
}

impl Store {
    /// Takes an image in from a directory in the OCI layout, the same in a tar archive, or what
    /// `docker save` wrote. An image of the same name is replaced, at once and as a whole.
    ///
    /// # Errors
    ///
    /// If there is no image for this machine, something is not what its digest says, a layer is
    /// refused, or the disk fails. The store is then as before.
    pub fn import(
        &self,
        path: &Path,
        import: &Import,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Image, Error> {
        let source = Source::open(path)?;
        let found = find(&source, import.tag.as_deref())?;
        let own = found.name.clone().filter(|name| check_name(name).is_ok());
        let name = import.name.clone().or(own).or_else(|| stem(path));
        let name = name.ok_or_else(|| Error::Name {
            name: String::new(),
            why: "it does not say what it is called: name it".into(),
        })?;
        check_name(&name)?;
        let work = self.work()?;
        let (mut layers, mut held) = (Vec::new(), Vec::new());
        let known = self.known()?;
        for (index, layer) in found.layers.iter().enumerate() {
            let step = Step { store: self, work: &work, index, source: &source, import };
            let (layer, hold) = step.layer(layer, &known, progress)?;
            layers.push(layer);
            held.push(hold);
        }
        let from = import.source.clone().unwrap_or_else(|| path.display().to_string());
        let image = image(name, from, &found, layers)?;
        let lock = self.lock()?;
        let mut index = Index::read(&self.index())?;
        index.put(image.clone());
        index.write(&self.dir, &self.index())?;
        drop(held);
        self.collect(&index, &lock)?;
        Ok(image)
    }

    /// Returns what is known of the layers that are here.
    pub(crate) fn known(&self) -> Result<Vec<Layer>, Error> {
        Ok(self.list()?.into_iter().flat_map(|image| image.layers).collect())
    }

    /// Holds a layer if it is here, so that it stays.
    pub(crate) fn hold(&self, digest: Digest) -> Result<Option<fs::File>, Error> {
        let _lock = self.lock()?;
        Ok(Held::shared(&self.layer(digest))?.map(Held::into_file))
    }
}

struct Step<'a> {
    store: &'a Store,
    work: &'a Work,
    index: usize,
    source: &'a Source,
    import: &'a Import,
}

impl Step<'_> {
    /// Sees to it that a layer is here.
    fn layer(
        &self,
        layer: &FoundLayer,
        known: &[Layer],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Layer, Held), Error> {
        let digest = layer.named.tree;
        let path = self.store.layer(digest);
        // One that no image has is whole too, but nobody knows how large it is.
        if let Some(known) = known.iter().find(|known| known.digest == digest) {
            let _lock = self.store.lock()?;
            if let Some(held) = Held::shared(&path)? {
                progress(Progress::Known(digest));
                return Ok((*known, held));
            }
        }
        progress(Progress::Unpacking(digest));
        let tree = self.work.path().join(format!("layer-{}", self.index));
        let Unpacked { entries, bytes, left_out } = self.unpack(layer, &tree)?;
        let held = self.store.publish(&tree, &path)?;
        Ok((Layer { digest, bytes, entries, left_out }, held))
    }

    fn unpack(&self, layer: &FoundLayer, tree: &Path) -> Result<Unpacked, Error> {
        let blob: Box<dyn Read> = match &layer.file {
            None => self.source.blob(layer.named.blob.unwrap_or(layer.named.tree))?,
            Some(file) => {
                let found = self.source.file(file)?;
                let missing = || Error::malformed("image", format!("{file} is missing"));
                found.ok_or_else(missing)?.0
            }
        };
        fs::create_dir(tree).map_err(Error::io("made", tree))?;
        fs::set_permissions(tree, fs::Permissions::from_mode(0o755))
            .map_err(Error::io("given a mode", tree))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let to = openat(CWD, tree, flags, Mode::empty())
            .map_err(|error| Error::io("opened", tree)(error.into()))?;
        unpack_blob(blob, &layer.named, to.as_fd(), &self.import.limits)
    }
}

fn find(source: &Source, tag: Option<&str>) -> Result<Found, Error> {
    if let Some(text) = source.small("index.json")? {
        return layout(source, &text, tag);
    }
    if let Some(text) = source.small("manifest.json")? {
        return saved(source, &text, tag);
    }
    let why = "it has neither index.json nor manifest.json";
    Err(Error::malformed("image", why))
}

/// Finds the image of an OCI layout.
fn layout(source: &Source, text: &[u8], tag: Option<&str>) -> Result<Found, Error> {
    let mut document = Document::parse(text)?;
    let (mut digest, mut name, mut tag) = (Digest::of(text), None, tag);
    for _ in 0..=INDEXES_MAX {
        match document {
            Document::Index(images) => {
                let picked = pick(&images, tag.take())?;
                name = name.or_else(|| picked.name().map(str::to_owned));
                digest = picked.digest;
                document = Document::parse(&source.document("manifest", picked)?)?;
            }
            Document::Manifest { config, layers } => {
                let config = source.document("configuration", &config)?;
                let config = Config::parse(&config, layers.len())?;
                let layers = layers.iter().zip(&config.rootfs.diff_ids);
                let layers = layers.map(|(blob, tree)| FoundLayer {
                    named: Named { blob: Some(blob.digest), tree: *tree, bytes: Some(blob.size) },
                    file: None,
                });
                return Ok(Found { digest, layers: layers.collect(), config, name });
            }
        }
    }
    Err(Error::Limit { what: "the depth of indexes", limit: INDEXES_MAX as u64 })
}

/// Finds the image of what `docker save` wrote. It has no manifest with a digest: the digest of its
/// configuration stands for it, which names every layer.
fn saved(source: &Source, text: &[u8], tag: Option<&str>) -> Result<Found, Error> {
    let images: Vec<Saved> = parse("manifest.json", text)?;
    let tags = |image: &Saved| image.repo_tags.clone().unwrap_or_default();
    let is_it = |image: &&Saved| {
        tag.is_none_or(|tag| {
            let ends = format!(":{tag}");
            tags(image).iter().any(|name| name == tag || name.ends_with(&ends))
        })
    };
    let found: Vec<&Saved> = images.iter().filter(is_it).collect();
    let image = match (&found[..], tag) {
        ([one], _) => *one,
        ([], tag) => return Err(Error::NotFound { name: tag.unwrap_or("in it").into() }),
        (several, _) => {
            let names = several.iter().flat_map(|image| tags(image)).collect();
            return Err(Error::Ambiguous { names });
        }
    };
    if image.layers.len() > LAYERS_MAX {
        return Err(Error::Limit { what: "the number of layers", limit: LAYERS_MAX as u64 });
    }
    let text = source.small(&image.config)?;
    let text = text.ok_or_else(|| Error::malformed("image", "its configuration is missing"))?;
    let digest = Digest::of(&text);
    let stem = image.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    if let Ok(expected) = Digest::parse(&format!("sha256:{stem}"))
        && expected != digest
    {
        let what = "configuration".into();
        return Err(Error::Mismatch { what, expected, found: digest });
    }
    let config = Config::parse(&text, image.layers.len())?;
    let layers = image.layers.iter().zip(&config.rootfs.diff_ids);
    let layers = layers.map(|(file, tree)| FoundLayer {
        named: Named { blob: None, tree: *tree, bytes: None },
        file: Some(file.clone()),
    });
    Ok(Found { digest, layers: layers.collect(), name: tags(image).into_iter().next(), config })
}

fn image(name: String, source: String, found: &Found, layers: Vec<Layer>) -> Result<Image, Error> {
    let defaults = found.config.config.clone().unwrap_or_default();
    let Defaults { env, user, working_dir, entrypoint, cmd } = defaults;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let image = Image {
        name,
        digest: found.digest,
        source,
        imported_at_millis: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        platform: found.config.platform(),
        layers,
        env: env.unwrap_or_default(),
        user: user.unwrap_or_default(),
        working_dir: working_dir.unwrap_or_default(),
        entrypoint: entrypoint.unwrap_or_default(),
        command: cmd.unwrap_or_default(),
    };
    let lists = [&image.env, &image.entrypoint, &image.command];
    let bytes: usize = lists.into_iter().flatten().map(String::len).sum();
    if bytes + image.user.len() + image.working_dir.len() > DEFAULTS_BYTES_MAX {
        let what = "the environment and command of an image in bytes";
        return Err(Error::Limit { what, limit: DEFAULTS_BYTES_MAX as u64 });
    }
    Ok(image)
}

/// Returns the name of a file without its ending, if an image can be called so.
fn stem(path: &Path) -> Option<String> {
    let stem = path.file_stem()?.to_str()?.to_owned();
    check_name(&stem).is_ok().then_some(stem)
}
