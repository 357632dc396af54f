//! Lookup: the key record of one of the boxes.

use std::sync::Arc;

use bytes::Bytes;
use rossby_client::connection::{Connection, LookupKey, Signer};
use rossby_proto::v1;
use rossby_proto::v1::lookup_key_request::By;

use super::Chance;
use super::letters::Recipient;
use crate::drive::{Client, Fault};

/// A device that looks boxes up, by their id.
#[derive(Debug)]
pub struct Finder {
    connection: Arc<Connection>,
    signer: Signer,
    boxes: Arc<[Recipient]>,
    chance: Chance,
}

impl Finder {
    /// The client with this number.
    #[must_use]
    pub fn new(
        number: usize,
        connection: Arc<Connection>,
        signer: Signer,
        boxes: Arc<[Recipient]>,
    ) -> Self {
        Self {
            connection,
            signer,
            boxes,
            chance: Chance::of_client(number),
        }
    }
}

impl Client for Finder {
    async fn step(&mut self) -> Result<(), Fault> {
        let nobody = || Fault("NO_RECIPIENT".into());
        let place = self.chance.below(self.boxes.len());
        let sought = self.boxes.get(place).ok_or_else(nobody)?.box_id;
        let bytes = Bytes::copy_from_slice(sought.as_bytes());
        let request = v1::LookupKeyRequest {
            by: Some(By::BoxId(bytes.clone())),
            profile_after: None,
        };
        let signer = Some(&self.signer);
        let found = self.connection.call::<LookupKey>(&request, signer).await?;
        if found.box_id != bytes || found.key_record.is_empty() {
            return Err(Fault("BAD_REPLY".into()));
        }
        Ok(())
    }
}
