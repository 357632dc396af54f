//! Acknowledge: moves the caller's cursor; what every device has acknowledged is purged.

use bytes::Bytes;
use rossby_domain::command::Acknowledge;
use rossby_domain::ids::{DeviceAddress, Sequence};
use rossby_domain::{Command, Outcome};
use rossby_proto::v1;

use crate::call::Call;
use crate::convert;
use crate::mailbox::{Failure, MailboxService, unexpected_outcome};

pub(crate) async fn acknowledge(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
) -> Result<Bytes, Failure> {
    let request: v1::AcknowledgeRequest = convert::decode(&call.message)?;
    let command = Acknowledge {
        device: caller,
        upto: Sequence(request.upto),
    };
    let command = Command::Acknowledge(command);
    match service.change_own(caller, command, call).await? {
        Outcome::Acknowledged { cursor, .. } => Ok(convert::encode(&v1::AcknowledgeResponse {
            cursor: cursor.0,
        })),
        other => Err(unexpected_outcome(&other).into()),
    }
}
