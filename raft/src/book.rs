//! Where the replicas of a group are now: openraft's network clients keep the address that they were made
//! with, but nodes move. And whom a replica may ask of its group before it knows one of the others.

use std::collections::BTreeMap;

use parking_lot::RwLock;
use rossby_domain::ids::ReplicaId;

use crate::Member;

/// The newest known member of each replica.
#[derive(Debug, Default)]
pub(crate) struct AddressBook(RwLock<BTreeMap<ReplicaId, Member>>);

impl AddressBook {
    /// Takes the place of all that was known.
    pub(crate) fn set<'a>(&self, members: impl Iterator<Item = (&'a ReplicaId, &'a Member)>) {
        let members = members.map(|(replica, member)| (*replica, member.clone()));
        *self.0.write() = members.collect();
    }

    /// Where a replica is; `known` if the book does not say.
    pub(crate) fn find(&self, replica: ReplicaId, known: &Member) -> Member {
        let members = self.0.read();
        members.get(&replica).unwrap_or(known).clone()
    }
}

/// The other nodes of the cluster, whatever they hold. A replica that was invited, and dropped again before
/// its group's leader ever spoke to it, knows no other member: from one of these it hears what became of it.
#[derive(Debug, Default)]
pub(crate) struct Acquaintances(RwLock<Vec<Member>>);

impl Acquaintances {
    /// Takes the place of all that were known.
    pub(crate) fn set(&self, nodes: Vec<Member>) {
        *self.0.write() = nodes;
    }

    pub(crate) fn all(&self) -> Vec<Member> {
        self.0.read().clone()
    }
}
