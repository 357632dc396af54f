//! Fetch: what waits in the client's own box, in one page or, where that has too many bytes, in
//! several. Nothing is acknowledged, so the same comes again and again.

use std::sync::Arc;

use rossby_client::connection::{Connection, Fetch, Signer};
use rossby_proto::v1;

use crate::drive::{Client, Fault};

/// A device that fetches.
#[derive(Debug)]
pub struct Fetcher {
    connection: Arc<Connection>,
    signer: Signer,
    waiting: u32,
}

impl Fetcher {
    /// A device in whose box so many envelopes wait.
    #[must_use]
    pub fn new(connection: Arc<Connection>, signer: Signer, waiting: u32) -> Self {
        Self {
            connection,
            signer,
            waiting,
        }
    }
}

impl Client for Fetcher {
    async fn step(&mut self) -> Result<(), Fault> {
        let (mut after, mut got) = (0, 0);
        loop {
            let request = v1::FetchRequest {
                after,
                max_envelopes: self.waiting.saturating_sub(got),
            };
            let signer = Some(&self.signer);
            let page = self.connection.call::<Fetch>(&request, signer).await?;
            got += u32::try_from(page.envelopes.len()).unwrap_or(u32::MAX);
            if got == self.waiting {
                return Ok(());
            }
            // A page may be cut short by bytes, but by nothing else.
            match page.envelopes.last() {
                Some(last) if page.more && got < self.waiting => after = last.sequence,
                _ => return Err(Fault("SHORT_PAGE".into())),
            }
        }
    }
}
