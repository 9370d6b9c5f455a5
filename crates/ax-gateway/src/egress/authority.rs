//! Certificates for the hosts whose tunnels are opened, made for one attempt.
//!
//! An authority of its own signs one certificate for each host and is forgotten: its key is never
//! written anywhere and does not outlive [`issue`], and its certificate is good for these hosts
//! only. The keys of the hosts' certificates stay in memory as long as the gateway.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints,
    date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long ago the certificates began, for clocks that go after ours.
const EARLIER: Duration = Duration::from_secs(24 * 60 * 60);
/// How long they are good: longer than any attempt.
const VALID: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The only protocol on both sides.
pub(super) const PROTOCOL: &[u8] = b"http/1.1";

/// What an authority leaves behind.
pub(super) struct Issued {
    /// Its own certificate.
    pub(super) authority: CertificateDer<'static>,
    /// How the gateway shows itself as each of the hosts.
    pub(super) hosts: BTreeMap<String, Arc<ServerConfig>>,
}

/// Makes an authority and what it vouches for.
///
/// # Errors
///
/// Fails if a certificate cannot be made for one of the names.
pub(super) fn issue(hosts: &BTreeSet<&str>) -> io::Result<Issued> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    // No two have one name, so that nobody takes one for the other.
    let hash = blake3::hash(key.public_key_raw()).to_hex();
    let mut params = params(&format!("Agent Executor egress {}", &hash[..16]), Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let permitted_subtrees = hosts.iter().map(|host| subtree(host)).collect();
    let excluded_subtrees = Vec::new();
    params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees });
    let issuer = CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)?;
    let host = |host: &&str| Ok(((*host).to_owned(), Arc::new(server(host, &issuer)?)));
    let hosts = hosts.iter().map(host).collect::<io::Result<_>>()?;
    Ok(Issued { authority: issuer.der().clone(), hosts })
}

fn params(name: &str, hosts: Vec<String>) -> io::Result<CertificateParams> {
    let mut params = CertificateParams::new(hosts).map_err(io::Error::other)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_before = date_time_ymd(1970, 1, 1) + now.saturating_sub(EARLIER);
    params.not_after = date_time_ymd(1970, 1, 1) + (now + VALID);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn subtree(host: &str) -> GeneralSubtree {
    match host.parse::<IpAddr>() {
        Ok(address) => {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, bits))
        }
        Err(_) => GeneralSubtree::DnsName(host.to_owned()),
    }
}

fn server(host: &str, issuer: &CertifiedIssuer<'_, KeyPair>) -> io::Result<ServerConfig> {
    let mut params = params("Agent Executor gateway", vec![host.to_owned()])?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificate = params.signed_by(&key, issuer).map_err(io::Error::other)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let chain = vec![certificate.der().clone()];
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
