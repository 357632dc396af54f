//! ExtendChain: another link of the caller's identity chain. Signed by a device besides the token.
//!
//! A device that is added is offered its place once the link is in the chain, in the device's own directory
//! partition, so that it finds its box when it comes. It binds itself then, and to one box only; until it has,
//! the last box that added it counts. So there are never more offers than links in chains, and who has a
//! token alone offers nothing. If the second step is lost, the same request again does it.

use bytes::Bytes;
use rossby_domain::chain::{Change, Link};
use rossby_domain::command::{ExtendChain, OfferDevice};
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
    let mut added = None;
    if let Change::AddDevice { key } = link.change {
        let device = DeviceId::of_key(&key);
        let is_gone = check(service, caller, call, &command, &device).await?;
        check_unbound(service, caller, call, device).await?;
        // One that was removed again is offered nothing: the link holds no place for it.
        added = (!is_gone).then_some(device);
    }
    let command = Command::ExtendChain(command);
    let version = match service.change_own(caller, command, call).await? {
        Outcome::ChainExtended { version } => version,
        other => return Err(unexpected_outcome(&other).into()),
    };
    if let Some(device) = added {
        offer(service, caller, call, device).await?;
    }
    Ok(convert::encode(&v1::ExtendChainResponse { version }))
}

/// Sees to it that the link would be taken now, or was. Whether the device was removed since.
async fn check(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
    command: &ExtendChain,
    device: &DeviceId,
) -> Result<bool, Failure> {
    let query = Query::BoxState(caller.box_id);
    let Answer::BoxState(state) = service.ask_own(caller, query, call).await? else {
        return Err(unexpected_answer("BoxState").into());
    };
    let record = state.ok_or(Code::Unauthenticated)?.record;
    if record.has_link(&command.link) {
        return Ok(record.is_removed(device));
    }
    match command.over(&record) {
        Ok(_) => Ok(false),
        Err(rejection) => {
            // No time is told with any of these.
            let (unknown, now) = (Code::Unauthenticated, Timestamp::default());
            Err(ApiError::of_rejection(&rejection, unknown, now).into())
        }
    }
}

/// Refuses a device that has bound itself to another box, or has begun to register one, before it takes a
/// place in the chain.
async fn check_unbound(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
    device: DeviceId,
) -> Result<(), ApiError> {
    let partition = device.partition(service.config.partitions);
    let query = Query::BoundDevice(device);
    match service.ask(partition, query, call.deadline).await? {
        Answer::ResolvedDevice(bound) if bound.is_none_or(|bound| bound == caller.box_id) => Ok(()),
        Answer::ResolvedDevice(_) => Err(Code::KeyAlreadyRegistered.into()),
        _ => Err(unexpected_answer("BoundDevice")),
    }
}

/// Lets the new device find the caller's box.
async fn offer(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
    device: DeviceId,
) -> Result<(), ApiError> {
    let box_id = caller.box_id;
    let command = Command::OfferDevice(OfferDevice { device, box_id });
    let partition = device.partition(service.config.partitions);
    let changing = service.change(partition, command, Code::Internal, call.deadline);
    match changing.await? {
        Outcome::DeviceClaimed { .. } => Ok(()),
        other => Err(unexpected_outcome(&other)),
    }
}
