//! `rossby box`: what holds for a box as a whole. Its owner says some of it, by a device, and the operator the rest, to a
//! running node over its admin socket.

use std::time::Duration;

use bytes::Bytes;
use clap::Subcommand;
use rossby_domain::ids::BoxId;
use rossby_domain::query::REPORTS_COUNTED;
use rossby_proto::v1;
use serde_json::json;

use crate::cli::PlacementArgs;
use crate::cluster::{connect, order};
use crate::device::{self, TtlArgs};
use crate::exit::{Exit, Failure};
use crate::output::{self, size, utc};
use crate::runtime;

/// How long an order may take.
const ORDER_TIMEOUT: Duration = Duration::from_secs(30);

/// `rossby box`.
#[derive(Debug, Subcommand)]
pub enum BoxCommand {
    /// Shows or sets how long messages may wait in the box of this device.
    Ttl(TtlArgs),
    /// For operators: shows a box in numbers: devices, what waits, how many have reported it. Ask any node.
    Show {
        #[command(flatten)]
        order: PlacementArgs,
        /// The box, as rossby whoami and rossby inbox show it.
        #[arg(value_name = "BOX")]
        box_id: BoxId,
    },
    /// For operators: lists the boxes that others have reported, those with most reports first. Ask any node.
    Reported {
        #[command(flatten)]
        order: PlacementArgs,
        /// Only boxes that at least so many others have reported.
        #[arg(long, value_name = "N", default_value_t = 1)]
        at_least: u32,
        /// At most so many boxes.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
    },
    /// For operators: lets a box send nothing any more. Its devices can still read, acknowledge and leave, and others
    /// can write to it. Its owner is told when they try to send. Ask any node.
    Suspend {
        #[command(flatten)]
        order: PlacementArgs,
        /// The box.
        #[arg(value_name = "BOX")]
        box_id: BoxId,
    },
    /// For operators: lets a suspended box send again. Ask any node.
    Unsuspend {
        #[command(flatten)]
        order: PlacementArgs,
        /// The box.
        #[arg(value_name = "BOX")]
        box_id: BoxId,
    },
}

/// Runs `rossby box ...`.
///
/// # Errors
/// If the service can't be reached, or refuses.
pub fn run(command: &BoxCommand) -> Result<(), Failure> {
    runtime::one_thread()?.block_on(async {
        match command {
            BoxCommand::Ttl(args) => device::ttl(args).await,
            BoxCommand::Show { order, box_id } => show(order, box_id).await,
            BoxCommand::Reported {
                order,
                at_least,
                limit,
            } => reported(order, *at_least, *limit).await,
            BoxCommand::Suspend { order, box_id } => suspend(order, box_id, true).await,
            BoxCommand::Unsuspend { order, box_id } => suspend(order, box_id, false).await,
        }
    })
}

async fn suspend(args: &PlacementArgs, box_id: &BoxId, suspended: bool) -> Result<(), Failure> {
    let mut client = connect(&args.socket.path()).await?;
    let request = v1::SetSuspendedRequest {
        box_id: Bytes::copy_from_slice(box_id.as_bytes()),
        suspended,
    };
    let set = order(ORDER_TIMEOUT, client.set_suspended(request)).await?;
    if args.json {
        return output::json(&json!({
            "box": box_id.to_string(), "suspended": suspended, "changed": set.changed,
        }));
    }
    output::line(match (suspended, set.changed) {
        (true, true) => format!("Box {box_id} can send nothing from now on."),
        (true, false) => format!("Box {box_id} was suspended already."),
        (false, true) => format!("Box {box_id} can send again."),
        (false, false) => format!("Box {box_id} was not suspended."),
    });
    Ok(())
}

async fn reported(args: &PlacementArgs, at_least: u32, limit: u32) -> Result<(), Failure> {
    let mut client = connect(&args.socket.path()).await?;
    let request = v1::ListReportedRequest { at_least, limit };
    let listed = order(ORDER_TIMEOUT, client.list_reported(request)).await?;
    let mut boxes = Vec::new();
    for found in &listed.boxes {
        let bytes = found.box_id[..].try_into().ok();
        let box_id = bytes.and_then(|bytes| BoxId::from_bytes(bytes).ok());
        let box_id = box_id.ok_or_else(|| Failure::new(Exit::Failure, "the node names no box"))?;
        boxes.push((box_id, found.reports, found.suspended));
    }
    if args.json {
        let boxes = boxes.iter().map(|(box_id, reports, suspended)| {
            json!({ "box": box_id.to_string(), "reports": reports, "suspended": suspended })
        });
        return output::json(&boxes.collect::<Vec<_>>());
    }
    if boxes.is_empty() {
        output::note("no box is reported");
    }
    for (box_id, reports, suspended) in boxes {
        let or_more = if reports >= REPORTS_COUNTED {
            " or more"
        } else {
            ""
        };
        let state = if suspended { "  (suspended)" } else { "" };
        output::line(format!("{box_id}  reported by {reports}{or_more}{state}"));
    }
    Ok(())
}

async fn show(args: &PlacementArgs, box_id: &BoxId) -> Result<(), Failure> {
    let mut client = connect(&args.socket.path()).await?;
    let request = v1::ShowBoxRequest {
        box_id: Bytes::copy_from_slice(box_id.as_bytes()),
    };
    let shown = order(ORDER_TIMEOUT, client.show_box(request)).await?;
    let state = match (shown.active, shown.suspended) {
        (false, _) => "not authorised yet",
        (true, true) => "suspended",
        (true, false) => "active",
    };
    if args.json {
        return output::json(&json!({
            "box": box_id.to_string(),
            "state": state,
            "devices": shown.devices,
            "identifiers": shown.identifiers,
            "reports": shown.reports,
            "depth": shown.depth,
            "bytes": shown.bytes,
            "oldest_ms": shown.oldest_at_ms,
            "expired_unread": shown.expired_total,
            "ttl_seconds": shown.ttl_ms / 1000,
        }));
    }
    let (devices, identifiers) = (shown.devices, shown.identifiers);
    output::line(format!(
        "{state}; {devices} devices, {identifiers} phones and emails"
    ));
    let or_more = match shown.reports {
        REPORTS_COUNTED.. => " or more",
        _ => "",
    };
    output::line(format!(
        "boxes that have reported it: {}{or_more}",
        shown.reports
    ));
    let since = shown
        .oldest_at_ms
        .map(|at| format!(", the oldest since {}", utc(at)));
    output::line(format!(
        "{} messages wait, {}{}; expired unread so far: {}",
        shown.depth,
        size(shown.bytes),
        since.unwrap_or_default(),
        shown.expired_total
    ));
    Ok(())
}
