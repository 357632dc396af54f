//! Deleting the account: from one device, again and again until the service has said that it is done. The others of the box
//! learn it when they come.

use rossby_client::store::Passphrase;
use rossby_client::{Device, DeviceError};
use tokio::time::sleep;

use super::devices::{Devices, Owned};
use super::person::{PersonError, expected};
use super::reset::is_refused;

impl Devices {
    /// Deletes the account. No device is left then.
    ///
    /// # Errors
    /// [`PersonError`], also if the service still serves a device of the box.
    pub async fn delete_account(&mut self) -> Result<(), PersonError> {
        let Owned {
            mut device,
            wire,
            home,
        } = self.take_any()?;
        while let Err(error) = device.delete_account().await {
            expected::<()>(Err(error))?;
            sleep(self.pause()).await;
            let environment = self.environment_again(&wire);
            device = Device::open(&home, &Passphrase::none(), environment)?;
        }
        wire.unplug();
        for other in self.used() {
            match other.receive().await {
                Ok(_) => return Err(DeviceError::Untrue("mail of a box that is deleted")),
                Err(error) if is_refused(&error, "BOX_DELETED") => {}
                other => expected(other)?,
            }
        }
        self.lose_all();
        Ok(())
    }
}
