//! What `jsonwebtoken` verifies signatures with: ring, which TLS uses already.

use jsonwebtoken::crypto::{CryptoProvider, JwkUtils, JwtSigner, JwtVerifier};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey, signature};
use ring::signature as ring_signature;

/// Signatures are verified, and of public keys only: nothing is signed here, and what is signed
/// with a shared secret is not believed.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: no_signer,
    verifier_factory: verifier,
    jwk_utils: JwkUtils::new_unimplemented(),
};

/// Sees to it that signatures can be verified.
pub(super) fn install() {
    // Whoever was first may stay: another provider verifies as well.
    let _first = PROVIDER.install_default();
}

fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(ErrorKind::InvalidAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let rsa = match algorithm {
        Algorithm::RS256 => Some(&ring_signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&ring_signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&ring_signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&ring_signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&ring_signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&ring_signature::RSA_PSS_2048_8192_SHA512),
        _ => None,
    };
    let other: Option<&'static dyn ring_signature::VerificationAlgorithm> = match algorithm {
        Algorithm::ES256 => Some(&ring_signature::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Some(&ring_signature::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => Some(&ring_signature::ED25519),
        _ => None,
    };
    let with = match (rsa, other, key.kind()) {
        (Some(parameters), None, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            With::Rsa { parameters, n: n.clone(), e: e.clone() }
        }
        (None, Some(with), DecodingKeyKind::SecretOrDer(point)) => {
            With::Other(ring_signature::UnparsedPublicKey::new(with, point.clone()))
        }
        _ => return Err(ErrorKind::InvalidAlgorithm.into()),
    };
    Ok(Box::new(Ring { algorithm: *algorithm, with }))
}

enum With {
    Rsa { parameters: &'static ring_signature::RsaParameters, n: Vec<u8>, e: Vec<u8> },
    Other(ring_signature::UnparsedPublicKey<Vec<u8>>),
}

struct Ring {
    algorithm: Algorithm,
    with: With,
}

impl signature::Verifier<Vec<u8>> for Ring {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match &self.with {
            With::Rsa { parameters, n, e } => ring_signature::RsaPublicKeyComponents { n, e }
                .verify(parameters, message, signature),
            With::Other(key) => key.verify(message, signature),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Ring {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// Verifies one signature; for what is tested here.
#[cfg(test)]
fn verifies(with: Algorithm, key: &DecodingKey, message: &[u8], signature: Vec<u8>) -> bool {
    verifier(&with, key).is_ok_and(|verifier| verifier.verify(message, &signature).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    #[test]
    fn a_key_verifies_with_its_own_algorithm_only() {
        let chance = SystemRandom::new();
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&chance).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let signature = pair.sign(b"message").as_ref().to_vec();
        let public = pair.public_key().as_ref();
        let key = DecodingKey::from_ed_der(public);
        assert!(verifies(Algorithm::EdDSA, &key, b"message", signature.clone()));
        assert!(!verifies(Algorithm::EdDSA, &key, b"another", signature.clone()));
        for wrong in [Algorithm::HS256, Algorithm::ES256, Algorithm::RS256, Algorithm::PS512] {
            assert!(!verifies(wrong, &key, b"message", signature.clone()), "{wrong:?}");
        }
        let secret = DecodingKey::from_secret(public);
        assert!(verifier(&Algorithm::HS256, &secret).is_err());
    }
}
