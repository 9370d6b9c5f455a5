//! Fetching an image from a registry, by the requests of the distribution specification.
//!
//! What is fetched becomes a directory in the OCI layout, every content of it bounded and verified
//! while it comes, and is then imported like any other. Only a registry on loopback is spoken to
//! without encryption. A password goes to the registry, and to the place that it names for tokens
//! if that is encrypted too; it is in no error and nowhere on the disk.

use crate::digest::{Digest, Hasher};
use crate::error::Error;
use crate::manifest::{Config, DOCUMENT_BYTES_MAX, Descriptor, Document, INDEXES_MAX, pick};
use crate::reference::{Reference, is_loopback};
use crate::source::blob_path;
use crate::store::{Image, Import, Progress, Store};
use reqwest::header::{ACCEPT, WWW_AUTHENTICATE};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::json;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// How long a registry may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The largest answer with a token, in bytes.
const TOKEN_BYTES_MAX: u64 = 1 << 20;
/// The documents that are understood.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// How an image is fetched.
#[derive(Clone, Default)]
pub struct Pull {
    /// What it is to be called; the reference if absent.
    pub name: Option<String>,
    /// User and password for the registry.
    pub credentials: Option<(String, String)>,
}

impl std::fmt::Debug for Pull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pull").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Store {
    /// Fetches an image from a registry and takes it in. Layers that are here are not fetched.
    ///
    /// # Errors
    ///
    /// If the registry does not answer or refuses, and as [`Store::import`].
    pub async fn pull(
        &self,
        reference: &Reference,
        pull: &Pull,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Image, Error> {
        let work = self.work()?;
        let dir = work.path().join("layout");
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(Error::io("made", &blobs))?;
        let mut registry = Registry::new(reference, pull.credentials.clone())?;
        let (manifest, bytes) = registry.manifest().await?;
        let Document::Manifest { config, layers } = Document::parse(&bytes)? else {
            return Err(Error::malformed("manifest", "indexes are nested too deep"));
        };
        write(&dir.join(blob_path(manifest)), &bytes)?;
        registry.blob(&config, &dir, DOCUMENT_BYTES_MAX, &mut |_| {}).await?;
        let path = dir.join(blob_path(config.digest));
        let text = fs::read(&path).map_err(Error::io("read", &path))?;
        let parsed = Config::parse(&text, layers.len())?;
        let known = self.known()?;
        let mut held = Vec::new();
        for (layer, tree) in layers.iter().zip(&parsed.rootfs.diff_ids) {
            let here = known.iter().any(|known| known.digest == *tree);
            if let Some(hold) = here.then(|| self.hold(*tree)).transpose()?.flatten() {
                held.push(hold);
                continue;
            }
            let Descriptor { digest, size: of, .. } = *layer;
            let mut tell = |bytes| progress(Progress::Fetched { digest, bytes, of });
            registry.blob(layer, &dir, u64::MAX, &mut tell).await?;
        }
        let index = json!({"manifests": [{"digest": manifest, "size": bytes.len()}]});
        write(&dir.join("index.json"), index.to_string().as_bytes())?;
        let name = pull.name.clone().unwrap_or_else(|| reference.to_string());
        let source = Some(reference.to_string());
        let import = Import { name: Some(name), source, ..Import::default() };
        self.import(&dir, &import, progress)
    }
}

/// A registry, as one reference needs it.
struct Registry<'a> {
    reference: &'a Reference,
    client: Client,
    credentials: Option<(String, String)>,
    token: Option<String>,
}

impl<'a> Registry<'a> {
    fn new(reference: &'a Reference, credentials: Option<(String, String)>) -> Result<Self, Error> {
        let _chosen_already = rustls::crypto::ring::default_provider().install_default();
        let builder = Client::builder().connect_timeout(SILENCE_MAX).read_timeout(SILENCE_MAX);
        let builder = if reference.is_loopback() {
            // A registry of this machine sends nobody elsewhere, and no proxy has it.
            builder.no_proxy().redirect(reqwest::redirect::Policy::none())
        } else {
            builder.https_only(true).redirect(reqwest::redirect::Policy::limited(5))
        };
        let client = builder.build().map_err(|error| failed("connecting", &error))?;
        Ok(Self { reference, client, credentials, token: None })
    }

    /// Fetches the manifest of this machine, through an index if there is one.
    async fn manifest(&mut self) -> Result<(Digest, Vec<u8>), Error> {
        let Reference { tag, digest, .. } = self.reference;
        let named = digest.map(|digest| digest.to_string()).or_else(|| tag.clone());
        let (mut named, mut expected) = (named.unwrap_or_default(), *digest);
        for _ in 0..=INDEXES_MAX {
            let response = self.get(&format!("manifests/{named}")).await?;
            let bytes = small(response, DOCUMENT_BYTES_MAX).await?;
            let found = Digest::of(&bytes);
            if let Some(expected) = expected.filter(|expected| *expected != found) {
                return Err(Error::Mismatch { what: "manifest".into(), expected, found });
            }
            let Document::Index(images) = Document::parse(&bytes)? else {
                return Ok((found, bytes));
            };
            let picked = pick(&images, None)?;
            (named, expected) = (picked.digest.to_string(), Some(picked.digest));
        }
        Err(Error::Limit { what: "the depth of indexes", limit: INDEXES_MAX as u64 })
    }

    /// Fetches a content into a layout.
    async fn blob(
        &mut self,
        named: &Descriptor,
        dir: &Path,
        bytes_max: u64,
        tell: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), Error> {
        if named.size > bytes_max {
            let what = "a document of an image in bytes";
            return Err(Error::Limit { what, limit: bytes_max });
        }
        let path = dir.join(blob_path(named.digest));
        let mut response = self.get(&format!("blobs/{}", named.digest)).await?;
        let mut file = File::create(&path).map_err(Error::io("made", &path))?;
        let (mut hasher, mut bytes) = (Hasher::default(), 0);
        while let Some(part) = response.chunk().await.map_err(|error| failed("a blob", &error))? {
            bytes += part.len() as u64;
            if bytes > named.size {
                break;
            }
            hasher.update(&part);
            file.write_all(&part).map_err(Error::io("written", &path))?;
            tell(bytes);
        }
        if bytes != named.size {
            return Err(Error::registry(format!("{} has another size than is said", named.digest)));
        }
        let (expected, found) = (named.digest, hasher.finish());
        if found != expected {
            return Err(Error::Mismatch { what: "blob".into(), expected, found });
        }
        Ok(())
    }

    /// Asks for something below the repository; proves who asks if that is wanted.
    async fn get(&mut self, path: &str) -> Result<Response, Error> {
        let url = format!("{}/{path}", self.reference.base());
        let response = self.send(&url).await?;
        if response.status() != StatusCode::UNAUTHORIZED || self.token.is_some() {
            return accepted(response);
        }
        let challenge = response.headers().get(WWW_AUTHENTICATE).and_then(|one| one.to_str().ok());
        let challenge = challenge.unwrap_or_default().to_owned();
        if let Some(bearer) = strip_word(&challenge, "bearer") {
            self.token = Some(self.token(bearer).await?);
        } else if self.credentials.is_none() || strip_word(&challenge, "basic").is_none() {
            return accepted(response);
        }
        let request = self.client.get(&url).header(ACCEPT, ACCEPTED);
        let request = match (&self.token, &self.credentials) {
            (Some(token), _) => request.bearer_auth(token),
            (None, Some((user, password))) => request.basic_auth(user, Some(password)),
            (None, None) => request,
        };
        accepted(request.send().await.map_err(|error| failed("asking", &error))?)
    }

    async fn send(&self, url: &str) -> Result<Response, Error> {
        let request = self.client.get(url).header(ACCEPT, ACCEPTED);
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        request.send().await.map_err(|error| failed("asking", &error))
    }

    /// Gets a token from where the registry says.
    async fn token(&self, challenge: &str) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let realm = parameter(challenge, "realm").unwrap_or_default();
        let mut url = Url::parse(&realm)
            .map_err(|_| Error::registry("it names no place for tokens".into()))?;
        let here = self.reference.is_loopback() && url.host_str().is_some_and(is_loopback);
        if url.scheme() != "https" && !here {
            return Err(Error::registry("it wants a token fetched without encryption".into()));
        }
        let scope = format!("repository:{}:pull", self.reference.repository);
        url.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = parameter(challenge, "service") {
            url.query_pairs_mut().append_pair("service", &service);
        }
        let request = self.client.get(url);
        let request = match &self.credentials {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        };
        let response = request.send().await.map_err(|error| failed("a token", &error))?;
        let bytes = small(accepted(response)?, TOKEN_BYTES_MAX).await?;
        // What is said of a malformed answer must not repeat it.
        let answer: Option<Answer> = serde_json::from_slice(&bytes).ok();
        let token = answer.and_then(|answer| answer.token.or(answer.access_token));
        token.ok_or_else(|| Error::registry("it gives no token".into()))
    }
}

/// Returns what follows the first word of a challenge, if it is this one.
fn strip_word<'a>(challenge: &'a str, word: &str) -> Option<&'a str> {
    let (first, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
    first.eq_ignore_ascii_case(word).then_some(rest)
}

/// Returns a parameter of a challenge: `name="value"`.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let parts = challenge.split('"').collect::<Vec<_>>();
    let mut pairs = parts.chunks_exact(2);
    let found = pairs.find(|pair| pair[0].trim_matches([',', ' ', '=']).eq_ignore_ascii_case(name));
    found.map(|pair| pair[1].to_owned())
}

fn accepted(response: Response) -> Result<Response, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    // Its words are not repeated: they may be anything.
    Err(Error::registry(format!("it answers {status}")))
}

async fn small(mut response: Response, bytes_max: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| failed("an answer", &error))? {
        bytes.extend_from_slice(&part);
        if bytes.len() as u64 > bytes_max {
            return Err(Error::Limit {
                what: "an answer of a registry in bytes",
                limit: bytes_max,
            });
        }
    }
    Ok(bytes)
}

fn failed(doing: &str, error: &reqwest::Error) -> Error {
    let mut why = format!("{doing}: ");
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    let plain = if error.is_timeout() { "it says nothing" } else { "the connection failed" };
    why.push_str(plain);
    while let Some(error) = cause {
        why = format!("{why}: {error}");
        cause = error.source();
    }
    Error::registry(why)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(Error::io("written", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let text = r#"Bearer realm="https://a.test/t?x=1",service="b c", scope="d""#;
        let rest = strip_word(text, "bearer").unwrap();
        assert_eq!(parameter(rest, "realm").as_deref(), Some("https://a.test/t?x=1"));
        assert_eq!(parameter(rest, "service").as_deref(), Some("b c"));
        assert_eq!(parameter(rest, "error"), None);
        assert!(strip_word("Basic realm=\"x\"", "bearer").is_none());
    }
}
