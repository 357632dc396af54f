//! Fill: the same number of envelopes into every box, once, many to a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rossby_client::connection::Connection;
use rossby_proto::v1;
use tokio::time::sleep;

use super::letters::{Letters, Recipient};
use super::try_post;
use crate::account::Account;
use crate::drive::Fault;

/// Envelopes in one request: a service takes 256.
const PER_REQUEST: usize = 250;
/// Bytes of their bodies: a service takes a request of 4 MiB.
const BYTES_PER_REQUEST: usize = 2 * 1024 * 1024;

/// How often they are tried, each time with a device's patience.
const TRIES: usize = 30;
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// What is to be filled.
#[derive(Debug)]
pub struct Filling {
    boxes: Arc<[Recipient]>,
    each: usize,
    letters: Letters,
    next: AtomicUsize,
}

impl Filling {
    /// So many envelopes into each of these boxes.
    #[must_use]
    pub fn new(boxes: Arc<[Recipient]>, each: usize, letters: Letters) -> Self {
        Self {
            boxes,
            each,
            letters,
            next: AtomicUsize::new(0),
        }
    }

    /// Takes on boxes that nobody has taken on until there are none left, as one of several who do.
    /// `told` hears how many boxes were filled.
    ///
    /// # Errors
    /// What the service refuses.
    pub async fn help(
        &self,
        connection: &Connection,
        account: &Account,
        told: impl Fn(usize),
    ) -> Result<(), Fault> {
        let at_once = (PER_REQUEST / self.each.max(1)).max(1);
        loop {
            let from = self.next.fetch_add(at_once, Ordering::Relaxed);
            let boxes = self.boxes.get(from..).unwrap_or_default();
            let boxes = boxes.get(..at_once).unwrap_or(boxes);
            if boxes.is_empty() {
                return Ok(());
            }
            let mut envelopes = Vec::with_capacity(boxes.len() * self.each);
            for recipient in boxes {
                for counter in 1..=self.each as u64 {
                    let (signer, identity) = (&account.signer, &account.identity);
                    let letters = &self.letters;
                    envelopes.push(letters.envelope(signer, identity, recipient, counter)?);
                }
            }
            while !envelopes.is_empty() {
                let rest = envelopes.split_off(fit(&envelopes));
                insist(connection, account, envelopes).await?;
                envelopes = rest;
            }
            told(boxes.len());
        }
    }
}

/// Puts envelopes there also where the service is busy for longer than a device has patience: it stores none twice.
async fn insist(
    connection: &Connection,
    account: &Account,
    envelopes: Vec<v1::OutgoingEnvelope>,
) -> Result<(), Fault> {
    for _ in 1..TRIES {
        match try_post(connection, &account.signer, envelopes.clone()).await {
            Err(error) if error.may_pass() => sleep(PAUSE).await,
            decided => return Ok(decided?),
        }
    }
    Ok(try_post(connection, &account.signer, envelopes).await?)
}

/// How many of the envelopes go into one request: at least one, if there is any.
fn fit(envelopes: &[v1::OutgoingEnvelope]) -> usize {
    let mut bytes: usize = 0;
    let fits = |envelope: &&v1::OutgoingEnvelope| {
        let is_first = bytes == 0;
        bytes += envelope.body.len();
        is_first || bytes <= BYTES_PER_REQUEST
    };
    let envelopes = envelopes.iter().take(PER_REQUEST);
    envelopes.take_while(fits).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_cut_by_number_and_by_bytes() {
        let envelopes = |count: usize, bytes: usize| {
            let envelope = v1::OutgoingEnvelope {
                body: vec![1; bytes].into(),
                ..Default::default()
            };
            vec![envelope; count]
        };
        assert_eq!(fit(&envelopes(7, 100)), 7);
        assert_eq!(fit(&envelopes(300, 100)), PER_REQUEST);
        assert_eq!(fit(&envelopes(300, 64 * 1024)), 32);
        assert_eq!(fit(&envelopes(2, BYTES_PER_REQUEST + 1)), 1);
        assert_eq!(fit(&[]), 0);
    }
}
