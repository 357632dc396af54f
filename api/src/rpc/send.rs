//! Send: puts envelopes into boxes, an outcome for each, in the order of the request.
//!
//! The envelopes for one group go to it in one proposal, in the order of the request, so that a
//! sender's envelopes keep their order. That a recipient has blocked the sender and that there is no
//! such recipient are one answer, byte for byte.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use rossby_domain::command::{Enqueue, EnvelopeDigest};
use rossby_domain::ids::{BoxId, Counter, DeviceAddress, EnvelopeId, GroupId, PartitionId};
use rossby_domain::{Answer, Command, Outcome, Query, Rejection, Reply};
use rossby_proto::v1;
use rossby_proto::v1::send_outcome::Result as WireResult;
use rossby_raft::Group;

use crate::call::Call;
use crate::convert;
use crate::error::{ApiError, Code};
use crate::mailbox::{Failure, MailboxService, unexpected_outcome};

/// The number of `envelopes` in `SendRequest`.
const ENVELOPES_TAG: usize = 1;

/// What became of one envelope.
type Fate = Result<u64, ApiError>;

/// One envelope of the request.
struct Outgoing {
    recipient: BoxId,
    wire: v1::OutgoingEnvelope,
}

/// The envelopes for one group: where in the request each stood, and its command.
struct Parcel {
    group: Arc<Group>,
    positions: Vec<usize>,
    commands: Vec<(PartitionId, Command)>,
}

pub(crate) async fn send(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
) -> Result<Bytes, Failure> {
    let envelopes = parse(service, &call.message)?;
    let mut fates: Vec<Option<Fate>> = envelopes.iter().map(|_| None).collect();
    let parcels = parcels(service, caller, &envelopes, &mut fates)?;
    // With one group only, its failure is the call's.
    let sole = parcels.len() == 1;
    let dispatched = parcels
        .into_values()
        .map(|parcel| dispatch(service, caller, call, parcel));
    for (positions, result) in join_all(dispatched).await {
        match result {
            Ok(parcel_fates) => settle(&mut fates, positions, parcel_fates),
            Err(failure) if sole => return Err(failure),
            Err(failure) => {
                let error = refusal_of(failure);
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

/// Sorts the envelopes by group. What can be refused here is, in the same words as apply's.
fn parcels(
    service: &MailboxService,
    caller: DeviceAddress,
    envelopes: &[Outgoing],
    fates: &mut [Option<Fate>],
) -> Result<BTreeMap<GroupId, Parcel>, Failure> {
    let limit_bytes = service.config.limits.envelope_bytes;
    let mut parcels = BTreeMap::new();
    for (position, (envelope, fate)) in envelopes.iter().zip(fates).enumerate() {
        let Outgoing { recipient, wire } = envelope;
        let Some(partition) = service.home(recipient) else {
            *fate = Some(Err(Code::UnknownRecipient.into()));
            continue;
        };
        if wire.body.len() > usize::try_from(limit_bytes).unwrap_or(usize::MAX) {
            let rejection = Rejection::EnvelopeTooLarge { limit_bytes };
            *fate = Some(Err(service.refusal(
                partition,
                &rejection,
                Code::UnknownRecipient,
            )));
            continue;
        }
        let group = service.group(partition)?;
        let parcel = parcels.entry(group.id()).or_insert_with(|| Parcel {
            group,
            positions: Vec::new(),
            commands: Vec::new(),
        });
        parcel.positions.push(position);
        parcel
            .commands
            .push((partition, Command::Enqueue(enqueue(caller, envelope))));
    }
    Ok(parcels)
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
    parcel: Parcel,
) -> (Vec<usize>, Result<Vec<Fate>, Failure>) {
    let Parcel {
        group,
        positions,
        commands,
    } = parcel;
    let recipients: Vec<BoxId> = commands
        .iter()
        .filter_map(|(_, command)| recipient_of(command))
        .collect();
    let replies = match group.propose(commands, call.deadline).await {
        Ok(replies) if replies.len() == positions.len() => replies,
        Ok(_) => {
            let error = ApiError::internal("not one reply for each proposed command");
            return (positions, Err(error.into()));
        }
        Err(error) => return (positions, Err(error.into())),
    };
    let fates = replies
        .into_iter()
        .zip(recipients)
        .map(|(reply, recipient)| fate(service, &group, caller, &recipient, reply));
    (positions, fates.collect())
}

fn recipient_of(command: &Command) -> Option<BoxId> {
    match command {
        Command::Enqueue(enqueue) => Some(enqueue.recipient),
        _ => None,
    }
}

fn fate(
    service: &MailboxService,
    group: &Group,
    caller: DeviceAddress,
    recipient: &BoxId,
    reply: Reply,
) -> Result<Fate, Failure> {
    match reply {
        Ok(Outcome::Enqueued { sequence }) => Ok(Ok(sequence.0)),
        Ok(other) => Err(unexpected_outcome(&other)),
        Err(rejection) => {
            let partition = recipient.partition();
            let mut error = service.refusal(partition, &rejection, Code::UnknownRecipient);
            if let Rejection::StaleKeyRecord { .. } = rejection {
                error = with_current_record(group, caller, recipient, error);
            }
            Ok(Err(error))
        }
    }
}

/// Adds the record that the sender should have sealed for. This replica has just applied the
/// rejection, so what it has is no older. If it can't be read, the refusal goes without: the call
/// must not fail as a whole, since other envelopes of it may have been stored.
fn with_current_record(
    group: &Group,
    sender: DeviceAddress,
    recipient: &BoxId,
    error: ApiError,
) -> ApiError {
    let query = Query::KeyRecord {
        box_id: *recipient,
        sender,
    };
    match group.read_local(recipient.partition(), &query) {
        Ok(Answer::KeyRecord(Some(found))) => error.with_key_record(found.record.encode().into()),
        // Blocked since: then nothing more is told.
        Ok(_) => Code::UnknownRecipient.into(),
        Err(_) => error,
    }
}

fn settle(fates: &mut [Option<Fate>], positions: Vec<usize>, parcel: Vec<Fate>) {
    for (position, fate) in positions.into_iter().zip(parcel) {
        if let Some(slot) = fates.get_mut(position) {
            *slot = Some(fate);
        }
    }
}

fn refusal_of(failure: Failure) -> ApiError {
    match failure {
        Failure::Refused(error) => error,
        Failure::NotLeader(_) => ApiError::unavailable("the recipient's group is led elsewhere"),
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
