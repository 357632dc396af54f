//! Block: to a blocked sender the caller's box does not exist.

use bytes::Bytes;
use rossby_domain::command::Block;
use rossby_domain::ids::DeviceAddress;
use rossby_domain::{Command, Outcome};
use rossby_proto::v1;

use crate::call::Call;
use crate::convert;
use crate::error::ApiError;
use crate::mailbox::{Failure, MailboxService, unexpected_outcome};

pub(crate) async fn block(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
) -> Result<Bytes, Failure> {
    let request: v1::BlockRequest = convert::decode(&call.message)?;
    let other = convert::box_id(&request.box_id)?;
    if other == caller.box_id {
        return Err(ApiError::invalid("a box can't block itself").into());
    }
    let command = Block {
        box_id: caller.box_id,
        other,
        blocked: request.blocked,
    };
    let command = Command::Block(command);
    match service.change_own(caller, command, call).await? {
        Outcome::BlockChanged => Ok(convert::encode(&v1::BlockResponse {})),
        other => Err(unexpected_outcome(&other).into()),
    }
}
