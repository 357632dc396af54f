//! `rossby placement history`: what changed in the map.

use rossby_domain::placement::{Beginning, Change, MapHistoryRow, NodeState};
use serde::Serialize;

use crate::exit::Failure;
use crate::output;

#[derive(Serialize)]
struct RowView<'a> {
    version: u64,
    at_ms: u64,
    what: String,
    change: &'a Change,
}

/// Prints the changes, the oldest first.
pub(super) fn print(rows: &[MapHistoryRow], json: bool) -> Result<(), Failure> {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| RowView {
            version: row.version.0,
            at_ms: row.at.as_millis(),
            what: words(&row.change),
            change: &row.change,
        })
        .collect();
    if json {
        return output::json(&rows);
    }
    for row in &rows {
        output::line(format!(
            "{:>5}  {}  {}",
            row.version,
            output::utc(row.at_ms),
            row.what
        ));
    }
    Ok(())
}

/// How much a cluster began with.
fn size(beginning: &Beginning) -> String {
    let nodes = counted(beginning.nodes.len(), "node");
    format!("{nodes}, {}", counted(beginning.groups.len(), "group"))
}

/// A change in words.
fn words(change: &Change) -> String {
    match change {
        Change::Found(beginning) => format!(
            "founded: {}, {} partitions, to survive the loss of a {}",
            size(beginning),
            beginning.partitions.get(),
            beginning.goal
        ),
        Change::Restore { beginning, .. } => format!("made of a backup: {}", size(beginning)),
        Change::PutNode { node, entry } => {
            let region = &entry.region;
            let at = match entry.peer_address.as_str() {
                "" => "without an address for peers".to_owned(),
                address => format!("at {address}"),
            };
            match entry.state {
                NodeState::Active => format!("node {node} is in region {region}, {at}"),
                NodeState::Draining => format!("node {node} in region {region} is leaving"),
            }
        }
        Change::RemoveNode(node) => format!("node {node} has left"),
        Change::AddGroup {
            group,
            born,
            partitions,
        } => format!(
            "group {group} came, at home in {}, with {}",
            born.home,
            counted(usize::from(*partitions), "partition")
        ),
        Change::SetGoal(goal) => format!("to survive the loss of a {goal}"),
        Change::Recover { node, lost, groups } => format!(
            "recovered with loss of data on node {node}: {}; lost for good: {}",
            counted(groups.len(), "group"),
            counted(lost.len(), "node"),
        ),
    }
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use rossby_domain::ids::NodeId;
    use rossby_domain::placement::{NodeEntry, RegionName, SurvivalGoal};

    use super::*;

    #[test]
    fn changes_are_told_in_plain_words() {
        let mut entry = NodeEntry {
            region: RegionName::new("eu").unwrap(),
            peer_address: "10.0.0.2:7472".to_owned(),
            client_address: String::new(),
            state: NodeState::Active,
        };
        let put = |entry: &NodeEntry| Change::PutNode {
            node: NodeId(2),
            entry: entry.clone(),
        };
        assert_eq!(
            words(&put(&entry)),
            "node 2 is in region eu, at 10.0.0.2:7472"
        );
        entry.state = NodeState::Draining;
        assert_eq!(words(&put(&entry)), "node 2 in region eu is leaving");
        assert_eq!(words(&Change::RemoveNode(NodeId(2))), "node 2 has left");
        let goal = Change::SetGoal(SurvivalGoal::Region);
        assert_eq!(words(&goal), "to survive the loss of a region");
    }
}
