//! SetTtl: how long envelopes may wait in the caller's box. Signed by the device besides the token: who has that alone could
//! otherwise have all mail gone that no device fetches at once.

use bytes::Bytes;
use rossby_domain::command::SetTtl;
use rossby_domain::ids::DeviceAddress;
use rossby_domain::limits::SHORTEST_TTL_MS;
use rossby_domain::{Command, Outcome, statement};
use rossby_proto::v1;

use super::add_identifier::check_signature;
use crate::call::Call;
use crate::convert;
use crate::error::ApiError;
use crate::mailbox::{Failure, MailboxService, unexpected_outcome};

pub(crate) async fn set_ttl(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
) -> Result<Bytes, Failure> {
    let request: v1::SetTtlRequest = convert::decode(&call.message)?;
    if request
        .ttl_ms
        .is_some_and(|ttl_ms| ttl_ms < SHORTEST_TTL_MS)
    {
        return Err(ApiError::invalid("ttl_ms must be at least a minute").into());
    }
    let (box_id, device) = (&caller.box_id, &caller.device);
    let signed = statement::set_ttl(box_id, device, request.ttl_ms, request.number);
    check_signature(service, caller, call, &signed, &request.signature).await?;
    let command = Command::SetTtl(SetTtl {
        box_id: caller.box_id,
        longest_ms: request.ttl_ms,
        number: request.number,
    });
    match service.change_own(caller, command, call).await? {
        Outcome::TtlSet { ttl_ms } => Ok(convert::encode(&v1::SetTtlResponse { ttl_ms })),
        other => Err(unexpected_outcome(&other).into()),
    }
}
