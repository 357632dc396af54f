//! Work for other groups over the connections: the production side of the router's port.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rossby_domain::ids::{GroupId, NodeId};
use rossby_domain::time::Timestamp;
use rossby_proto::v1;
use rossby_raft::Member;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::Connections;
use super::{connect_by, left_for_peer_ms, refused_by_peer};
use crate::router::{Execute, ExecuteError, Executed, Peers, WORK_BYTES_MAX};

/// Work is given up after this long even if its asker would wait longer.
const DEADLINE_MAX: Duration = Duration::from_secs(60);
/// The most bytes of an address: a host name has 253, and a port 5.
const ADDRESS_BYTES_MAX: usize = 260;

/// Has work done by peers, as `Peer.Execute` calls.
#[derive(Debug, Clone)]
pub struct PeerExecutors {
    connections: Arc<Connections>,
}

impl PeerExecutors {
    /// Over these connections.
    #[must_use]
    pub fn new(connections: Arc<Connections>) -> Self {
        Self { connections }
    }
}

#[async_trait]
impl Peers for PeerExecutors {
    async fn execute(
        &self,
        member: &Member,
        request: Execute,
        deadline: Instant,
    ) -> Result<Executed, ExecuteError> {
        let unreachable = |why: String| ExecuteError::Unreachable(why);
        let connecting = self.connections.get(member.node, &member.peer_address);
        let connection = timeout_at(connect_by(deadline), connecting)
            .await
            .map_err(|_| unreachable("no connection in time".to_owned()))?
            .map_err(|error| unreachable(error.to_string()))?;
        let mut client = connection.client();
        let executing = client.execute(to_wire(request, deadline));
        match timeout_at(deadline, executing).await {
            Ok(Ok(response)) => executed(response.into_inner()),
            // Its own server refused to look at it.
            Ok(Err(status)) if refused_by_peer(&status) => Err(unreachable(status.to_string())),
            Ok(Err(status)) => Err(ExecuteError::Lost(status.to_string())),
            Err(_) => Err(ExecuteError::Lost("no answer in time".to_owned())),
        }
    }
}

fn to_wire(request: Execute, deadline: Instant) -> v1::ExecuteRequest {
    v1::ExecuteRequest {
        group_id: request.group.0,
        work: request.work,
        deadline_ms: left_for_peer_ms(deadline),
    }
}

/// Work that a peer sent, and when it gives up waiting.
pub(super) fn from_wire(request: v1::ExecuteRequest) -> Result<(Execute, Instant), Status> {
    if request.work.len() > WORK_BYTES_MAX {
        return Err(Status::invalid_argument("work of too many bytes"));
    }
    let patience = Duration::from_millis(request.deadline_ms).min(DEADLINE_MAX);
    let work = Execute {
        group: GroupId(request.group_id),
        work: request.work,
    };
    Ok((work, Instant::now() + patience))
}

/// What a peer is told.
pub(super) fn response(result: Result<Executed, ExecuteError>) -> v1::ExecuteResponse {
    use v1::ExecuteRefusal as Wire;
    let mut leader = None;
    let refusal = match result {
        Ok(Executed { done, time }) => {
            return v1::ExecuteResponse {
                done,
                service_time_ms: time.as_millis(),
                ..Default::default()
            };
        }
        Err(ExecuteError::NotLeading { leader: named }) => {
            leader = named.as_ref().map(likely_leader);
            Wire::NotLeading
        }
        Err(ExecuteError::NoQuorum) => Wire::NoQuorum,
        Err(ExecuteError::ClockUnsafe) => Wire::ClockUnsafe,
        Err(ExecuteError::Overloaded) => Wire::Overloaded,
        Err(ExecuteError::DiskFull) => Wire::DiskFull,
        Err(ExecuteError::NotOwner) => Wire::NotOwner,
        Err(ExecuteError::Malformed) => Wire::Malformed,
        Err(
            ExecuteError::OutcomeUnknown | ExecuteError::Lost(_) | ExecuteError::Unreachable(_),
        ) => Wire::OutcomeUnknown,
    };
    v1::ExecuteResponse {
        refusal: refusal.into(),
        leader,
        ..Default::default()
    }
}

/// What a peer did, or why not.
pub(crate) fn executed(response: v1::ExecuteResponse) -> Result<Executed, ExecuteError> {
    use v1::ExecuteRefusal as Wire;
    Err(match response.refusal() {
        Wire::Unspecified if response.refusal != 0 => {
            ExecuteError::Lost("a refusal that this build does not know".to_owned())
        }
        Wire::Unspecified => {
            return Ok(Executed {
                done: response.done,
                time: Timestamp::from_millis(response.service_time_ms),
            });
        }
        Wire::NotLeading => ExecuteError::NotLeading {
            leader: response.leader.and_then(member),
        },
        Wire::NoQuorum => ExecuteError::NoQuorum,
        Wire::ClockUnsafe => ExecuteError::ClockUnsafe,
        Wire::Overloaded => ExecuteError::Overloaded,
        Wire::DiskFull => ExecuteError::DiskFull,
        Wire::OutcomeUnknown => ExecuteError::OutcomeUnknown,
        Wire::NotOwner => ExecuteError::NotOwner,
        Wire::Malformed => ExecuteError::Malformed,
    })
}

/// A member that may lead, as a peer is told.
pub(super) fn likely_leader(member: &Member) -> v1::LikelyLeader {
    v1::LikelyLeader {
        node_id: member.node.0,
        peer_address: member.peer_address.clone(),
        client_address: member.client_address.clone(),
    }
}

/// A member that a peer named; `None` if its addresses can be none.
pub(crate) fn member(named: v1::LikelyLeader) -> Option<Member> {
    let is_address = |text: &str| text.len() <= ADDRESS_BYTES_MAX;
    (is_address(&named.peer_address) && is_address(&named.client_address)).then_some(Member {
        node: NodeId(named.node_id),
        peer_address: named.peer_address,
        client_address: named.client_address,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn named(node: u64) -> Member {
        Member {
            node: NodeId(node),
            peer_address: format!("node-{node}:1"),
            client_address: format!("node-{node}:2"),
        }
    }

    #[test]
    fn every_refusal_keeps_its_meaning_on_the_wire() {
        let refusals = [
            ExecuteError::NotLeading { leader: None },
            ExecuteError::NotLeading {
                leader: Some(named(3)),
            },
            ExecuteError::NoQuorum,
            ExecuteError::ClockUnsafe,
            ExecuteError::Overloaded,
            ExecuteError::DiskFull,
            ExecuteError::OutcomeUnknown,
            ExecuteError::NotOwner,
            ExecuteError::Malformed,
        ];
        for refusal in refusals {
            let told = executed(response(Err(refusal.clone())));
            assert_eq!(told.unwrap_err(), refusal);
        }
    }

    #[test]
    fn a_refusal_of_a_newer_build_is_not_taken_for_success() {
        let response = v1::ExecuteResponse {
            refusal: 99,
            ..Default::default()
        };
        assert!(matches!(executed(response), Err(ExecuteError::Lost(_))));
    }

    #[test]
    fn what_was_done_comes_with_the_groups_time() {
        let done = Executed {
            done: Bytes::from_static(b"done"),
            time: Timestamp::from_millis(7),
        };
        let told = executed(response(Ok(done))).unwrap();
        assert_eq!((&told.done[..], told.time.as_millis()), (&b"done"[..], 7));
    }

    #[test]
    fn a_leader_with_an_endless_address_is_none() {
        let mut wire = likely_leader(&named(3));
        assert_eq!(member(wire.clone()), Some(named(3)));
        wire.peer_address = "x".repeat(ADDRESS_BYTES_MAX + 1);
        assert_eq!(member(wire), None);
    }

    #[test]
    fn a_peer_has_less_time_than_its_asker() {
        let (asked, left) = (Instant::now(), Duration::from_secs(2));
        let request = Execute {
            group: GroupId(1),
            work: Bytes::new(),
        };
        let wire = to_wire(request, asked + left);
        assert!(wire.deadline_ms <= 1950, "{}", wire.deadline_ms);
    }
}
