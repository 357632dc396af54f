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
use super::devices::Devices;
use super::dice::Dice;
use super::fates::identifier;
use super::node::Common;
use super::reset::{self, Proven, Reset};
use super::wire::{DeviceWire, address};
use crate::observe::ClientId;

/// So many of 1,000 people read seldom: so many of 1,000 times that others do.
const SELDOM_READ_PERMILLE: u64 = 250;
const READ_PERMILLE: u64 = 60;
/// Of 1,000 things that people do, how many are to lose all devices, or to have others try for their identifier.
const RESET_PERMILLE: u64 = 6;
/// How many are to delete the account.
const DELETE_PERMILLE: u64 = 2;
/// And how many are to lose all devices, but not the recovery key.
const RECOVER_PERMILLE: u64 = 3;
/// How many are to block somebody, and how many of those who block somebody are to lift the block.
const BLOCK_PERMILLE: u64 = 6;
const UNBLOCK_PERMILLE: u64 = 80;
/// Of 1,000 letters, how many are to wait for a short time only, and for how long at least and at most, in milliseconds.
const FLEETING_PERMILLE: u64 = 100;
const FLEETING_MS: (u64, u64) = (2_000, 40_000);
/// How long people let letters wait in their boxes, at least and at most, if they say so, in milliseconds.
const BOX_TTL_MS: (u64, u64) = (60_000, 120_000);
/// Of 1,000 things done by people with devices while others try for their identifier, how many are about that.
const CONTEST_PERMILLE: u64 = 400;

/// Between two tries to bring something to its end.
pub(super) const SETTLE_AGAIN: Duration = Duration::from_millis(500);

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
    pub(super) devices: Devices,
    pub(super) identifier: Identifier,
    /// How many identifiers there were before it.
    pub(super) given_up: u32,
    /// One for the identifier, by this person or another.
    pub(super) reset: Option<Reset>,
    /// Those who are blocked, or may be.
    pub(super) blocked: Vec<BoxId>,
    /// The box that the operator has suspended, or may have.
    pub(super) suspended: Option<BoxId>,
    pub(super) clock: Arc<WorldClock>,
    pub(super) common: Arc<Common>,
    directory: Arc<Directory>,
    steps: Arc<Steps>,
    pub(super) dice: Dice,
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
        let identifier = identifier(parts.id, 0)?;
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
            Arc::clone(&parts.clock),
            servers,
            parts.common.dice.stream(&format!("devices {}", parts.id.0)),
        )?;
        Ok(Self {
            id: parts.id,
            devices,
            identifier,
            given_up: 0,
            reset: None,
            blocked: Vec::new(),
            suspended: None,
            clock: parts.clock,
            common: parts.common,
            directory: parts.directory,
            steps: parts.steps,
            seldom_reads: dice.permille(SELDOM_READ_PERMILLE),
            dice,
            written: 0,
            doing: Arc::new(Mutex::new("begins")),
        })
    }

    pub(super) fn does(&self, what: &'static str) {
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
    pub(super) async fn register(&mut self) -> Result<(), PersonError> {
        self.does("registers");
        let first = self.devices.eldest()?;
        loop {
            self.steps.take();
            match first.device.register(&self.identifier, true).await {
                // No code comes.
                Err(DeviceError::Call(error)) if error.refusal().is_some() => {
                    sleep(self.devices.pause()).await;
                    continue;
                }
                other => reset::expected_call(other)?,
            }
            let proving = first.prove(&self.identifier, &self.common.codes, &self.dice);
            if let Proven::Had(address) = proving.await? {
                self.has(address.box_id);
                return Ok(());
            }
        }
    }

    /// Has this box from now on.
    pub(super) fn has(&mut self, box_id: BoxId) {
        self.blocked.clear();
        let mut directory = self.directory.0.lock();
        directory.retain(|(id, ..)| *id != self.id);
        directory.push((self.id, box_id, self.identifier.clone()));
    }

    async fn act(&mut self) -> Result<(), PersonError> {
        if self.reset.is_none() && self.dice.permille(RESET_PERMILLE) {
            self.begin_reset()?;
        }
        if self.reset.is_none() && self.dice.permille(DELETE_PERMILLE) {
            return self.delete_account().await;
        }
        if self.reset.is_none()
            && self.devices.are_settled()
            && self.dice.permille(RECOVER_PERMILLE)
        {
            self.does("recovers the box");
            return self.devices.recover(&self.identifier).await;
        }
        if self.devices.are_lost() || (self.reset.is_some() && self.dice.permille(CONTEST_PERMILLE))
        {
            if self.go_on_with_reset().await? {
                sleep(reset::pause(&self.dice)).await;
            }
            return Ok(());
        }
        if self.dice.permille(BLOCK_PERMILLE) {
            return self.block().await;
        }
        if !self.blocked.is_empty() && self.dice.permille(UNBLOCK_PERMILLE) {
            return self.unblock().await;
        }
        self.meet_operator().await?;
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
            95 => self.set_ttl().await,
            _ => {
                self.does("sends again what is pending");
                self.devices.any()?.resend().await.map(|_| ())
            }
        }
    }

    pub(super) fn somebody(&self) -> Option<(BoxId, Identifier)> {
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
        let (least, most) = FLEETING_MS;
        let fleeting = self.dice.permille(FLEETING_PERMILLE);
        let ttl = fleeting.then(|| self.dice.millis(least, most));
        let content = Content::Text(text);
        let sending = self.devices.any()?.send_for(&to, &content, ttl).await;
        match sending {
            // It was deleted, or blocks this one.
            Err(DeviceError::NoUser) => Ok(()),
            other => expected(other),
        }
    }

    /// Says how long letters may wait in the box.
    async fn set_ttl(&self) -> Result<(), PersonError> {
        self.does("sets how long letters may wait");
        let (least, most) = BOX_TTL_MS;
        let says = self.dice.permille(700);
        let longest = says.then(|| self.dice.millis(least, most));
        match self.devices.any()?.set_ttl(longest).await {
            // An earlier try came late.
            Err(error) if reset::is_refused(&error, "TTL_NUMBER_USED") => Ok(()),
            other => expected(other),
        }
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
            // It was deleted, or blocks this one, or its identifier is on its way to another box.
            Err(DeviceError::NoUser) => Ok(()),
            other => expected(other),
        }
    }

    /// Goes on until no device is half-way in or out, and nothing is pending on any.
    async fn settle(&mut self) -> Result<(), PersonError> {
        self.does("settles");
        self.settle_reset().await?;
        while self.suspended.is_some() {
            self.may_send_again().await?;
            sleep(SETTLE_AGAIN).await;
        }
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
                        // What has expired is purged by the day.
                        let status = received.status;
                        is_empty &= status.depth == 0 || status.oldest.is_none();
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
