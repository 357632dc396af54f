//! What a recovery says: what is left, what is in doubt, what is done, and what comes next.

use std::collections::{BTreeMap, BTreeSet};

use rossby_domain::ids::{GroupId, NodeId};
use rossby_domain::placement::{Change, ClusterMap, PLACEMENT_GROUP};
use rossby_storage::LogPosition;
use serde::Serialize;

use super::intent::Intent;
use super::judge::Verdict;
use super::known::{Left, Report};
use crate::config::Config;
use crate::exit::Failure;
use crate::output;

/// What is known before anything is done.
pub struct Told<'a> {
    /// What is left here.
    pub report: &'a Report,
    /// The nodes that are gone for good.
    pub lost: &'a BTreeSet<NodeId>,
    /// What may be done with each group.
    pub judged: &'a BTreeMap<GroupId, Verdict>,
    /// The map that this node knows.
    pub map: &'a ClusterMap,
}

/// The same for programs: the report, as it is read elsewhere, and what may be done.
#[derive(Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    report: &'a Report,
    map_version: u64,
    lost: &'a BTreeSet<NodeId>,
    verdicts: BTreeMap<u32, &'static str>,
}

#[derive(Serialize)]
struct Done {
    done: bool,
    node: u64,
    recovered: Vec<DoneGroup>,
    lost: Vec<u64>,
    set_aside: String,
}

#[derive(Serialize)]
struct DoneGroup {
    group: u32,
    successor: u32,
    replica: u64,
}

impl Told<'_> {
    /// Prints it.
    pub fn print(&self, json: bool) -> Result<(), Failure> {
        if json {
            let words = |(group, verdict): (&GroupId, &Verdict)| (group.0, word(verdict));
            return output::json(&Json {
                report: self.report,
                map_version: self.map.version().0,
                lost: self.lost,
                verdicts: self.judged.iter().map(words).collect(),
            });
        }
        output::line(format!(
            "Node {} of cluster {} is stopped, and has left:",
            self.report.node, self.report.cluster
        ));
        for left in &self.report.groups {
            if let Some(verdict) = self.judged.get(&left.group) {
                self.print_group(left, verdict);
            }
        }
        Ok(())
    }

    fn print_group(&self, left: &Left, verdict: &Verdict) {
        let group = left.group;
        let of: BTreeSet<NodeId> = left.members.iter().map(|member| member.node).collect();
        output::line(format!(
            "  group {group}   replica {} of {}: its log ends at {}, and is known to be committed up to {}",
            left.replica,
            nodes(&of),
            entry(left.last),
            entry(left.committed),
        ));
        let say = |text: String| output::line(format!("            {text}"));
        match verdict {
            Verdict::HasQuorum(unheard) if unheard.is_empty() => {
                say("it has a majority without the lost nodes: nothing is to be done".to_owned());
            }
            Verdict::HasQuorum(unheard) => say(format!(
                "it has a majority without the lost nodes, as far as is known without {}: nothing is to be done if it \
                 finds a leader once they run",
                nodes(unheard)
            )),
            Verdict::Recovered(successor) => say(format!(
                "it was recovered before, as group {} with replica {}: this replica is void",
                successor.group, successor.replica
            )),
            Verdict::NoMember => say("this replica is no member any more".to_owned()),
            Verdict::Elsewhere(node) => {
                say(format!(
                    "the replica on node {node} reaches further: recover it there"
                ));
            }
            Verdict::Unheard(unheard) => {
                say(format!("not known yet: what {} has", nodes(unheard)));
            }
            Verdict::Recoverable => {
                let number = self.map.number_after(group);
                say(match group {
                    PLACEMENT_GROUP => "goes on from this replica alone".to_owned(),
                    _ => format!("goes on from this replica alone, as group {number} or later"),
                });
                say(match left.doubtful() {
                    0 => "in doubt: nothing that is here".to_owned(),
                    1 => {
                        "in doubt: the last entry here may never have been acknowledged; it is kept"
                            .to_owned()
                    }
                    count => format!(
                        "in doubt: the last {count} entries here may never have been acknowledged; they are kept"
                    ),
                });
                say(
                    "lost: whatever only the lost nodes have after its end, acknowledged or not; nobody can tell how \
                     much"
                        .to_owned(),
                );
            }
        }
    }
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::HasQuorum(unheard) if unheard.is_empty() => "has_quorum",
        Verdict::HasQuorum(_) => "may_have_quorum",
        Verdict::Recovered(_) => "recovered",
        Verdict::NoMember => "no_member",
        Verdict::Elsewhere(_) => "elsewhere",
        Verdict::Unheard(_) => "unheard",
        Verdict::Recoverable => "recoverable",
    }
}

fn entry(at: Option<LogPosition>) -> String {
    at.map_or("no entry".to_owned(), |at| {
        format!("entry {} of term {}", at.index, at.term)
    })
}

/// Nodes in words.
pub fn nodes(nodes: &BTreeSet<NodeId>) -> String {
    let listed: Vec<_> = nodes.iter().map(ToString::to_string).collect();
    match listed.len() {
        1 => format!("node {}", listed.join("")),
        _ => format!("nodes {}", listed.join(", ")),
    }
}

/// Says what was done, and what comes next.
pub fn done(json: bool, config: &Config, intent: &Intent) -> Result<(), Failure> {
    let (node, lost) = match &intent.change {
        Change::Recover { node, lost, .. } => (*node, lost.clone()),
        _ => (NodeId(config.node), BTreeSet::new()),
    };
    let aside = intent.aside(&config.data).display().to_string();
    if json {
        let group = |step: &super::intent::Move| DoneGroup {
            group: step.old.group.0,
            successor: step.new.group.0,
            replica: step.new.replica.0,
        };
        return output::json(&Done {
            done: true,
            node: node.0,
            recovered: intent.moves.iter().map(group).collect(),
            lost: lost.iter().map(|node| node.0).collect(),
            set_aside: aside,
        });
    }
    for step in &intent.moves {
        output::line(match step.old.group {
            PLACEMENT_GROUP => format!("The placement group goes on from node {node} alone."),
            old => format!(
                "Group {old} goes on as group {}, from node {node} alone.",
                step.new.group
            ),
        });
    }
    output::line("Next:");
    output::line(format!("  1. Start node {node} as before."));
    let mut next = 2;
    let mut step = |text: String| {
        output::line(format!("  {next}. {text}"));
        next += 1;
    };
    if intent.map.is_none() {
        step(
            "It tells the placement group as soon as that has a majority; people are served from then on \
             (`rossby cluster groups`)."
                .to_owned(),
        );
    }
    step("Start the other nodes that are left as before, if there are any. They follow by themselves.".to_owned());
    step(format!(
        "Never start {} with old data, should any be left: have new nodes join (`rossby help node token`). The cluster then brings its groups back to what they are to survive.",
        nodes(&lost)
    ));
    step(format!(
        "Once all is well, {aside} may go: the checkpoints of before."
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use rossby_domain::ids::{ClusterId, ReplicaId};
    use rossby_domain::placement::Successor;

    use super::*;

    fn said(report: &Report) -> String {
        let said = output::to_json(&Json {
            report,
            map_version: 5,
            lost: &BTreeSet::from([NodeId(2)]),
            verdicts: BTreeMap::from([(1, word(&Verdict::Recoverable))]),
        });
        said.unwrap()
    }

    #[test]
    fn what_a_node_says_another_one_reads() {
        let report = Report {
            cluster: ClusterId::from_random([7; 16]),
            node: NodeId(4),
            groups: vec![Left {
                group: GroupId(1),
                replica: ReplicaId(2),
                last: Some(LogPosition { term: 3, index: 90 }),
                committed: Some(LogPosition { term: 3, index: 88 }),
                members: vec![super::super::known::LeftMember {
                    replica: ReplicaId(2),
                    node: NodeId(4),
                    peer_address: "10.0.0.4:7472".to_owned(),
                    client_address: String::new(),
                }],
                members_before: Vec::new(),
                electorates: vec![BTreeSet::from([ReplicaId(2)])],
            }],
            map: ClusterMap::default(),
            recovered: BTreeMap::from([(
                GroupId(7),
                Successor {
                    group: GroupId(1031),
                    replica: ReplicaId(9),
                },
            )]),
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), said(&report)).unwrap();
        assert_eq!(Report::read(file.path()).unwrap(), report);
        assert_eq!(report.groups[0].doubtful(), 2);
        // What can't be is refused: a voter who is nobody, a group twice.
        let mut wrong = report.clone();
        wrong.groups[0].electorates[0].insert(ReplicaId(3));
        let mut twice = report.clone();
        twice.groups.extend(report.groups.clone());
        for wrong in [wrong, twice] {
            std::fs::write(file.path(), said(&wrong)).unwrap();
            assert!(Report::read(file.path()).is_err());
        }
        std::fs::write(file.path(), "{}").unwrap();
        assert!(Report::read(file.path()).is_err());
    }
}
