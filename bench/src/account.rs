//! Boxes, mostly with one device each, which are kept in memory only.

use rossby_client::connection::{Authorize, Connection, ExtendChain, JoinBox, Register, Signer};
use rossby_client::identity::Identity;
use rossby_client::linking::{DeviceName, Newcomer};
use rossby_client::registering;
use rossby_domain::chain::Change;
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::BoxId;
use rossby_proto::v1;
use rossby_seams::random::{OsRandom, bytes};

use crate::BenchError;
use crate::codes::Codes;

/// A registered box, whose token nobody has opened yet: who only receives needs none.
#[derive(Debug)]
pub struct NewBox {
    /// Its device's keys.
    pub identity: Identity,
    /// The box.
    pub box_id: BoxId,
    answer: v1::AuthorizeResponse,
}

impl NewBox {
    /// Registers a new box of these keys for an identifier and proves it.
    ///
    /// # Errors
    /// If the service refuses, or no code comes.
    pub async fn register(
        connection: &Connection,
        codes: &Codes,
        identifier: &Identifier,
        identity: Identity,
    ) -> Result<Self, BenchError> {
        let request = registering::register_request(&identity, identifier, true, false)?;
        let response = connection.call::<Register>(&request, None).await?;
        let box_id = registering::registered_box(&identity, &response)?;
        let code = codes.code_for(identifier.as_str()).await?;
        let request = registering::authorize_request(&identity, &box_id, identifier, &code, false);
        let answer = connection.call::<Authorize>(&request, None).await?;
        Ok(Self {
            identity,
            box_id,
            answer,
        })
    }

    /// Opens the token.
    ///
    /// # Errors
    /// If it is not for this device.
    pub fn open(self) -> Result<Account, BenchError> {
        let signer = registering::authorized_signer(&self.identity, self.box_id, self.answer)?;
        Ok(Account {
            identity: self.identity,
            signer,
        })
    }
}

/// A device that may use its box.
#[derive(Debug)]
pub struct Account {
    /// The device's keys.
    pub identity: Identity,
    /// What it signs requests with.
    pub signer: Signer,
}

impl Account {
    /// Links a further device to the box, which takes its place in it and does nothing else.
    ///
    /// # Errors
    /// If the service refuses.
    pub async fn link(&mut self, connection: &Connection) -> Result<(), BenchError> {
        let newcomer = Newcomer::generate(&OsRandom)?;
        let key = newcomer.code(DeviceName::new("further")?).key;
        let link = self.identity.sign_link(Change::AddDevice { key });
        let request = v1::ExtendChainRequest {
            link: link.encode().into(),
        };
        connection
            .call::<ExtendChain>(&request, Some(&self.signer))
            .await?;
        let record = self.identity.record().extend(link)?;
        self.identity = self.identity.with_record(record);
        connection
            .call::<JoinBox>(&newcomer.request()?, None)
            .await?;
        Ok(())
    }
}

/// Addresses that nobody has used before, not even an earlier run at the same service.
#[derive(Debug, Clone)]
pub struct Addresses {
    run: String,
}

impl Addresses {
    /// Addresses of a new run.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn new() -> Result<Self, BenchError> {
        let drawn: [u8; 8] =
            bytes(&OsRandom).map_err(rossby_client::identity::IdentityError::from)?;
        let run = format!("{:016x}", u64::from_be_bytes(drawn));
        Ok(Self { run })
    }

    /// The address with this number.
    ///
    /// # Errors
    /// Never, unless the form of addresses changes.
    pub fn nth(&self, number: usize) -> Result<Identifier, BenchError> {
        let text = format!("{number}-{}@bench.example", self.run);
        Ok(Identifier::email(&text)?)
    }
}
