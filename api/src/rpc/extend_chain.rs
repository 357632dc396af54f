//! ExtendChain: another link of the caller's identity chain. Signed by a device besides the token.
//!
//! A device that is added is bound to the box first, in its own directory partition, so that it can be
//! found by its id and belongs to one box only. That is for ever, and so nothing is bound unless the link
//! would be taken as things are: who has a token alone binds nobody, and who may add devices can bind no
//! more than their chain has links. If the second step is lost, the same request again does it.

use bytes::Bytes;
use rossby_domain::chain::{Change, Link, SigningPublicKey};
use rossby_domain::command::{ClaimDevice, ExtendChain};
use rossby_domain::ids::{DeviceAddress, DeviceId};
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Command, Outcome, Query};
use rossby_proto::v1;

use crate::call::Call;
use crate::convert;
use crate::error::{ApiError, Code};
use crate::mailbox::{Failure, MailboxService, unexpected_answer, unexpected_outcome};

pub(crate) async fn extend_chain(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
) -> Result<Bytes, Failure> {
    let request: v1::ExtendChainRequest = convert::decode(&call.message)?;
    let link =
        Link::decode(&request.link).map_err(|_| ApiError::invalid("link is not a chain's link"))?;
    let command = ExtendChain {
        box_id: caller.box_id,
        link,
    };
    if let Change::AddDevice { key } = link.change {
        check(service, caller, call, &command).await?;
        bind(service, caller, call, &key).await?;
    }
    let command = Command::ExtendChain(command);
    match service.change_own(caller, command, call).await? {
        Outcome::ChainExtended { version } => {
            Ok(convert::encode(&v1::ExtendChainResponse { version }))
        }
        other => Err(unexpected_outcome(&other).into()),
    }
}

/// Whether the link would be taken now, or was.
async fn check(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
    command: &ExtendChain,
) -> Result<(), Failure> {
    let query = Query::BoxState(caller.box_id);
    let Answer::BoxState(state) = service.ask_own(caller, query, call).await? else {
        return Err(unexpected_answer("BoxState").into());
    };
    let record = state.ok_or(Code::Unauthenticated)?.record;
    if record.has_link(&command.link) {
        return Ok(());
    }
    match command.over(&record) {
        Ok(_) => Ok(()),
        Err(rejection) => {
            // No time is told with any of these.
            let (unknown, now) = (Code::Unauthenticated, Timestamp::default());
            Err(ApiError::of_rejection(&rejection, unknown, now).into())
        }
    }
}

/// Binds the new device to the caller's box. One that belongs to another box, or has begun to register
/// one, is refused.
async fn bind(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
    key: &SigningPublicKey,
) -> Result<(), ApiError> {
    let device = DeviceId::of_key(key);
    let command = Command::ClaimDevice(ClaimDevice {
        device,
        box_id: caller.box_id,
    });
    let partition = device.partition(service.config.partitions);
    let changing = service.change(partition, command, Code::Internal, call.deadline);
    match changing.await? {
        Outcome::DeviceClaimed { box_id } if box_id == caller.box_id => Ok(()),
        Outcome::DeviceClaimed { .. } => Err(Code::KeyAlreadyRegistered.into()),
        other => Err(unexpected_outcome(&other)),
    }
}
