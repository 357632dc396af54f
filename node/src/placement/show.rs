//! `rossby placement show`: the cluster map.

use rossby_domain::ids::{GroupId, NodeId};
use rossby_domain::placement::{
    GroupEntry, NodeEntry, NodeState, PLACEMENT_GROUP, RegionName, SurvivalGoal,
};
use serde::Serialize;

use super::{Known, StepView, View};
use crate::exit::Failure;
use crate::output::{self, Page};

#[derive(Serialize)]
struct MapView<'a> {
    version: u64,
    survive: SurvivalGoal,
    partitions: u16,
    /// Partitions that no group owns yet.
    spare: usize,
    regions: Vec<RegionView<'a>>,
    /// The groups of boxes.
    groups: Vec<GroupView<'a>>,
    /// The placement group.
    placement: GroupView<'a>,
    /// Nodes that were asked and did not answer.
    silent: &'a [u64],
    /// The steps towards what the map asks for that are under way.
    steps: Vec<StepView<'a>>,
}

#[derive(Serialize)]
struct RegionView<'a> {
    region: &'a str,
    nodes: Vec<NodeView<'a>>,
}

#[derive(Serialize)]
struct NodeView<'a> {
    node: u64,
    state: NodeState,
    peers: &'a str,
    clients: &'a str,
}

#[derive(Serialize)]
struct GroupView<'a> {
    group: u32,
    home: Option<&'a str>,
    partitions: usize,
    leader_node: Option<u64>,
    /// Whether its leader told who its members are; otherwise it may be out of date.
    from_leader: bool,
    members: Vec<MemberView>,
    founders: Vec<MemberView>,
}

#[derive(Serialize)]
struct MemberView {
    replica: u64,
    node: u64,
    voter: bool,
}

fn view<'a>(view: &'a View) -> MapView<'a> {
    let map = &view.map;
    let region = |region: &'a RegionName| {
        let nodes = map.nodes().iter();
        let nodes = nodes.filter(|(_, entry)| &entry.region == region);
        RegionView {
            region: region.as_str(),
            nodes: nodes.map(|(node, entry)| node_view(*node, entry)).collect(),
        }
    };
    let groups = map.groups().iter();
    MapView {
        version: map.version().0,
        survive: map.goal(),
        partitions: map.partitions().get(),
        spare: map.spare().count(),
        regions: map.regions().into_iter().map(region).collect(),
        groups: groups
            .map(|(group, entry)| group_view(view, *group, Some(entry)))
            .collect(),
        placement: group_view(view, PLACEMENT_GROUP, None),
        silent: &view.silent,
        steps: view.steps.iter().map(StepView::of).collect(),
    }
}

fn node_view(node: NodeId, entry: &NodeEntry) -> NodeView<'_> {
    NodeView {
        node: node.0,
        state: entry.state,
        peers: &entry.peer_address,
        clients: &entry.client_address,
    }
}

fn group_view<'a>(view: &'a View, group: GroupId, entry: Option<&'a GroupEntry>) -> GroupView<'a> {
    let known = view.group(group.0);
    let members = known.into_iter().flat_map(|known| &known.status.members);
    let founders = entry.into_iter().flat_map(|entry| &entry.founders);
    GroupView {
        group: group.0,
        home: entry.map(|entry| entry.home.as_str()),
        partitions: view.map.partitions_of(group).count(),
        leader_node: known.and_then(Known::leader),
        from_leader: known.is_some_and(|known: &Known| known.from_leader),
        members: members
            .map(|member| MemberView {
                replica: member.replica_id,
                node: member.node_id,
                voter: member.voter,
            })
            .collect(),
        founders: founders
            .map(|(replica, node)| MemberView {
                replica: replica.0,
                node: node.0,
                voter: true,
            })
            .collect(),
    }
}

/// The map, for people or scripts.
pub(super) fn text(asked: &View, json: bool) -> Result<String, Failure> {
    let map = view(asked);
    if json {
        return output::to_json(&map);
    }
    let mut page = Page::default();
    page.line(format!(
        "version {} of the map, to survive the loss of a {}",
        map.version, map.survive
    ));
    page.line(format!(
        "{} partitions, of which {} are spare",
        map.partitions, map.spare
    ));
    for region in &map.regions {
        page.line(format!("region {}", region.region));
        for node in &region.nodes {
            print_node(&mut page, node, asked.silent.contains(&node.node));
        }
    }
    for group in &map.groups {
        let home = group.home.unwrap_or("-");
        let title = format!(
            "group {}, at home in {home}, {} partitions",
            group.group, group.partitions
        );
        print_group(&mut page, &title, group);
    }
    print_group(&mut page, "group 0, of placement", &map.placement);
    for step in &map.steps {
        page.line(format!(
            "under way in group {}: {}",
            step.group,
            step.text()
        ));
    }
    Ok(page.text())
}

fn print_node(page: &mut Page, node: &NodeView<'_>, is_silent: bool) {
    let or = |text: &str| match text {
        "" => "nowhere".to_owned(),
        text => text.to_owned(),
    };
    let state = match node.state {
        NodeState::Active => "",
        NodeState::Draining => ", is leaving",
    };
    let silent = if is_silent { ", does not answer" } else { "" };
    page.line(format!(
        "  node {}: peers at {}, clients at {}{state}{silent}",
        node.node,
        or(node.peers),
        or(node.clients)
    ));
}

fn print_group(page: &mut Page, title: &str, group: &GroupView<'_>) {
    let leader = match group.leader_node {
        Some(node) => format!("node {node} leads"),
        None => "nobody is known to lead".to_owned(),
    };
    page.line(format!("{title}: {leader}"));
    let (members, kind) = match group.members.is_empty() {
        false => (&group.members, ""),
        true => (&group.founders, "founder, "),
    };
    for member in members {
        let vote = if member.voter { "voter" } else { "learner" };
        page.line(format!(
            "  node {} (replica {}): {kind}{vote}",
            member.node, member.replica
        ));
    }
    if !group.from_leader {
        page.line("  (its leader did not tell this: it may be out of date)");
    }
}
