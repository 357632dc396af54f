//! The box's identifiers: phones and emails that its owner has proven, by some of which others find it.

use std::time::Duration;

use rossby_domain::identifier::Identifier;
use rossby_domain::time::Timestamp;
use rossby_proto::v1::{self, identifier::Kind};

use super::devices::is_refused;
use super::registration::digits;
use super::{Device, DeviceError};
use crate::connection::{
    AddIdentifier, Authorize, KeepIdentifier, ListIdentifiers, RemoveIdentifier,
};
use crate::registering;

/// How often an identifier is looked up anew because the box came by it anew.
const MAX_TRIES: u32 = 4;

/// An identifier of this box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnIdentifier {
    /// The phone or email.
    pub identifier: Identifier,
    /// Whether it is proven; otherwise it waits for its code.
    pub verified: bool,
    /// Whether others may find the box by it, once it is proven.
    pub discoverable: bool,
    /// Whether the service could not say now if it is proven and discoverable: both are as the box knew them last.
    pub uncertain: bool,
    /// When it goes to another box, at the earliest, unless [`Device::keep_identifier`] is called before: somebody has
    /// proven that they can read what is sent there.
    pub reset_at: Option<Timestamp>,
    generation: u64,
    reset_serial: u64,
}

impl Device {
    /// The identifiers of this box, as the service tells, the oldest first.
    ///
    /// # Errors
    /// [`DeviceError::Call`], [`DeviceError::Untrue`].
    pub async fn identifiers(&self) -> Result<Vec<OwnIdentifier>, DeviceError> {
        let (request, signer) = (v1::ListIdentifiersRequest {}, self.signer()?);
        let calling = self
            .connection
            .call::<ListIdentifiers>(&request, Some(&signer));
        let listed = calling.await?.identifiers.into_iter();
        let untrue = || DeviceError::Untrue("not an identifier");
        listed
            .map(|listed| {
                Ok(OwnIdentifier {
                    identifier: identifier_of_wire(listed.identifier).ok_or_else(untrue)?,
                    verified: listed.verified,
                    discoverable: listed.discoverable,
                    uncertain: listed.uncertain,
                    reset_at: listed.reset_at_ms.map(Timestamp::from_millis),
                    generation: listed.generation,
                    reset_serial: listed.reset_serial,
                })
            })
            .collect()
    }

    /// Asks for a code for another identifier; it is this box's once it is proven
    /// ([`Self::confirm_identifier`]). Again asks for another code; for one that is the box's already, that is how
    /// it comes to be discoverable or not.
    ///
    /// How long the code is accepted.
    ///
    /// # Errors
    /// [`DeviceError::Call`], as from [`Self::register`], and with `TOO_MANY_IDENTIFIERS`.
    pub async fn add_identifier(
        &self,
        identifier: &Identifier,
        discoverable: bool,
    ) -> Result<Duration, DeviceError> {
        let signer = self.signer()?;
        let (identity, box_id) = (self.identity(), &signer.address.box_id);
        let request =
            registering::add_identifier_request(&identity, box_id, identifier, discoverable);
        let calling = self
            .connection
            .call::<AddIdentifier>(&request, Some(&signer));
        Ok(Duration::from_millis(calling.await?.code_ttl_ms))
    }

    /// Proves an identifier that was added with the code that was sent there.
    ///
    /// # Errors
    /// [`DeviceError::Call`], as from [`Self::authorize`].
    pub async fn confirm_identifier(
        &self,
        identifier: &Identifier,
        code: &str,
    ) -> Result<(), DeviceError> {
        let box_id = self.signer()?.address.box_id;
        let (identity, code) = (self.identity(), digits(code));
        let request = registering::authorize_request(&identity, &box_id, identifier, &code, false);
        // The token in the answer is the one that this device has.
        self.connection.call::<Authorize>(&request, None).await?;
        Ok(())
    }

    /// Keeps an identifier that another box is to get: it stays, and nobody can ask for it again for a while, which is
    /// longer each time.
    ///
    /// # Errors
    /// [`DeviceError::NoSuchIdentifier`]; [`DeviceError::NotContested`]; [`DeviceError::Call`], with
    /// `IDENTIFIER_CHANGED` if it is too late.
    pub async fn keep_identifier(&self, identifier: &Identifier) -> Result<(), DeviceError> {
        let listed = self.identifiers().await?.into_iter();
        let mut meant = listed.filter(|own| own.identifier == *identifier);
        let own = meant.next().ok_or(DeviceError::NoSuchIdentifier)?;
        own.reset_at.ok_or(DeviceError::NotContested)?;
        let signer = self.signer()?;
        let (identity, box_id) = (self.identity(), &signer.address.box_id);
        let request =
            registering::keep_identifier_request(&identity, box_id, identifier, own.reset_serial);
        let calling = self
            .connection
            .call::<KeepIdentifier>(&request, Some(&signer));
        calling.await?;
        Ok(())
    }

    /// Takes an identifier from this box. It is free for others from then on.
    ///
    /// # Errors
    /// [`DeviceError::NoSuchIdentifier`]; [`DeviceError::Call`], with `LAST_IDENTIFIER` for the last one
    /// that is proven.
    pub async fn remove_identifier(&self, identifier: &Identifier) -> Result<(), DeviceError> {
        let signer = self.signer()?;
        let (identity, box_id) = (self.identity(), &signer.address.box_id);
        let mut tries = 0;
        let others = loop {
            let listed = self.identifiers().await?.into_iter();
            let (meant, others): (Vec<_>, Vec<_>) =
                listed.partition(|own| own.identifier == *identifier);
            let generation = match &meant[..] {
                [own] => own.generation,
                // An earlier one of these tries may have removed it.
                _ if tries > 0 => break others,
                _ => return Err(DeviceError::NoSuchIdentifier),
            };
            let request =
                registering::remove_identifier_request(&identity, box_id, identifier, generation);
            tries += 1;
            let calling = self
                .connection
                .call::<RemoveIdentifier>(&request, Some(&signer));
            match calling.await.map_err(DeviceError::from) {
                Ok(_) => break others,
                Err(error) if tries < MAX_TRIES && is_refused(&error, "IDENTIFIER_CHANGED") => {}
                Err(error) => return Err(error),
            }
        };
        self.call_itself_by(identifier, others)
    }

    /// What this device calls its box by is one that the box has.
    fn call_itself_by(
        &self,
        removed: &Identifier,
        others: Vec<OwnIdentifier>,
    ) -> Result<(), DeviceError> {
        let mut account = self.account()?;
        if account.identifier.as_ref() == Some(&removed.into()) {
            let other = others.into_iter().find(|other| other.verified);
            account.discoverable = other.as_ref().is_some_and(|other| other.discoverable);
            account.identifier = other.map(|other| (&other.identifier).into());
            self.store.write(|batch| batch.put(&(), &account))?;
        }
        Ok(())
    }
}

fn identifier_of_wire(wire: Option<v1::Identifier>) -> Option<Identifier> {
    match wire?.kind? {
        Kind::Phone(text) => Identifier::phone(&text).ok(),
        Kind::Email(text) => Identifier::email(&text).ok(),
    }
}
