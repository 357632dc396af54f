//! The outside of an envelope's body: what anyone can read of it. See [`super`] for the bytes.

use rossby_domain::chain::MAX_DEVICES;
use rossby_domain::ids::{BoxId, DeviceId};
use rossby_domain::mac::hmac_sha256;
use rossby_domain::wire::{Reader, WireError, Writer};

use super::error::OpenError;
use crate::crypto::kem::{ENCAPSULATED_KEY_BYTES, TAG_BYTES};
use crate::crypto::secret::Secret;

/// The version of the body's layout.
pub const VERSION: u8 = 1;
/// X-Wing HPKE, ChaCha20-Poly1305, Ed25519, SHA-256.
pub const SUITE: u8 = 1;
/// The HPKE purpose of a wrap.
pub(super) const WRAP_INFO: &[u8] = b"rossby envelope v1";

/// Bytes of a content key.
pub(super) const CONTENT_KEY_BYTES: usize = 32;
/// Bytes of a content nonce.
pub(super) const NONCE_BYTES: usize = 12;
const WRAPPED_KEY_BYTES: usize = CONTENT_KEY_BYTES + TAG_BYTES;
const WRAP_BYTES: usize = 16 + 8 + ENCAPSULATED_KEY_BYTES + WRAPPED_KEY_BYTES;
const OUTER_BYTES: usize = 2 + 32 + NONCE_BYTES + 1 + 4 + TAG_BYTES;

/// The most bytes that a body may have: the service's default limit.
pub const MAX_BODY_BYTES: usize = 96 * 1024;
/// The sizes that inner bytes are padded to. An observer learns which of these a message fits in.
pub const BUCKETS: [usize; 11] = [
    512,
    1024,
    2 * 1024,
    4 * 1024,
    8 * 1024,
    16 * 1024,
    32 * 1024,
    48 * 1024,
    64 * 1024,
    80 * 1024,
    LARGEST_BUCKET,
];
const LARGEST_BUCKET: usize = 86 * 1024;
/// Inner bytes before the content.
pub(super) const INNER_HEAD_BYTES: usize = 1 + 16 * 3 + 8 + 16 + 8 + (8 + 32) * 2 + 64 + 4;
/// The most bytes that content may have, kind and version included.
pub const MAX_CONTENT_BYTES: usize = LARGEST_BUCKET - INNER_HEAD_BYTES;

const _: () = assert!(
    OUTER_BYTES + MAX_DEVICES * WRAP_BYTES + LARGEST_BUCKET <= MAX_BODY_BYTES,
    "the largest content for a full set of devices must fit an envelope"
);

/// The content key, sealed to one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wrap<'a> {
    pub(super) device: DeviceId,
    pub(super) key_counter: u64,
    pub(super) encapsulated_key: &'a [u8; ENCAPSULATED_KEY_BYTES],
    pub(super) wrapped_key: &'a [u8; WRAPPED_KEY_BYTES],
}

/// A body, parsed and not yet trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outer<'a> {
    pub(super) commitment: [u8; 32],
    pub(super) nonce: [u8; NONCE_BYTES],
    pub(super) wraps: Vec<Wrap<'a>>,
    pub(super) ciphertext: &'a [u8],
    /// What the ciphertext is bound to: every byte before its length.
    header: &'a [u8],
}

impl<'a> Outer<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, OpenError> {
        let mut reader = Reader::new(body);
        match reader.u8()? {
            VERSION => {}
            version => return Err(OpenError::UnknownVersion(version)),
        }
        match reader.u8()? {
            SUITE => {}
            suite => return Err(OpenError::UnknownSuite(suite)),
        }
        let commitment = reader.fixed()?;
        let nonce = reader.fixed()?;
        let count = usize::from(reader.u8()?);
        if count == 0 || count > MAX_DEVICES {
            return Err(WireError::Invalid("number of wraps").into());
        }
        let wraps_at = OUTER_BYTES - 4 - TAG_BYTES;
        let (header, _) = body
            .split_at_checked(wraps_at + count * WRAP_BYTES)
            .ok_or(WireError::Truncated)?;
        let wraps = read_wraps(header.get(wraps_at..).unwrap_or_default())?;
        let mut rest = Reader::new(body.get(header.len()..).unwrap_or_default());
        let ciphertext = rest.bytes(LARGEST_BUCKET + TAG_BYTES, "ciphertext")?;
        rest.finish()?;
        Ok(Self {
            commitment,
            nonce,
            wraps,
            ciphertext,
            header,
        })
    }

    /// The AAD of the ciphertext.
    pub(super) fn content_aad(&self) -> Vec<u8> {
        content_aad(self.header)
    }

    pub(super) fn wrap_for(&self, device: &DeviceId) -> Option<&Wrap<'a>> {
        self.wraps.iter().find(|wrap| wrap.device == *device)
    }
}

/// Reads wraps that fill `bytes`, which must stand in strictly rising order of device.
fn read_wraps(bytes: &[u8]) -> Result<Vec<Wrap<'_>>, WireError> {
    let (records, rest) = bytes.as_chunks::<WRAP_BYTES>();
    if !rest.is_empty() {
        return Err(WireError::Truncated);
    }
    let mut wraps: Vec<Wrap<'_>> = Vec::with_capacity(records.len());
    for record in records {
        let mut reader = Reader::new(&record[..24]);
        let device = DeviceId::from_bytes(reader.fixed()?);
        let key_counter = reader.u64()?;
        let (encapsulated_key, wrapped_key) = record[24..]
            .split_first_chunk::<ENCAPSULATED_KEY_BYTES>()
            .ok_or(WireError::Truncated)?;
        let wrapped_key = wrapped_key.try_into().map_err(|_| WireError::Truncated)?;
        if wraps.last().is_some_and(|last| last.device >= device) {
            return Err(WireError::Invalid("order of wraps"));
        }
        wraps.push(Wrap {
            device,
            key_counter,
            encapsulated_key,
            wrapped_key,
        });
    }
    Ok(wraps)
}

/// A wrap to be written.
pub(super) struct NewWrap {
    pub(super) device: DeviceId,
    pub(super) key_counter: u64,
    pub(super) encapsulated_key: [u8; ENCAPSULATED_KEY_BYTES],
    pub(super) wrapped_key: Vec<u8>,
}

/// The bytes before the ciphertext's length.
pub(super) fn write_header(
    commitment: &[u8; 32],
    nonce: &[u8; NONCE_BYTES],
    wraps: &[NewWrap],
) -> Vec<u8> {
    // Bound by MAX_DEVICES, which the caller checked.
    let count = u8::try_from(wraps.len()).unwrap_or(u8::MAX);
    let mut header = Writer::default()
        .u8(VERSION)
        .u8(SUITE)
        .fixed(commitment)
        .fixed(nonce)
        .u8(count)
        .finish();
    for wrap in wraps {
        header.extend_from_slice(wrap.device.as_bytes());
        header.extend_from_slice(&wrap.key_counter.to_be_bytes());
        header.extend_from_slice(&wrap.encapsulated_key);
        header.extend_from_slice(&wrap.wrapped_key);
    }
    header
}

/// What the ciphertext is bound to.
pub(super) fn content_aad(header: &[u8]) -> Vec<u8> {
    let mut aad = Writer::labelled("rossby content v1").finish();
    aad.extend_from_slice(header);
    aad
}

/// What a wrap is bound to.
pub(super) fn wrap_aad(
    recipient: &BoxId,
    device: &DeviceId,
    key_counter: u64,
    commitment: &[u8; 32],
) -> Vec<u8> {
    Writer::labelled("rossby wrap v1")
        .fixed(recipient.as_bytes())
        .fixed(device.as_bytes())
        .u64(key_counter)
        .fixed(commitment)
        .finish()
}

/// Ties a ciphertext to one key: ChaCha20-Poly1305 alone does not.
pub(super) fn commitment(content_key: &Secret<CONTENT_KEY_BYTES>) -> [u8; 32] {
    hmac_sha256(content_key.expose(), b"rossby content key v1")
}

/// The bucket for so many inner bytes, if one is large enough.
pub(super) fn bucket(bytes: usize) -> Option<usize> {
    BUCKETS.into_iter().find(|bucket| *bucket >= bytes)
}
