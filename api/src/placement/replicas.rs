//! The replicas that this node holds, each with the work that belongs to it.
//!
//! The identity file says which they are: a replica is written down there before it starts, and after
//! it was removed. Which of them a map wants here does not matter: a node that lost its disk would start
//! one of them anew, and vote without remembering how it voted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::RwLock;
use rossby_domain::ids::{GroupId, NodeId};
use rossby_domain::placement::PLACEMENT_GROUP;
use rossby_raft::{Group, Member};
use tokio_util::sync::CancellationToken;

/// The replicas of a node.
#[derive(Default)]
pub struct Replicas(RwLock<BTreeMap<GroupId, Held>>);

struct Held {
    group: Arc<Group>,
    /// Ends the work that belongs to it.
    stop: CancellationToken,
}

impl Replicas {
    /// The replica of a group.
    #[must_use]
    pub fn get(&self, group: GroupId) -> Option<Arc<Group>> {
        self.0.read().get(&group).map(|held| held.group.clone())
    }

    /// All of them, the placement group's first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Group>> {
        self.0
            .read()
            .values()
            .map(|held| held.group.clone())
            .collect()
    }

    /// Those of groups of boxes.
    #[must_use]
    pub fn of_boxes(&self) -> Vec<Arc<Group>> {
        let mut all = self.all();
        all.retain(|group| group.id() != PLACEMENT_GROUP);
        all
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.read().is_empty()
    }

    /// The nodes of the members of all of them.
    #[must_use]
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.all().iter().flat_map(|group| group.nodes()).collect()
    }

    /// The members of all of them.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let groups = self.all();
        let statuses = groups.iter().map(|group| group.status());
        statuses
            .flat_map(|status| status.members)
            .map(|(_, member, ..)| member)
            .collect()
    }

    /// Takes a started replica in; `stop` ends the work that belongs to it.
    pub fn insert(&self, group: Arc<Group>, stop: CancellationToken) {
        self.0.write().insert(group.id(), Held { group, stop });
    }

    /// Ends the work of a replica and forgets it.
    pub fn remove(&self, group: GroupId) {
        if let Some(held) = self.0.write().remove(&group) {
            held.stop.cancel();
        }
    }
}
