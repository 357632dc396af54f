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
    let mut fates: Vec<Option<Fate>> = envelopes
        .iter()
        .map(|envelope| rated(service, caller, envelope))
        .collect();
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

/// What becomes of an envelope that is one too many for now. That is its fate before anything of its recipient is looked
/// at.
fn rated(service: &MailboxService, caller: DeviceAddress, envelope: &Outgoing) -> Option<Fate> {
    let counted = service.rates.envelope(&caller, &envelope.recipient);
    let refused = |too_often| service.too_often(too_often, Code::RateLimited);
    counted.err().map(|too_often| Err(refused(too_often)))
}

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

    /// The envelope at a place in the parcel.
    fn envelope(&self, place: usize) -> Option<&Outgoing> {
        self.envelopes.get(*self.positions.get(place)?)
    }

    fn commands(&self, sender: DeviceAddress) -> Vec<(PartitionId, Command)> {
        let command = |envelope: &Outgoing| {
            let command = Command::Enqueue(enqueue(sender, envelope));
            (envelope.recipient.partition(), command)
        };
        self.envelopes().map(command).collect()
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

/// One proposal for one group.
async fn dispatch(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
    parcel: Parcel<'_>,
) -> (Vec<usize>, Result<Vec<Fate>, ApiError>) {
    let commands = || parcel.commands(caller);
    let router = &service.config.router;
    let proposed = router.propose(parcel.group, commands, call.deadline).await;
    let fates = match proposed {
        Ok(proposed) if proposed.replies.len() == parcel.positions.len() => {
            fates(service, caller, call, &parcel, proposed).await
        }
        Ok(_) => Err(ApiError::internal(
            "not one reply for each proposed command",
        )),
        Err(error) => Err(error),
    };
    (parcel.positions, fates)
}

/// What the replies of a group mean for the envelopes of a parcel.
async fn fates(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
    parcel: &Parcel<'_>,
    mut proposed: Proposed,
) -> Result<Vec<Fate>, ApiError> {
    let replies = std::mem::take(&mut proposed.replies);
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
    if !full.is_empty() {
        let again = Box::pin(as_contact(service, caller, call, parcel, full)).await;
        settle_places(&mut fates, again);
    }
    if !stale.is_empty() {
        let answers = current_records(service, caller, call, parcel.group, &proposed, stale);
        add_records(&mut fates, Box::pin(answers).await);
    }
    Ok(fates)
}

/// What became of one envelope, by the reply to its command.
fn fate(proposed: &Proposed, reply: Reply) -> Result<Fate, ApiError> {
    match reply {
        Ok(Outcome::Enqueued { sequence }) => Ok(Ok(sequence.0)),
        Ok(other) => Err(unexpected_outcome(&other)),
        Err(rejection) => Ok(Err(proposed.refusal(&rejection, Code::UnknownRecipient))),
    }
}

/// Asks once more for room, as a contact of those who have written to the sender. What became of their envelopes, by
/// their places; what is not among them stays refused.
async fn as_contact(
    service: &MailboxService,
    sender: DeviceAddress,
    call: &Call,
    parcel: &Parcel<'_>,
    full: Vec<(usize, BoxId)>,
) -> Vec<(usize, Fate)> {
    let known = written_by(service, sender.box_id, call, full).await;
    if known.is_empty() {
        return Vec::new();
    }
    let command = |envelope: &Outgoing| {
        let command = Command::EnqueueOfContact(enqueue(sender, envelope));
        (envelope.recipient.partition(), command)
    };
    let envelopes = || known.iter().filter_map(|place| parcel.envelope(*place));
    let commands = || envelopes().map(command).collect();
    let router = &service.config.router;
    let proposed = router.propose(parcel.group, commands, call.deadline).await;
    let fates = proposed.and_then(|mut proposed| {
        let replies = std::mem::take(&mut proposed.replies).into_iter();
        let fates = replies.map(|reply| fate(&proposed, reply));
        fates.collect::<Result<Vec<Fate>, _>>()
    });
    match fates {
        Ok(fates) => known.into_iter().zip(fates).collect(),
        // Some may be stored by now.
        Err(error) => {
            let shared = |place| (place, Err(error.clone()));
            known.into_iter().map(shared).collect()
        }
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

fn settle_places(fates: &mut [Fate], settled: Vec<(usize, Fate)>) {
    for (place, fate) in settled {
        if let Some(slot) = fates.get_mut(place) {
            *slot = fate;
        }
    }
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
