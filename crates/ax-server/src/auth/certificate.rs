//! Who a client certificate names.
//!
//! The chain and the dates were checked when the connection was made; here only names are read.

use super::role::Role;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use webpki::EndEntityCert;

/// The object identifier 2.5.4.3, the common name (RFC 4519 §2.3).
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// UTF8String, PrintableString, IA5String.
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];

/// What the owner of a certificate may do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which certificate: `uri:` and a name such as `spiffe://example.org/ci`, `dns:` and a host
    /// name, both from its alternative names, or `cn:` and the common name of its subject.
    pub name: String,
    /// What its owner may do.
    pub role: Role,
    /// Where; everywhere if absent.
    #[serde(default)]
    pub namespace: Option<String>,
}

/// All names of a certificate, in the form that rules have them.
pub(crate) fn names(der: &[u8]) -> Vec<String> {
    let der = CertificateDer::from(der);
    let Ok(certificate) = EndEntityCert::try_from(&der) else { return Vec::new() };
    let uris = certificate.valid_uri_names().map(|name| format!("uri:{name}"));
    let hosts = certificate.valid_dns_names().map(|name| format!("dns:{name}"));
    let common = common_name(certificate.subject()).map(|name| format!("cn:{name}"));
    uris.chain(hosts).chain(common).collect()
}

/// Reads the common name of a subject (RFC 5280 §4.1.2.6), if there is exactly one.
fn common_name(subject: &[u8]) -> Option<String> {
    let mut rest = match take(subject) {
        Some((SEQUENCE, inside, [])) => inside,
        _ => subject,
    };
    let mut found = None;
    while let Some((tag, mut set, after)) = take(rest) {
        rest = after;
        if tag != SET {
            return None;
        }
        while let Some((SEQUENCE, pair, after)) = take(set) {
            set = after;
            let (OBJECT_IDENTIFIER, kind, value) = take(pair)? else { return None };
            if kind != COMMON_NAME {
                continue;
            }
            let (tag, text, _) = take(value)?;
            let text = std::str::from_utf8(text).ok().filter(|_| TEXTS.contains(&tag))?;
            if found.replace(text).is_some() {
                return None;
            }
        }
    }
    found.filter(|name| !name.is_empty() && !name.chars().any(char::is_control)).map(str::to_owned)
}

/// Reads a tag, what belongs to it, and what is after it.
fn take(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => rest
            .split_first_chunk::<2>()
            .map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))?,
        _ => return None,
    };
    let (inside, after) = rest.split_at_checked(length)?;
    Some((*tag, inside, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    #[test]
    fn all_kinds_of_names_are_read() {
        let mut params = CertificateParams::new(vec!["ci.example.org".to_owned()]).unwrap();
        let uri = "spiffe://example.org/ci".try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        params.distinguished_name.push(DnType::OrganizationName, "Acme");
        params.distinguished_name.push(DnType::CommonName, "Ci Ä");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let names = names(certificate.der());
        for name in ["uri:spiffe://example.org/ci", "dns:ci.example.org", "cn:Ci Ä"] {
            assert!(names.iter().any(|known| known == name), "{names:?}");
        }
    }

    #[test]
    fn nonsense_has_no_names() {
        assert_eq!(names(b""), Vec::<String>::new());
        assert_eq!(names(&[0x30, 0x82, 0xff, 0xff, 0]), Vec::<String>::new());
        assert_eq!(common_name(&[SET, 5, SEQUENCE, 3, OBJECT_IDENTIFIER, 1, 0]), None);
        assert_eq!(common_name(&[SET, 0x84, 1, 2, 3, 4]), None);
    }
}
