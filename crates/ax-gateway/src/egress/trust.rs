//! Who believes whom: the roots that the gateway believes, and the files that have a harness
//! believe the gateway.

use super::authority::{self, Issued, PROTOCOL, provider};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// Variables whose file takes the place of the roots of the system.
const REPLACES: [&str; 4] =
    ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"];
/// Variables whose file is added to them.
const ADDS: [&str; 1] = ["NODE_EXTRA_CA_CERTS"];

/// The certificates that somebody believes.
pub(super) type Roots = Vec<CertificateDer<'static>>;

/// How the gateway stands between a harness and the hosts whose tunnels are opened.
pub(super) struct Trust {
    /// How it shows itself to the harness, by host.
    pub(super) hosts: BTreeMap<String, Arc<ServerConfig>>,
    /// How it looks at the hosts.
    pub(super) client: Arc<ClientConfig>,
}

/// The files of an attempt, gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Files {
    dir: TempDir,
}

/// Returns the certificates that the system believes, as its programs find them.
pub(super) fn system_roots() -> Roots {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a certificate of the system cannot be read");
    }
    found.certs
}

impl Trust {
    /// Makes certificates for hosts, and the files that vouch for them, in a directory of their
    /// own below `dir`.
    ///
    /// # Errors
    ///
    /// Fails if a certificate cannot be made or a file cannot be written.
    pub(super) fn open(
        hosts: &BTreeSet<&str>,
        roots: &Roots,
        dir: &Path,
    ) -> io::Result<(Self, Files)> {
        let Issued { authority, hosts } = authority::issue(hosts)?;
        let files = Files::write(dir, &authority, roots)?;
        let mut store = RootCertStore::empty();
        let (_good, bad) = store.add_parsable_certificates(roots.iter().cloned());
        if bad > 0 {
            tracing::warn!(bad, "some certificates of the system are not believed");
        }
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(store)
            .with_no_client_auth();
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok((Self { hosts, client: Arc::new(client) }, files))
    }
}

impl Files {
    fn write(dir: &Path, authority: &CertificateDer<'_>, roots: &Roots) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let private = Permissions::from_mode(0o700);
        let dir = tempfile::Builder::new().prefix("trust-").permissions(private).tempdir_in(dir)?;
        let files = Self { dir };
        let own = pem(authority);
        let all = roots.iter().fold(own.clone(), |all, root| all + &pem(root));
        for (path, text) in [(files.authority(), own), (files.bundle(), all)] {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(text.as_bytes())?;
        }
        Ok(files)
    }

    /// Where they are.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The authority alone.
    pub(super) fn authority(&self) -> PathBuf {
        self.dir.path().join("authority.pem")
    }

    /// The authority and the roots of the system.
    pub(super) fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle.pem")
    }

    /// What a harness finds in its environment, so that its clients believe the gateway.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let all = REPLACES.map(|name| (name, self.bundle()));
        let added = ADDS.map(|name| (name, self.authority()));
        let text =
            |(name, path): (&str, PathBuf)| (name.to_owned(), path.to_string_lossy().into_owned());
        all.into_iter().chain(added).map(text).collect()
    }
}

/// Writes a certificate as text (RFC 7468).
fn pem(certificate: &CertificateDer<'_>) -> String {
    let body = BASE64_STANDARD.encode(certificate);
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        let _never_fails = writeln!(text, "{line}");
        rest = after;
    }
    text + "-----END CERTIFICATE-----\n"
}
