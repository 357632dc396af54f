//! Finishes half-done registrations: the claim was verified, but whoever asked for it never came to
//! activate the box. The claim may be in another group, which is asked.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use rossby_domain::command::ActivateBox;
use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::{BoxId, DeviceId, GroupId, PartitionId};
use rossby_domain::query::PendingBox;
use rossby_domain::{Answer, Command, Query};
use tokio::time::Instant;

use super::{PATIENCE, Trouble, Worker, Workers};

/// Pending boxes looked at in one step.
const BATCH: u32 = 256;
/// Questions to another group at a time.
const ASKED_AT_ONCE: usize = 16;

pub(super) struct Finisher;

#[async_trait]
impl Worker for Finisher {
    const NAME: &'static str = "finisher";
    const PERIOD: Duration = Duration::from_secs(3);

    async fn pass(&mut self, workers: &Workers) -> Result<(), Trouble> {
        let mut trouble = Ok(());
        for partition in workers.owned() {
            match finish(workers, partition).await {
                Ok(()) => {}
                // The others may have no need of that group.
                Err(elsewhere @ Trouble::Elsewhere(_)) => trouble = Err(elsewhere),
                Err(error) => return Err(error),
            }
        }
        trouble
    }
}

/// Finishes all half-done registrations of a partition.
///
/// # Errors
/// [`Trouble::Elsewhere`] if it is not known of some of them whether there is something to finish; all
/// others are finished.
pub(super) async fn finish(workers: &Workers, partition: PartitionId) -> Result<(), Trouble> {
    let mut after = None;
    let mut trouble = Ok(());
    loop {
        let query = Query::PendingBoxes {
            partition,
            after,
            limit: BATCH,
        };
        let Answer::PendingBoxes(pending) = workers.group.read_local(partition, &query)? else {
            return Err(Trouble::Other("unexpected answer to PendingBoxes"));
        };
        let Some(last) = pending.last() else {
            return trouble;
        };
        after = Some(last.box_id);
        let mut commands = Vec::new();
        for found in activations(workers, &pending).await? {
            match found {
                Ok(activation) => commands.push((partition, Command::ActivateBox(activation))),
                Err(elsewhere) => trouble = Err(elsewhere),
            }
        }
        if !commands.is_empty() {
            // A rejection means that the box is gone or no longer asks: nothing to finish.
            workers.propose(commands).await?;
        }
    }
}

/// An identifier that a pending box asks for.
#[derive(Clone, Copy)]
struct Asked {
    box_id: BoxId,
    device: DeviceId,
    identifier: IdentifierHash,
}

/// The commands that finish registrations: one for each identifier that was verified, or why that is not
/// known.
async fn activations(
    workers: &Workers,
    pending: &[PendingBox],
) -> Result<Vec<Result<ActivateBox, Trouble>>, Trouble> {
    let mut found = Vec::new();
    let mut elsewhere: BTreeMap<GroupId, Vec<Asked>> = BTreeMap::new();
    for pending in pending {
        for identifier in &pending.identifiers {
            let asked = Asked {
                box_id: pending.box_id,
                device: pending.device,
                identifier: *identifier,
            };
            let directory = identifier.partition(workers.partitions);
            match workers.router.directory().owner(directory) {
                Some(group) if group == workers.group.id() => {
                    let query = Query::VerifiedClaim(*identifier);
                    let answer = workers.group.read_local(directory, &query)?;
                    found.extend(activation(asked, answer).transpose());
                }
                Some(group) => elsewhere.entry(group).or_default().push(asked),
                None => found.push(Err(Trouble::Elsewhere("no map".to_owned()))),
            }
        }
    }
    for (group, asked) in elsewhere {
        found.extend(ask(workers, group, asked).await);
    }
    Ok(found)
}

/// Asks another group. Once it gives no answer, it is asked no more this time.
async fn ask(
    workers: &Workers,
    group: GroupId,
    asked: Vec<Asked>,
) -> Vec<Result<ActivateBox, Trouble>> {
    let deadline = Instant::now() + PATIENCE;
    let mut answers = stream::iter(asked)
        .map(|asked| async move {
            let directory = asked.identifier.partition(workers.partitions);
            let query = Query::VerifiedClaim(asked.identifier);
            let asking = workers.router.ask(group, directory, query, deadline);
            let answer = asking.await.map_err(|error| {
                let why = error.log().unwrap_or(error.code().as_str());
                Trouble::Elsewhere(why.to_owned())
            })?;
            activation(asked, answer)
        })
        .buffered(ASKED_AT_ONCE);
    let mut found = Vec::new();
    while let Some(answer) = answers.next().await {
        let is_over = answer.is_err();
        found.extend(answer.transpose());
        if is_over {
            break;
        }
    }
    found
}

/// The command that finishes a registration, if its identifier was verified for its box.
fn activation(asked: Asked, answer: Answer) -> Result<Option<ActivateBox>, Trouble> {
    let Answer::VerifiedClaim(claim) = answer else {
        return Err(Trouble::Other("unexpected answer to VerifiedClaim"));
    };
    let own = claim.filter(|(box_id, _)| *box_id == asked.box_id);
    Ok(own.map(|(_, generation)| ActivateBox {
        box_id: asked.box_id,
        device: asked.device,
        identifier: asked.identifier,
        generation,
    }))
}
