//! SetTtl: how long envelopes may wait in the caller's box.

use bytes::Bytes;
use rossby_domain::command::SetTtl;
use rossby_domain::ids::DeviceAddress;
use rossby_domain::{Command, Outcome};
use rossby_proto::v1;

use crate::call::Call;
use crate::convert;
use crate::error::ApiError;
use crate::mailbox::{Failure, MailboxService, unexpected_outcome};

/// With less, mail would be gone before a device that is on could fetch it.
const SHORTEST_MS: u64 = 60_000;

pub(crate) async fn set_ttl(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
) -> Result<Bytes, Failure> {
    let request: v1::SetTtlRequest = convert::decode(&call.message)?;
    if request.ttl_ms.is_some_and(|ttl_ms| ttl_ms < SHORTEST_MS) {
        return Err(ApiError::invalid("ttl_ms must be at least a minute").into());
    }
    let command = Command::SetTtl(SetTtl {
        box_id: caller.box_id,
        longest_ms: request.ttl_ms,
    });
    match service.change_own(caller, command, call).await? {
        Outcome::TtlSet { ttl_ms } => Ok(convert::encode(&v1::SetTtlResponse { ttl_ms })),
        other => Err(unexpected_outcome(&other).into()),
    }
}
