//! Accept: from whom the caller's box takes envelopes. To everybody else it does not exist.

use bytes::Bytes;
use rossby_domain::command::Accept;
use rossby_domain::ids::{BoxId, DeviceAddress};
use rossby_domain::{Command, Outcome};
use rossby_proto::v1;

use crate::call::Call;
use crate::convert;
use crate::error::{ApiError, Code};
use crate::mailbox::{Failure, MailboxService, unexpected_outcome};

/// The numbers of `allow` and `disallow` in `AcceptRequest`.
const LIST_TAGS: [usize; 2] = [2, 3];

pub(crate) async fn accept(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
) -> Result<Bytes, Failure> {
    let limit = service.config.stored_limits.blocked_boxes;
    let request = parse(&call.message, limit)?;
    let command = Command::Accept(Accept {
        box_id: caller.box_id,
        contacts_only: request.contacts_only,
        allow: boxes(&request.allow)?,
        disallow: boxes(&request.disallow)?,
    });
    match service.change_own(caller, command, call).await? {
        Outcome::AcceptChanged { contacts_only } => {
            Ok(convert::encode(&v1::AcceptResponse { contacts_only }))
        }
        other => Err(unexpected_outcome(&other).into()),
    }
}

/// Reads a request that names no more boxes than a box may have as contacts.
pub(crate) fn parse(message: &Bytes, limit: u32) -> Result<v1::AcceptRequest, ApiError> {
    for tag in LIST_TAGS {
        if convert::count_fields(message, tag)? as u64 > u64::from(limit) {
            return Err(ApiError::from(Code::TooManyAllowed).with_metadata("limit", limit));
        }
    }
    convert::decode(message)
}

pub(crate) fn boxes(listed: &[Bytes]) -> Result<Vec<BoxId>, ApiError> {
    listed.iter().map(|bytes| convert::box_id(bytes)).collect()
}
