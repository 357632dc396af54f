//! What handles and the writer share: the state as submitted, and the queue between the two.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use rossby_domain::ids::{GroupId, ReplicaId};
use tokio::sync::{Notify, oneshot};

use super::index::Index;
use super::record::{Place, Record};
use super::segment::Segment;
use super::{OnDurable, WalError};
use crate::LogPosition;

/// How a waiter learns of its outcome.
pub(super) enum Done {
    /// By a call.
    Call(OnDurable),
    /// By a message.
    Send(oneshot::Sender<Result<(), WalError>>),
}

impl Done {
    pub(super) fn tell(self, outcome: Result<(), WalError>) {
        match self {
            Self::Call(call) => call(outcome),
            // A receiver that is gone has stopped waiting.
            Self::Send(sender) => drop(sender.send(outcome)),
        }
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Done")
    }
}

/// A place in the queue.
#[derive(Debug)]
pub(super) enum Item {
    /// Something to write. The ticket is that of the entry's slot.
    Record { record: Record, ticket: u32 },
    /// Somebody to tell once all before it is durable.
    Done(Done),
}

#[derive(Debug)]
pub(super) struct GroupState {
    pub(super) replica: ReplicaId,
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<LogPosition>,
    pub(super) index: Index,
    pub(super) waiters: Vec<(u64, oneshot::Sender<Result<(), WalError>>)>,
}

impl GroupState {
    pub(super) fn new(replica: ReplicaId) -> Self {
        Self {
            replica,
            vote: None,
            committed: None,
            index: Index::default(),
            waiters: Vec::new(),
        }
    }

    /// Tells those who wait for entries that are durable, or will never be.
    pub(super) fn tell_waiters(&mut self, group: GroupId) {
        let waiting = std::mem::take(&mut self.waiters);
        for (index, sender) in waiting {
            let outcome = match self.index.is_durable(index) {
                Some(false) => {
                    self.waiters.push((index, sender));
                    continue;
                }
                Some(true) => Ok(()),
                None => Err(WalError::NoSuchEntry { group, index }),
            };
            Done::Send(sender).tell(outcome);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) groups: BTreeMap<GroupId, GroupState>,
    pub(super) removed: BTreeSet<(GroupId, ReplicaId)>,
    pub(super) segments: BTreeMap<u32, Arc<Segment>>,
    pub(super) queue: VecDeque<Item>,
    /// Groups whose committed mark is to go with the next drain that empties the queue.
    pub(super) marks: BTreeSet<GroupId>,
    /// What the records in the queue will take.
    pub(super) queued_bytes: u64,
    /// What the queue may grow to by entries before space on disk is no longer certain.
    pub(super) room_bytes: u64,
    /// Nothing more is let in: what is prepared has to last.
    pub(super) disk_full: bool,
    /// The end of the last drain.
    pub(super) end: Place,
    pub(super) failure: Option<WalError>,
    pub(super) closed: bool,
    /// Somebody was refused for lack of space: the writer should look again.
    pub(super) look_again: bool,
    pub(super) next_ticket: u32,
}

impl Inner {
    /// Refuses once the log has failed or was closed.
    pub(super) fn check_open(&self) -> Result<(), WalError> {
        match (&self.failure, self.closed) {
            (Some(failure), _) => Err(failure.clone()),
            (None, true) => Err(WalError::Closed),
            (None, false) => Ok(()),
        }
    }

    /// The state of a group, if that replica of it is the one held here.
    pub(super) fn group(
        &mut self,
        group: GroupId,
        replica: ReplicaId,
    ) -> Result<&mut GroupState, WalError> {
        if self.removed.contains(&(group, replica)) {
            return Err(WalError::ReplicaRemoved { group, replica });
        }
        let state = self
            .groups
            .entry(group)
            .or_insert_with(|| GroupState::new(replica));
        if state.replica != replica {
            let held = state.replica;
            return Err(WalError::OtherReplica {
                group,
                asked: replica,
                held,
            });
        }
        Ok(state)
    }

    pub(super) fn ticket(&mut self) -> u32 {
        self.next_ticket = self.next_ticket.wrapping_add(1);
        self.next_ticket
    }

    pub(super) fn push(&mut self, record: Record, ticket: u32) {
        self.queued_bytes += record.span() as u64;
        self.queue.push_back(Item::Record { record, ticket });
    }

    pub(super) fn has_work(&self) -> bool {
        !self.queue.is_empty() || self.look_again || self.closed
    }

    /// Keeps the cache within its limit, taking from the group that holds the most.
    pub(super) fn evict(&mut self, limit: u64) {
        let mut total: u64 = self
            .groups
            .values()
            .map(|group| group.index.cached_bytes())
            .sum();
        while total > limit {
            let largest = self
                .groups
                .values_mut()
                .max_by_key(|group| group.index.cached_bytes());
            let Some(index) = largest.map(|group| &mut group.index) else {
                return;
            };
            // Half of it at a time, so that the search is rare.
            let target = index.cached_bytes() / 2;
            let before = total;
            while total > limit && index.cached_bytes() > target {
                let Some(freed) = index.evict_one() else {
                    return;
                };
                total -= freed;
            }
            if before == total {
                return;
            }
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) inner: Mutex<Inner>,
    /// Wakes the writer's thread.
    pub(super) work: Condvar,
    /// Wakes the writer's task.
    pub(super) ready: Notify,
    pub(super) entry_limit: usize,
    pub(super) segment_bytes: u32,
    /// What a drain that needs a new segment may leave unused in the old one.
    pub(super) drain_bytes: u64,
}

impl Shared {
    pub(super) fn wake(&self) {
        self.work.notify_one();
        self.ready.notify_one();
    }
}
