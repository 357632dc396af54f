//! Opening: nothing is believed before everything is verified.

use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, aead::AeadInOut as _};
use rossby_domain::chain::{KeyRecord, verify_signature};
use rossby_domain::ids::{Counter, DeviceAddress};
use rossby_domain::time::Timestamp;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::content::Content;
use super::error::OpenError;
use super::layout::{self, CONTENT_KEY_BYTES, Outer};
use super::statement::{ChainPoint, ConversationId, Inner, Statement, signing_key_at};
use crate::crypto::kem::{KemSecret, TAG_BYTES};
use crate::crypto::secret::Secret;

/// An envelope as the server handed it over: none of it is believed.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// Whom the server says it is from.
    pub sender: DeviceAddress,
    /// Under which counter the server says it came.
    pub counter: Counter,
    /// The sealed body.
    pub body: &'a [u8],
}

/// Who reads, and what they know.
#[derive(Clone, Copy)]
pub struct Recipient<'a> {
    /// The reading device.
    pub address: DeviceAddress,
    /// Its KEM keys by counter: the current one and those before it that are still kept.
    pub keys: &'a [(u64, KemSecret)],
    /// The recipient's own key record.
    pub record: &'a KeyRecord,
    /// The sender's key record, verified to extend what was pinned.
    pub sender_record: &'a KeyRecord,
}

/// A verified message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// What it says.
    pub content: Content,
    /// The conversation it belongs to.
    pub conversation: ConversationId,
    /// When it was written, by the sender's clock.
    pub written_at: Timestamp,
    /// The sender's chain as of then.
    pub sender_chain: ChainPoint,
}

/// Opens an envelope and verifies all of it.
///
/// # Errors
/// [`OpenError`]. After [`OpenError::SenderRecordTooOld`] a newer record may help; nothing helps
/// after the others.
pub fn open(recipient: &Recipient<'_>, arrival: &Arrival<'_>) -> Result<Opened, OpenError> {
    let outer = Outer::parse(arrival.body)?;
    let content_key = unwrap_key(recipient, &outer)?;
    let inner_bytes = decrypt(&outer, &content_key)?;
    let inner = Inner::parse(&inner_bytes)?;
    check_addressing(recipient, arrival, &inner.statement)?;
    check_sender(recipient, &outer, &inner)?;
    check_own_chain(recipient, &inner.statement)?;
    if inner.padding.iter().any(|byte| *byte != 0) {
        return Err(OpenError::BadPadding);
    }
    Ok(Opened {
        content: Content::decode(inner.content)?,
        conversation: inner.statement.conversation,
        written_at: inner.statement.written_at,
        sender_chain: inner.statement.sender_chain,
    })
}

pub(super) fn unwrap_key(
    recipient: &Recipient<'_>,
    outer: &Outer<'_>,
) -> Result<Secret<CONTENT_KEY_BYTES>, OpenError> {
    let device = &recipient.address.device;
    let wrap = outer.wrap_for(device).ok_or(OpenError::NotForThisDevice)?;
    let key_counter = wrap.key_counter;
    let (_, secret) = recipient
        .keys
        .iter()
        .find(|(counter, _)| *counter == key_counter)
        .ok_or(OpenError::NoSuchKey { key_counter })?;
    let box_id = &recipient.address.box_id;
    let aad = layout::wrap_aad(box_id, device, key_counter, &outer.commitment);
    let info = layout::WRAP_INFO;
    let key = secret
        .open(info, &aad, wrap.encapsulated_key, wrap.wrapped_key)
        .map_err(|_| OpenError::Unwrap)?;
    let key = key
        .as_slice()
        .try_into()
        .map(Secret::new)
        .map_err(|_| OpenError::Unwrap)?;
    if layout::commitment(&key).ct_eq(&outer.commitment).into() {
        Ok(key)
    } else {
        Err(OpenError::Commitment)
    }
}

pub(super) fn decrypt(
    outer: &Outer<'_>,
    key: &Secret<CONTENT_KEY_BYTES>,
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let (ciphertext, tag) = outer
        .ciphertext
        .split_last_chunk::<TAG_BYTES>()
        .ok_or(OpenError::Decrypt)?;
    let mut bytes = Zeroizing::new(ciphertext.to_vec());
    ChaCha20Poly1305::new(key.expose().into())
        .decrypt_inout_detached(
            &outer.nonce.into(),
            &outer.content_aad(),
            bytes.as_mut_slice().into(),
            tag.into(),
        )
        .map_err(|_| OpenError::Decrypt)?;
    Ok(bytes)
}

/// What is signed must be what the server says: who, to whom, under which counter.
fn check_addressing(
    recipient: &Recipient<'_>,
    arrival: &Arrival<'_>,
    statement: &Statement,
) -> Result<(), OpenError> {
    if statement.sender != arrival.sender {
        return Err(OpenError::WrongSender);
    }
    if statement.recipient != recipient.address.box_id {
        return Err(OpenError::WrongRecipient);
    }
    if statement.counter != arrival.counter {
        return Err(OpenError::WrongCounter);
    }
    Ok(())
}

/// The sender's device must have signed it, at a point of their chain that is on the one we know.
///
/// The signature comes first, by the key as we know it: only the real sender's word may raise the
/// alarm of a forked chain.
fn check_sender(
    recipient: &Recipient<'_>,
    outer: &Outer<'_>,
    inner: &Inner<'_>,
) -> Result<(), OpenError> {
    let (statement, record) = (&inner.statement, recipient.sender_record);
    if !statement
        .sender
        .box_id
        .is_of_genesis(&record.genesis_hash())
    {
        return Err(OpenError::SenderChainForked);
    }
    let needed = statement.sender_chain.version;
    let known = needed.min(record.version());
    let Some(key) = signing_key_at(record, known, &statement.sender.device) else {
        return Err(if needed > known {
            OpenError::SenderRecordTooOld { needed }
        } else {
            OpenError::UnknownDevice
        });
    };
    let signed = statement.signed_bytes(&outer.commitment, inner.content);
    if !verify_signature(&key, &signed, &inner.signature) {
        return Err(OpenError::BadSignature);
    }
    match ChainPoint::at(record, needed) {
        None => Err(OpenError::SenderRecordTooOld { needed }),
        Some(point) if point != statement.sender_chain => Err(OpenError::SenderChainForked),
        Some(_) => Ok(()),
    }
}

/// The sender must have been shown our chain, and no other.
fn check_own_chain(recipient: &Recipient<'_>, statement: &Statement) -> Result<(), OpenError> {
    let seen = statement.recipient_chain;
    match ChainPoint::at(recipient.record, seen.version) {
        None => Err(OpenError::OwnRecordTooOld(seen.version)),
        Some(point) if point != seen => Err(OpenError::OwnChainForked),
        Some(_) => Ok(()),
    }
}
