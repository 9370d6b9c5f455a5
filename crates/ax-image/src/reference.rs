//! References: which image of which registry.

use crate::digest::Digest;
use crate::error::Error;
use std::fmt;
use std::net::IpAddr;

/// The tag of a reference that says none.
const LATEST: &str = "latest";
/// The longest reference, in bytes.
const BYTES_MAX: usize = 256;

/// Names an image in a registry: `registry/repository:tag`, `registry/repository@digest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The host of the registry, with its port if that is said.
    pub registry: String,
    /// The repository within.
    pub repository: String,
    /// The tag; `latest` if neither tag nor digest is said.
    pub tag: Option<String>,
    /// The digest, which what is fetched must have.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Reads a reference. The registry is always said: there is none by default.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Name { name: text.into(), why: why.into() };
        if text.len() > BYTES_MAX {
            return Err(wrong("it is too long"));
        }
        let (registry, rest) = text.split_once('/').ok_or_else(|| {
            wrong("it does not say the registry, such as docker.io/library/debian:12")
        })?;
        let is_host = registry == "localhost" || registry.contains(['.', ':']);
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        if !is_host || !registry.bytes().all(fits) {
            return Err(wrong("it does not begin with the host of a registry"));
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
            None => (rest, None),
        };
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (rest, digest.is_none().then(|| LATEST.to_owned())),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_part = |part: &str| {
            part.bytes().all(plain)
                && part.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        };
        if !repository.split('/').all(is_part) || !tag.iter().all(|tag| is_part(tag)) {
            return Err(wrong("it has no repository and tag of letters, digits and . _ -"));
        }
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        Ok(Self { registry, repository, tag, digest })
    }

    /// Returns where its documents and blobs are.
    pub(crate) fn base(&self) -> String {
        let scheme = if self.is_loopback() { "http" } else { "https" };
        let host =
            if self.registry == "docker.io" { "registry-1.docker.io" } else { &self.registry };
        format!("{scheme}://{host}/v2/{}", self.repository)
    }

    /// Returns whether the registry is on this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(self.registry.rsplit_once(':').map_or(&*self.registry, |(host, _)| host))
    }
}

/// Returns whether a host is this machine, by its name alone.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_only_loopback_is_plain() {
        let digest = Digest::of(b"");
        for (text, base) in [
            ("docker.io/library/debian:12", "https://registry-1.docker.io/v2/library/debian"),
            ("localhost:5000/a", "http://localhost:5000/v2/a"),
            ("127.0.0.1:5000/a/b:1", "http://127.0.0.1:5000/v2/a/b"),
            ("127.0.0.1.evil.test/a", "https://127.0.0.1.evil.test/v2/a"),
            (&format!("ghcr.io/a/b@{digest}"), "https://ghcr.io/v2/a/b"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.base(), base);
        }
        for text in
            ["debian", "debian:12", "a/b", "ghcr.io/", "ghcr.io/../x", "ghcr.io/a:", "x.y@z/a"]
        {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }
}
