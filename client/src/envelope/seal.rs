//! Sealing.

use bytes::Bytes;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, aead::AeadInOut as _};
use ed25519_dalek::{Signer as _, SigningKey};
use rossby_domain::chain::{KeyRecord, MAX_DEVICES};
use rossby_domain::ids::{BoxId, Counter, DeviceAddress};
use rossby_domain::time::Timestamp;
use rossby_seams::random::{Random, bytes};
use zeroize::Zeroizing;

use super::content::{Content, ContentError};
use super::error::SealError;
use super::layout::{self, CONTENT_KEY_BYTES, NewWrap};
use super::statement::{ChainPoint, ConversationId, Statement};
use crate::crypto::kem;
use crate::crypto::secret::Secret;

/// Who writes.
#[derive(Clone, Copy)]
pub struct Sender<'a> {
    /// The sending device.
    pub address: DeviceAddress,
    /// Its signing key.
    pub signing_key: &'a SigningKey,
    /// The sender's own key record.
    pub record: &'a KeyRecord,
}

/// One message to one box.
#[derive(Debug, Clone, Copy)]
pub struct Letter<'a> {
    /// The box it is for.
    pub recipient: BoxId,
    /// That box's key record, as the sender knows it.
    pub recipient_record: &'a KeyRecord,
    /// The sending device's counter for that box.
    pub counter: Counter,
    /// The conversation it belongs to.
    pub conversation: ConversationId,
    /// When it was written.
    pub written_at: Timestamp,
    /// What it says.
    pub content: &'a Content,
}

/// Seals a letter: the body of an envelope that each of the recipient's devices can open.
///
/// # Errors
/// [`SealError`].
pub fn seal(
    random: &dyn Random,
    sender: &Sender<'_>,
    letter: &Letter<'_>,
) -> Result<Bytes, SealError> {
    let content = letter.content.encode()?;
    let content_key = Secret::new(bytes(random)?);
    let commitment = layout::commitment(&content_key);
    let statement = Statement {
        sender: sender.address,
        recipient: letter.recipient,
        counter: letter.counter,
        conversation: letter.conversation,
        written_at: letter.written_at,
        sender_chain: ChainPoint::head(sender.record),
        recipient_chain: ChainPoint::head(letter.recipient_record),
    };
    let signed = statement.signed_bytes(&commitment, &content);
    let signature = sender.signing_key.sign(&signed).to_bytes();
    let inner = Zeroizing::new(statement.write_inner(&signature, &content));
    seal_inner(
        random,
        &letter.recipient,
        letter.recipient_record,
        &content_key,
        inner,
    )
}

/// Pads and encrypts inner bytes, and wraps the content key to every device of the recipient.
pub(super) fn seal_inner(
    random: &dyn Random,
    recipient: &BoxId,
    record: &KeyRecord,
    content_key: &Secret<CONTENT_KEY_BYTES>,
    mut inner: Zeroizing<Vec<u8>>,
) -> Result<Bytes, SealError> {
    let bucket = layout::bucket(inner.len()).ok_or(SealError::Content(ContentError::TooLarge {
        bytes: inner.len(),
        limit: layout::MAX_CONTENT_BYTES,
    }))?;
    // Growing in place would leave the plaintext behind in the memory it grew out of.
    let mut padded = Zeroizing::new(vec![0; bucket]);
    padded
        .iter_mut()
        .zip(inner.drain(..))
        .for_each(|(to, from)| *to = from);

    let nonce = bytes(random)?;
    let commitment = layout::commitment(content_key);
    let wraps = wrap_all(random, recipient, record, content_key, &commitment)?;
    let header = layout::write_header(&commitment, &nonce, &wraps);
    let tag = ChaCha20Poly1305::new(content_key.expose().into())
        .encrypt_inout_detached(
            &nonce.into(),
            &layout::content_aad(&header),
            padded.as_mut_slice().into(),
        )
        .map_err(|_| SealError::Encrypt)?;
    // From here on `padded` holds ciphertext.
    let length = u32::try_from(padded.len() + tag.len()).map_err(|_| SealError::Encrypt)?;
    Ok([&header[..], &length.to_be_bytes(), &padded, &tag]
        .concat()
        .into())
}

fn wrap_all(
    random: &dyn Random,
    recipient: &BoxId,
    record: &KeyRecord,
    content_key: &Secret<CONTENT_KEY_BYTES>,
    commitment: &[u8; 32],
) -> Result<Vec<NewWrap>, SealError> {
    let mut wraps = Vec::new();
    // In rising order of device id, as the layout wants it.
    for keys in record.devices().take(MAX_DEVICES) {
        let counter = keys.kem.counter;
        let aad = layout::wrap_aad(recipient, &keys.device, counter, commitment);
        let info = layout::WRAP_INFO;
        let sealed = kem::seal(random, &keys.kem.public, info, &aad, content_key.expose())?;
        wraps.push(NewWrap {
            device: keys.device,
            key_counter: counter,
            encapsulated_key: sealed.encapsulated_key,
            wrapped_key: sealed.ciphertext,
        });
    }
    if wraps.is_empty() {
        Err(SealError::NoDevices)
    } else {
        Ok(wraps)
    }
}
