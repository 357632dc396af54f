//! AddIdentifier: a code is sent to another identifier of the caller's box. Signed by the device besides
//! the token. `Authorize` proves it then, as the first one.
//!
//! Two idempotent commands: the box lists the identifier, and the claim is opened in the identifier's
//! partition, wherever its group is. What comes of the claim is the same as at Register: whether somebody else
//! has the identifier is told only if that one can be found by it.

use bytes::Bytes;
use rossby_domain::chain::verify_signature;
use rossby_domain::command::{AddIdentifier, RemoveIdentifier};
use rossby_domain::identifier::{Identifier, IdentifierHash};
use rossby_domain::ids::DeviceAddress;
use rossby_domain::{Answer, Command, Outcome, Query, statement};
use rossby_proto::v1;

use super::claiming;
use super::releasing::Leaving;
use crate::call::Call;
use crate::convert;
use crate::error::{ApiError, Code};
use crate::mailbox::{Failure, MailboxService, unexpected_answer, unexpected_outcome};

/// How often an identifier that is on its way out is released before it is added.
const MAX_TRIES: u32 = 3;

pub(crate) async fn add_identifier(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
) -> Result<Bytes, Failure> {
    let request: v1::AddIdentifierRequest = convert::decode(&call.message)?;
    let identifier = convert::identifier(request.identifier.as_ref())?;
    let discoverable = request.discoverable;
    let (box_id, device) = (caller.box_id, caller.device);
    let signed = statement::add_identifier(&box_id, &device, &identifier, discoverable);
    check_signature(service, caller, call, &signed, &request.signature).await?;
    claiming::check_reach(service, &identifier)?;
    claiming::count_code(service, Some(&box_id), call)?;
    list(service, caller, call, (&identifier, discoverable)).await?;
    let opening = claiming::open_claim(service, call, (&identifier, discoverable), box_id, false);
    if let Err(refused) = opening.await {
        if refused.code() == Code::IdentifierTaken {
            // The box need not list it; if that fails, it is forgotten in a day.
            let hash = service.config.secrets.identifier_hash(&identifier);
            let _ = remove(service, caller, call, hash, 0).await;
        }
        return Err(refused.into());
    }
    Ok(convert::encode(&v1::AddIdentifierResponse {
        code_ttl_ms: service.config.stored_limits.code_ttl_ms,
    }))
}

/// Sees to it that the calling device itself has signed, not only somebody with its token.
pub(super) async fn check_signature(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
    signed: &[u8],
    signature: &Bytes,
) -> Result<(), Failure> {
    let signature = convert::fixed(signature, "signature is not 64 bytes")?;
    let query = Query::BoxState(caller.box_id);
    let Answer::BoxState(state) = service.ask_own(caller, query, call).await? else {
        return Err(unexpected_answer("BoxState").into());
    };
    let record = state.ok_or(Code::Unauthenticated)?.record;
    let key = record.signing_key(&caller.device);
    if !verify_signature(key.ok_or(Code::Unauthenticated)?, signed, &signature) {
        return Err(Code::BadSignature.into());
    }
    Ok(())
}

/// Has the box list the identifier.
async fn list(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
    (identifier, discoverable): (&Identifier, bool),
) -> Result<(), Failure> {
    let hash = service.config.secrets.identifier_hash(identifier);
    let command = Command::AddIdentifier(AddIdentifier {
        device: caller,
        identifier: hash,
        sealed_identifier: claiming::seal_identifier(service, identifier, &caller.box_id)?,
        discoverable,
    });
    for _ in 0..MAX_TRIES {
        match service.change_own(caller, command.clone(), call).await? {
            Outcome::IdentifierAdded => return Ok(()),
            Outcome::IdentifierLeaving { generation } => {
                release(service, caller, call, hash, generation).await?;
            }
            other => return Err(unexpected_outcome(&other).into()),
        }
    }
    Err(ApiError::unavailable("an identifier is removed again and again").into())
}

/// Takes an identifier from the caller's box, if it is there under this generation.
pub(super) async fn remove(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
    identifier: IdentifierHash,
    generation: u64,
) -> Result<(), Failure> {
    let command = Command::RemoveIdentifier(RemoveIdentifier {
        device: caller,
        identifier,
        generation,
    });
    match service.change_own(caller, command, call).await? {
        Outcome::IdentifierRemoved => Ok(()),
        Outcome::IdentifierLeaving { generation } => {
            release(service, caller, call, identifier, generation).await
        }
        other => Err(unexpected_outcome(&other).into()),
    }
}

async fn release(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
    identifier: IdentifierHash,
    generation: u64,
) -> Result<(), Failure> {
    let leaving = Leaving {
        box_id: caller.box_id,
        identifier,
        generation,
    };
    let (router, partitions) = (&service.config.router, service.config.partitions);
    Ok(leaving.release(router, partitions, call.deadline).await?)
}
