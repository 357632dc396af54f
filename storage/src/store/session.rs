//! Sessions: whether the base is what the last run left, whole.
//!
//! The base promises no durability while it is in use, so it is believed only after a shutdown in
//! good order. That is written down in two places, each of which can't lie alone:
//!
//! ```text
//!   <checkpoints>/base.state   "open n" or "closed n"; synced, replaced in one step
//!   the base's session row     n, written as the very last row of session n
//! ```
//!
//! - Begin: clean if the file says `closed n` and the row says n. Before anything is written to
//!   the base, the file says `open n+1`, durably.
//! - End: no more writes; the row n+1; the base makes itself durable (`Base::flush`, which for sled
//!   includes the fsync that sled leaves out); then the file says `closed n+1`.
//!
//! A base that failed or showed damage is not closed in good order.
//!
//! Power loss before the last step leaves `open`: the base is rebuilt. After it, everything that the
//! base holds was fsynced before. A base that lost its tail in spite of that, or another folder
//! put in its place, does not have the row, since the row was written last.

use std::io;
use std::path::{Path, PathBuf};

use rossby_seams::disk::{self, Disk};

use super::base_rows::BaseHandle;
use super::error::StoreError;

const MAGIC: &[u8; 8] = b"RSBYBASE";
const VERSION: u8 = 1;
const OPEN: u8 = 1;
const CLOSED: u8 = 2;

#[derive(Debug)]
pub(crate) struct Session {
    number: u64,
    clean: bool,
}

impl Session {
    /// Begins a session.
    pub(crate) fn begin(
        disk: &dyn Disk,
        checkpoints: &Path,
        base: &BaseHandle,
    ) -> Result<Self, StoreError> {
        let last = read(disk, checkpoints)?;
        let clean = match last {
            Some((number, CLOSED)) => base.session()? == Some(number),
            _ => false,
        };
        let number = last.map_or(0, |(number, _)| number).wrapping_add(1);
        write(disk, checkpoints, number, OPEN)?;
        Ok(Self { number, clean })
    }

    /// Whether the base is what the last session left, whole.
    pub(crate) fn base_is_clean(&self) -> bool {
        self.clean
    }

    /// Ends the session in good order.
    pub(crate) fn end(
        &self,
        disk: &dyn Disk,
        checkpoints: &Path,
        base: &BaseHandle,
    ) -> Result<(), StoreError> {
        if base.close(self.number)? {
            write(disk, checkpoints, self.number, CLOSED)?;
        } else if base.is_suspect() {
            tracing::warn!("the base failed in this session; it is rebuilt at the next start");
        }
        Ok(())
    }
}

/// Whether the file says that the base was closed.
pub(crate) fn was_closed(disk: &dyn Disk, checkpoints: &Path) -> Result<bool, StoreError> {
    Ok(matches!(read(disk, checkpoints)?, Some((_, CLOSED))))
}

fn path(checkpoints: &Path) -> PathBuf {
    checkpoints.join("base.state")
}

/// What the file says; `None` if there is none that can be believed.
fn read(disk: &dyn Disk, checkpoints: &Path) -> Result<Option<(u64, u8)>, StoreError> {
    let path = path(checkpoints);
    let bytes = match disk::read(disk, &path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(StoreError::io("read", &path))?,
    };
    let state = decode(&bytes);
    if state.is_none() {
        tracing::warn!(path = %path.display(), "the state of the base can not be read; the base is rebuilt");
    }
    Ok(state)
}

fn decode(bytes: &[u8]) -> Option<(u64, u8)> {
    let (rest, checksum) = bytes.split_last_chunk::<4>()?;
    if *checksum != crc32c::crc32c(rest).to_be_bytes() {
        return None;
    }
    let (number, state) = rest
        .strip_prefix(MAGIC)?
        .strip_prefix(&[VERSION])?
        .split_first_chunk()?;
    match state {
        &[state @ (OPEN | CLOSED)] => Some((u64::from_be_bytes(*number), state)),
        _ => None,
    }
}

fn write(disk: &dyn Disk, checkpoints: &Path, number: u64, state: u8) -> Result<(), StoreError> {
    let path = path(checkpoints);
    let mut bytes = MAGIC.to_vec();
    bytes.push(VERSION);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.push(state);
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_be_bytes());
    disk::replace(disk, &path, &bytes).map_err(StoreError::io("replace", &path))
}
