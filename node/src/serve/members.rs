//! Orders about the members: they find the leader from any node, and there they are carried on, one
//! step at a time, until nothing more can be done at once.
//!
//! ```text
//!   any node ──► the leader ──► Group::advance ─┬─ Ask ────► Describe, at the newcomer
//!                                  ▲            ├─ Invite ─► CreateReplica: cluster, secrets, replica
//!                                  └────────────┤
//!                                               └─ catching up, handed over, done ──► the operator
//! ```

use std::error::Error as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rossby_api::admin::{
    MembersOrder, MembersProgress, OperatorError, members_answer, members_request,
};
use rossby_api::peer::Connections;
use rossby_domain::ids::{ClusterId, GroupId, NodeId, ReplicaId};
use rossby_proto::v1;
use rossby_raft::{Advance, ChangeError, Leadership, Member, Newcomer, Order};
use tokio::time::Instant;
use tracing::{info, warn};

use super::init::{describe, failed, place, refused, unavailable};
use super::node::{Membership, Missed, Node, NodeError};

/// How long one call may carry an order on, at the leader and as the node that hands it on waits.
const AT_THE_LEADER: Duration = Duration::from_secs(20);
const ANYWHERE: Duration = Duration::from_secs(25);
/// A node that a cluster calls for longer than this, without an invitation, is missed by it.
const INVITED_WITHIN: Duration = Duration::from_secs(3);

impl Node {
    /// Carries an order about the members on, here or at the leader.
    pub(super) async fn order_members(
        &self,
        group: GroupId,
        order: MembersOrder,
    ) -> Result<MembersProgress, OperatorError> {
        if let Some(removed) = self.removed() {
            let left = matches!(order, MembersOrder::Remove { node, .. } if node == self.id());
            return match left {
                true => Ok(MembersProgress::Done {
                    replica: None,
                    voters: 0,
                }),
                false => Err(refused(removed)),
            };
        }
        let membership = self.member_of(group)?;
        let leader = match membership.group.leadership() {
            Leadership::Here { .. } => return self.lead_members(group, order).await,
            Leadership::Elsewhere(leader) => leader,
            Leadership::Unknown => return Err(unavailable("the group has no leader now")),
        };
        let peers = self.peers()?;
        let connection = peers
            .get(leader.node, &leader.peer_address)
            .await
            .map_err(unavailable)?;
        let mut client = connection.client();
        let asking = client.change_members(members_request(group, &order));
        match tokio::time::timeout(ANYWHERE, asking).await {
            Ok(Ok(response)) => Ok(members_answer(&response.into_inner())),
            // Its own words would not say who went away.
            Ok(Err(status)) if status.source().is_some() => Err(OperatorError::Unknown(format!(
                "node {}, which led, went away before it answered",
                leader.node
            ))),
            Ok(Err(status)) => Err(OperatorError::of_peer(&status)),
            Err(_) => Err(OperatorError::Unknown(
                "the leader does not answer".to_owned(),
            )),
        }
    }

    /// Carries an order about the members on, if this node leads.
    pub(super) async fn lead_members(
        &self,
        group: GroupId,
        order: MembersOrder,
    ) -> Result<MembersProgress, OperatorError> {
        let membership = self.member_of(group)?;
        let deadline = Instant::now() + AT_THE_LEADER;
        if !matches!(order, MembersOrder::Remove { .. }) {
            self.publish_own_address(membership, deadline).await?;
        }
        let mut order = plain(order);
        let mut newcomer = None;
        loop {
            let advanced = membership.group.advance(&order, newcomer, deadline).await;
            match advanced.map_err(of_change)? {
                Advance::Ask => newcomer = Some(self.ask(membership, &mut order).await?),
                Advance::Invite { replica, member } => {
                    self.invite(membership, replica, &member).await?;
                    newcomer = None;
                }
                Advance::CatchingUp {
                    replica,
                    behind,
                    shipped_bytes,
                } => {
                    return Ok(MembersProgress::CatchingUp {
                        replica,
                        behind,
                        shipped_bytes,
                    });
                }
                Advance::HandedOver { leader } => {
                    let leader = leader.node;
                    return Ok(MembersProgress::HandedOver { leader });
                }
                Advance::Done { replica, voters } => {
                    return Ok(MembersProgress::Done { replica, voters });
                }
            }
        }
    }

    fn peers(&self) -> Result<&Connections, OperatorError> {
        self.parts.peers.as_deref().ok_or_else(|| {
            refused(
                "this node has no peer listener, so no other node can reach it: start it with \
                 --peer-listen HOST:PORT, --peer-cert, --peer-key and --peer-ca (see `rossby cert`), \
                 then give the order again",
            )
        })
    }

    /// A node that was a cluster by itself was born without an address for peers.
    async fn publish_own_address(
        &self,
        membership: &Membership,
        deadline: Instant,
    ) -> Result<(), OperatorError> {
        self.peers()?;
        let replica = membership.group.replica();
        let known = membership.group.status().members;
        let unknown = known
            .iter()
            .any(|(known, member, ..)| *known == replica && member.peer_address.is_empty());
        if unknown {
            let own = Order::Add(self.own_member());
            let newcomer = Some(Newcomer::Holds(replica));
            let advanced = membership.group.advance(&own, newcomer, deadline).await;
            advanced.map_err(of_change)?;
        }
        Ok(())
    }

    /// Asks who runs at the newcomer's address, and takes down where clients reach it.
    async fn ask(
        &self,
        membership: &Membership,
        order: &mut Order,
    ) -> Result<Newcomer, OperatorError> {
        let (Order::Add(new) | Order::Replace { new, .. }) = order else {
            return Err(failed("the order brings nobody in"));
        };
        let found = describe(self.peers()?, new.node, &new.peer_address).await?;
        new.client_address = found.client_address;
        if found.cluster_id.is_empty() {
            return Ok(Newcomer::Free);
        }
        let own = membership.place.cluster.id.to_string();
        if found.cluster_id != own {
            return Err(refused(format!(
                "node {} belongs to another cluster, {}: start it with an empty directory",
                new.node, found.cluster_id
            )));
        }
        let held = match found.replica_id {
            0 => found.removed_replica_id,
            held => held,
        };
        Ok(Newcomer::Holds(ReplicaId(held)))
    }

    async fn invite(
        &self,
        membership: &Membership,
        replica: ReplicaId,
        member: &Member,
    ) -> Result<(), OperatorError> {
        let cluster = &membership.place.cluster;
        let secrets = self.load_secrets().map_err(failed)?.encode();
        let request = v1::CreateReplicaRequest {
            cluster_id: cluster.id.to_string(),
            cluster_name: cluster.name.clone(),
            partition_count: u32::from(cluster.partitions.get()),
            group_id: membership.group.id().0,
            replica_id: replica.0,
            cluster_keys: secrets.as_bytes().to_vec().into(),
        };
        place(self.peers()?, member, replica, request).await
    }

    /// Closes the connections to nodes that are no members.
    pub(super) fn close_unneeded(&self) {
        let Some((peers, membership)) = self.parts.peers.as_ref().zip(self.membership()) else {
            return;
        };
        let members = membership.group.status().members;
        let nodes: Vec<NodeId> = members.iter().map(|(_, member, ..)| member.node).collect();
        if self.removed().is_some() || !nodes.is_empty() {
            peers.keep(&nodes);
        }
    }

    /// Writes down that this node's replica was removed, once the group has let go of it.
    ///
    /// # Errors
    /// [`NodeError`] if it can't be written down.
    pub(super) async fn take_leave(&self) -> Result<(), NodeError> {
        let Some(membership) = self.membership() else {
            return Ok(());
        };
        if self.removed().is_some() || !membership.group.is_dismissed() {
            return Ok(());
        }
        let mut data = self.data.lock().await;
        self.bury(&mut data, membership.group.replica())
    }

    /// A cluster that this node, whose directory is empty, does not know counts on it.
    pub(super) fn note_missed(&self, by: NodeId, cluster: ClusterId) -> bool {
        if !self.waits() {
            return false;
        }
        let _ = self.missed.set(Missed {
            by,
            cluster,
            since: Instant::now(),
        });
        if let Some(advice) = self.advice_if_missed()
            && !self.told_missed.swap(true, Ordering::AcqRel)
        {
            warn!("{advice}");
        }
        true
    }

    /// What to do if a cluster counts on this node, whose directory is empty.
    pub(super) fn advice_if_missed(&self) -> Option<String> {
        let Missed { by, cluster, since } = self.missed.get()?;
        if !self.waits() || since.elapsed() < INVITED_WITHIN {
            return None;
        }
        let node = self.id();
        let address = &self.parts.advertised.peers;
        Some(format!(
            "node {by} of cluster {cluster} takes this node for a member, but its directory {} is empty. \
             If its disk was lost, run on a node of the cluster: rossby cluster replace-node {node} \
             {node}={address}. If not, stop this node and start it with its own directory",
            self.parts.config.data.display()
        ))
    }
}

/// The order, without what only the newcomer can tell.
fn plain(order: MembersOrder) -> Order {
    let member = |node: NodeId, peer_address: String| Member {
        node,
        peer_address,
        client_address: String::new(),
    };
    match order {
        MembersOrder::Add(node, address) => Order::Add(member(node, address)),
        MembersOrder::Remove {
            node,
            half_added_only,
        } => Order::Remove {
            node,
            half_added_only,
        },
        MembersOrder::Replace {
            old,
            new,
            peer_address,
        } => Order::Replace {
            old,
            new: member(new, peer_address),
        },
    }
}

fn of_change(error: ChangeError) -> OperatorError {
    let text = error.to_string();
    info!(%error, "an order about the members stopped");
    match error {
        ChangeError::Refused(_) => OperatorError::Refused(text),
        // It is given again, to whoever leads then.
        ChangeError::NotLeader { .. } | ChangeError::NoQuorum => OperatorError::Unavailable(text),
        ChangeError::Unknown => OperatorError::Unknown(text),
        ChangeError::Stopped => OperatorError::Failed(text),
    }
}
