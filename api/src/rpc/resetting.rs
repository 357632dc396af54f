//! How an identifier goes from a box whose devices are lost to a new one: proven by its code, told to the old box,
//! and moved after a delay, unless a device of the old box says no (`domain/src/contest.rs`).
//!
//! Each step is idempotent, and Authorize takes those that are left whenever it is called again with the same code. The
//! dates are set with the first of them; if the others come too late, it is proven anew.

use rossby_domain::claim::CodeMac;
use rossby_domain::command::{AwaitReset, LoseIdentifier, NoteReset, ProveReset, StartReset};
use rossby_domain::contest::{Former, ResetNote};
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
        let Self { identifier, box_id } = self;
        let prove = Command::ProveReset(ProveReset {
            identifier,
            box_id,
            code,
        });
        match self.in_directory(service, call, prove).await? {
            Outcome::ClaimVerified { generation } => Ok(generation),
            Outcome::ResetWaits {
                note,
                started: true,
                ..
            } => Err(waits(note.completes_at)),
            Outcome::ResetWaits { owner, note, .. } => {
                Err(self.begin(service, call, owner, note).await?)
            }
            other => Err(unexpected_outcome(&other)),
        }
    }

    /// Tells the owner, keeps the new box, and lets the reset count.
    async fn begin(
        self,
        service: &MailboxService,
        call: &Call,
        owner: BoxId,
        note: ResetNote,
    ) -> Result<ApiError, ApiError> {
        let Self { identifier, box_id } = self;
        let tell = Command::NoteReset(NoteReset {
            box_id: owner,
            identifier,
            note,
        });
        let telling = service.change(owner.partition(), tell, Code::Internal, call.deadline);
        telling.await?;
        let keep = Command::AwaitReset(AwaitReset {
            box_id,
            until: note.stands_until(),
        });
        let unknown = Code::NoCodeRequested;
        let keeping = service.change(box_id.partition(), keep, unknown, call.deadline);
        keeping.await?;
        let start = Command::StartReset(StartReset {
            identifier,
            box_id,
            serial: note.serial,
        });
        match self.in_directory(service, call, start).await? {
            Outcome::ResetWaits {
                note,
                started: true,
                ..
            } => Ok(waits(note.completes_at)),
            other => Err(unexpected_outcome(&other)),
        }
    }

    /// Takes the identifier off the list of the box that had it, if it came by a reset.
    ///
    /// # Errors
    /// If a group does not answer in time. It stands in that list then, as one that is not proven.
    pub async fn settle(self, service: &MailboxService, call: &Call) -> Result<(), ApiError> {
        let (router, partitions) = (&service.config.router, service.config.partitions);
        let owned = (self.identifier, self.box_id);
        match former_owner(router, partitions, owned, call.deadline).await? {
            Some(former) => lose(router, self.identifier, former, call.deadline).await,
            None => Ok(()),
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

/// Who had an identifier before its owner got it by a reset.
///
/// # Errors
/// If the group of its directory does not answer in time.
pub(crate) async fn former_owner(
    router: &Router,
    partitions: PartitionCount,
    (identifier, box_id): (IdentifierHash, BoxId),
    deadline: Instant,
) -> Result<Option<Former>, ApiError> {
    let directory = identifier.partition(partitions);
    let owner = router.directory().owner(directory);
    let group: GroupId = owner.ok_or(Code::NotInCluster)?;
    let query = Query::FormerOwner { identifier, box_id };
    match router.ask(group, directory, query, deadline).await? {
        Answer::FormerOwner(former) => Ok(former),
        _ => Err(unexpected_answer("FormerOwner")),
    }
}

/// Takes an identifier off the list of the box that had it.
///
/// # Errors
/// If its group does not answer in time.
pub(crate) async fn lose(
    router: &Router,
    identifier: IdentifierHash,
    former: Former,
    deadline: Instant,
) -> Result<(), ApiError> {
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
