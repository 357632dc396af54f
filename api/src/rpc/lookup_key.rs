//! LookupKey: the key record of a box, found by phone, email, device or box.
//!
//! That nobody is there, that somebody does not want to be found, and that somebody has blocked the
//! caller are one answer, and take the same two reads, so that neither the words nor the time tell
//! them apart. The second read of who is not there goes to a partition that boxes live in, in whatever
//! group, as it would for somebody.

use bytes::Bytes;
use rossby_domain::ids::{BoxId, DeviceAddress, PartitionId};
use rossby_domain::profile::SealedProfile;
use rossby_domain::query::KeyRecordAnswer;
use rossby_domain::{Answer, Query};
use rossby_proto::v1;
use rossby_proto::v1::lookup_key_request::By;
use sha2::{Digest as _, Sha256};

use crate::call::Call;
use crate::convert;
use crate::error::{ApiError, Code};
use crate::mailbox::{Failure, MailboxService, unexpected_answer};

pub(crate) async fn lookup_key(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
) -> Result<Bytes, Failure> {
    let request: v1::LookupKeyRequest = convert::decode(&call.message)?;
    count(service, &caller.box_id, request.by.as_ref())?;
    let device = match &request.by {
        Some(By::DeviceId(bytes)) => Some(convert::device_id(bytes)?),
        _ => None,
    };
    let profile_after = request.profile_after;
    let box_id = resolve(service, call, request.by).await?;
    let KeyRecordAnswer {
        record,
        next_counter,
    } = record(service, call, caller, box_id).await?;
    // It may have been revoked since, or never been added.
    if device.is_some_and(|device| record.signing_key(&device).is_none()) {
        return Err(Code::NoUser.into());
    }
    let profile = match profile_after {
        Some(after) => sealed_profile(service, call, caller, box_id, after).await?,
        None => None,
    };
    let (profile_version, sealed_profile) =
        profile.map_or((0, Bytes::new()), |shown| (shown.version, shown.sealed));
    Ok(convert::encode(&v1::LookupKeyResponse {
        box_id: convert::id_bytes(box_id.as_bytes()),
        key_record: record.encode().into(),
        next_counter: next_counter.0,
        profile_version,
        sealed_profile,
    }))
}

/// Counts a lookup in the directory. A box id is nothing that can be guessed: who knows one was told it, by a letter, by
/// a group or by its owner, and must be able to read and answer however many write at once.
fn count(service: &MailboxService, caller: &BoxId, by: Option<&By>) -> Result<(), ApiError> {
    if let Some(By::BoxId(_)) = by {
        return Ok(());
    }
    let counted = service.rates.lookup(caller);
    counted.map_err(|too_often| service.too_often(too_often, Code::RateLimited))
}

/// What its owner shows, of a box that the caller may see.
async fn sealed_profile(
    service: &MailboxService,
    call: &Call,
    caller: DeviceAddress,
    box_id: BoxId,
    after: u64,
) -> Result<Option<SealedProfile>, Failure> {
    let (home, _) = service.home(&box_id)?.ok_or(Code::NoUser)?;
    let query = Query::SealedProfile {
        box_id,
        sender: caller.box_id,
        after,
    };
    match service.ask(home, query, call.deadline).await? {
        Answer::SealedProfile(found) => Ok(found),
        _ => Err(unexpected_answer("SealedProfile").into()),
    }
}

/// The box that is meant; where nobody is found, a box that nobody has, to be looked for in vain.
async fn resolve(service: &MailboxService, call: &Call, by: Option<By>) -> Result<BoxId, Failure> {
    let config = &service.config;
    let (partition, query, decoy) =
        match by.ok_or(ApiError::invalid("whom to look up is missing"))? {
            By::BoxId(bytes) => return Ok(convert::box_id(&bytes)?),
            By::Identifier(identifier) => {
                let identifier = convert::identifier(Some(&identifier))?;
                let hash = config.secrets.identifier_hash(&identifier);
                let partition = hash.partition(config.partitions);
                let decoy = decoy(service, hash.as_bytes());
                (partition, Query::ResolveIdentifier(hash), decoy)
            }
            By::DeviceId(bytes) => {
                let device = convert::device_id(&bytes)?;
                let partition = device.partition(config.partitions);
                let decoy = decoy(service, &Sha256::digest(device.as_bytes()).into());
                (partition, Query::ResolveDevice(device), decoy)
            }
        };
    match service.ask(partition, query, call.deadline).await? {
        Answer::ResolvedIdentifier(found) | Answer::ResolvedDevice(found) => {
            Ok(found.unwrap_or(decoy))
        }
        _ => Err(unexpected_answer("Resolve").into()),
    }
}

/// A box that nobody has, in the first partition with an owner from where the hash points to.
pub(super) fn decoy(service: &MailboxService, hash: &[u8; 32]) -> BoxId {
    let partitions = service.config.partitions;
    let directory = service.config.router.directory();
    let first = partitions.of_hash(hash);
    let behind = partitions.all().filter(|partition| *partition >= first);
    let before = partitions.all().filter(|partition| *partition < first);
    let has_owner = |partition: &PartitionId| directory.owner(*partition).is_some();
    let home = behind.chain(before).find(has_owner);
    BoxId::derive(home.unwrap_or(first), hash)
}

/// Its record, if the caller may see it.
async fn record(
    service: &MailboxService,
    call: &Call,
    caller: DeviceAddress,
    box_id: BoxId,
) -> Result<KeyRecordAnswer, Failure> {
    let (home, _) = service.home(&box_id)?.ok_or(Code::NoUser)?;
    let query = Query::KeyRecord {
        box_id,
        sender: caller,
    };
    match service.ask(home, query, call.deadline).await? {
        Answer::KeyRecord(found) => Ok(found.ok_or(Code::NoUser)?),
        _ => Err(unexpected_answer("KeyRecord").into()),
    }
}
