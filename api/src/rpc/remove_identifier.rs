//! RemoveIdentifier: an identifier of the caller's box is its no more, and free for others. Signed by
//! the device besides the token.
//!
//! Three idempotent commands: the box says that the identifier leaves, its claims are released in the
//! identifier's partition, and the box drops it. If the later ones are lost, a retry or the finisher does them.

use bytes::Bytes;
use rossby_domain::ids::DeviceAddress;
use rossby_domain::statement;
use rossby_proto::v1;

use super::add_identifier::{check_signature, remove};
use crate::call::Call;
use crate::convert;
use crate::mailbox::{Failure, MailboxService};

pub(crate) async fn remove_identifier(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
) -> Result<Bytes, Failure> {
    let request: v1::RemoveIdentifierRequest = convert::decode(&call.message)?;
    let identifier = convert::identifier(request.identifier.as_ref())?;
    let (box_id, device, generation) = (caller.box_id, caller.device, request.generation);
    let signed = statement::remove_identifier(&box_id, &device, &identifier, generation);
    check_signature(service, caller, call, &signed, &request.signature).await?;
    let hash = service.config.secrets.identifier_hash(&identifier);
    remove(service, caller, call, hash, generation).await?;
    Ok(convert::encode(&v1::RemoveIdentifierResponse {}))
}
