//! UpdateKey: a new KEM key for the calling device. Signed by the device besides the token.

use bytes::Bytes;
use rossby_domain::chain::KemKey;
use rossby_domain::command::UpdateKey;
use rossby_domain::ids::DeviceAddress;
use rossby_domain::{Command, Outcome};
use rossby_proto::v1;

use crate::call::Call;
use crate::convert;
use crate::error::ApiError;
use crate::mailbox::{Failure, MailboxService, unexpected_outcome};

pub(crate) async fn update_key(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
) -> Result<Bytes, Failure> {
    let request: v1::UpdateKeyRequest = convert::decode(&call.message)?;
    let kem = KemKey::decode(&request.kem_key)
        .map_err(|_| ApiError::invalid("kem_key is not a KEM key"))?;
    let command = UpdateKey {
        device: caller,
        kem,
    };
    let command = Command::UpdateKey(command);
    match service.change_own(caller, command, call).await? {
        Outcome::KeyUpdated { last } => {
            Ok(convert::encode(&v1::UpdateKeyResponse { last: last.0 }))
        }
        other => Err(unexpected_outcome(&other).into()),
    }
}
