//! What each process uses while the load runs.

use std::time::Duration;

use rossby_bench::drive::Plan;
use rossby_bench::process::{Usage, usage};
use tokio::time::{sleep, sleep_until};

use super::target::Node;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What a process used in the measured time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    /// Processor time.
    pub(super) cpu: Duration,
    /// The most memory that was seen.
    pub(super) rss_bytes: u64,
}

/// What was seen of each node, in their order, and of this process.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) nodes: Vec<Option<Used>>,
    pub(super) ourselves: Option<Used>,
}

/// Watches until the plan is over.
pub(super) async fn watch(nodes: &[Node], plan: Plan) -> Seen {
    let mut pids: Vec<Option<u32>> = nodes.iter().map(|node| node.pid).collect();
    pids.push(Some(std::process::id()));
    let look = || {
        pids.iter()
            .map(|pid| pid.and_then(usage))
            .collect::<Vec<_>>()
    };
    sleep_until(plan.begin).await;
    let before = look();
    let mut peaks = before.clone();
    while tokio::time::Instant::now() + LOOK_EVERY < plan.end {
        sleep(LOOK_EVERY).await;
        for (peak, now) in peaks.iter_mut().zip(look()) {
            higher(peak, now);
        }
    }
    sleep_until(plan.end).await;
    let after = look();
    let used = before
        .into_iter()
        .zip(after)
        .zip(peaks)
        .map(|((before, after), mut peak)| {
            higher(&mut peak, after);
            let (before, after) = (before?, after?);
            Some(Used {
                cpu: after.cpu.saturating_sub(before.cpu),
                rss_bytes: peak?.rss_bytes,
            })
        });
    let mut seen: Vec<_> = used.collect();
    let ourselves = seen.pop().flatten();
    Seen {
        nodes: seen,
        ourselves,
    }
}

fn higher(peak: &mut Option<Usage>, now: Option<Usage>) {
    if let (Some(peak), Some(now)) = (peak.as_mut(), now) {
        peak.rss_bytes = peak.rss_bytes.max(now.rss_bytes);
    }
}
