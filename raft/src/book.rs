//! Where the replicas of a group are now. openraft's network clients keep the address that they were made
//! with, but nodes move.

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
