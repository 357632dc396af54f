//! DeleteAccount: the caller's box and all that it has goes, for ever. Signed by the device besides the token.
//!
//! One command takes keys, devices and lists away, and the box is one that is not there from then on. Its identifiers are released
//! as those are that are removed from a box, here at once, or by the finisher if that fails; its mail goes with what has
//! expired.

use bytes::Bytes;
use rossby_domain::command::DeleteBox;
use rossby_domain::ids::DeviceAddress;
use rossby_domain::{Command, Outcome, statement};
use rossby_proto::v1;

use super::add_identifier::check_signature;
use super::releasing::Leaving;
use crate::call::Call;
use crate::convert;
use crate::mailbox::{Failure, MailboxService, unexpected_outcome};

pub(crate) async fn delete_account(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
) -> Result<Bytes, Failure> {
    let request: v1::DeleteAccountRequest = convert::decode(&call.message)?;
    let signed = statement::delete_account(&caller.box_id, &caller.device);
    check_signature(service, caller, call, &signed, &request.signature).await?;
    let command = Command::DeleteBox(DeleteBox { device: caller });
    let leaving = match service.change_own(caller, command, call).await? {
        Outcome::BoxDeleted { leaving } => leaving,
        other => return Err(unexpected_outcome(&other).into()),
    };
    let (router, partitions) = (&service.config.router, service.config.partitions);
    for (identifier, generation) in leaving {
        let leaving = Leaving {
            box_id: caller.box_id,
            identifier,
            generation,
        };
        // The box is gone, whatever comes of this.
        let _ = leaving.release(router, partitions, call.deadline).await;
    }
    Ok(convert::encode(&v1::DeleteAccountResponse {}))
}
