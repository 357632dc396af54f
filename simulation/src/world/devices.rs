//! The devices of a person: one at first, at times another beside it, which the first has linked. One of two may be lost; the
//! other removes it. All may be lost; then another takes their place by the recovery key (`recovery.rs`) or begins anew (`reset.rs`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rossby_client::connection::Patience;
use rossby_client::crypto::secret::Secret;
use rossby_client::device::{Linking, Servers};
use rossby_client::linking::DeviceName;
use rossby_client::store::{KdfCost, Passphrase};
use rossby_client::{Device, DeviceError, Environment};
use rossby_domain::ids::DeviceId;
use rossby_seams::random::SeededRandom;

use super::clock::WorldClock;
use super::dice::Dice;
use super::person::{PersonError, expected};
use super::wire::DeviceWire;
use crate::observe::ClientId;

/// The clients of a person's further devices have this added to the number of the one before.
const FURTHER: u32 = 100;

/// A device and its wire.
pub struct Owned {
    pub device: Device,
    pub wire: Arc<DeviceWire>,
    /// Where it keeps its files.
    pub home: PathBuf,
}

/// The devices of a person.
pub struct Devices {
    id: ClientId,
    homes: PathBuf,
    clock: Arc<WorldClock>,
    pub servers: Servers,
    pub dice: Dice,
    /// The first one's, like which all others are.
    wire: Arc<DeviceWire>,
    /// How many there ever were.
    made: u32,
    /// How many were opened again.
    opened: u32,
    /// Those that are used: one or two.
    pub used: Vec<Owned>,
    /// One that is being linked, its wire and where it keeps its files.
    linking: Option<(Linking, Arc<DeviceWire>, PathBuf)>,
    /// Those that are lost, and not removed yet.
    pub lost: Vec<DeviceId>,
    /// The recovery key of their box, which is nowhere but on paper.
    pub words: Option<Secret<32>>,
}

impl Devices {
    /// A first device, with this wire; it and all others keep their files in a folder each of `homes`.
    ///
    /// # Errors
    /// [`PersonError`] if there can be no device.
    pub fn first(
        (id, wire): (ClientId, Arc<DeviceWire>),
        homes: PathBuf,
        clock: Arc<WorldClock>,
        servers: Servers,
        dice: Dice,
    ) -> Result<Self, PersonError> {
        let mut devices = Self {
            id,
            homes,
            clock,
            servers,
            dice,
            wire: Arc::clone(&wire),
            made: 0,
            opened: 0,
            used: Vec::new(),
            linking: None,
            lost: Vec::new(),
            words: None,
        };
        let first = devices.device(wire)?;
        devices.begin_anew(first);
        Ok(devices)
    }

    /// A device that belongs to no box, and to nobody yet.
    ///
    /// # Errors
    /// [`PersonError`] if there can be no device.
    pub fn new_one(&mut self) -> Result<Owned, PersonError> {
        let wire = self.next_wire();
        self.device(wire)
    }

    /// This is the only one from now on, and its box another; those before it are lost.
    pub fn begin_anew(&mut self, device: Owned) {
        self.lose_all();
        self.words = device.device.recovery_seed();
        self.used.push(device);
    }

    fn device(&self, wire: Arc<DeviceWire>) -> Result<Owned, PersonError> {
        let home = self.home();
        let device = Device::create(
            &home,
            &Passphrase::none(),
            KdfCost::NONE,
            &self.servers,
            self.environment(&wire),
        )?;
        Ok(Owned { device, wire, home })
    }

    /// The wire of one more device.
    pub fn next_wire(&mut self) -> Arc<DeviceWire> {
        self.made += 1;
        let client = ClientId(self.id.0 + FURTHER * self.made);
        Arc::new(self.wire.beside(client))
    }

    /// Where the next one keeps its files.
    pub fn home(&self) -> PathBuf {
        self.homes.join(format!("{}-{}", self.id.0, self.made))
    }

    /// What a new one takes from the outside.
    pub fn environment(&self, wire: &Arc<DeviceWire>) -> Environment {
        self.environment_of(wire, &format!("device {}", self.made))
    }

    /// For a device that is opened again.
    pub fn environment_again(&mut self, wire: &Arc<DeviceWire>) -> Environment {
        self.opened += 1;
        // What it drew before is used up.
        self.environment_of(wire, &format!("opened {}", self.opened))
    }

    fn environment_of(&self, wire: &Arc<DeviceWire>, label: &str) -> Environment {
        let seed = self.dice.seed_of(label);
        Environment {
            clock: self.clock.clone(),
            random: Arc::new(SeededRandom::new(seed)),
            wire: Some(wire.clone()),
            patience: Patience::default(),
            learns_map: false,
        }
    }

    /// All that are used.
    pub fn used(&self) -> impl Iterator<Item = &Device> {
        self.used.iter().map(|owned| &owned.device)
    }

    /// Whether all are lost.
    pub fn are_lost(&self) -> bool {
        self.used.is_empty()
    }

    /// The one that has been used for longest.
    ///
    /// # Errors
    /// If all are lost.
    pub fn eldest(&self) -> Result<&Owned, PersonError> {
        self.used.first().ok_or(DeviceError::Damaged("person"))
    }

    /// Any of them.
    ///
    /// # Errors
    /// If all are lost.
    pub fn any(&self) -> Result<&Device, PersonError> {
        let any = self.dice.pick(&self.used);
        let any = any.ok_or(DeviceError::Damaged("person"))?;
        Ok(&any.device)
    }

    /// Takes any of them away.
    ///
    /// # Errors
    /// If all are lost.
    pub fn take_any(&mut self) -> Result<Owned, PersonError> {
        if self.used.is_empty() {
            return Err(DeviceError::Damaged("person"));
        }
        let which = self.dice.between(0, self.used.len() as u64 - 1);
        Ok(self.used.remove(usize::try_from(which).unwrap_or_default()))
    }

    /// Between two tries.
    pub fn pause(&self) -> Duration {
        self.dice.millis(200, 1_000)
    }

    /// Whether none is half-way in or out.
    pub fn are_settled(&self) -> bool {
        self.linking.is_none() && self.lost.is_empty()
    }

    /// Goes on with what is half-way.
    ///
    /// # Errors
    /// [`PersonError`].
    pub async fn go_on(&mut self) -> Result<(), PersonError> {
        if !self.lost.is_empty() {
            self.remove_lost().await
        } else if self.linking.is_some() {
            self.link().await
        } else {
            Ok(())
        }
    }

    /// Begins with another device, if there is but one, and goes on with what is half-way.
    ///
    /// # Errors
    /// [`PersonError`].
    pub async fn add(&mut self) -> Result<(), PersonError> {
        if self.are_settled() && self.used.len() == 1 {
            let wire = self.next_wire();
            let home = self.home();
            let linking = Linking::create(
                &home,
                &Passphrase::none(),
                KdfCost::NONE,
                &self.servers,
                DeviceName::new("further").map_err(|_| DeviceError::Damaged("name"))?,
                self.environment(&wire),
            )?;
            self.linking = Some((linking, wire, home));
        }
        self.go_on().await
    }

    /// Loses one of two, with all that waits on it, and goes on with what is half-way.
    ///
    /// # Errors
    /// [`PersonError`].
    pub async fn lose(&mut self) -> Result<(), PersonError> {
        if self.are_settled() && self.used.len() > 1 {
            let which = usize::from(self.dice.permille(500));
            let lost = self.used.remove(which);
            lost.wire.unplug();
            self.lost.push(lost.device.who_am_i()?.device);
        }
        self.go_on().await
    }

    /// Loses all of them, with all that waits on them and all that is half-way.
    pub fn lose_all(&mut self) {
        for lost in self.used.drain(..) {
            lost.wire.unplug();
        }
        if let Some((_, wire, _)) = self.linking.take() {
            wire.unplug();
        }
        self.lost.clear();
    }

    async fn link(&mut self) -> Result<(), PersonError> {
        let Some((linking, ..)) = &self.linking else {
            return Ok(());
        };
        match self.eldest()?.device.approve(&linking.code()).await {
            Ok(_) | Err(DeviceError::LinkedAlready) => {}
            other => return expected(other),
        }
        let welcome = match linking.ask().await {
            Ok(Some(welcome)) => welcome,
            other => return expected(other),
        };
        if let Some((linking, wire, home)) = self.linking.take() {
            let device = linking.accept(welcome).await?;
            self.used.push(Owned { device, wire, home });
        }
        Ok(())
    }

    async fn remove_lost(&mut self) -> Result<(), PersonError> {
        let Some(lost) = self.lost.last() else {
            return Ok(());
        };
        match self.eldest()?.device.revoke(lost).await {
            // An earlier try had done it.
            Ok(()) | Err(DeviceError::NoSuchDevice) => {
                self.lost.pop();
                Ok(())
            }
            other => expected(other),
        }
    }
}
