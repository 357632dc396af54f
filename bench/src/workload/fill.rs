//! Fill: the same number of envelopes into every box, once, many to a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rossby_client::connection::Connection;

use super::letters::{Letters, Recipient};
use super::post;
use crate::account::Account;
use crate::drive::Fault;

/// Envelopes in one request: a service takes 256.
const PER_REQUEST: usize = 250;

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
                let rest = envelopes.split_off(envelopes.len().min(PER_REQUEST));
                post(connection, &account.signer, envelopes).await?;
                envelopes = rest;
            }
            told(boxes.len());
        }
    }
}
