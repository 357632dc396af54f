//! Envelopes in requests: as few as they fit, and what was answered about each.

use bytes::Bytes;
use prost::Message as _;
use rossby_domain::ids::Sequence;
use rossby_proto::v1::{self, send_outcome};

use super::sending::Outgoing;
use super::{Device, DeviceError, box_from_wire};
use crate::connection::{CallError, Refusal, SendRpc, Signer};

/// Envelopes in one request, and bytes of them: what the service takes, less some room.
const MAX_ENVELOPES: usize = 256;
const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024 - 64 * 1024;

/// What the service answered about one envelope.
pub(super) enum Answer {
    Stored(Sequence),
    Refused(Box<Refusal>),
}

impl Device {
    /// Sends envelopes in as few requests as they fit; what was answered about each.
    pub(super) async fn send_all(
        &self,
        signer: &Signer,
        going: &[Outgoing],
    ) -> Vec<Result<Answer, DeviceError>> {
        let mut answers = Vec::new();
        let mut away: Option<CallError> = None;
        for request in requests_of(going) {
            if let Some(error) = &away {
                answers.extend(request.envelopes.iter().map(|_| Err(error.clone().into())));
                continue;
            }
            let asked = &request.envelopes;
            match self
                .connection
                .call::<SendRpc>(&request, Some(signer))
                .await
            {
                Ok(response) => match answers_of(asked, response) {
                    Ok(of_these) => answers.extend(of_these.into_iter().map(Ok)),
                    Err(_) => answers.extend(asked.iter().map(|_| Err(untrue()))),
                },
                Err(error) => {
                    answers.extend(asked.iter().map(|_| Err(error.clone().into())));
                    away = error.may_pass().then_some(error);
                }
            }
        }
        answers
    }
}

/// Envelopes in requests that the service takes, in their order.
fn requests_of(going: &[Outgoing]) -> Vec<v1::SendRequest> {
    let mut requests: Vec<v1::SendRequest> = Vec::new();
    let mut room = 0;
    for outgoing in going {
        let envelope = v1::OutgoingEnvelope {
            recipient_box_id: Bytes::copy_from_slice(outgoing.recipient.as_bytes()),
            counter: outgoing.counter.0,
            chain_version: outgoing.row.chain_version,
            ttl_ms: outgoing.row.ttl_ms,
            body: Bytes::copy_from_slice(&outgoing.row.body),
        };
        // With what stands around each.
        let bytes = envelope.encoded_len() + 8;
        match requests.last_mut() {
            Some(request) if request.envelopes.len() < MAX_ENVELOPES && bytes <= room => {
                request.envelopes.push(envelope);
                room -= bytes;
            }
            _ => {
                let envelopes = vec![envelope];
                requests.push(v1::SendRequest { envelopes });
                room = MAX_REQUEST_BYTES.saturating_sub(bytes);
            }
        }
    }
    requests
}

fn untrue() -> DeviceError {
    DeviceError::Untrue("the outcome is not that of the envelope sent")
}

/// The answers about these envelopes, each to the one that it is about.
fn answers_of(
    asked: &[v1::OutgoingEnvelope],
    response: v1::SendResponse,
) -> Result<Vec<Answer>, DeviceError> {
    if asked.len() != response.outcomes.len() {
        return Err(untrue());
    }
    let mut answers = Vec::new();
    for (asked, outcome) in asked.iter().zip(response.outcomes) {
        let about = (box_from_wire(&outcome.recipient_box_id)?, outcome.counter);
        if about != (box_from_wire(&asked.recipient_box_id)?, asked.counter) {
            return Err(untrue());
        }
        answers.push(match outcome.result.ok_or_else(untrue)? {
            send_outcome::Result::Sequence(sequence) => Answer::Stored(Sequence(sequence)),
            send_outcome::Result::Refusal(refusal) => {
                Answer::Refused(Box::new(Refusal::of_outcome(refusal)))
            }
        });
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::secret::SecretBytes;
    use crate::store::PendingRow;
    use rossby_domain::ids::{BoxId, Counter, PartitionId};

    fn outgoing(number: usize, bytes: usize) -> Outgoing {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let row = PendingRow {
            content: SecretBytes::new(Vec::new()),
            written_at: Default::default(),
            body: vec![0; bytes],
            chain_version: 0,
            order: 0,
            group: None,
            ttl_ms: None,
        };
        let recipient = BoxId::derive(PartitionId::new(1).unwrap(), &seed);
        Outgoing::new(recipient, Counter(1), row)
    }

    #[test]
    fn envelopes_are_divided_into_requests_that_the_service_takes_and_keep_their_order() {
        let sizes: [(usize, usize, &[usize]); 4] = [
            (0, 100, &[]),
            (256, 100, &[256]),
            (600, 100, &[256, 256, 88]),
            (90, 96 * 1024, &[41, 41, 8]),
        ];
        for (count, bytes, wanted) in sizes {
            let going: Vec<_> = (0..count).map(|number| outgoing(number, bytes)).collect();
            let requests = requests_of(&going);
            let counts: Vec<_> = requests.iter().map(|it| it.envelopes.len()).collect();
            assert_eq!(counts, wanted);
            let within = |request: &v1::SendRequest| request.encoded_len() <= 4 * 1024 * 1024;
            assert!(requests.iter().all(within));
            let sent = requests.iter().flat_map(|request| &request.envelopes);
            let order = sent.map(|envelope| envelope.recipient_box_id.to_vec());
            let asked = going.iter().map(|it| it.recipient.as_bytes().to_vec());
            assert!(order.eq(asked));
        }
    }
}
