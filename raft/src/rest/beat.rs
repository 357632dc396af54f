//! The beats of a node: one to each other node, whatever the number of groups at rest; and what becomes of the groups
//! when beats or their answers stay away.

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft::ServerState;
use rossby_domain::ids::{GroupId, NodeId, ReplicaId};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::fall;
use crate::Member;
use crate::core::Core;
use crate::frame::{Answer, MAX_RESTING, Request, Target};
use crate::links::Links;
use crate::timing::Timing;

/// What a node is told.
struct Beat {
    member: Member,
    claims: Vec<Claim>,
}

/// A group that this node leads at rest, or is bringing there.
struct Claim {
    core: Arc<Core>,
    term: u64,
    rests: bool,
}

/// Beats, watches the groups that rest, and brings others there, until stopped.
pub(crate) async fn run(
    cores: impl Fn() -> Vec<Arc<Core>> + Send + 'static,
    links: Links,
    timing: Timing,
    stop: CancellationToken,
) {
    let mut next_beat = Instant::now() + timing.heartbeat;
    let mut next_look = Instant::now() + timing.election_max;
    loop {
        let cores = cores();
        let now = Instant::now();
        let mut next = next_beat.min(next_look);
        for core in &cores {
            match overdue_at(core, timing) {
                Some(at) if at <= now => stir(core),
                Some(at) => next = next.min(at),
                None => {}
            }
        }
        if next_beat <= now {
            next_beat = now + timing.heartbeat;
            for beat in beats(&cores).into_values() {
                tokio::spawn(send(links.clone(), beat, now + timing.election_max));
            }
        }
        if next_look <= now {
            next_look = now + timing.election_max;
            cores.iter().for_each(fall::look);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep_until(next) => {}
        }
    }
}

/// When a group that rests is woken, if nothing is heard until then.
fn overdue_at(core: &Core, timing: Timing) -> Option<Instant> {
    match core.rest.claim() {
        Some((_, true)) => Some(core.rest.all_acked()? + timing.election_max),
        Some((_, false)) => None,
        None => core.rest.gives_up_at(),
    }
}

/// On a task of its own: one group that is slow to wake must not hold up the beats of the others.
fn stir(core: &Arc<Core>) {
    tracing::debug!(group = %core.id, "wakes: beats stay away");
    let core = core.clone();
    tokio::spawn(async move { core.rest.stir().await });
}

/// What is to be said to each node.
fn beats(cores: &[Arc<Core>]) -> BTreeMap<NodeId, Beat> {
    let mut beats: BTreeMap<NodeId, Beat> = BTreeMap::new();
    for core in cores {
        let Some((term, rests)) = core.rest.claim() else {
            continue;
        };
        for member in others_led(core, term) {
            let beat = beats.entry(member.node).or_insert_with(|| Beat {
                member,
                claims: Vec::new(),
            });
            if beat.claims.len() < MAX_RESTING as usize {
                beat.claims.push(Claim {
                    core: core.clone(),
                    term,
                    rests,
                });
            }
        }
    }
    beats
}

/// The other members, if this replica leads them in that term at this moment and could go on.
fn others_led(core: &Core, term: u64) -> Vec<Member> {
    if core.has_ended() || core.wal.failure().is_some() {
        return Vec::new();
    }
    core.with_metrics(|metrics| {
        let leads = metrics.running_state.is_ok()
            && metrics.state == ServerState::Leader
            && metrics.current_term == term;
        let others = metrics.membership_config.nodes();
        let others = others.filter(|(replica, _)| leads && **replica != core.replica);
        others.map(|(_, member)| member.clone()).collect()
    })
}

async fn send(links: Links, beat: Beat, deadline: Instant) {
    let sent = Instant::now();
    // It is for the node, whatever its groups.
    let to = Target {
        group: GroupId(0),
        replica: ReplicaId(0),
    };
    let claims = beat.claims.iter();
    let resting = claims.map(|claim| (claim.core.id, claim.term)).collect();
    let request = Request::Beat { resting };
    let answer = links.call(&beat.member, to, request, deadline).await;
    let Ok(Answer::Beat { awake }) = answer else {
        return;
    };
    for claim in beat.claims.iter().filter(|claim| claim.rests) {
        if awake.contains(&claim.core.id) {
            tracing::debug!(group = %claim.core.id, node = %beat.member.node, "wakes: it does not rest there");
            claim.core.rest.stir().await;
        } else {
            let node = beat.member.node;
            claim.core.rest.note_acked(claim.term, node, sent);
        }
    }
}
