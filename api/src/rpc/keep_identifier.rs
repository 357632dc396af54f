//! KeepIdentifier: a device of the caller's box says that an identifier stays, which another box has proven to be
//! its own. Signed by the device besides the token.

use bytes::Bytes;
use rossby_domain::command::{ForgetReset, VetoReset};
use rossby_domain::ids::DeviceAddress;
use rossby_domain::{Command, Outcome, statement};
use rossby_proto::v1;

use super::add_identifier::check_signature;
use crate::call::Call;
use crate::convert;
use crate::error::Code;
use crate::mailbox::{Failure, MailboxService, unexpected_outcome};

pub(crate) async fn keep_identifier(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
) -> Result<Bytes, Failure> {
    let request: v1::KeepIdentifierRequest = convert::decode(&call.message)?;
    let identifier = convert::identifier(request.identifier.as_ref())?;
    let (box_id, device, serial) = (caller.box_id, caller.device, request.reset_serial);
    let signed = statement::keep_identifier(&box_id, &device, &identifier, serial);
    check_signature(service, caller, call, &signed, &request.signature).await?;
    let identifier = service.config.secrets.identifier_hash(&identifier);
    let veto = Command::VetoReset(VetoReset {
        identifier,
        box_id,
        serial,
    });
    let directory = identifier.partition(service.config.partitions);
    let changing = service.change(directory, veto, Code::IdentifierChanged, call.deadline);
    match changing.await? {
        Outcome::ResetVetoed => {}
        other => return Err(unexpected_outcome(&other).into()),
    }
    let forget = Command::ForgetReset(ForgetReset {
        box_id,
        identifier,
        serial,
    });
    match service.change_own(caller, forget, call).await? {
        Outcome::ResetNoted => Ok(convert::encode(&v1::KeepIdentifierResponse {})),
        other => Err(unexpected_outcome(&other).into()),
    }
}
