//! ListIdentifiers: the identifiers of the caller's own box, in clear. What the directory says of each holds:
//! it is asked, wherever its groups are. Where a group gives no answer, the box's own word is told as what it is: who
//! must keep one identifier, or take it off, does not depend on the groups of the others.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::future::try_join_all;
use rossby_domain::contest::ResetNote;
use rossby_domain::ids::{BoxId, DeviceAddress};
use rossby_domain::profile::ProfileIdentifier;
use rossby_domain::{Answer, Query};
use rossby_proto::v1;

use super::code::code_context;
use crate::call::Call;
use crate::convert;
use crate::error::{ApiError, Retry};
use crate::mailbox::{Failure, MailboxService, unexpected_answer};
use crate::secrets::SealPurpose;

pub(crate) async fn list_identifiers(
    service: &MailboxService,
    caller: DeviceAddress,
    call: &Call,
) -> Result<Bytes, Failure> {
    let _: v1::ListIdentifiersRequest = convert::decode(&call.message)?;
    let query = Query::Identifiers(caller.box_id);
    let Answer::Identifiers(listed) = service.ask_own(caller, query, call).await? else {
        return Err(unexpected_answer("Identifiers").into());
    };
    let query = Query::Resets(caller.box_id);
    let Answer::Resets(resets) = service.ask_own(caller, query, call).await? else {
        return Err(unexpected_answer("Resets").into());
    };
    let resets: BTreeMap<_, _> = resets.into_iter().collect();
    let own = listed.into_iter();
    let own = own.map(|listed| {
        let reset = resets.get(&listed.hash).copied();
        own_identifier(service, call, caller.box_id, (listed, reset))
    });
    let identifiers = try_join_all(own).await?;
    Ok(convert::encode(&v1::ListIdentifiersResponse {
        identifiers,
    }))
}

async fn own_identifier(
    service: &MailboxService,
    call: &Call,
    box_id: BoxId,
    (listed, reset): (ProfileIdentifier, Option<ResetNote>),
) -> Result<v1::OwnIdentifier, ApiError> {
    let config = &service.config;
    let identifier = listed.hash;
    let context = code_context(&identifier, &box_id);
    let opened = config
        .secrets
        .open(SealPurpose::Identifier, &context, &listed.sealed)
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let text = std::str::from_utf8(&opened)
        .map_err(|_| ApiError::internal("a sealed identifier is not one"))?;
    let query = Query::Discoverable { identifier, box_id };
    let directory = identifier.partition(config.partitions);
    let (found, uncertain) = match service.ask(directory, query, call.deadline).await {
        Ok(Answer::Discoverable(found)) => (found, false),
        Ok(_) => return Err(unexpected_answer("Discoverable")),
        Err(error) if error.code().retry() == Retry::Same => {
            (listed.generation.map(|_| listed.discoverable), true)
        }
        Err(error) => return Err(error),
    };
    Ok(v1::OwnIdentifier {
        identifier: Some(convert::wire_identifier(text)),
        verified: found.is_some(),
        discoverable: found.unwrap_or(listed.discoverable),
        uncertain,
        generation: listed.named_generation(),
        reset_at_ms: reset.map(|reset| reset.completes_at.as_millis()),
        reset_serial: reset.map_or(0, |reset| reset.serial),
    })
}
