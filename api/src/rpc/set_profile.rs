//! SetProfile: what the caller shows of themselves, sealed for those whom they have given the key. Signed by the device
//! besides the token.

use bytes::Bytes;
use rossby_domain::command::SetProfile;
use rossby_domain::ids::DeviceAddress;
use rossby_domain::profile::MAX_SEALED_PROFILE_BYTES;
use rossby_domain::{Command, Outcome, statement};
use rossby_proto::v1;

use super::add_identifier::check_signature;
use crate::call::Call;
use crate::convert;
use crate::error::{ApiError, Code};
use crate::mailbox::{Failure, MailboxService, unexpected_outcome};

pub(crate) async fn set_profile(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
) -> Result<Bytes, Failure> {
    let request = parse(&call.message)?;
    let (version, sealed) = (request.version, request.sealed_profile);
    let signed = statement::set_profile(&caller.box_id, &caller.device, version, &sealed);
    check_signature(service, caller, call, &signed, &request.signature).await?;
    let counted = service.rates.profile(&caller.box_id);
    counted.map_err(|too_often| service.too_often(too_often, Code::RateLimited))?;
    let command = Command::SetProfile(SetProfile {
        device: caller,
        version,
        sealed,
    });
    match service.change_own(caller, command, call).await? {
        Outcome::ProfileSet => Ok(convert::encode(&v1::SetProfileResponse {})),
        other => Err(unexpected_outcome(&other).into()),
    }
}

/// Reads a request whose profile has a version and is not too large.
pub(crate) fn parse(message: &Bytes) -> Result<v1::SetProfileRequest, ApiError> {
    let request: v1::SetProfileRequest = convert::decode(message)?;
    if request.version == 0 {
        return Err(ApiError::invalid("version must be at least 1"));
    }
    if request.sealed_profile.is_empty() {
        return Err(ApiError::invalid("sealed_profile is empty"));
    }
    let limit = MAX_SEALED_PROFILE_BYTES;
    if request.sealed_profile.len() > limit {
        return Err(ApiError::from(Code::ProfileTooLarge).with_metadata("limit_bytes", limit));
    }
    Ok(request)
}
