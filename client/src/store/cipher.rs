//! Rows at rest: every value encrypted, every key hashed.

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use rossby_domain::mac::hmac_sha256;
use rossby_domain::wire::{Reader, Writer};
use rossby_seams::random::{Random, bytes};
use zeroize::Zeroizing;

use super::StoreError;
use crate::crypto::secret::Secret;

const NONCE_BYTES: usize = 24;

/// The keyed hash of a row's key: what the database orders by.
pub(super) type HashedKey = [u8; 32];

/// Encrypts values and hashes keys, each under a key of its own derived from the master key.
pub(super) struct RowCipher {
    hash_key: Secret<32>,
    cipher: XChaCha20Poly1305,
}

impl RowCipher {
    pub(super) fn new(master: &Secret<32>) -> Self {
        let hash_key = Secret::new(hmac_sha256(master.expose(), b"rossby store keys v1"));
        let value_key = Secret::new(hmac_sha256(master.expose(), b"rossby store values v1"));
        Self {
            hash_key,
            cipher: XChaCha20Poly1305::new(value_key.expose().into()),
        }
    }

    pub(super) fn hash(&self, table: &'static str, key: &[u8]) -> HashedKey {
        let message = Writer::labelled(table).bytes(key).finish();
        hmac_sha256(self.hash_key.expose(), &message)
    }

    /// Encrypts a row. The row's real key goes inside, since the hash does not give it back.
    pub(super) fn encrypt(
        &self,
        random: &dyn Random,
        table: &'static str,
        hashed: &HashedKey,
        key: &[u8],
        value: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let nonce: [u8; NONCE_BYTES] = bytes(random)?;
        let row = Zeroizing::new(Writer::default().bytes(key).bytes(value).finish());
        let aad = aad(table, hashed);
        let sealed = self
            .cipher
            .encrypt(
                &nonce.into(),
                Payload {
                    msg: &row,
                    aad: &aad,
                },
            )
            .map_err(|_| StoreError::Encrypt)?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// Decrypts a row and gives its key and value to `read`.
    pub(super) fn decrypt<T>(
        &self,
        table: &'static str,
        hashed: &[u8],
        stored: &[u8],
        read: impl FnOnce(&[u8], &[u8]) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let damaged = || StoreError::Damaged { table };
        let (nonce, sealed) = stored
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or_else(damaged)?;
        let aad = aad(table, hashed);
        let row = self
            .cipher
            .decrypt(
                nonce.into(),
                Payload {
                    msg: sealed,
                    aad: &aad,
                },
            )
            .map(Zeroizing::new)
            .map_err(|_| damaged())?;
        // No limit but the row itself: it is our own writing, and what was written must be readable.
        let mut reader = Reader::new(&row);
        let key = reader.bytes(row.len(), "key").map_err(|_| damaged())?;
        let value = reader.bytes(row.len(), "value").map_err(|_| damaged())?;
        read(key, value)
    }
}

/// Ties a value to its place, so that rows can not be exchanged.
fn aad(table: &'static str, hashed: &[u8]) -> Vec<u8> {
    Writer::labelled(table).bytes(hashed).finish()
}
