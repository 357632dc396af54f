//! How an identifier goes from a box whose devices are lost to a new one: proven by its code, told to the old box,
//! and moved after a delay, unless a device of the old box says no (`domain/src/contest.rs`).
//!
//! Each step is idempotent, and Authorize takes those that are left whenever it is called again. The delay begins
//! with the last of them.

use rossby_domain::claim::CodeMac;
use rossby_domain::command::{AwaitReset, LoseIdentifier, NoteReset, ProveReset, StartReset};
use rossby_domain::contest::longest_ms;
use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::{BoxId, GroupId, PartitionCount};
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Command, Outcome, Query};
use tokio::time::Instant;

use super::releasing::change;
use crate::call::Call;
use crate::error::{ApiError, Code};
use crate::mailbox::{MailboxService, unexpected_answer, unexpected_outcome};
use crate::router::Router;

/// A new box that wants an identifier.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resetting {
    pub identifier: IdentifierHash,
    pub box_id: BoxId,
}

impl Resetting {
    /// Gives the identifier to the box, if it is free or the delay is over; the generation of its claim.
    ///
    /// # Errors
    /// [`Code::ResetWaits`], with how long, once all is done for the delay to run; and what a code is refused with.
    pub async fn prove(
        self,
        service: &MailboxService,
        call: &Call,
        code: CodeMac,
    ) -> Result<u64, ApiError> {
        let delay_ms = service.config.limits.reset_delay_ms;
        let Self { identifier, box_id } = self;
        let prove = Command::ProveReset(ProveReset {
            identifier,
            box_id,
            code,
            delay_ms,
        });
        match self.in_directory(service, call, prove).await? {
            Outcome::ClaimVerified { generation } => Ok(generation),
            Outcome::ResetWaits {
                completes_at: Some(at),
                ..
            } => Err(waits(at)),
            Outcome::ResetWaits { owner, serial, .. } => {
                Err(self.begin(service, call, owner, serial).await?)
            }
            other => Err(unexpected_outcome(&other)),
        }
    }

    /// Tells the owner, keeps the new box, and lets the delay run.
    async fn begin(
        self,
        service: &MailboxService,
        call: &Call,
        owner: BoxId,
        serial: u64,
    ) -> Result<ApiError, ApiError> {
        let delay_ms = service.config.limits.reset_delay_ms;
        let Self { identifier, box_id } = self;
        let note = Command::NoteReset(NoteReset {
            box_id: owner,
            identifier,
            serial,
            delay_ms,
        });
        let noting = service.change(owner.partition(), note, Code::Internal, call.deadline);
        noting.await?;
        let keep = Command::AwaitReset(AwaitReset {
            box_id,
            keep_ms: longest_ms(delay_ms),
        });
        let unknown = Code::NoCodeRequested;
        let keeping = service.change(box_id.partition(), keep, unknown, call.deadline);
        keeping.await?;
        let start = Command::StartReset(StartReset {
            identifier,
            box_id,
            serial,
            delay_ms,
        });
        match self.in_directory(service, call, start).await? {
            Outcome::ResetWaits {
                completes_at: Some(at),
                ..
            } => Ok(waits(at)),
            other => Err(unexpected_outcome(&other)),
        }
    }

    async fn in_directory(
        self,
        service: &MailboxService,
        call: &Call,
        command: Command,
    ) -> Result<Outcome, ApiError> {
        let partition = self.identifier.partition(service.config.partitions);
        let changing = service.change(partition, command, Code::NoCodeRequested, call.deadline);
        changing.await
    }
}

/// It is to be had later.
fn waits(at: Timestamp) -> ApiError {
    ApiError::from(Code::ResetWaits).with_metadata("completes_at_ms", at.as_millis())
}

/// Takes an identifier off the list of the box that had it, if its owner got it by a reset.
///
/// # Errors
/// If a group does not answer in time. The same again goes on.
pub(crate) async fn settle_former(
    router: &Router,
    partitions: PartitionCount,
    (identifier, box_id): (IdentifierHash, BoxId),
    deadline: Instant,
) -> Result<(), ApiError> {
    let directory = identifier.partition(partitions);
    let owner = router.directory().owner(directory);
    let group: GroupId = owner.ok_or(Code::NotInCluster)?;
    let query = Query::FormerOwner { identifier, box_id };
    let Answer::FormerOwner(former) = router.ask(group, directory, query, deadline).await? else {
        return Err(unexpected_answer("FormerOwner"));
    };
    let Some(former) = former else {
        return Ok(());
    };
    let lose = Command::LoseIdentifier(LoseIdentifier {
        box_id: former.box_id,
        identifier,
        generation: former.generation,
    });
    match change(router, former.box_id.partition(), lose, deadline).await? {
        Outcome::IdentifierRemoved => Ok(()),
        other => Err(unexpected_outcome(&other)),
    }
}
