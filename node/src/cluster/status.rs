//! How the status of a node is shown.

use rossby_domain::ids::GroupId;
use rossby_domain::placement::PLACEMENT_GROUP;
use rossby_proto::v1;
use serde::Serialize;

use crate::exit::Failure;
use crate::output::{self, Page};

/// The status as JSON: the form that scripts read.
#[derive(Serialize)]
struct NodeView<'a> {
    node: u64,
    version: &'a str,
    cluster: Option<&'a str>,
    cluster_name: Option<&'a str>,
    standing: &'a str,
    advice: Option<&'a str>,
    region: &'a str,
    /// The newest cluster map that it knows.
    map_version: Option<u64>,
    /// Its replicas of groups of boxes.
    groups: Vec<GroupView<'a>>,
    /// Its replica of the placement group.
    placement: Option<GroupView<'a>>,
}

#[derive(Serialize)]
struct GroupView<'a> {
    group: u32,
    replica: u64,
    role: &'a str,
    term: u64,
    leader_node: Option<u64>,
    last_log_index: u64,
    committed_index: u64,
    applied_index: u64,
    checkpoint_index: u64,
    failure: Option<&'a str>,
    /// The jump of the leader's clock for which no mail expires.
    expiry_blocked: Option<JumpView>,
    /// How far the service's time is ahead of the leader's clock.
    time_ahead_ms: u64,
    /// A change of voters is half-way.
    joint: bool,
    members: Vec<MemberView<'a>>,
}

#[derive(Serialize)]
struct JumpView {
    last_ms: u64,
    now_ms: u64,
}

#[derive(Serialize)]
struct MemberView<'a> {
    replica: u64,
    node: u64,
    peers: &'a str,
    clients: &'a str,
    voter: bool,
    matched_index: Option<u64>,
    trouble: Option<&'a str>,
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn view(status: &v1::StatusResponse) -> NodeView<'_> {
    let is_placement = |group: &&v1::GroupStatus| group.group_id == PLACEMENT_GROUP.0;
    let placement = status.groups.iter().find(is_placement);
    let of_boxes = status.groups.iter().filter(|group| !is_placement(group));
    NodeView {
        node: status.node_id,
        version: &status.version,
        cluster: some(&status.cluster_id),
        cluster_name: some(&status.cluster_name),
        standing: &status.standing,
        advice: some(&status.advice),
        region: &status.region,
        map_version: (status.map_version > 0).then_some(status.map_version),
        groups: of_boxes.map(group_view).collect(),
        placement: placement.map(group_view),
    }
}

fn group_view(group: &v1::GroupStatus) -> GroupView<'_> {
    GroupView {
        group: group.group_id,
        replica: group.replica_id,
        role: &group.role,
        term: group.term,
        leader_node: (group.leader_node_id != 0).then_some(group.leader_node_id),
        last_log_index: group.last_log_index,
        committed_index: group.committed_index,
        applied_index: group.applied_index,
        checkpoint_index: group.checkpoint_index,
        failure: some(&group.failure),
        expiry_blocked: group.expiry_blocked.map(|jump| JumpView {
            last_ms: jump.last_ms,
            now_ms: jump.now_ms,
        }),
        time_ahead_ms: group.time_ahead_ms,
        joint: group.joint,
        members: group
            .members
            .iter()
            .map(|member| MemberView {
                replica: member.replica_id,
                node: member.node_id,
                peers: &member.peer_address,
                clients: &member.client_address,
                voter: member.voter,
                matched_index: member.matched_index,
                trouble: some(&member.trouble),
            })
            .collect(),
    }
}

/// The status, for people or scripts.
pub(super) fn text(status: &v1::StatusResponse, json: bool) -> Result<String, Failure> {
    let status = view(status);
    if json {
        return output::to_json(&status);
    }
    let mut page = Page::default();
    page.line(format!("node {} (rossby {})", status.node, status.version));
    match (status.cluster, status.cluster_name) {
        (Some(id), name) => page.line(format!("cluster {} ({id})", name.unwrap_or("-"))),
        _ if status.standing == "starting" => page.line("it is starting"),
        _ => page.line(
            "in no cluster yet: make one with `rossby cluster init`, or run `rossby cluster add-node` on a \
             node of one",
        ),
    }
    if let Some(advice) = status.advice {
        page.line(format!("  {advice}"));
    }
    match status.map_version {
        Some(version) => page.line(format!(
            "in region {}, knows version {version} of the cluster map",
            status.region
        )),
        None => page.line(format!("in region {}", status.region)),
    }
    for group in status.groups.iter().chain(&status.placement) {
        print_group(&mut page, group);
    }
    Ok(page.text())
}

fn print_group(page: &mut Page, group: &GroupView<'_>) {
    let leader = group
        .leader_node
        .map_or_else(|| "nobody".to_owned(), |node| format!("node {node}"));
    let name = match GroupId(group.group) {
        PLACEMENT_GROUP => "group 0, of placement".to_owned(),
        group => format!("group {group}"),
    };
    page.line(format!(
        "{name}: this node is {}, {leader} leads in term {}",
        group.role, group.term
    ));
    page.line(format!(
        "  log to {}, committed to {}, applied to {}, checkpoint at {}",
        group.last_log_index, group.committed_index, group.applied_index, group.checkpoint_index
    ));
    if let Some(failure) = group.failure {
        page.line(format!("  stopped: {failure}"));
    }
    if let Some(jump) = &group.expiry_blocked {
        page.line(format!(
            "  no mail expires: the last time in the log is {}, but it is {} by the clock",
            output::utc(jump.last_ms),
            output::utc(jump.now_ms)
        ));
        page.line(format!(
            "    set the clock right, or say that it is: `rossby cluster confirm-time --group {}` on this node",
            group.group
        ));
    }
    if group.time_ahead_ms > 0 {
        page.line(format!(
            "  the service's time is {} s ahead of this node's clock: clocks were wrong once, or are now",
            group.time_ahead_ms / 1000
        ));
    }
    if group.joint {
        page.line("  a change of voters is half-way: both the old and the new ones must agree");
    }
    for member in &group.members {
        let kind = if member.voter { "voter" } else { "learner" };
        let matched = member
            .matched_index
            .map_or_else(String::new, |index| format!(", has the log to {index}"));
        let peers = some(member.peers).unwrap_or("no peers");
        page.line(format!(
            "  node {} (replica {}): {kind}, {peers}{matched}",
            member.node, member.replica
        ));
        if let Some(trouble) = member.trouble {
            page.line(format!("    no link: {trouble}"));
            page.line(format!(
                "    if it is gone for good, or its disk was lost: rossby cluster replace-node {} \
                 NUMBER=HOST:PORT",
                member.node
            ));
        }
        // Of those who are no voters, the leader knows how to go on.
        if !member.voter && group.role == "leader" {
            page.line(format!(
                "    half added: give the order again that added it, or take it back: rossby cluster \
                 remove-node {} --half-added",
                member.node
            ));
        }
    }
}
