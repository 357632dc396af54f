//! `rossby placement explain`: what survives the loss of a region or a node.

use std::collections::{BTreeMap, BTreeSet};

use rossby_domain::ids::{GroupId, NodeId};
use rossby_domain::placement::{Explanation, Membership, PLACEMENT_GROUP, explain};
use rossby_proto::v1;
use serde::Serialize;

use super::View;
use crate::exit::Failure;
use crate::output;

#[derive(Serialize)]
struct ExplainView<'a> {
    version: u64,
    #[serde(flatten)]
    explanation: &'a Explanation,
    /// Groups whose leader did not tell who votes: what is said of them is a guess by what another
    /// member knows, or nothing is known.
    guessed: Vec<u32>,
    /// Nodes that were asked and did not answer: taken for down.
    silent: &'a [u64],
}

/// Prints what survives.
pub(super) fn print(view: &View, json: bool) -> Result<(), Failure> {
    let memberships: BTreeMap<GroupId, Membership> = view
        .groups
        .iter()
        .filter(|known| !known.status.members.is_empty())
        .map(|known| (GroupId(known.status.group_id), membership(&known.status)))
        .collect();
    let down: BTreeSet<NodeId> = view.silent.iter().copied().map(NodeId).collect();
    let explanation = explain(&view.map, &memberships, &down);
    let groups = std::iter::once(&PLACEMENT_GROUP).chain(view.map.groups().keys());
    let is_guess = |group: &&GroupId| !view.group(group.0).is_some_and(|known| known.from_leader);
    let told = ExplainView {
        version: view.map.version().0,
        explanation: &explanation,
        guessed: groups.filter(is_guess).map(|group| group.0).collect(),
        silent: &view.silent,
    };
    if json {
        return output::json(&told);
    }
    print_words(&told);
    Ok(())
}

fn print_words(told: &ExplainView<'_>) {
    let of = told.explanation;
    output::line(match of.holds {
        Some(true) => format!(
            "The loss of any one {} is survived, as it is to be.",
            of.goal
        ),
        Some(false) => format!(
            "The loss of any one {} is to be survived, and is not:",
            of.goal
        ),
        None => format!(
            "The loss of any one {} is to be survived; whether it is can't be told now.",
            of.goal
        ),
    });
    let all = std::iter::once(&of.now).chain(&of.regions).chain(&of.nodes);
    for consequence in all {
        output::line(format!("  {}", consequence.sentence));
    }
    for group in &told.guessed {
        output::line(match group {
            0 => "The placement group's leader does not answer: what is said of it is a guess."
                .to_owned(),
            group => format!(
                "The leader of group {group} does not answer: what is said of it is a guess."
            ),
        });
    }
    if !told.silent.is_empty() {
        let silent: Vec<_> = told
            .silent
            .iter()
            .map(|node| format!("node {node}"))
            .collect();
        output::line(format!(
            "Not answering, and so taken for down: {}.",
            silent.join(", ")
        ));
    }
}

/// Who votes, as a member told it. While a change of voters is half-way, both the old and the new ones are
/// named as one.
pub(crate) fn membership(status: &v1::GroupStatus) -> Membership {
    let of = |voter: bool| -> BTreeSet<NodeId> {
        let members = status.members.iter();
        let members = members.filter(|member| member.voter == voter);
        members.map(|member| NodeId(member.node_id)).collect()
    };
    let leader = status.leader_node_id;
    let voters = of(true);
    Membership {
        leader: (leader != 0).then_some(NodeId(leader)),
        learners: of(false).difference(&voters).copied().collect(),
        voters,
        coming: None,
    }
}
