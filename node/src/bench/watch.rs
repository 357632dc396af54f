//! What each node uses and tells while the load runs.

use std::time::Duration;

use futures_util::future::join_all;
use rossby_bench::drive::Plan;
use rossby_bench::process::{Usage, usage};
use rossby_bench::rounds::Look;
use tokio::time::{Instant, sleep_until};

use super::http;
use super::progress::Step;
use super::target::Node;

/// How exactly a checkpoint is seen to begin and end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a process used in the measured time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    /// Processor time.
    pub(super) cpu: Duration,
    /// The most memory that was seen.
    pub(super) rss_bytes: u64,
}

/// What was seen of one node.
#[derive(Debug, Default)]
pub(super) struct SeenNode {
    /// Of its process, if it can be seen.
    pub(super) used: Option<Used>,
    /// Its checkpoints, if it tells.
    pub(super) looks: Vec<Look>,
}

/// What was seen of each node, in their order, and of this process.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) nodes: Vec<SeenNode>,
    pub(super) ourselves: Option<Used>,
}

/// Watches until the plan is over.
pub(super) async fn watch(nodes: &[Node], plan: Plan) -> Seen {
    let mut watched: Vec<Watched> = nodes.iter().map(|node| Watched::new(node.pid)).collect();
    let mut ourselves = Watched::new(Some(std::process::id()));
    {
        let _step = Step::open("Warming up");
        sleep_until(plan.begin).await;
    }
    let step = Step::lasting("Measuring", plan.measured());
    let mut next = plan.begin;
    loop {
        sleep_until(next.min(plan.end)).await;
        let now = Instant::now();
        ourselves.look();
        for node in &mut watched {
            node.look();
        }
        let told = join_all(nodes.iter().map(checkpoints)).await;
        let at = now.saturating_duration_since(plan.begin);
        for (node, told) in watched.iter_mut().zip(told) {
            node.looks.extend(told.map(|(begun, ended)| Look {
                at_ms: u32::try_from(at.as_millis()).unwrap_or(u32::MAX),
                begun,
                ended,
            }));
        }
        step.reached(at.as_secs());
        if now >= plan.end {
            break;
        }
        next = now + LOOK_EVERY;
    }
    let seen = |watched: Watched| SeenNode {
        used: watched.used(),
        looks: watched.looks,
    };
    Seen {
        nodes: watched.into_iter().map(seen).collect(),
        ourselves: ourselves.used(),
    }
}

/// How many checkpoints a node has begun and ended.
async fn checkpoints(node: &Node) -> Option<(u64, u64)> {
    let page = http::page(node.http?, "/metrics").await?;
    let figure = |name| http::figure(&page, name);
    let begun = figure("rossby_checkpoints_begun_total")?;
    Some((begun, figure("rossby_checkpoints_ended_total")?))
}

/// A process that is watched.
#[derive(Debug)]
struct Watched {
    pid: Option<u32>,
    first: Option<Usage>,
    last: Option<Usage>,
    peak_bytes: u64,
    looks: Vec<Look>,
}

impl Watched {
    fn new(pid: Option<u32>) -> Self {
        Self {
            pid,
            first: None,
            last: None,
            peak_bytes: 0,
            looks: Vec::new(),
        }
    }

    fn look(&mut self) {
        let Some(now) = self.pid.and_then(usage) else {
            // What it used since the last look is not known.
            self.last = None;
            return;
        };
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.peak_bytes = self.peak_bytes.max(now.rss_bytes);
    }

    fn used(&self) -> Option<Used> {
        let (first, last) = (self.first?, self.last?);
        Some(Used {
            cpu: last.cpu.saturating_sub(first.cpu),
            rss_bytes: self.peak_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_counted_from_the_first_look_and_unknown_of_who_is_gone() {
        let mut ours = Watched::new(Some(std::process::id()));
        ours.look();
        let used = ours.used().unwrap();
        assert_eq!(used.cpu, Duration::ZERO);
        assert!(used.rss_bytes > 0);
        // No process has this number: it is beyond the largest that Linux gives out.
        ours.pid = Some(1 << 30);
        ours.look();
        assert!(ours.used().is_none());
        assert!(Watched::new(None).used().is_none());
    }
}
