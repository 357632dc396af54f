//! Handing a token to its device: sealed to the device's KEM key, so that nobody on the way, and no
//! other device, learns it.

use std::convert::Infallible;

use bytes::Bytes;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable as _, Kem, OpModeS, Serializable as _};
use rossby_domain::ids::DeviceAddress;
use rossby_seams::random::{Random, bytes};
use zeroize::Zeroizing;

use crate::error::ApiError;
use crate::secrets::Token;

/// The HPKE info: what is sealed.
pub const TOKEN_INFO: &[u8] = b"rossby token v1";
/// Randomness of one X-Wing encapsulation.
const ENCAPSULATION_BYTES: usize = 64;

/// A token on its way to a device.
pub(super) struct SealedToken {
    pub encapsulated_key: Bytes,
    pub ciphertext: Bytes,
}

/// Whether a token can be sealed to this KEM key at all.
pub(super) fn is_kem_key(public: &[u8]) -> bool {
    <XWing as Kem>::PublicKey::from_bytes(public).is_ok()
}

/// Seals a token in HPKE base mode (RFC 9180) with X-Wing, HKDF-SHA256 and ChaCha20-Poly1305. The
/// additional data is the text of the device's address.
pub(super) fn seal(
    random: &dyn Random,
    kem_public: &[u8],
    address: &DeviceAddress,
    token: &Token,
) -> Result<SealedToken, ApiError> {
    let public = <XWing as Kem>::PublicKey::from_bytes(kem_public)
        .map_err(|_| ApiError::internal("a registered KEM key is not one"))?;
    let mut drawn = Drawn::new(random)?;
    let sealed = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, XWing>(
        &OpModeS::Base,
        &public,
        TOKEN_INFO,
        token.as_bytes(),
        address.to_string().as_bytes(),
        &mut drawn,
    );
    match sealed {
        Ok((key, ciphertext)) if !drawn.exhausted => Ok(SealedToken {
            encapsulated_key: Bytes::copy_from_slice(&key.to_bytes()),
            ciphertext: ciphertext.into(),
        }),
        Ok(_) => Err(ApiError::internal(
            "sealing a token took more randomness than was drawn",
        )),
        Err(error) => Err(ApiError::internal(format!("sealing a token: {error}"))),
    }
}

/// Randomness drawn beforehand: a generator for HPKE can't fail, ours can.
struct Drawn {
    left: Zeroizing<Vec<u8>>,
    /// More was asked for than was drawn; what was made with it must not be used.
    exhausted: bool,
}

impl Drawn {
    fn new(random: &dyn Random) -> Result<Self, ApiError> {
        let drawn: [u8; ENCAPSULATION_BYTES] =
            bytes(random).map_err(|error| ApiError::internal(error.to_string()))?;
        Ok(Self {
            left: Zeroizing::new(drawn.to_vec()),
            exhausted: false,
        })
    }
}

impl TryRng for Drawn {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut word = [0; 4];
        self.try_fill_bytes(&mut word)?;
        Ok(u32::from_be_bytes(word))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut word = [0; 8];
        self.try_fill_bytes(&mut word)?;
        Ok(u64::from_be_bytes(word))
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        for byte in to {
            match self.left.pop() {
                Some(drawn) => *byte = drawn,
                None => self.exhausted = true,
            }
        }
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}

#[cfg(test)]
mod tests {
    use hpke::OpModeR;
    use rossby_domain::ids::{BoxId, DeviceId, PartitionId};
    use rossby_seams::random::SeededRandom;

    use super::*;
    use crate::secrets::ClusterSecrets;

    #[test]
    fn only_the_device_opens_its_token() {
        let random = SeededRandom::new(1);
        let secrets = ClusterSecrets::generate(&random).unwrap();
        let box_id = BoxId::derive(PartitionId::new(3).unwrap(), &[7; 32]);
        let address = DeviceAddress {
            box_id,
            device: DeviceId::from_bytes([9; 16]),
        };
        let token = secrets.token(&address, 1);
        let (secret, public) = <XWing as Kem>::derive_keypair(&[1; 32]);
        let sealed = seal(&random, &public.to_bytes(), &address, &token).unwrap();
        let open = |secret: &<XWing as Kem>::PrivateKey, aad: &str| {
            let key = <XWing as Kem>::EncappedKey::from_bytes(&sealed.encapsulated_key).unwrap();
            hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, XWing>(
                &OpModeR::Base,
                secret,
                &key,
                TOKEN_INFO,
                &sealed.ciphertext,
                aad.as_bytes(),
            )
        };
        assert_eq!(
            open(&secret, &address.to_string()).unwrap(),
            token.as_bytes()
        );
        assert!(open(&secret, "another address").is_err());
        let (other, _) = <XWing as Kem>::derive_keypair(&[2; 32]);
        assert!(open(&other, &address.to_string()).is_err());
    }

    #[test]
    fn a_key_of_the_wrong_length_is_refused() {
        let random = SeededRandom::new(1);
        let secrets = ClusterSecrets::generate(&random).unwrap();
        let box_id = BoxId::derive(PartitionId::new(3).unwrap(), &[7; 32]);
        let address = DeviceAddress {
            box_id,
            device: DeviceId::from_bytes([9; 16]),
        };
        let token = secrets.token(&address, 1);
        assert!(seal(&random, &[0; 32], &address, &token).is_err());
    }
}
