//! What the parts of a running replica share, and what they ask of it: whether it leads, whether a
//! proposal or a read would be taken now, who the others are.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, RaftMetrics, ServerState};
use parking_lot::Mutex;
use rossby_domain::ids::{Epoch, GroupId, NodeId, PartitionCount, PartitionId, ReplicaId};
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Query};
use rossby_seams::watch;
use rossby_storage::store::{Reader, Store, StoreError};
use rossby_storage::wal::Wal;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Member;
use crate::answers::{Leadership, ProposeError, ReadError};
use crate::book::{Acquaintances, AddressBook};
use crate::box_watch::BoxWatches;
use crate::clock_quorum::ClockQuorum;
use crate::expiry::Expiry;
use crate::heard::Heard;
use crate::lease::Lease;
use crate::links::Links;
use crate::looks::Looks;
use crate::news::News;
use crate::ownership::Ownership;
use crate::reads::Reads;
use crate::rest::Rest;
use crate::rounds::RoundCounters;
use crate::service_time::ServiceTime;
use crate::shipping::Shipping;
use crate::state_machine::Raft;
use crate::timing::Timing;
use crate::types::TypeConfig;

pub(crate) type Metrics = RaftMetrics<TypeConfig>;

/// The leader sheds proposals above this share of the overlay budget, in hundredths.
const SHED_PERCENT: u64 = 70;
/// Above this share of it a replica is busy, in hundredths: before anything is shed, and after a checkpoint was asked for.
const BUSY_PERCENT: u64 = 50;

/// What the parts of a running replica share.
pub(crate) struct Core {
    pub(crate) id: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) raft: Raft,
    pub(crate) reader: Reader,
    pub(crate) ownership: Arc<Ownership>,
    pub(crate) watches: Arc<BoxWatches>,
    pub(crate) news: Arc<News>,
    pub(crate) wal: Wal,
    pub(crate) store: Store,
    pub(crate) clocks: Arc<ClockQuorum>,
    pub(crate) links: Links,
    pub(crate) book: Arc<AddressBook>,
    pub(crate) acquaintances: Arc<Acquaintances>,
    pub(crate) timing: Timing,
    pub(crate) shipping: Arc<Shipping>,
    pub(crate) checkpoint_log_bytes: u64,
    pub(crate) disk_full: Arc<AtomicU64>,
    pub(crate) rounds: Arc<RoundCounters>,
    pub(crate) overlay_budget_bytes: u64,
    pub(crate) leadership: watch::Sender<Leadership>,
    /// Who looks who leads does so alone: what an earlier look saw must not come after what a later one did.
    pub(crate) observing: Mutex<()>,
    pub(crate) heard: Arc<Heard>,
    pub(crate) reign: Mutex<Option<Reign>>,
    pub(crate) handing_over: AtomicBool,
    pub(crate) failure: Mutex<Option<String>>,
    pub(crate) expiry: Expiry,
    pub(crate) time: ServiceTime,
    pub(crate) lease: Arc<Lease>,
    pub(crate) lease_reads: bool,
    pub(crate) reads: Reads,
    pub(crate) rest: Arc<Rest>,
    /// Whether a leader without a quorum holds its heartbeats back just now.
    pub(crate) silent: AtomicBool,
    pub(crate) looks: Looks,
    /// Whether this replica was removed from the group, and has ended.
    pub(crate) dismissed: CancellationToken,
    /// Something failed: openraft ends, or is about to be ended.
    pub(crate) failed: CancellationToken,
    /// The replica's tasks end.
    pub(crate) stop: CancellationToken,
}

/// A term in which this replica leads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reign {
    pub(crate) term: u64,
    pub(crate) began: Instant,
}

impl Core {
    /// Whether it serves no more: it was stopped, or something failed.
    pub(crate) fn has_ended(&self) -> bool {
        self.stop.is_cancelled() || self.failed.is_cancelled()
    }

    /// Runs `look` on openraft's figures. Nothing may be awaited meanwhile: openraft waits too.
    pub(crate) fn with_metrics<T>(&self, look: impl FnOnce(&Metrics) -> T) -> T {
        look(&self.raft.metrics().borrow_watched())
    }

    /// Whether a proposal would be taken now.
    pub(crate) fn admit(&self) -> Result<(), ProposeError> {
        self.admit_read()?;
        if self.store.overlay_bytes() >= self.overlay_budget_bytes / 100 * SHED_PERCENT {
            return Err(ProposeError::Overloaded);
        }
        if !self.wal.accepts_entries() {
            self.check_log()?;
            return Err(ProposeError::DiskFull);
        }
        Ok(())
    }

    /// Whether so much waits in memory that what can be left undone should be.
    pub(crate) fn memory_presses(&self) -> bool {
        self.store.overlay_bytes() >= self.overlay_budget_bytes / 100 * BUSY_PERCENT
    }

    /// Stops the group if its log has failed, which openraft learns only when it next writes.
    pub(crate) fn check_log(&self) -> Result<(), ReadError> {
        match self.wal.failure() {
            Some(failure) => {
                self.fail(&format!("the log has failed: {failure}"));
                Err(ReadError::Stopped)
            }
            None => Ok(()),
        }
    }

    /// Whether this replica leads and, as far as it can know now, has a quorum.
    pub(crate) fn admit_read(&self) -> Result<(), ReadError> {
        self.admit_leader(|metrics| {
            // A leader of the last moment has not heard from anybody yet.
            let fresh = self.reign.lock().is_none_or(|reign| {
                reign.term != metrics.current_term
                    || reign.began.elapsed() < self.timing.election_max
            });
            fresh || self.quorum_heard_within(metrics, self.timing.election_max)
        })
    }

    /// Whether this replica leads and may have a quorum, as its figures tell.
    pub(crate) fn admit_leader(
        &self,
        has_quorum: impl FnOnce(&Metrics) -> bool,
    ) -> Result<(), ReadError> {
        if self.has_ended() {
            return Err(ReadError::Stopped);
        }
        self.with_metrics(|metrics| {
            if metrics.running_state.is_err() {
                return Err(ReadError::Stopped);
            }
            if metrics.state != ServerState::Leader {
                return Err(ReadError::NotLeader {
                    leader: leader_member(metrics),
                });
            }
            if has_quorum(metrics) {
                Ok(())
            } else {
                Err(ReadError::NoQuorum)
            }
        })
    }

    /// Whether this replica leads and its lease is good, as its figures tell.
    pub(crate) fn leads_by_lease(&self) -> bool {
        let by_lease = self.admit_leader(|metrics| {
            let voters = metrics.membership_config.get_joint_config();
            self.lease
                .is_good(metrics.current_term, self.replica, voters)
        });
        by_lease.is_ok()
    }

    fn quorum_heard_within(&self, metrics: &Metrics, limit: Duration) -> bool {
        let mut voters = metrics.membership_config.voter_ids();
        let alone = voters.next() == Some(self.replica) && voters.next().is_none();
        alone
            || metrics
                .last_quorum_acked
                .is_some_and(|heard| heard.elapsed() < limit)
            || self.quorum_rests_since(metrics, limit)
    }

    /// Whether the nodes of a quorum said within `limit` that this leader's group rests there.
    fn quorum_rests_since(&self, metrics: &Metrics, limit: Duration) -> bool {
        let membership = &metrics.membership_config;
        let heard = |voter: &&ReplicaId| {
            **voter == self.replica
                || membership.get_node(voter).is_some_and(|member| {
                    self.rest
                        .acked_within(metrics.current_term, member.node, limit)
                })
        };
        let mut configs = membership.get_joint_config().iter();
        configs.all(|voters| voters.iter().filter(heard).count() > voters.len() / 2)
    }

    /// Whether something is under way that a group at rest would hold up.
    pub(crate) fn is_busy(&self) -> bool {
        self.has_ended() || self.handing_over.load(Ordering::Acquire) || self.shipping.holds()
    }

    /// The nodes of the voters, each once: one that replaces itself has two replicas for a while.
    pub(crate) fn voter_nodes(&self) -> Vec<NodeId> {
        let nodes: BTreeSet<NodeId> = self.with_metrics(|metrics| {
            let membership = &metrics.membership_config;
            let node = |voter| membership.get_node(&voter).map(|member| member.node);
            membership.voter_ids().filter_map(node).collect()
        });
        nodes.into_iter().collect()
    }

    /// All members, learners too.
    pub(crate) fn members(&self) -> Vec<Member> {
        self.with_metrics(|metrics| {
            metrics
                .membership_config
                .nodes()
                .map(|(_, member)| member.clone())
                .collect()
        })
    }

    pub(crate) fn epoch(&self, partition: PartitionId) -> Result<Option<Epoch>, ReadError> {
        self.ownership
            .epoch(partition, || self.applied_epoch(partition))
    }

    /// The partitions that the group owns, of so many.
    pub(crate) fn owned(&self, count: PartitionCount) -> Result<Arc<[PartitionId]>, ReadError> {
        self.ownership
            .owned(count, |partition| self.applied_epoch(partition))
    }

    fn applied_epoch(&self, partition: PartitionId) -> Result<Option<Epoch>, ReadError> {
        let time = Timestamp::default();
        match self.query(partition, time, &Query::Ownership(partition))? {
            Answer::Ownership { epoch, .. } => Ok(epoch),
            _ => Err(ReadError::Stopped),
        }
    }

    /// Makes sure that what seems not to be owned is not: a new leader may not have applied yet
    /// what its predecessors committed.
    pub(crate) async fn know_owned(
        &self,
        mut partitions: impl Iterator<Item = PartitionId>,
        deadline: Instant,
    ) -> Result<(), ReadError> {
        let unowned = |partition| self.epoch(partition).map(|epoch| epoch.is_none());
        let any = partitions.try_fold(false, |any, partition| Ok(any || unowned(partition)?))?;
        if any {
            self.linearize(deadline).await
        } else {
            Ok(())
        }
    }

    /// What the applied state answers; `time` is that of [`Self::read_time`].
    pub(crate) fn query(
        &self,
        partition: PartitionId,
        time: Timestamp,
        query: &Query,
    ) -> Result<Answer, ReadError> {
        let answer = self.reader.query(partition, time, query);
        answer.map_err(|error| self.unreadable(&error))
    }

    /// The state could not be read: the group stops, unless only too many files are open.
    pub(crate) fn unreadable(&self, error: &StoreError) -> ReadError {
        if error.is_too_many_files() {
            tracing::warn!(group = %self.id, %error, "a read was refused");
            return ReadError::TooManyFiles;
        }
        self.fail(&format!("the state can not be read: {error}"));
        ReadError::Stopped
    }

    /// Stops the group on this node for good; the first reason is kept.
    pub(crate) fn fail(&self, reason: &str) {
        let mut failure = self.failure.lock();
        if failure.is_none() && !self.stop.is_cancelled() {
            tracing::warn!(group = %self.id, replica = %self.replica, reason, "the group has stopped");
            *failure = Some(reason.to_owned());
        }
        // Its tasks end once openraft has (`leadership::watch`).
        self.failed.cancel();
    }

    /// Stops the group if openraft has ended, and keeps its reason.
    pub(crate) fn note_end(&self, metrics: &Metrics) {
        if let Err(reason) = &metrics.running_state {
            self.fail(&reason.to_string());
        }
    }

    pub(crate) fn leads_surely(&self) -> bool {
        !self.handing_over.load(Ordering::Acquire)
            && !self.has_ended()
            && self.with_metrics(|metrics| {
                metrics.running_state.is_ok()
                    && metrics.state == ServerState::Leader
                    && self.quorum_heard_within(metrics, self.timing.election_min)
            })
    }
}

/// The member that leads, as openraft's figures say.
pub(crate) fn leader_member(metrics: &Metrics) -> Option<Member> {
    let leader = metrics.current_leader?;
    metrics.membership_config.get_node(&leader).cloned()
}
