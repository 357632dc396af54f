//! Send: puts envelopes into boxes, an outcome for each, in the order of the request.
//!
//! The envelopes for one group go to it in one proposal, in the order of the request, so that a
//! sender's envelopes keep their order; the proposals to several groups go out at once, and the failure
//! of one is no matter of the others. That a recipient has blocked the sender and that there is no such
//! recipient are one answer, byte for byte.
//!
//! The last tenth of a queue is for contacts. Whether the recipient has written to the sender stands in the sender's
//! own box, which is here; it is looked at only once there is no other room.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::future::join_all;
use rossby_domain::command::{Enqueue, EnvelopeDigest};
use rossby_domain::ids::{BoxId, Counter, DeviceAddress, EnvelopeId, GroupId, PartitionId};
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Command, Outcome, Query, Rejection, Reply};
use rossby_proto::v1;
use rossby_proto::v1::send_outcome::Result as WireResult;

use crate::call::Call;
use crate::convert;
use crate::error::{ApiError, Code};
use crate::mailbox::{Failure, MailboxService, Standing, unexpected_outcome};
use crate::router::Proposed;

/// The number of `envelopes` in `SendRequest`.
const ENVELOPES_TAG: usize = 1;

/// What became of one envelope.
type Fate = Result<u64, ApiError>;

/// One envelope of the request.
struct Outgoing {
    recipient: BoxId,
    wire: v1::OutgoingEnvelope,
}

pub(crate) async fn send(
    service: &MailboxService,
    caller: DeviceAddress,
    standing: &Standing,
    call: &Call,
) -> Result<Bytes, Failure> {
    let envelopes = parse(service, &call.message)?;
    // What a box's devices tell each other harms nobody.
    if envelopes.iter().any(|it| it.recipient != caller.box_id) {
        standing.check_may_send(&caller)?;
    }
    let mut fates = rated(&envelopes, |recipient| {
        let counted = service.rates.envelope(&caller, recipient);
        counted.map_err(|too_often| service.too_often(too_often, Code::RateLimited))
    });
    let parcels = parcels(service, &envelopes, &mut fates);
    // With one group only, its failure is the call's.
    let sole = parcels.len() == 1;
    let parcels = parcels.into_iter().map(|(group, positions)| Parcel {
        group,
        positions,
        envelopes: &envelopes,
    });
    let dispatched = parcels.map(|parcel| dispatch(service, caller, call, parcel));
    for (positions, result) in join_all(dispatched).await {
        match result {
            Ok(parcel_fates) => settle(&mut fates, positions, parcel_fates),
            Err(error) if sole => return Err(error.into()),
            Err(error) => {
                let shared = positions.iter().map(|_| Err(error.clone())).collect();
                settle(&mut fates, positions, shared);
            }
        }
    }
    let outcomes = envelopes.into_iter().zip(fates).map(|(envelope, fate)| {
        let missing = || Err(ApiError::internal("an envelope without an outcome"));
        outcome(service, envelope, fate.unwrap_or_else(missing))
    });
    Ok(convert::encode(&v1::SendResponse {
        outcomes: outcomes.collect(),
    }))
}

fn parse(service: &MailboxService, message: &Bytes) -> Result<Vec<Outgoing>, ApiError> {
    let limit = service.config.limits.send_envelopes;
    let count = convert::count_fields(message, ENVELOPES_TAG)?;
    if count == 0 {
        return Err(ApiError::invalid("envelopes is empty"));
    }
    if count > usize::try_from(limit).unwrap_or(usize::MAX) {
        return Err(ApiError::from(Code::TooManyRecipients).with_metadata("limit", limit));
    }
    let parse_one = |wire: v1::OutgoingEnvelope| {
        if wire.counter == 0 {
            return Err(ApiError::invalid("counter must be at least 1"));
        }
        Ok(Outgoing {
            recipient: convert::box_id(&wire.recipient_box_id)?,
            wire,
        })
    };
    let request: v1::SendRequest = convert::decode(message)?;
    request.envelopes.into_iter().map(parse_one).collect()
}

/// What becomes of the envelopes that are too many for now: their fate before anything of their recipients is looked at.
/// Behind one that is refused, all others for its box are, though the rate may have room again by then: they would pass
/// it over.
fn rated(
    envelopes: &[Outgoing],
    mut count: impl FnMut(&BoxId) -> Result<(), ApiError>,
) -> Vec<Option<Fate>> {
    let mut held = Held::default();
    let fate = |envelope: &Outgoing| {
        let recipient = &envelope.recipient;
        let refused = held.get(recipient).cloned();
        let refused = refused.or_else(|| count(recipient).err())?;
        held.insert(*recipient, refused.clone());
        Some(Err(refused))
    };
    envelopes.iter().map(fate).collect()
}

/// Boxes for which an envelope was refused that may be taken later, and why: what stands behind it waits with it.
type Held = BTreeMap<BoxId, ApiError>;

/// The envelopes for one group: where in the request each stands.
struct Parcel<'a> {
    group: GroupId,
    positions: Vec<usize>,
    envelopes: &'a [Outgoing],
}

impl Parcel<'_> {
    fn envelopes(&self) -> impl Iterator<Item = &Outgoing> {
        let at = |position: &usize| self.envelopes.get(*position);
        self.positions.iter().filter_map(at)
    }

    fn commands(
        &self,
        sender: DeviceAddress,
        make: fn(Enqueue) -> Command,
    ) -> Vec<(PartitionId, Command)> {
        let command = |envelope: &Outgoing| {
            let command = make(enqueue(sender, envelope));
            (envelope.recipient.partition(), command)
        };
        self.envelopes().map(command).collect()
    }

    /// Some of its places, as a parcel.
    fn part(&self, places: &[usize]) -> Self {
        let position = |place: &usize| self.positions.get(*place).copied();
        Self {
            group: self.group,
            positions: places.iter().filter_map(position).collect(),
            envelopes: self.envelopes,
        }
    }
}

/// Sorts the envelopes by group. What can be refused here is, in the same words as apply's.
fn parcels(
    service: &MailboxService,
    envelopes: &[Outgoing],
    fates: &mut [Option<Fate>],
) -> BTreeMap<GroupId, Vec<usize>> {
    let limit_bytes = service.config.limits.envelope_bytes;
    let mut parcels: BTreeMap<GroupId, Vec<usize>> = BTreeMap::new();
    for (position, (envelope, fate)) in envelopes.iter().zip(fates).enumerate() {
        if fate.is_some() {
            continue;
        }
        let Outgoing { recipient, wire } = envelope;
        let home = service.home(recipient);
        let home = home.and_then(|home| home.ok_or_else(|| Code::UnknownRecipient.into()));
        let group = match home {
            Ok((_, group)) => group,
            Err(error) => {
                *fate = Some(Err(error));
                continue;
            }
        };
        if wire.body.len() > usize::try_from(limit_bytes).unwrap_or(usize::MAX) {
            let rejection = Rejection::EnvelopeTooLarge { limit_bytes };
            // No time is told with it.
            let (unknown, now) = (Code::UnknownRecipient, Timestamp::default());
            *fate = Some(Err(ApiError::of_rejection(&rejection, unknown, now)));
            continue;
        }
        parcels.entry(group).or_default().push(position);
    }
    parcels
}

fn enqueue(sender: DeviceAddress, envelope: &Outgoing) -> Enqueue {
    let Outgoing { recipient, wire } = envelope;
    Enqueue {
        recipient: *recipient,
        id: EnvelopeId {
            sender,
            counter: Counter(wire.counter),
        },
        chain_version: wire.chain_version,
        ttl_ms: wire.ttl_ms,
        digest: EnvelopeDigest::of(recipient, wire.chain_version, wire.ttl_ms, &wire.body),
        body: wire.body.clone(),
    }
}

/// The envelopes for one group, in one proposal, and another one for contacts.
async fn dispatch(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
    parcel: Parcel<'_>,
) -> (Vec<usize>, Result<Vec<Fate>, ApiError>) {
    let fates = fates(service, caller, call, &parcel).await;
    (parcel.positions, fates)
}

async fn fates(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
    parcel: &Parcel<'_>,
) -> Result<Vec<Fate>, ApiError> {
    let (mut fates, mut full) = propose(service, caller, call, parcel, Command::Enqueue).await?;
    // Behind whom something was stored comes too late, and would be told so in place of what it is.
    full.retain(|(place, recipient)| {
        let mut behind = fates.iter().zip(parcel.envelopes()).skip(*place + 1);
        !behind.any(|(fate, envelope)| fate.is_ok() && envelope.recipient == *recipient)
    });
    if full.is_empty() {
        return Ok(fates);
    }
    // Once more for room, as a contact of those who have written to the sender; the others stay refused.
    let known = written_by(service, caller.box_id, call, full).await;
    if known.is_empty() {
        return Ok(fates);
    }
    let part = parcel.part(&known);
    let again = propose(service, caller, call, &part, Command::EnqueueOfContact);
    let again = match Box::pin(again).await {
        Ok((again, _)) => again,
        // Some may be stored by now.
        Err(error) => known.iter().map(|_| Err(error.clone())).collect(),
    };
    for (place, fate) in known.into_iter().zip(again) {
        if let Some(slot) = fates.get_mut(place) {
            *slot = fate;
        }
    }
    Ok(fates)
}

/// Proposes a parcel: what became of its envelopes, and for which places and boxes there was no room.
async fn propose(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
    parcel: &Parcel<'_>,
    make: fn(Enqueue) -> Command,
) -> Result<(Vec<Fate>, Vec<(usize, BoxId)>), ApiError> {
    let commands = || parcel.commands(caller, make);
    let router = &service.config.router;
    let mut proposed = router
        .propose(parcel.group, commands, call.deadline)
        .await?;
    let replies = std::mem::take(&mut proposed.replies);
    if replies.len() != parcel.positions.len() {
        let what = "not one reply for each proposed command";
        return Err(ApiError::internal(what));
    }
    let mut fates = Vec::with_capacity(replies.len());
    let (mut stale, mut full) = (Vec::new(), Vec::new());
    for (reply, envelope) in replies.into_iter().zip(parcel.envelopes()) {
        match reply {
            Err(Rejection::StaleKeyRecord { .. }) => stale.push((fates.len(), envelope.recipient)),
            Err(Rejection::QueueFull) => full.push((fates.len(), envelope.recipient)),
            _ => {}
        }
        fates.push(fate(&proposed, reply)?);
    }
    if !stale.is_empty() {
        let answers = current_records(service, caller, call, parcel.group, &proposed, stale);
        add_records(&mut fates, Box::pin(answers).await);
    }
    Ok((fates, full))
}

/// What became of one envelope, by the reply to its command.
fn fate(proposed: &Proposed, reply: Reply) -> Result<Fate, ApiError> {
    match reply {
        Ok(Outcome::Enqueued { sequence }) => Ok(Ok(sequence.0)),
        Ok(other) => Err(unexpected_outcome(&other)),
        Err(rejection) => Ok(Err(proposed.refusal(&rejection, Code::UnknownRecipient))),
    }
}

/// The places of those boxes that have written to the sender: it has their envelopes, or remembers them.
async fn written_by(
    service: &MailboxService,
    own: BoxId,
    call: &Call,
    boxes: Vec<(usize, BoxId)>,
) -> Vec<usize> {
    let Ok(Some((partition, group))) = service.home(&own) else {
        return Vec::new();
    };
    let query = |sender: &BoxId| Query::HasHeardFrom {
        box_id: own,
        sender: *sender,
    };
    let queries = boxes.iter().map(|(_, sender)| (partition, query(sender)));
    let router = &service.config.router;
    let asked = router
        .ask_all(group, queries.collect(), call.deadline)
        .await;
    // Who can't be asked for leaves it as it was: the envelope is refused, and comes again.
    let answers = asked.unwrap_or_default();
    let places = boxes.into_iter().map(|(place, _)| place).zip(answers);
    let places = places.filter(|(_, answer)| *answer == Answer::HasHeardFrom(true));
    places.map(|(place, _)| place).collect()
}

/// The records that the sender should have sealed for, each with its place in the parcel.
async fn current_records(
    service: &MailboxService,
    sender: DeviceAddress,
    call: &Call,
    group: GroupId,
    proposed: &Proposed,
    stale: Vec<(usize, BoxId)>,
) -> Vec<(usize, Option<Answer>)> {
    let query = |box_id: BoxId| (box_id.partition(), Query::KeyRecord { box_id, sender });
    let queries: Vec<_> = stale.iter().map(|(_, box_id)| query(*box_id)).collect();
    let answers: Vec<Option<Answer>> = match &proposed.here {
        // This replica has just applied the rejections, so what it has is no older.
        Some(here) => {
            let read = |(partition, query): &(_, _)| here.read_local(*partition, query).ok();
            queries.iter().map(read).collect()
        }
        None => {
            let router = &service.config.router;
            let asked = router.ask_all(group, queries, call.deadline).await;
            asked.map_or_else(|_| Vec::new(), |all| all.into_iter().map(Some).collect())
        }
    };
    let places = stale.into_iter().map(|(place, _)| place);
    places.zip(answers).collect()
}

/// Adds such records to the refusals. One that could not be read is left out: the call must not fail as
/// a whole, since other envelopes of it may have been stored.
fn add_records(fates: &mut [Fate], records: Vec<(usize, Option<Answer>)>) {
    for (place, answer) in records {
        let (Some(Err(error)), Some(answer)) = (fates.get_mut(place), answer) else {
            continue;
        };
        *error = match answer {
            Answer::KeyRecord(Some(found)) => {
                error.clone().with_key_record(found.record.encode().into())
            }
            // Blocked since: then nothing more is told.
            _ => Code::UnknownRecipient.into(),
        };
    }
}

fn settle(fates: &mut [Option<Fate>], positions: Vec<usize>, parcel: Vec<Fate>) {
    for (position, fate) in positions.into_iter().zip(parcel) {
        if let Some(slot) = fates.get_mut(position) {
            *slot = Some(fate);
        }
    }
}

fn outcome(service: &MailboxService, envelope: Outgoing, fate: Fate) -> v1::SendOutcome {
    let result = match fate {
        Ok(sequence) => WireResult::Sequence(sequence),
        Err(error) => {
            service.config.metrics.envelope_refused(error.code());
            WireResult::Refusal(error.to_refusal())
        }
    };
    v1::SendOutcome {
        recipient_box_id: envelope.wire.recipient_box_id,
        counter: envelope.wire.counter,
        result: Some(result),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_one_that_is_refused_nothing_passes_to_its_box_though_there_is_room_again() {
        let partition = PartitionId::new(1).unwrap();
        let box_of = |seed: u8| BoxId::derive(partition, &[seed; 32]);
        let (anna, bert) = (box_of(1), box_of(2));
        let to = |recipient: BoxId, counter| Outgoing {
            recipient,
            wire: v1::OutgoingEnvelope {
                counter,
                ..Default::default()
            },
        };
        let envelopes = [to(anna, 1), to(anna, 2), to(bert, 1), to(anna, 3)];
        // Only the second one comes too soon.
        let mut counted = 0;
        let fates = rated(&envelopes, |_| {
            counted += 1;
            match counted {
                2 => Err(Code::RateLimited.into()),
                _ => Ok(()),
            }
        });
        let passed: Vec<_> = fates.iter().map(Option::is_none).collect();
        assert_eq!(passed, [true, false, true, false]);
        assert_eq!(counted, 3);
    }
}
