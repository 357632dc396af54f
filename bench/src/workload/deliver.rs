//! Deliver: from the sender's call until the recipient's device has the envelope from its open stream
//! and its acknowledgement is answered.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::post;
use super::reader::Inbox;
use super::send::Sender;
use crate::drive::{Client, Fault};

/// A reader that has lost its stream is back by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// A device that sends, and waits until its envelope has been read.
#[derive(Debug)]
pub struct Deliverer {
    sender: Sender,
    /// By place in the sender's recipients.
    inboxes: Arc<[Arc<Inbox>]>,
}

impl Deliverer {
    /// A sender whose every recipient has a reader.
    #[must_use]
    pub fn new(sender: Sender, inboxes: Arc<[Arc<Inbox>]>) -> Self {
        Self { sender, inboxes }
    }
}

impl Client for Deliverer {
    async fn step(&mut self) -> Result<(), Fault> {
        let (to, envelope) = self.sender.next()?;
        let counter = envelope.counter;
        let signer = &self.sender.account.signer;
        let device = signer.address.device.as_bytes();
        let nobody = || Fault("NO_RECIPIENT".into());
        let inbox = self.inboxes.get(to).ok_or_else(nobody)?;
        // It may be read before its sender has heard that it is stored.
        let read = inbox.expect(device, counter);
        let sent = post(&self.sender.connection, signer, vec![envelope]).await;
        if let Err(fault) = sent {
            inbox.forget(device, counter);
            return Err(fault);
        }
        match timeout(PATIENCE, read).await {
            Ok(Ok(())) => Ok(()),
            _ => {
                inbox.forget(device, counter);
                Err(Fault("NOT_DELIVERED".into()))
            }
        }
    }
}
