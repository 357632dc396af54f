//! Protobuf to domain and back. Nothing of what was sent is repeated in an error.

use bytes::Bytes;
use prost::Message;
use rossby_domain::envelope::Envelope;
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::{BoxId, DeviceId};
use rossby_domain::query::{Page, QueueStatus};
use rossby_proto::v1;

use crate::error::{ApiError, Code};
use crate::signals::Signal;

/// Reads a message.
pub fn decode<M: Message + Default>(message: &Bytes) -> Result<M, ApiError> {
    M::decode(message.clone()).map_err(|_| ApiError::invalid("not a message of this call"))
}

/// How often a message has the field `tag`, which holds bytes or messages. To be asked before a
/// list from a stranger is decoded: an element of two bytes on the wire takes a hundred in memory.
pub fn count_fields(mut message: &[u8], tag: usize) -> Result<usize, ApiError> {
    let malformed = || ApiError::invalid("not a message of this call");
    let varint = |from: &mut &[u8]| prost::decode_length_delimiter(from).map_err(|_| malformed());
    let mut count = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        // Protocol Buffers, "Encoding": the wire types that proto3 writes.
        let length = match key & 7 {
            0 => varint(&mut message).map(|_| 0)?,
            1 => 8,
            2 => varint(&mut message)?,
            5 => 4,
            _ => return Err(malformed()),
        };
        (_, message) = message.split_at_checked(length).ok_or_else(malformed)?;
        count += usize::from(key == (tag << 3 | 2));
    }
    Ok(count)
}

/// Writes a message.
pub fn encode<M: Message>(message: &M) -> Bytes {
    message.encode_to_vec().into()
}

/// Reads a byte string of fixed length; `what` names the field.
pub fn fixed<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N], ApiError> {
    bytes.try_into().map_err(|_| ApiError::invalid(what))
}

/// Reads a box id.
pub fn box_id(bytes: &[u8]) -> Result<BoxId, ApiError> {
    let what = "box_id is not a box id";
    BoxId::from_bytes(fixed(bytes, what)?).map_err(|_| ApiError::invalid(what))
}

/// Reads a device id.
pub fn device_id(bytes: &[u8]) -> Result<DeviceId, ApiError> {
    Ok(DeviceId::from_bytes(fixed(
        bytes,
        "device_id is not 16 bytes",
    )?))
}

/// Reads and normalises an identifier.
pub fn identifier(wire: Option<&v1::Identifier>) -> Result<Identifier, ApiError> {
    let kind = wire.and_then(|identifier| identifier.kind.as_ref());
    let parsed = match kind.ok_or(ApiError::invalid("identifier is missing"))? {
        v1::identifier::Kind::Phone(text) => Identifier::phone(text),
        v1::identifier::Kind::Email(text) => Identifier::email(text),
    };
    // The reason names a rule and never the text.
    parsed.map_err(|why| ApiError::from(Code::InvalidIdentifier).with_detail(why.to_string()))
}

/// Shows an identifier that was normalised. Each email has an @, and no phone has.
pub fn wire_identifier(text: &str) -> v1::Identifier {
    let kind = if text.contains('@') {
        v1::identifier::Kind::Email(text.to_owned())
    } else {
        v1::identifier::Kind::Phone(text.to_owned())
    };
    v1::Identifier { kind: Some(kind) }
}

/// Shows an id.
pub fn id_bytes(bytes: &[u8; 16]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// Shows a page.
pub fn page(page: Page) -> v1::FetchResponse {
    v1::FetchResponse {
        envelopes: page.envelopes.into_iter().map(envelope).collect(),
        more: page.more,
        status: Some(queue_status(&page.status)),
        signals: Vec::new(),
    }
}

/// Shows a signal to a device of the box that it is for.
pub fn signal(signal: Signal) -> v1::Signal {
    v1::Signal {
        sender_box_id: id_bytes(signal.sender.box_id.as_bytes()),
        sender_device_id: id_bytes(signal.sender.device.as_bytes()),
        body: signal.body,
    }
}

/// Shows an envelope to a device of the box that it waits in.
pub fn envelope(envelope: Envelope) -> v1::Envelope {
    v1::Envelope {
        sequence: envelope.sequence.0,
        sender_box_id: id_bytes(envelope.id.sender.box_id.as_bytes()),
        sender_device_id: id_bytes(envelope.id.sender.device.as_bytes()),
        counter: envelope.id.counter.0,
        enqueued_at_ms: envelope.enqueued_at.as_millis(),
        expires_at_ms: envelope.expires_at.as_millis(),
        body: envelope.body,
    }
}

/// Shows the state of a queue.
pub fn queue_status(status: &QueueStatus) -> v1::QueueStatus {
    v1::QueueStatus {
        depth: status.depth,
        bytes: status.bytes,
        oldest_at_ms: status.oldest.map(|at| at.as_millis()),
        expired_total: status.expired_total,
        cursor: status.cursor.0,
        last: status.last.0,
        ttl_ms: status.ttl_ms,
        suspended: status.suspended,
        reset_at_ms: status.reset_at.map(|at| at.as_millis()),
        ttl_number: status.ttl_number,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn envelopes_are_counted_as_they_are_decoded(
            counters in proptest::collection::vec(any::<u64>(), 0..20),
            ttl_ms: Option<u64>,
            body: Vec<u8>,
        ) {
            let envelopes = counters.iter().map(|counter| v1::OutgoingEnvelope {
                counter: *counter,
                ttl_ms,
                body: body.clone().into(),
                ..Default::default()
            });
            let message = encode(&v1::SendRequest { envelopes: envelopes.collect() });
            prop_assert_eq!(count_fields(&message, 1).unwrap(), counters.len());
            prop_assert_eq!(count_fields(&message, 2).unwrap(), 0);
        }

        #[test]
        fn whatever_decodes_can_be_counted(bytes in proptest::collection::vec(0_u8..32, 0..40)) {
            let decoded = v1::SendRequest::decode(bytes.as_slice());
            // But for groups, which proto3 has not.
            if let (Ok(request), Ok(count)) = (decoded, count_fields(&bytes, 1)) {
                prop_assert_eq!(count, request.envelopes.len());
            }
        }
    }
}
