//! One group, as this node's replica of it sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{InitializeError as RaftInitializeError, RaftError};
use rossby_domain::ids::{BoxId, Epoch, GroupId, NodeId, PartitionCount, PartitionId, ReplicaId};
use rossby_domain::planted::{Bug, planted};
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Command, Query, Rejection, Reply, Routed};
use rossby_seams::watch;
use rossby_storage::store::{Checkpoint, Reader};
use tokio::time::Instant;

use crate::answers::{
    BackupError, CheckpointError, GroupStatus, InitializeError, Leadership, ProposeError, ReadError,
};
use crate::batcher::Batcher;
use crate::box_watch::BoxWatch;
use crate::core::{Core, Metrics, leader_member};
use crate::expiry::ClockJump;
use crate::reads::ReadCounts;
use crate::rounds::CheckpointRounds;
use crate::service_time::Hours;
use crate::{Member, leadership};

/// A running replica of a group.
pub struct Group {
    pub(crate) core: Arc<Core>,
    batcher: Batcher,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("id", &self.core.id)
            .field("replica", &self.core.replica)
            .finish_non_exhaustive()
    }
}

/// The epoch of a partition that the group does not own: none, but for a planted bug.
fn believed() -> Option<Epoch> {
    planted(Bug::SkippedEpochCheck).then_some(Epoch(1))
}

impl Group {
    /// Starts what runs beside openraft.
    pub(crate) fn start(core: Core) -> Arc<Self> {
        let core = Arc::new(core);
        tokio::spawn(leadership::watch(core.clone()));
        let batcher = Batcher::start(core.clone());
        Arc::new(Self { core, batcher })
    }

    /// Which group this is.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.core.id
    }

    /// Which replica this is.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.core.replica
    }

    /// Ends this replica for good, since its group goes on without it, and writes that down
    /// ([`Group::is_dismissed`]).
    pub async fn dismiss(&self) {
        let core = Arc::clone(&self.core);
        // On its own task: who gives up waiting must not leave openraft half-way to its end.
        let dismissing = tokio::spawn(async move { crate::members::dismiss(&core).await });
        if let Err(error) = dismissing.await {
            tracing::debug!(group = %self.id(), %error, "the dismissal was broken off");
        }
    }

    /// Proposes commands; each partition's epoch is filled in from what this group owns, and a
    /// command for a partition that it does not own is answered [`Rejection::NotOwner`]. Replies
    /// in order. Commands of concurrent calls share log entries.
    ///
    /// # Errors
    /// [`ProposeError`]; all but [`ProposeError::Unknown`] mean that nothing was proposed.
    pub async fn propose(
        &self,
        commands: Vec<(PartitionId, Command)>,
        deadline: Instant,
    ) -> Result<Vec<Reply>, ProposeError> {
        self.core.admit()?;
        self.core
            .know_owned(commands.iter().map(|(partition, _)| *partition), deadline)
            .await?;
        let mut replies: Vec<Option<Reply>> = Vec::with_capacity(commands.len());
        let mut routed = Vec::with_capacity(commands.len());
        for (partition, command) in commands {
            match self.core.epoch(partition)?.or_else(believed) {
                Some(epoch) => {
                    routed.push(Routed {
                        partition,
                        epoch,
                        command,
                    });
                    replies.push(None);
                }
                None => replies.push(Some(Err(Rejection::NotOwner { owned: None }))),
            }
        }
        let mut proposed = if routed.is_empty() {
            Vec::new()
        } else {
            self.batcher.propose(&self.core, routed, deadline).await?
        }
        .into_iter();
        let reply = |known: Option<Reply>| known.or_else(|| proposed.next());
        replies
            .into_iter()
            .map(reply)
            .collect::<Option<_>>()
            .ok_or(ProposeError::Unknown)
    }

    /// Proposes commands under epochs that the caller chose (for taking ownership).
    ///
    /// # Errors
    /// [`ProposeError`]; all but [`ProposeError::Unknown`] mean that nothing was proposed.
    pub async fn propose_routed(
        &self,
        commands: Vec<Routed>,
        deadline: Instant,
    ) -> Result<Vec<Reply>, ProposeError> {
        self.core.admit()?;
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        self.batcher.propose(&self.core, commands, deadline).await
    }

    /// Waits until this replica, the leader, has applied all that was committed before this call: by its
    /// lease if that is good, else by Raft's ReadIndex (thesis, section 6.4).
    ///
    /// # Errors
    /// [`ReadError`], by the deadline at the latest.
    pub async fn linearize(&self, deadline: Instant) -> Result<(), ReadError> {
        self.core.linearize(deadline).await
    }

    /// A linearizable read.
    ///
    /// # Errors
    /// [`ReadError`], by the deadline at the latest.
    pub async fn read(
        &self,
        partition: PartitionId,
        query: &Query,
        deadline: Instant,
    ) -> Result<Answer, ReadError> {
        self.core.linearize(deadline).await?;
        let time = if query.depends_on_time() {
            self.core.read_time_by(deadline).await
        } else {
            Timestamp::default()
        };
        self.core.query(partition, time, query)
    }

    /// A read of what this replica has applied, however old.
    ///
    /// # Errors
    /// [`ReadError::Stopped`].
    pub fn read_local(&self, partition: PartitionId, query: &Query) -> Result<Answer, ReadError> {
        if self.core.has_ended() {
            return Err(ReadError::Stopped);
        }
        self.core.query(partition, self.core.read_time(), query)
    }

    /// Watches a box, as this replica applies what is committed. Whoever reads after this call, and
    /// again after each change, misses nothing.
    #[must_use]
    pub fn watch_box(&self, box_id: BoxId) -> BoxWatch {
        self.core.watches.watch(box_id)
    }

    /// Tells of all commands that this replica applies.
    #[must_use]
    pub fn watch_applied(&self) -> watch::Receiver<u64> {
        self.core.news.watch()
    }

    /// Waits until verification codes came into an outbox here since this last returned; of which partitions. For one
    /// that waits; nothing is lost if it gives up.
    pub async fn codes_posted(&self) -> BTreeSet<PartitionId> {
        self.core.news.posted().await
    }

    /// Waits until this replica has applied more than the entry at this index, or anything; up to which
    /// entry it has. `None` once it has stopped.
    pub async fn applied_beyond(&self, index: Option<u64>) -> Option<u64> {
        let mut metrics = self.core.raft.metrics();
        loop {
            {
                let metrics = metrics.borrow_watched();
                if metrics.running_state.is_err() || self.core.has_ended() {
                    return None;
                }
                let applied = metrics.last_applied.as_ref().map(|id| id.index);
                if applied > index {
                    return applied;
                }
            }
            tokio::select! {
                biased;
                changed = metrics.changed() => changed.ok()?,
                () = self.core.stop.cancelled() => return None,
            }
        }
    }

    /// Reads this replica's state directly.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.core.reader.clone()
    }

    /// The checkpoints that this replica has begun and ended to write since it started.
    #[must_use]
    pub fn checkpoint_rounds(&self) -> CheckpointRounds {
        self.core.rounds.read()
    }

    /// The epoch at which the group owns a partition, as applied here.
    #[must_use]
    pub fn epoch(&self, partition: PartitionId) -> Option<Epoch> {
        self.core.epoch(partition).ok().flatten()
    }

    /// The partitions that the group owns, of so many, as applied here; none if that can't be read.
    #[must_use]
    pub fn owned(&self, count: PartitionCount) -> Arc<[PartitionId]> {
        self.core.owned(count).unwrap_or_default()
    }

    /// Why the replica stopped, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        // Whoever is told that the group stopped is told why, though the watcher has not looked yet.
        self.core
            .with_metrics(|metrics| self.core.note_end(metrics));
        self.core.failure.lock().clone()
    }

    /// The nodes of all members.
    #[must_use]
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.core.with_metrics(|metrics| {
            let members = metrics.membership_config.nodes();
            members.map(|(_, member)| member.node).collect()
        })
    }

    /// Who leads.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        self.core.leadership.borrow().clone()
    }

    /// Whether this replica leads as far as it knows: [`Self::leadership`] in short. A proposal or a
    /// read finds out.
    #[must_use]
    pub fn leads(&self) -> bool {
        matches!(*self.core.leadership.borrow(), Leadership::Here { .. })
    }

    /// Whether what can be left undone should be: much waits here, though proposals may still be taken, or none are taken at all.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.core.memory_presses() || self.batcher.is_busy() || self.core.admit().is_err()
    }

    /// Whether it rests, since nothing is asked of it.
    #[must_use]
    pub fn rests(&self) -> bool {
        self.core.rest.rests()
    }

    /// How long this replica has led, if it leads as far as it knows.
    #[must_use]
    pub fn leads_for(&self) -> Option<Duration> {
        let reign = *self.core.reign.lock();
        let led = self.core.led_term();
        let reign = reign.filter(|reign| led == Some(reign.term))?;
        Some(reign.began.elapsed())
    }

    /// Changes of [`Self::leadership`].
    #[must_use]
    pub fn watch_leadership(&self) -> watch::Receiver<Leadership> {
        self.core.leadership.subscribe()
    }

    /// Whether this replica leads and heard from a quorum within the shortest election timeout,
    /// so that no other leader can have been elected meanwhile: voters refuse to elect another for
    /// longer than that after they heard from this one. (But for voters that started again since, and for a
    /// machine that was suspended; so this guards no reads.)
    #[must_use]
    pub fn leads_surely(&self) -> bool {
        self.core.leads_surely()
    }

    /// Whether this replica leads and its lease is good, so that no other can have been elected: what guards reads,
    /// if they may go by it.
    #[must_use]
    pub fn leads_by_lease(&self) -> bool {
        self.core.leads_by_lease()
    }

    /// The reads that this replica has confirmed since it started.
    #[must_use]
    pub fn read_counts(&self) -> ReadCounts {
        self.core.reads.counts()
    }

    /// The term, if this replica leads as far as it knows.
    #[must_use]
    pub fn led_term(&self) -> Option<u64> {
        self.core.led_term()
    }

    /// The signed times that this replica answers for as leader of a term; `None` if it does not
    /// lead, or before a first read was confirmed.
    #[must_use]
    pub fn hours(&self, term: u64) -> Option<Hours> {
        (self.core.led_term() == Some(term)).then(|| self.core.time.hours(term))?
    }

    /// Moves [`Hours::covered`] up to `until` if it is not there: by a stamp in the log, in a partition
    /// that this group owns. (It stays below if `until` is ahead of the service's time.)
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn cover(
        &self,
        partition: PartitionId,
        until: Timestamp,
        deadline: Instant,
    ) -> Result<(), ProposeError> {
        self.core.cover(partition, until, deadline).await
    }

    /// The service's time: this node's clock or, if that is behind the log or out of step, the
    /// log's time and what has passed since.
    #[must_use]
    pub fn service_time(&self) -> Timestamp {
        self.core.service_time()
    }

    /// The same, but waits a little for the peers' clocks if they are not known yet.
    pub async fn service_time_by(&self, deadline: Instant) -> Timestamp {
        self.core.service_time_by(deadline).await
    }

    /// Whether the group has come to life, as this replica's log and vote show. [`Self::status`] may not show its members
    /// yet while the replica starts.
    ///
    /// # Errors
    /// [`InitializeError::Stopped`].
    pub async fn is_initialized(&self) -> Result<bool, InitializeError> {
        let initialized = self.core.raft.is_initialized().await;
        initialized.map_err(|_| InitializeError::Stopped)
    }

    /// Brings the group to life with these members, all of them voters. Once, on one replica.
    ///
    /// # Errors
    /// [`InitializeError`]; the group is then as it was.
    pub async fn initialize(
        &self,
        members: BTreeMap<ReplicaId, Member>,
    ) -> Result<(), InitializeError> {
        self.core
            .raft
            .initialize(members)
            .await
            .map_err(|error| match error {
                RaftError::APIError(RaftInitializeError::NotAllowed(_)) => {
                    InitializeError::AlreadyInitialized
                }
                RaftError::APIError(RaftInitializeError::NotInMembers(_)) => {
                    InitializeError::NotAMember
                }
                RaftError::Fatal(_) => InitializeError::Stopped,
            })
    }

    /// Hands leadership to the replica on a node, or to the best one; the new leader.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`] if this replica does not lead, [`ProposeError::NoQuorum`] if
    /// nobody there could take over, [`ProposeError::Unknown`] if it is not known by the deadline
    /// who leads, [`ProposeError::Stopped`].
    pub async fn transfer_leader(
        &self,
        to: Option<NodeId>,
        deadline: Instant,
    ) -> Result<Member, ProposeError> {
        leadership::transfer(&self.core, to, deadline).await
    }

    /// The time by which mail may expire now; `None` if this replica does not lead, does not know the
    /// group's time, or doubts its clock.
    #[must_use]
    pub fn expires_by(&self) -> Option<Timestamp> {
        let time = self.core.read_time();
        (time > Timestamp::default()).then_some(time)
    }

    /// Takes this node's clock for right on the operator's word, so that mail expires again; the
    /// jump that was in doubt, if any. It lasts beyond this term once any command is applied.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`] if this replica does not lead, [`ProposeError::NoQuorum`] if that
    /// is not sure by the deadline, [`ProposeError::ClockUnsafe`] if the clock is out of step with
    /// its peers, [`ProposeError::Stopped`].
    pub async fn confirm_time(&self, deadline: Instant) -> Result<Option<ClockJump>, ProposeError> {
        self.core.confirm_time(deadline).await
    }

    /// Writes a checkpoint now; the index it is at.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub async fn checkpoint(&self) -> Result<u64, CheckpointError> {
        self.core.checkpoint().await
    }

    /// The last checkpoint here. Its files stay as long as a clone of it lives.
    ///
    /// # Errors
    /// [`CheckpointError::NothingApplied`] if there is none, [`CheckpointError::Stopped`].
    pub async fn last_checkpoint(&self) -> Result<Checkpoint, CheckpointError> {
        let snapshot = self.core.raft.get_snapshot().await;
        snapshot
            .map_err(|_| CheckpointError::Stopped)?
            .and_then(|snapshot| snapshot.snapshot)
            .ok_or(CheckpointError::NothingApplied)
    }

    /// A checkpoint here, whether this replica leads or not, that holds everything that was
    /// acknowledged before this call. The deadline is for hearing of that; writing takes what it
    /// takes.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn checkpoint_of_now(&self, deadline: Instant) -> Result<Checkpoint, BackupError> {
        self.core.catch_up(deadline).await?;
        Ok(self.checkpoint_of_applied().await?)
    }

    /// A checkpoint that holds everything that this replica has applied, whether it sees a quorum
    /// or not.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub async fn checkpoint_of_applied(&self) -> Result<Checkpoint, CheckpointError> {
        self.core.checkpoint().await?;
        self.last_checkpoint().await
    }

    /// The group's figures.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        let expiry_blocked = self.core.clock_jump();
        let time_ahead_ms = self.core.time_ahead_ms();
        self.core.with_metrics(|metrics| {
            self.core.note_end(metrics);
            let index = |id: &Option<crate::types::LogId>| id.as_ref().map(|id| id.index);
            let membership = &metrics.membership_config;
            let voters: Vec<ReplicaId> = membership.voter_ids().collect();
            let matching = |replica: &ReplicaId| {
                let progress = metrics.replication.as_ref()?.get(replica)?;
                progress.as_ref().map(|id| id.index)
            };
            let member = |(replica, member): (&ReplicaId, &Member)| {
                (
                    *replica,
                    member.clone(),
                    voters.contains(replica),
                    matching(replica),
                )
            };
            let trouble = |(replica, member): (&ReplicaId, &Member)| {
                let trouble = self.core.links.trouble(member)?;
                Some((*replica, trouble))
            };
            let leader = metrics.current_leader.zip(leader_member(metrics));
            GroupStatus {
                group: self.core.id,
                replica: self.core.replica,
                role: self.role(metrics),
                term: metrics.current_term,
                leader,
                last_log_index: metrics.last_log_index,
                committed_index: index(&metrics.local_committed),
                applied_index: index(&metrics.last_applied),
                checkpoint_index: index(&metrics.snapshot),
                purged_index: index(&metrics.purged),
                members: membership.nodes().map(member).collect(),
                resting: self.core.rest.rests(),
                joint: membership.get_joint_config().len() > 1,
                trouble: membership.nodes().filter_map(trouble).collect(),
                removed: self.is_dismissed(),
                failure: self.core.failure.lock().clone(),
                expiry_blocked,
                time_ahead_ms,
            }
        })
    }

    fn role(&self, metrics: &Metrics) -> &'static str {
        if self.is_dismissed() {
            return "removed";
        }
        if metrics.running_state.is_err() || self.core.has_ended() {
            return "stopped";
        }
        match metrics.state {
            ServerState::Learner => "learner",
            ServerState::Follower => "follower",
            ServerState::Candidate => "candidate",
            ServerState::Leader => "leader",
            ServerState::Shutdown => "stopped",
        }
    }
}
