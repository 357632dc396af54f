//! Report: counts that the caller's box had unwanted mail from another, once, and blocks that one if it is asked to.
//!
//! Only who has mail of a box, or had, can report it: that stands in the reporter's own box, which is looked at here. The
//! count is in the partition of the reported box. It learns nothing of it, and nothing follows but by the operator. It is
//! counted beside the block, since the list of blocked boxes may be full, and the group of the reported box may give no answer: each is
//! of use without the other.

use bytes::Bytes;
use futures_util::future::join;
use rossby_domain::command::{Block, CountReport};
use rossby_domain::ids::{BoxId, DeviceAddress};
use rossby_domain::{Answer, Command, Outcome, Query};
use rossby_proto::v1;

use crate::call::Call;
use crate::convert;
use crate::error::{ApiError, Code};
use crate::mailbox::{Failure, MailboxService, unexpected_answer, unexpected_outcome};

pub(crate) async fn report(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
) -> Result<Bytes, Failure> {
    let request: v1::ReportRequest = convert::decode(&call.message)?;
    let other = convert::box_id(&request.box_id)?;
    if other == caller.box_id {
        return Err(ApiError::invalid("a box can't report itself").into());
    }
    let counted = service.rates.report(&caller.box_id);
    counted.map_err(|too_often| service.too_often(too_often, Code::RateLimited))?;
    check_heard_from(service, caller, call, other).await?;
    let blocking = async {
        if request.block {
            block(service, caller, call, other).await?;
        }
        Ok::<_, Failure>(())
    };
    let (counted, blocked) = join(count(service, caller, call, other), blocking).await;
    if matches!(counted, Ok(true)) {
        service.config.metrics.reported();
    }
    blocked?;
    counted?;
    Ok(convert::encode(&v1::ReportResponse {}))
}

async fn check_heard_from(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
    sender: BoxId,
) -> Result<(), Failure> {
    let query = Query::HasHeardFrom {
        box_id: caller.box_id,
        sender,
    };
    match service.ask_own(caller, query, call).await? {
        Answer::HasHeardFrom(true) => Ok(()),
        Answer::HasHeardFrom(false) => Err(Code::NeverHeardFrom.into()),
        _ => Err(unexpected_answer("HasHeardFrom").into()),
    }
}

async fn block(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
    other: BoxId,
) -> Result<(), Failure> {
    let command = Command::Block(Block {
        box_id: caller.box_id,
        other,
        blocked: true,
    });
    service.change_own(caller, command, call).await.map(drop)
}

/// Counts the report; whether it is the first one of this box.
async fn count(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
    reported: BoxId,
) -> Result<bool, Failure> {
    let mark = service
        .config
        .secrets
        .report_mark(&reported, &caller.box_id);
    let partition = reported.partition();
    let query = Query::HasReport {
        box_id: reported,
        mark,
    };
    // One that is counted already is no matter for the log.
    if service.ask(partition, query, call.deadline).await? == Answer::HasReport(true) {
        return Ok(false);
    }
    let command = Command::CountReport(CountReport {
        box_id: reported,
        mark,
    });
    let counting = service.change(partition, command, Code::NoUser, call.deadline);
    match counting.await {
        Ok(Outcome::ReportCounted { first }) => Ok(first),
        Ok(other) => Err(unexpected_outcome(&other).into()),
        // It is gone, and can do no more harm.
        Err(error) if error.code() == Code::NoUser => Ok(false),
        Err(error) => Err(error.into()),
    }
}
