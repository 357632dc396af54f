//! Notify: a signal to whoever of a box listens at this moment. The answer is the same whatever comes of it, and comes before that is
//! known: it tells neither whether anybody listens, nor whether the box is there or hears the caller.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rossby_domain::ids::{BoxId, DeviceAddress};
use rossby_proto::v1;
use tokio::time::Instant;

use crate::call::Call;
use crate::convert;
use crate::error::{ApiError, Code};
use crate::mailbox::{Failure, MailboxService};
use crate::signals::{Fate, MAX_BYTES, Signal};

/// What is later than this is no news any more.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn notify(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
) -> Result<Bytes, Failure> {
    let (recipient, body) = parse(&call.message)?;
    let router = &service.config.router;
    let Some(room) = router.signals().admit(caller) else {
        return Ok(answered());
    };
    let (partition, group) = match service.home(&recipient) {
        Ok(Some(home)) => home,
        nowhere => {
            let fate = nowhere.map_or(Fate::Lost, |_| Fate::Unheard);
            router.signals().count(fate);
            return Ok(answered());
        }
    };
    let (router, deadline) = (Arc::clone(router), Instant::now() + PATIENCE);
    let signal = Signal {
        recipient,
        sender: caller,
        body,
    };
    tokio::spawn(async move {
        let signalled = router.signal(group, partition, signal, deadline).await;
        if signalled.is_err() {
            router.signals().count(Fate::Lost);
        }
        drop(room);
    });
    Ok(answered())
}

/// The answer, whatever comes of it.
fn answered() -> Bytes {
    convert::encode(&v1::NotifyResponse {})
}

/// Reads a request whose signal is not too large.
pub(crate) fn parse(message: &Bytes) -> Result<(BoxId, Bytes), ApiError> {
    let request: v1::NotifyRequest = convert::decode(message)?;
    let recipient = convert::box_id(&request.recipient_box_id)?;
    if request.body.len() > MAX_BYTES {
        return Err(ApiError::from(Code::EnvelopeTooLarge).with_metadata("limit_bytes", MAX_BYTES));
    }
    Ok((recipient, request.body))
}
