//! What is in an envelope: bytes that mean nothing to anybody, or a letter that is really sealed.

use bytes::Bytes;
use rossby_client::connection::Signer;
use rossby_client::envelope::layout::MAX_CONTENT_BYTES;
use rossby_client::envelope::{Content, ConversationId, Letter, Sender, seal};
use rossby_client::identity::Identity;
use rossby_domain::chain::KeyRecord;
use rossby_domain::ids::{BoxId, Counter};
use rossby_proto::v1;
use rossby_seams::clock::{Clock as _, SystemClock};
use rossby_seams::random::OsRandom;

use crate::BenchError;
use crate::account::NewBox;
use crate::drive::Fault;

/// A box that can be sent to.
#[derive(Debug, Clone)]
pub struct Recipient {
    /// The box.
    pub box_id: BoxId,
    /// The version of its chain.
    pub chain_version: u64,
    /// Its keys, if letters are sealed for it.
    pub record: Option<Box<KeyRecord>>,
}

impl Recipient {
    /// A new box, with its keys or without.
    #[must_use]
    pub fn of(new: &NewBox, with_record: bool) -> Self {
        let record = new.identity.record();
        Self {
            box_id: new.box_id,
            chain_version: record.version(),
            record: with_record.then(|| Box::new(record.clone())),
        }
    }
}

/// Where bodies come from.
#[derive(Debug, Clone)]
pub enum Letters {
    /// The same bytes again and again.
    Opaque(Bytes),
    /// This text, sealed anew for each recipient.
    Sealed(Content),
}

impl Letters {
    /// Bodies of exactly this size, which no server takes for sealed ones: the first byte is no version.
    #[must_use]
    pub fn opaque(bytes: usize) -> Self {
        Self::Opaque(vec![0xff; bytes].into())
    }

    /// A text of this size, sealed by the client for each send.
    ///
    /// # Errors
    /// If no envelope takes that much.
    pub fn sealed(bytes: usize) -> Result<Self, BenchError> {
        let content = Content::Text("x".repeat(bytes));
        match content.encode() {
            Ok(encoded) if encoded.len() <= MAX_CONTENT_BYTES => Ok(Self::Sealed(content)),
            _ => Err(BenchError::TooLarge { bytes }),
        }
    }

    /// Whether the recipients' keys are needed.
    #[must_use]
    pub fn need_records(&self) -> bool {
        matches!(self, Self::Sealed(_))
    }

    /// The next envelope for a box.
    pub(crate) fn envelope(
        &self,
        signer: &Signer,
        identity: &Identity,
        recipient: &Recipient,
        counter: u64,
    ) -> Result<v1::OutgoingEnvelope, Fault> {
        let body = match self {
            Self::Opaque(body) => body.clone(),
            Self::Sealed(content) => sealed(signer, identity, recipient, counter, content)?,
        };
        Ok(v1::OutgoingEnvelope {
            recipient_box_id: Bytes::copy_from_slice(recipient.box_id.as_bytes()),
            counter,
            chain_version: recipient.chain_version,
            ttl_ms: None,
            body,
        })
    }
}

fn sealed(
    signer: &Signer,
    identity: &Identity,
    recipient: &Recipient,
    counter: u64,
    content: &Content,
) -> Result<Bytes, Fault> {
    let not_sealed = || Fault("NOT_SEALED".into());
    let record = recipient.record.as_deref().ok_or_else(not_sealed)?;
    let sender = Sender {
        address: signer.address,
        signing_key: identity.signing_key(),
        record: identity.record(),
    };
    let letter = Letter {
        recipient: recipient.box_id,
        recipient_record: record,
        counter: Counter(counter),
        conversation: ConversationId::direct(&signer.address.box_id, &recipient.box_id),
        written_at: SystemClock.now(),
        content,
    };
    seal(&OsRandom, &sender, &letter).map_err(|_| not_sealed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_no_envelope_takes_is_refused_at_once() {
        assert!(Letters::sealed(MAX_CONTENT_BYTES / 2).is_ok());
        let refused = Letters::sealed(MAX_CONTENT_BYTES + 1);
        assert!(matches!(refused, Err(BenchError::TooLarge { .. })));
    }
}
