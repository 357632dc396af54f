//! The bytes of one file, as processes see them and as power loss would leave them.

use std::collections::BTreeMap;
use std::io;

use super::PowerLoss;
use crate::random::{self, SeededRandom};

/// What a device writes in one step, whatever happens to the power.
const SECTOR_BYTES: usize = 512;

/// The versions that a sector went through since it was last synced, oldest first.
type Versions = BTreeMap<usize, Vec<[u8; SECTOR_BYTES]>>;

#[derive(Debug, Default)]
pub(super) struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Versions,
    /// What a failed sync left in doubt: it may have reached the disk, and will not be tried again.
    doubtful: Versions,
    unlinked: bool,
}

impl Content {
    pub(super) fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Takes the last name away; the space that this frees.
    pub(super) fn unlink(&mut self) -> u64 {
        self.unlinked = true;
        self.length()
    }

    pub(super) fn read_exact(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let range = span(buffer.len(), offset)?;
        match self.bytes.get(range) {
            Some(bytes) => buffer.copy_from_slice(bytes),
            None if buffer.is_empty() => {}
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }

    /// How much space a write would add.
    pub(super) fn growth(&self, length: usize, offset: u64) -> io::Result<u64> {
        let end = span(length, offset)?.end;
        let grows = length > 0 && !self.unlinked;
        Ok(if grows {
            end.saturating_sub(self.bytes.len()) as u64
        } else {
            0
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let range = span(bytes.len(), offset)?;
        if bytes.is_empty() {
            return Ok(());
        }
        if self.bytes.len() < range.end {
            self.bytes.resize(range.end, 0);
        }
        if let Some(target) = self.bytes.get_mut(range.clone()) {
            target.copy_from_slice(bytes);
        }
        for sector in range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES) {
            let version = self.sector(sector);
            self.unsynced.entry(sector).or_default().push(version);
        }
        Ok(())
    }

    fn sector(&self, sector: usize) -> [u8; SECTOR_BYTES] {
        let mut copy = [0; SECTOR_BYTES];
        let start = sector * SECTOR_BYTES;
        let end = self.bytes.len().min(start + SECTOR_BYTES);
        let held = self.bytes.get(start..end).unwrap_or_default();
        let (used, _) = copy.split_at_mut(held.len());
        used.copy_from_slice(held);
        copy
    }

    pub(super) fn sync(&mut self) {
        self.durable.resize(self.bytes.len(), 0);
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            self.doubtful.remove(&sector);
            if let Some(last) = versions.last() {
                put(&mut self.durable, sector, last);
            }
        }
    }

    pub(super) fn fail_sync(&mut self) {
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            self.doubtful.entry(sector).or_default().extend(versions);
        }
    }

    /// What is found after power loss.
    pub(super) fn after(&self, loss: PowerLoss, chance: &Chance) -> Self {
        let bytes = match loss {
            PowerLoss::KeepAll => self.bytes.clone(),
            PowerLoss::DropUnsynced => self.durable.clone(),
            PowerLoss::KeepSome { .. } => self.torn(chance),
        };
        Self {
            durable: bytes.clone(),
            bytes,
            ..Self::default()
        }
    }

    fn torn(&self, chance: &Chance) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        // Growth may be lost in whole or from any byte on.
        let growth = self.bytes.len().saturating_sub(bytes.len());
        let kept = if chance.keeps() {
            growth
        } else {
            chance.below(growth + 1)
        };
        bytes.resize(bytes.len() + kept, 0);
        for (sector, versions) in self.doubtful.iter().chain(&self.unsynced) {
            if chance.keeps() {
                let version = versions.get(chance.below(versions.len()));
                version
                    .into_iter()
                    .for_each(|version| put(&mut bytes, *sector, version));
            }
        }
        bytes
    }
}

fn put(bytes: &mut [u8], sector: usize, version: &[u8; SECTOR_BYTES]) {
    let start = sector * SECTOR_BYTES;
    let end = bytes.len().min(start + SECTOR_BYTES);
    if let Some(target) = bytes.get_mut(start..end) {
        let (used, _) = version.split_at(target.len());
        target.copy_from_slice(used);
    }
}

fn span(length: usize, offset: u64) -> io::Result<std::ops::Range<usize>> {
    let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let end = start
        .checked_add(length)
        .ok_or(io::ErrorKind::FileTooLarge)?;
    Ok(start..end)
}

/// The seeded choices of one power loss.
#[derive(Debug)]
pub(super) struct Chance {
    random: SeededRandom,
    /// Of 256, how many changes survive: differs by seed, so that nearly nothing and nearly
    /// everything are both often tried.
    kept: usize,
}

impl Chance {
    pub(super) fn of(loss: PowerLoss) -> Self {
        let seed = if let PowerLoss::KeepSome { seed } = loss {
            seed
        } else {
            0
        };
        let mut chance = Self {
            random: SeededRandom::new(seed),
            kept: 0,
        };
        chance.kept = [24, 128, 232]
            .get(chance.below(3))
            .copied()
            .unwrap_or_default();
        chance
    }

    pub(super) fn keeps(&self) -> bool {
        self.below(256) < self.kept
    }

    /// A number below `limit`; 0 if that is 0.
    pub(super) fn below(&self, limit: usize) -> usize {
        let drawn = random::bytes::<8>(&self.random)
            .map(usize::from_le_bytes)
            .unwrap_or_default();
        drawn.checked_rem(limit).unwrap_or_default()
    }
}
