//! `rossby bench fill`: boxes in which mail waits, and what they take.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::try_join_all;
use rossby_bench::account::Account;
use rossby_bench::service::Service;
use rossby_bench::workload::fill::Filling;
use rossby_bench::workload::letters::{Letters, Recipient};
use serde::Serialize;

use super::args::FillArgs;
use super::disk_use::DiskUse;
use super::prepare::{boxes, refused};
use super::progress::Step;
use super::run::letters;
use super::target::Target;
use crate::exit::Failure;
use crate::output;

/// Devices that fill, each with one request under way.
pub(super) const SENDERS: usize = 16;
const CONNECTIONS: usize = 4;

/// What it came to.
#[derive(Debug, Serialize)]
struct Filled {
    workload: &'static str,
    boxes: u32,
    waiting: u32,
    body_bytes: u32,
    registered_per_second: f64,
    envelopes_per_second: f64,
    nodes: Vec<FilledNode>,
}

#[derive(Debug, Serialize)]
struct FilledNode {
    server: String,
    /// Memory now.
    rss_bytes: Option<u64>,
    /// What its data directory takes, if it is ours.
    disk: Option<DiskUse>,
}

pub(super) async fn run(args: &FillArgs) -> Result<(), Failure> {
    Target::check_arguments(&args.target)?;
    let letters = letters(args.body)?;
    let mut target = Target::find(&args.target).await?;
    let service = Service::new(&target.place(), CONNECTIONS, false);
    let count = args.boxes.boxes as usize;
    let began = Instant::now();
    let senders = SENDERS.min(count);
    let boxes = boxes(&target, &service, count, senders, letters.need_records()).await?;
    let registering = began.elapsed();
    let recipients = boxes.recipients.into();
    let began = Instant::now();
    fill(&service, &boxes.accounts, recipients, args.waiting, letters).await?;
    let filling = began.elapsed();
    let envelopes = f64::from(args.boxes.boxes) * f64::from(args.waiting);
    target.check().await?;
    target.settled().await;
    let node = |(node, rss_bytes): (&super::target::Node, Option<u64>)| FilledNode {
        server: node.server.to_string(),
        rss_bytes,
        disk: node.data.as_deref().map(DiskUse::of),
    };
    let filled = Filled {
        workload: "fill",
        boxes: args.boxes.boxes,
        waiting: args.waiting,
        body_bytes: args.body.bytes,
        registered_per_second: count as f64 / registering.as_secs_f64(),
        envelopes_per_second: envelopes / filling.as_secs_f64(),
        nodes: target
            .nodes
            .iter()
            .zip(target.resident_bytes())
            .map(node)
            .collect(),
    };
    let printed = if args.json {
        output::json(&filled)
    } else {
        print(&filled);
        Ok(())
    };
    let stopped = target.stop().await;
    printed.and(stopped)
}

/// Has these devices put so many envelopes into each of the boxes.
pub(super) async fn fill(
    service: &Service,
    senders: &[Account],
    boxes: Arc<[Recipient]>,
    waiting: u32,
    letters: Letters,
) -> Result<(), Failure> {
    let step = Step::of("Filling boxes", boxes.len() as u64);
    let filling = Filling::new(boxes, waiting as usize, letters);
    let helpers = senders.iter().enumerate().map(|(number, account)| {
        let (connection, filling, step) = (service.connection(number), &filling, &step);
        async move {
            let told = |boxes: usize| step.done(boxes as u64);
            filling.help(&connection, account, told).await
        }
    });
    try_join_all(helpers).await.map_err(refused)?;
    Ok(())
}

fn print(filled: &Filled) {
    output::line(format!(
        "fill: {} boxes, {} envelopes of {} bytes in each",
        filled.boxes, filled.waiting, filled.body_bytes
    ));
    output::line(format!(
        "  {:.0} boxes registered a second, {:.0} envelopes stored a second",
        filled.registered_per_second, filled.envelopes_per_second
    ));
    for node in &filled.nodes {
        let shown = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), output::size);
        let disk = node.disk.as_ref().map_or_else(String::new, |disk| {
            let [wal, checkpoints, base] =
                [disk.wal_bytes, disk.checkpoints_bytes, disk.base_bytes].map(output::size);
            format!("; on disk: log {wal}, checkpoints {checkpoints}, base {base}")
        });
        output::line(format!(
            "  node at {}: {} of memory{disk}",
            node.server,
            shown(node.rss_bytes)
        ));
    }
}
