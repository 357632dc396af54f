//! Subscribe: the envelopes of the caller's box as they come. Moves nothing.

use std::sync::Arc;
use std::time::Duration;

use rossby_domain::ids::Sequence;
use rossby_proto::v1;
use rossby_seams::random;
use tokio::time::Instant;

use crate::call::{Call, CallStream};
use crate::convert;
use crate::error::ApiError;
use crate::hawk::Caller;
use crate::mailbox::{Failure, MailboxService, Standing};
use crate::subscriptions::{BoxReader, PageLimits, Patience, Subscription};

pub(crate) fn subscribe(
    service: &MailboxService,
    caller: Caller,
    standing: Standing,
    call: &Call,
) -> Result<CallStream, Failure> {
    let request: v1::SubscribeRequest = convert::decode(&call.message)?;
    let limits = &service.config.limits;
    let max_envelopes = match request.max_envelopes {
        0 => limits.page_envelopes,
        asked => asked.min(limits.page_envelopes),
    };
    let place = service.places.take(caller.address())?;
    let limits_of_page = PageLimits {
        max_envelopes,
        max_bytes: limits.subscription_page_bytes.min(limits.page_bytes),
    };
    let reader = BoxReader::new(
        caller.address(),
        standing,
        limits_of_page,
        limits.call_timeout(),
    );
    let patience = Patience {
        ends_at: Instant::now() + lifetime(service)?,
        keepalive: Duration::from_millis(limits.subscription_keepalive_ms),
        unread: Duration::from_millis(limits.subscription_unread_ms),
    };
    let (guard, address) = (Arc::clone(&service.guard), caller.address());
    let vouch = move |message: &bytes::Bytes, number| guard.vouch_nth(&caller, message, number);
    let subscription = Subscription {
        source: reader,
        after: Sequence(request.after),
        patience,
        place,
        hearing: service.config.router.signals().listen(address.box_id),
        vouch: Box::new(vouch),
        metrics: Arc::clone(&service.config.metrics),
    };
    Ok(subscription.start())
}

/// All of a subscription's time, or up to a tenth less.
fn lifetime(service: &MailboxService) -> Result<Duration, Failure> {
    let all = service.config.limits.subscription_ms;
    let drawn = random::bytes(&*service.config.random)
        .map_err(|error| ApiError::internal(format!("no randomness: {error}")))?;
    let less = u64::from_be_bytes(drawn) % (all / 10).max(1);
    Ok(Duration::from_millis(all - less))
}
