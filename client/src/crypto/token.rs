//! The device token, as Authorize gives it: sealed to the device's KEM key.

use rossby_domain::ids::DeviceAddress;

use super::kem::{KemError, KemSecret};
use super::secret::SecretBytes;

/// The purpose that a token is sealed for.
pub const TOKEN_INFO: &[u8] = b"rossby token v1";

/// Opens the token of `address`.
///
/// # Errors
/// [`KemError::Open`] if it was not sealed to this key and for this address.
pub fn open_token(
    secret: &KemSecret,
    address: &DeviceAddress,
    encapsulated_key: &[u8],
    sealed_token: &[u8],
) -> Result<SecretBytes, KemError> {
    let aad = address.to_string();
    let token = secret.open(TOKEN_INFO, aad.as_bytes(), encapsulated_key, sealed_token)?;
    Ok(SecretBytes::new(token.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::kem::seal;
    use rossby_domain::ids::{BoxId, DeviceId, PartitionId};
    use rossby_seams::random::SeededRandom;

    #[test]
    fn a_token_opens_for_its_own_address_only() {
        let random = SeededRandom::new(1);
        let secret = KemSecret::generate(&random).unwrap();
        let box_id = BoxId::derive(PartitionId::new(1).unwrap(), &[1; 32]);
        let mine = DeviceAddress {
            box_id,
            device: DeviceId::from_bytes([1; 16]),
        };
        let other = DeviceAddress {
            box_id,
            device: DeviceId::from_bytes([2; 16]),
        };
        let aad = mine.to_string();
        let key = secret.public_key().unwrap();
        let sealed = seal(&random, &key, TOKEN_INFO, aad.as_bytes(), b"the token").unwrap();
        let open = |address: &DeviceAddress| {
            open_token(
                &secret,
                address,
                &sealed.encapsulated_key,
                &sealed.ciphertext,
            )
        };
        assert_eq!(open(&mine).unwrap().expose(), b"the token");
        assert!(open(&other).is_err());
    }
}
