//! Boxes, as an operator may look at them and suspend them, wherever they are led.
//!
//! An operator names a box by its id, as it stands in a report or is told by its owner; nothing here leads from a person
//! to a box, or says with whom it speaks.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use rossby_domain::command::Suspend;
use rossby_domain::ids::{BoxId, GroupId, PartitionId};
use rossby_domain::query::{BoxView, ReportedBox};
use rossby_domain::{Answer, Command, Outcome, Query, Rejection};
use rossby_proto::v1;
use tokio::time::Instant;

use super::OperatorError;
use crate::convert;
use crate::error::{ApiError, Code, Retry};
use crate::router::Router;

/// How long it may take until it is in the log of the box's group, or read from there.
const WITHIN: Duration = Duration::from_secs(10);

/// Partitions that are asked in one go for the boxes that are reported, and how many of these each names.
const PARTITIONS_AT_A_TIME: usize = 16;
const REPORTED_AT_A_TIME: u32 = 100;

/// Suspends a box, or lets it send again; whether it was otherwise before.
///
/// # Errors
/// [`OperatorError`], saying what is to be done.
pub async fn suspend(
    router: &Router,
    box_id: BoxId,
    suspended: bool,
) -> Result<bool, OperatorError> {
    let group = group_of(router, &box_id)?;
    let command = Command::Suspend(Suspend { box_id, suspended });
    let commands = || vec![(box_id.partition(), command.clone())];
    let proposed = router.propose(group, commands, Instant::now() + WITHIN);
    let proposed = proposed.await.map_err(|error| of_group(group, &error))?;
    match proposed.replies.into_iter().next() {
        Some(Ok(Outcome::SuspensionSet { changed })) => Ok(changed),
        Some(Err(Rejection::UnknownBox)) => Err(no_such_box()),
        Some(Err(Rejection::NotOwner { .. })) => Err(OperatorError::Unavailable(format!(
            "group {group} does not own the box's partition yet"
        ))),
        other => Err(OperatorError::Failed(format!(
            "unexpected reply: {other:?}"
        ))),
    }
}

/// What an operator may know of a box.
///
/// # Errors
/// [`OperatorError`], saying what is to be done.
pub async fn box_view(router: &Router, box_id: BoxId) -> Result<BoxView, OperatorError> {
    let group = group_of(router, &box_id)?;
    let query = Query::BoxView(box_id);
    let asked = router.ask(group, box_id.partition(), query, Instant::now() + WITHIN);
    match asked.await.map_err(|error| of_group(group, &error))? {
        Answer::BoxView(Some(view)) => Ok(view),
        Answer::BoxView(None) => Err(no_such_box()),
        other => Err(OperatorError::Failed(format!(
            "unexpected answer: {other:?}"
        ))),
    }
}

/// The boxes that at least so many others have reported, of all groups; those with most reports first.
///
/// # Errors
/// [`OperatorError`], saying what is to be done: as a whole, if one group can not be asked.
pub async fn reported(router: &Router, at_least: u32) -> Result<Vec<ReportedBox>, OperatorError> {
    let directory = router.directory();
    let partitions = match directory.map() {
        Some(map) => map.partitions().all().collect(),
        None => directory.births(),
    };
    let mut of_groups: BTreeMap<GroupId, Vec<PartitionId>> = BTreeMap::new();
    for partition in partitions {
        if let Some(group) = directory.owner(partition) {
            of_groups.entry(group).or_default().push(partition);
        }
    }
    let mut boxes = Vec::new();
    for (group, mut partitions) in of_groups {
        let mut after = BTreeMap::new();
        while !partitions.is_empty() {
            // What is left over is asked in the next round.
            let later = partitions.split_off(partitions.len().min(PARTITIONS_AT_A_TIME));
            let queries = partitions.iter().map(|partition| {
                let after = after.get(partition).copied();
                let limit = REPORTED_AT_A_TIME;
                (*partition, Query::Reported { after, limit })
            });
            let asked = router.ask_all(group, queries.collect(), Instant::now() + WITHIN);
            let answers = asked.await.map_err(|error| of_group(group, &error))?;
            let mut unfinished = later;
            for (partition, answer) in partitions.into_iter().zip(answers) {
                let Answer::Reported(page) = answer else {
                    return Err(OperatorError::Failed(format!(
                        "unexpected answer: {answer:?}"
                    )));
                };
                let is_full = page.len() >= REPORTED_AT_A_TIME as usize;
                if let Some(last) = page.last().filter(|_| is_full) {
                    after.insert(partition, last.box_id);
                    unfinished.push(partition);
                }
                boxes.extend(page.into_iter().filter(|found| found.reports >= at_least));
            }
            partitions = unfinished;
        }
    }
    boxes.sort_by_key(|found| (Reverse(found.reports), found.box_id));
    Ok(boxes)
}

fn group_of(router: &Router, box_id: &BoxId) -> Result<GroupId, OperatorError> {
    let owner = router.directory().owner(box_id.partition());
    owner.ok_or_else(|| match router.directory().births().is_empty() {
        true => OperatorError::Unavailable("this node knows no map yet".to_owned()),
        false => no_such_box(),
    })
}

fn no_such_box() -> OperatorError {
    OperatorError::Refused("there is no such box".to_owned())
}

fn of_group(group: GroupId, error: &ApiError) -> OperatorError {
    let text = format!("group {group}: {}", error.code().message());
    match (error.code(), error.code().retry()) {
        (Code::OutcomeUnknown, _) => OperatorError::Unknown(text),
        (_, Retry::Same) => OperatorError::Unavailable(text),
        _ => OperatorError::Failed(text),
    }
}

/// The box that a request names.
pub(super) fn named(bytes: &[u8]) -> Result<BoxId, OperatorError> {
    convert::box_id(bytes).map_err(|_| OperatorError::Invalid("that is not a box id".to_owned()))
}

pub(super) fn listed(boxes: &[ReportedBox], limit: u32) -> v1::ListReportedResponse {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let listed = boxes.iter().take(limit).map(|found| v1::ReportedBox {
        box_id: found.box_id.as_bytes().to_vec().into(),
        reports: found.reports,
        suspended: found.suspended,
    });
    v1::ListReportedResponse {
        boxes: listed.collect(),
    }
}

pub(super) fn response(view: &BoxView) -> v1::ShowBoxResponse {
    v1::ShowBoxResponse {
        active: view.active,
        suspended: view.suspended,
        devices: view.devices,
        identifiers: view.identifiers,
        reports: view.reports,
        depth: view.depth,
        bytes: view.bytes,
        oldest_at_ms: view.oldest.map(|at| at.as_millis()),
        expired_total: view.expired_total,
        ttl_ms: view.ttl_ms,
    }
}
