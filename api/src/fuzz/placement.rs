//! What peers and operators say of placement. See [`crate::fuzz`].

use bytes::Bytes;
use rossby_domain::placement::{Change, ClusterMap};
use rossby_proto::v1;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::message;
use crate::admin;
use crate::peer::{GroupReport, PlannedStep};

/// A message about placement: the first byte says which.
pub fn placement(data: &[u8]) -> bool {
    let Some((kind, bytes)) = data.split_first() else {
        return false;
    };
    let bytes = Bytes::copy_from_slice(bytes);
    match kind % 9 {
        0 => message(&bytes, |request: v1::ChangeMapRequest| {
            json::<Change>(&request.change).map(|change| changes(&change))
        }),
        1 => message(&bytes, |request: v1::TakeStepRequest| {
            json::<PlannedStep>(&request.step)
        }),
        2 => message(&bytes, |response: v1::ReportsResponse| {
            json::<Vec<GroupReport>>(&response.reports)
        }),
        3 => message(&bytes, |request: v1::NewerMapRequest| {
            Ok::<_, ()>(request.known_version)
        }),
        4 => message(&bytes, |response: v1::NewerMapResponse| {
            json::<ClusterMap>(&response.map)
        }),
        5 => message(&bytes, |request: v1::ReportsRequest| {
            Ok::<_, ()>(request.map_version)
        }),
        6 => message(&bytes, admin::token_wanted),
        7 => message(&bytes, |request| admin::group_wanted(&request)),
        _ => message(&bytes, |request: v1::SetSurviveRequest| {
            admin::goal(&request.survive)
        }),
    }
}

/// What is read as JSON is written so that it reads back.
fn json<T: DeserializeOwned + Serialize + PartialEq>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let found: T = serde_json::from_slice(bytes)?;
    let again = serde_json::to_vec(&found).and_then(|bytes| serde_json::from_slice::<T>(&bytes));
    assert!(again.is_ok_and(|again| again == found));
    Ok(found)
}

/// A change makes a map that other nodes take for one, or none; of no map and of the one that it made.
fn changes(change: &Change) {
    let Ok(first) = ClusterMap::default().after(change) else {
        return;
    };
    let written = serde_json::to_vec(&first);
    assert!(written.is_ok_and(|bytes| json::<ClusterMap>(&bytes).is_ok()));
    assert!(first.after(change).is_err());
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use prost::Message;
    use rossby_domain::ids::{GroupId, NodeId, PartitionCount};
    use rossby_domain::placement::{
        Beginning, Membership, NodeEntry, NodeState, RegionName, Report, Step, SurvivalGoal,
        VOTERS_AT_HOME, birth,
    };

    use super::super::replay::{replay, seed, with};
    use super::*;
    use crate::convert;

    #[test]
    fn the_corpus_of_placement_holds() {
        replay("placement", placement);
    }

    fn check(kind: u8, name: &str, message: &impl Message) {
        let bytes = with(kind, &convert::encode(message));
        seed("placement", &format!("seed-{name}"), &bytes, placement);
    }

    fn founding() -> Change {
        let entry = |node: u64| NodeEntry {
            region: RegionName::default(),
            peer_address: format!("10.0.0.{node}:7472"),
            client_address: format!("10.0.0.{node}:7470"),
            state: NodeState::Active,
        };
        let nodes: BTreeMap<_, _> = (1..=3).map(|node| (NodeId(node), entry(node))).collect();
        let goal = SurvivalGoal::Node;
        Change::Found(Beginning {
            goal,
            partitions: PartitionCount::new(8).unwrap(),
            groups: birth(&nodes, goal, VOTERS_AT_HOME).groups,
            nodes,
        })
    }

    fn bytes(what: &impl Serialize) -> Bytes {
        serde_json::to_vec(what).unwrap().into()
    }

    #[test]
    fn real_messages_about_placement_are_accepted() {
        let change = |change: &Change| v1::ChangeMapRequest {
            change: bytes(change),
        };
        check(0, "found", &change(&founding()));
        check(0, "goal", &change(&Change::SetGoal(SurvivalGoal::Region)));
        check(0, "remove", &change(&Change::RemoveNode(NodeId(3))));
        let voters = BTreeSet::from([NodeId(1), NodeId(2), NodeId(3)]);
        let planned = PlannedStep {
            step: Step::TransferLeader { to: NodeId(2) },
            voters: voters.clone(),
        };
        let step = v1::TakeStepRequest {
            group_id: 1,
            step: bytes(&planned),
        };
        check(1, "step", &step);
        let report = GroupReport {
            group: GroupId(1),
            term: 2,
            owned: 7,
            report: Report {
                membership: Membership {
                    leader: Some(NodeId(1)),
                    voters: voters.clone(),
                    learners: BTreeSet::new(),
                    coming: None,
                },
                caught_up: voters,
                leads_for_ms: 9,
                busy: false,
            },
        };
        let reports = v1::ReportsResponse {
            reports: bytes(&vec![report]),
        };
        check(2, "reports", &reports);
        let asked = v1::NewerMapRequest {
            known_version: 3,
            peer_address: "10.0.0.4:7472".to_owned(),
        };
        check(3, "newer-asked", &asked);
        let map = ClusterMap::default().after(&founding()).unwrap();
        let newer = v1::NewerMapResponse { map: bytes(&map) };
        check(4, "newer-map", &newer);
        let asked = v1::ReportsRequest {
            map_version: 3,
            peer_address: "10.0.0.1:7472".to_owned(),
        };
        check(5, "reports-asked", &asked);
        let token = v1::IssueTokenRequest {
            node_id: 4,
            region: "eu".to_owned(),
            new_region: true,
            valid_for_ms: 60_000,
        };
        check(6, "token", &token);
        let group = v1::AddGroupRequest {
            region: "eu".to_owned(),
            partitions: 16,
        };
        check(7, "group", &group);
        let survive = v1::SetSurviveRequest {
            survive: "region".to_owned(),
        };
        check(8, "survive", &survive);
    }
}
