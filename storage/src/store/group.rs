//! A group's state machine.

use std::sync::Arc;

use bytes::Bytes;
use rossby_domain::ids::{BoxId, PartitionId};
use rossby_domain::placement::ClusterMap;
use rossby_domain::tables::{Meta, ReadTables as _, Tables as _};
use rossby_domain::time::Timestamp;
use rossby_domain::{Context, Outcome, Reply, Routed, apply};

use super::base_rows::BaseHandle;
use super::checkpoint::Checkpoint;
use super::cut::CheckpointCut;
use super::error::StoreError;
use super::files::GroupFiles;
use super::install::Installation;
use super::layer::Gauge;
use super::shared::{Applied, GroupShared};
use super::{OpenToken, Reader};
use crate::LogPosition;
use crate::codec::{Batch, decode_batch};

/// The state machine of a group: the only writer of its state.
#[derive(Debug)]
pub struct GroupStore {
    shared: Arc<GroupShared>,
    token: Arc<OpenToken>,
    /// What the last batch changed.
    changes: Changes,
}

/// What a batch changed that somebody may wait for.
#[derive(Debug, Default)]
struct Changes {
    boxes: Vec<BoxId>,
    outboxes: Vec<PartitionId>,
}

impl GroupStore {
    pub(crate) fn new(
        files: Arc<GroupFiles>,
        base: BaseHandle,
        gauge: Gauge,
        token: Arc<OpenToken>,
        checkpoint: Option<Checkpoint>,
    ) -> Self {
        let shared = Arc::new(GroupShared::new(files, base, gauge, checkpoint));
        Self {
            shared,
            token,
            changes: Changes::default(),
        }
    }

    /// What was applied.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.shared.applied.read().clone()
    }

    /// Applies an entry of commands (as `codec::encode_batch` made it): one reply per command, in
    /// order. Touches memory only, but for reads of rows that only the base has.
    ///
    /// # Errors
    /// [`StoreError`]; the replica must stop then, and start again from checkpoint and log.
    pub fn apply_batch(
        &mut self,
        position: LogPosition,
        batch: &[u8],
    ) -> Result<Vec<Reply>, StoreError> {
        let (replies, changes) = self.advance(position, |shared, _| {
            let batch =
                decode_batch(batch).map_err(|source| StoreError::Entry { position, source })?;
            apply_commands(shared, batch)
        })?;
        self.changes = changes;
        Ok(replies)
    }

    /// The boxes whose devices have something to look at since the last batch was applied. What
    /// they find in a [`Reader`] is at least that new.
    #[must_use]
    pub fn changed(&self) -> &[BoxId] {
        &self.changes.boxes
    }

    /// The partitions in whose outbox the last batch put a verification code.
    #[must_use]
    pub fn posted(&self) -> &[PartitionId] {
        &self.changes.outboxes
    }

    /// Applies an entry that carries no commands.
    ///
    /// # Errors
    /// [`StoreError::OutOfOrder`], [`StoreError::Failed`].
    pub fn apply_blank(&mut self, position: LogPosition) -> Result<(), StoreError> {
        self.advance(position, |_, _| Ok(()))
    }

    /// Applies a change of membership (opaque here).
    ///
    /// # Errors
    /// [`StoreError::OutOfOrder`], [`StoreError::Failed`].
    pub fn apply_membership(
        &mut self,
        position: LogPosition,
        membership: Bytes,
    ) -> Result<(), StoreError> {
        self.advance(position, |_, applied| {
            applied.membership = Some((Some(position), membership));
            Ok(())
        })
    }

    /// Marks partitions as restored at a time, as if by an entry. For a state that others were ahead of and
    /// that goes on without them (`rossby_domain::restored`).
    ///
    /// # Errors
    /// As [`Self::apply_batch`].
    pub fn apply_restoration(
        &mut self,
        position: LogPosition,
        at: Timestamp,
        partitions: &[PartitionId],
    ) -> Result<(), StoreError> {
        self.advance(position, |shared, _| {
            for id in partitions {
                let partition = shared.partition(*id)?;
                let mut tables = partition.write();
                let meta = tables.meta()?;
                let restored = meta.restored.again(at, false);
                tables.put_meta(&Meta { restored, ..meta })?;
            }
            Ok(())
        })
    }

    /// Puts a cluster map in the place of the one in a partition, as if by an entry. For one that others committed
    /// of whom this state has not heard.
    ///
    /// # Errors
    /// As [`Self::apply_batch`].
    pub fn apply_map(
        &mut self,
        position: LogPosition,
        partition: PartitionId,
        map: &ClusterMap,
    ) -> Result<(), StoreError> {
        self.advance(position, |shared, _| {
            let partition = shared.partition(partition)?;
            partition.write().put_cluster_map(map)
        })
    }

    /// Runs one entry and moves the position on.
    fn advance<T>(
        &mut self,
        position: LogPosition,
        run: impl FnOnce(&GroupShared, &mut Applied) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.shared.check()?;
        let mut applied = self.shared.applied.write();
        if let Some(last) = applied.position.filter(|last| position.index <= last.index) {
            return Err(StoreError::OutOfOrder {
                position,
                applied: last,
            });
        }
        match run(&self.shared, &mut applied) {
            Ok(value) => {
                applied.position = Some(position);
                Ok(value)
            }
            Err(error) => Err(self.shared.fail(error)),
        }
    }

    /// A reader of this group's state, for any thread.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// Freezes the state at the last applied entry: swaps the overlays, O(1) per dirty partition.
    /// `None` if nothing was applied since the last checkpoint, or one is still being written, or
    /// the group has failed.
    pub fn cut(&mut self) -> Option<CheckpointCut> {
        let shared = &self.shared;
        shared.check().ok()?;
        let applied = shared.applied.read().clone();
        let position = applied.position?;
        let (round, below) = shared.rounds.lock().begin(position)?;
        let dirty = shared.partitions().into_iter();
        let dirty = dirty
            .filter_map(|partition| Some((Arc::clone(&partition), partition.freeze()?)))
            .collect();
        let token = Arc::clone(&self.token);
        Some(CheckpointCut::new(
            Arc::clone(shared),
            token,
            round,
            position,
            applied,
            below,
            dirty,
        ))
    }

    /// The last published checkpoint.
    #[must_use]
    pub fn current(&self) -> Option<Checkpoint> {
        self.shared.rounds.lock().current.clone()
    }

    /// Replaces the whole state by a received checkpoint. Blocking I/O.
    ///
    /// # Errors
    /// Those of [`Installation::run`].
    pub fn install(&mut self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        self.installation(checkpoint).run()
    }

    /// The replacing of the whole state by a received checkpoint, to be run on any thread. Until it
    /// has come to its end nothing is applied.
    pub fn installation(&mut self, checkpoint: Checkpoint) -> Installation {
        Installation::new(
            Arc::clone(&self.shared),
            Arc::clone(&self.token),
            checkpoint,
        )
    }
}

impl Drop for GroupStore {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Applies commands in order. Readers of a partition wait while a run of commands for it is applied.
/// Also says for whom that changed something.
fn apply_commands(shared: &GroupShared, batch: Batch) -> Result<(Vec<Reply>, Changes), StoreError> {
    let context = Context {
        stamp: batch.stamp,
        may_expire: batch.may_expire,
    };
    let mut replies = Vec::with_capacity(batch.commands.len());
    let mut changes = Changes::default();
    let mut commands = batch.commands.into_iter().peekable();
    while let Some(first) = commands.next() {
        let id = first.partition;
        let partition = shared.partition(id)?;
        let mut tables = partition.write();
        let mut run = |routed: Routed| -> Result<(), StoreError> {
            let awaited_by = routed.command.awaited_by();
            let reply = apply(&mut tables, &context, routed)?;
            changes.boxes.extend(awaited_by.filter(|_| reply.is_ok()));
            if matches!(reply, Ok(Outcome::ClaimOpened)) && changes.outboxes.last() != Some(&id) {
                changes.outboxes.push(id);
            }
            replies.push(reply);
            Ok(())
        };
        run(first)?;
        while let Some(next) = commands.next_if(|next| next.partition == id) {
            run(next)?;
        }
    }
    Ok((replies, changes))
}
