//! Sealing to a device: HPKE base mode (RFC 9180) with X-Wing (X25519 + ML-KEM-768,
//! draft-connolly-cfrg-xwing-kem), HKDF-SHA256 and ChaCha20-Poly1305.
//!
//! X-Wing has no authenticated mode: who sealed something is shown by an Ed25519 signature inside.

use hpke::{Deserializable, Kem as _, OpModeR, OpModeS, Serializable};
use rossby_seams::random::{Random, RandomError, bytes};
use zeroize::Zeroizing;

use super::drawn::Drawn;
use super::secret::Secret;

type Kem = hpke::kem::XWing;
type Kdf = hpke::kdf::HkdfSha256;
type Aead = hpke::aead::ChaCha20Poly1305;
type PrivateKey = <Kem as hpke::Kem>::PrivateKey;
type PublicKey = <Kem as hpke::Kem>::PublicKey;
type EncappedKey = <Kem as hpke::Kem>::EncappedKey;

/// Bytes of an encapsulated key.
pub const ENCAPSULATED_KEY_BYTES: usize = 1120;
/// Bytes that sealing adds to a plaintext.
pub const TAG_BYTES: usize = 16;
/// Randomness that one encapsulation uses.
const ENCAPSULATION_RANDOMNESS_BYTES: usize = 64;

/// Why something could not be sealed or opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KemError {
    /// No randomness to seal with.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// Not an X-Wing public key.
    #[error("not a usable X-Wing public key")]
    BadPublicKey,
    /// Sealing failed.
    #[error("sealing failed")]
    Seal,
    /// Not sealed to this key, for this purpose and context, or damaged.
    #[error("not sealed to this key, or damaged")]
    Open,
}

/// What sealing gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The encapsulated key.
    pub encapsulated_key: [u8; ENCAPSULATED_KEY_BYTES],
    /// The ciphertext with its tag.
    pub ciphertext: Vec<u8>,
}

/// Seals `plaintext` to an X-Wing public key. `info` names the purpose, `aad` the context; both
/// must be the same when it is opened.
///
/// # Errors
/// [`KemError::BadPublicKey`], [`KemError::Random`], [`KemError::Seal`].
pub fn seal(
    random: &dyn Random,
    public_key: &[u8],
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Sealed, KemError> {
    let public_key = PublicKey::from_bytes(public_key).map_err(|_| KemError::BadPublicKey)?;
    let mut drawn = Drawn::<ENCAPSULATION_RANDOMNESS_BYTES>::from(random)?;
    let (encapsulated, ciphertext) = hpke::single_shot_seal_with_rng::<Aead, Kdf, Kem>(
        &OpModeS::Base,
        &public_key,
        info,
        plaintext,
        aad,
        &mut drawn,
    )
    .map_err(|_| KemError::Seal)?;
    if !drawn.is_sound() {
        return Err(KemError::Seal);
    }
    let mut encapsulated_key = [0; ENCAPSULATED_KEY_BYTES];
    encapsulated_key.copy_from_slice(&encapsulated.to_bytes());
    Ok(Sealed {
        encapsulated_key,
        ciphertext,
    })
}

/// A device's X-Wing private key: a seed of 32 bytes, from which all else follows.
#[derive(Clone)]
pub struct KemSecret(Secret<32>);

impl KemSecret {
    /// Makes a key.
    ///
    /// # Errors
    /// [`RandomError`] without randomness.
    pub fn generate(random: &dyn Random) -> Result<Self, RandomError> {
        Ok(Self(Secret::new(bytes(random)?)))
    }

    /// The key of this seed.
    #[must_use]
    pub fn from_seed(seed: Secret<32>) -> Self {
        Self(seed)
    }

    /// The seed, to be stored.
    #[must_use]
    pub fn seed(&self) -> &Secret<32> {
        &self.0
    }

    fn private_key(&self) -> Result<PrivateKey, KemError> {
        PrivateKey::from_bytes(self.0.expose()).map_err(|_| KemError::Open)
    }

    /// The public key, to be published: 1,216 bytes.
    ///
    /// # Errors
    /// None in practice: every seed is a key.
    pub fn public_key(&self) -> Result<Vec<u8>, KemError> {
        Ok(Kem::sk_to_pk(&self.private_key()?).to_bytes().to_vec())
    }

    /// Opens what was sealed to this key under the same `info` and `aad`.
    ///
    /// # Errors
    /// [`KemError::Open`], which says no more than that on purpose.
    pub fn open(
        &self,
        info: &[u8],
        aad: &[u8],
        encapsulated_key: &[u8],
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KemError> {
        let encapsulated = EncappedKey::from_bytes(encapsulated_key).map_err(|_| KemError::Open)?;
        hpke::single_shot_open::<Aead, Kdf, Kem>(
            &OpModeR::Base,
            &self.private_key()?,
            &encapsulated,
            info,
            ciphertext,
            aad,
        )
        .map(Zeroizing::new)
        .map_err(|_| KemError::Open)
    }
}

impl std::fmt::Debug for KemSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KemSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rossby_seams::random::SeededRandom;

    #[test]
    fn what_is_sealed_opens_with_the_same_purpose_and_context_only() {
        let random = SeededRandom::new(1);
        let secret = KemSecret::generate(&random).unwrap();
        let other = KemSecret::generate(&random).unwrap();
        let sealed = seal(
            &random,
            &secret.public_key().unwrap(),
            b"info",
            b"aad",
            b"text",
        )
        .unwrap();
        let open = |key: &KemSecret, info: &[u8], aad: &[u8]| {
            key.open(info, aad, &sealed.encapsulated_key, &sealed.ciphertext)
        };
        assert_eq!(open(&secret, b"info", b"aad").unwrap().as_slice(), b"text");
        assert!(open(&other, b"info", b"aad").is_err());
        assert!(open(&secret, b"other", b"aad").is_err());
        assert!(open(&secret, b"info", b"other").is_err());
    }

    #[test]
    fn a_public_key_of_the_wrong_length_is_refused() {
        let sealed = seal(&SeededRandom::new(1), &[0; 32], b"info", b"aad", b"text");
        assert!(matches!(sealed, Err(KemError::BadPublicKey)));
    }
}
