//! Waits until no replica is on a node that leaves, and says why one stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rossby_domain::ids::{GroupId, MapVersion, NodeId};
use rossby_domain::placement::{Health, PLACEMENT_GROUP, Patience, Report, Step, plan};
use rossby_proto::v1;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{ORDER_TIMEOUT, set_draining};
use crate::cli::DrainArgs;
use crate::cluster::{connect, order};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::placement::View;
use crate::placement::explain::membership;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(300);
/// After so long without a step that could be taken it is over.
const STUCK_AFTER: Duration = Duration::from_secs(4);

/// `rossby node drain`.
pub(super) async fn drain(args: &DrainArgs, wait: bool) -> Result<(), Failure> {
    let node = args.node;
    let set = begin(args).await?;
    if wait {
        wait_empty(args, MapVersion(set.map_version)).await?;
    }
    if args.placement.json {
        return output::json(&json!({
            "node": node, "state": "draining", "empty": wait.then_some(true),
            "version": set.map_version,
        }));
    }
    output::line(match wait {
        true => format!("No replica is on node {node} any more."),
        false => format!(
            "Node {node} is leaving its groups: `rossby placement show` says how far it is."
        ),
    });
    Ok(())
}

/// `rossby node decommission`.
pub(super) async fn decommission(args: &DrainArgs) -> Result<(), Failure> {
    let node = args.node;
    leave(args).await?;
    if args.placement.json {
        return output::json(&json!({ "node": node, "state": "removed" }));
    }
    output::line(format!(
        "Node {node} has left the cluster: its process can be stopped."
    ));
    Ok(())
}

/// Has a node leave its groups and then the cluster.
///
/// # Errors
/// If it can't, and why.
pub(super) async fn leave(args: &DrainArgs) -> Result<(), Failure> {
    let set = begin(args).await?;
    wait_empty(args, MapVersion(set.map_version)).await?;
    let settled = settle(args).await?;
    if !settled.gone {
        return Err(Failure::new(
            Exit::OutcomeUnknown,
            format!("a replica came back to node {}", args.node),
        )
        .help("give the same order again"));
    }
    Ok(())
}

/// Takes the node out of the map, once every group has a leader that says that it is not on it.
async fn settle(args: &DrainArgs) -> Result<v1::SettleNodeResponse, Failure> {
    let began = Instant::now();
    loop {
        let mut client = connect(&args.placement.socket.path()).await?;
        let request = v1::SettleNodeRequest { node_id: args.node };
        match order(ORDER_TIMEOUT, client.settle_node(request)).await {
            Err(failure)
                if failure.exit == Exit::Unavailable
                    && began.elapsed() < Duration::from_secs(args.patience) => {}
            settled => return settled,
        }
        sleep(PAUSE).await;
    }
}

async fn begin(args: &DrainArgs) -> Result<v1::SetNodeStateResponse, Failure> {
    set_draining(&args.placement.socket, args.node, true).await
}

async fn wait_empty(args: &DrainArgs, from: MapVersion) -> Result<(), Failure> {
    let node = NodeId(args.node);
    let patience = Duration::from_secs(args.patience);
    let (mut moved, mut could_move) = (Instant::now(), Instant::now());
    let mut last = None;
    loop {
        let view = View::ask(&args.placement).await?;
        let at = Standing::of(&view, node);
        if at.held.is_empty() && at.unknown.is_empty() && view.map.version() >= from {
            return Ok(());
        }
        if last.as_ref() != Some(&at) {
            tell(args, &at);
            moved = Instant::now();
        }
        let stuck = at.stuck(&view, node);
        if stuck.is_none() || view.map.version() < from {
            could_move = Instant::now();
        }
        last = Some(at);
        if let Some(reasons) = stuck
            && could_move.elapsed() > STUCK_AFTER
        {
            return Err(Failure::new(Exit::Refused, reasons.join("; ")).help(format!(
                "node {node} goes on leaving as soon as it can; `rossby node activate {node}` takes that back"
            )));
        }
        if moved.elapsed() > patience {
            return Err(Failure::new(Exit::OutcomeUnknown, "nothing has moved for a while").help(
                format!(
                    "node {node} goes on leaving if placement.reconcile is on; the log of the node that leads \
                     group 0 says what fails"
                ),
            ));
        }
        sleep(PAUSE).await;
    }
}

/// What is on a node.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    /// Groups with a replica on it.
    held: BTreeSet<u32>,
    /// Groups whose leader does not tell.
    unknown: BTreeSet<u32>,
}

impl Standing {
    fn of(view: &View, node: NodeId) -> Self {
        let groups = std::iter::once(&PLACEMENT_GROUP).chain(view.map.groups().keys());
        let mut standing = Self {
            held: BTreeSet::new(),
            unknown: BTreeSet::new(),
        };
        for group in groups {
            match view.group(group.0).filter(|known| known.from_leader) {
                None => {
                    standing.unknown.insert(group.0);
                }
                Some(known) => {
                    let mut members = known.status.members.iter();
                    if members.any(|member| member.node_id == node.0) {
                        standing.held.insert(group.0);
                    }
                }
            }
        }
        standing
    }

    /// Why what is left does not move, if no step of any group on the node can be taken now.
    fn stuck(&self, view: &View, node: NodeId) -> Option<Vec<String>> {
        if self.held.is_empty() || !self.unknown.is_empty() {
            return None;
        }
        let reports = reports(view);
        let is_busy = |group: &u32| {
            let report = reports.get(&GroupId(*group));
            let comes = |node: &NodeId| !view.map.keeps_copy(GroupId(*group), *node);
            report.is_none_or(|report| {
                report.membership.coming.is_some() || report.membership.learners.iter().any(comes)
            })
        };
        let steps = steps(view, &reports);
        let moves = |group: &u32| steps.contains_key(&GroupId(*group));
        if self.held.iter().any(|group| is_busy(group) || moves(group)) {
            return None;
        }
        let goal = view.map.goal();
        let region = view
            .map
            .nodes()
            .get(&node)
            .map(|entry| entry.region.to_string());
        let region = region.unwrap_or_default();
        let reason = |group: &u32| {
            format!(
                "node {node} stays in group {group}: nobody that is up can take its place, and without it the \
                 loss of a {goal} would cost more than it does now (a new node in region {region} helps)"
            )
        };
        Some(self.held.iter().map(reason).collect())
    }
}

/// What the leaders tell, as the planner takes it; leaders that have led for long.
fn reports(view: &View) -> BTreeMap<GroupId, Report> {
    let led = view.groups.iter().filter(|known| known.from_leader);
    let report = |status: &v1::GroupStatus| {
        let mut membership = membership(status);
        membership.coming = status.joint.then(|| membership.voters.clone());
        Report {
            caught_up: &membership.voters | &membership.learners,
            membership,
            leads_for_ms: u64::MAX,
            busy: false,
        }
    };
    led.map(|known| (GroupId(known.status.group_id), report(&known.status)))
        .collect()
}

fn steps(view: &View, reports: &BTreeMap<GroupId, Report>) -> BTreeMap<GroupId, Step> {
    let health = view.map.nodes().keys().map(|node| {
        let health = match view.silent.contains(&node.0) {
            true => Health::Down { for_ms: 0 },
            false => Health::Up { for_ms: u64::MAX },
        };
        (*node, health)
    });
    plan(&view.map, reports, &health.collect(), &Patience::default())
}

fn tell(args: &DrainArgs, at: &Standing) {
    if args.placement.json {
        return;
    }
    let list = |groups: &BTreeSet<u32>| {
        let groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
        groups.join(", ")
    };
    if !at.held.is_empty() {
        output::line(format!(
            "Node {} still has replicas of groups: {}.",
            args.node,
            list(&at.held)
        ));
    }
    if !at.unknown.is_empty() {
        output::line(format!(
            "Without a leader that answers: groups {}.",
            list(&at.unknown)
        ));
    }
}

#[cfg(test)]
mod tests {
    use rossby_domain::placement::{
        Beginning, Change, ClusterMap, NodeEntry, NodeState, RegionName,
    };

    use super::*;
    use crate::placement::Known;

    /// Three nodes of one region, of which the first leaves, and perhaps one more.
    fn view(spare: bool) -> View {
        let entry = |node: u64| NodeEntry {
            region: RegionName::default(),
            peer_address: format!("10.0.0.{node}:7472"),
            client_address: String::new(),
            state: NodeState::Active,
        };
        let first = (1..=3).map(|node| (NodeId(node), entry(node))).collect();
        let founded = Change::Found(Beginning {
            goal: rossby_domain::placement::SurvivalGoal::Node,
            partitions: rossby_domain::ids::PartitionCount::DEFAULT,
            groups: rossby_domain::placement::birth(
                &first,
                rossby_domain::placement::SurvivalGoal::Node,
                rossby_domain::placement::VOTERS_AT_HOME,
            )
            .groups,
            nodes: first,
        });
        let put = |node: u64, state| Change::PutNode {
            node: NodeId(node),
            entry: NodeEntry {
                state,
                ..entry(node)
            },
        };
        let mut map = ClusterMap::default().after(&founded).unwrap();
        map = map.after(&put(1, NodeState::Draining)).unwrap();
        if spare {
            map = map.after(&put(4, NodeState::Active)).unwrap();
        }
        let member = |node: u64| v1::Member {
            node_id: node,
            voter: true,
            ..Default::default()
        };
        let known = |group: u32| Known {
            status: v1::GroupStatus {
                group_id: group,
                leader_node_id: 2,
                members: (1..=3).map(member).collect(),
                ..Default::default()
            },
            from_leader: true,
        };
        View {
            map,
            groups: vec![known(0), known(1)],
            silent: Vec::new(),
            steps: Vec::new(),
        }
    }

    #[test]
    fn a_node_that_nobody_can_take_the_place_of_stays_and_it_is_said_why() {
        let alone = view(false);
        let at = Standing::of(&alone, NodeId(1));
        assert_eq!(at.held, BTreeSet::from([0, 1]));
        let reasons = at.stuck(&alone, NodeId(1)).unwrap();
        assert_eq!(reasons.len(), 2);
        assert!(reasons[1].contains("stays in group 1"), "{reasons:?}");
        let with_spare = view(true);
        let at = Standing::of(&with_spare, NodeId(1));
        assert_eq!(at.stuck(&with_spare, NodeId(1)), None);
        // While one of the leaders does not tell, nothing is said.
        let mut silent = view(false);
        silent.groups[1].from_leader = false;
        let at = Standing::of(&silent, NodeId(1));
        assert_eq!((at.unknown.len(), at.stuck(&silent, NodeId(1))), (1, None));
    }
}
