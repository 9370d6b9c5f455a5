//! What an image says of itself: the documents of the image specification, as far as they matter.

use crate::digest::Digest;
use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The largest index, manifest or configuration, in bytes.
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// The most layers: as many as an overlay takes in one call with room to spare.
pub(crate) const LAYERS_MAX: usize = 127;
/// How deep indexes are nested at most.
pub(crate) const INDEXES_MAX: usize = 3;
/// Annotations with the name of an image, the fullest first.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// An operating system and a kind of processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The operating system, such as `linux`.
    pub os: String,
    /// The processor, such as `amd64`.
    pub architecture: String,
}

impl Platform {
    /// Returns that of this machine.
    pub fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into() }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let wanted = Self::here();
        if *self == wanted {
            return Ok(());
        }
        Err(Error::Platform { found: self.to_string(), wanted: wanted.to_string() })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// Names a content.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Descriptor {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Returns what the image is called, if it is said.
    pub(crate) fn name(&self) -> Option<&str> {
        NAMES.iter().find_map(|name| self.annotations.get(*name)).map(String::as_str)
    }
}

/// An index or a manifest: which one, is said by what is in it.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    Index(Vec<Descriptor>),
    Manifest { config: Descriptor, layers: Vec<Descriptor> },
}

impl Document {
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Either {
            manifests: Option<Vec<Descriptor>>,
            config: Option<Descriptor>,
            layers: Option<Vec<Descriptor>>,
        }
        let either: Either = parse("manifest", text)?;
        match (either.manifests, either.config, either.layers) {
            (Some(manifests), None, None) => Ok(Self::Index(manifests)),
            (None, Some(config), Some(layers)) if layers.len() <= LAYERS_MAX => {
                Ok(Self::Manifest { config, layers })
            }
            (None, Some(_), Some(_)) => {
                Err(Error::Limit { what: "the number of layers", limit: LAYERS_MAX as u64 })
            }
            _ => Err(Error::malformed("manifest", "it has neither images nor layers, or both")),
        }
    }
}

/// Picks the image of this machine, and of this name if one is given.
pub(crate) fn pick<'a>(of: &'a [Descriptor], tag: Option<&str>) -> Result<&'a Descriptor, Error> {
    let here = Platform::here();
    let is_tagged = |one: &&Descriptor| {
        tag.is_none_or(|tag| {
            one.name().is_some_and(|name| name == tag || name.ends_with(&format!(":{tag}")))
        })
    };
    let tagged: Vec<&Descriptor> = of.iter().filter(is_tagged).collect();
    if let (Some(tag), true) = (tag, tagged.is_empty()) {
        return Err(Error::NotFound { name: tag.into() });
    }
    let fits = |one: &&&Descriptor| one.platform.as_ref().is_none_or(|on| *on == here);
    let fitting: Vec<_> = tagged.iter().filter(fits).collect();
    match &fitting[..] {
        [one] => Ok(one),
        [] => {
            let found: Vec<_> =
                of.iter().filter_map(|one| Some(one.platform.as_ref()?.to_string())).collect();
            let found = if found.is_empty() { "nothing".into() } else { found.join(", ") };
            Err(Error::Platform { found, wanted: here.to_string() })
        }
        several => {
            // Variants of one processor: whoever made the index put the usual one first.
            if several.iter().all(|one| one.platform.is_some()) {
                return Ok(several[0]);
            }
            let name = |one: &&&Descriptor| {
                one.name().map_or_else(|| one.digest.to_string(), str::to_owned)
            };
            Err(Error::Ambiguous { names: several.iter().map(name).collect() })
        }
    }
}

/// The configuration of an image.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) os: String,
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) config: Option<Defaults>,
    pub(crate) rootfs: RootFs,
}

/// What a program in an image is started with, unless told otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Defaults {
    pub(crate) env: Option<Vec<String>>,
    pub(crate) user: Option<String>,
    pub(crate) working_dir: Option<String>,
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) cmd: Option<Vec<String>>,
}

/// The layers, by the digests of their archives; the lowest first.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RootFs {
    pub(crate) diff_ids: Vec<Digest>,
}

impl Config {
    /// Reads the configuration of an image of so many layers, for this machine.
    pub(crate) fn parse(text: &[u8], layers: usize) -> Result<Self, Error> {
        let config: Self = parse("configuration", text)?;
        let said = config.rootfs.diff_ids.len();
        if said != layers {
            let why = format!("it says {said} layers, and the manifest {layers}");
            return Err(Error::malformed("configuration", why));
        }
        config.platform().check()?;
        Ok(config)
    }

    pub(crate) fn platform(&self) -> Platform {
        Platform { os: self.os.clone(), architecture: self.architecture.clone() }
    }
}

/// A row of `manifest.json` in what `docker save` writes.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Saved {
    pub(crate) config: String,
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    pub(crate) layers: Vec<String>,
}

pub(crate) fn parse<'a, T: Deserialize<'a>>(what: &str, text: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(text).map_err(|error| Error::malformed(what, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(platform: Option<(&str, &str)>, name: Option<&str>) -> Descriptor {
        let platform = platform.map(|(os, architecture)| Platform {
            os: os.into(),
            architecture: architecture.into(),
        });
        let digest = Digest::of(format!("{platform:?}{name:?}").as_bytes());
        let annotations = name.map(|name| (NAMES[1].to_owned(), name.to_owned()));
        Descriptor { digest, size: 1, platform, annotations: annotations.into_iter().collect() }
    }

    #[test]
    fn of_many_platforms_this_machines_is_picked() {
        let here = Platform::here();
        let ours = descriptor(Some(("linux", &here.architecture)), None);
        let theirs = descriptor(Some(("linux", "s390x")), None);
        let all = [theirs.clone(), ours.clone()];
        assert_eq!(pick(&all, None).unwrap().digest, ours.digest);
        let error = pick(&[theirs], None).unwrap_err();
        assert!(error.to_string().contains("linux/s390x"), "{error}");
    }

    #[test]
    fn of_many_names_the_one_that_is_asked_for_is_picked() {
        let all = [descriptor(None, Some("a:1")), descriptor(None, Some("2"))];
        assert!(matches!(pick(&all, None), Err(Error::Ambiguous { .. })));
        assert_eq!(pick(&all, Some("1")).unwrap().digest, all[0].digest);
        assert_eq!(pick(&all, Some("2")).unwrap().digest, all[1].digest);
        assert!(matches!(pick(&all, Some("3")), Err(Error::NotFound { .. })));
    }

    #[test]
    fn a_document_is_an_index_or_a_manifest_and_never_both() {
        let one = format!(r#"{{"digest":"{}","size":0}}"#, Digest::of(b""));
        for (text, good) in [
            (format!(r#"{{"manifests":[{one}]}}"#), true),
            (format!(r#"{{"config":{one},"layers":[]}}"#), true),
            (format!(r#"{{"config":{one},"layers":[],"manifests":[]}}"#), false),
            ("{}".into(), false),
            ("[".into(), false),
        ] {
            assert_eq!(Document::parse(text.as_bytes()).is_ok(), good, "{text}");
        }
        let many = vec![one.clone(); LAYERS_MAX + 1].join(",");
        let text = format!(r#"{{"config":{one},"layers":[{many}]}}"#);
        assert!(matches!(Document::parse(text.as_bytes()), Err(Error::Limit { .. })));
    }
}
