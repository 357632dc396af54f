//! Send: one envelope to one of the boxes, until it is stored.

use std::collections::HashMap;
use std::sync::Arc;

use rossby_client::connection::Connection;
use rossby_proto::v1;

use super::letters::{Letters, Recipient};
use super::{Chance, post};
use crate::account::Account;
use crate::drive::{Client, Fault};

/// A device that sends to boxes chosen by chance.
#[derive(Debug)]
pub struct Sender {
    pub(super) connection: Arc<Connection>,
    pub(super) account: Account,
    recipients: Arc<[Recipient]>,
    letters: Letters,
    /// By place in `recipients`: how many went there. A box counts each device's envelopes by itself.
    counters: HashMap<usize, u64>,
    chance: Chance,
}

impl Sender {
    /// The client with this number.
    #[must_use]
    pub fn new(
        number: usize,
        connection: Arc<Connection>,
        account: Account,
        recipients: Arc<[Recipient]>,
        letters: Letters,
    ) -> Self {
        Self {
            connection,
            account,
            recipients,
            letters,
            counters: HashMap::new(),
            chance: Chance::of_client(number),
        }
    }

    /// The next envelope, and the place in the recipients of whom it is for.
    pub(super) fn next(&mut self) -> Result<(usize, v1::OutgoingEnvelope), Fault> {
        let to = self.chance.below(self.recipients.len());
        let nobody = || Fault("NO_RECIPIENT".into());
        let recipient = self.recipients.get(to).ok_or_else(nobody)?;
        let counter = self.counters.entry(to).or_default();
        *counter += 1;
        let Account {
            signer, identity, ..
        } = &self.account;
        let envelope = self
            .letters
            .envelope(signer, identity, recipient, *counter)?;
        Ok((to, envelope))
    }
}

impl Client for Sender {
    async fn step(&mut self) -> Result<(), Fault> {
        let (_, envelope) = self.next()?;
        post(&self.connection, &self.account.signer, vec![envelope]).await
    }
}
