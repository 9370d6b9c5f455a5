//! Authorities of our own, and what they vouch for.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use std::path::{Path, PathBuf};

/// An authority that nobody knows who is not told.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Whoever has the name of its issuer counts as having signed itself.
fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = named("an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes its own certificate.
    pub(crate) fn write(&self, path: PathBuf) -> String {
        std::fs::write(&path, self.0.pem()).unwrap();
        path.display().to_string()
    }

    /// Writes a certificate for a name or an address, and its key, in the place of older ones.
    pub(crate) fn issue(&self, name: &str, dir: &Path, file: &str) -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name = named("one of ours");
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let parts = [("key", key.serialize_pem()), ("pem", certificate.pem())];
        let [key, certificate] = parts.map(|(end, content)| {
            let path = dir.join(format!("{file}.{end}"));
            let fresh = dir.join(format!("{file}.{end}.new"));
            std::fs::write(&fresh, content).unwrap();
            std::fs::rename(&fresh, &path).unwrap();
            path.display().to_string()
        });
        [certificate, key]
    }
}
