//! The beginning of a replica whose state comes from a backup: what its membership and its log must
//! say before it starts for the first time.

use std::collections::BTreeMap;

use bytes::Bytes;
use rossby_domain::ids::ReplicaId;
use rossby_storage::LogPosition;
use rossby_storage::wal::{GroupLog, WalError};

use crate::Member;
use crate::log_store::encode_vote;
use crate::types::{EntryError, Membership, Vote, decode_membership, encode_membership};

/// The membership of a group of one, as a checkpoint holds it. `None` only if openraft does not
/// take it for a membership.
#[must_use]
pub fn sole_member(replica: ReplicaId, member: Member) -> Option<Bytes> {
    let voters = vec![std::iter::once(replica).collect()];
    let members = BTreeMap::from([(replica, member)]);
    let membership = Membership::new(voters, members).ok()?;
    Some(encode_membership(&membership).into())
}

/// The members that a checkpoint's membership names.
///
/// # Errors
/// [`EntryError`] if the bytes are no membership.
pub fn replicas_in(membership: &[u8]) -> Result<BTreeMap<ReplicaId, Member>, EntryError> {
    let membership = decode_membership(membership)?;
    Ok(membership
        .nodes()
        .map(|(replica, member)| (*replica, member.clone()))
        .collect())
}

/// Makes an empty log begin where a checkpoint ends. Returns when that is durable.
///
/// The vote stands in the checkpoint's term, so that the next election is for a later one: entries
/// of the new replica must come after those that the checkpoint holds.
///
/// # Errors
/// The log has failed or is closed.
pub async fn begin_restored_log(log: &GroupLog, at: LogPosition) -> Result<(), WalError> {
    let vote = Vote::new(at.term, log.replica());
    log.save_vote(encode_vote(&vote).into()).await?;
    log.purge(at).await
}
