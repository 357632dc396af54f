//! Registering a box and proving its identifier.

use std::time::Duration;

use rossby_domain::identifier::Identifier;
use rossby_domain::ids::{BoxId, DeviceAddress};
use rossby_domain::time::Timestamp;
use rossby_proto::v1;

use super::devices::is_refused;
use super::{Device, DeviceError};
use crate::connection::{Authorize, CallError, Fetch, Register};
use crate::registering;
use crate::store::{Access, ResetRow, StoreError, StoredIdentifier};

/// A box that waits for its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// The box.
    pub box_id: BoxId,
    /// How long the code is accepted.
    pub code_ttl: Duration,
}

impl Device {
    /// Asks for a box for this identifier; a code is sent there. Again asks for another code.
    ///
    /// A device that has a box may ask again only once the service does not let it in any more: its
    /// token was revoked, or the service was restored from a backup that does not know it. It gets
    /// the same box, and is to be authorised again. One of several devices gets its place back by its key; if
    /// the service does not know the box at all, the box's first device makes it again, and gives the service
    /// the links that add the others.
    ///
    /// # Errors
    /// [`DeviceError::AlreadyRegistered`], [`DeviceError::Call`] (for example with
    /// `IDENTIFIER_TAKEN` or `TOO_MANY_CODES`).
    pub async fn register(
        &self,
        identifier: &Identifier,
        discoverable: bool,
    ) -> Result<Registered, DeviceError> {
        self.register_by(identifier, discoverable, false).await
    }

    /// The same, if the identifier is that of a box whose devices are lost. It comes to this one some days after it is
    /// proven, with another code then, unless a device of that box says no ([`Self::keep_identifier`]) or somebody
    /// else proves it meanwhile. That box, what waits in it, and its contacts stay what they are: this is another
    /// identity.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub async fn register_reset(
        &self,
        identifier: &Identifier,
        discoverable: bool,
    ) -> Result<Registered, DeviceError> {
        self.register_by(identifier, discoverable, true).await
    }

    async fn register_by(
        &self,
        identifier: &Identifier,
        discoverable: bool,
        reset: bool,
    ) -> Result<Registered, DeviceError> {
        let mut account = self.account()?;
        if account.access.is_some() && self.is_let_in().await? {
            return Err(DeviceError::AlreadyRegistered);
        }
        let identity = self.identity();
        if identity.record().version() > 0 {
            let is_first = identity.record().genesis().device() == identity.device();
            match self.rejoin().await {
                // A box with several devices takes its own in by their keys.
                Ok(_) => return Err(DeviceError::AlreadyRegistered),
                Err(error) if is_first && is_refused(&error, "NOT_LINKED") => {}
                Err(error) => return Err(error),
            }
        }
        let request = registering::register_request(&identity, identifier, discoverable, reset)?;
        let response = self.connection.call::<Register>(&request, None).await?;
        let box_id = registering::registered_box(&identity, &response)?;
        account.identifier = Some(identifier.into());
        account.discoverable = discoverable;
        account.box_id = Some(box_id);
        account.access = None;
        self.store.write::<_, StoreError>(|batch| {
            batch.put(&(), &account)?;
            match reset {
                // What was proven before stands, if it is the same identifier.
                true => {
                    let stored = StoredIdentifier::from(identifier);
                    let known = batch.get::<ResetRow>(&())?;
                    let known = known.filter(|row| row.identifier == stored);
                    let new = ResetRow {
                        identifier: stored,
                        completes_at: None,
                    };
                    batch.put(&(), &known.unwrap_or(new))
                }
                false => batch.remove::<ResetRow>(&()),
            }
        })?;
        Ok(Registered {
            box_id,
            code_ttl: Duration::from_millis(response.code_ttl_ms),
        })
    }

    /// Proves the identifier with the code that was sent there. From then on the box can be used.
    ///
    /// # Errors
    /// [`DeviceError::NotRegistered`], [`DeviceError::AlreadyRegistered`], [`DeviceError::Call`]
    /// (for example with `WRONG_CODE`), [`DeviceError::Token`]; [`DeviceError::ResetWaits`] where the code was right and
    /// the identifier is another box's: after that time, [`Self::register_reset`] and another code go on.
    pub async fn authorize(&self, code: &str) -> Result<DeviceAddress, DeviceError> {
        let mut account = self.account()?;
        if account.access.is_some() {
            return Err(DeviceError::AlreadyRegistered);
        }
        let box_id = account.box_id.ok_or(DeviceError::NotRegistered)?;
        let stored = account.identifier.clone();
        let stored = stored.ok_or(DeviceError::NotRegistered)?;
        let identifier = stored.to_identifier().ok_or(DeviceError::NotRegistered)?;
        let (identity, code) = (self.identity(), digits(code));
        let row = self.store.get::<ResetRow>(&())?;
        let reset = row.is_some_and(|row| row.identifier == stored);
        let request = registering::authorize_request(&identity, &box_id, &identifier, &code, reset);
        let response = match self.connection.call::<Authorize>(&request, None).await {
            Err(error) => return Err(self.note_waiting(stored, error)?),
            Ok(response) => response,
        };
        let signer = registering::authorized_signer(&identity, box_id, response)?;
        account.access = Some(Access {
            token: signer.token,
            hawk_host: signer.host,
        });
        self.store.write::<_, StoreError>(|batch| {
            batch.put(&(), &account)?;
            batch.remove::<ResetRow>(&())
        })?;
        if identity.record().version() > 0 {
            // The box was made again. The next time makes up for it.
            let _ = self.keep_key_published().await;
        }
        Ok(signer.address)
    }

    /// When the identifier that this device has proven comes to its box, if it waits for that.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn waits_until(&self) -> Result<Option<Timestamp>, DeviceError> {
        let waiting = self.store.get::<ResetRow>(&())?;
        Ok(waiting.and_then(|row| row.completes_at))
    }

    /// Remembers when an identifier can be had that is still another's; what went wrong.
    fn note_waiting(
        &self,
        identifier: StoredIdentifier,
        error: CallError,
    ) -> Result<DeviceError, DeviceError> {
        let refusal = error
            .refusal()
            .filter(|refusal| refusal.code == "RESET_WAITS");
        let at = refusal.and_then(|refusal| refusal.figures.get("completes_at_ms"));
        let Some(at) = at
            .and_then(|at| at.parse().ok())
            .map(Timestamp::from_millis)
        else {
            return Ok(error.into());
        };
        let row = ResetRow {
            identifier,
            completes_at: Some(at),
        };
        self.store
            .write::<_, StoreError>(|batch| batch.put(&(), &row))?;
        Ok(DeviceError::ResetWaits(at))
    }

    /// Whether the service takes this device's token.
    async fn is_let_in(&self) -> Result<bool, DeviceError> {
        let request = v1::FetchRequest {
            after: 0,
            max_envelopes: 1,
        };
        let signer = self.signer()?;
        match self.connection.call::<Fetch>(&request, Some(&signer)).await {
            Ok(_) => Ok(true),
            Err(error) => match error.refusal() {
                Some(refusal) if refusal.code == "UNAUTHENTICATED" => Ok(false),
                _ => Err(error.into()),
            },
        }
    }
}

/// A code without the spaces and dashes that make it readable, with which people copy it.
pub(super) fn digits(code: &str) -> String {
    code.chars()
        .filter(|c| !c.is_whitespace() && *c != '-')
        .collect()
}
