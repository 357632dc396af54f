//! New groups: how an order to add one is carried out, and how one is finished that broke off.
//!
//! ```text
//!   group add ─► the map: a group, its founders, its partitions ─► founders start their replicas ─► the first
//!                of them brings the group to life, last ─► its leader takes the partitions over
//! ```
//!
//! The founders are told once, by the order and not by the map: a node that lost its disk must not found the
//! group again (`replicas.rs`). An order that broke off is given again, and goes on with the group that it
//! left: only while no founder has taken part in the group. So does the reconcile loop, if nobody gives it again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rossby_domain::ids::{GroupId, MapVersion, NodeId, ReplicaId};
use rossby_domain::placement::{Change, ClusterMap, Load, PLACEMENT_GROUP, RegionName, next_group};
use rossby_proto::v1;
use rossby_raft::Member;
use tokio::time::{Instant, sleep};
use tracing::info;

use super::reconcile::Ground;
use crate::admin::{NewGroup, OperatorError};

/// How long a new group may take to lead and to own its partitions.
const BORN_WITHIN: Duration = Duration::from_secs(20);
/// How long this node may take to hear of a map.
const HEARD_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Makes a new group, or goes on with one that an order before left unborn.
///
/// # Errors
/// [`OperatorError`], saying what is to be done.
pub async fn grow(
    ground: &dyn Ground,
    home: RegionName,
    partitions: Option<u16>,
) -> Result<NewGroup, OperatorError> {
    let map = ground.map();
    let (known, silent) = ground.known_groups().await?;
    let group = match left_unborn(&map, &home, &known, &silent)? {
        Some(group) => group,
        None => {
            let (group, change) = next_group(&map, &home, partitions, &load(&known));
            refuse_silent(founders_in(&change), &silent)?;
            let version = ground.change_map(change).await?;
            hear_of(ground, version).await?;
            group
        }
    };
    let map = ground.map();
    let entry = map.groups().get(&group).ok_or_else(|| missing(group))?;
    bring_to_life(ground, group, &map).await?;
    let partitions = map.partitions_of(group).count();
    wait_born(ground, group, partitions).await?;
    info!(%group, %home, partitions, "a new group of boxes serves");
    Ok(NewGroup {
        group,
        founders: entry.founders.values().copied().collect(),
        partitions: u16::try_from(partitions).unwrap_or(u16::MAX),
    })
}

/// Waits until this node knows a version of the map.
///
/// # Errors
/// [`OperatorError`] if it does not hear of it in time.
pub async fn hear_of(ground: &dyn Ground, version: MapVersion) -> Result<(), OperatorError> {
    let deadline = Instant::now() + HEARD_WITHIN;
    while ground.map().version() < version {
        if Instant::now() > deadline {
            return Err(OperatorError::Unknown(
                "the map has changed, and this node does not hear of it".to_owned(),
            ));
        }
        sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// Has the founders of a group start their replicas; the first of them last, which brings the group to life.
///
/// # Errors
/// [`OperatorError`]; it may be done again while no founder has taken part in the group.
pub async fn bring_to_life(
    ground: &dyn Ground,
    group: GroupId,
    map: &Arc<ClusterMap>,
) -> Result<(), OperatorError> {
    let entry = map.groups().get(&group).ok_or_else(|| missing(group))?;
    let first = entry.founders.keys().next();
    for (replica, node) in entry.founders.iter().rev() {
        let initialise = first == Some(replica);
        ground
            .found_replica(group, map, (*replica, *node), initialise)
            .await?;
    }
    Ok(())
}

/// Waits until a group leads and owns as many partitions.
async fn wait_born(
    ground: &dyn Ground,
    group: GroupId,
    partitions: usize,
) -> Result<(), OperatorError> {
    let deadline = Instant::now() + BORN_WITHIN;
    let map = ground.map();
    loop {
        let told = ground.ask_all(&map).await;
        let mut reports = told.into_values().flatten().flatten();
        let owns = |owned: u16| usize::from(owned) >= partitions;
        if reports.any(|report| report.group == group && owns(report.owned)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(OperatorError::Unknown(format!(
                "group {group} is there, and does not serve yet: `rossby placement show` says what of it \
                 is known"
            )));
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Of what was told of each group, what its leader says, or else the latest.
#[must_use]
pub fn best(told: Vec<v1::GroupStatus>) -> Vec<v1::KnownGroup> {
    let rank = |status: &v1::GroupStatus| {
        let leads = status.role == "leader";
        (leads, status.term, status.applied_index)
    };
    let mut groups: BTreeMap<u32, v1::GroupStatus> = BTreeMap::new();
    for status in told {
        match groups.get(&status.group_id) {
            Some(known) if rank(known) >= rank(&status) => {}
            _ => {
                groups.insert(status.group_id, status);
            }
        }
    }
    let known = |status: v1::GroupStatus| v1::KnownGroup {
        from_leader: status.role == "leader",
        status: Some(status),
    };
    groups.into_values().map(known).collect()
}

/// The groups that one node holds a replica of that has never heard of a member, while no other has heard of any.
pub(super) fn unborn(known: Vec<v1::KnownGroup>) -> BTreeSet<GroupId> {
    let statuses = known.into_iter().filter_map(|known| known.status);
    statuses
        .filter(|status| status.members.is_empty())
        .map(|status| GroupId(status.group_id))
        .collect()
}

/// The first members of a group by the map.
#[must_use]
pub fn first_members(map: &ClusterMap, group: GroupId) -> Option<BTreeMap<ReplicaId, Member>> {
    let founders = &map.groups().get(&group)?.founders;
    let member = |(replica, node): (&ReplicaId, &NodeId)| {
        let entry = map.nodes().get(node)?;
        let member = Member {
            node: *node,
            peer_address: entry.peer_address.clone(),
            client_address: entry.client_address.clone(),
        };
        Some((*replica, member))
    };
    founders.iter().map(member).collect()
}

/// A group at home in a region that an order before put in the map, and left there. What cannot be told from a group
/// that lives where nobody answers is left alone.
fn left_unborn(
    map: &ClusterMap,
    home: &RegionName,
    known: &[v1::KnownGroup],
    silent: &[NodeId],
) -> Result<Option<GroupId>, OperatorError> {
    let lives = |group: &GroupId| {
        let mut statuses = known.iter().filter_map(|known| known.status.as_ref());
        statuses.any(|status| status.group_id == group.0 && !status.members.is_empty())
    };
    let mut groups = map.groups().iter();
    let unborn = groups.find(|(group, entry)| entry.home == *home && !lives(group));
    match unborn {
        Some((group, _)) if !silent.is_empty() => Err(untold(*group, silent)),
        unborn => Ok(unborn.map(|(group, _)| *group)),
    }
}

/// How many replicas of groups of boxes are on each node.
fn load(known: &[v1::KnownGroup]) -> Load {
    let statuses = known.iter().filter_map(|known| known.status.as_ref());
    let of_boxes = statuses.filter(|status| status.group_id != PLACEMENT_GROUP.0);
    let mut load = Load::new();
    for member in of_boxes.flat_map(|status| &status.members) {
        *load.entry(NodeId(member.node_id)).or_default() += 1;
    }
    load
}

fn founders_in(change: &Change) -> impl Iterator<Item = &NodeId> {
    let born = match change {
        Change::AddGroup { born, .. } => Some(born),
        _ => None,
    };
    born.into_iter().flat_map(|born| born.founders.values())
}

/// A group is not founded on nodes that do not answer.
fn refuse_silent<'a>(
    founders: impl Iterator<Item = &'a NodeId>,
    silent: &[NodeId],
) -> Result<(), OperatorError> {
    let mut founders = founders;
    match founders.find(|node| silent.contains(node)) {
        None => Ok(()),
        Some(node) => Err(OperatorError::Unavailable(format!(
            "node {node}, which is to hold a first replica, does not answer"
        ))),
    }
}

fn untold(group: GroupId, silent: &[NodeId]) -> OperatorError {
    let nodes: Vec<String> = silent.iter().map(|node| format!("node {node}")).collect();
    OperatorError::Unavailable(format!(
        "group {group} in that region is not known to have come to life, and no answer comes from {}, where it may \
         live",
        nodes.join(" and ")
    ))
}

fn missing(group: GroupId) -> OperatorError {
    OperatorError::Unavailable(format!("group {group} is not in the map"))
}

#[cfg(test)]
mod tests {
    use rossby_domain::ids::PartitionCount;
    use rossby_domain::placement::{
        Beginning, NodeEntry, NodeState, SurvivalGoal, VOTERS_AT_HOME, birth,
    };

    use super::*;

    fn map(regions: &[&str]) -> ClusterMap {
        let entry = |(id, region): (u64, &&str)| {
            let entry = NodeEntry {
                region: RegionName::new(region).unwrap(),
                peer_address: format!("10.0.0.{id}:7472"),
                client_address: format!("10.0.0.{id}:7470"),
                state: NodeState::Active,
            };
            (NodeId(id), entry)
        };
        let nodes: BTreeMap<_, _> = (1..).zip(regions).map(entry).collect();
        let goal = SurvivalGoal::Region;
        let change = Change::Found(Beginning {
            goal,
            partitions: PartitionCount::DEFAULT,
            groups: birth(&nodes, goal, VOTERS_AT_HOME).groups,
            nodes,
        });
        ClusterMap::default().after(&change).unwrap()
    }

    fn known(group: u32, nodes: &[u64]) -> v1::KnownGroup {
        let member = |node: &u64| v1::Member {
            node_id: *node,
            ..v1::Member::default()
        };
        v1::KnownGroup {
            from_leader: true,
            status: Some(v1::GroupStatus {
                group_id: group,
                members: nodes.iter().map(member).collect(),
                ..v1::GroupStatus::default()
            }),
        }
    }

    #[test]
    fn a_new_group_is_founded_at_home_first_and_gets_half_of_what_is_spare() {
        let map = map(&["asia", "asia", "eu", "us"]);
        let home = RegionName::new("eu").unwrap();
        // Node 1 holds more than node 2 does.
        let known = [known(0, &[1, 2, 3]), known(1, &[1, 2]), known(2, &[1])];
        let (group, change) = next_group(&map, &home, None, &load(&known));
        assert_eq!(group, GroupId(4));
        let Change::AddGroup {
            ref born,
            partitions,
            ..
        } = change
        else {
            panic!("{change:?}");
        };
        let nodes: Vec<u64> = born.founders.values().map(|node| node.0).collect();
        assert_eq!((nodes, partitions), (vec![3, 2, 4], 16));
        let next = map.after(&change).unwrap();
        assert_eq!(next.spare().count(), 16);
        assert!(refuse_silent(founders_in(&change), &[NodeId(1)]).is_ok());
        assert!(refuse_silent(founders_in(&change), &[NodeId(4)]).is_err());
    }

    #[test]
    fn a_group_of_which_nobody_knows_a_member_is_gone_on_with_and_no_other() {
        let map = map(&["asia", "eu", "us"]);
        let home = RegionName::new("eu").unwrap();
        let lives = [known(1, &[1]), known(2, &[2]), known(3, &[3])];
        let silent = [NodeId(3)];
        assert_eq!(left_unborn(&map, &home, &lives, &silent), Ok(None));
        let waits = [known(1, &[]), known(2, &[]), known(3, &[3])];
        for known in [&waits[..], &[]] {
            let unborn = left_unborn(&map, &home, known, &[]);
            assert_eq!(unborn, Ok(Some(GroupId(2))));
            // It may have moved away from its founders, to whoever does not answer.
            let told = left_unborn(&map, &home, known, &silent);
            assert!(
                matches!(told, Err(OperatorError::Unavailable(_))),
                "{told:?}"
            );
        }
        let expected = [GroupId(1), GroupId(2)].into();
        assert_eq!(unborn(waits.into()), expected);
    }
}
