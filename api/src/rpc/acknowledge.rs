//! Acknowledge: moves the caller's cursor; what every device has acknowledged is purged.

use bytes::Bytes;
use rossby_domain::command::Acknowledge;
use rossby_domain::ids::{DeviceAddress, Sequence};
use rossby_domain::{Command, Outcome};
use rossby_proto::v1;

use crate::call::Call;
use crate::convert;
use crate::error::Code;
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
    let partition = caller.box_id.partition();
    match service
        .propose(partition, Command::Acknowledge(command), call.deadline)
        .await?
    {
        Ok(Outcome::Acknowledged { cursor, .. }) => Ok(convert::encode(&v1::AcknowledgeResponse {
            cursor: cursor.0,
        })),
        Ok(other) => Err(unexpected_outcome(&other)),
        Err(rejection) => Err(service
            .refusal(partition, &rejection, Code::Unauthenticated)
            .into()),
    }
}
