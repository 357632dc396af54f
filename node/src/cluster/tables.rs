//! `rossby cluster groups|partitions|nodes`: the cluster as tables, as one node could learn of it.

use std::collections::BTreeMap;

use rossby_domain::ids::{GroupId, NodeId};
use rossby_domain::placement::{NodeState, PLACEMENT_GROUP};
use rossby_proto::v1;
use serde::Serialize;

use crate::cli::TableCommand;
use crate::exit::Failure;
use crate::output;
use crate::placement::{Known, StepView, View};
use crate::{table, watch};

/// Runs one of them.
///
/// # Errors
/// If the node can't be reached, or refuses.
pub(super) async fn run(command: &TableCommand) -> Result<(), Failure> {
    let args = match command {
        TableCommand::Groups(args) | TableCommand::Partitions(args) | TableCommand::Nodes(args) => {
            args
        }
    };
    let text = |view: &View| match command {
        TableCommand::Groups(_) => shown(args.placement.json, &groups(view), groups_text),
        TableCommand::Partitions(_) => {
            shown(args.placement.json, &partitions(view), partitions_text)
        }
        TableCommand::Nodes(_) => shown(args.placement.json, &nodes(view), nodes_text),
    };
    watch::show(args.watch, async || View::ask(&args.placement).await, text).await
}

fn shown<T: Serialize>(
    json: bool,
    what: &T,
    text: impl Fn(&T) -> String,
) -> Result<String, Failure> {
    match json {
        true => output::to_json(what),
        false => Ok(text(what)),
    }
}

#[derive(Serialize)]
struct Groups<'a> {
    /// The version of the map that the node knows.
    version: u64,
    /// All groups: that of placement first.
    groups: Vec<Group<'a>>,
    /// Nodes that were asked and did not answer.
    silent: &'a [u64],
}

#[derive(Serialize)]
struct Group<'a> {
    group: u32,
    /// The region that it is at home in; none for the placement group.
    home: Option<&'a str>,
    leader_node: Option<u64>,
    leader_region: Option<&'a str>,
    /// Whether its leader told all this; otherwise it may be out of date.
    from_leader: bool,
    term: u64,
    applied_index: u64,
    partitions: usize,
    /// A change of voters is half-way.
    joint: bool,
    members: Vec<Member<'a>>,
    /// The step towards what the map asks for that is under way.
    step: Option<StepView<'a>>,
}

#[derive(Serialize)]
struct Member<'a> {
    node: u64,
    region: Option<&'a str>,
    replica: u64,
    voter: bool,
    /// How many entries it lacks, as its leader knows.
    behind: Option<u64>,
    /// Why the leader has no link to it, if it has none.
    trouble: Option<&'a str>,
}

fn region_of(view: &View, node: u64) -> Option<&str> {
    let entry = view.map.nodes().get(&NodeId(node))?;
    Some(entry.region.as_str())
}

fn groups(view: &View) -> Groups<'_> {
    let all = std::iter::once(&PLACEMENT_GROUP).chain(view.map.groups().keys());
    Groups {
        version: view.map.version().0,
        groups: all.map(|group| of_group(view, *group)).collect(),
        silent: &view.silent,
    }
}

fn of_group(view: &View, group: GroupId) -> Group<'_> {
    let known = view.group(group.0);
    let status = known.map(|known: &Known| &known.status);
    let leader = known.and_then(Known::leader);
    let home = view.map.groups().get(&group);
    Group {
        group: group.0,
        home: home.map(|entry| entry.home.as_str()),
        leader_node: leader,
        leader_region: leader.and_then(|node| region_of(view, node)),
        from_leader: known.is_some_and(|known| known.from_leader),
        term: status.map_or(0, |status| status.term),
        applied_index: status.map_or(0, |status| status.applied_index),
        partitions: view.map.partitions_of(group).count(),
        joint: status.is_some_and(|status| status.joint),
        members: status
            .map(|status| members(view, status))
            .unwrap_or_default(),
        step: view.step(group.0),
    }
}

fn members<'a>(view: &'a View, status: &'a v1::GroupStatus) -> Vec<Member<'a>> {
    let member = |member: &'a v1::Member| {
        let leads = member.node_id == status.leader_node_id;
        let behind = member
            .matched_index
            .map(|index| status.last_log_index.saturating_sub(index));
        Member {
            node: member.node_id,
            region: region_of(view, member.node_id),
            replica: member.replica_id,
            voter: member.voter,
            behind: if leads { Some(0) } else { behind },
            trouble: (!member.trouble.is_empty()).then_some(member.trouble.as_str()),
        }
    };
    status.members.iter().map(member).collect()
}

fn groups_text(shown: &Groups<'_>) -> String {
    let row = |group: &Group<'_>| {
        let members: Vec<String> = group
            .members
            .iter()
            .map(|member| member_text(member, group.leader_node))
            .collect();
        let mut notes = Vec::new();
        if !group.from_leader {
            notes.push("its leader does not answer".to_owned());
        }
        if group.joint {
            notes.push("a change of voters is half-way".to_owned());
        }
        notes.extend(group.step.as_ref().map(StepView::text));
        [
            group.group.to_string(),
            group.home.unwrap_or("-").to_owned(),
            group
                .leader_node
                .map_or_else(|| "-".to_owned(), |node| node.to_string()),
            group.term.to_string(),
            group.applied_index.to_string(),
            group.partitions.to_string(),
            members.join(", "),
            notes.join("; "),
        ]
    };
    let rows: Vec<_> = shown.groups.iter().map(row).collect();
    let head = [
        "GROUP",
        "HOME",
        "LEADER",
        "TERM",
        "APPLIED",
        "PARTITIONS",
        "MEMBERS",
        "UNDER WAY",
    ];
    with_silent(table::text(head, &rows), shown.silent)
}

/// A member, and what is not as it should be.
fn member_text(member: &Member<'_>, leader: Option<u64>) -> String {
    let mut notes = Vec::new();
    if leader == Some(member.node) {
        notes.push("leads".to_owned());
    }
    if !member.voter {
        notes.push("learner".to_owned());
    }
    match (member.trouble, member.behind) {
        (Some(_), _) => notes.push("no link".to_owned()),
        (None, Some(behind)) if behind > 0 => notes.push(format!("{behind} behind")),
        _ => {}
    }
    let region = member.region.unwrap_or("?");
    match notes.is_empty() {
        true => format!("{} {region}", member.node),
        false => format!("{} {region} ({})", member.node, notes.join(", ")),
    }
}

fn with_silent(text: String, silent: &[u64]) -> String {
    if silent.is_empty() {
        return text;
    }
    let silent: Vec<String> = silent.iter().map(|node| format!("node {node}")).collect();
    format!("{text}\nNot answering: {}.", silent.join(", "))
}

#[derive(Serialize)]
struct Partitions<'a> {
    version: u64,
    partitions: Vec<Partition<'a>>,
}

#[derive(Serialize)]
struct Partition<'a> {
    partition: u16,
    /// The group that owns it; none for a spare one.
    group: Option<u32>,
    /// Since which epoch.
    epoch: Option<u64>,
    home: Option<&'a str>,
    leader_node: Option<u64>,
}

fn partitions(view: &View) -> Partitions<'_> {
    let map = &view.map;
    let partition = |partition: rossby_domain::ids::PartitionId| {
        let owner = map.owners().get(&partition);
        let group = owner.map(|owner| owner.group);
        let home = group.and_then(|group| map.groups().get(&group));
        let known = group.and_then(|group| view.group(group.0));
        Partition {
            partition: partition.number(),
            group: group.map(|group| group.0),
            epoch: owner.map(|owner| owner.epoch.0),
            home: home.map(|entry| entry.home.as_str()),
            leader_node: known.and_then(Known::leader),
        }
    };
    Partitions {
        version: map.version().0,
        partitions: map.partitions().all().map(partition).collect(),
    }
}

fn partitions_text(shown: &Partitions<'_>) -> String {
    fn or_dash<T: ToString>(value: Option<T>) -> String {
        value.map_or_else(|| "-".to_owned(), |value| value.to_string())
    }
    let row = |partition: &Partition<'_>| {
        [
            partition.partition.to_string(),
            partition
                .group
                .map_or_else(|| "spare".to_owned(), |group| group.to_string()),
            or_dash(partition.epoch),
            or_dash(partition.home),
            or_dash(partition.leader_node),
        ]
    };
    let rows: Vec<_> = shown.partitions.iter().map(row).collect();
    table::text(["PARTITION", "GROUP", "EPOCH", "HOME", "LEADER"], &rows)
}

#[derive(Serialize)]
struct Nodes<'a> {
    version: u64,
    nodes: Vec<Node<'a>>,
}

#[derive(Serialize)]
struct Node<'a> {
    node: u64,
    region: &'a str,
    state: NodeState,
    /// Whether it answered when it was asked.
    answers: bool,
    /// The groups that it has a replica of.
    groups: Vec<u32>,
    /// Those of them that it leads.
    leads: Vec<u32>,
    peers: &'a str,
    clients: &'a str,
}

fn nodes(view: &View) -> Nodes<'_> {
    let (mut held, mut led) = (
        BTreeMap::<u64, Vec<u32>>::new(),
        BTreeMap::<u64, Vec<u32>>::new(),
    );
    for known in &view.groups {
        let status = &known.status;
        led.entry(status.leader_node_id)
            .or_default()
            .push(status.group_id);
        for member in &status.members {
            held.entry(member.node_id)
                .or_default()
                .push(status.group_id);
        }
    }
    let all = view.map.nodes().iter();
    Nodes {
        version: view.map.version().0,
        nodes: all
            .map(|(node, entry)| Node {
                node: node.0,
                region: entry.region.as_str(),
                state: entry.state,
                answers: !view.silent.contains(&node.0),
                groups: held.remove(&node.0).unwrap_or_default(),
                leads: led.remove(&node.0).unwrap_or_default(),
                peers: &entry.peer_address,
                clients: &entry.client_address,
            })
            .collect(),
    }
}

fn nodes_text(shown: &Nodes<'_>) -> String {
    let list = |groups: &[u32]| match groups.is_empty() {
        true => "-".to_owned(),
        false => groups
            .iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(","),
    };
    let row = |node: &Node<'_>| {
        let state = match (node.answers, node.state) {
            (false, NodeState::Active) => "does not answer",
            (false, NodeState::Draining) => "leaving, does not answer",
            (true, NodeState::Active) => "up",
            (true, NodeState::Draining) => "leaving",
        };
        [
            node.node.to_string(),
            node.region.to_owned(),
            state.to_owned(),
            list(&node.groups),
            list(&node.leads),
            node.peers.to_owned(),
            node.clients.to_owned(),
        ]
    };
    let rows: Vec<_> = shown.nodes.iter().map(row).collect();
    let head = [
        "NODE", "REGION", "STATE", "GROUPS", "LEADS", "PEERS", "CLIENTS",
    ];
    table::text(head, &rows)
}
