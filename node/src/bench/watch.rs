//! What each node uses and tells while the load runs.

use std::net::SocketAddr;
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
    /// In which time: between the first look and the last.
    pub(super) over: Duration,
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
    let ourselves = watch_one(Some(std::process::id()), None, plan);
    // Each for itself: one that is slow to answer must not blur what the others tell.
    let nodes = nodes
        .iter()
        .map(|node| watch_one(node.pid, node.http, plan));
    let (ourselves, nodes, ()) = tokio::join!(ourselves, join_all(nodes), tell(plan));
    Seen {
        nodes,
        ourselves: ourselves.used,
    }
}

/// Says how far it is.
async fn tell(plan: Plan) {
    {
        let _step = Step::open("Warming up");
        sleep_until(plan.begin).await;
    }
    let step = Step::lasting("Measuring", plan.measured());
    for second in 1..=plan.measured().as_secs() {
        sleep_until(plan.begin + Duration::from_secs(second)).await;
        step.reached(second);
    }
}

async fn watch_one(pid: Option<u32>, http: Option<SocketAddr>, plan: Plan) -> SeenNode {
    let since = |at: Instant| {
        let millis = at.saturating_duration_since(plan.begin).as_millis();
        u32::try_from(millis).unwrap_or(u32::MAX)
    };
    let mut watched = Watched::new(pid);
    let mut looks = Vec::new();
    let mut next = plan.begin;
    loop {
        sleep_until(next.min(plan.end)).await;
        let asked = Instant::now();
        watched.look();
        let told = match http {
            Some(http) => checkpoints(http).await,
            None => None,
        };
        looks.extend(told.map(|(begun, ended)| Look {
            asked_ms: since(asked),
            answered_ms: since(Instant::now()),
            begun,
            ended,
        }));
        if asked >= plan.end {
            break;
        }
        next = asked + LOOK_EVERY;
    }
    SeenNode {
        used: watched.used(),
        looks,
    }
}

/// How many checkpoints a node has begun and ended.
pub(super) async fn checkpoints(http: SocketAddr) -> Option<(u64, u64)> {
    let page = http::page(http, "/metrics").await?;
    let figure = |name| http::figure(&page, name);
    let begun = figure("rossby_checkpoints_begun_total")?;
    Some((begun, figure("rossby_checkpoints_ended_total")?))
}

/// A process that is watched.
#[derive(Debug)]
struct Watched {
    pid: Option<u32>,
    first: Option<(Instant, Usage)>,
    last: Option<(Instant, Usage)>,
    peak_bytes: u64,
}

impl Watched {
    fn new(pid: Option<u32>) -> Self {
        Self {
            pid,
            first: None,
            last: None,
            peak_bytes: 0,
        }
    }

    fn look(&mut self) {
        let Some(now) = self.pid.and_then(usage) else {
            // What it used since the last look is not known.
            self.last = None;
            return;
        };
        let look = (Instant::now(), now);
        self.first.get_or_insert(look);
        self.last = Some(look);
        self.peak_bytes = self.peak_bytes.max(now.rss_bytes);
    }

    fn used(&self) -> Option<Used> {
        let ((began, first), (ended, last)) = (self.first?, self.last?);
        Some(Used {
            cpu: last.cpu.saturating_sub(first.cpu),
            over: ended - began,
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
        assert_eq!((used.cpu, used.over), (Duration::ZERO, Duration::ZERO));
        assert!(used.rss_bytes > 0);
        let until = used.cpu + Duration::from_millis(20);
        let mut counted: u64 = 0;
        while ours.used().unwrap().cpu < until {
            counted = std::hint::black_box(counted + 1);
            ours.look();
        }
        assert!(ours.used().unwrap().over > Duration::ZERO);
        // No process has this number: it is beyond the largest that Linux gives out.
        ours.pid = Some(1 << 30);
        ours.look();
        assert!(ours.used().is_none());
        assert!(Watched::new(None).used().is_none());
    }
}
