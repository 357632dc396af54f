//! Putting a received checkpoint in the place of a group's state.

use std::sync::Arc;

use super::OpenToken;
use super::checkpoint::Checkpoint;
use super::error::StoreError;
use super::recover::fill_base;
use super::shared::{Applied, GroupShared};

/// A received checkpoint on its way to becoming a group's state.
#[derive(Debug)]
pub struct Installation {
    shared: Arc<GroupShared>,
    _token: Arc<OpenToken>,
    checkpoint: Checkpoint,
}

impl Installation {
    pub(crate) fn new(
        shared: Arc<GroupShared>,
        token: Arc<OpenToken>,
        checkpoint: Checkpoint,
    ) -> Self {
        Self {
            shared,
            _token: token,
            checkpoint,
        }
    }

    /// Replaces the whole state: after a crash at any moment there is the old state or the new.
    /// Readers wait meanwhile. Blocking I/O, and a lot of it.
    ///
    /// # Errors
    /// [`StoreError::Backwards`] if the group has applied more than the checkpoint holds,
    /// [`StoreError::WrongGroup`]: nothing changed. Any other stops the replica.
    pub fn run(self) -> Result<(), StoreError> {
        let Self {
            shared, checkpoint, ..
        } = &self;
        shared.check()?;
        let (found, expected) = (checkpoint.contents().group, shared.files.group);
        if found != expected {
            return Err(StoreError::WrongGroup { found, expected });
        }
        // A checkpoint that is moving to the base comes to its end first.
        let _flow = shared.flow.lock();
        let mut applied = shared.applied.write();
        if let Some(held) = applied
            .position
            .filter(|held| *held > checkpoint.position())
        {
            return Err(StoreError::Backwards {
                offered: checkpoint.position(),
                held,
            });
        }
        let _gate = shared.gate.write();
        let result = checkpoint.publish_manifest().and_then(|()| {
            let mut rounds = shared.rounds.lock();
            rounds.writing = None;
            let old = rounds.current.replace(checkpoint.clone());
            drop(rounds);
            drop(old);
            shared.base.clear_group(expected)?;
            fill_base(&shared.base, &shared.files, checkpoint.contents())
        });
        result.map_err(|error| shared.fail(error))?;
        shared.forget_partitions();
        *applied = Applied::of(checkpoint);
        Ok(())
    }
}
