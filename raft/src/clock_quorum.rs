//! Whether this node's clock may stamp commands: only while it is in step with a quorum's.
//!
//! Every second each peer is asked for its time. A command may be stamped while this clock is
//! within [`MAX_SKEW_MS`] of the median of the clocks of a quorum of voters, each asked within the last
//! [`SAMPLE_LIFE`]. A leader that is out of step hands over and does not campaign (`leadership.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rossby_domain::ids::{GroupId, NodeId, ReplicaId};
use rossby_domain::time::Timestamp;
use rossby_seams::clock::Clock;
use rossby_seams::watch;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::Member;
use crate::frame::{Answer, Request, Target};
use crate::links::{CallError, Links};

/// How far from the median a clock may be, in milliseconds.
pub(crate) const MAX_SKEW_MS: u64 = 10_000;
/// How long a peer's answer counts.
pub(crate) const SAMPLE_LIFE: Duration = Duration::from_secs(5);
/// How long a proposal or a read waits for the peers' clocks.
pub(crate) const CLOCK_WAIT: Duration = Duration::from_secs(1);
/// Between two rounds of asking.
const ROUND: Duration = Duration::from_secs(1);
/// After this many rounds without an answer, the link is taken for dead.
const SILENT_ROUNDS: u32 = 3;

/// What the clocks of a group's voters say of this node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// In step with a quorum.
    InStep,
    /// A quorum's clocks are known, and this one is too far from them.
    OutOfStep,
    /// Too few clocks are known.
    Unknown,
}

/// Judges a clock that shows `own` against what the peers' clocks show now, by estimate. `voters`
/// counts the clocks that matter, this one (if it counts) among them.
pub(crate) fn judge(own: Timestamp, peers: &[Timestamp], voters: usize) -> Verdict {
    let quorum = voters / 2 + 1;
    let mut clocks: Vec<Timestamp> = peers.to_vec();
    clocks.push(own);
    if clocks.len() < quorum {
        return Verdict::Unknown;
    }
    clocks.sort_unstable();
    // An even number of clocks has two medians: both must be near, or two clocks that disagree
    // would each be the judge of itself.
    let upper = clocks.len() / 2;
    let lower = (clocks.len() - 1) / 2;
    let near = |at: usize| {
        clocks.get(at).is_some_and(|median| {
            own.millis_since(*median).max(median.millis_since(own)) <= MAX_SKEW_MS
        })
    };
    if near(lower) && near(upper) {
        Verdict::InStep
    } else {
        Verdict::OutOfStep
    }
}

/// What a peer's clock showed, and when it was asked.
#[derive(Debug, Clone, Copy)]
struct Sample {
    shown: Timestamp,
    at: Instant,
}

#[derive(Debug, Default)]
struct PeerClock {
    sample: Option<Sample>,
    silent: u32,
}

/// This node's clock among those of its peers.
pub(crate) struct ClockQuorum {
    node: NodeId,
    clock: Arc<dyn Clock>,
    links: Links,
    peers: Mutex<BTreeMap<NodeId, PeerClock>>,
    // Told after each answer.
    changed: watch::Sender<()>,
    // Asks for a round before its time.
    hurry: Notify,
}

impl ClockQuorum {
    pub(crate) fn new(node: NodeId, clock: Arc<dyn Clock>, links: Links) -> Self {
        let changed = watch::channel(()).0;
        Self {
            node,
            clock,
            links,
            peers: Mutex::default(),
            changed,
            hurry: Notify::new(),
        }
    }

    /// What a clock that is never set shows.
    pub(crate) fn running(&self) -> Duration {
        self.clock.running()
    }

    /// The time, if it may be stamped on a command of a group with these voters.
    pub(crate) fn judge_now(&self, voters: &[NodeId]) -> (Timestamp, Verdict) {
        let now = Instant::now();
        let own = self.clock.now();
        let peers = self.peers.lock();
        let shown = voters
            .iter()
            .filter(|voter| **voter != self.node)
            .filter_map(|voter| {
                let sample = peers.get(voter)?.sample?;
                let age = now.saturating_duration_since(sample.at);
                let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
                (age <= SAMPLE_LIFE).then(|| sample.shown.plus_millis(age_ms))
            });
        let shown: Vec<Timestamp> = shown.collect();
        (own, judge(own, &shown, voters.len()))
    }

    /// As [`Self::judge_now`], but waits until `deadline` for peers to answer if too few have.
    pub(crate) async fn judge_by(
        &self,
        voters: &[NodeId],
        deadline: Instant,
    ) -> (Timestamp, Verdict) {
        let mut changed = self.changed.subscribe();
        loop {
            let (now, verdict) = self.judge_now(voters);
            if verdict != Verdict::Unknown {
                return (now, verdict);
            }
            self.hurry.notify_one();
            let waited = tokio::time::timeout_at(deadline, changed.changed()).await;
            if !matches!(waited, Ok(Ok(()))) {
                return self.judge_now(voters);
            }
        }
    }

    /// Asks all peers again and again, until stopped, and closes the links to those that are members
    /// no more.
    pub(crate) async fn run(
        self: Arc<Self>,
        members: impl Fn() -> Vec<Member> + Send + 'static,
        stop: CancellationToken,
    ) {
        loop {
            let began = Instant::now();
            let members = members();
            self.links.keep(&members);
            let peers: BTreeMap<NodeId, Member> = members
                .into_iter()
                .filter(|member| member.node != self.node)
                .map(|member| (member.node, member))
                .collect();
            self.peers.lock().retain(|node, _| peers.contains_key(node));
            for member in peers.into_values() {
                let this = self.clone();
                tokio::spawn(async move { this.ask(member).await });
            }
            let pause = async {
                // Hurried rounds still leave the peers some rest.
                tokio::time::sleep_until(began + ROUND / 10).await;
                let _ = timeout(ROUND - ROUND / 10, self.hurry.notified()).await;
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = pause => {}
            }
        }
    }

    async fn ask(&self, member: Member) {
        // The question is for the node, whatever its groups.
        let to = Target {
            group: GroupId(0),
            replica: ReplicaId(0),
        };
        let asked = Instant::now();
        let answer = self
            .links
            .call(&member, to, Request::Clock, asked + ROUND)
            .await;
        let mut peers = self.peers.lock();
        let peer = peers.entry(member.node).or_default();
        match answer {
            Ok(Answer::Clock(shown)) => {
                // The clock showed it about half-way between question and answer.
                let at = asked + asked.elapsed() / 2;
                if peer.sample.is_none_or(|sample| sample.at < at) {
                    peer.sample = Some(Sample { shown, at });
                }
                peer.silent = 0;
                drop(peers);
                self.changed.send_replace(());
            }
            Err(CallError::Timeout) => {
                peer.silent += 1;
                if peer.silent >= SILENT_ROUNDS {
                    peer.silent = 0;
                    drop(peers);
                    tracing::warn!(peer = %member.node, "no longer answers: opens a new link");
                    self.links.reset(member.node);
                }
            }
            // A broken link is opened again by whoever needs it next.
            Ok(_) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
