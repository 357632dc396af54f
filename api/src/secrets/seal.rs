//! Sealing at rest: XChaCha20-Poly1305 with a random nonce.
//!
//! Layout: version (1), key id (4, big-endian), nonce (24), ciphertext and tag. The version, the key
//! id, the purpose and the context are authenticated, so that a sealed text can't be moved to another
//! row or read as another thing.

use bytes::Bytes;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rossby_domain::wire::{Reader, Writer};
use rossby_seams::random::{Random, RandomError};
use zeroize::Zeroizing;

use super::ring::Key;

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;
const HEADER_BYTES: usize = 1 + 4 + NONCE_BYTES;

/// What a sealed text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealPurpose {
    /// An identifier, in its box's profile.
    Identifier,
    /// An identifier and its code, in the outbox.
    Code,
}

impl SealPurpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Identifier => b"identifier",
            Self::Code => b"code",
        }
    }
}

/// Why a text can't be sealed or opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SealError {
    /// There is no randomness.
    #[error(transparent)]
    NoRandomness(#[from] RandomError),
    /// Not a sealed text of a version that is known here.
    #[error("not a sealed text")]
    Malformed,
    /// Sealed under a key that this node does not have.
    #[error("sealed under unknown key {id}")]
    UnknownKey {
        /// The key's id.
        id: u32,
    },
    /// It does not open: damaged, or of another purpose or context.
    #[error("a sealed text does not open")]
    Refused,
}

/// What is authenticated beside the text.
fn associated_data(key_id: u32, purpose: SealPurpose, context: &[u8]) -> Vec<u8> {
    Writer::labelled("rossby seal v1")
        .u32(key_id)
        .bytes(purpose.label())
        .bytes(context)
        .finish()
}

pub fn seal(
    key: &Key,
    random: &dyn Random,
    purpose: SealPurpose,
    context: &[u8],
    text: &[u8],
) -> Result<Bytes, SealError> {
    let nonce: [u8; NONCE_BYTES] = rossby_seams::random::bytes(random)?;
    let aad = associated_data(key.id(), purpose, context);
    let cipher = XChaCha20Poly1305::new(key.bytes().into());
    let sealed = cipher
        .encrypt(
            &XNonce::from(nonce),
            Payload {
                msg: text,
                aad: &aad,
            },
        )
        .map_err(|_| SealError::Refused)?;
    let mut whole = Vec::with_capacity(HEADER_BYTES + sealed.len());
    whole.push(VERSION);
    whole.extend_from_slice(&key.id().to_be_bytes());
    whole.extend_from_slice(&nonce);
    whole.extend_from_slice(&sealed);
    Ok(whole.into())
}

pub fn open<'a>(
    key: impl FnOnce(u32) -> Option<&'a Key>,
    purpose: SealPurpose,
    context: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (header, text) = sealed
        .split_at_checked(HEADER_BYTES)
        .ok_or(SealError::Malformed)?;
    let mut header = Reader::new(header);
    let mut read = || Ok((header.u8()?, header.u32()?, header.fixed::<NONCE_BYTES>()?));
    let (version, id, nonce) =
        read().map_err(|_: rossby_domain::wire::WireError| SealError::Malformed)?;
    if version != VERSION {
        return Err(SealError::Malformed);
    }
    let key = key(id).ok_or(SealError::UnknownKey { id })?;
    let aad = associated_data(id, purpose, context);
    XChaCha20Poly1305::new(key.bytes().into())
        .decrypt(
            &XNonce::from(nonce),
            Payload {
                msg: text,
                aad: &aad,
            },
        )
        .map(Zeroizing::new)
        .map_err(|_| SealError::Refused)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rossby_seams::random::SeededRandom;

    use super::*;

    fn key(id: u32) -> Key {
        Key::new(id, Zeroizing::new([5; 32]))
    }

    fn sealed(text: &[u8]) -> Bytes {
        seal(
            &key(2),
            &SeededRandom::new(1),
            SealPurpose::Code,
            b"row",
            text,
        )
        .unwrap()
    }

    #[test]
    fn a_sealed_text_opens_in_its_own_place_only() {
        let key = key(2);
        let whole = sealed(b"12345678");
        let open = |purpose, context: &[u8]| open(|_| Some(&key), purpose, context, &whole);
        assert_eq!(
            open(SealPurpose::Code, b"row").unwrap().as_slice(),
            b"12345678"
        );
        assert!(matches!(
            open(SealPurpose::Code, b"other"),
            Err(SealError::Refused)
        ));
        assert!(matches!(
            open(SealPurpose::Identifier, b"row"),
            Err(SealError::Refused)
        ));
    }

    #[test]
    fn an_unknown_key_is_named() {
        let whole = sealed(b"text");
        let refused = open(|_| None, SealPurpose::Code, b"row", &whole);
        assert!(matches!(refused, Err(SealError::UnknownKey { id: 2 })));
    }

    proptest! {
        #[test]
        fn no_byte_can_be_changed(at in 0_usize..45, flip in 1_u8..=255) {
            let mut whole = sealed(b"").to_vec();
            prop_assert_eq!(whole.len(), HEADER_BYTES + 16);
            whole[at] ^= flip;
            let key = key(2);
            prop_assert!(open(|id| (id == 2).then_some(&key), SealPurpose::Code, b"row", &whole).is_err());
        }

        #[test]
        fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let key = key(2);
            prop_assert!(open(|_| Some(&key), SealPurpose::Code, b"row", &bytes).is_err());
        }
    }
}
