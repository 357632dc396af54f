//! Finishes half-done registrations: the claim was verified, but whoever asked for it never came to
//! activate the box, or to tell it of one more identifier. The claim may be in another group, which is asked. And releases
//! identifiers that leave their box, in whatever group.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use rossby_domain::command::ActivateBox;
use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::{BoxId, DeviceId, GroupId, PartitionId};
use rossby_domain::query::PendingBox;
use rossby_domain::{Answer, Command, Query};
use tokio::time::Instant;

use super::{More, PATIENCE, Trouble, Worker, Workers};
use crate::error::ApiError;
use crate::rpc::{Leaving, former_owner, lose};

/// Pending boxes looked at in one step.
const BATCH: u32 = 256;
/// Questions to another group at a time.
const ASKED_AT_ONCE: usize = 1024;

pub(super) struct Finisher;

#[async_trait]
impl Worker for Finisher {
    const NAME: &'static str = "finisher";
    const PERIOD: Duration = Duration::from_secs(3);

    async fn pass(&mut self, workers: &Workers) -> Result<More, Trouble> {
        let mut more = More::No;
        let mut trouble = Ok(());
        let mut silent = Silent::default();
        for &partition in workers.owned().iter() {
            match finish(workers, partition, &mut silent, What::Everything).await {
                // Another group may come to say that a claim is verified: nothing of that is applied here.
                Ok(More::Yes) => more = More::Yes,
                Ok(More::No) => {}
                // The others may have no need of that group.
                Err(elsewhere @ Trouble::Elsewhere(_)) => trouble = Err(elsewhere),
                Err(error) => return Err(error),
            }
        }
        trouble.map(|()| more)
    }
}

/// Groups that gave no answer in this pass. They are asked no more in it: one that is down must not hold
/// up what needs the others.
pub(super) type Silent = BTreeSet<GroupId>;

/// What is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// What must not expire before.
    Verified,
    /// And what leaves its box.
    Everything,
}

/// Finishes all half-done registrations of a partition, and more; whether there were any.
///
/// # Errors
/// [`Trouble::Elsewhere`] if it is not known of some of them whether there is something to finish; all
/// others are finished.
pub(super) async fn finish(
    workers: &Workers,
    partition: PartitionId,
    silent: &mut Silent,
    what: What,
) -> Result<More, Trouble> {
    let mut after = None;
    let mut trouble = Ok(());
    let mut more = More::No;
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
            return trouble.map(|()| more);
        };
        more = More::Yes;
        after = Some(last.box_id);
        let (activations, unknown) = activations(workers, &pending, silent).await?;
        trouble = trouble.and(unknown);
        let owned: Vec<_> = activations.iter().map(owned_by).collect();
        let command = |activation| (partition, Command::ActivateBox(activation));
        let commands: Vec<_> = activations.into_iter().map(command).collect();
        if !commands.is_empty() {
            // A rejection means that the box is gone or no longer asks: nothing to finish.
            workers.propose(commands).await?;
            settle(workers, owned, silent).await;
        }
        if what == What::Everything {
            trouble = trouble.and(release(workers, &pending, silent).await);
        }
    }
}

/// An identifier, and the box that it is verified for.
type Owned = (IdentifierHash, BoxId);

fn owned_by(activation: &ActivateBox) -> Owned {
    (activation.identifier, activation.box_id)
}

/// Takes what came by a reset off the lists of the boxes that had it, where their groups answer: nothing waits for that.
async fn settle(workers: &Workers, owned: Vec<Owned>, silent: &Silent) {
    let (router, partitions) = (&workers.router, workers.partitions);
    let mut away = silent.clone();
    for (identifier, box_id) in owned {
        let group = |partition| router.directory().owner(partition);
        let Some(directory) = group(identifier.partition(partitions)) else {
            continue;
        };
        if away.contains(&directory) {
            continue;
        }
        let deadline = Instant::now() + PATIENCE;
        let former = match former_owner(router, partitions, (identifier, box_id), deadline).await {
            Ok(Some(former)) => former,
            Ok(None) => continue,
            Err(_) => {
                away.insert(directory);
                continue;
            }
        };
        let home = group(former.box_id.partition());
        if let Some(home) = home.filter(|home| !away.contains(home))
            && lose(router, identifier, former, deadline).await.is_err()
        {
            away.insert(home);
        }
    }
}

/// Releases what is on its way out of its box.
async fn release(
    workers: &Workers,
    pending: &[PendingBox],
    silent: &mut Silent,
) -> Result<(), Trouble> {
    let mut trouble = Ok(());
    let leaving = pending.iter().flat_map(|pending| {
        let box_id = pending.box_id;
        let leaving = move |&(identifier, generation): &(IdentifierHash, u64)| Leaving {
            box_id,
            identifier,
            generation,
        };
        pending.leaving.iter().map(leaving)
    });
    for leaving in leaving {
        let directory = leaving.identifier.partition(workers.partitions);
        let Some(group) = workers.router.directory().owner(directory) else {
            trouble = Err(Trouble::Elsewhere("no map".to_owned()));
            continue;
        };
        if silent.contains(&group) {
            trouble = Err(Trouble::Elsewhere("it gave no answer just now".to_owned()));
            continue;
        }
        let deadline = Instant::now() + PATIENCE;
        let releasing = leaving.release(&workers.router, workers.partitions, deadline);
        if let Err(error) = releasing.await {
            silent.insert(group);
            trouble = Err(elsewhere(&error));
        }
    }
    trouble
}

fn elsewhere(error: &ApiError) -> Trouble {
    let why = error.log().unwrap_or(error.code().as_str());
    Trouble::Elsewhere(why.to_owned())
}

/// An identifier that a pending box asks for.
#[derive(Clone, Copy)]
struct Asked {
    box_id: BoxId,
    device: DeviceId,
    identifier: IdentifierHash,
}

/// The commands that finish registrations: one for each identifier that was verified. With it, why that
/// is not known of some.
async fn activations(
    workers: &Workers,
    pending: &[PendingBox],
    silent: &mut Silent,
) -> Result<(Vec<ActivateBox>, Result<(), Trouble>), Trouble> {
    let mut found = Vec::new();
    let mut trouble = Ok(());
    let mut elsewhere: BTreeMap<GroupId, Vec<Asked>> = BTreeMap::new();
    for asked in pending.iter().flat_map(asked_by) {
        let directory = asked.identifier.partition(workers.partitions);
        match workers.router.directory().owner(directory) {
            Some(group) if group == workers.group.id() => {
                let query = Query::VerifiedClaim(asked.identifier);
                let answer = workers.group.read_local(directory, &query)?;
                found.extend(activation(asked, answer)?);
            }
            Some(group) if silent.contains(&group) => {
                trouble = Err(Trouble::Elsewhere("it gave no answer just now".to_owned()));
            }
            Some(group) => elsewhere.entry(group).or_default().push(asked),
            None => trouble = Err(Trouble::Elsewhere("no map".to_owned())),
        }
    }
    for (group, asked) in elsewhere {
        for part in asked.chunks(ASKED_AT_ONCE) {
            match ask(workers, group, part).await {
                Ok(activations) => found.extend(activations),
                Err(elsewhere) => {
                    silent.insert(group);
                    trouble = Err(elsewhere);
                    break;
                }
            }
        }
    }
    Ok((found, trouble))
}

fn asked_by(pending: &PendingBox) -> impl Iterator<Item = Asked> {
    let (box_id, device) = (pending.box_id, pending.device);
    let asked = move |identifier: &IdentifierHash| Asked {
        box_id,
        device,
        identifier: *identifier,
    };
    pending.identifiers.iter().map(asked)
}

/// Asks another group, for all in one go.
async fn ask(
    workers: &Workers,
    group: GroupId,
    asked: &[Asked],
) -> Result<Vec<ActivateBox>, Trouble> {
    let query = |asked: &Asked| {
        let directory = asked.identifier.partition(workers.partitions);
        (directory, Query::VerifiedClaim(asked.identifier))
    };
    let queries = asked.iter().map(query).collect();
    let deadline = Instant::now() + PATIENCE;
    let answers = workers.router.ask_all(group, queries, deadline).await;
    let answers = answers.map_err(|error| elsewhere(&error))?;
    let found = asked.iter().zip(answers);
    let found = found.map(|(asked, answer)| activation(*asked, answer));
    found.filter_map(Result::transpose).collect()
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
