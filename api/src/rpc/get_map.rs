//! GetMap: which node leads which boxes, as this node knows it. Nobody needs to prove who asks, and no other
//! node is asked: it is a help for clients, which any of their calls may correct.

use std::collections::BTreeSet;

use bytes::Bytes;
use rossby_domain::ids::{GroupId, NodeId};
use rossby_domain::placement::ClusterMap;
use rossby_proto::v1;
use rossby_raft::Leadership;

use crate::call::Call;
use crate::convert;
use crate::mailbox::{Failure, MailboxService};
use crate::router::Router;

/// Nodes that are named for a group. No group has more voters.
const MAX_GROUP_NODES: usize = 9;

pub(crate) fn get_map(service: &MailboxService, call: &Call) -> Result<Bytes, Failure> {
    let request: v1::GetMapRequest = convert::decode(&call.message)?;
    let router = &service.config.router;
    let response = match router.directory().map() {
        Some(map) if map.version().0 > request.known_version => told(&map, router),
        Some(map) => v1::GetMapResponse {
            version: map.version().0,
            ..Default::default()
        },
        None => v1::GetMapResponse::default(),
    };
    Ok(convert::encode(&response))
}

fn told(map: &ClusterMap, router: &Router) -> v1::GetMapResponse {
    let reachable = map.nodes().iter();
    let reachable = reachable.filter(|(_, entry)| !entry.client_address.is_empty());
    let nodes = reachable.map(|(node, entry)| v1::MapNode {
        node_id: node.0,
        region: entry.region.to_string(),
        client_address: entry.client_address.clone(),
    });
    let nodes: Vec<_> = nodes.collect();
    let known: BTreeSet<u64> = nodes.iter().map(|node| node.node_id).collect();
    let groups = map.groups().iter().map(|(group, entry)| {
        let leaders = likely_leaders(router, *group).into_iter();
        let leaders = leaders.map(|node| node.0).filter(|id| known.contains(id));
        v1::MapGroup {
            group_id: group.0,
            home_region: entry.home.to_string(),
            node_ids: leaders.take(MAX_GROUP_NODES).collect(),
        }
    });
    v1::GetMapResponse {
        version: map.version().0,
        groups: groups.collect(),
        partitions: ranges(map),
        nodes,
    }
}

/// Who may lead a group, the likeliest first, none twice.
fn likely_leaders(router: &Router, group: GroupId) -> Vec<NodeId> {
    let own = router.node();
    let (first, here) = match router.directory().replica(group) {
        Some(replica) => match replica.leadership() {
            Leadership::Here { .. } => (Some(own), Some(own)),
            Leadership::Elsewhere(leader) => (Some(leader.node), Some(own)),
            Leadership::Unknown => (None, Some(own)),
        },
        None => (router.likely_leader(group).map(|member| member.node), None),
    };
    let others = router.directory().nodes(group).into_iter();
    let all = first.into_iter().chain(here);
    let mut named = BTreeSet::new();
    all.chain(others.map(|member| member.node))
        .filter(|node| named.insert(*node))
        .collect()
}

/// The partitions that have an owner, neighbours of one owner together.
fn ranges(map: &ClusterMap) -> Vec<v1::MapRange> {
    let mut ranges: Vec<v1::MapRange> = Vec::new();
    for (partition, owner) in map.owners() {
        let number = u32::from(partition.number());
        match ranges.last_mut() {
            Some(range) if range.group_id == owner.group.0 && range.last + 1 == number => {
                range.last = number;
            }
            _ => ranges.push(v1::MapRange {
                first: number,
                last: number,
                group_id: owner.group.0,
            }),
        }
    }
    ranges
}
