//! Apply: how a command changes a partition.
//!
//! ```text
//!   owned at that epoch? ──no──► NotOwner, nothing changed
//!        │ yes
//!   the partition's clock moves up to the stamp, never back; its expiry clock too, if it may
//!        │
//!   the command's own rules (command/<its name>.rs) ──► Outcome | Rejection
//! ```
//!
//! Of a rejected command nothing stays but the clocks and, for a wrong code, the used attempt.

use crate::command::{Command, Reply, Routed};
use crate::placement::PLACEMENT_PARTITION;
use crate::planted::{Bug, planted};
use crate::rejection::Rejection;
use crate::tables::{Meta, Tables};
use crate::time::Timestamp;

/// What a command may know beside itself and the tables.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// When it was proposed.
    pub stamp: Timestamp,
    /// Whether mail may expire by this stamp. Not while the leader doubts its clock.
    pub may_expire: bool,
}

/// Applies a command to its partition.
///
/// # Errors
/// What the tables report: the replica can not go on. A "no" is in the [`Reply`].
pub fn apply<T: Tables>(
    tables: &mut T,
    context: &Context,
    routed: Routed,
) -> Result<Reply, T::Error> {
    let before = tables.meta()?;
    let mut meta = before;
    if !is_admitted(&routed, &before) {
        return Ok(Err(Rejection::NotOwner {
            owned: before.epoch,
        }));
    }
    meta.clock = meta.clock.max(context.stamp);
    if context.may_expire {
        // Up to the stamp, not to the clock: that may still show what was doubted before.
        meta.expiry_clock = meta.expiry_clock.max(context.stamp);
    }
    let reply = match routed.command {
        Command::Adopt(command) => Ok(Ok(command.execute(&mut meta, routed.epoch))),
        Command::ClaimDevice(command) => command.execute(tables, &mut meta),
        Command::CreateBox(command) => command.execute(tables, &meta),
        Command::OpenClaim(command) => command.execute(tables, &mut meta),
        Command::MarkCodeSent(command) => command.execute(tables),
        Command::MarkCodeUnsent(command) => command.execute(tables),
        Command::VerifyClaim(command) => command.execute(tables, &mut meta),
        Command::ActivateBox(command) => command.execute(tables, &meta),
        Command::Enqueue(command) => command.execute(tables, &meta, false),
        Command::EnqueueOfContact(command) => command.execute(tables, &meta, true),
        Command::Acknowledge(command) => command.execute(tables, &meta),
        Command::Block(command) => command.execute(tables, &meta),
        Command::Expire(command) => command.execute(tables, &meta),
        Command::UpdateKey(command) => command.execute(tables),
        Command::Place(command) => command.execute(tables, &meta),
        Command::IssueToken(command) => command.execute(tables, &meta),
        Command::Admit(command) => command.execute(tables, &meta),
        Command::RevokeToken(command) => command.execute(tables, &meta),
        Command::ExtendChain(command) => command.execute(tables, &meta),
        Command::JoinBox(command) => command.execute(tables, &meta),
        Command::OfferDevice(command) => command.execute(tables, &mut meta),
        Command::AddIdentifier(command) => command.execute(tables, &meta),
        Command::RemoveIdentifier(command) => command.execute(tables, &meta),
        Command::ReleaseClaim(command) => command.execute(tables),
        Command::DropIdentifier(command) => command.execute(tables),
        Command::Accept(command) => command.execute(tables, &meta),
        Command::SetTtl(command) => command.execute(tables, &meta),
        Command::Suspend(command) => command.execute(tables),
        Command::CountReport(command) => command.execute(tables),
        Command::Recover(command) => command.execute(tables, &meta),
        Command::DeleteBox(command) => command.execute(tables, &meta),
        Command::OpenReset(command) => command.execute(tables, &mut meta),
        Command::ProveReset(command) => command.execute(tables, &mut meta, context.may_expire),
        Command::StartReset(command) => command.execute(tables, &meta, context.may_expire),
        Command::VetoReset(command) => command.execute(tables, &meta),
        Command::NoteReset(command) => command.execute(tables),
        Command::ForgetReset(command) => command.execute(tables),
        Command::AwaitReset(command) => command.execute(tables),
        Command::LoseIdentifier(command) => command.execute(tables),
        Command::SetProfile(command) => command.execute(tables),
        Command::SetResetDelay(command) => Ok(Ok(command.execute(&mut meta))),
    }?;
    if meta != before {
        tables.put_meta(&meta)?;
    }
    Ok(reply)
}

/// Whether the partition is owned as the command believes, and is the one that its box or the map
/// lives in.
fn is_admitted(routed: &Routed, meta: &Meta) -> bool {
    match &routed.command {
        Command::Adopt(adopt) => adopt.is_admitted(meta, routed.epoch),
        Command::Place(_)
        | Command::IssueToken(_)
        | Command::Admit(_)
        | Command::RevokeToken(_) => {
            meta.epoch == Some(routed.epoch) && routed.partition == PLACEMENT_PARTITION
        }
        command => {
            (meta.epoch == Some(routed.epoch) || planted(Bug::SkippedEpochCheck))
                && command
                    .box_id()
                    .is_none_or(|id| id.partition() == routed.partition)
        }
    }
}
