//! A person of the world: real devices, what their owner does with them, and what becomes of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rossby_client::DeviceError;
use rossby_client::device::{LookupBy, Servers};
use rossby_client::envelope::Content;
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::{BoxId, NodeId};
use rossby_seams::watch;
use tokio::time::sleep;

use super::clock::WorldClock;
use super::devices::{Devices, Owned};
use super::dice::Dice;
use super::node::Common;
use super::wire::{DeviceWire, address};
use crate::observe::ClientId;

/// So many of 1,000 people read seldom: so many of 1,000 times that others do.
const SELDOM_READ_PERMILLE: u64 = 250;
const READ_PERMILLE: u64 = 60;

/// Between two tries to bring something to its end.
const SETTLE_AGAIN: Duration = Duration::from_millis(500);

/// What people do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// They live.
    Work,
    /// All faults are over: they bring what they began to its end.
    Settle,
    /// Nobody has anything pending: they read what is left.
    Read,
}

/// The steps that are left of a world: one for each thing that a person does.
#[derive(Debug)]
pub struct Steps(AtomicU64);

impl Steps {
    /// So many.
    #[must_use]
    pub fn new(steps: u64) -> Self {
        Self(AtomicU64::new(steps))
    }

    /// Takes one, if one is left.
    pub fn take(&self) -> bool {
        let taken = |left: u64| left.checked_sub(1);
        self.0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, taken)
            .is_ok()
    }

    /// Whether none is left.
    #[must_use]
    pub fn are_over(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }
}

/// Who has a box, for people to write to.
#[derive(Debug, Default)]
pub struct Directory(Mutex<Vec<(ClientId, BoxId, Identifier)>>);

/// Why a person can not go on.
pub type PersonError = DeviceError;

/// A person.
pub struct Person {
    /// Which.
    pub id: ClientId,
    devices: Devices,
    identifier: Identifier,
    common: Arc<Common>,
    directory: Arc<Directory>,
    steps: Arc<Steps>,
    dice: Dice,
    written: u64,
    /// Looks into the box so seldom that letters pile up there, and expire where that takes no days.
    seldom_reads: bool,
    /// What they do now, for reports.
    pub doing: Arc<Mutex<&'static str>>,
}

/// What a person is made of.
pub struct PersonParts {
    /// Which.
    pub id: ClientId,
    /// Where the devices keep their files.
    pub homes: PathBuf,
    /// The wire of the first device.
    pub wire: Arc<DeviceWire>,
    /// Their wall clock.
    pub clock: Arc<WorldClock>,
    /// The nodes they know, and which of them they turn to first.
    pub nodes: Vec<NodeId>,
    /// Its place among them.
    pub begin_at: usize,
    /// What all share.
    pub common: Arc<Common>,
    /// Who has a box.
    pub directory: Arc<Directory>,
    /// The steps that are left.
    pub steps: Arc<Steps>,
}

impl Person {
    /// A person with a new device.
    ///
    /// # Errors
    /// [`PersonError`] if there can be no device.
    pub fn new(parts: PersonParts) -> Result<Self, PersonError> {
        let dice = parts.common.dice.stream(&format!("person {}", parts.id.0));
        let identifier = Identifier::email(&format!("person{}@example.org", parts.id.0))
            .map_err(|_| DeviceError::Damaged("identifier"))?;
        let mut addresses = Vec::new();
        for node in parts.nodes {
            addresses.push(address(node).parse()?);
        }
        let begin_at = parts.begin_at % addresses.len().max(1);
        addresses.rotate_left(begin_at);
        let servers = Servers {
            addresses,
            ca_pem: None,
        };
        let devices = Devices::first(
            (parts.id, parts.wire),
            parts.homes,
            parts.clock,
            servers,
            parts.common.dice.stream(&format!("devices {}", parts.id.0)),
        )?;
        Ok(Self {
            id: parts.id,
            devices,
            identifier,
            common: parts.common,
            directory: parts.directory,
            steps: parts.steps,
            seldom_reads: dice.permille(SELDOM_READ_PERMILLE),
            dice,
            written: 0,
            doing: Arc::new(Mutex::new("begins")),
        })
    }

    fn does(&self, what: &'static str) {
        *self.doing.lock() = what;
    }

    /// Lives, and settles when it is time; says when there is nothing left to do in a phase.
    ///
    /// # Errors
    /// [`PersonError`] that no person should ever see.
    pub async fn live(
        mut self,
        mut phase: watch::Receiver<Phase>,
        done: Arc<watch::Sender<u64>>,
    ) -> Result<(), PersonError> {
        self.register().await?;
        while *phase.borrow() == Phase::Work {
            if !self.steps.take() {
                self.does("waits for the end of all faults");
                let _ = phase.wait_for(|phase| *phase != Phase::Work).await;
                break;
            }
            self.act().await?;
            sleep(self.dice.millis(20, 800)).await;
        }
        self.settle().await?;
        done.send_modify(|done| *done += 1);
        self.does("waits for the others");
        let _ = phase.wait_for(|phase| *phase == Phase::Read).await;
        self.read().await?;
        self.does("is content");
        done.send_modify(|done| *done += 1);
        Ok(())
    }

    /// Asks for a box, and for another code, until there is one.
    async fn register(&self) -> Result<(), PersonError> {
        self.does("registers");
        let Owned { device, wire } = self.devices.eldest()?;
        loop {
            self.steps.take();
            match device.register(&self.identifier, true).await {
                Ok(_) | Err(DeviceError::Call(_)) => {}
                Err(error) => return Err(error),
            }
            // A code comes within a moment, or was lost.
            for _ in 0..20 {
                sleep(self.dice.millis(100, 400)).await;
                let Some(code) = self.common.codes.take(&self.identifier) else {
                    continue;
                };
                match device.authorize(&code).await {
                    Ok(address) => {
                        // Nobody but this sets it.
                        let _ = wire.address.set(address);
                        let entry = (self.id, address.box_id, self.identifier.clone());
                        self.directory.0.lock().push(entry);
                        return Ok(());
                    }
                    // Whatever it was: the same code again, until another one is needed.
                    Err(DeviceError::Call(error)) if error.may_pass() => {
                        self.common.codes.put_back(&self.identifier, code);
                    }
                    // The code came, but not the answer that says of which box it is: only with
                    // another code that comes again.
                    Err(DeviceError::Call(_) | DeviceError::NotRegistered) => break,
                    Err(error) => return Err(error),
                }
            }
        }
    }

    async fn act(&mut self) -> Result<(), PersonError> {
        match self.dice.between(0, 99) {
            0..=54 => self.write().await,
            55..=79 if self.seldom_reads && !self.dice.permille(READ_PERMILLE) => {
                self.write().await
            }
            55..=79 => self.receive().await,
            80..=89 => self.look_up().await,
            90..=92 => {
                self.does("links a device");
                self.devices.add().await
            }
            93 => {
                self.does("loses a device");
                self.devices.lose().await
            }
            94 => {
                self.does("rotates the keys of a device");
                expected(self.devices.any()?.rotate_keys().await)
            }
            _ => {
                self.does("sends again what is pending");
                self.devices.any()?.resend().await.map(|_| ())
            }
        }
    }

    fn somebody(&self) -> Option<(BoxId, Identifier)> {
        let directory = self.directory.0.lock();
        let others: Vec<_> = directory.iter().filter(|(id, ..)| *id != self.id).collect();
        let (_, box_id, identifier) = *self.dice.pick(&others)?;
        Some((*box_id, identifier.clone()))
    }

    async fn write(&mut self) -> Result<(), PersonError> {
        self.does("writes");
        let Some((to, _)) = self.somebody() else {
            return Ok(());
        };
        self.written += 1;
        let size = usize::try_from(self.dice.between(1, 6000)).unwrap_or(1);
        let text = format!("{} of {}: {}", self.written, self.id.0, "x".repeat(size));
        expected(self.devices.any()?.send(&to, &Content::Text(text)).await)
    }

    async fn receive(&self) -> Result<(), PersonError> {
        self.does("receives");
        expected(self.devices.any()?.receive().await)
    }

    async fn look_up(&self) -> Result<(), PersonError> {
        self.does("looks somebody up");
        let Some((box_id, identifier)) = self.somebody() else {
            return Ok(());
        };
        let by = if self.dice.permille(500) {
            LookupBy::Identifier(identifier)
        } else {
            LookupBy::Box(box_id)
        };
        match self.devices.any()?.lookup(&by).await {
            Ok(found) if found.box_id != box_id => Err(DeviceError::Untrue("another box")),
            other => expected(other),
        }
    }

    /// Goes on until no device is half-way in or out, and nothing is pending on any.
    async fn settle(&mut self) -> Result<(), PersonError> {
        self.does("settles");
        while !self.devices.are_settled() {
            self.devices.go_on().await?;
            sleep(SETTLE_AGAIN).await;
        }
        for device in self.devices.used() {
            while device.pending()? > 0 {
                expected(device.resend().await)?;
                sleep(SETTLE_AGAIN).await;
            }
        }
        Ok(())
    }

    /// Receives on all devices until nothing is left.
    async fn read(&self) -> Result<(), PersonError> {
        self.does("reads what is left");
        loop {
            let mut is_empty = true;
            for device in self.devices.used() {
                match device.receive().await {
                    Ok(received) if received.interrupted.is_none() => {
                        is_empty &= received.status.depth == 0;
                    }
                    other => {
                        is_empty = false;
                        expected(other)?;
                    }
                }
            }
            if is_empty {
                return Ok(());
            }
            sleep(SETTLE_AGAIN).await;
        }
    }
}

/// What a faulty world may do to a person: the service can not be reached, or says no for now.
/// Anything else is its owner's data damaged, or the service lying.
pub(super) fn expected<T>(result: Result<T, DeviceError>) -> Result<(), PersonError> {
    match result {
        Ok(_) => Ok(()),
        Err(DeviceError::Call(error)) if error.may_pass() => Ok(()),
        Err(error) => Err(error),
    }
}
