//! Fetch: the next envelopes of the caller's box, and the state of its queue. Moves nothing.

use bytes::Bytes;
use rossby_domain::ids::{DeviceAddress, Sequence};
use rossby_domain::{Answer, Query};
use rossby_proto::v1;

use crate::call::Call;
use crate::convert;
use crate::error::Code;
use crate::mailbox::{Failure, MailboxService, unexpected_answer};

pub(crate) async fn fetch(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
) -> Result<Bytes, Failure> {
    let request: v1::FetchRequest = convert::decode(&call.message)?;
    let limits = &service.config.limits;
    let max_envelopes = match request.max_envelopes {
        0 => limits.page_envelopes,
        asked => asked.min(limits.page_envelopes),
    };
    let query = Query::Fetch {
        device: caller,
        after: Sequence(request.after),
        max_envelopes,
        max_bytes: limits.page_bytes,
    };
    let Answer::Page(page) = service.ask_own(caller, query, call).await? else {
        return Err(unexpected_answer("Fetch").into());
    };
    // Authorised a moment ago and gone now: removed in between.
    let page = page.ok_or(Code::Unauthenticated)?;
    Ok(convert::encode(&convert::page(page)))
}
