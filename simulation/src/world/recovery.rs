//! Recovery: all devices are lost, and the words are not. A new device takes its place in the box by them; the places of the lost
//! ones it takes in the same step, or removes them later.

use rossby_client::device::Linking;
use rossby_client::linking::{DeviceName, RecoverBy};
use rossby_client::store::{KdfCost, Passphrase};
use rossby_client::{Device, DeviceError};
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::DeviceId;
use tokio::time::sleep;

use super::devices::{Devices, Owned};
use super::person::{PersonError, expected};

/// Of 1,000 recoveries, how many shut the lost devices out at once.
const REVOKES_PERMILLE: u64 = 500;

impl Devices {
    /// Loses all of them, and gets back into the box, which has this identifier, by the recovery key.
    ///
    /// # Errors
    /// [`PersonError`].
    pub async fn recover(&mut self, identifier: &Identifier) -> Result<(), PersonError> {
        let words = self.words.clone().ok_or(DeviceError::NoRecoveryKey)?;
        let address = self.eldest()?.wire.address.get();
        let own = address.ok_or(DeviceError::NotRegistered)?.box_id;
        self.lose_all();
        let by = match self.dice.permille(500) {
            true => RecoverBy::Identifier(identifier.clone()),
            false => RecoverBy::Box(own),
        };
        let revokes = self.dice.permille(REVOKES_PERMILLE);
        let wire = self.next_wire();
        let home = self.home();
        let mut new = Linking::create(
            &home,
            &Passphrase::none(),
            KdfCost::NONE,
            &self.servers,
            DeviceName::new("recovered").map_err(|_| DeviceError::Damaged("name"))?,
            self.environment(&wire),
        )?;
        let device = loop {
            match new.recover(&by, &words, revokes).await {
                Ok(device) => break device,
                Err(error) => expected::<()>(Err(error))?,
            }
            sleep(self.pause()).await;
            let environment = self.environment_again(&wire);
            new = Linking::open(&home, &Passphrase::none(), environment)?;
        };
        self.lost = others(&device)?;
        self.used.push(Owned { device, wire, home });
        Ok(())
    }
}

/// The devices of a box beside this, which are all lost.
fn others(device: &Device) -> Result<Vec<DeviceId>, PersonError> {
    let all = device.devices()?.into_iter();
    let others = all.filter(|other| !other.is_this);
    Ok(others.map(|other| other.device).collect())
}
