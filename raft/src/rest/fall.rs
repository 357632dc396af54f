//! How a leader brings its group to rest: when nothing was asked for a while, every other member is asked to, and only
//! if all do, the leader does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::{Instant as _, ServerState};
use rossby_domain::ids::{NodeId, ReplicaId};
use tokio::time::{Instant, sleep};

use super::{Acked, Quiet, Rest, State};
use crate::Member;
use crate::core::{Core, Metrics};
use crate::frame::{Answer, Request, Target};
use crate::types::{LogId, Vote};

/// A group rests after this many looks in a row at which nothing had changed; one is taken each longest
/// election timeout.
const QUIET_LOOKS: u32 = 3;
/// So many heartbeats ago every member must have been heard.
const HEARD_HEARTBEATS: u32 = 3;

/// What a leader asks the others with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    vote: Vote,
    last: LogId,
    others: BTreeMap<ReplicaId, Member>,
}

/// Whether a group may rest by what openraft says of it: this replica leads, everything there is was applied, no change
/// of the members is under way, and every other member has it all and was heard within `limit`.
pub(super) fn may_rest(metrics: &Metrics, own: ReplicaId, limit: Duration) -> Option<Question> {
    let membership = &metrics.membership_config;
    let last = metrics.last_applied?;
    let settled = metrics.running_state.is_ok()
        && metrics.state == ServerState::Leader
        && metrics.vote.leader_id.voted_for == own
        && metrics.vote.leader_id.term == metrics.current_term
        && metrics.last_log_index == Some(last.index)
        && metrics.cluster_committed == Some(last)
        && membership.get_joint_config().len() == 1
        && metrics.committed_membership_config.log_id() == membership.log_id();
    if !settled {
        return None;
    }
    let others: BTreeMap<ReplicaId, Member> = membership
        .nodes()
        .filter(|(replica, _)| **replica != own)
        .map(|(replica, member)| (*replica, member.clone()))
        .collect();
    let has_all = |replica: &ReplicaId| {
        let matching = metrics
            .replication
            .as_ref()
            .and_then(|all| *all.get(replica)?);
        let heard = metrics
            .heartbeat
            .as_ref()
            .and_then(|all| *all.get(replica)?);
        matching == Some(last) && heard.is_some_and(|heard| heard.elapsed() < limit)
    };
    others.keys().all(has_all).then_some(Question {
        vote: metrics.vote,
        last,
        others,
    })
}

impl Rest {
    /// A look, of which there is one each longest election timeout; whether there was nothing to do for long.
    fn is_quiet(&self, last_log_index: Option<u64>) -> bool {
        let asked = self.asked.swap(false, Ordering::Relaxed);
        let mut quiet = self.quiet.lock();
        let looks = if asked || quiet.last_log_index != last_log_index {
            0
        } else {
            quiet.looks.saturating_add(1)
        };
        *quiet = Quiet {
            last_log_index,
            looks,
        };
        looks >= QUIET_LOOKS
    }

    /// Stops the leader's clock; whether it is to ask the others.
    async fn begin(&self, term: u64) -> bool {
        let mut state = self.state.lock().await;
        if !matches!(*state, State::Awake) {
            return false;
        }
        *state = State::Falling { term };
        self.awake.store(false, Ordering::Release);
        self.raft.runtime_config().tick(false);
        true
    }

    /// All others rest, as they said when they were asked at that moment.
    async fn rested(&self, term: u64, nodes: impl Iterator<Item = NodeId>, asked: Instant) {
        let mut state = self.state.lock().await;
        if matches!(*state, State::Falling { .. }) {
            *state = State::Leading { term };
            let at = nodes.map(|node| (node, asked)).collect();
            *self.acked.lock() = Acked { term, at };
        }
    }
}

/// Looks whether a group may come to rest, and brings it there.
pub(super) fn look(core: &Arc<Core>) {
    let limit = core.timing.heartbeat * HEARD_HEARTBEATS;
    let (last, question) = core.with_metrics(|metrics| {
        let question = may_rest(metrics, core.replica, limit);
        (metrics.last_log_index, question)
    });
    if !core.rest.is_quiet(last) || !core.rest.is_awake() || core.is_busy() {
        return;
    }
    if let Some(question) = question {
        tokio::spawn(fall(core.clone(), question));
    }
}

async fn fall(core: Arc<Core>, question: Question) {
    let term = question.vote.leader_id.term;
    if !core.rest.begin(term).await {
        return;
    }
    // What was sent before is answered or given up by then: a late heartbeat would wake who rests.
    sleep(core.timing.heartbeat).await;
    let asked = Instant::now();
    let deadline = asked
        + core
            .timing
            .election_min
            .saturating_sub(core.timing.heartbeat);
    let asking = question.others.iter().map(|(replica, member)| {
        let to = Target {
            group: core.id,
            replica: *replica,
        };
        let request = Request::Rest {
            vote: question.vote,
            last: question.last,
        };
        core.links.call(member, to, request, deadline)
    });
    let answers = join_all(asking).await;
    if answers
        .iter()
        .all(|answer| *answer == Ok(Answer::Rest(true)))
    {
        let nodes = question.others.values().map(|member| member.node);
        core.rest.rested(term, nodes, asked).await;
        tracing::debug!(group = %core.id, "rests");
    } else {
        core.rest.stir().await;
        tracing::debug!(group = %core.id, ?answers, "can't rest");
    }
}
