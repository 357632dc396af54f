//! The state of a replica, as openraft sees it: entries are applied to the node's store, snapshots
//! are its checkpoints.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use rossby_domain::ids::{Epoch, PartitionId};
use rossby_domain::planted::{Bug, planted};
use rossby_domain::{Outcome, Rejection, Reply};
use rossby_storage::codec::decode_batch;
use rossby_storage::store::{Checkpoint, CheckpointCut, GroupStore, StoreError};
use rossby_storage::wal::GroupLog;

use crate::blocking::Blocking;
use crate::box_watch::BoxWatches;
use crate::news::News;
use crate::ownership::Ownership;
use crate::rounds::RoundCounters;
use crate::types::{
    LogId, Replies, Snapshot, SnapshotData, SnapshotMeta, StoredMembership, TypeConfig,
    encode_membership, encode_payload, log_id, position, snapshot_meta, storage_failure,
    stored_membership,
};
use crate::witness::{Deed, Line};

pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// The state of one replica.
#[derive(Debug)]
pub struct StateMachine {
    store: GroupStore,
    log: GroupLog,
    blocking: Blocking,
    ownership: Arc<Ownership>,
    watches: Arc<BoxWatches>,
    news: Arc<News>,
    disk_full: Arc<AtomicU64>,
    rounds: Arc<RoundCounters>,
    witness: Line,
}

type Payload = EntryPayload<crate::types::Proposal, rossby_domain::ids::ReplicaId, crate::Member>;

impl StateMachine {
    /// Over the replica's state; `log` is its log, which a checkpoint must not outrun.
    pub fn new(store: GroupStore, log: GroupLog, blocking: Blocking) -> Self {
        Self {
            store,
            log,
            blocking,
            ownership: Arc::default(),
            watches: Arc::default(),
            news: Arc::default(),
            disk_full: Arc::default(),
            rounds: Arc::default(),
            witness: Line::default(),
        }
    }

    pub(crate) fn witnessed(self, witness: Line) -> Self {
        Self { witness, ..self }
    }

    pub(crate) fn ownership(&self) -> Arc<Ownership> {
        self.ownership.clone()
    }

    pub(crate) fn watches(&self) -> Arc<BoxWatches> {
        self.watches.clone()
    }

    /// Tells of what is applied.
    pub(crate) fn news(&self) -> Arc<News> {
        self.news.clone()
    }

    /// Counts the checkpoints that a full disk prevented.
    pub(crate) fn disk_full(&self) -> Arc<AtomicU64> {
        self.disk_full.clone()
    }

    /// Counts the checkpoints that are written here.
    pub(crate) fn rounds(&self) -> Arc<RoundCounters> {
        self.rounds.clone()
    }

    fn apply_one(&mut self, id: &LogId, payload: Payload) -> io::Result<Vec<Reply>> {
        let at = position(id);
        match payload {
            EntryPayload::Blank => self.store.apply_blank(at).map_err(storage_failure)?,
            EntryPayload::Membership(membership) => {
                let bytes = encode_membership(&membership).into();
                self.store
                    .apply_membership(at, bytes)
                    .map_err(storage_failure)?;
            }
            EntryPayload::Normal(proposal) => {
                let replies = self
                    .store
                    .apply_batch(at, proposal.batch())
                    .map_err(storage_failure)?;
                if replies
                    .iter()
                    .any(|reply| matches!(reply, Ok(Outcome::Adopted { .. })))
                {
                    self.ownership.clear();
                }
                self.watches.changed(self.store.changed());
                self.news.applied(self.store.posted());
                return Ok(replies);
            }
        }
        Ok(Vec::new())
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = CheckpointBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied = self.store.applied();
        Ok((
            applied.position.map(log_id),
            stored_membership(applied.membership)?,
        ))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let at = position(&entry.log_id);
            let payload = entry.payload.clone();
            let replies = self.apply_one(&entry.log_id, entry.payload)?;
            self.witness
                .tell(|| Deed::Applied(at, encode_payload(&payload)));
            if !replies.is_empty() {
                self.witness.tell(|| Deed::Ruled(ruled(&payload, &replies)));
            }
            if let EntryPayload::Membership(membership) = &payload {
                self.witness.tell(|| Deed::Members {
                    at,
                    voters: membership.get_joint_config().clone(),
                    learners: membership.learner_ids().collect(),
                });
            }
            if let Some(responder) = responder {
                responder.send(Replies(replies));
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<CheckpointBuilder> {
        let builder = self.get_snapshot_builder().await;
        (force || builder.cut.is_some()).then_some(builder)
    }

    async fn get_snapshot_builder(&mut self) -> CheckpointBuilder {
        CheckpointBuilder {
            cut: self.store.cut(),
            current: self.store.current(),
            log: self.log.clone(),
            blocking: self.blocking,
            disk_full: self.disk_full.clone(),
            rounds: self.rounds.clone(),
            witness: self.witness.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        let snapshot = snapshot.ok_or(io::ErrorKind::InvalidInput)?;
        let at = snapshot.position();
        let installation = self.store.installation(snapshot);
        let installed = self.blocking.run(move || installation.run()).await?;
        installed.map_err(storage_failure)?;
        self.ownership.clear();
        self.watches.all_changed();
        self.news.applied(&[]);
        self.witness.tell(|| Deed::CheckpointInstalled(at));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.store.current().map(into_snapshot).transpose()
    }
}

/// Where the commands of an entry were carried out, at which epochs: those that were not refused as not owned.
fn ruled(payload: &Payload, replies: &[Reply]) -> BTreeSet<(PartitionId, Epoch)> {
    let EntryPayload::Normal(proposal) = payload else {
        return BTreeSet::new();
    };
    // It was decoded to be applied.
    let commands = decode_batch(proposal.batch()).map_or_else(|_| Vec::new(), |b| b.commands);
    let all = commands.iter().zip(replies);
    all.filter(|(_, reply)| !matches!(reply, Err(Rejection::NotOwner { .. })))
        .map(|(routed, _)| (routed.partition, routed.epoch))
        .collect()
}

fn into_snapshot(checkpoint: Checkpoint) -> io::Result<Snapshot> {
    Ok(Snapshot {
        meta: snapshot_meta(&checkpoint)?,
        snapshot: Some(checkpoint),
    })
}

/// Turns a frozen state into a checkpoint, beside the applying of further entries.
#[derive(Debug)]
pub struct CheckpointBuilder {
    cut: Option<CheckpointCut>,
    current: Option<Checkpoint>,
    log: GroupLog,
    blocking: Blocking,
    disk_full: Arc<AtomicU64>,
    rounds: Arc<RoundCounters>,
    witness: Line,
}

impl CheckpointBuilder {
    async fn write(&self, cut: CheckpointCut) -> io::Result<Checkpoint> {
        self.rounds.begin();
        let written = self.write_and_publish(cut).await;
        self.rounds.end();
        written
    }

    async fn write_and_publish(&self, cut: CheckpointCut) -> io::Result<Checkpoint> {
        let index = cut.position().index;
        let written = self
            .blocking
            .run(move || cut.write())
            .await?
            .map_err(store_failure)?;
        // Entries are applied when committed, which a quorum of other nodes may have done before
        // this node's own log is durable. A checkpoint beyond the durable log could not be
        // restarted from after a power cut. (State that came with an installed checkpoint may be
        // ahead of the log, until openraft purges it; that is as durable as it will be.)
        let in_log = self
            .log
            .state()
            .last
            .is_some_and(|last| last.index >= index);
        if in_log && !planted(Bug::ManifestBeforeDrain) {
            self.log
                .wait_durable(index)
                .await
                .map_err(storage_failure)?;
        }
        self.blocking
            .run(move || written.publish())
            .await?
            .map_err(store_failure)
    }
}

impl RaftSnapshotBuilder<TypeConfig> for CheckpointBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let checkpoint = match self.cut.take() {
            // Nothing was applied since the last one.
            None => self.current.clone(),
            Some(cut) => match self.write(cut).await {
                Ok(checkpoint) => {
                    let at = checkpoint.position();
                    self.witness.tell(|| Deed::CheckpointPublished(at));
                    Some(checkpoint)
                }
                // A full disk stops no replica: the state is whole, and the log is only kept
                // longer. openraft ignores a snapshot that is not newer than the last.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    tracing::warn!(%error, "no checkpoint was written");
                    self.disk_full.fetch_add(1, Ordering::AcqRel);
                    self.current.clone()
                }
                Err(error) => return Err(error),
            },
        };
        match checkpoint {
            Some(checkpoint) => into_snapshot(checkpoint),
            None => Ok(Snapshot {
                meta: SnapshotMeta::default(),
                snapshot: None,
            }),
        }
    }
}

fn store_failure(error: StoreError) -> io::Error {
    let kind = if error.is_disk_full() {
        io::ErrorKind::StorageFull
    } else {
        io::ErrorKind::Other
    };
    io::Error::new(kind, error)
}
