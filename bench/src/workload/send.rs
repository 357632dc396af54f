//! Send: one envelope to one of the boxes, until it is stored.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use rossby_client::connection::{Connection, Refusal, SendRpc, Signer};
use rossby_domain::ids::BoxId;
use rossby_proto::v1;
use rossby_proto::v1::send_outcome::Result as Outcome;

use super::Chance;
use crate::drive::{Client, Fault};

/// A box that can be sent to.
#[derive(Debug, Clone)]
pub struct Recipient {
    /// The box.
    pub box_id: BoxId,
    /// The version of its chain.
    pub chain_version: u64,
}

/// A device that sends.
#[derive(Debug)]
pub struct Sender {
    connection: Arc<Connection>,
    signer: Signer,
    recipients: Arc<[Recipient]>,
    /// By place in `recipients`: how many went there.
    counters: HashMap<usize, u64>,
    body: Bytes,
    chance: Chance,
}

impl Sender {
    /// The client with this number, which sends the same body again and again.
    #[must_use]
    pub fn new(
        number: usize,
        connection: Arc<Connection>,
        signer: Signer,
        recipients: Arc<[Recipient]>,
        body: Bytes,
    ) -> Self {
        Self {
            connection,
            signer,
            recipients,
            counters: HashMap::new(),
            body,
            chance: Chance::of_client(number),
        }
    }

    async fn send(&mut self) -> Result<u64, Fault> {
        let to = self.chance.below(self.recipients.len());
        let Some(recipient) = self.recipients.get(to) else {
            return Err(Fault("NO_RECIPIENT".into()));
        };
        let counter = self.counters.entry(to).or_default();
        *counter += 1;
        let envelope = v1::OutgoingEnvelope {
            recipient_box_id: Bytes::copy_from_slice(recipient.box_id.as_bytes()),
            counter: *counter,
            chain_version: recipient.chain_version,
            ttl_ms: None,
            body: self.body.clone(),
        };
        let request = v1::SendRequest {
            envelopes: vec![envelope],
        };
        let signer = Some(&self.signer);
        let response = self.connection.call::<SendRpc>(&request, signer).await?;
        let outcome = response.outcomes.into_iter().next();
        match outcome.and_then(|outcome| outcome.result) {
            Some(Outcome::Sequence(sequence)) => Ok(sequence),
            Some(Outcome::Refusal(refusal)) => Err(Refusal::of_outcome(refusal).into()),
            None => Err(Fault("BAD_REPLY".into())),
        }
    }
}

impl Client for Sender {
    async fn step(&mut self) -> Result<(), Fault> {
        self.send().await.map(drop)
    }
}

/// A body of this size that no server takes for a sealed envelope, the first byte being no version.
#[must_use]
pub fn opaque_body(bytes: usize) -> Bytes {
    vec![0xff; bytes].into()
}
