//! LookupRecovery: the key record of a box, for who holds its recovery key and has lost the rest.
//!
//! It runs at the node where it arrives. That there is no such box, and that it has another recovery key, are
//! one answer after the same two reads: nobody else learns whether a phone or email is here, or a box.

use bytes::Bytes;
use rossby_domain::chain::{KeyRecord, SigningPublicKey, verify_signature};
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::{BoxId, PartitionId};
use rossby_domain::statement::{self, Recoverable};
use rossby_domain::{Answer, Query};
use rossby_proto::v1;
use rossby_proto::v1::lookup_recovery_request::By;

use super::lookup_key::decoy;
use crate::call::Call;
use crate::convert;
use crate::error::{ApiError, Code};
use crate::mailbox::{Failure, MailboxService, unexpected_answer};

/// A request that was read and whose signature holds.
pub(crate) struct Lookup {
    by: LookupBy,
    recovery_key: SigningPublicKey,
}

enum LookupBy {
    Box(BoxId),
    Identifier(Identifier),
}

pub(crate) async fn lookup_recovery(
    service: &MailboxService,
    call: &Call,
) -> Result<Bytes, Failure> {
    let Lookup { by, recovery_key } = parse_and_verify(convert::decode(&call.message)?)?;
    let box_id = match by {
        LookupBy::Box(box_id) => box_id,
        LookupBy::Identifier(identifier) => resolve(service, call, &identifier).await?,
    };
    let (home, _) = service.home(&box_id)?.ok_or(Code::NotRecoverable)?;
    let record = record(service, call, home, box_id).await?;
    if record.genesis().recovery_key != recovery_key {
        return Err(Code::NotRecoverable.into());
    }
    Ok(convert::encode(&v1::LookupRecoveryResponse {
        box_id: convert::id_bytes(box_id.as_bytes()),
        key_record: record.encode().into(),
    }))
}

pub(crate) fn parse_and_verify(request: v1::LookupRecoveryRequest) -> Result<Lookup, ApiError> {
    let recovery_key = convert::fixed(&request.recovery_key, "recovery_key is no key")?;
    let signature = convert::fixed(&request.signature, "signature is not 64 bytes")?;
    let by = match request.by {
        Some(By::BoxId(bytes)) => LookupBy::Box(convert::box_id(&bytes)?),
        Some(By::Identifier(wire)) => LookupBy::Identifier(convert::identifier(Some(&wire))?),
        None => return Err(ApiError::invalid("what to recover is missing")),
    };
    let signed = statement::lookup_recovery(match &by {
        LookupBy::Box(box_id) => Recoverable::Box(box_id),
        LookupBy::Identifier(identifier) => Recoverable::Identifier(identifier),
    });
    if !verify_signature(&recovery_key, &signed, &signature) {
        return Err(Code::BadSignature.into());
    }
    Ok(Lookup { by, recovery_key })
}

/// The box that has the identifier, found by others or not; else one that nobody has, to be looked for in vain.
async fn resolve(
    service: &MailboxService,
    call: &Call,
    identifier: &Identifier,
) -> Result<BoxId, ApiError> {
    let config = &service.config;
    let hash = config.secrets.identifier_hash(identifier);
    let partition = hash.partition(config.partitions);
    let query = Query::VerifiedClaim(hash);
    match service.ask(partition, query, call.deadline).await? {
        Answer::VerifiedClaim(Some((box_id, _))) => Ok(box_id),
        Answer::VerifiedClaim(None) => Ok(decoy(service, hash.as_bytes())),
        _ => Err(unexpected_answer("VerifiedClaim")),
    }
}

/// The record of a box that is in use.
pub(super) async fn record(
    service: &MailboxService,
    call: &Call,
    home: PartitionId,
    box_id: BoxId,
) -> Result<KeyRecord, ApiError> {
    let query = Query::BoxState(box_id);
    match service.ask(home, query, call.deadline).await? {
        Answer::BoxState(state) => {
            let active = state.filter(|state| state.active);
            Ok(active.ok_or(Code::NotRecoverable)?.record)
        }
        _ => Err(unexpected_answer("BoxState")),
    }
}
