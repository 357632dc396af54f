//! What this node tells and does for its peers, but for links and relayed calls: who it is, how it takes a
//! place in a cluster, and what it knows of the map.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rossby_api::ClusterSecrets;
use rossby_api::admin::{
    BackupSource, MembersOrder, MembersProgress, NodeStatus, Operator as _, OperatorError,
};
use rossby_api::peer::{
    Description, GroupReport, JoinError, Joining, Newcomer, Placement, PlannedStep, Role, Welcome,
};
use rossby_domain::ids::{ClusterId, GroupId, MapVersion, NodeId, ReplicaId};
use rossby_domain::placement::{Change, ClusterMap};
use rossby_storage::datadir::{ClusterIdentity, DataDirectory, HeldReplica};

use super::enter::Place;
use super::founding::Founding;
use super::node::{Node, NodeError};

#[async_trait]
impl Joining for Node {
    fn describe(&self, group: GroupId) -> Result<Description, JoinError> {
        if !self.has_begun() {
            return Err(JoinError::Starting);
        }
        let removed = self.removed.get();
        let membership = self.membership().filter(|_| removed.is_none());
        let cluster = membership.map(|membership| membership.cluster.id);
        let replica = membership.and_then(|membership| membership.replicas.get(group));
        Ok(Description {
            node: self.id(),
            cluster: cluster.or(removed.map(|(cluster, _)| *cluster)),
            client_address: self.parts.advertised.clients.clone(),
            peer_address: self.parts.advertised.peers.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            region: self.parts.config.region.clone(),
            replica: replica.map(|group| group.replica()),
            removed: removed.and_then(|(_, replica)| *replica),
            mark: self.mark.get().cloned(),
        })
    }

    async fn admit(&self, newcomer: Newcomer) -> Result<Welcome, OperatorError> {
        self.take_in(newcomer).await
    }

    async fn change_members(
        &self,
        group: GroupId,
        order: MembersOrder,
    ) -> Result<MembersProgress, OperatorError> {
        self.lead_members(group, order).await
    }

    fn missed(&self, by: NodeId, cluster: ClusterId) -> bool {
        self.note_missed(by, cluster)
    }

    async fn join(&self, placement: Placement) -> Result<(), JoinError> {
        let mut data = self.data.lock().await;
        let secrets = ClusterSecrets::decode(&placement.secrets)
            .map_err(|error| JoinError::Invalid(error.to_string()))?;
        let cluster = ClusterIdentity {
            id: placement.cluster,
            name: placement.cluster_name,
            partitions: placement.partitions,
            secrets_check: Some(self.secrets_check(&secrets).map_err(failed)?),
        };
        self.refuse_if_taken(&data, &cluster)?;
        let place = match placement.role {
            Role::Founder(plan) => self.planned_place(&data, cluster, &plan)?,
            Role::Replica {
                group,
                replica,
                map,
                initialise,
            } => {
                let map = self.keep_for_founding(map, initialise)?;
                invited_place(&data, cluster, (group, replica), map, initialise)?
            }
        };
        self.take_secrets(&secrets)?;
        self.enter(&mut data, place).await.map_err(failed)
    }

    fn map(&self, known: MapVersion, by: NodeId, address: String) -> Option<Arc<ClusterMap>> {
        let keeper = &self.membership()?.map;
        let newest = keeper.newest();
        if known > newest.version() {
            keeper.note_ahead(by, address);
        }
        (newest.version() > known).then_some(newest)
    }

    fn node_status(&self) -> NodeStatus {
        self.status()
    }

    async fn change_map(&self, change: Change) -> Result<MapVersion, OperatorError> {
        self.lead_change(change).await
    }

    fn reports(&self) -> Vec<GroupReport> {
        self.own_reports()
    }

    async fn take_step(&self, group: GroupId, planned: PlannedStep) -> Result<(), OperatorError> {
        self.lead_step(group, planned).await
    }

    async fn checkpoint_of(
        &self,
        group: GroupId,
        as_it_is: bool,
    ) -> Result<BackupSource, OperatorError> {
        self.backup(group, as_it_is).await
    }

    async fn map_changes(&self) -> Result<Bytes, OperatorError> {
        self.own_history().await
    }
}

fn failed(error: NodeError) -> JoinError {
    JoinError::Failed(error.to_string())
}

impl Node {
    /// A node belongs to one cluster, for ever.
    pub(super) fn refuse_if_taken(
        &self,
        data: &DataDirectory,
        cluster: &ClusterIdentity,
    ) -> Result<(), JoinError> {
        let own = data
            .identity()
            .and_then(|identity| identity.cluster.as_ref());
        if let Some(own) = own.filter(|own| *own != cluster) {
            return Err(JoinError::Taken(format!(
                "it belongs to cluster {} already",
                own.id
            )));
        }
        if let Some(removed) = self.removed() {
            return Err(JoinError::Taken(removed));
        }
        let founds = Founding::read(data).map_err(|error| failed(error.into()))?;
        match founds {
            Some(plan) if own.is_none() && plan.cluster != cluster.id => {
                let text = format!("it founds cluster {} itself", plan.cluster);
                Err(JoinError::Taken(text))
            }
            _ => Ok(()),
        }
    }

    /// The place of a node that founds the cluster, by the plan, which it keeps.
    fn planned_place(
        &self,
        data: &DataDirectory,
        cluster: ClusterIdentity,
        plan: &[u8],
    ) -> Result<Place, JoinError> {
        let invalid = |text: &str| JoinError::Invalid(text.to_owned());
        let founding: Founding =
            serde_json::from_slice(plan).map_err(|_| invalid("not a founder's plan"))?;
        let fits = founding.cluster == cluster.id
            && founding.name == cluster.name
            && founding.partitions == cluster.partitions;
        let is_planned = founding.nodes.contains_key(&self.id());
        if !fits || !is_planned || founding.map().is_err() {
            return Err(invalid("not a founder's plan for this node"));
        }
        let held = founding.held_by(self.id());
        match data.identity() {
            // A directory that was made new does not remember what its replicas promised.
            Some(identity) if identity.cluster.is_some() && identity.replicas != held => {
                return Err(JoinError::Taken(format!(
                    "it belongs to cluster {} already, with other replicas",
                    cluster.id
                )));
            }
            Some(identity) if identity.cluster.is_some() => {}
            _ if !founding.knows(self.id(), self.mark.get().map_or("", String::as_str)) => {
                return Err(JoinError::Taken(
                    "its data directory is not the one that the cluster was planned for".to_owned(),
                ));
            }
            _ => founding.write(data).map_err(|error| failed(error.into()))?,
        }
        Ok(Place {
            cluster,
            held,
            founding: Some(founding),
            map: None,
        })
    }

    /// A replica that brings its group to life finds the first members in the map, after a crash too.
    fn keep_for_founding(
        &self,
        map: Arc<ClusterMap>,
        initialise: bool,
    ) -> Result<Arc<ClusterMap>, JoinError> {
        if !initialise {
            return Ok(map);
        }
        let membership = self.membership();
        let keeper = membership
            .map(|membership| &membership.map)
            .ok_or_else(|| JoinError::Invalid("this node belongs to no cluster yet".to_owned()))?;
        keeper.offer(map);
        let written = tokio::task::block_in_place(|| keeper.write_newest());
        written.map_err(|error| JoinError::Failed(format!("the cluster map: {error}")))
    }

    /// Keeps the cluster's secrets. Those of another cluster are never overwritten.
    pub(super) fn take_secrets(&self, secrets: &ClusterSecrets) -> Result<(), JoinError> {
        let path = &self.parts.config.secrets;
        if path.exists() {
            let kept = self.load_secrets().map_err(failed)?;
            if *kept.encode() == *secrets.encode() {
                return Ok(());
            }
            return Err(JoinError::Taken(format!(
                "its file {} holds the secrets of another cluster; move it away first",
                path.display()
            )));
        }
        self.save_secrets(secrets).map_err(failed)
    }
}

/// The place of a node that is taken in, or given one more replica.
fn invited_place(
    data: &DataDirectory,
    cluster: ClusterIdentity,
    (group, replica): (GroupId, ReplicaId),
    map: Arc<ClusterMap>,
    initialise: bool,
) -> Result<Place, JoinError> {
    let identity = data.identity();
    let own = identity.and_then(|identity| identity.replica(group));
    if let Some(own) = own.filter(|own| own.replica != replica) {
        return Err(JoinError::Taken(format!(
            "it belongs to cluster {} already, as replica {} of group {group}",
            cluster.id, own.replica
        )));
    }
    let new = HeldReplica {
        group,
        replica,
        initialise: initialise || own.is_some_and(|own| own.initialise),
    };
    let mut held: BTreeSet<HeldReplica> =
        identity.map_or_else(BTreeSet::new, |identity| identity.replicas.clone());
    held.insert(new);
    Ok(Place {
        cluster,
        held,
        founding: Founding::read(data).map_err(|error| failed(error.into()))?,
        map: Some(map),
    })
}
