//! Register: makes a box for a device, not yet authorised, and asks for a verification code.
//!
//! Three commands, each in a partition of its own and idempotent: the device's entry, the box, the
//! claim. They may be in three groups; it runs at the node where it arrives, and the box is born where
//! that node's boxes are. Whatever happens in between, the same request again, at any node, finishes it;
//! it also resends a code. With `reset` the identifier may be another box's ([`super::resetting`]): nothing is decided
//! here, so it needs no signature of its own.

use bytes::Bytes;
use rossby_domain::chain::{ChainError, KeyRecord, verify_signature};
use rossby_domain::command::{ClaimDevice, CreateBox};
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::{BoxId, DeviceId};
use rossby_domain::{Command, Outcome, statement};
use rossby_proto::v1;

use super::{claiming, token};
use crate::call::Call;
use crate::convert;
use crate::error::{ApiError, Code};
use crate::mailbox::{Failure, MailboxService, unexpected_outcome};

/// A new record is a genesis and one KEM key, about 1.5 KiB. More would be links to verify for
/// somebody who has proven nothing yet.
const MAX_NEW_RECORD_BYTES: usize = 4096;

/// A request that was read and whose signatures hold.
pub(crate) struct Registration {
    record: KeyRecord,
    device: DeviceId,
    identifier: Identifier,
    discoverable: bool,
    reset: bool,
}

pub(crate) async fn register(service: &MailboxService, call: &Call) -> Result<Bytes, Failure> {
    let registration = parse_and_verify(convert::decode(&call.message)?)?;
    claiming::check_reach(service, &registration.identifier)?;
    claiming::count_code(service, None, call)?;
    let box_id = claim_device(service, call, &registration).await?;
    create_box(service, call, &registration, box_id).await?;
    let asked = (&registration.identifier, registration.discoverable);
    claiming::open_claim(service, call, asked, box_id, registration.reset).await?;
    Ok(convert::encode(&v1::RegisterResponse {
        box_id: convert::id_bytes(box_id.as_bytes()),
        code_ttl_ms: service.config.stored_limits.code_ttl_ms,
    }))
}

pub(crate) fn parse_and_verify(request: v1::RegisterRequest) -> Result<Registration, ApiError> {
    let identifier = convert::identifier(request.identifier.as_ref())?;
    let signature = convert::fixed(&request.signature, "signature is not 64 bytes")?;
    if request.key_record.len() > MAX_NEW_RECORD_BYTES {
        return Err(ApiError::invalid(
            "key_record is longer than a new one can be",
        ));
    }
    let record = KeyRecord::decode(&request.key_record).map_err(|error| match error {
        ChainError::BadSignature(_) => ApiError::from(Code::BadSignature),
        _ => ApiError::invalid("key_record can't be read"),
    })?;
    if record.version() != 0 {
        return Err(ApiError::invalid("key_record already has links"));
    }
    let device = record.genesis().device();
    let keys = record
        .device(&device)
        .ok_or(ApiError::invalid("key_record has no KEM key"))?;
    // Found out at Authorize only, it would leave the identifier to a box that nobody can open.
    if !token::is_kem_key(&keys.kem.public) {
        return Err(ApiError::invalid(
            "key_record has a KEM key that is not one",
        ));
    }
    let signed = statement::register(
        &record.genesis_hash(),
        &identifier,
        request.discoverable,
        &keys.kem.public,
    );
    if !verify_signature(&record.genesis().device_key, &signed, &signature) {
        return Err(Code::BadSignature.into());
    }
    Ok(Registration {
        record,
        device,
        identifier,
        discoverable: request.discoverable,
        reset: request.reset,
    })
}

/// Binds the device to a box: to the one derived here, or to the one of an earlier try.
async fn claim_device(
    service: &MailboxService,
    call: &Call,
    registration: &Registration,
) -> Result<BoxId, ApiError> {
    let genesis_hash = registration.record.genesis_hash();
    let births = service.config.router.directory().births();
    let birth = BoxId::birth(&births, &genesis_hash).ok_or(Code::NotInCluster)?;
    let device = registration.device;
    let command = ClaimDevice {
        device,
        box_id: BoxId::derive(birth, &genesis_hash),
    };
    let partition = device.partition(service.config.partitions);
    let command = Command::ClaimDevice(command);
    let changing = service.change(partition, command, Code::Internal, call.deadline);
    match changing.await? {
        Outcome::DeviceClaimed { box_id } => Ok(box_id),
        other => Err(unexpected_outcome(&other)),
    }
}

async fn create_box(
    service: &MailboxService,
    call: &Call,
    registration: &Registration,
    box_id: BoxId,
) -> Result<(), ApiError> {
    let secrets = &service.config.secrets;
    let identifier = secrets.identifier_hash(&registration.identifier);
    let command = CreateBox {
        box_id,
        record: registration.record.clone(),
        identifier,
        sealed_identifier: claiming::seal_identifier(service, &registration.identifier, &box_id)?,
        discoverable: registration.discoverable,
    };
    let partition = box_id.partition();
    let command = Command::CreateBox(command);
    let changing = service.change(partition, command, Code::Internal, call.deadline);
    match changing.await? {
        Outcome::BoxCreated => Ok(()),
        other => Err(unexpected_outcome(&other)),
    }
}
