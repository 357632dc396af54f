//! How an identifier leaves its box, once the box says that it does: its claims are released in the
//! directory, then the box drops it. Both steps may be taken by several at a time, and again.

use rossby_domain::command::{DropIdentifier, ReleaseClaim};
use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::{BoxId, GroupId, PartitionCount, PartitionId};
use rossby_domain::{Command, Outcome};
use tokio::time::Instant;

use crate::error::{ApiError, Code};
use crate::mailbox::unexpected_outcome;
use crate::router::Router;

/// An identifier on its way out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaving {
    pub box_id: BoxId,
    pub identifier: IdentifierHash,
    /// The generation under which the box lists it; 0 if it is not verified there.
    pub generation: u64,
}

impl Leaving {
    /// Takes the steps that are left.
    ///
    /// # Errors
    /// If a group does not answer in time. The same again goes on.
    pub async fn release(
        self,
        router: &Router,
        partitions: PartitionCount,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        let directory = self.identifier.partition(partitions);
        let mut generation = self.generation;
        loop {
            let release = Command::ReleaseClaim(ReleaseClaim {
                identifier: self.identifier,
                box_id: self.box_id,
                generation,
            });
            match change(router, directory, release, deadline).await? {
                // It was verified, and the box has not heard of that.
                Outcome::ClaimReleased { held: Some(held) } if held > generation => {
                    generation = held;
                }
                Outcome::ClaimReleased { .. } => break,
                other => return Err(unexpected_outcome(&other)),
            }
        }
        let drop = Command::DropIdentifier(DropIdentifier {
            box_id: self.box_id,
            identifier: self.identifier,
            generation: self.generation,
        });
        match change(router, self.box_id.partition(), drop, deadline).await? {
            Outcome::IdentifierRemoved => Ok(()),
            other => Err(unexpected_outcome(&other)),
        }
    }
}

pub(super) async fn change(
    router: &Router,
    partition: PartitionId,
    command: Command,
    deadline: Instant,
) -> Result<Outcome, ApiError> {
    let owner = router.directory().owner(partition);
    let group: GroupId = owner.ok_or(Code::NotInCluster)?;
    let commands = || vec![(partition, command.clone())];
    let mut proposed = router.propose(group, commands, deadline).await?;
    let reply = proposed.replies.pop();
    let reply = reply.ok_or_else(|| ApiError::internal("a proposal without a reply"))?;
    reply.map_err(|rejection| proposed.refusal(&rejection, Code::Internal))
}
