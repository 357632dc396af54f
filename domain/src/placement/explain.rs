//! What survives the loss of a region or of a node.
//!
//! For a group that can be told from who votes: it goes on if a majority of its voters is left, and
//! what it acknowledged is left if no majority of them is gone, since each write is on a majority.
//! Nodes that are down are not lost: what they hold comes back with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::map::{ClusterMap, SurvivalGoal};
use super::membership::{Membership, majority};
use super::{PLACEMENT_GROUP, RegionName};
use crate::ids::{GroupId, NodeId};

/// What might be lost.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lost {
    /// Nothing: things as they are.
    Nothing,
    /// All nodes of a region.
    Region(RegionName),
    /// A node.
    Node(NodeId),
}

/// What a loss does to a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Harm {
    /// How many partitions it owns.
    pub partitions: u16,
    /// Whether it has no quorum then: its boxes can be neither read nor written.
    pub unavailable: bool,
    /// What becomes of writes that it acknowledged.
    pub writes: Writes,
}

/// What becomes of acknowledged writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Writes {
    /// All are left.
    Safe,
    /// The newest may have been only on what is lost.
    NewestAtRisk,
    /// No replica is left.
    AllLost,
}

/// What a loss does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Consequence {
    /// What is lost.
    pub lost: Lost,
    /// The groups that suffer: those that have no quorum then, or may lose writes.
    pub groups: BTreeMap<GroupId, Harm>,
    /// Partitions whose boxes are unavailable then.
    pub partitions_unavailable: u32,
    /// How many of them are unavailable already.
    pub partitions_unavailable_already: u32,
    /// Partitions of which acknowledged writes may be lost.
    pub partitions_at_risk: u32,
    /// Partitions of groups that nothing is known of.
    pub partitions_unknown: u32,
    /// The same in one sentence.
    pub sentence: String,
}

/// What survives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The goal of the cluster.
    pub goal: SurvivalGoal,
    /// Whether it holds now: whatever one region or node is lost, as the goal says, every group goes on
    /// and no write is lost. `None` if all known groups do and nothing is known of some other.
    pub holds: Option<bool>,
    /// Things as they are.
    pub now: Consequence,
    /// The loss of each region.
    pub regions: Vec<Consequence>,
    /// The loss of each node.
    pub nodes: Vec<Consequence>,
}

/// What survives, by the memberships that the groups' leaders reported, with these nodes down.
#[must_use]
pub fn explain(
    map: &ClusterMap,
    memberships: &BTreeMap<GroupId, Membership>,
    down: &BTreeSet<NodeId>,
) -> Explanation {
    let cluster = Cluster {
        map,
        memberships,
        down,
    };
    let regions = map.regions().into_iter().cloned().map(Lost::Region);
    let regions: Vec<_> = regions.map(|lost| cluster.without(lost)).collect();
    let nodes = map.nodes().keys().copied().map(Lost::Node);
    let nodes: Vec<_> = nodes.map(|lost| cluster.without(lost)).collect();
    let losses = match map.goal() {
        SurvivalGoal::Region => &regions,
        SurvivalGoal::Node => &nodes,
    };
    let is_known = cluster
        .groups()
        .all(|group| memberships.contains_key(&group));
    let holds = losses.iter().all(|loss| loss.groups.is_empty());
    Explanation {
        goal: map.goal(),
        holds: (is_known || !holds).then_some(holds),
        now: cluster.without(Lost::Nothing),
        regions,
        nodes,
    }
}

struct Cluster<'a> {
    map: &'a ClusterMap,
    memberships: &'a BTreeMap<GroupId, Membership>,
    down: &'a BTreeSet<NodeId>,
}

impl Cluster<'_> {
    fn groups(&self) -> impl Iterator<Item = GroupId> {
        let data = self.map.groups().keys().copied();
        std::iter::once(PLACEMENT_GROUP).chain(data)
    }

    fn is_lost(&self, node: NodeId, lost: &Lost) -> bool {
        match lost {
            Lost::Nothing => false,
            Lost::Node(gone) => node == *gone,
            Lost::Region(region) => {
                let entry = self.map.nodes().get(&node);
                entry.is_some_and(|entry| entry.region == *region)
            }
        }
    }

    fn is_available(&self, membership: &Membership, lost: &Lost) -> bool {
        membership.has_quorum(|node| !self.down.contains(&node) && !self.is_lost(node, lost))
    }

    fn writes(&self, membership: &Membership, lost: &Lost) -> Writes {
        // While a change of voters is half-way, what was written before it may be on a majority of the
        // old voters only.
        let is_commit_quorum = |voters: &BTreeSet<NodeId>| {
            let gone = voters.iter().filter(|node| self.is_lost(**node, lost));
            gone.count() >= majority(voters.len())
        };
        if !membership.electorates().any(is_commit_quorum) {
            Writes::Safe
        } else if membership.replicas().all(|node| self.is_lost(node, lost)) {
            Writes::AllLost
        } else {
            Writes::NewestAtRisk
        }
    }

    fn without(&self, lost: Lost) -> Consequence {
        let mut consequence = Consequence {
            lost,
            groups: BTreeMap::new(),
            partitions_unavailable: 0,
            partitions_unavailable_already: 0,
            partitions_at_risk: 0,
            partitions_unknown: 0,
            sentence: String::new(),
        };
        for group in self.groups() {
            // There are at most 4096 partitions.
            let partitions = self.map.partitions_of(group).count();
            let partitions = u16::try_from(partitions).unwrap_or(u16::MAX);
            let Some(membership) = self.memberships.get(&group) else {
                consequence.partitions_unknown += u32::from(partitions);
                continue;
            };
            let harm = Harm {
                partitions,
                unavailable: !self.is_available(membership, &consequence.lost),
                writes: self.writes(membership, &consequence.lost),
            };
            if harm.unavailable {
                consequence.partitions_unavailable += u32::from(partitions);
            }
            if !self.is_available(membership, &Lost::Nothing) {
                consequence.partitions_unavailable_already += u32::from(partitions);
            }
            if harm.writes != Writes::Safe {
                consequence.partitions_at_risk += u32::from(partitions);
            }
            if harm.unavailable || harm.writes != Writes::Safe {
                consequence.groups.insert(group, harm);
            }
        }
        consequence.sentence = Sentence {
            of: &consequence,
            placement_known: self.memberships.contains_key(&PLACEMENT_GROUP),
        }
        .to_string();
        consequence
    }
}

/// A consequence in words.
struct Sentence<'a> {
    of: &'a Consequence,
    placement_known: bool,
}

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = self.of;
        let is_loss = of.lost != Lost::Nothing;
        match &of.lost {
            Lost::Nothing => f.write_str("now: ")?,
            Lost::Region(region) => write!(f, "if {region} is lost now: ")?,
            Lost::Node(node) => write!(f, "if node {node} is lost now: ")?,
        }
        write!(f, "{} unavailable", partitions(of.partitions_unavailable))?;
        let already = of.partitions_unavailable_already;
        if is_loss && already > 0 {
            write!(f, " ({already} of them already)")?;
        }
        if is_loss {
            let worst = of.groups.values().map(|harm| harm.writes).max();
            let of_these = partitions(of.partitions_at_risk);
            match worst.unwrap_or(Writes::Safe) {
                Writes::Safe => f.write_str(", 0 acknowledged envelopes lost")?,
                Writes::NewestAtRisk => {
                    write!(
                        f,
                        ", the newest acknowledged envelopes of {of_these} may be lost"
                    )?;
                }
                Writes::AllLost => {
                    write!(
                        f,
                        ", acknowledged envelopes of {of_these} lost, not only the newest"
                    )?;
                }
            }
        }
        if of.groups.contains_key(&PLACEMENT_GROUP) {
            let harm = of.groups.get(&PLACEMENT_GROUP);
            match harm.map(|harm| harm.writes) {
                Some(Writes::Safe) => f.write_str("; the cluster map can't be changed")?,
                _ => f.write_str(
                    "; the cluster map can't be changed, and its last changes may be lost",
                )?,
            }
        }
        if of.partitions_unknown > 0 || !self.placement_known {
            let unknown = partitions(of.partitions_unknown);
            let too = if self.placement_known {
                ""
            } else {
                " and of the placement group"
            };
            write!(f, "; nothing is known of {unknown}{too}")?;
        }
        Ok(())
    }
}

fn partitions(count: u32) -> String {
    match count {
        1 => "1 partition".to_owned(),
        count => format!("{count} partitions"),
    }
}
