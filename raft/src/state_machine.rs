//! The state of a replica, as openraft sees it: entries are applied to the node's store, snapshots
//! are its checkpoints.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use rossby_domain::{Outcome, Reply};
use rossby_storage::store::{Checkpoint, CheckpointCut, GroupStore};
use rossby_storage::wal::GroupLog;

use crate::blocking::Blocking;
use crate::ownership::Ownership;
use crate::types::{
    LogId, Replies, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, encode_membership,
    log_id, position, snapshot_meta, storage_failure, stored_membership,
};

/// The state of one replica.
#[derive(Debug)]
pub struct StateMachine {
    store: GroupStore,
    log: GroupLog,
    blocking: Blocking,
    ownership: Arc<Ownership>,
}

impl StateMachine {
    /// Over the replica's state; `log` is its log, which a checkpoint must not outrun.
    pub fn new(store: GroupStore, log: GroupLog, blocking: Blocking) -> Self {
        Self { store, log, blocking, ownership: Arc::default() }
    }

    pub(crate) fn ownership(&self) -> Arc<Ownership> {
        self.ownership.clone()
    }

    fn apply_one(
        &mut self,
        id: &LogId,
        payload: EntryPayload<crate::types::Proposal, rossby_domain::ids::ReplicaId, crate::Member>,
    ) -> io::Result<Vec<Reply>> {
        let at = position(id);
        match payload {
            EntryPayload::Blank => self.store.apply_blank(at).map_err(storage_failure)?,
            EntryPayload::Membership(membership) => {
                let bytes = encode_membership(&membership).into();
                self.store.apply_membership(at, bytes).map_err(storage_failure)?;
            }
            EntryPayload::Normal(proposal) => {
                let replies =
                    self.store.apply_batch(at, proposal.batch()).map_err(storage_failure)?;
                if replies.iter().any(|reply| matches!(reply, Ok(Outcome::Adopted { .. }))) {
                    self.ownership.clear();
                }
                return Ok(replies);
            }
        }
        Ok(Vec::new())
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Checkpoint;
    type SnapshotBuilder = CheckpointBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied = self.store.applied();
        Ok((applied.position.map(log_id), stored_membership(applied.membership)?))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let replies = self.apply_one(&entry.log_id, entry.payload)?;
            if let Some(responder) = responder {
                responder.send(Replies(replies));
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<CheckpointBuilder> {
        // openraft never forces: a follower is sent the current checkpoint, which always covers
        // what was purged.
        Some(self.get_snapshot_builder().await).filter(|builder| builder.cut.is_some())
    }

    async fn get_snapshot_builder(&mut self) -> CheckpointBuilder {
        CheckpointBuilder {
            cut: self.store.cut(),
            current: self.store.current(),
            log: self.log.clone(),
            blocking: self.blocking,
        }
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        snapshot: Checkpoint,
    ) -> io::Result<()> {
        self.store.install(snapshot).map_err(storage_failure)?;
        self.ownership.clear();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.store.current().map(into_snapshot).transpose()
    }
}

fn into_snapshot(checkpoint: Checkpoint) -> io::Result<Snapshot> {
    Ok(Snapshot { meta: snapshot_meta(&checkpoint)?, snapshot: checkpoint })
}

/// Turns a frozen state into a checkpoint, beside the applying of further entries.
#[derive(Debug)]
pub struct CheckpointBuilder {
    cut: Option<CheckpointCut>,
    current: Option<Checkpoint>,
    log: GroupLog,
    blocking: Blocking,
}

impl RaftSnapshotBuilder<TypeConfig> for CheckpointBuilder {
    type SnapshotData = Checkpoint;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let Some(cut) = self.cut.take() else {
            // Nothing was applied since the last one.
            let none = || io::Error::new(io::ErrorKind::NotFound, NothingApplied);
            return into_snapshot(self.current.clone().ok_or_else(none)?);
        };
        let index = cut.position().index;
        let written = self.blocking.run(move || cut.write()).await?.map_err(storage_failure)?;
        // Entries are applied when committed, which a quorum of other nodes may have done before
        // this node's own log is durable. A checkpoint beyond the durable log could not be
        // restarted from after a power cut.
        self.log.wait_durable(index).await.map_err(storage_failure)?;
        let published =
            self.blocking.run(move || written.publish()).await?.map_err(storage_failure)?;
        into_snapshot(published)
    }
}

/// There is nothing to make a checkpoint of.
#[derive(Debug, thiserror::Error)]
#[error("nothing was applied yet")]
struct NothingApplied;

