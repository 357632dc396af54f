//! Fetch: a page of what waits in the client's own box. Nothing is acknowledged, so the same page
//! comes again and again.

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
        let request = v1::FetchRequest {
            after: 0,
            max_envelopes: self.waiting,
        };
        let signer = Some(&self.signer);
        let page = self.connection.call::<Fetch>(&request, signer).await?;
        // A page may be cut short by bytes, but by nothing else.
        if page.envelopes.is_empty() || (!page.more && page.envelopes.len() < self.waiting as usize)
        {
            return Err(Fault("SHORT_PAGE".into()));
        }
        Ok(())
    }
}
