//! Deleting the account: the box on the service, then all that this device has.

use bytes::Bytes;
use rossby_proto::v1;

use super::devices::is_refused;
use super::{Device, DeviceError};
use crate::connection::DeleteAccount;
use crate::registering;

impl Device {
    /// Deletes the box with all that it has, on the service and on this device, for ever. Its other devices are told
    /// when they come; nobody else is: to them the box is one that is not there.
    ///
    /// After an error of the service nothing is erased here, and the same again goes on; also on another device of a
    /// box that is deleted already.
    ///
    /// # Errors
    /// [`DeviceError::NotRegistered`], [`DeviceError::NotAuthorised`], [`DeviceError::Call`],
    /// [`DeviceError::Store`].
    pub async fn delete_account(self) -> Result<(), DeviceError> {
        let signer = self.signer()?;
        let signature =
            registering::delete_account_signature(&self.identity(), &signer.address.box_id);
        let request = v1::DeleteAccountRequest {
            signature: Bytes::copy_from_slice(&signature),
        };
        let calling = self
            .connection
            .call::<DeleteAccount>(&request, Some(&signer));
        if let Err(error) = calling.await.map_err(DeviceError::from) {
            // An earlier try, or another device, may have done it.
            let is_unknown = is_refused(&error, "UNAUTHENTICATED");
            if !is_unknown || !self.is_deleted().await? {
                return Err(error);
            }
        }
        Ok(self.store.erase()?)
    }

    /// Whether the service says that this device's box was deleted.
    ///
    /// # Errors
    /// [`DeviceError::Call`] if it says nothing of the kind.
    async fn is_deleted(&self) -> Result<bool, DeviceError> {
        match self.ask_for_place().await {
            Err(error) if is_refused(&error, "BOX_DELETED") => Ok(true),
            Ok(_) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
