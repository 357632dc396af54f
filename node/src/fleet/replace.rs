//! `rossby node replace`: one node takes the place of another in all its groups, and the other leaves the
//! cluster.
//!
//! ```text
//!   both known, in one region, the new one up ─► one order for each group ─► what is left drains ─► out of the map
//! ```
//!
//! Nothing is kept of the order: given again, it finds what is left to do.

use rossby_api::admin::MembersOrder;
use rossby_domain::ids::NodeId;
use rossby_domain::placement::{NodeEntry, NodeState, PLACEMENT_GROUP};
use serde_json::json;

use super::drain::leave;
use crate::cli::{ChangeArgs, DrainArgs, SocketArgs};
use crate::cluster::in_one_group;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::placement::View;

/// Runs it.
pub(super) async fn replace(args: &DrainArgs, new: u64) -> Result<(), Failure> {
    let (old, new) = (NodeId(args.node), NodeId(new));
    let view = View::ask(&args.placement).await?;
    let address = check(&view, old, new)?;
    let order = MembersOrder::Replace {
        old,
        new,
        peer_address: address,
    };
    let change = ChangeArgs {
        socket: SocketArgs {
            socket: Some(args.placement.socket.path()),
            data: args.placement.socket.data.clone(),
        },
        patience: args.patience,
        json: args.placement.json,
        group: None,
    };
    for group in to_move(&view, old, new) {
        if !args.placement.json {
            output::line(format!("Group {group}: node {new} comes for node {old}."));
        }
        in_one_group(&change, group, &order).await?;
    }
    leave(args).await?;
    if args.placement.json {
        return output::json(&json!({ "node": old.0, "state": "removed", "by": new.0 }));
    }
    output::line(format!(
        "Node {new} has taken the place of node {old}, which has left the cluster: its process can be stopped."
    ));
    Ok(())
}

/// Refuses what would survive less, or can't be begun; where the new node's peers reach it.
fn check(view: &View, old: NodeId, new: NodeId) -> Result<String, Failure> {
    let usage = |text: String| Failure::new(Exit::Usage, text);
    if old == new {
        return Err(usage("a node can't take its own place".to_owned()).help(
            "after its disk was lost: `rossby cluster replace-node N N=HOST:PORT`, or decommission it and join a \
             new one",
        ));
    }
    let entry = |node: NodeId| -> Result<&NodeEntry, Failure> {
        let entry = view.map.nodes().get(&node);
        entry.ok_or_else(|| {
            usage(format!("there is no node {node}"))
                .help("a new node joins first: `rossby node token`")
        })
    };
    let (leaves, comes) = (entry(old)?, entry(new)?);
    let refused = |text: String| Err(Failure::new(Exit::Refused, text));
    if comes.state == NodeState::Draining {
        return refused(format!(
            "node {new} is leaving itself: `rossby node activate {new}` takes that back"
        ));
    }
    if comes.region != leaves.region {
        return refused(format!(
            "node {new} is in region {}, and node {old} in region {}: the groups of node {old} would survive less, or \
             move back. `rossby node decommission {old}` has them go where they should be",
            comes.region, leaves.region
        ));
    }
    if view.silent.contains(&new.0) {
        return Err(Failure::new(
            Exit::Unavailable,
            format!("node {new} does not answer"),
        ));
    }
    let groups = std::iter::once(&PLACEMENT_GROUP).chain(view.map.groups().keys());
    let is_unknown = |group: &&rossby_domain::ids::GroupId| {
        !view.group(group.0).is_some_and(|known| known.from_leader)
    };
    let unknown = groups.filter(is_unknown).map(ToString::to_string);
    let unknown: Vec<String> = unknown.collect();
    if !unknown.is_empty() {
        return Err(Failure::new(
            Exit::Unavailable,
            format!("no leader answers of groups {}", unknown.join(", ")),
        ));
    }
    Ok(comes.peer_address.clone())
}

/// The groups in which the new node can take the other's place at once. Where it is a member already, or the
/// other is the only voter, the plan of the cluster finds a way when the node drains.
fn to_move(view: &View, old: NodeId, new: NodeId) -> Vec<u32> {
    let can_move = |status: &&rossby_proto::v1::GroupStatus| {
        let is = |node: NodeId| status.members.iter().any(|member| member.node_id == node.0);
        let voters = status.members.iter().filter(|member| member.voter);
        is(old) && !is(new) && voters.count() > 1
    };
    let statuses = view.groups.iter().map(|known| &known.status);
    statuses
        .filter(can_move)
        .map(|status| status.group_id)
        .collect()
}
