//! JoinBox: a device that a link has added asks for its place, knowing its own keys only.
//!
//! Its box is found by the device's directory entry, which linking made as an offer; the box decides whether
//! it is live, and the device's own request makes the entry one for ever. It runs at the node where it
//! arrives. The same request again has the same answer, which is of use to the device alone: the token in it
//! is sealed to the device's KEM key.
//!
//! Nobody vouches for the caller but a device key, also one that was revoked, so nothing is written
//! unless it changes something.

use bytes::Bytes;
use rossby_domain::chain::{KemKey, KeyRecord, SigningPublicKey, verify_signature};
use rossby_domain::command::{ClaimDevice, JoinBox};
use rossby_domain::ids::{DeviceAddress, DeviceId, PartitionId};
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Command, Outcome, Query, statement};
use rossby_proto::v1;

use super::token;
use crate::call::Call;
use crate::convert;
use crate::error::{ApiError, Code};
use crate::mailbox::{Failure, MailboxService, unexpected_answer, unexpected_outcome};

/// A request that was read and whose signatures hold.
pub(crate) struct Joining {
    device: DeviceId,
    kem: KemKey,
}

pub(crate) async fn join_box(service: &MailboxService, call: &Call) -> Result<Bytes, Failure> {
    let joining = parse_and_verify(convert::decode(&call.message)?)?;
    let (home, address) = find_box(service, call, joining.device).await?;
    let kem = joining.kem.clone();
    let command = JoinBox {
        device: address,
        kem,
    };
    let (record, generation) = match standing(service, call, home, &command).await? {
        Some(standing) => standing,
        None => {
            bind(service, call, address).await?;
            let generation = join(service, call, home, command).await?;
            (record(service, call, home, address).await?, generation)
        }
    };
    let place = (&record, generation);
    Ok(welcome(service, &address, &joining.kem, place)?)
}

/// What a device is told that has its place: the record, and its token, sealed to its KEM key.
pub(super) fn welcome(
    service: &MailboxService,
    address: &DeviceAddress,
    kem: &KemKey,
    (record, generation): (&KeyRecord, u64),
) -> Result<Bytes, ApiError> {
    let config = &service.config;
    let token = config.secrets.token(address, generation);
    let sealed = token::seal(config.random.as_ref(), &kem.public, address, &token)?;
    Ok(convert::encode(&v1::JoinBoxResponse {
        box_id: convert::id_bytes(address.box_id.as_bytes()),
        key_record: record.encode().into(),
        encapsulated_key: sealed.encapsulated_key,
        sealed_token: sealed.ciphertext,
        hawk_host: config.cluster_name.clone(),
    }))
}

pub(crate) fn parse_and_verify(request: v1::JoinBoxRequest) -> Result<Joining, ApiError> {
    let key: SigningPublicKey = convert::fixed(&request.signing_key, "signing_key is no key")?;
    let signature = convert::fixed(&request.signature, "signature is not 64 bytes")?;
    let kem = kem_key(&request.kem_key)?;
    let device = DeviceId::of_key(&key);
    let signed = statement::join_box(&device, &kem.public);
    if !verify_signature(&key, &signed, &signature) || !kem.is_signed_by(&key) {
        return Err(Code::BadSignature.into());
    }
    Ok(Joining { device, kem })
}

/// Reads a KEM key. To one that is none nobody could seal, and its device would hold the queue all the same.
pub(super) fn kem_key(bytes: &[u8]) -> Result<KemKey, ApiError> {
    let kem = KemKey::decode(bytes).ok();
    let kem = kem.filter(|kem| token::is_kem_key(&kem.public));
    kem.ok_or(ApiError::invalid("kem_key is not a KEM key"))
}

/// The box that the device was linked to.
async fn find_box(
    service: &MailboxService,
    call: &Call,
    device: DeviceId,
) -> Result<(PartitionId, DeviceAddress), ApiError> {
    let partition = device.partition(service.config.partitions);
    let query = Query::ResolveDevice(device);
    let Answer::ResolvedDevice(found) = service.ask(partition, query, call.deadline).await? else {
        return Err(unexpected_answer("ResolveDevice"));
    };
    let box_id = found.ok_or(Code::NotLinked)?;
    let (home, _) = service.home(&box_id)?.ok_or(Code::NotLinked)?;
    Ok((home, DeviceAddress { box_id, device }))
}

/// What the box says of a device that has its place with this very key, and a token that is good: there
/// is nothing to do for it.
async fn standing(
    service: &MailboxService,
    call: &Call,
    home: PartitionId,
    command: &JoinBox,
) -> Result<Option<(KeyRecord, u64)>, ApiError> {
    let record = record(service, call, home, command.device).await?;
    match command.over(&record) {
        Ok(Some(_)) => return Ok(None),
        Ok(None) => {}
        Err(rejection) => {
            // No time is told with any of these.
            let (unknown, now) = (Code::NotLinked, Timestamp::default());
            return Err(ApiError::of_rejection(&rejection, unknown, now));
        }
    }
    let generation = good_token(service, call, home, command.device).await?;
    Ok(generation.map(|generation| (record, generation)))
}

/// The generation of a device's token, if that is good.
pub(super) async fn good_token(
    service: &MailboxService,
    call: &Call,
    home: PartitionId,
    address: DeviceAddress,
) -> Result<Option<u64>, ApiError> {
    let query = Query::DeviceAuth(address);
    match service.ask(home, query, call.deadline).await? {
        Answer::DeviceAuth(generation) => Ok(generation),
        _ => Err(unexpected_answer("DeviceAuth")),
    }
}

/// Binds the device to the box that lets it in, as it has signed: it belongs to that one from then on.
pub(super) async fn bind(
    service: &MailboxService,
    call: &Call,
    address: DeviceAddress,
) -> Result<(), ApiError> {
    let DeviceAddress { box_id, device } = address;
    let command = Command::ClaimDevice(ClaimDevice { device, box_id });
    let partition = device.partition(service.config.partitions);
    let changing = service.change(partition, command, Code::Internal, call.deadline);
    match changing.await? {
        Outcome::DeviceClaimed { box_id: bound } if bound == box_id => Ok(()),
        Outcome::DeviceClaimed { .. } => Err(Code::KeyAlreadyRegistered.into()),
        other => Err(unexpected_outcome(&other)),
    }
}

/// Gives the device its place; the generation of its token.
async fn join(
    service: &MailboxService,
    call: &Call,
    home: PartitionId,
    command: JoinBox,
) -> Result<u64, ApiError> {
    let command = Command::JoinBox(command);
    let changing = service.change(home, command, Code::NotLinked, call.deadline);
    match changing.await? {
        Outcome::BoxJoined { token_generation } => Ok(token_generation),
        other => Err(unexpected_outcome(&other)),
    }
}

async fn record(
    service: &MailboxService,
    call: &Call,
    home: PartitionId,
    address: DeviceAddress,
) -> Result<KeyRecord, ApiError> {
    let query = Query::BoxState(address.box_id);
    let Answer::BoxState(state) = service.ask(home, query, call.deadline).await? else {
        return Err(unexpected_answer("BoxState"));
    };
    if let Some(active) = state.filter(|state| state.active) {
        return Ok(active.record);
    }
    // The directory says that it is the device's own box.
    let query = Query::IsDeleted(address.box_id);
    match service.ask(home, query, call.deadline).await? {
        Answer::IsDeleted(true) => Err(Code::BoxDeleted.into()),
        Answer::IsDeleted(false) => Err(Code::NotLinked.into()),
        _ => Err(unexpected_answer("IsDeleted")),
    }
}
